//! Plugins on the wire. Secrets of their settings go in and never come out.

use super::members::Members;
use super::time::Moment;
use crate::body::Body;
use poem_openapi::{Enum, Object};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Whether a plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum PluginState {
    /// No version is active: events go by without it.
    Inactive,
    Active,
    /// By the operator. A plugin whose `on_error` is `raw` is passed by; the events of another are held.
    Suspended,
    /// The active version cannot be run; `error` says why. The rest as for `suspended`.
    Broken,
}

/// When a plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum PluginKind {
    /// Once per event.
    Transform,
    /// Once per delivery, and once per answer of an endpoint.
    Delivery,
}

impl PluginKind {
    fn of(kind: kero_gateway::hooks::PluginKind) -> Self {
        match kind {
            kero_gateway::hooks::PluginKind::Transform => Self::Transform,
            kero_gateway::hooks::PluginKind::Delivery => Self::Delivery,
        }
    }
}

/// A plugin.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Plugin {
    pub name: String,
    pub state: PluginState,
    /// The version that is called.
    pub active_version: Option<String>,
    /// What a roll-back goes to.
    pub previous_version: Option<String>,
    /// Why it cannot be run.
    pub error: Option<String>,
    /// Suspended by itself after too many faults; it is tried again by itself.
    pub breaker_open: bool,
    pub kind: PluginKind,
    /// The manifest of the active version, else of the newest.
    pub manifest: Members,
    /// What the manifest asks for.
    pub grants_asked: Members,
    /// What the operator gave; absent before anybody decided. In force is what both name.
    pub grants: Option<Members>,
    pub created_at: Moment,
    pub updated_at: Moment,
}

impl Plugin {
    pub fn new(view: kero_gateway::hooks::PluginView) -> Self {
        let manifest = &view.manifest;
        Self {
            state: match view.state {
                kero_gateway::hooks::PluginState::Inactive => PluginState::Inactive,
                kero_gateway::hooks::PluginState::Active => PluginState::Active,
                kero_gateway::hooks::PluginState::Suspended => PluginState::Suspended,
                kero_gateway::hooks::PluginState::Broken => PluginState::Broken,
            },
            active_version: view.plugin.active,
            previous_version: view.plugin.previous,
            error: view.error,
            breaker_open: view.breaker_open,
            kind: PluginKind::of(manifest.kind),
            grants_asked: members(serde_json::to_value(&manifest.grants).unwrap_or_default()),
            manifest: members(serde_json::to_value(manifest).unwrap_or_default()),
            grants: view.plugin.grants.map(members),
            created_at: view.plugin.created_at.into(),
            updated_at: view.plugin.updated_at.into(),
            name: view.plugin.name,
        }
    }
}

pub(crate) fn members(value: Value) -> Members {
    match value {
        Value::Object(members) => Members(members),
        other => Members(Map::from_iter([("value".to_owned(), other)])),
    }
}

/// A test case that was run.
#[derive(Object)]
pub(crate) struct PluginCase {
    pub case: String,
    /// What differs from the expectation; empty: it passed.
    pub failures: Vec<String>,
}

/// What an upload came to.
#[derive(Object)]
pub(crate) struct PluginUpload {
    pub name: String,
    pub version: String,
    pub kind: String,
    /// The artefact's SHA-256 in hex.
    pub sha256: String,
    /// The artefact's size.
    pub bytes: u64,
    /// Making it a component, compiling and linking.
    pub compile_ms: f64,
    /// The code was compiled before.
    pub from_cache: bool,
    /// The version of the WIT package that it was built against.
    pub wit: String,
    /// What the component imports.
    pub imports: Vec<String>,
    /// What it asks for. Give it with the activation.
    pub grants_asked: Members,
    /// Its own test cases; all of them passed.
    pub cases: Vec<PluginCase>,
}

