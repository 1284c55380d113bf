//! A turn: the deliveries of one line, one after the other, until one fails or none is left.
//!
//! A delivery goes out as soon as the one before it was taken, not when that is written down: after a crash both are
//! repeated, in the same order. The turn ends when all of it is recorded, so that nobody claims the line before.

use super::attempt::{self, Ready};
use super::breaker::Pass;
use super::gate::{Gate, Health};
use crate::{Gateway, hooks};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kero_domain::endpoint::DisabledReason;
use kero_domain::{EventKind, NewEvent, Timestamp};
use kero_store::{Delivery, DeliveryOutcome};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
}

impl Shared {
    pub(super) fn new(gate: Arc<Mutex<Gate>>) -> Self {
        Self { gate, since: Arc::default(), took: Arc::new(AtomicI64::new(-1)) }
    }

    fn gate<T>(&self, ask: impl FnOnce(&mut Gate) -> T) -> T {
        ask(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) async fn run(gateway: &Gateway, run: Vec<Delivery>, shared: &Shared) -> TurnEnd {
    let mut records = FuturesUnordered::new();
    let mut end = TurnEnd::Done;
    for delivery in run {
        let now = Timestamp::now();
        if gateway.inner.stopping.is_cancelled() {
            end = TurnEnd::Stopped;
            break;
        }
        if delivery.next_at > now {
            end = TurnEnd::At(delivery.next_at);
            break;
        }
        let (prepared, shaped) = match attempt::ready(gateway, &delivery).await {
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
        let tried = attempt::run(gateway, &delivery, prepared, shaped, probe).await;
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
