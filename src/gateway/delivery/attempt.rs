//! One HTTP try of a delivery, and what its outcome means.

use super::sign;
use crate::Gateway;
use kero_domain::Timestamp;
use kero_domain::event::{Envelope, SCHEMA};
use kero_domain::retry::jitter;
use kero_store::{Attempt, Delivery, DeliveryOutcome};
use secrecy::ExposeSecret;
use std::time::Duration;
use tokio::time::Instant;

/// The bytes that every attempt of a delivery sends; they depend on the event alone.
pub(crate) fn body(delivery: &Delivery) -> Vec<u8> {
    let event = &delivery.event;
    let envelope = Envelope {
        event: event.kind,
        instance_id: event.instance_id.to_string(),
        timestamp: event.at.secs(),
        data: event.data.clone(),
        id: event.id,
        seq: event.seq.unwrap_or_default(),
        schema: SCHEMA,
    };
    serde_json::to_vec(&envelope).unwrap_or_default()
}

struct Answer {
    status: u16,
    head: String,
    retry_after: Option<Duration>,
}

pub(super) async fn run(gateway: &Gateway, delivery: Delivery) {
    let config = &gateway.config().delivery;
    let started = Instant::now();
    let at = Timestamp::now();
    let answer = post(gateway, &delivery, at).await;
    let n = delivery.attempts + 1;
    let total_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = match &answer {
        Ok(answer) if (200..300).contains(&answer.status) => DeliveryOutcome::Delivered,
        Ok(Answer { status: 410, .. }) => DeliveryOutcome::Dead,
        answer => {
            let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after);
            let index = usize::try_from(n).unwrap_or(usize::MAX) - 1;
            match config.schedule.get(index) {
                Some(wait) => {
                    let wait = jitter(*wait, rand::random()).max(asked.unwrap_or_default());
                    DeliveryOutcome::Retry { next_at: Timestamp::now().after(wait) }
                }
                None => DeliveryOutcome::Dead,
            }
        }
    };
    let (http_status, error, response_head) = match answer {
        Ok(answer) => (Some(answer.status), None, Some(answer.head)),
        Err(error) => (None, Some(error), None),
    };
    tracing::debug!(
        request_id = delivery.event.request_id, event = %delivery.event.id, kind = %delivery.event.kind, endpoint = %delivery.endpoint.id,
        attempt = n, status = http_status, error, total_ms, "delivery attempt"
    );
    metrics::counter!("kero_delivery_attempts_total", "outcome" => match outcome {
        DeliveryOutcome::Delivered => "delivered",
        DeliveryOutcome::Retry { .. } => "retry",
        DeliveryOutcome::Dead => "dead",
    })
    .increment(1);
    let attempt = Attempt { n, at, http_status, error, total_ms, response_head };
    let mut tries = 0u64;
    while let Err(error) = gateway.store().record_attempt(delivery.id, attempt.clone(), outcome).await {
        // unrecorded, it is sent again after a restart under the same webhook-id
        if gateway.inner.stopping.is_cancelled() || matches!(error, kero_store::StoreError::NotFound) {
            return;
        }
        tries += 1;
        tracing::warn!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "a delivery's outcome waits for the database");
        tokio::time::sleep(Duration::from_millis(200 * tries.min(25))).await;
    }
}

async fn post(gateway: &Gateway, delivery: &Delivery, at: Timestamp) -> Result<Answer, String> {
    let config = &gateway.config().delivery;
    let url = super::guard::check_url(&delivery.endpoint.url, &config.allow_networks)
        .map_err(|why| format!("the URL {why}"))?;
    let body = body(delivery);
    let id = delivery.event.id.to_string();
    let mut request = gateway
        .inner
        .delivery
        .http
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", at.secs());
    if let Some(request_id) = &delivery.event.request_id {
        request = request.header("x-request-id", request_id);
    }
    if let Some(secret) = &delivery.endpoint.secret {
        let secret = secret.expose_secret();
        let legacy = sign::kero_signature(secret, &body);
        request = request
            .header("x-hub-signature-256", format!("sha256={legacy}"))
            .header("x-webhook-signature", legacy)
            .header("webhook-signature", sign::standard_signature(secret, &id, at.secs(), &body));
    }
    let exchange = async {
        let mut response = request.body(body).send().await.map_err(describe)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
            .map(|secs| Duration::from_secs(secs.min(86_400)));
        let mut head = Vec::new();
        while head.len() < config.max_response {
            match response.chunk().await.map_err(describe)? {
                Some(chunk) => head.extend_from_slice(&chunk[..chunk.len().min(config.max_response - head.len())]),
                None => break,
            }
        }
        Ok(Answer { status, head: String::from_utf8_lossy(&head).into_owned(), retry_after })
    };
    tokio::time::timeout(config.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err("the endpoint did not answer in time".to_owned()))
}

/// The failure in words that name no secret; the source error's chain may contain the URL's query.
fn describe(error: reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    if error.is_timeout() {
        return "the endpoint did not answer in time".to_owned();
    }
    if error.is_connect() {
        return format!("no connection: {source}");
    }
    format!("the exchange failed: {source}")
}
