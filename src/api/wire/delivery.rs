//! Deliveries on the wire: the log.

use super::time::Moment;
use super::words::{DeliveryState, DeliveryTrigger, EventKind};
use kero_store::{Attempt as StoredAttempt, DeliveryLine};
use poem_openapi::Object;
use uuid::Uuid;

/// An event on its way to an endpoint.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Delivery {
    pub id: Uuid,
    pub endpoint_id: Uuid,
    /// The event's id: the `webhook-id` of every try.
    pub event_id: Uuid,
    pub event: EventKind,
    /// The event's place in the instance's journal.
    pub seq: Option<i64>,
    /// WhatsApp's id of the message that the event is about.
    pub message_id: Option<String>,
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// What made the gateway try: the event, or a replay.
    pub trigger: DeliveryTrigger,
    /// The HTTP status that came back the last time.
    pub last_status: Option<u16>,
    /// Why nothing came back the last time, or why it counts as a failure.
    pub last_error: Option<String>,
    /// When a pending one is due. It may have to wait for others before it, and for its endpoint.
    pub next_attempt_at: Option<Moment>,
    pub created_at: Moment,
    pub updated_at: Moment,
}

impl From<DeliveryLine> for Delivery {
    fn from(line: DeliveryLine) -> Self {
        let pending = line.state == kero_domain::DeliveryState::Pending;
        Self {
            id: line.id.0,
            endpoint_id: line.endpoint.0,
            event_id: line.event.0,
            event: line.kind.into(),
            seq: line.seq,
            message_id: line.message_id,
            state: line.state.into(),
            attempts: line.attempts,
            trigger: line.trigger.into(),
            last_status: line.last_status,
            last_error: line.last_error,
            next_attempt_at: Moment::maybe(pending.then_some(line.next_at)),
            created_at: line.created_at.into(),
            updated_at: line.updated_at.into(),
        }
    }
}

/// A delivery and every try of it.
#[derive(Object)]
pub(crate) struct DeliveryDetail {
    pub delivery: Delivery,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
}

impl DeliveryDetail {
    pub fn new((line, attempts): (DeliveryLine, Vec<StoredAttempt>)) -> Self {
        Self { delivery: line.into(), attempts: attempts.into_iter().map(Attempt::from).collect() }
    }
}

/// One HTTP try.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Attempt {
    /// 1 is the first.
    pub number: u32,
    pub at: Moment,
    pub trigger: DeliveryTrigger,
    /// The HTTP status that came back.
    pub status: Option<u16>,
    /// Why nothing came back, or why what came back counts as a failure.
    pub error: Option<String>,
    /// Absent when there was no name to look up, or a connection already.
    pub dns_ms: Option<u64>,
    /// The name, the connection and TLS; absent when there was a connection already.
    pub connect_ms: Option<u64>,
    /// Until status and headers were there.
    pub first_byte_ms: Option<u64>,
    pub total_ms: u64,
    /// The beginning of the answer's body.
    pub response_head: Option<String>,
    /// When the next one is due; absent after the last.
    pub next_attempt_at: Option<Moment>,
}

impl From<StoredAttempt> for Attempt {
    fn from(attempt: StoredAttempt) -> Self {
        Self {
            number: attempt.n,
            at: attempt.at.into(),
            trigger: attempt.trigger.into(),
            status: attempt.http_status,
            error: attempt.error,
            dns_ms: attempt.dns_ms,
            connect_ms: attempt.connect_ms,
            first_byte_ms: attempt.first_byte_ms,
            total_ms: attempt.total_ms,
            response_head: attempt.response_head,
            next_attempt_at: Moment::maybe(attempt.next_at),
        }
    }
}
