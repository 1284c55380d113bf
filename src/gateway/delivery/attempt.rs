//! One try of a delivery: prepare → exchange → classify → schedule → record. Each step is a function of its own.

use super::classify::{self, Verdict};
use super::exchange::{self, Answer, Failure, Subject, Target};
use super::prepare::{self, Prepared};
use super::timing::Timings;
use crate::hooks::{self, Shaping};
use crate::{Gateway, crash};
use kero_domain::{EventKind, Timestamp};
use kero_store::{Attempt, Delivery, DeliveryOutcome, Hooked, RawEvent, StoreError, Trigger};
use serde_json::Value;
use std::time::Duration;

/// A try that was made and is to be recorded.
pub(super) struct Tried {
    pub outcome: DeliveryOutcome,
    /// The endpoint took it.
    pub success: bool,
    /// The endpoint wants nothing any more.
    pub gone: bool,
    pub took: Duration,
    attempt: Attempt,
    request: Option<Vec<u8>>,
    /// What the hooks that judged it left.
    judged: Option<Hooked>,
}

/// What a try begins with.
pub(super) enum Ready {
    /// The request, and whether hooks shaped it just now.
    Send(Prepared, bool),
    /// A hook has to be called later; no try is made.
    Wait(Timestamp),
    /// Nothing is to be sent, and why.
    Dead(String),
}

