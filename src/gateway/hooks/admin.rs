//! What the operator does with plugins: look, activate, suspend, roll back, grant, set, delete.

use super::registry::{self, Place};
use super::upload::invalid;
use crate::{Gateway, errors::fault};
use kero_domain::{EventId, Fault, FaultCode};
use kero_hooks::{Grants, Manifest};
use kero_store::{HookCall, Plugin, PluginChange, PluginVersion};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A plugin's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginState {
    /// No version is called.
    Inactive,
    Active,
    /// By the operator: `raw` plugins are passed by, the events of others are held.
    Suspended,
    /// The active version cannot be run; the rest as for `Suspended`.
    Broken,
}

/// A plugin as the operator sees it.
#[derive(Debug, Clone)]
pub struct PluginView {
    pub plugin: Plugin,
    pub state: PluginState,
    /// Why it cannot be run.
    pub error: Option<String>,
    /// Suspended by itself, after too many faults.
    pub breaker_open: bool,
    /// Of the active version, else of the newest.
    pub manifest: Manifest,
    /// The settings without the secrets.
    pub config: Value,
    /// The secrets that are set.
    pub secrets: Vec<String>,
}

/// A version as the operator sees it.
#[derive(Debug, Clone)]
pub struct VersionView {
    pub version: PluginVersion,
    pub active: bool,
}

/// How to activate.
#[derive(Debug, Clone, Default)]
pub struct Activation {
    /// Gives these grants, too; without, those that were given before hold.
    pub grants: Option<Value>,
    /// Although the version asks for more than it is given.
    pub with_fewer_grants: bool,
}

impl Gateway {
    pub async fn plugins(&self) -> Result<Vec<PluginView>, Fault> {
        let mut views = Vec::new();
        for plugin in self.store().plugins().await.map_err(fault)? {
            views.push(self.view(plugin).await?);
        }
        Ok(views)
    }

    pub async fn plugin(&self, name: &str) -> Result<PluginView, Fault> {
        let plugin = self.stored(name).await?;
        self.view(plugin).await
    }

    /// Newest first.
    pub async fn plugin_versions(&self, name: &str) -> Result<Vec<VersionView>, Fault> {
        let plugin = self.stored(name).await?;
        let versions = self.store().plugin_versions(name).await.map_err(fault)?;
        let view =
            |version: PluginVersion| VersionView { active: plugin.active.as_ref() == Some(&version.version), version };
        Ok(versions.into_iter().map(view).collect())
    }

