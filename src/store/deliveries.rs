//! Deliveries: one event for one endpoint, and its attempts.
//!
//! Deliveries of one (endpoint, instance, order key) stand in line; only the head of a line is ever due. The head is
//! marked, so that what stands behind it costs the due pass nothing.

use crate::endpoints::{Endpoint, endpoint};
use crate::entity::{deliveries, endpoints, events};
use crate::events::{Event, NewDelivery};
use crate::seal::{Sealer, place};
use crate::sql::{MAX_BINDS, placeholders, tuples, values};
use crate::writer::{Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, EventKind, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, Value};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// An event on its way to an endpoint.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: DeliveryId,
    pub endpoint: Endpoint,
    pub event: Event,
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
    },
    /// No further try; the next in line moves up.
    Dead,
}

/// The due pass: `$1` now, `$2` how many.
pub(crate) const DUE: &str = "SELECT d.* FROM endpoints e CROSS JOIN deliveries d WHERE d.endpoint_id = e.id
     AND d.state = 'pending' AND d.head AND d.priority IN (0, 1) AND d.next_at <= $1 AND e.enabled
     ORDER BY d.priority, d.next_at, d.event_pk LIMIT $2";

/// A delivery to write.
pub(crate) struct Row {
    pub event_pk: i64,
    pub instance_pk: i64,
    /// The event's.
    pub order_key: String,
    pub kind: EventKind,
    pub delivery: NewDelivery,
}

/// Acknowledgements of sends go first: somebody waits for them.
fn priority(kind: EventKind) -> i16 {
    i16::from(kind != EventKind::MessageAck)
}

/// Writes deliveries, each into the line that its endpoint's order gives it. Those of an endpoint that is gone, and
/// those that are there already, are left out.
pub(crate) async fn insert(tx: &Tx, rows: &[Row], trigger: Trigger) -> Result<(), StoreError> {
    const WIDTH: usize = 8;
    let now = Timestamp::now().0;
    for rows in rows.chunks(MAX_BINDS / WIDTH) {
        let mut values = values![now, trigger.as_str()];
        for row in rows {
            values.extend(values![
                row.delivery.id.0,
                row.delivery.endpoint.0,
                row.event_pk,
                row.instance_pk,
                row.order_key.clone(),
                row.delivery.id.to_string(),
                priority(row.kind),
                row.delivery.next_at.0
            ]);
        }
        let sql = format!(
            "INSERT INTO deliveries (id, endpoint_id, event_pk, instance_pk, order_key, state, head, priority, attempts,
             uncounted, triggered_by, next_at, created_at, updated_at)
             SELECT v.column1, e.id, v.column3, v.column4,
               CASE e.ordering WHEN 'none' THEN v.column6 WHEN 'strict' THEN '' ELSE v.column5 END,
               'pending', FALSE, v.column7, 0, 0, $2, v.column8, $1, $1
             FROM (VALUES {}) AS v JOIN endpoints e ON e.id = v.column2 WHERE TRUE ON CONFLICT DO NOTHING",
            tuples(2, rows.len(), WIDTH)
        );
        tx.db.run(sql, values).await?;
        let ids: Vec<Value> = rows.iter().map(|row| Value::from(row.delivery.id.0)).collect();
        let sql = format!(
            "UPDATE deliveries SET head = TRUE WHERE id IN ({}) AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier
             WHERE earlier.endpoint_id = deliveries.endpoint_id AND earlier.instance_pk = deliveries.instance_pk
               AND earlier.order_key = deliveries.order_key AND earlier.state = 'pending'
               AND earlier.event_pk < deliveries.event_pk)",
            placeholders(0, ids.len())
        );
        tx.db.run(sql, ids).await?;
    }
    Ok(())
}

/// Ends deliveries that were just written: a hook failed on their event.
pub(crate) async fn kill(tx: &Tx, rows: &[Row]) -> Result<(), StoreError> {
    for rows in rows.chunks(MAX_BINDS) {
        let ids: Vec<Value> = rows.iter().map(|row| Value::from(row.delivery.id.0)).collect();
        let which = placeholders(0, ids.len());
        let sql = format!("UPDATE deliveries SET state = 'dead', head = FALSE WHERE id IN ({which})");
        tx.db.run(sql, ids).await?;
    }
    Ok(())
}

/// Deletes the dead deliveries of events; who they were, by event and endpoint.
pub(crate) async fn take_dead(tx: &Tx, events: &[i64]) -> Result<HashMap<(i64, EndpointId), DeliveryId>, StoreError> {
    let values = || events.iter().copied().map(Value::from).collect::<Vec<_>>();
    let which = format!("FROM deliveries WHERE state = 'dead' AND event_pk IN ({})", placeholders(0, events.len()));
    let mut taken = HashMap::new();
    for row in tx.db.all(format!("SELECT id, event_pk, endpoint_id {which}"), values()).await? {
        let (event, endpoint): (i64, Uuid) = (row.try_get("", "event_pk")?, row.try_get("", "endpoint_id")?);
        taken.insert((event, EndpointId(endpoint)), DeliveryId(row.try_get("", "id")?));
    }
    tx.db.run(format!("DELETE {which}"), values()).await?;
    Ok(taken)
}

