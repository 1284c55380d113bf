//! Endpoints: which events a URL receives, and in which order.

use crate::address::Address;
use crate::event::EventKind;
use crate::instance::word_enum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

word_enum!(
    /// How much of the journal's order an endpoint's deliveries keep.
    Order {
        /// None: one delivery waits for no other.
        None = "none",
        /// The events of a chat, one after the other; a failing one holds up its chat only.
        Chat = "chat",
        /// All events of an instance, one after the other; a failing one holds up all of them.
        Strict = "strict",
    }
);

word_enum!(
    /// What became of a delivery.
    DeliveryState {
        /// It waits: for its time, for others of its line, or for its endpoint.
        Pending = "pending",
        Delivered = "delivered",
        /// Its tries are used up; a replay gives it new ones.
        Dead = "dead",
    }
);

word_enum!(
    /// Kinds of chats.
    ChatType {
        Private = "private",
        Group = "group",
        Newsletter = "newsletter",
        /// Broadcast lists and status updates.
        Broadcast = "broadcast",
    }
);

word_enum!(
    /// Who wrote a message.
    Direction {
        /// Somebody else.
        In = "in",
        /// The account itself, from whatever device.
        Out = "out",
    }
);

word_enum!(
    /// Why the gateway disabled an endpoint.
    DisabledReason {
        /// It answered 410.
        Gone = "gone",
        /// It failed for days without one success.
        Failing = "failing",
    }
);

impl ChatType {
    /// `None` when the text is no chat's address.
    pub fn of(chat: &str) -> Option<Self> {
        match Address::parse(chat).ok()? {
            Address::Phone(_) | Address::Lid(_) => Some(Self::Private),
            Address::Group(_) => Some(Self::Group),
            Address::Newsletter(_) => Some(Self::Newsletter),
            Address::Broadcast(_) => Some(Self::Broadcast),
        }
    }
}

/// Narrows the events that an endpoint gets. What an event does not have (a chat, a type, a direction) does not
/// keep it out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Narrow {
    /// Only these chats; empty for all.
    pub chats: Vec<Address>,
    /// Only chats of these kinds; empty for all.
    pub chat_types: Vec<ChatType>,
    /// Only messages of these types (`text`, `image`, …); empty for all.
    pub message_types: Vec<String>,
    /// Only messages that came in, or only those from the account itself.
    pub direction: Option<Direction>,
}

impl Narrow {
    /// `order_key` and `data` are the event's.
    pub fn lets_through(&self, order_key: &str, data: &Value) -> bool {
        self.chat(order_key, data) && self.message_type(data) && self.side(data)
    }

    fn chat(&self, order_key: &str, data: &Value) -> bool {
        let Some(kind) = ChatType::of(order_key) else { return true };
        (self.chat_types.is_empty() || self.chat_types.contains(&kind))
            && (self.chats.is_empty() || self.chats.iter().any(|chat| names(chat, order_key, data)))
    }

    fn message_type(&self, data: &Value) -> bool {
        let Some(found) = data.get("message_type").and_then(Value::as_str) else { return true };
        self.message_types.is_empty() || self.message_types.iter().any(|wanted| wanted == found)
    }

    fn side(&self, data: &Value) -> bool {
        match (self.direction, data.get("is_from_me").and_then(Value::as_bool)) {
            (Some(wanted), Some(own)) => own == (wanted == Direction::Out),
            _ => true,
        }
    }
}

/// Whether `chat` is the event's chat, by any of the addresses that the event gives for it.
fn names(chat: &Address, order_key: &str, data: &Value) -> bool {
    let same = |text: &str| Address::parse(text).is_ok_and(|found| found == *chat);
    let known = |member: &str| data.get("chat_identity").and_then(|who| who.get(member)).and_then(Value::as_str);
    same(order_key) || ["phone", "lid", "jid"].into_iter().any(|member| known(member).is_some_and(same))
}

/// The events that an endpoint wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub enum EventFilter {
    /// `all` or `*`
    All,
    /// An empty list from the caller means [`EventKind::DEFAULT`].
    Only(Vec<EventKind>),
}

impl Default for EventFilter {
    fn default() -> Self {
        Self::Only(EventKind::DEFAULT.to_vec())
    }
}

impl EventFilter {
    pub fn wants(&self, kind: EventKind) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }

    /// The names as the caller writes them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::All => vec!["all".to_owned()],
            Self::Only(kinds) => kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        }
    }
}

impl From<EventFilter> for Vec<String> {
    fn from(filter: EventFilter) -> Self {
        filter.names()
    }
}

impl TryFrom<Vec<String>> for EventFilter {
    type Error = String;
    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        if names.iter().any(|name| name == "all" || name == "*") {
            return Ok(Self::All);
        }
        let mut kinds = Vec::with_capacity(names.len());
        for name in &names {
            let kind: EventKind = name.parse().map_err(|_| format!("unknown event {name:?}"))?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(Self::Only(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrows_by_chat_type_and_direction() {
        let data = |kind: &str, own: bool| {
            serde_json::json!({
                "message_type": kind, "is_from_me": own, "chat_identity": { "phone": "491701234567", "lid": "77@lid" }
            })
        };
        let narrow = |json: Value| serde_json::from_value::<Narrow>(json).unwrap();
        let any = Narrow::default();
        assert!(any.lets_through("77@lid", &data("text", true)) && any.lets_through("", &Value::Null));
        // a person by number or by hidden id, as far as the event tells both; never one taken for the other
        for chat in ["491701234567", "77@lid", "+49 170 1234567"] {
            let one = narrow(serde_json::json!({ "chats": [chat] }));
            assert!(one.lets_through("77@lid", &data("text", false)), "{chat}");
            assert!(!one.lets_through("491701234567-1@g.us", &Value::Null), "{chat}");
            assert!(one.lets_through("", &serde_json::json!({ "status": "connected" })), "no chat, no question");
        }
        let number = narrow(serde_json::json!({ "chats": ["4917077"] }));
        assert!(!number.lets_through("4917077@lid", &Value::Null), "digits of a hidden id are no number");
        let groups = narrow(serde_json::json!({ "chat_types": ["group"] }));
        assert!(groups.lets_through("1-2@g.us", &Value::Null) && !groups.lets_through("77@lid", &Value::Null));
        let images = narrow(serde_json::json!({ "message_types": ["image"], "direction": "in" }));
        assert!(images.lets_through("77@lid", &data("image", false)));
        assert!(!images.lets_through("77@lid", &data("image", true)));
        assert!(!images.lets_through("77@lid", &data("text", false)));
        assert!(
            images.lets_through("77@lid", &serde_json::json!({ "status": "sent" })),
            "an acknowledgement has neither"
        );
    }

    #[test]
    fn filters_by_name_all_and_default() {
        let filter = |names: &[&str]| EventFilter::try_from(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(filter(&["*"]).unwrap().wants(EventKind::Call));
        assert!(filter(&["message"]).unwrap().wants(EventKind::Message));
        assert!(!filter(&["message"]).unwrap().wants(EventKind::MessageAck));
        assert!(filter(&[]).unwrap().wants(EventKind::MessageAck));
        assert!(filter(&["nonsense"]).is_err());
    }
}
