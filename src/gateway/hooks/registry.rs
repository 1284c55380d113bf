//! Which plugins are in place. A change puts a new table there: calls that have begun end on the old one.

use super::Hooks;
use crate::Gateway;
use kero_domain::{EventKind, InstanceId};
use kero_hooks::ack;
use kero_hooks::chain;
use kero_hooks::policy::Policy;
use kero_hooks::{Event, Hook, Kind, Manifest};
use kero_store::{Plugin, PluginVersion, StoreError};
use serde_json::{Map, Value};
use std::sync::{Arc, PoisonError};

/// All active plugins.
#[derive(Default)]
pub(super) struct Table {
    /// Grows with every change.
    pub(super) generation: u64,
    pub(super) seats: Vec<Arc<Seat>>,
}

/// An active plugin.
pub(super) struct Seat {
    pub(super) manifest: Manifest,
    /// Whether its grants, in force, hold `drop-ack`.
    drop_ack: bool,
    pub(super) place: Place,
}

pub(super) enum Place {
    Ready(Arc<Hook>),
    /// By the operator.
    Suspended,
    /// It cannot be run: an upgrade of the gateway, or a runner that is not there.
    Broken(String),
}

/// The hooks that an event meets.
pub(super) enum Chain {
    Run {
        hooks: Vec<Arc<Hook>>,
        /// Suspended ones that fail open.
        passed_by: Vec<String>,
    },
    /// A suspended one that must not fail open.
    Held { by: String, reason: String },
}

impl Table {
    pub(super) fn transforms(&self, instance: &InstanceId) -> bool {
        self.seats.iter().any(|seat| {
            seat.manifest.kind == Kind::Transform
                && seat.manifest.instances.iter().any(|pattern| pattern.matches(instance.as_str()))
        })
    }

    /// Whether a delivery hook may be called for an instance's deliveries to an endpoint.
    pub(super) fn shapes(&self, kind: EventKind, instance: &InstanceId, endpoint: &str) -> bool {
        self.seats.iter().any(|seat| {
            seat.manifest.kind == Kind::Delivery
                && seat.manifest.wants(kind, instance.as_str())
                && seat.manifest.endpoints.iter().any(|pattern| pattern.matches(endpoint))
        })
    }

    /// Whether any plugin may send: then events are looked at for who caused them.
    pub(super) fn sends(&self) -> bool {
        self.seats.iter().any(|seat| seat.manifest.grants.send.is_some())
    }

    pub(super) fn for_event(&self, event: &Event) -> Chain {
        self.chain(
            event,
            |seat| seat.manifest.kind == Kind::Transform && !event.is_caused_by(&seat.manifest),
            |hooks| chain::for_event(hooks, event),
        )
    }

    pub(super) fn for_delivery(&self, event: &Event, endpoint: &str) -> Chain {
        let here = |seat: &Seat| seat.manifest.endpoints.iter().any(|pattern| pattern.matches(endpoint));
        self.chain(
            event,
            |seat| seat.manifest.kind == Kind::Delivery && here(seat) && !event.is_caused_by(&seat.manifest),
            |hooks| chain::for_delivery(hooks, event, endpoint),
        )
    }

    fn chain(
        &self,
        event: &Event,
        concerned: impl Fn(&Seat) -> bool,
        order: impl Fn(&[Arc<Hook>]) -> Vec<Arc<Hook>>,
    ) -> Chain {
        let mut ready = Vec::new();
        let mut passed_by = Vec::new();
        for seat in &self.seats {
            let (why, kind) = match &seat.place {
                Place::Ready(hook) => {
                    ready.push(Arc::clone(hook));
                    continue;
                }
                Place::Suspended => ("suspended by the operator", "suspended"),
                Place::Broken(why) => (why.as_str(), "link"),
            };
            let name = &seat.manifest.name;
            if !seat.manifest.wants(event.kind, &event.instance) || !concerned(seat) {
                continue;
            }
            if ack::policy(event, seat.manifest.on_error, seat.drop_ack) == Policy::Raw {
                passed_by.push(format!("{name}/{kind}"));
            } else {
                return Chain::Held { by: name.to_string(), reason: why.to_owned() };
            }
        }
        Chain::Run { hooks: order(&ready), passed_by }
    }
}