/// Prepares the request, with the message as WhatsApp sent it if that is wanted (`raw`); delivery hooks shape it, once.
pub(super) async fn ready(gateway: &Gateway, delivery: &Delivery, raw: Option<Value>) -> Ready {
    let prepared = match prepare::prepare(&gateway.inner.delivery.config, delivery, raw) {
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

/// The end of a delivery that is not tried.
pub(super) fn dead(delivery: &Delivery, why: String) -> Tried {
    let outcome = Err(Failure { error: why, timings: Timings::default() });
    let leads_to = DeliveryOutcome::Dead;
    let attempt = attempt(delivery, delivery.trigger, Timestamp::now(), &outcome, leads_to);
    measure(delivery, &outcome, leads_to);
    let took = Duration::ZERO;
    Tried { outcome: leads_to, success: false, gone: false, took, attempt, request: None, judged: None }
}

/// Makes a try. The schedule does not count a probe. `shaped`: the request is stored already.
pub(super) async fn run(
    gateway: &Gateway,
    delivery: &Delivery,
    target: &Target<'_>,
    prepared: Prepared,
    shaped: bool,
    probe: bool,
) -> Tried {
    let handle = &gateway.inner.delivery;
    let at = Timestamp::now();
    let subject = Subject { event: delivery.event.id, request_id: delivery.event.request_id.as_deref() };
    crash::point("before_post");
    let outcome = exchange::exchange(handle, target, &prepared, subject, at).await;
    crash::point("after_post");
    let mut verdict = classify::classify(&outcome, Timestamp::now());
    let mut judged = None;
    if let Ok(answer) = &outcome
        && let Some((said, left)) = hooks::judge(gateway, delivery, &prepared, answer, verdict).await
    {
        (verdict, judged) = (said, Some(left));
    }
    // from the first failure on the bytes are fixed, so that neither another version nor another setting changes them
    let failed = matches!(verdict, Verdict::Retry { .. }) && delivery.request.is_none() && !shaped;
    let request = failed.then(|| prepared.encode());
    // a hook may know that 410 means something else
    let gone = classify::is_gone(&outcome) && matches!(verdict, Verdict::Retry { .. });
    // what the endpoint will not take any more waits for it in full
    let counts = !probe && !gone;
    let leads_to = schedule(handle.schedule(delivery), delivery, verdict, counts, Timestamp::now());
    let trigger = if probe { Trigger::Probe } else { delivery.trigger };
    let attempt = attempt(delivery, trigger, at, &outcome, leads_to);
    let took = Duration::from_millis(attempt.total_ms);
    measure(delivery, &outcome, leads_to);
    Tried { outcome: leads_to, success: verdict == Verdict::Success, gone, took, attempt, request, judged }
}

/// What a verdict leads to.
fn schedule(
    schedule: &[Duration],
    delivery: &Delivery,
    verdict: Verdict,
    counts: bool,
    now: Timestamp,
) -> DeliveryOutcome {
    match verdict {
        Verdict::Success => DeliveryOutcome::Delivered,
        Verdict::Dead => DeliveryOutcome::Dead,
        Verdict::Retry { after } => {
            let before = delivery.attempts.saturating_sub(delivery.uncounted);
            if !counts {
                // the breaker decides when the next one is
                return DeliveryOutcome::Retry { next_at: now.after(after.unwrap_or_default()), counts };
            }
            match classify::next_attempt(schedule, before + 1, after, now, rand::random()) {
                Some(next_at) => DeliveryOutcome::Retry { next_at, counts },
                None => DeliveryOutcome::Dead,
            }
        }
    }
}

/// The log's line of a try.
fn attempt(
    delivery: &Delivery,
    trigger: Trigger,
    at: Timestamp,
    outcome: &Result<Answer, Failure>,
    leads_to: DeliveryOutcome,
) -> Attempt {
    let (timings, http_status, error, response_head) = match outcome {
        Ok(answer) => {
            let head = String::from_utf8_lossy(&answer.head).into_owned();
            let remark = classify::remark(answer).map(str::to_owned);
            (answer.timings, Some(answer.status), remark, Some(head).filter(|head| !head.is_empty()))
        }
        Err(failure) => (failure.timings, None, Some(failure.error.clone()), None),
    };
    Attempt {
        n: delivery.attempts + 1,
        at,
        trigger,
        http_status,
        error,
        dns_ms: timings.dns.map(millis),
        connect_ms: timings.connect.map(millis),
        first_byte_ms: timings.first_byte.map(millis),
        total_ms: millis(timings.total),
        response_head,
        next_at: match leads_to {
            DeliveryOutcome::Retry { next_at, .. } => Some(next_at),
            DeliveryOutcome::Delivered | DeliveryOutcome::Dead => None,
        },
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn measure(delivery: &Delivery, outcome: &Result<Answer, Failure>, leads_to: DeliveryOutcome) {
    let word = match leads_to {
        DeliveryOutcome::Delivered => "delivered",
        DeliveryOutcome::Retry { .. } => "retry",
        DeliveryOutcome::Dead => "dead",
    };
    let endpoint = delivery.endpoint.id.to_string();
    metrics::counter!("kero_delivery_attempts_total", "endpoint" => endpoint, "outcome" => word).increment(1);
    let timings = outcome.as_ref().map_or_else(|failure| failure.timings, |answer| answer.timings);
    for (phase, took) in [
        ("dns", timings.dns),
        ("connect", timings.connect),
        ("first_byte", timings.first_byte),
        ("total", Some(timings.total)),
    ] {
        if let Some(took) = took {
            metrics::histogram!("kero_delivery_seconds", "phase" => phase).record(took);
        }
    }
    // what was replayed by hand is as late as the hand
    if leads_to == DeliveryOutcome::Delivered && delivery.trigger == Trigger::Event {
        metrics::histogram!("kero_delivery_lag_seconds").record(began(delivery).until(Timestamp::now()));
    }
}

/// When the event came about here, which its id says; its fan-out may have waited for hooks.
fn began(delivery: &Delivery) -> Timestamp {
    let Some(moment) = delivery.event.id.0.get_timestamp() else { return delivery.created_at };
    let (secs, nanos) = moment.to_unix();
    let millis = secs.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000));
    i64::try_from(millis).map_or(delivery.created_at, Timestamp)
}

/// One line for the end of a delivery.
fn tell_end(delivery: &Delivery, attempts: u32, outcome: DeliveryOutcome) {
    let (event, endpoint) = (&delivery.event, &delivery.endpoint);
    let (request_id, correlation_id) = (event.request_id.as_deref(), correlation_id(event));
    match outcome {
        DeliveryOutcome::Retry { .. } => {}
        DeliveryOutcome::Delivered => tracing::info!(
            request_id, correlation_id, event = %event.id, kind = %event.kind, delivery = %delivery.id,
            endpoint = %endpoint.id, attempts, "delivered"
        ),
        DeliveryOutcome::Dead => tracing::warn!(
            request_id, correlation_id, event = %event.id, kind = %event.kind, delivery = %delivery.id,
            endpoint = %endpoint.id, attempts, "a delivery is dead; it can be replayed"
        ),
    }
}

/// The caller's name for the send that an event is the end of.
fn correlation_id(event: &RawEvent) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        correlation_id: String,
    }
    if event.kind != EventKind::MessageAck {
        return None;
    }
    serde_json::from_str::<Named>(event.data.get()).ok().map(|named| named.correlation_id)
}

