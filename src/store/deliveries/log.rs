//! The log: deliveries as a list, and the tries of each.

use super::{Attempt, Trigger, head_place, trigger};
use crate::jobs::word;
use crate::sql::values;
use crate::{Store, StoreError};
use kero_domain::{DeliveryId, DeliveryState, EndpointId, EventId, EventKind, Timestamp};
use sea_orm::{QueryResult, Value};

/// Which deliveries; `None` and empty for all.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    pub states: Vec<DeliveryState>,
    pub endpoint: Option<EndpointId>,
    pub event: Option<EventKind>,
    /// WhatsApp's id of the message that the event is about.
    pub message_id: Option<String>,
}

/// A delivery as a line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryLine {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub event: EventId,
    pub kind: EventKind,
    pub seq: Option<i64>,
    pub message_id: Option<String>,
    pub state: DeliveryState,
    pub attempts: u32,
    pub trigger: Trigger,
    /// What came back the last time.
    pub last_status: Option<u16>,
    /// Why nothing did, or why it counts for nothing.
    pub last_error: Option<String>,
    /// When a pending one is due; it may have to wait for others of its line.
    pub next_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "SELECT d.id, d.endpoint_id, d.state, d.attempts, d.triggered_by, d.next_at, d.created_at,
     d.updated_at, e.id AS event_id, e.kind, e.seq, e.message_id, a.http_status, a.error
     FROM deliveries d JOIN events e ON e.pk = d.event_pk
     LEFT JOIN attempts a ON a.delivery_id = d.id AND a.n = d.attempts";

fn line(row: &QueryResult) -> Result<DeliveryLine, StoreError> {
    Ok(DeliveryLine {
        id: DeliveryId(row.try_get("", "id")?),
        endpoint: EndpointId(row.try_get("", "endpoint_id")?),
        event: EventId(row.try_get("", "event_id")?),
        kind: word("event kind", &row.try_get::<String>("", "kind")?)?,
        seq: row.try_get("", "seq")?,
        message_id: row.try_get("", "message_id")?,
        state: word("delivery state", &row.try_get::<String>("", "state")?)?,
        attempts: u32::try_from(row.try_get::<i32>("", "attempts")?).unwrap_or(0),
        trigger: trigger(&row.try_get::<String>("", "triggered_by")?)?,
        last_status: http_status(row)?,
        last_error: row.try_get("", "error")?,
        next_at: Timestamp(row.try_get("", "next_at")?),
        created_at: Timestamp(row.try_get("", "created_at")?),
        updated_at: Timestamp(row.try_get("", "updated_at")?),
    })
}

fn http_status(row: &QueryResult) -> Result<Option<u16>, StoreError> {
    Ok(row.try_get::<Option<i32>>("", "http_status")?.and_then(|status| u16::try_from(status).ok()))
}

impl Store {
    /// An instance's deliveries older than `before`, newest first.
    pub async fn deliveries_page(
        &self,
        instance_pk: i64,
        filter: &DeliveryFilter,
        before: Option<DeliveryId>,
        limit: u64,
    ) -> Result<Vec<DeliveryLine>, StoreError> {
        let mut values = values![instance_pk, i64::try_from(limit).unwrap_or(i64::MAX)];
        let mut sql = format!("{COLUMNS} WHERE d.instance_pk = $1");
        let mut bind = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(|state| bind(state.as_str().into())).collect();
            sql.push_str(&format!(" AND d.state IN ({})", states.join(", ")));
        }
        if let Some(endpoint) = filter.endpoint {
            sql.push_str(&format!(" AND d.endpoint_id = {}", bind(endpoint.0.into())));
        }
        if let Some(kind) = filter.event {
            sql.push_str(&format!(" AND e.kind = {}", bind(kind.as_str().into())));
        }
        if let Some(id) = &filter.message_id {
            let (instance, id) = (bind(instance_pk.into()), bind(id.clone().into()));
            sql.push_str(&format!(" AND e.instance_pk = {instance} AND e.message_id = {id}"));
        }
        if let Some(before) = before {
            sql.push_str(&format!(" AND d.id < {}", bind(before.0.into())));
        }
        sql.push_str(" ORDER BY d.id DESC LIMIT $2");
        self.reader().all(sql, values).await?.iter().map(line).collect()
    }

    /// A delivery of the instance.
    pub async fn delivery_line(&self, instance_pk: i64, id: DeliveryId) -> Result<Option<DeliveryLine>, StoreError> {
        let sql = format!("{COLUMNS} WHERE d.instance_pk = $1 AND d.id = $2");
        self.reader().one(sql, values![instance_pk, id.0]).await?.as_ref().map(line).transpose()
    }

    /// The tries of a delivery, oldest first.
    pub async fn attempts(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let sql = "SELECT a.*, d.instance_pk FROM attempts a JOIN deliveries d ON d.id = a.delivery_id
                   WHERE a.delivery_id = $1 ORDER BY a.n";
        let rows = self.reader().all(sql, values![delivery.0]).await?;
        rows.iter().map(|row| self.attempt(delivery, row)).collect()
    }

    fn attempt(&self, delivery: DeliveryId, row: &QueryResult) -> Result<Attempt, StoreError> {
        let n = u32::try_from(row.try_get::<i32>("", "n")?).unwrap_or(0);
        let response_head = match row.try_get::<Option<Vec<u8>>>("", "response_head")? {
            None => None,
            Some(sealed) => {
                let place = head_place(row.try_get("", "instance_pk")?, delivery.0, n);
                let bytes = self.sealer().open("attempt's response", &place, &sealed)?;
                Some(String::from_utf8(bytes).map_err(|_| StoreError::Corrupt("attempt's response"))?)
            }
        };
        let millis = |column: &str| -> Result<Option<u64>, StoreError> {
            Ok(row.try_get::<Option<i64>>("", column)?.and_then(|millis| u64::try_from(millis).ok()))
        };
        Ok(Attempt {
            n,
            at: Timestamp(row.try_get("", "started_at")?),
            trigger: trigger(&row.try_get::<String>("", "triggered_by")?)?,
            http_status: http_status(row)?,
            error: row.try_get("", "error")?,
            dns_ms: millis("dns_ms")?,
            connect_ms: millis("connect_ms")?,
            first_byte_ms: millis("first_byte_ms")?,
            total_ms: millis("total_ms")?.unwrap_or(0),
            response_head,
            next_at: row.try_get::<Option<i64>>("", "next_at")?.map(Timestamp),
        })
    }
}
