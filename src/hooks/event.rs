//! An event as hooks see it: its JSON, and the few facts of it that are typed.

use crate::manifest::Manifest;
use kero_domain::EventKind;
use serde_json::Value;

/// What a hook is called for. Made once per event, however many hooks there are.
#[derive(Debug, Clone)]
pub struct Event {
    /// Stable over retries and replays.
    pub id: String,
    pub kind: EventKind,
    pub instance: String,
    /// Unix milliseconds.
    pub at: i64,
    /// The `data` object as it came from WhatsApp.
    pub data: String,
    /// The plugins whose messages caused this event: they are not called for it. One receipt can be about messages of
    /// several.
    pub caused_by: Vec<String>,
    pub(crate) facts: Facts,
}

/// The typed view, independent of any WIT version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Facts {
    Message(Message),
    Ack(Ack),
    Receipt(Receipt),
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) chat: String,
    pub(crate) sender: String,
    pub(crate) from_me: bool,
    pub(crate) is_group: bool,
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
    pub(crate) reply_to: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ack {
    pub(crate) status: String,
    pub(crate) correlation_id: String,
    pub(crate) message_id: Option<String>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Receipt {
    pub(crate) chat: String,
    pub(crate) sender: String,
    pub(crate) kind: String,
    pub(crate) ids: Vec<String>,
}

impl Event {
    pub fn new(id: impl Into<String>, kind: EventKind, instance: impl Into<String>, at: i64, data: &Value) -> Self {
        Self {
            id: id.into(),
            kind,
            instance: instance.into(),
            at,
            // formatting it (`to_string`) is the slow way; neither fails for a value in memory
            data: serde_json::to_string(data).unwrap_or_else(|_| data.to_string()),
            caused_by: Vec::new(),
            facts: Facts::of(kind, data),
        }
    }

    /// Whether it comes of a message of this plugin.
    pub fn is_caused_by(&self, plugin: &Manifest) -> bool {
        self.caused_by.iter().any(|name| name == plugin.name.as_str())
    }

    pub fn caused_by(mut self, plugins: impl IntoIterator<Item = String>) -> Self {
        self.caused_by.extend(plugins);
        self
    }
}

impl Facts {
    /// Reads the members that the gateway's events have; what is absent is empty.
    fn of(kind: EventKind, data: &Value) -> Self {
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| data.get(name).and_then(Value::as_bool).unwrap_or(false);
        match kind {
            EventKind::Message => Self::Message(Message {
                id: text("message_id").unwrap_or_default(),
                chat: text("chat").or_else(|| text("to")).unwrap_or_default(),
                sender: text("from").unwrap_or_default(),
                from_me: flag("is_from_me"),
                is_group: flag("is_group"),
                kind: text("message_type").unwrap_or_else(|| "unknown".to_owned()),
                text: text("text").or_else(|| text("caption")),
                reply_to: data.pointer("/quoted/message_id").and_then(Value::as_str).map(str::to_owned),
            }),
            EventKind::MessageAck => Self::Ack(Ack {
                status: text("status").unwrap_or_default(),
                correlation_id: text("correlation_id").unwrap_or_default(),
                message_id: text("message_id"),
                error: text("error"),
            }),
            EventKind::Receipt => Self::Receipt(Receipt {
                chat: text("chat").or_else(|| text("from")).unwrap_or_default(),
                sender: text("from").unwrap_or_default(),
                kind: text("type").unwrap_or_default(),
                ids: data
                    .get("ids")
                    .and_then(Value::as_array)
                    .map(|ids| ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
            }),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_come_from_the_gateways_members() {
        let event = Event::new(
            "e1",
            EventKind::Message,
            "shop",
            1,
            &json!({"message_id": "3EB0", "from": "a@s.whatsapp.net", "to": "g@g.us", "chat": "g@g.us", "is_group": true,
                "message_type": "image", "caption": "look", "quoted": {"message_id": "3EAF"}}),
        );
        let Facts::Message(message) = &event.facts else { panic!() };
        assert_eq!((message.chat.as_str(), message.sender.as_str()), ("g@g.us", "a@s.whatsapp.net"));
        assert_eq!((message.text.as_deref(), message.reply_to.as_deref()), (Some("look"), Some("3EAF")));
        let ack = Event::new(
            "e2",
            EventKind::MessageAck,
            "shop",
            1,
            &json!({"status": "failed", "correlation_id": "c", "error": "x"}),
        );
        assert!(matches!(&ack.facts, Facts::Ack(it) if it.status == "failed" && it.error.as_deref() == Some("x")));
        assert_eq!(Event::new("e3", EventKind::Call, "shop", 1, &json!({})).facts, Facts::Other);
    }
}
