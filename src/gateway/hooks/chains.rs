//! What hooks come to for the events of a chat: their chains, and what each leaves to be committed.

use super::{record, registry::Chain};
use crate::instances::Handle;
use crate::{Gateway, crash};
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use kero_hooks::chain::{End, Outcome, Tries};
use kero_hooks::run::{Chained, Record};
use kero_hooks::{Effects, Setting};
use kero_store::{Endpoint, Event, FanOut, Hooked, NewDelivery, NewHookChain, Verdict};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A chat's turn starts no further chain after this time: what it came to is committed first.
pub(super) const TURN: Duration = Duration::from_millis(20);
/// How long events wait for a plugin that is suspended or cannot be run, before they are looked at again.
pub(super) const HELD: Duration = Duration::from_secs(30);

/// Why a chat waits.
pub(super) struct Hold {
    pub(super) until: Timestamp,
    /// Which event has been tried so often.
    pub(super) row: i64,
    pub(super) tries: Tries,
}

/// What came of one event.
pub(super) enum Planned {
    Commit(Box<FanOut>),
    Hold { until: Timestamp, tries: Tries, chain: Option<NewHookChain> },
}

pub(super) fn message_ids(event: &Event) -> impl Iterator<Item = &str> {
    let listed = event.data.get("ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let named = event.data.get("message_id").and_then(Value::as_str);
    event.message_id.as_deref().into_iter().chain(named).chain(listed)
}

/// The event as hooks see it. `senders` says which plugin sent a message, by message id.
pub(super) fn shown(event: &Event, senders: &HashMap<String, String>) -> Arc<kero_hooks::Event> {
    let seen = kero_hooks::Event::new(
        event.id.to_string(),
        event.kind,
        event.instance_id.to_string(),
        event.at.0,
        &event.data,
    );
    Arc::new(seen.caused_by(message_ids(event).filter_map(|id| senders.get(id)).cloned()))
}

/// What the chains of a round have in common.
pub(super) struct Chains {
    pub(super) gateway: Gateway,
    pub(super) handle: Handle,
    pub(super) endpoints: Arc<Vec<Endpoint>>,
    pub(super) setting: Setting,
    pub(super) outside: tokio::runtime::Handle,
    /// Which plugin sent a message, by message id.
    pub(super) senders: HashMap<String, String>,
}

impl Chains {
    /// A chat's events in order, until one has effects (the next must see them), has to wait, or the turn is over. Whether
    /// the chat's next event may be looked at before these are committed.
    pub(super) async fn chat(&self, events: Vec<Event>, hold: Option<Hold>) -> (Vec<(i64, Planned)>, bool) {
        let started = Instant::now();
        let mut planned = Vec::new();
        let mut hold = hold;
        for event in events {
            if !planned.is_empty() && started.elapsed() > TURN {
                return (planned, false);
            }
            let tries = hold.take().filter(|hold| hold.row == event.row).map(|hold| hold.tries).unwrap_or_default();
            let (result, last) = self.event(&event, tries).await;
            planned.push((event.row, result));
            if last {
                return (planned, false);
            }
        }
        (planned, true)
    }

    /// Runs an event's chain; whether the chat's next event has to wait for the commit.
    async fn event(&self, event: &Event, tries: Tries) -> (Planned, bool) {
        let seen = shown(event, &self.senders);
        let (hooks, passed_by) = match self.gateway.inner.hooks.table().for_event(&seen) {
            Chain::Run { hooks, passed_by } => (hooks, passed_by),
            Chain::Held { by, reason } => {
                tracing::debug!(plugin = by, reason, event = %event.id, "an event is held");
                let until = Timestamp::now().after(HELD);
                return (Planned::Hold { until, tries, chain: None }, true);
            }
        };
        let ran = if hooks.is_empty() {
            None
        } else {
            match self.gateway.inner.hooks.host().await {
                Ok(host) => {
                    let running = {
                        // what hooks ask for is done where the gateway's own work is, not on their threads
                        let _outside = self.outside.enter();
                        host.run_transforms(hooks, &seen, tries, &self.setting)
                    };
                    let ran = running.await;
                    crash::point("hook:after_call");
                    Some(ran)
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "hooks cannot be run");
                    let until = Timestamp::now().after(HELD);
                    return (Planned::Hold { until, tries: Tries::new(), chain: None }, true);
                }
            }
        };
        let Some(Chained { end, effects, records }) = ran else {
            let outcome = Outcome { failures: passed_by, ..Outcome::default() };
            let item = self.item(event, outcome, &Effects::default(), Vec::new());
            return (Planned::Commit(Box::new(item)), false);
        };
        let ends = !effects.is_empty();
        let item = match end {
            End::Go(mut outcome) => {
                outcome.failures.splice(0..0, passed_by);
                self.item(event, outcome, &effects, records)
            }
            End::Dropped { .. } => self.ended(event, Verdict::Drop, &effects, records),
            End::Dead { by, reason } => {
                tracing::info!(plugin = by, event = %event.id, "a hook failed on an event; its deliveries are dead");
                tracing::debug!(plugin = by, event = %event.id, reason, "why the hook failed");
                let deliveries = self.deliveries(event);
                FanOut { deliveries, ..self.ended(event, Verdict::Dead, &effects, records) }
            }
            End::Later { after, tries, .. } => {
                let until = Timestamp::now().after(after);
                return (
                    Planned::Hold {
                        until,
                        tries,
                        chain: record::made(&self.gateway.inner.hooks.meters, records, event.id, None),
                    },
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
                        chain: record::made(&self.gateway.inner.hooks.meters, records, event.id, None),
                    },
                    true,
                );
            }
        };
        (Planned::Commit(Box::new(item)), ends)
    }

    fn item(&self, event: &Event, outcome: Outcome, effects: &Effects, records: Vec<Record>) -> FanOut {
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
    fn ended(&self, event: &Event, verdict: Verdict, effects: &Effects, records: Vec<Record>) -> FanOut {
        let hooked = Some(self.hooked(event, None, effects, records));
        FanOut { event_row: event.row, verdict, data: None, deliveries: Vec::new(), hooked }
    }

    fn hooked(&self, event: &Event, errors: Option<String>, effects: &Effects, records: Vec<Record>) -> Box<Hooked> {
        Box::new(Hooked {
            errors,
            chain: record::chain(&self.gateway.inner.hooks.meters, records, event.id, None),
            kv: record::kv(effects),
            sends: record::sends(&self.gateway, effects, Some(&self.handle), event.request_id.as_deref()),
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
