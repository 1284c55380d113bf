//! What an attempt sends, before it is signed: the same bytes in every attempt of a delivery.

use super::DeliveryConfig;
use bytes::Bytes;
use http::Method;
use kero_domain::event::{Envelope, SCHEMA};
use kero_store::{Delivery, Event};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request without what depends on the moment: signature, timestamp and the endpoint's own headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub method: Method,
    /// `None`: the endpoint's URL at the time of the attempt, so that a new one counts for the backlog, too.
    pub url: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// The stored form: this as one line of JSON, then the body.
#[derive(Serialize, Deserialize)]
struct Head {
    method: String,
    url: Option<String>,
    headers: Vec<(String, String)>,
}

impl Prepared {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = Head { method: self.method.to_string(), url: self.url.clone(), headers: self.headers.clone() };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// `None` for bytes that [`Self::encode`] did not write.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        // JSON on one line has no line feed in it
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let body = Bytes::copy_from_slice(&bytes[end + 1..]);
        Some(Self { method: head.method.parse().ok()?, url: head.url, headers: head.headers, body })
    }
}

/// The request of a delivery: the stored one, else the envelope of its event as a POST. `raw` is the message as WhatsApp
/// sent it, for an endpoint that wants it.
pub(crate) fn prepare(
    config: &DeliveryConfig,
    delivery: &Delivery,
    raw: Option<Value>,
) -> Result<Prepared, &'static str> {
    match &delivery.request {
        Some(stored) => Prepared::decode(stored).ok_or("the stored request cannot be read"),
        None => Ok(plain(config, &delivery.event, raw)),
    }
}

/// The envelope of an event as a POST.
pub(crate) fn plain<D: Serialize>(config: &DeliveryConfig, event: &Event<D>, raw: Option<Value>) -> Prepared {
    let query = if raw.is_some() { "?include=raw" } else { "" };
    let mut body = match raw {
        None => envelope(event, &event.data),
        Some(raw) => {
            let mut data = serde_json::to_value(&event.data).unwrap_or_default();
            if let Value::Object(members) = &mut data {
                members.insert("raw".to_owned(), raw);
            }
            envelope(event, data)
        }
    };
    if body.len() > config.max_payload {
        body = envelope(event, thin(config, event, query, body.len()));
    }
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let Some(errors) = &event.hook_errors {
        headers.push((kero_hooks::policy::ERROR_HEADER.to_owned(), errors.clone()));
    }
    Prepared { method: Method::POST, url: None, headers, body: body.into() }
}

fn envelope<D>(event: &Event<D>, data: impl Serialize) -> Vec<u8> {
    let envelope = Envelope {
        event: event.kind,
        instance_id: event.instance_id.to_string(),
        timestamp: event.at.secs(),
        data,
        id: event.id,
        seq: event.seq.unwrap_or_default(),
        schema: SCHEMA,
    };
    serde_json::to_vec(&envelope).unwrap_or_default()
}

/// What stands in the place of data that is too large: where to fetch the whole event.
fn thin<D>(config: &DeliveryConfig, event: &Event<D>, query: &str, size: usize) -> Value {
    let base = config.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
    serde_json::json!({
        "truncated": true,
        "fetch_url": format!("{base}/instances/{}/events/{}{query}", event.instance_id, event.id),
        "size": size,
        "message_id": event.message_id,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kero_domain::{EventId, EventKind, Timestamp};
    use kero_store::RawEvent;

    pub(crate) fn event(data: Value) -> Event {
        Event {
            row: 1,
            id: EventId::new(),
            instance_pk: 1,
            instance_id: "shop".parse().unwrap(),
            kind: EventKind::Message,
            order_key: "1@lid".to_owned(),
            seq: Some(7),
            at: Timestamp(1_700_000_000_123),
            message_id: Some("3EB0".to_owned()),
            data,
            request_id: None,
            verdict: None,
            hook_errors: None,
        }
    }

    pub(crate) fn raw_event() -> RawEvent {
        let Event { row, id, instance_pk, instance_id, kind, order_key, seq, at, message_id, .. } = event(Value::Null);
        let data = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        let (request_id, verdict, hook_errors) = (None, None, None);
        Event {
            row,
            id,
            instance_pk,
            instance_id,
            kind,
            order_key,
            seq,
            at,
            message_id,
            data,
            request_id,
            verdict,
            hook_errors,
        }
    }

    #[test]
    fn stored_requests_come_back_byte_by_byte() {
        let prepared = Prepared {
            method: Method::PUT,
            url: Some("https://example.org/x?y\nz".to_owned()),
            headers: vec![("x-a".to_owned(), "b\\n".to_owned())],
            body: Bytes::from_static(b"\n{\"a\":1}\n\xff"),
        };
        assert_eq!(Prepared::decode(&prepared.encode()), Some(prepared));
        for bad in [&b""[..], b"{}", b"{}\n", b"x\ny"] {
            assert_eq!(Prepared::decode(bad), None);
        }
    }

    #[test]
    fn too_large_a_payload_becomes_a_thin_event() {
        let config = DeliveryConfig {
            max_payload: 1000,
            public_url: Some("https://wa.example.org/".to_owned()),
            ..DeliveryConfig::default()
        };
        let read = |event: &Event| -> Value {
            let prepared = plain(&config, event, None);
            assert!(prepared.body.len() <= 1000);
            serde_json::from_slice(&prepared.body).unwrap()
        };
        let small = event(serde_json::json!({ "text": "x" }));
        assert_eq!(read(&small)["data"]["text"], "x");
        let large = event(serde_json::json!({ "text": "x".repeat(2000) }));
        let thin = read(&large);
        assert_eq!(
            (&thin["event"], &thin["seq"], &thin["data"]["truncated"]),
            (&"message".into(), &7.into(), &true.into())
        );
        let url = format!("https://wa.example.org/instances/shop/events/{}", large.id);
        assert_eq!(thin["data"]["fetch_url"], url);
        assert!(thin["data"]["size"].as_u64().unwrap() > 2000);
        assert_eq!(plain(&config, &large, None), plain(&config, &large, None), "the same bytes each time");
        // what makes it too large may be the message as it came: the whole event is fetched with it
        let raw = |size: usize| Some(serde_json::json!({ "conversation": "y".repeat(size) }));
        let body = |raw| serde_json::from_slice::<Value>(&plain(&config, &small, raw).body).unwrap();
        assert_eq!(body(raw(3))["data"], serde_json::json!({ "text": "x", "raw": { "conversation": "yyy" } }));
        let url = format!("https://wa.example.org/instances/shop/events/{}?include=raw", small.id);
        assert_eq!(body(raw(2000))["data"]["fetch_url"], url);
    }
}