    /// Has a version called from now on. Calls that have begun end on the one before; no event is lost or skipped.
    pub async fn activate_plugin(
        &self,
        name: &str,
        version: &str,
        activation: Activation,
    ) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        let plugin = self.stored(name).await?;
        self.activate(plugin, version, activation).await
    }

    /// Activates the version that was active before.
    pub async fn roll_back_plugin(&self, name: &str) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        let plugin = self.stored(name).await?;
        let Some(previous) = plugin.previous.clone() else {
            return Err(Fault::new(FaultCode::PluginNotActive).with_detail("No other version was active before."));
        };
        self.activate(plugin, &previous, Activation { grants: None, with_fewer_grants: true }).await
    }

    async fn activate(&self, mut plugin: Plugin, version: &str, how: Activation) -> Result<PluginView, Fault> {
        let name = plugin.name.clone();
        let version = self.store().plugin_version(&name, version).await.map_err(fault)?;
        let version = version.ok_or(FaultCode::PluginVersionNotFound)?;
        let manifest = manifest(&version)?;
        if let Some(grants) = &how.grants {
            let given = read_grants(grants, "/grants")?;
            plugin.grants = serde_json::to_value(&given).ok();
        }
        let given = registry::given(&plugin);
        if !manifest.grants.within(&given) && !how.with_fewer_grants {
            return Err(Fault::new(FaultCode::PluginGrantsMissing)
                .with("asked", serde_json::to_value(&manifest.grants).unwrap_or_default())
                .with("given", serde_json::to_value(&given).unwrap_or_default()));
        }
        check_config(&manifest, &registry::settings(&plugin), FaultCode::PluginConfigInvalid, "")?;
        plugin.suspended = false;
        let seat = registry::seat(self, &plugin, &version).await.map_err(invalid)?;
        let before = plugin.active.clone().filter(|before| *before != version.version);
        let change = PluginChange {
            active: Some(Some(version.version.clone())),
            previous: before.map(Some),
            suspended: Some(false),
            grants: plugin.grants.clone(),
            config: None,
        };
        self.store().update_plugin(&name, change).await.map_err(fault)?;
        self.inner.hooks.put(self, &name, Some(seat));
        tracing::info!(plugin = name, version = version.version, hash = version.hash, "a plugin was activated");
        self.plugin(&name).await
    }

    /// No longer calls it: events go by without it.
    pub async fn deactivate_plugin(&self, name: &str) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        let active = self.active(name).await?;
        let change = PluginChange {
            active: Some(None),
            previous: Some(Some(active)),
            suspended: Some(false),
            ..Default::default()
        };
        self.store().update_plugin(name, change).await.map_err(fault)?;
        self.inner.hooks.put(self, name, None);
        tracing::info!(plugin = name, "a plugin was deactivated");
        self.plugin(name).await
    }

    /// Stops calling it for now: a `raw` plugin is passed by, the events of another are held until it resumes.
    pub async fn suspend_plugin(&self, name: &str) -> Result<PluginView, Fault> {
        self.set_suspended(name, true).await
    }

    pub async fn resume_plugin(&self, name: &str) -> Result<PluginView, Fault> {
        self.set_suspended(name, false).await
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        self.active(name).await?;
        let change = PluginChange { suspended: Some(suspended), ..Default::default() };
        self.store().update_plugin(name, change).await.map_err(fault)?;
        self.replace_seat(name).await?;
        tracing::info!(plugin = name, suspended, "a plugin was suspended or resumed");
        self.plugin(name).await
    }

    /// Gives grants; what is in force is what the version asks for and these allow.
    pub async fn grant_plugin(&self, name: &str, grants: &Value) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        self.stored(name).await?;
        let given = read_grants(grants, "")?;
        let change = PluginChange { grants: serde_json::to_value(&given).ok(), ..Default::default() };
        self.store().update_plugin(name, change).await.map_err(fault)?;
        self.replace_seat(name).await?;
        tracing::info!(plugin = name, "a plugin's grants were changed");
        self.plugin(name).await
    }

    /// Sets all settings. A secret that is absent stays as it is; `null` takes it away.
    pub async fn configure_plugin(&self, name: &str, config: Map<String, Value>) -> Result<PluginView, Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        let plugin = self.stored(name).await?;
        let manifest = self.current_manifest(&plugin).await?;
        let mut merged = config;
        let stored = registry::settings(&plugin);
        for secret in manifest.secret_settings() {
            match merged.get(secret) {
                None => {
                    if let Some(value) = stored.get(secret) {
                        merged.insert(secret.to_owned(), value.clone());
                    }
                }
                Some(Value::Null) => {
                    merged.shift_remove(secret);
                }
                Some(_) => {}
            }
        }
        let config = Value::Object(merged);
        check_config(&manifest, &config, FaultCode::ValidationFailed, "")?;
        let change = PluginChange { config: Some(config), ..Default::default() };
        self.store().update_plugin(name, change).await.map_err(fault)?;
        if plugin.active.is_some() {
            self.replace_seat(name).await?;
        }
        tracing::info!(plugin = name, "a plugin's settings were changed");
        self.plugin(name).await
    }

    /// With its versions, storage and calls; events go by without it.
    pub async fn delete_plugin(&self, name: &str) -> Result<(), Fault> {
        let _turn = self.inner.hooks.turn.lock().await;
        // out of place first, so that nothing is stored for it afterwards
        self.stored(name).await?;
        self.inner.hooks.put(self, name, None);
        if !self.store().delete_plugin(name).await.map_err(fault)? {
            return Err(FaultCode::PluginNotFound.into());
        }
        tracing::info!(plugin = name, "a plugin was deleted");
        Ok(())
    }

    /// Newest first, before the call with this id.
    pub async fn plugin_calls(
        &self,
        name: &str,
        outcomes: &[String],
        event: Option<EventId>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<HookCall>, Fault> {
        self.stored(name).await?;
        self.store().hook_calls(name, outcomes, event, before, limit).await.map_err(fault)
    }

    pub(super) async fn stored(&self, name: &str) -> Result<Plugin, Fault> {
        self.store().plugin(name).await.map_err(fault)?.ok_or_else(|| FaultCode::PluginNotFound.into())
    }

    async fn active(&self, name: &str) -> Result<String, Fault> {
        self.stored(name).await?.active.ok_or_else(|| FaultCode::PluginNotActive.into())
    }

    /// Of the active version, else of the newest.
    async fn current_manifest(&self, plugin: &Plugin) -> Result<Manifest, Fault> {
        let version = match &plugin.active {
            Some(active) => self.store().plugin_version(&plugin.name, active).await.map_err(fault)?,
            None => self.store().plugin_versions(&plugin.name).await.map_err(fault)?.into_iter().next(),
        };
        manifest(&version.ok_or(FaultCode::PluginVersionNotFound)?)
    }

    async fn view(&self, mut plugin: Plugin) -> Result<PluginView, Fault> {
        let manifest = self.current_manifest(&plugin).await?;
        let seat = self.inner.hooks.seat_of(&plugin.name);
        let (state, error, breaker_open) = match seat.as_ref().map(|seat| &seat.place) {
            None => (PluginState::Inactive, None, false),
            Some(Place::Ready(hook)) => (PluginState::Active, None, hook.breaker().is_open()),
            Some(Place::Suspended) => (PluginState::Suspended, None, false),
            Some(Place::Broken(why)) => (PluginState::Broken, Some(why.clone()), false),
        };
        let mut config = registry::settings(&plugin);
        plugin.config = None;
        let mut secrets = Vec::new();
        if let Some(members) = config.as_object_mut().filter(|members| !members.is_empty()) {
            // what any version called a secret was stored as one, whatever the active one says
            for version in self.store().plugin_versions(&plugin.name).await.map_err(fault)? {
                let Ok(of_version) = Manifest::from_json(version.manifest) else { continue };
                for secret in of_version.secret_settings() {
                    if members.shift_remove(secret).is_some() {
                        secrets.push(secret.to_owned());
                    }
                }
            }
        }
        Ok(PluginView { plugin, state, error, breaker_open, manifest, config, secrets })
    }
}

pub(super) fn manifest(version: &PluginVersion) -> Result<Manifest, Fault> {
    Manifest::from_json(version.manifest.clone()).map_err(|error| invalid(error.to_string()))
}

fn read_grants(grants: &Value, pointer: &str) -> Result<Grants, Fault> {
    serde_json::from_value(grants.clone())
        .map_err(|why| Fault::new(FaultCode::ValidationFailed).at(pointer, why.to_string()))
}

/// Complaints name places, never values: they may be secrets.
pub(super) fn check_config(manifest: &Manifest, config: &Value, code: FaultCode, pointer: &str) -> Result<(), Fault> {
    let complaints = manifest.check_config(config);
    if complaints.is_empty() {
        return Ok(());
    }
    let fault = Fault::new(code);
    Err(complaints.into_iter().fold(fault, |fault, (at, what)| fault.at(format!("{pointer}{at}"), what)))
}
