//! A turn: the deliveries of one line, one after the other, until one fails or none is left.
//!
//! A delivery goes out as soon as the one before it was taken, not when that is written down: after a crash both are
//! repeated, in the same order. The turn ends when all of it is recorded, so that nobody claims the line before.

use super::attempt::{self, Ready};
use super::breaker::Pass;
use super::exchange::Target;
use super::gate::{Gate, Health};
use crate::{Gateway, hooks};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kero_domain::endpoint::DisabledReason;
use kero_domain::{EventKind, NewEvent, Timestamp};
use kero_store::{Delivery, DeliveryOutcome, StoreError};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a line rests when the database does not answer.
const REST: Duration = Duration::from_secs(2);

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// All of it went out.
    Done,
    /// The line waits until then.
    At(Timestamp),
    /// The endpoint is disabled, or the gateway stops.
    Stopped,
}

/// What a turn shares with the dispatcher.
#[derive(Clone)]
pub(super) struct Shared {
    pub gate: Arc<Mutex<Gate>>,
    /// When the present exchange began; 0 without one.
    pub since: Arc<AtomicI64>,
    /// How long the last exchange took, in milliseconds; -1 before the first.
    pub took: Arc<AtomicI64>,
    /// The endpoint's row is not what the turn began with: it ends after the exchange that is under way.
    pub stale: Arc<AtomicBool>,
}

impl Shared {
    pub(super) fn new(gate: Arc<Mutex<Gate>>) -> Self {
        Self { gate, since: Arc::default(), took: Arc::new(AtomicI64::new(-1)), stale: Arc::default() }
    }

    fn gate<T>(&self, ask: impl FnOnce(&mut Gate) -> T) -> T {
        ask(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) async fn run(gateway: &Gateway, run: Vec<Delivery>, shared: &Shared) -> TurnEnd {
    let Some(endpoint) = run.first().map(|first| Arc::clone(&first.endpoint)) else { return TurnEnd::Done };
    let target = Target::new(&gateway.inner.delivery.config, &endpoint);
    let mut records = FuturesUnordered::new();
    let mut end = TurnEnd::Done;
    let mut raw = match raw_messages(gateway, &run).await {
        Ok(raw) => raw,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "deliveries wait for the database");
            return TurnEnd::At(Timestamp::now().after(REST));
        }
    };
    for delivery in run {
        let now = Timestamp::now();
        if gateway.inner.stopping.is_cancelled() {
            end = TurnEnd::Stopped;
            break;
        }
        if shared.stale.load(Ordering::Relaxed) {
            // it may go elsewhere, be signed with another secret, or not go at all
            end = TurnEnd::At(now);
            break;
        }
        if delivery.next_at > now {
            end = TurnEnd::At(delivery.next_at);
            break;
        }
        let (prepared, shaped) = match attempt::ready(gateway, &delivery, raw.remove(&delivery.event.row)).await {
            Ready::Send(prepared, shaped) => (prepared, shaped),
            Ready::Wait(until) => {
                match gateway.store().hold_delivery(delivery.event.instance_pk, delivery.id, until).await {
                    Ok(()) => hooks::held(gateway, &delivery),
                    Err(error) => {
                        tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a delivery could not be held")
                    }
                }
                end = TurnEnd::At(until);
                break;
            }
            Ready::Dead(why) => {
                let tried = attempt::dead(&delivery, why);
                records.push(tokio::spawn(attempt::record(gateway.clone(), delivery, tried)));
                continue;
            }
        };
        // a hook takes its time
        let now = Timestamp::now();
        let probe = match shared.gate(|gate| gate.enter(now)) {
            Pass::Go => false,
            Pass::Probe => true,
            Pass::Wait(until) => {
                end = TurnEnd::At(until);
                break;
            }
        };
        shared.since.store(now.0, Ordering::Relaxed);
        let tried = attempt::run(gateway, &delivery, &target, prepared, shaped, probe).await;
        shared.since.store(0, Ordering::Relaxed);
        shared.took.store(i64::try_from(tried.took.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let now = Timestamp::now();
        let health = shared.gate(|gate| gate.leave(tried.success, probe, now));
        let (outcome, gone) = (tried.outcome, tried.gone);
        // a task of its own, so that it is written while the next one is on its way
        records.push(tokio::spawn(attempt::record(gateway.clone(), delivery.clone(), tried)));
        if tell(gateway, &delivery, health, gone, now).await {
            end = TurnEnd::Stopped;
            break;
        }
        if let DeliveryOutcome::Retry { next_at, .. } = outcome {
            end = TurnEnd::At(next_at);
            break;
        }
    }
    while records.next().await.is_some() {}
    end
}

/// The messages behind a run as WhatsApp sent them, where the endpoint wants them and the bytes are not fixed yet.
async fn raw_messages(gateway: &Gateway, run: &[Delivery]) -> Result<HashMap<i64, Value>, StoreError> {
    let wanting = run.iter().filter(|delivery| delivery.endpoint.include_raw && delivery.request.is_none());
    let rows: Vec<i64> = wanting.map(|delivery| delivery.event.row).collect();
    match run.first() {
        Some(first) if !rows.is_empty() => gateway.raw_messages(first.event.instance_pk, &rows).await,
        _ => Ok(HashMap::new()),
    }
}

/// Writes down what an exchange says about its endpoint; whether that was disabled.
async fn tell(gateway: &Gateway, delivery: &Delivery, health: Health, gone: bool, now: Timestamp) -> bool {
    let (store, id, pk) = (gateway.store(), delivery.endpoint.id, delivery.event.instance_pk);
    let (reason, since) = match health {
        _ if gone => (DisabledReason::Gone, now),
        Health::GivenUp(since) => (DisabledReason::Failing, since),
        Health::Same => return false,
        Health::Failing(_) | Health::Recovered => {
            let since = if let Health::Failing(since) = health { Some(since) } else { None };
            if let Err(error) = store.set_failing_since(pk, id, since).await {
                tracing::warn!(endpoint = %id, error = &error as &dyn std::error::Error, "an endpoint's failures could not be stored");
            }
            return false;
        }
    };
    let data = serde_json::json!({
        "endpoint_id": id,
        "status": "disabled",
        "reason": reason.as_str(),
        "since": since.rfc3339(),
    });
    let event = NewEvent::new(EventKind::Endpoint, "", now, data);
    match store.disable_endpoint(id, reason, now, pk, event).await {
        Ok(changed) => {
            if changed {
                tracing::warn!(endpoint = %id, %reason, "an endpoint was disabled; its deliveries wait");
            }
            gateway.endpoint_changed(delivery.endpoint.instance_pk, id);
            gateway.inner.fanout.dirty(pk);
            true
        }
        Err(error) => {
            tracing::warn!(endpoint = %id, error = &error as &dyn std::error::Error, "an endpoint could not be disabled");
            false
        }
    }
}