fn head_place(instance_pk: i64, delivery: Uuid, n: u32) -> String {
    place("attempts.response_head", instance_pk, format_args!("{delivery}|{n}"))
}

fn request_place(instance_pk: i64, delivery: Uuid) -> String {
    place("deliveries.request", instance_pk, delivery)
}

impl Store {
    /// Deliveries to try now, the longest due first: heads of their lines, of enabled endpoints.
    pub async fn due_deliveries(&self, now: Timestamp, limit: u64) -> Result<Vec<Delivery>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = self.reader().statement(DUE, values![now.0, limit]);
        let rows = deliveries::Entity::find().from_raw_sql(statement).all(self.reader()).await?;
        self.read_deliveries(rows).await
    }

    /// When the next delivery to an enabled endpoint is due; `None` without any.
    pub async fn next_due_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT MIN(d.next_at) AS next_at FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id
                   WHERE d.state = 'pending' AND d.head AND e.enabled";
        let Some(row) = self.reader().one(sql, Vec::new()).await? else { return Ok(None) };
        Ok(row.try_get::<Option<i64>>("", "next_at")?.map(Timestamp))
    }

    /// Fixes what every try of a delivery sends; the first one that was fixed stays. What counts from now on.
    pub async fn freeze_request(
        &self,
        instance_pk: i64,
        delivery: DeliveryId,
        request: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let sealed = seal_request(self.sealer(), instance_pk, delivery, request)?;
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let sealed = sealed.clone();
                Box::pin(async move { Ok(fix_request(tx, instance_pk, delivery, sealed).await?.0) })
            }))
        })
        .await
    }

    /// Stores a try and what it leads to; when that ends the delivery, the next in line moves up. Nothing happens
    /// when the delivery is gone or has ended.
    pub async fn record_attempt(
        &self,
        delivery: DeliveryId,
        attempt: Attempt,
        outcome: DeliveryOutcome,
    ) -> Result<(), StoreError> {
        // all of an instance's deliveries are written by its writer, so that heads and their successors agree
        let find = deliveries::Entity::find_by_id(delivery.0).select_only().column(deliveries::Column::InstancePk);
        let Some(instance_pk) = find.into_tuple::<i64>().one(self.reader()).await? else { return Ok(()) };
        let sealed = seal_head(self.sealer(), instance_pk, delivery, &attempt)?;
        let attempt = Arc::new(attempt);
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (attempt, sealed) = (Arc::clone(&attempt), sealed.clone());
                Box::pin(async move { record(tx, delivery, &attempt, sealed, outcome).await.map(drop) })
            }))
        })
        .await
    }

    /// The tries of a delivery, oldest first.
    pub async fn attempts(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let sql = "SELECT a.*, d.instance_pk FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE a.delivery_id = $1 ORDER BY a.n";
        let rows = self.reader().all(sql, values![delivery.0]).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in rows {
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
            attempts.push(Attempt {
                n,
                at: Timestamp(row.try_get("", "started_at")?),
                trigger: trigger(&row.try_get::<String>("", "triggered_by")?)?,
                dns_ms: millis("dns_ms")?,
                connect_ms: millis("connect_ms")?,
                first_byte_ms: millis("first_byte_ms")?,
                next_at: row.try_get::<Option<i64>>("", "next_at")?.map(Timestamp),
                http_status: row
                    .try_get::<Option<i32>>("", "http_status")?
                    .and_then(|status| u16::try_from(status).ok()),
                error: row.try_get("", "error")?,
                total_ms: u64::try_from(row.try_get::<i64>("", "total_ms")?).unwrap_or(0),
                response_head,
            });
        }
        Ok(attempts)
    }

    async fn read_deliveries(&self, rows: Vec<deliveries::Model>) -> Result<Vec<Delivery>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids = rows.iter().map(|row| row.endpoint_id);
        let found = endpoints::Entity::find().filter(endpoints::Column::Id.is_in(ids)).all(self.reader()).await?;
        let mut by_endpoint: HashMap<EndpointId, Endpoint> = HashMap::new();
        for row in found {
            by_endpoint.insert(EndpointId(row.id), endpoint(self.sealer(), row)?);
        }
        let pks = rows.iter().map(|row| row.event_pk);
        let found = events::Entity::find().filter(events::Column::Pk.is_in(pks)).all(self.reader()).await?;
        let by_event: HashMap<i64, Event> =
            self.read_events(found).await?.into_iter().map(|event| (event.row, event)).collect();
        // a delivery whose endpoint or event was just deleted is going, too
        let mut whole = Vec::with_capacity(rows.len());
        for row in rows {
            let (Some(endpoint), Some(event)) =
                (by_endpoint.get(&EndpointId(row.endpoint_id)), by_event.get(&row.event_pk))
            else {
                continue;
            };
            let request = row.request.map(|sealed| {
                self.sealer().open("delivery's request", &request_place(row.instance_pk, row.id), &sealed)
            });
            whole.push(Delivery {
                id: DeliveryId(row.id),
                endpoint: endpoint.clone(),
                event: event.clone(),
                attempts: u32::try_from(row.attempts).unwrap_or(0),
                uncounted: u32::try_from(row.uncounted).unwrap_or(0),
                trigger: trigger(&row.triggered_by)?,
                request: request.transpose()?,
                next_at: Timestamp(row.next_at),
                created_at: Timestamp(row.created_at),
            });
        }
        Ok(whole)
    }
}

