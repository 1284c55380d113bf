//! The fan-out of an instance that has transforms: chains run outside of any transaction, then everything that they
//! came to is one.
//!
//! In order per chat, in parallel over chats. A chat whose chain has to wait is held, in memory; the others go on.

use super::{record, registry::Chain, setting};
use crate::instances::Handle;
use crate::{Gateway, crash};
use futures_util::StreamExt;
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use kero_hooks::chain::{End, Outcome, Tries};
use kero_hooks::run::{Chained, Record};
use kero_hooks::{Effects, Setting};
use kero_store::{Endpoint, Event, FanOut, Hooked, NewDelivery, NewHookCall, StoreError, Verdict};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events of one round.
const BATCH: usize = 128;
/// Rows of one look for events that may run.
const LOOK: u64 = 2_000;
/// Chats of an instance whose chains run at once.
const CHATS: usize = 8;
/// A round starts no further chain after this time, so that a slow hook in one chat does not keep the others' events.
const ROUND: Duration = Duration::from_millis(20);
/// How long events wait for a plugin that is suspended or cannot be run, before they are looked at again.
const HELD: Duration = Duration::from_secs(30);

/// What the fan-out of an instance knows beside the rows. Lost without harm.
#[derive(Default)]
pub(super) struct Lines {
    generation: u64,
    held: HashMap<String, Hold>,
    /// All pending events up to this row are of held chats.
    cursor: i64,
    /// When it is woken for a held chat.
    wake_at: Option<Timestamp>,
}

struct Hold {
    until: Timestamp,
    /// Which event has been tried so often.
    row: i64,
    tries: Tries,
}

/// What came of one event.
enum Planned {
    Commit(Box<FanOut>),
    Hold { until: Timestamp, tries: Tries, calls: Vec<NewHookCall> },
}

/// One round. True when nothing is left that may run now.
pub(crate) async fn fan_out(gateway: &Gateway, handle: &Handle, endpoints: &[Endpoint]) -> Result<bool, StoreError> {
    let hooks = &gateway.inner.hooks;
    let mut lines = hooks.lines().remove(&handle.pk).unwrap_or_default();
    let round = round(gateway, handle, endpoints, &mut lines).await;
    if !matches!(round, Err(StoreError::NotFound)) {
        wake_for(gateway, handle.pk, &mut lines);
        hooks.lines().insert(handle.pk, lines);
    }
    round
}

/// Has the fan-out woken when the first held chat is due.
fn wake_for(gateway: &Gateway, pk: i64, lines: &mut Lines) {
    let Some(due) = lines.held.values().map(|hold| hold.until).min() else { return };
    if lines.wake_at.is_some_and(|at| at <= due && at > Timestamp::now()) {
        return;
    }
    lines.wake_at = Some(due);
    let (fanout, stopping) = (gateway.inner.fanout.clone(), gateway.inner.stopping.clone());
    gateway.inner.tasks.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(Timestamp::now().until(due)) => fanout.dirty(pk),
        }
    });
}

