//! One try of a delivery: prepare → exchange → classify → schedule → record. Each step is a function of its own.

use super::classify::{self, Verdict};
use super::exchange::{self, Answer, Failure, Subject};
use super::prepare::{self, Prepared};
use super::timing::Timings;
use crate::Gateway;
use crate::hooks::{self, Shaping};
use kero_domain::Timestamp;
use kero_store::{Attempt, Delivery, DeliveryOutcome, Hooked};
use std::time::Duration;

pub(super) async fn run(gateway: &Gateway, delivery: Delivery) {
    let handle = &gateway.inner.delivery;
    let at = Timestamp::now();
    let mut judged = None;
    let (outcome, verdict) = match shaped(gateway, &delivery).await {
        Ready::Send(prepared, shaped) => {
            let subject = Subject { event: delivery.event.id, request_id: delivery.event.request_id.as_deref() };
            let outcome = exchange::exchange(handle, &delivery.endpoint, &prepared, subject, at).await;
            let mut verdict = classify::classify(&outcome, Timestamp::now());
            if classify::is_gone(&outcome) {
                verdict = Verdict::Dead;
            }
            if let Ok(answer) = &outcome
                && let Some((said, left)) = hooks::judge(gateway, &delivery, &prepared, answer, verdict).await
            {
                (verdict, judged) = (said, Some(left));
            }
            if matches!(verdict, Verdict::Retry { .. }) && delivery.request.is_none() && !shaped {
                freeze(gateway, &delivery, &prepared).await;
            }
            (outcome, verdict)
        }
        Ready::Wait(until) => {
            let held = gateway.store().hold_delivery(delivery.event.instance_pk, delivery.id, until).await;
            if let Err(error) = held {
                tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a delivery could not be held");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            return;
        }
        Ready::Dead(why) => (Err(Failure { error: why, timings: Timings::default() }), Verdict::Dead),
    };
    let next = schedule(handle.schedule(&delivery), &delivery, verdict, Timestamp::now());
    record(gateway, &delivery, attempt(&delivery, at, &outcome, next), next, judged).await;
}

/// What a try begins with.
enum Ready {
    /// The request, and whether hooks shaped it just now.
    Send(Prepared, bool),
    Wait(Timestamp),
    Dead(String),
}

async fn shaped(gateway: &Gateway, delivery: &Delivery) -> Ready {
    let prepared = match prepare::prepare(&gateway.inner.delivery.config, delivery) {
        Ok(prepared) => prepared,
        Err(why) => return Ready::Dead(why.to_owned()),
    };
    match hooks::shape(gateway, delivery, &prepared).await {
        None => Ready::Send(prepared, false),
        Some(Shaping::Send(prepared)) => Ready::Send(prepared, true),
        Some(Shaping::Wait { until }) => Ready::Wait(until),
        Some(Shaping::Dead { why }) => Ready::Dead(why),
    }
}

/// From the first failure on the bytes are fixed, so that neither another version nor another setting changes them.
async fn freeze(gateway: &Gateway, delivery: &Delivery, prepared: &Prepared) {
    let request = prepared.encode();
    if let Err(error) = gateway.store().freeze_request(delivery.event.instance_pk, delivery.id, &request).await {
        tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a request could not be fixed");
    }
}

/// What a verdict leads to.
fn schedule(schedule: &[Duration], delivery: &Delivery, verdict: Verdict, now: Timestamp) -> DeliveryOutcome {
    match verdict {
        Verdict::Success => DeliveryOutcome::Delivered,
        Verdict::Dead => DeliveryOutcome::Dead,
        Verdict::Retry { after } => {
            let counted = (delivery.attempts + 1).saturating_sub(delivery.uncounted);
            match classify::next_attempt(schedule, counted, after, now, rand::random()) {
                Some(next_at) => DeliveryOutcome::Retry { next_at },
                None => DeliveryOutcome::Dead,
            }
        }
    }
}

/// The log's line of a try.
fn attempt(
    delivery: &Delivery,
    at: Timestamp,
    outcome: &Result<Answer, Failure>,
    leads_to: DeliveryOutcome,
) -> Attempt {
    let (timings, http_status, error, response_head) = match outcome {
        Ok(answer) => {
            let head = String::from_utf8_lossy(&answer.head).into_owned();
            (answer.timings, Some(answer.status), None, Some(head))
        }
        Err(failure) => (failure.timings, None, Some(failure.error.clone()), None),
    };
    Attempt {
        n: delivery.attempts + 1,
        at,
        trigger: delivery.trigger,
        http_status,
        error,
        dns_ms: timings.dns.map(millis),
        connect_ms: timings.connect.map(millis),
        first_byte_ms: timings.first_byte.map(millis),
        total_ms: millis(timings.total),
        response_head,
        next_at: match leads_to {
            DeliveryOutcome::Retry { next_at } => Some(next_at),
            DeliveryOutcome::Delivered | DeliveryOutcome::Dead => None,
        },
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

async fn record(
    gateway: &Gateway,
    delivery: &Delivery,
    attempt: Attempt,
    outcome: DeliveryOutcome,
    judged: Option<Hooked>,
) {
    tracing::debug!(
        request_id = delivery.event.request_id, event = %delivery.event.id, kind = %delivery.event.kind, endpoint = %delivery.endpoint.id,
        attempt = attempt.n, status = attempt.http_status, error = attempt.error, total_ms = attempt.total_ms, "delivery attempt"
    );
    metrics::counter!("kero_delivery_attempts_total", "outcome" => match outcome {
        DeliveryOutcome::Delivered => "delivered",
        DeliveryOutcome::Retry { .. } => "retry",
        DeliveryOutcome::Dead => "dead",
    })
    .increment(1);
    let mut tries = 0u64;
    loop {
        let recorded = match &judged {
            None => gateway.store().record_attempt(delivery.id, attempt.clone(), outcome).await,
            Some(left) => {
                let done =
                    gateway.store().record_judged_attempt(delivery, attempt.clone(), outcome, left.clone()).await;
                done.map(|(jobs, over_quota)| hooks::took_sends(gateway, delivery, &jobs, &over_quota))
            }
        };
        let Err(error) = recorded else { return };
        // unrecorded, it is sent again after a restart under the same webhook-id
        if gateway.inner.stopping.is_cancelled() || matches!(error, kero_store::StoreError::NotFound) {
            return;
        }
        tries += 1;
        tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a delivery's outcome waits for the database");
        tokio::time::sleep(Duration::from_millis(200 * tries.min(25))).await;
    }
}