impl From<kero_gateway::hooks::Uploaded> for PluginUpload {
    fn from(uploaded: kero_gateway::hooks::Uploaded) -> Self {
        let case = |case: kero_gateway::hooks::CaseResult| PluginCase { case: case.case, failures: case.failures };
        Self {
            name: uploaded.name,
            version: uploaded.version,
            kind: uploaded.kind,
            sha256: uploaded.hash,
            bytes: uploaded.bytes,
            compile_ms: uploaded.compile_ms,
            from_cache: uploaded.from_cache,
            wit: uploaded.wit,
            imports: uploaded.imports,
            grants_asked: members(uploaded.grants),
            cases: uploaded.cases.into_iter().map(case).collect(),
        }
    }
}

/// A version of a plugin. It never changes.
#[derive(Object)]
pub(crate) struct PluginVersion {
    pub version: String,
    pub active: bool,
    /// The artefact's SHA-256 in hex.
    pub sha256: String,
    /// The artefact's size.
    pub bytes: u64,
    pub manifest: Members,
    /// What the upload was answered.
    pub report: Members,
    pub created_at: Moment,
}

impl From<kero_gateway::hooks::VersionView> for PluginVersion {
    fn from(view: kero_gateway::hooks::VersionView) -> Self {
        Self {
            version: view.version.version,
            active: view.active,
            sha256: view.version.hash,
            bytes: view.version.bytes,
            manifest: members(view.version.manifest),
            report: members(view.version.report),
            created_at: view.version.created_at.into(),
        }
    }
}

/// How to activate a version. All of it may be left out.
#[derive(Object)]
pub(crate) struct ActivatePlugin {
    /// Gives these grants, in the manifest's words: `{"kv": "1MiB", "http": ["https://api.example.com/*"],
    /// "send": {"per_chat_per_minute": 5}, "drop-ack": true}`. Absent: what was given before holds.
    pub grants: Option<Members>,
    /// Activate it although it asks for more than it is given; what is not given is answered `denied`.
    #[oai(default)]
    pub with_fewer_grants: bool,
}

impl Body for ActivatePlugin {}

/// Grants to give. What is in force is what the version asks for and these allow.
#[derive(Object)]
pub(crate) struct PutPluginGrants {
    /// In the manifest's words; `{}` gives nothing.
    pub grants: Members,
}

impl Body for PutPluginGrants {}

/// Settings to give a plugin.
#[derive(Object)]
pub(crate) struct PutPluginConfig {
    /// All settings. A secret that is absent stays as it is; `null` takes it away.
    #[oai(write_only)]
    pub config: Members,
}

impl Body for PutPluginConfig {}

/// A plugin's settings.
#[derive(Object)]
pub(crate) struct PluginConfig {
    /// Without the secrets.
    pub config: Members,
    /// The names of the secrets that are set.
    pub secrets: Vec<String>,
}

impl PluginConfig {
    pub fn new(view: kero_gateway::hooks::PluginView) -> Self {
        Self { config: members(view.config), secrets: view.secrets }
    }
}

/// A dry run: the version is called once, with nothing behind it.
#[derive(Object)]
pub(crate) struct TestPlugin {
    /// Absent: the active one, else the newest.
    pub version: Option<String>,
    /// The event as a webhook gets it: `event` and `data`, at least. This or `event_id`.
    pub event: Option<Members>,
    /// An event of the journal.
    pub event_id: Option<Uuid>,
    /// Instead of the stored settings.
    #[oai(write_only)]
    pub config: Option<Members>,
    /// Instead of the grants that were given.
    pub grants: Option<Members>,
    /// Stored values, as texts.
    pub kv: Option<Members>,
    /// Answers to the hook's requests: `{"url", "method"?, "status"?, "headers"?, "body"?}`.
    pub http: Option<Vec<Members>>,
    /// Delivery hooks: the request that would be made (`method`, `path`, `headers`, `body`). Absent: the usual one.
    pub request: Option<Members>,
    /// Delivery hooks: an endpoint's answer (`status`, `headers`, `body`); then `judge` is called.
    pub response: Option<Members>,
}

impl Body for TestPlugin {}

impl From<TestPlugin> for kero_gateway::hooks::PluginTrial {
    fn from(test: TestPlugin) -> Self {
        let object = |members: Option<Members>| members.map(|members| Value::Object(members.0));
        Self {
            version: test.version,
            event: object(test.event),
            event_id: test.event_id.map(kero_domain::EventId),
            config: object(test.config),
            grants: object(test.grants),
            kv: object(test.kv),
            http: test.http.map(|http| http.into_iter().map(|stub| Value::Object(stub.0)).collect()),
            request: object(test.request),
            response: object(test.response),
        }
    }
}