/// Records a try, for as long as it takes. Unrecorded, it is made again after a restart, under the same `webhook-id`.
pub(super) async fn record(gateway: Gateway, delivery: Delivery, tried: Tried) {
    let Tried { outcome, attempt, request, judged, .. } = tried;
    tracing::debug!(
        request_id = delivery.event.request_id, event = %delivery.event.id, kind = %delivery.event.kind, endpoint = %delivery.endpoint.id,
        attempt = attempt.n, status = attempt.http_status, error = attempt.error, total_ms = attempt.total_ms, "delivery attempt"
    );
    let mut tries = 0u64;
    let (pk, n) = (delivery.event.instance_pk, attempt.n);
    loop {
        let (attempt, request) = (attempt.clone(), request.clone());
        let recorded = match judged.clone() {
            None => gateway.store().record_attempt(pk, delivery.id, attempt, outcome, request).await,
            Some(left) => {
                let done = gateway.store().record_judged_attempt(&delivery, attempt, outcome, request, left).await;
                done.map(|(jobs, over_quota)| {
                    hooks::took_sends(&gateway, &delivery, &jobs, &over_quota);
                    true
                })
            }
        };
        let error = match recorded {
            Ok(changed) => {
                if changed {
                    tell_end(&delivery, n, outcome);
                }
                break;
            }
            // its endpoint or its instance is gone, and it went with them
            Err(StoreError::NotFound) => return,
            Err(error) => error,
        };
        if gateway.inner.stopping.is_cancelled() || matches!(error, StoreError::Closed) {
            metrics::counter!("kero_delivery_unrecorded_total").increment(1);
            tracing::warn!(delivery = %delivery.id, event = %delivery.event.id, error = &error as &dyn std::error::Error, "the outcome of a try is not stored; it will be made again under the same webhook-id");
            return;
        }
        tries += 1;
        tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a delivery's outcome waits for the database");
        tokio::time::sleep(Duration::from_millis(200 * tries.min(25))).await;
    }
    crash::point("after_attempt");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::prepare::tests::raw_event;
    use kero_domain::endpoint::{EventFilter, Narrow, Order};
    use kero_domain::{DeliveryId, EndpointId};
    use kero_store::Endpoint;
    use std::sync::Arc;

    fn delivery(attempts: u32, uncounted: u32) -> Delivery {
        let at = Timestamp::now();
        let endpoint = Endpoint {
            id: EndpointId::new(),
            instance_pk: Some(1),
            url: "https://example.org/".to_owned(),
            events: EventFilter::All,
            narrow: Narrow::default(),
            headers: Vec::new(),
            secret: None,
            old_secrets: Vec::new(),
            signing_key: None,
            order: Order::Chat,
            rate_limit: None,
            timeout: None,
            schedule: None,
            include_raw: false,
            enabled: true,
            disabled: None,
            failing_since: None,
            created_at: at,
            updated_at: at,
        };
        Delivery {
            id: DeliveryId::new(),
            endpoint: Arc::new(endpoint),
            event: Arc::new(raw_event()),
            attempts,
            uncounted,
            trigger: Trigger::Event,
            request: None,
            next_at: at,
            created_at: at,
        }
    }

    #[test]
    fn an_event_begins_before_its_fan_out() {
        let before = Timestamp::now();
        let mut late = delivery(0, 0);
        let after = Timestamp::now();
        late.created_at = after.after(Duration::from_secs(3_600));
        assert!((before..=after).contains(&began(&late)));
    }

    #[test]
    fn ten_tries_over_three_days_and_probes_are_not_among_them() {
        let config = crate::DeliveryConfig::default();
        let again = Verdict::Retry { after: None };
        let now = Timestamp::now();
        let next = |attempts, uncounted, counts| {
            schedule(&config.schedule, &delivery(attempts, uncounted), again, counts, now)
        };
        let mut sum = 0;
        for n in 0..9 {
            let DeliveryOutcome::Retry { next_at, counts: true } = next(n, 0, true) else { panic!("{n}") };
            let base = i64::try_from(config.schedule[n as usize].as_millis()).unwrap();
            assert!(((next_at.0 - now.0) - base).abs() <= base / 5 + 1, "{n}");
            sum += base;
        }
        assert_eq!(sum, (75 * 3600 + 35 * 60 + 5) * 1000);
        // what failed together does not come back together
        let waits: std::collections::HashSet<_> = (0..100).map(|_| format!("{:?}", next(8, 0, true))).collect();
        assert!(waits.len() > 50, "{waits:?}");
        assert_eq!(next(9, 0, true), DeliveryOutcome::Dead, "the tenth was the last");
        // a hundred probes later the schedule stands where it stood
        assert!(matches!(next(109, 101, true), DeliveryOutcome::Retry { .. }));
        assert_eq!(next(109, 100, true), DeliveryOutcome::Dead);
        assert_eq!(next(500, 0, false), DeliveryOutcome::Retry { next_at: now, counts: false });
    }
}
