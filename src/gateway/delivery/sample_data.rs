//! The made-up data of samples: one of each kind, with the members that an event of it always has.

use kero_domain::{EventId, EventKind, Timestamp};
use serde_json::{Value, json};

const PHONE: &str = "491700000000";
const CHAT: &str = "491700000000@s.whatsapp.net";
const OWN: &str = "491700000001@s.whatsapp.net";
const GROUP: &str = "120363000000000000@g.us";
const MESSAGE: &str = "3EB0000000000000000000";
pub(super) const TEXT: &str = "This is a test.";

fn person() -> Value {
    json!({ "phone": PHONE, "jid": CHAT })
}

/// What somebody does to a message.
fn about(at: Timestamp, more: Value) -> Value {
    let data = json!({
        "message_id": "3EB0000000000000000001", "target_message_id": MESSAGE, "chat": CHAT, "is_group": false,
        "from": CHAT, "actor": person(), "is_from_me": false, "timestamp": at.secs()
    });
    with(data, more)
}

fn with(mut data: Value, more: Value) -> Value {
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    data
}

/// Made-up data of a kind; `test` tells it from the real.
pub(super) fn data(kind: EventKind, at: Timestamp) -> Value {
    let (secs, moment) = (at.secs(), at.rfc3339());
    let data = match kind {
        EventKind::Message => json!({
            "message_id": MESSAGE, "from": CHAT, "to": OWN, "is_group": false, "message_type": "text", "text": TEXT,
            "timestamp": secs, "is_from_me": false, "sender_name": "Test", "chat": CHAT, "sender": person(),
            "chat_identity": person()
        }),
        EventKind::MessageAck => {
            json!({ "status": "sent", "correlation_id": "test", "message_id": MESSAGE, "attempts": 1 })
        }
        EventKind::Receipt => json!({
            "message_id": MESSAGE, "ids": [MESSAGE], "from": CHAT, "chat": CHAT, "sender": person(), "type": "read",
            "timestamp": secs
        }),
        EventKind::Status => json!({ "status": "connected", "since": moment }),
        EventKind::Pairing => json!({ "kind": "code", "code": "TEST-TEST", "expires_at": moment }),
        EventKind::MessageEdit => about(at, json!({ "message_type": "text", "text": TEXT })),
        EventKind::MessageRevoke => about(at, json!({ "by_admin": false })),
        EventKind::Reaction => about(at, json!({ "emoji": "👍", "removed": false })),
        EventKind::PollVote => about(at, json!({ "selected_option_hashes": ["0".repeat(64)] })),
        EventKind::Presence => {
            json!({ "from": CHAT, "state": "composing", "media": "", "chat": CHAT, "sender": person() })
        }
        EventKind::Call => {
            json!({ "from": CHAT, "timestamp": secs, "status": "incoming", "call_id": "TEST", "sender": person() })
        }
        EventKind::Group => {
            json!({ "group": GROUP, "action": "subject", "timestamp": secs, "actor": person(), "subject": "Test" })
        }
        EventKind::Contact => {
            json!({ "change": "about", "contact": CHAT, "identity": person(), "timestamp": secs, "about": TEXT })
        }
        EventKind::Chat => json!({ "chat": CHAT, "change": "pin", "timestamp": secs, "pinned": true }),
        EventKind::Label => json!({ "label_id": "1", "change": "label", "name": "Test", "color": 0, "deleted": false }),
        EventKind::Newsletter => json!({
            "chat": "120363000000000000@newsletter", "change": "reactions",
            "messages": [{ "server_id": 1, "reactions": [{ "emoji": "👍", "count": 1 }] }]
        }),
        EventKind::SyncProgress => json!({ "percentage": 100, "sync_type": "offline", "count": 0 }),
        EventKind::Undecryptable => json!({
            "message_id": MESSAGE, "chat": CHAT, "from": CHAT, "sender": person(), "is_group": false, "timestamp": secs,
            "reason": "decryption-failed"
        }),
        EventKind::Endpoint => {
            json!({ "endpoint_id": EventId::default(), "status": "disabled", "reason": "gone", "since": moment })
        }
        EventKind::Media => json!({}),
    };
    with(data, json!({ "test": true }))
}
