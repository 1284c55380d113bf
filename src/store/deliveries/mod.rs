//! Deliveries: one event for one endpoint, and its attempts.
//!
//! Deliveries of one (endpoint, instance, order key) stand in line; only the head of a line is ever due. The head is
//! marked, so that what stands behind it costs the due pass nothing. All deliveries of an instance are written by that
//! instance's writer, so that heads and their successors agree.

mod claim;
mod insert;
mod log;
mod record;
mod replay;

pub use claim::{Claimed, Pending, Wanting};
#[cfg(test)]
pub(crate) use claim::{heads_sql, lines_sql};
pub(crate) use insert::{Row, insert, kill, take_dead};
pub use log::{DeliveryFilter, DeliveryLine};
pub(crate) use record::{Record, fix_request, record, seal_request};
pub use replay::Replay;

use crate::StoreError;
use crate::endpoints::Endpoint;
use crate::events::RawEvent;
use crate::seal::place;
use crate::sql::{few_shapes, tuples};
use crate::writer::Tx;
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use sea_orm::Value;
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// An event on its way to an endpoint.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: DeliveryId,
    pub endpoint: Arc<Endpoint>,
    pub event: Arc<RawEvent>,
    /// Tries so far.
    pub attempts: u32,
    /// Tries that the retry schedule does not count: probes, and those before a replay.
    pub uncounted: u32,
    pub trigger: Trigger,
    /// What every try sends, once that is fixed; until then it follows from the event alone.
    pub request: Option<Vec<u8>>,
    pub next_at: Timestamp,
    pub created_at: Timestamp,
}

/// What made the gateway try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The event, or the retry schedule after it.
    Event,
    /// Somebody asked for a replay.
    Manual,
    /// Finding out whether an endpoint that failed answers again; the schedule does not count it.
    Probe,
}

impl Trigger {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Manual => "manual",
            Self::Probe => "probe",
        }
    }
}

impl std::str::FromStr for Trigger {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Event, Self::Manual, Self::Probe].into_iter().find(|known| known.as_str() == text).ok_or(())
    }
}

/// One HTTP try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 is the first.
    pub n: u32,
    pub at: Timestamp,
    pub trigger: Trigger,
    pub http_status: Option<u16>,
    pub error: Option<String>,
    /// Absent when a connection was there already, or a name had not to be resolved.
    pub dns_ms: Option<u64>,
    pub connect_ms: Option<u64>,
    /// Until the answer's status and headers.
    pub first_byte_ms: Option<u64>,
    pub total_ms: u64,
    /// The beginning of the answer; stored sealed, since receivers echo what they got.
    pub response_head: Option<String>,
    /// When the next one is due; `None` after the last.
    pub next_at: Option<Timestamp>,
}

/// What a try leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    Retry {
        next_at: Timestamp,
        /// `false`: the retry schedule does not count this try.
        counts: bool,
    },
    /// No further try; the next in line moves up.
    Dead,
}

/// Where deliveries stand behind each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    pub endpoint: EndpointId,
    pub instance_pk: i64,
    pub order_key: String,
}

fn head_place(instance_pk: i64, delivery: Uuid, n: u32) -> String {
    place("attempts.response_head", instance_pk, format_args!("{delivery}|{n}"))
}

fn request_place(instance_pk: i64, delivery: Uuid) -> String {
    place("deliveries.request", instance_pk, delivery)
}

fn trigger(text: &str) -> Result<Trigger, StoreError> {
    text.parse().map_err(|()| StoreError::Corrupt("delivery's trigger"))
}

/// Marks the first pending delivery of each line as its head.
async fn set_heads(tx: &Tx, lines: &HashSet<Line>) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut values = line_values(lines);
    let rows = few_shapes(&mut values, lines.len(), 3);
    let sql = format!(
        "UPDATE deliveries SET head = TRUE WHERE id IN (SELECT (SELECT first.id FROM deliveries AS first
           WHERE first.endpoint_id = v.column1 AND first.instance_pk = v.column2 AND first.order_key = v.column3
             AND first.state = 'pending' ORDER BY first.event_pk LIMIT 1) FROM (VALUES {}) AS v)",
        tuples(0, rows, 3)
    );
    tx.db.run(sql, values).await.map(drop)
}

/// The same where another delivery may be marked already.
async fn reset_heads(tx: &Tx, lines: &HashSet<Line>) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE deliveries SET head = FALSE FROM (VALUES {}) AS v WHERE deliveries.endpoint_id = v.column1
           AND deliveries.instance_pk = v.column2 AND deliveries.order_key = v.column3
           AND deliveries.state = 'pending' AND deliveries.head",
        tuples(0, lines.len(), 3)
    );
    tx.db.run(sql, line_values(lines)).await?;
    set_heads(tx, lines).await
}

fn line_values(lines: &HashSet<Line>) -> Vec<Value> {
    let mut values = Vec::with_capacity(lines.len() * 3);
    for line in lines {
        values.extend(crate::sql::values![line.endpoint.0, line.instance_pk, line.order_key.clone()]);
    }
    values
}

fn line_of(row: &sea_orm::QueryResult) -> Result<Line, StoreError> {
    Ok(Line {
        endpoint: EndpointId(row.try_get("", "endpoint_id")?),
        instance_pk: row.try_get("", "instance_pk")?,
        order_key: row.try_get("", "order_key")?,
    })
}
