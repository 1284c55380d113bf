//! The frames of the WebSocket, in Kero-Kero's shape.

use kero_domain::{EventKind, InstanceId};
use kero_gateway::{QrCode, StatusView};
use kero_store::Event;
use serde_json::{Map, Value, json};

/// `{type, payload}`.
pub(crate) struct Frame {
    kind: &'static str,
    payload: Map<String, Value>,
}

impl Frame {
    fn new(kind: &'static str, instance: &InstanceId) -> Self {
        Self { kind, payload: Map::from_iter([("instance_id".to_owned(), instance.as_str().into())]) }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.payload.insert(name.to_owned(), value.into());
        self
    }

    pub fn text(&self) -> String {
        json!({ "type": self.kind, "payload": self.payload }).to_string()
    }
}

/// The status as it is when the client comes.
pub(crate) fn status_now(instance: &InstanceId, view: &StatusView) -> Frame {
    let frame = Frame::new("status", instance).with("status", view.status.as_str());
    let frame = match view.cause {
        Some(cause) => frame.with("cause", cause.as_str()),
        None => frame,
    };
    frame.with("since", view.since.rfc3339())
}

/// The QR code that is shown when the client comes.
pub(crate) fn qr_now(instance: &InstanceId, qr: &QrCode) -> Frame {
    Frame::new("qr", instance).with("qr", qr.code.as_str()).with("expires_at", qr.expires_at.rfc3339())
}

/// An event of the journal.
pub(crate) fn frame(event: Event) -> Frame {
    let mut data = match event.data {
        Value::Object(members) => members,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    let is_qr = event.kind == EventKind::Pairing && data.get("kind").is_some_and(|kind| kind == "qr");
    let mut frame = Frame::new(if is_qr { "qr" } else { event.kind.as_str() }, &event.instance_id);
    match event.kind {
        EventKind::Pairing if is_qr => {
            for (theirs, ours) in [("qr", "code"), ("expires_at", "expires_at")] {
                if let Some(value) = data.remove(ours) {
                    frame = frame.with(theirs, value);
                }
            }
        }
        EventKind::Status => frame.payload.append(&mut data),
        EventKind::Presence => {
            if let Some(state) = data.get("state").cloned() {
                data.insert("type".to_owned(), state);
            }
            frame = frame.with("data", data);
        }
        _ => frame = frame.with("data", data),
    }
    let frame = frame.with("id", event.id.to_string()).with("timestamp", event.at.secs());
    match event.seq {
        Some(seq) => frame.with("seq", seq),
        None => frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kero_domain::{EventId, Timestamp};

    fn of(kind: EventKind, data: Value) -> Value {
        let event = Event {
            row: 1,
            id: EventId::new(),
            instance_pk: 1,
            instance_id: "shop".parse().unwrap(),
            kind,
            order_key: String::new(),
            seq: Some(7),
            at: Timestamp::from_secs(1_735_000_000),
            message_id: None,
            data,
            request_id: None,
            verdict: None,
            hook_errors: None,
        };
        let mut frame: Value = serde_json::from_str(&frame(event).text()).unwrap();
        let payload = frame["payload"].as_object_mut().unwrap();
        assert_eq!(payload.remove("seq"), Some(7.into()));
        assert_eq!(payload.remove("timestamp"), Some(1_735_000_000.into()));
        assert!(payload.remove("id").is_some_and(|id| id.is_string()));
        frame
    }

    #[test]
    fn frames_are_kero_keros() {
        assert_eq!(
            of(EventKind::Message, json!({"message_id": "A", "text": "hi"})),
            json!({"type": "message", "payload": {"instance_id": "shop", "data": {"message_id": "A", "text": "hi"}}})
        );
        assert_eq!(
            of(EventKind::Status, json!({"status": "connected", "since": "x"})),
            json!({"type": "status", "payload": {"instance_id": "shop", "status": "connected", "since": "x"}})
        );
        assert_eq!(
            of(EventKind::Pairing, json!({"kind": "qr", "code": "2@abc", "expires_at": "x"})),
            json!({"type": "qr", "payload": {"instance_id": "shop", "qr": "2@abc", "expires_at": "x"}})
        );
        assert_eq!(
            of(EventKind::Pairing, json!({"kind": "scanned"})),
            json!({"type": "pairing", "payload": {"instance_id": "shop", "data": {"kind": "scanned"}}})
        );
        let typing = of(EventKind::Presence, json!({"from": "1@s.whatsapp.net", "state": "composing", "media": ""}));
        assert_eq!(typing["payload"]["data"]["type"], "composing");
        assert_eq!(typing["payload"]["data"]["from"], "1@s.whatsapp.net");
        assert_eq!(of(EventKind::Call, json!({}))["type"], "call");
    }
}