/// What a dry run came to.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct PluginTest {
    /// `verdict` with its members, or `request`, or `judgement`; `effects` are what it asked for and what was not done.
    pub outcome: Option<Members>,
    /// What it changed of the event's `data`, or of a delivery's request: the operations of a JSON Patch (RFC 6902).
    pub diff: Vec<Members>,
    /// Why it failed.
    pub error: Option<String>,
    /// What its author can do about that.
    pub advice: Option<String>,
    /// `level` and `text`
    pub logs: Vec<Members>,
    /// The requests that it made: `method`, `url`, `headers`, `body`.
    pub requests: Vec<Members>,
    /// Ticks of 5 ms in which its code ran.
    pub ticks: u32,
    pub wall_ms: f64,
    pub memory_peak: u64,
    /// Bytes of its log that were over the limit and are not there.
    pub log_dropped: u64,
    /// The grants that were missing.
    pub denied: Vec<String>,
}

impl From<kero_gateway::hooks::Report> for PluginTest {
    fn from(report: kero_gateway::hooks::Report) -> Self {
        let json = |value: Result<Value, serde_json::Error>| members(value.unwrap_or_default());
        Self {
            outcome: report.outcome.map(members),
            diff: report.diff.iter().map(|change| json(serde_json::to_value(change))).collect(),
            error: report.error,
            advice: report.advice.map(str::to_owned),
            logs: report.logs.iter().map(|line| json(serde_json::to_value(line))).collect(),
            requests: report.requests.iter().map(|request| json(serde_json::to_value(request))).collect(),
            ticks: report.cost.ticks,
            wall_ms: report.cost.wall.as_secs_f64() * 1000.0,
            memory_peak: report.cost.memory_peak as u64,
            log_dropped: report.cost.log_dropped,
            denied: report.cost.denied.iter().map(|grant| (*grant).to_owned()).collect(),
        }
    }
}

/// A call of a plugin.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct PluginCall {
    pub id: Uuid,
    pub version: String,
    pub instance_id: String,
    pub event_id: Uuid,
    /// Of a delivery hook.
    pub delivery_id: Option<Uuid>,
    /// `pass`, `drop`, `replace`, `route`; `shaped`, `success`, `retry`, `dead`; or how it failed: `trap`, `cpu`,
    /// `wall`, `memory`, `stack`, `output`, `host_calls`, `bad_answer`, `reject`, `link`; `suspended`; `undone` when
    /// it answered and one behind it failed, so that nothing of the chain counts until it is called again.
    pub outcome: String,
    pub at: Moment,
    /// Ticks of 5 ms in which its code ran.
    pub ticks: u32,
    pub wall_ms: f64,
    pub memory_peak: u64,
    /// A reason, an error's text, or what was refused of the answer.
    pub note: Option<String>,
    /// `level` and `text`
    pub logs: Vec<Members>,
    /// Bytes of its log that were over the limit and are not there.
    pub log_dropped: u64,
    /// The grants that were missing.
    pub denied: Vec<String>,
}

impl From<kero_store::HookCall> for PluginCall {
    fn from(call: kero_store::HookCall) -> Self {
        let detail = call.detail.unwrap_or_default();
        let list = |name: &str| detail.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            id: call.id,
            version: call.version,
            instance_id: call.instance_id.into(),
            event_id: call.event.0,
            delivery_id: call.delivery.map(|delivery| delivery.0),
            outcome: call.outcome,
            at: call.at.into(),
            ticks: call.ticks,
            wall_ms: call.wall.as_secs_f64() * 1000.0,
            memory_peak: call.memory_peak,
            note: detail.get("note").and_then(Value::as_str).map(str::to_owned),
            logs: list("logs").into_iter().map(members).collect(),
            log_dropped: detail.get("log_dropped").and_then(Value::as_u64).unwrap_or(0),
            denied: list("denied").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}
