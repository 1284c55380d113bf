//! A sample event to an endpoint, at once, and what came back. It is no event of the journal.

use super::attempt::millis;
use super::classify;
use super::exchange::{self, Subject, Target};
use super::{prepare, sample_data};
use crate::Gateway;
use kero_domain::{EventId, EventKind, InstanceId, Timestamp};
use kero_store::{Endpoint, Event};
use serde_json::{Map, Value, json};

/// What came of a sample.
#[derive(Debug, Clone)]
pub struct Sampled {
    pub event_id: EventId,
    pub status: Option<u16>,
    /// Why nothing came back, or why what came back counts as a failure.
    pub error: Option<String>,
    /// The answer's headers, the first of each name; at most [`HEADERS`] of them.
    pub headers: Map<String, Value>,
    pub response_head: Option<String>,
    pub dns_ms: Option<u64>,
    pub connect_ms: Option<u64>,
    pub first_byte_ms: Option<u64>,
    pub total_ms: u64,
}

/// Headers of the answer that are shown, and bytes of each value.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 256;

/// Sends a sample of `kind`, signed like any other event. `id` is the instance that it says it comes from.
pub(crate) async fn send(gateway: &Gateway, endpoint: &Endpoint, id: InstanceId, kind: EventKind) -> Sampled {
    let handle = &gateway.inner.delivery;
    let at = Timestamp::now();
    let event = Event {
        row: 0,
        id: EventId::new(),
        instance_pk: 0,
        instance_id: id,
        kind,
        order_key: String::new(),
        seq: Some(0),
        at,
        message_id: None,
        data: sample_data::data(kind, at),
        request_id: None,
        verdict: None,
        hook_errors: None,
    };
    let prepared = prepare::plain(&handle.config, &event, raw(endpoint, kind));
    let subject = Subject { event: event.id, request_id: None };
    let outcome = exchange::exchange(handle, &Target::new(&handle.config, endpoint), &prepared, subject, at).await;
    let (answer, error) = match outcome {
        Ok(answer) => {
            let remark = classify::remark(&answer).map(str::to_owned);
            (Ok(answer), remark)
        }
        Err(failure) => (Err(failure.timings), Some(failure.error)),
    };
    let timings = answer.as_ref().map_or_else(|timings| *timings, |answer| answer.timings);
    let answer = answer.ok();
    let mut headers = Map::new();
    for (name, value) in answer.iter().flat_map(|answer| &answer.headers) {
        if headers.len() < HEADERS && !headers.contains_key(name.as_str()) {
            let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(HEADER_BYTES).collect();
            headers.insert(name.as_str().to_owned(), text.into());
        }
    }
    Sampled {
        event_id: event.id,
        status: answer.as_ref().map(|answer| answer.status),
        error,
        headers,
        response_head: answer.map(|answer| String::from_utf8_lossy(&answer.head).into_owned()),
        dns_ms: timings.dns.map(millis),
        connect_ms: timings.connect.map(millis),
        first_byte_ms: timings.first_byte.map(millis),
        total_ms: millis(timings.total),
    }
}

/// The made-up message as WhatsApp would have sent it, for an endpoint that wants it.
fn raw(endpoint: &Endpoint, kind: EventKind) -> Option<Value> {
    (endpoint.include_raw && kind == EventKind::Message).then(|| json!({ "conversation": sample_data::TEXT }))
}
