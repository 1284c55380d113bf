//! Events of the journal on the wire, in the envelope that webhooks get.

use super::members::Members;
use super::time::Moment;
use super::words::EventKind;
use kero_domain::event::SCHEMA;
use poem_openapi::{Enum, Object};
use serde_json::{Map, Value};
use uuid::Uuid;

/// An event, exactly as it is delivered. The section on webhooks describes `data` for every kind.
#[derive(Object)]
pub(crate) struct Event {
    pub event: EventKind,
    pub instance_id: String,
    /// When it happened, in Unix seconds.
    pub timestamp: i64,
    /// Depends on `event`.
    pub data: Members,
    /// The event's id, the same in every delivery of it.
    pub id: Uuid,
    /// Its place in the instance's journal; dense.
    pub seq: i64,
    /// Grows when a member changes its meaning.
    pub schema: u32,
}

/// What an event may come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum Include {
    /// `data.raw`: the message as WhatsApp sent it, the protobuf as JSON.
    Raw,
}

/// Opens one stream, once.
#[derive(Object)]
pub(crate) struct StreamToken {
    /// Give it as `token` in the stream's URL.
    pub token: String,
    /// Until when it can be used.
    pub expires_at: Moment,
}

impl Event {
    /// `None` for an event that has no place in the journal (yet).
    pub fn new(event: kero_store::Event) -> Option<Self> {
        let data = match event.data {
            Value::Object(members) => members,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        Some(Self {
            event: event.kind.into(),
            instance_id: event.instance_id.into(),
            timestamp: event.at.secs(),
            data: Members(data),
            id: event.id.0,
            seq: event.seq?,
            schema: SCHEMA,
        })
    }
}