fn trigger(text: &str) -> Result<Trigger, StoreError> {
    text.parse().map_err(|()| StoreError::Corrupt("delivery's trigger"))
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

pub(crate) fn seal_request(
    sealer: &Sealer,
    instance_pk: i64,
    delivery: DeliveryId,
    request: &[u8],
) -> Result<Vec<u8>, StoreError> {
    sealer.seal(&request_place(instance_pk, delivery.0), request)
}

/// What every try sends from now on, and whether it is this.
pub(crate) async fn fix_request(
    tx: &Tx,
    instance_pk: i64,
    delivery: DeliveryId,
    sealed: Vec<u8>,
) -> Result<(Vec<u8>, bool), StoreError> {
    let sql = "UPDATE deliveries SET request = COALESCE(request, $1) WHERE id = $2 RETURNING request";
    let row = tx.db.one(sql, values![sealed.clone(), delivery.0]).await?.ok_or(StoreError::NotFound)?;
    let stored = row.try_get::<Vec<u8>>("", "request")?;
    let place = request_place(instance_pk, delivery.0);
    Ok((tx.sealer.open("delivery's request", &place, &stored)?, stored == sealed))
}

pub(crate) fn seal_head(
    sealer: &Sealer,
    instance_pk: i64,
    delivery: DeliveryId,
    attempt: &Attempt,
) -> Result<Option<Vec<u8>>, StoreError> {
    let place = head_place(instance_pk, delivery.0, attempt.n);
    attempt.response_head.as_ref().map(|head| sealer.seal(&place, head.as_bytes())).transpose()
}

/// False when the delivery is gone or has ended: nothing was written.
pub(crate) async fn record(
    tx: &Tx,
    delivery: DeliveryId,
    attempt: &Attempt,
    response_head: Option<Vec<u8>>,
    outcome: DeliveryOutcome,
) -> Result<bool, StoreError> {
    let n = i32::try_from(attempt.n).unwrap_or(i32::MAX);
    let (state, next_at) = match outcome {
        DeliveryOutcome::Delivered => ("delivered", None),
        DeliveryOutcome::Retry { next_at } => ("pending", Some(next_at.0)),
        DeliveryOutcome::Dead => ("dead", None),
    };
    let sql = "UPDATE deliveries SET state = $1, next_at = COALESCE($2, next_at), attempts = $3, updated_at = $4
               WHERE id = $5 AND state = 'pending' RETURNING endpoint_id, instance_pk, order_key";
    let row = tx.db.one(sql, values![state, next_at, n, Timestamp::now().0, delivery.0]).await?;
    let Some(row) = row else { return Ok(false) };
    tx.db
        .run(
            "INSERT INTO attempts (delivery_id, n, started_at, triggered_by, http_status, error, dns_ms, connect_ms,
             first_byte_ms, total_ms, response_head, next_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
            values![
                delivery.0,
                n,
                attempt.at.0,
                attempt.trigger.as_str(),
                attempt.http_status.map(i32::from),
                attempt.error.clone(),
                attempt.dns_ms.map(signed),
                attempt.connect_ms.map(signed),
                attempt.first_byte_ms.map(signed),
                signed(attempt.total_ms),
                response_head,
                attempt.next_at.map(|at| at.0)
            ],
        )
        .await?;
    if state == "pending" {
        return Ok(true);
    }
    let line: (Uuid, i64, String) =
        (row.try_get("", "endpoint_id")?, row.try_get("", "instance_pk")?, row.try_get("", "order_key")?);
    let sql = "UPDATE deliveries SET head = $1 WHERE id = (SELECT id FROM deliveries WHERE endpoint_id = $2
               AND instance_pk = $3 AND order_key = $4 AND state = 'pending' ORDER BY event_pk LIMIT 1)";
    tx.db.run(sql, values![true, line.0, line.1, line.2]).await?;
    Ok(true)
}
