//! What calls leave: rows, metrics, lines in the log.

use crate::Gateway;
use kero_domain::{
    Address, Content, CorrelationId, DeliveryId, EventId, HeldReason, InstanceStatus, JobId, JobState, MessageId,
    Priority, Timestamp,
};
use kero_hooks::run::Record;
use kero_hooks::{Effects, HostCalls, KvChange as Change};
use kero_store::{HookSend, KvChange, KvWrite, NewHookCall, NewHookChain, NewJob};
use metrics::{Counter, Gauge, Histogram};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The outcome of a hook that was not called: its breaker is open, or too many stand before it.
const SUSPENDED: &str = "suspended";

/// The metrics of each plugin; to find them by their names for each call would cost more than the call.
#[derive(Default)]
pub(super) struct Meters(Mutex<HashMap<String, Meter>>);

struct Meter {
    seconds: Histogram,
    ticks: Counter,
    memory_peak: Gauge,
    /// By import and result.
    host_calls: Vec<(&'static str, &'static str, Counter)>,
    /// By version and outcome.
    calls: Vec<(String, &'static str, Counter)>,
}

impl Meter {
    fn new(plugin: &str) -> Self {
        let plugin = plugin.to_owned();
        Self {
            seconds: metrics::histogram!("kero_hooks_call_seconds", "plugin" => plugin.clone()),
            ticks: metrics::counter!("kero_hooks_ticks_total", "plugin" => plugin.clone()),
            memory_peak: metrics::gauge!("kero_hooks_memory_peak_bytes", "plugin" => plugin),
            host_calls: Vec::new(),
            calls: Vec::new(),
        }
    }

    fn count(&mut self, record: &Record) {
        let cost = &record.cost;
        let known = self
            .calls
            .iter()
            .rev()
            .find(|(version, outcome, _)| (*version == record.version) && *outcome == record.outcome);
        if let Some((_, _, calls)) = known {
            calls.increment(1);
        } else {
            let (plugin, version) = (record.plugin.clone(), record.version.clone());
            let labels = [("plugin", plugin), ("version", version.clone()), ("outcome", record.outcome.to_owned())];
            let calls = metrics::counter!("kero_hooks_calls_total", &labels);
            calls.increment(1);
            self.calls.push((version, record.outcome, calls));
        }
        if record.outcome != SUSPENDED {
            cost.imports.iter().for_each(|calls| self.count_host_calls(&record.plugin, calls));
            self.seconds.record(cost.wall.as_secs_f64());
            self.ticks.increment(cost.ticks.into());
            #[allow(clippy::cast_precision_loss, reason = "a gauge")]
            self.memory_peak.set(cost.memory_peak as f64);
        }
    }
}

impl Meter {
    fn count_host_calls(&mut self, plugin: &str, calls: &HostCalls) {
        let count = calls.count.into();
        let known =
            self.host_calls.iter().find(|(import, result, _)| (*import, *result) == (calls.import, calls.result));
        if let Some((_, _, counter)) = known {
            counter.increment(count);
            return;
        }
        let labels = [("plugin", plugin.to_owned()), ("import", calls.import.into()), ("result", calls.result.into())];
        let counter = metrics::counter!("kero_hooks_host_calls_total", &labels);
        counter.increment(count);
        self.host_calls.push((calls.import, calls.result, counter));
    }
}

impl Meters {
    fn of(&self, plugin: &str, then: impl FnOnce(&mut Meter)) {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match meters.get_mut(plugin) {
            Some(meter) => then(meter),
            None => then(meters.entry(plugin.to_owned()).or_insert_with(|| Meter::new(plugin))),
        }
    }
}

/// A chain's calls as they are kept, and counted; nothing when there are none.
pub(super) fn chain(
    meters: &Meters,
    records: Vec<Record>,
    event: EventId,
    delivery: Option<DeliveryId>,
) -> Option<NewHookChain> {
    records.iter().for_each(|record| meters.of(&record.plugin, |meter| meter.count(record)));
    let calls: Vec<NewHookCall> = records.into_iter().map(|record| call(record, event)).collect();
    (!calls.is_empty()).then(|| NewHookChain { delivery, at: Timestamp::now(), calls })
}

/// The same of a chain of which nothing counts: only calls that were made.
pub(super) fn made(
    meters: &Meters,
    records: Vec<Record>,
    event: EventId,
    delivery: Option<DeliveryId>,
) -> Option<NewHookChain> {
    let made = records.into_iter().filter(|record| record.outcome != SUSPENDED).collect();
    chain(meters, made, event, delivery)
}

fn call(record: Record, event: EventId) -> NewHookCall {
    for line in &record.logs {
        // a guest may log what the event says: below info
        let (plugin, version) = (&record.plugin, &record.version);
        tracing::debug!(plugin, version, %event, level = ?line.level, text = line.text, "a hook's log");
    }
    let detail = detail(&record);
    NewHookCall {
        plugin: record.plugin,
        version: record.version,
        outcome: record.outcome,
        ticks: record.cost.ticks,
        wall: record.cost.wall,
        memory_peak: record.cost.memory_peak as u64,
        detail,
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