async fn round(
    gateway: &Gateway,
    handle: &Handle,
    endpoints: &[Endpoint],
    lines: &mut Lines,
) -> Result<bool, StoreError> {
    let table = gateway.inner.hooks.table();
    let now = Timestamp::now();
    if lines.generation != table.generation {
        // what held them may be another now
        lines.held.values_mut().for_each(|hold| hold.until = now);
        lines.generation = table.generation;
    }
    if lines.held.values().any(|hold| hold.until <= now) {
        lines.cursor = 0;
    }
    let (rows, looked_at_all) = runnable(gateway, handle.pk, lines, now).await?;
    if rows.is_empty() {
        return Ok(looked_at_all);
    }
    let events = gateway.store().pending_events_of(handle.pk, &rows).await?;
    let senders = if table.sends() { senders(gateway, handle.pk, &events).await? } else { HashMap::new() };

    let mut chats: Vec<(String, Vec<Event>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for event in events {
        let place = *places.entry(event.order_key.clone()).or_insert_with(|| {
            chats.push((event.order_key.clone(), Vec::new()));
            chats.len() - 1
        });
        chats[place].1.push(event);
    }
    let chain = Chains { gateway, handle, endpoints, setting: setting(gateway), senders, started: Instant::now() };
    let work: Vec<_> = chats
        .into_iter()
        .map(|(key, events)| {
            let hold = lines.held.remove(&key);
            let chain = &chain;
            async move { (key, chain.chat(events, hold).await) }
        })
        .collect();
    let done: Vec<(String, Vec<(i64, Planned)>)> =
        futures_util::stream::iter(work).buffer_unordered(CHATS).collect().await;

    let mut items = Vec::new();
    for (key, planned) in done {
        for (row, planned) in planned {
            match planned {
                Planned::Commit(item) => items.push(*item),
                Planned::Hold { until, tries, calls } => {
                    // a call that was made is shown, though nothing of it counts
                    if !calls.is_empty()
                        && let Err(error) = gateway.store().record_hook_calls(handle.pk, row, calls).await
                    {
                        tracing::warn!(error = &error as &dyn std::error::Error, "a hook's tries could not be kept");
                    }
                    lines.held.insert(key.clone(), Hold { until, row, tries });
                }
            }
        }
    }
    items.sort_by_key(|item| item.event_row);
    if !items.is_empty() {
        let due: BTreeSet<EndpointId> =
            items.iter().flat_map(|item| item.deliveries.iter().map(|to| to.endpoint)).collect();
        let done = gateway.store().fan_out(handle.pk, handle.view().epoch, items).await?;
        crash::point("hook:after_commit");
        crate::events::tell_readers(gateway, handle.pk, &done);
        for job in &done.jobs {
            gateway.took(handle, job);
        }
        for plugin in &done.over_quota {
            tracing::warn!(plugin, instance = %handle.id, "a hook's message is left out: its quota is used up");
        }
        gateway.inner.delivery.due(due.into_iter().collect());
    }
    Ok(false)
}

/// The first rows that are not of held chats, and whether there can be no others.
async fn runnable(
    gateway: &Gateway,
    pk: i64,
    lines: &mut Lines,
    now: Timestamp,
) -> Result<(Vec<i64>, bool), StoreError> {
    let mut rows = Vec::new();
    let mut from = lines.cursor;
    loop {
        let page = gateway.store().pending_lines(pk, from, LOOK).await?;
        for (row, key) in &page {
            if lines.held.get(key).is_some_and(|hold| hold.until > now) {
                if rows.is_empty() {
                    lines.cursor = *row;
                }
                continue;
            }
            rows.push(*row);
            if rows.len() == BATCH {
                return Ok((rows, false));
            }
        }
        match page.last() {
            Some((row, _)) if page.len() as u64 == LOOK => from = *row,
            _ => return Ok((rows, true)),
        }
    }
}

/// Which plugin's message an event is about, by message id.
async fn senders(gateway: &Gateway, pk: i64, events: &[Event]) -> Result<HashMap<String, String>, StoreError> {
    let ids: HashSet<String> = events.iter().flat_map(message_ids).map(str::to_owned).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    gateway.store().hook_senders(pk, &ids.into_iter().collect::<Vec<_>>()).await
}

fn message_ids(event: &Event) -> impl Iterator<Item = &str> {
    let listed = event.data.get("ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let named = event.data.get("message_id").and_then(Value::as_str);
    event.message_id.as_deref().into_iter().chain(named).chain(listed)
}

/// The event as hooks see it.
pub(super) fn shown(event: &Event, caused_by: Option<String>) -> Arc<kero_hooks::Event> {
    let seen = kero_hooks::Event::new(
        event.id.to_string(),
        event.kind,
        event.instance_id.to_string(),
        event.at.0,
        &event.data,
    );
    Arc::new(seen.caused_by(caused_by))
}

struct Chains<'a> {
    gateway: &'a Gateway,
    handle: &'a Handle,
    endpoints: &'a [Endpoint],
    setting: Setting,
    senders: HashMap<String, String>,
    started: Instant,
}

impl Chains<'_> {
    /// A chat's events in order, until one has effects (the next must see them), has to wait, or the round is over.
    async fn chat(&self, events: Vec<Event>, hold: Option<Hold>) -> Vec<(i64, Planned)> {
        let mut planned = Vec::new();
        let mut hold = hold;
        for event in events {
            if !planned.is_empty() && self.started.elapsed() > ROUND {
                break;
            }
            let tries = hold.take().filter(|hold| hold.row == event.row).map(|hold| hold.tries).unwrap_or_default();
            let (result, last) = self.event(&event, tries).await;
            planned.push((event.row, result));
            if last {
                break;
            }
        }
        planned
    }

    /// Runs an event's chain; whether the chat's next event has to wait for the commit.
    async fn event(&self, event: &Event, tries: Tries) -> (Planned, bool) {
        let caused_by = message_ids(event).find_map(|id| self.senders.get(id)).cloned();
        let seen = shown(event, caused_by);
        let (hooks, passed_by) = match self.gateway.inner.hooks.table().for_event(&seen) {
            Chain::Run { hooks, passed_by } => (hooks, passed_by),
            Chain::Held { by, reason } => {
                tracing::debug!(plugin = by, reason, event = %event.id, "an event is held");
                let until = Timestamp::now().after(HELD);
                return (Planned::Hold { until, tries, calls: Vec::new() }, true);
            }
        };
        let ran = if hooks.is_empty() {
            None
        } else {
            match self.gateway.inner.hooks.host().await {
                Ok(host) => {
                    let ran = host.run_transforms(hooks, &seen, tries, &self.setting).await;
                    crash::point("hook:after_call");
                    Some(ran)
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "hooks cannot be run");
                    let until = Timestamp::now().after(HELD);
                    return (Planned::Hold { until, tries: Tries::new(), calls: Vec::new() }, true);
                }
            }
        };
        let Some(Chained { end, effects, records }) = ran else {
            let outcome = Outcome { failures: passed_by, ..Outcome::default() };
            let item = self.item(event, outcome, &Effects::default(), &[]);
            return (Planned::Commit(Box::new(item)), false);
        };
        let ends = !effects.is_empty();
        let item = match end {
            End::Go(mut outcome) => {
                outcome.failures.splice(0..0, passed_by);
                self.item(event, outcome, &effects, &records)
            }
            End::Dropped { .. } => self.ended(event, Verdict::Drop, &effects, &records),
            End::Dead { by, reason } => {
                tracing::info!(plugin = by, event = %event.id, "a hook failed on an event; its deliveries are dead");
                tracing::debug!(plugin = by, event = %event.id, reason, "why the hook failed");
                let deliveries = self.deliveries(event);
                FanOut { deliveries, ..self.ended(event, Verdict::Dead, &effects, &records) }
            }
            End::Later { after, tries, .. } => {
                let until = Timestamp::now().after(after);
                return (
                    Planned::Hold { until, tries, calls: record::made(&records, &event.id.to_string(), None) },
                    true,
                );
            }
            End::Held { until, by, .. } => {
                tracing::debug!(plugin = by, event = %event.id, "an event is held");
                // a breaker that probes at once, and a host that stops, must not be asked in a loop
                let until = Timestamp(until).max(Timestamp::now().after(Duration::from_millis(200)));
                return (
                    Planned::Hold {
                        until,
                        tries: Tries::new(),
                        calls: record::made(&records, &event.id.to_string(), None),
                    },
                    true,
                );
            }
        };
        (Planned::Commit(Box::new(item)), ends)
    }

    fn item(&self, event: &Event, outcome: Outcome, effects: &Effects, records: &[Record]) -> FanOut {
        let data = outcome.data.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let verdict = match (&outcome.endpoints, &data) {
            (Some(_), _) => Verdict::Route,
            (None, Some(_)) => Verdict::Replace,
            (None, None) => Verdict::Pass,
        };
        let errors = (!outcome.failures.is_empty()).then(|| outcome.failures.join(", "));
        let routed = outcome.endpoints;
        let chosen =
            |endpoint: &EndpointId| routed.as_ref().is_none_or(|ids| ids.iter().any(|id| *id == endpoint.to_string()));
        FanOut {
            event_row: event.row,
            verdict,
            data,
            deliveries: self.deliveries(event).into_iter().filter(|it| chosen(&it.endpoint)).collect(),
            hooked: (!records.is_empty() || errors.is_some()).then(|| self.hooked(event, errors, effects, records)),
        }
    }

    /// An event that nobody gets.
    fn ended(&self, event: &Event, verdict: Verdict, effects: &Effects, records: &[Record]) -> FanOut {
        let hooked = Some(self.hooked(event, None, effects, records));
        FanOut { event_row: event.row, verdict, data: None, deliveries: Vec::new(), hooked }
    }

    fn hooked(&self, event: &Event, errors: Option<String>, effects: &Effects, records: &[Record]) -> Box<Hooked> {
        Box::new(Hooked {
            errors,
            calls: record::calls(records, &event.id.to_string(), None),
            kv: record::kv(effects),
            sends: record::sends(self.gateway, effects, Some(self.handle), event.request_id.as_deref()),
        })
    }

    fn deliveries(&self, event: &Event) -> Vec<NewDelivery> {
        let now = Timestamp::now();
        let wanted = self.endpoints.iter().filter(|endpoint| {
            endpoint.enabled
                && endpoint.events.wants(event.kind)
                && endpoint.narrow.lets_through(&event.order_key, &event.data)
        });
        wanted.map(|it| NewDelivery { id: DeliveryId::new(), endpoint: it.id, next_at: now }).collect()
    }
}
