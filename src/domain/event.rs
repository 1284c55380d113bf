//! Events: immutable facts with a kind, an order key and, once fanned out, a sequence number.

use crate::ids::EventId;
use crate::instance::word_enum;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

word_enum!(
    /// What an event reports.
    EventKind {
        Message = "message",
        MessageAck = "message_ack",
        Receipt = "receipt",
        Status = "status",
        Pairing = "pairing",
        MessageEdit = "message_edit",
        MessageRevoke = "message_revoke",
        Reaction = "reaction",
        PollVote = "poll_vote",
        Presence = "presence",
        Call = "call",
        Group = "group",
        Contact = "contact",
        Chat = "chat",
        Label = "label",
        Newsletter = "newsletter",
        SyncProgress = "sync_progress",
        Undecryptable = "undecryptable",
        Media = "media",
        Endpoint = "endpoint",
    }
);

impl EventKind {
    /// Delivered to endpoints that name no events.
    pub const DEFAULT: &'static [Self] = &[Self::Message, Self::MessageAck, Self::Receipt, Self::Status];
}

/// The schema number in every envelope; grows when a member changes its meaning.
pub const SCHEMA: u32 = 1;

/// An event before it is in the journal.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub id: EventId,
    pub kind: EventKind,
    /// Events with one key are delivered in order: the chat's JID, or "" for the instance.
    pub order_key: String,
    /// The same fact reported twice has one key (unique per instance); `None` for facts that cannot repeat.
    pub dedupe_key: Option<String>,
    /// WhatsApp's message id it is about, for the log search.
    pub message_id: Option<String>,
    pub at: Timestamp,
    pub data: serde_json::Value,
    /// The message as WhatsApp sent it (protobuf), for those who ask for `include=raw`.
    pub raw: Option<Vec<u8>>,
    /// The HTTP request that caused it, for the logs.
    pub request_id: Option<String>,
}

impl NewEvent {
    pub fn new(kind: EventKind, order_key: impl Into<String>, at: Timestamp, data: serde_json::Value) -> Self {
        Self {
            id: EventId::new(),
            kind,
            order_key: order_key.into(),
            dedupe_key: None,
            message_id: None,
            at,
            data,
            raw: None,
            request_id: None,
        }
    }
}

/// The envelope as it is sent: the seed's four members, then ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope<D = serde_json::Value> {
    pub event: EventKind,
    pub instance_id: String,
    /// Unix seconds.
    pub timestamp: i64,
    pub data: D,
    pub id: EventId,
    /// Per instance, dense.
    pub seq: i64,
    pub schema: u32,
}