impl Hooks {
    /// Puts a plugin's seat in place, or takes it away, and lets what it held go on.
    pub(super) fn put(&self, gateway: &Gateway, name: &str, seat: Option<Seat>) {
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let mut seats: Vec<Arc<Seat>> =
                table.seats.iter().filter(|seat| seat.manifest.name.as_str() != name).cloned().collect();
            seats.extend(seat.map(Arc::new));
            *table = Arc::new(Table { generation: table.generation + 1, seats });
        }
        super::gauges::show(gateway);
        for handle in gateway.inner.instances.all() {
            gateway.inner.fanout.dirty(handle.pk);
        }
        super::delivery::let_go(gateway);
    }

    pub(super) fn seat_of(&self, name: &str) -> Option<Arc<Seat>> {
        self.table().seats.iter().find(|seat| seat.manifest.name.as_str() == name).cloned()
    }
}

/// A plugin's settings as its hooks get them.
pub(super) fn settings(plugin: &Plugin) -> Value {
    plugin.config.clone().unwrap_or_else(|| Value::Object(Map::new()))
}

pub(super) fn given(plugin: &Plugin) -> kero_hooks::Grants {
    plugin.grants.clone().and_then(|grants| serde_json::from_value(grants).ok()).unwrap_or_default()
}

/// Makes the seat of a plugin's version; the error is for the operator.
pub(super) async fn seat(gateway: &Gateway, plugin: &Plugin, version: &PluginVersion) -> Result<Seat, String> {
    let manifest = Manifest::from_json(version.manifest.clone()).map_err(|error| error.to_string())?;
    let given = given(plugin);
    let drop_ack = manifest.grants.meet(&given).drop_ack;
    if plugin.suspended {
        return Ok(Seat { manifest, drop_ack, place: Place::Suspended });
    }
    let artefact = gateway.store().plugin_artefact(&version.plugin, &version.version).await;
    let artefact = artefact.map_err(|error| error.to_string())?.ok_or("the artefact is gone")?;
    let host = gateway.inner.hooks.host().await.map_err(|error| error.to_string())?;
    let compiled = super::upload::compile(gateway, &manifest, artefact).await.map_err(|error| error.to_string())?;
    let hook =
        Hook::new(host, manifest.clone(), compiled, &given, settings(plugin)).map_err(|error| error.to_string())?;
    host.check(&hook).await.map_err(|error| error.to_string())?;
    Ok(Seat { manifest, drop_ack, place: Place::Ready(hook) })
}

/// The same, whatever happens: a plugin that cannot be run holds its events, and the log says why.
pub(super) async fn seat_or_broken(gateway: &Gateway, plugin: &Plugin, version: &PluginVersion) -> Option<Seat> {
    match seat(gateway, plugin, version).await {
        Ok(seat) => Some(seat),
        Err(why) => {
            tracing::error!(plugin = plugin.name, version = version.version, why, "a plugin cannot be run");
            let manifest = Manifest::from_json(version.manifest.clone()).ok()?;
            let drop_ack = manifest.grants.meet(&given(plugin)).drop_ack;
            Some(Seat { manifest, drop_ack, place: Place::Broken(why) })
        }
    }
}

/// Puts the active plugins of the last run in place. Nothing is fanned out before.
pub(crate) async fn load(gateway: &Gateway) -> Result<(), StoreError> {
    for plugin in gateway.store().plugins().await? {
        let Some(active) = &plugin.active else { continue };
        let Some(version) = gateway.store().plugin_version(&plugin.name, active).await? else { continue };
        if let Some(seat) = seat_or_broken(gateway, &plugin, &version).await {
            gateway.inner.hooks.put(gateway, &plugin.name, Some(seat));
        }
    }
    Ok(())
}
