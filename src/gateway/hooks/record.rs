//! What calls leave: rows, metrics, lines in the log.

use crate::Gateway;
use kero_domain::{
    Address, Content, CorrelationId, DeliveryId, HeldReason, InstanceStatus, JobId, JobState, MessageId, Priority,
    Timestamp,
};
use kero_hooks::run::Record;
use kero_hooks::{Effects, KvChange as Change};
use kero_store::{HookSend, KvChange, KvWrite, NewHookCall, NewJob};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Calls as they are kept, and counted.
pub(super) fn calls(records: &[Record], event: &str, delivery: Option<DeliveryId>) -> Vec<NewHookCall> {
    breakers(records);
    records.iter().map(|record| call(record, event, delivery)).collect()
}

/// The outcome of a hook that was not called because its breaker is open.
const SUSPENDED: &str = "suspended";

/// Those of a chain of which nothing counts: only calls that were made.
pub(super) fn made(records: &[Record], event: &str, delivery: Option<DeliveryId>) -> Vec<NewHookCall> {
    breakers(records);
    records.iter().filter(|record| record.outcome != SUSPENDED).map(|record| call(record, event, delivery)).collect()
}

fn breakers(records: &[Record]) {
    for record in records {
        let open = f64::from(u8::from(record.outcome == SUSPENDED));
        metrics::gauge!("kero_hooks_breaker_open", "plugin" => record.plugin.clone()).set(open);
    }
}

fn call(record: &Record, event: &str, delivery: Option<DeliveryId>) -> NewHookCall {
    let (plugin, version) = (record.plugin.clone(), record.version.clone());
    let cost = &record.cost;
    let labels = [("plugin", plugin.clone()), ("version", version.clone()), ("outcome", record.outcome.to_owned())];
    metrics::counter!("kero_hooks_calls_total", &labels).increment(1);
    if record.outcome != SUSPENDED {
        metrics::counter!("kero_hooks_host_calls_total", "plugin" => plugin.clone()).increment(cost.host_calls.into());
        metrics::histogram!("kero_hooks_call_seconds", "plugin" => plugin.clone()).record(cost.wall.as_secs_f64());
        metrics::counter!("kero_hooks_ticks_total", "plugin" => plugin.clone()).increment(cost.ticks.into());
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("kero_hooks_memory_peak_bytes", "plugin" => plugin.clone()).set(cost.memory_peak as f64);
    }
    for line in &record.logs {
        // a guest may log what the event says: below info
        tracing::debug!(plugin, version, event, level = ?line.level, text = line.text, "a hook's log");
    }
    NewHookCall {
        plugin,
        version,
        delivery,
        outcome: record.outcome.to_owned(),
        at: Timestamp::now(),
        ticks: cost.ticks,
        wall: cost.wall,
        memory_peak: cost.memory_peak as u64,
        detail: detail(record),
    }
}

/// What is sealed; nothing for a call without a word.
fn detail(record: &Record) -> Option<Value> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
    if let Some(note) = &record.note {
        put("note", note.as_str().into());
    }
    if !record.logs.is_empty() {
        put("logs", json!(record.logs));
    }
    if !record.cost.denied.is_empty() {
        put("denied", json!(record.cost.denied));
    }
    if record.cost.log_dropped > 0 {
        put("log_dropped", record.cost.log_dropped.into());
    }
    (!members.is_empty()).then_some(Value::Object(members))
}

/// Writes to storage in the store's words.
pub(super) fn kv(effects: &Effects) -> Vec<KvWrite> {
    let ttl = |seconds: Option<u32>| seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let write = |write: &kero_hooks::KvWrite| KvWrite {
        plugin: write.plugin.clone(),
        key: write.key.clone(),
        change: match &write.change {
            Change::Set { value, ttl_seconds } => KvChange::Set { value: value.clone(), ttl: ttl(*ttl_seconds) },
            Change::Delete => KvChange::Delete,
            Change::Add { by, ttl_seconds } => KvChange::Add { by: *by, ttl: ttl(*ttl_seconds) },
        },
    };
    effects.kv.iter().map(write).collect()
}

/// Messages as jobs. An instance that is not paired, or has as many jobs as it may have, sends none.
pub(super) fn sends(
    gateway: &Gateway,
    effects: &Effects,
    handle: Option<&crate::instances::Handle>,
    request_id: Option<&str>,
) -> Vec<HookSend> {
    if effects.sends.is_empty() {
        return Vec::new();
    }
    let Some((handle, view)) = handle.map(|handle| (handle, handle.view())).filter(|(_, view)| view.paired) else {
        tracing::warn!(count = effects.sends.len(), "messages of hooks are left out: the instance is not paired");
        return Vec::new();
    };
    if !gateway.has_room(handle.pk) {
        tracing::warn!(instance = %handle.id, "messages of hooks are left out: too many jobs wait");
        return Vec::new();
    }
    let online = view.status == InstanceStatus::Connected;
    let now = Timestamp::now();
    let send = |send: &kero_hooks::StagedSend| {
        // the host checked both
        let chat = Address::parse(&send.chat).ok()?.jid();
        let correlation_id: CorrelationId = send.correlation_id.parse().ok()?;
        let job = NewJob {
            id: JobId::new(),
            instance_pk: handle.pk,
            correlation_id,
            message_id: MessageId::mint(),
            chat,
            priority: Priority::Interactive,
            content: Content::text(send.text.clone()),
            asynchronous: true,
            send_at: None,
            state: if online { JobState::Queued } else { JobState::Held },
            held: (!online).then_some(HeldReason::Offline),
            request_id: request_id.map(str::to_owned),
            created_at: now,
            idempotency: None,
        };
        Some(HookSend { plugin: send.plugin.clone(), job, per_minute: send.per_minute })
    };
    effects.sends.iter().filter_map(send).collect()
}
