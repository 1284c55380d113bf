//! Trials: a version called with a sample or a stored event, in the real host, with nothing behind it.

use super::upload::{self, invalid};
use super::{admin, registry};
use crate::{Gateway, errors::fault};
use kero_domain::{EventId, Fault, FaultCode};
use kero_hooks::Grants;
use kero_hooks::cases::Case;
use kero_hooks::dry::{Bench, Report};
use kero_store::Event;
use serde_json::{Map, Value, json};

/// What to try.
#[derive(Debug, Clone, Default)]
pub struct PluginTrial {
    /// The active one, else the newest.
    pub version: Option<String>,
    /// As a webhook gets it. This or `event_id`.
    pub event: Option<Value>,
    pub event_id: Option<EventId>,
    /// Instead of the stored settings.
    pub config: Option<Value>,
    /// Instead of the grants that were given.
    pub grants: Option<Value>,
    /// Stored values, as texts.
    pub kv: Option<Value>,
    /// Answers to the hook's requests.
    pub http: Option<Value>,
    /// Delivery hooks: the request that would be made, and the answer to judge.
    pub request: Option<Value>,
    pub response: Option<Value>,
}

impl Gateway {
    /// Calls a version once. Nothing that it asks for is done; the report says what it asked for.
    pub async fn try_plugin(&self, name: &str, trial: PluginTrial) -> Result<Report, Fault> {
        let plugin = self.stored(name).await?;
        let wanted = trial.version.clone().or_else(|| plugin.active.clone());
        let version = match wanted {
            Some(version) => self.store().plugin_version(name, &version).await.map_err(fault)?,
            None => self.store().plugin_versions(name).await.map_err(fault)?.into_iter().next(),
        };
        let version = version.ok_or(FaultCode::PluginVersionNotFound)?;
        let manifest = admin::manifest(&version)?;
        let event = match (trial.event, trial.event_id) {
            (Some(event), None) => event,
            (None, Some(id)) => {
                let found = self.store().event_by_id(id).await.map_err(fault)?;
                envelope(&found.ok_or(FaultCode::EventNotFound)?)
            }
            _ => return Err(Fault::new(FaultCode::ValidationFailed).at("/event", "either event or event_id is needed")),
        };
        let config = trial.config.unwrap_or_else(|| registry::settings(&plugin));
        let given: Grants = match trial.grants {
            Some(grants) => serde_json::from_value(grants)
                .map_err(|why| Fault::new(FaultCode::ValidationFailed).at("/grants", why.to_string()))?,
            None => registry::given(&plugin),
        };
        let mut files = Map::from_iter([
            ("event.json".to_owned(), event),
            ("config.json".to_owned(), config),
            ("grants.json".to_owned(), serde_json::to_value(&given).unwrap_or_default()),
        ]);
        let others = [("kv", trial.kv), ("http", trial.http), ("request", trial.request), ("response", trial.response)];
        for (member, value) in others {
            if let Some(value) = value {
                files.insert(format!("{member}.json"), value);
            }
        }
        let case = Case::of("trial", |file| Ok(files.get(file).map(|value| value.to_string().into_bytes())));
        let case = case.map_err(|error| {
            let member = error.file.trim_end_matches(".json");
            Fault::new(FaultCode::ValidationFailed).at(format!("/{member}"), error.why)
        })?;
        let artefact = self.store().plugin_artefact(name, &version.version).await.map_err(fault)?;
        let artefact = artefact.ok_or(FaultCode::PluginVersionNotFound)?;
        let host = self.inner.hooks.host().await.map_err(upload::no_host)?;
        let compiled = upload::compile(self, &manifest, artefact).await.map_err(|error| invalid(error.to_string()))?;
        let report =
            Bench::new(manifest, compiled).case(host, &case).await.map_err(|error| invalid(error.to_string()))?;
        // there is no expectation that it could fail
        Ok(Report { failures: Vec::new(), ..report })
    }
}

fn envelope(event: &Event) -> Value {
    json!({
        "event": event.kind, "instance_id": event.instance_id.as_str(), "timestamp": event.at.secs(),
        "id": event.id.to_string(), "data": event.data,
    })
}
