//! What is due: by endpoint, so that the backlog of one that is down is not even looked at for the others.

use super::{Delivery, Line, line_of, request_place, trigger};
use crate::endpoints::{Endpoint, endpoint};
use crate::entity::{endpoints, events};
use crate::events::RawEvent;
use crate::sql::{placeholders, tuples, values};
use crate::{Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use sea_orm::{EntityTrait, QueryResult, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Deliveries of one line that may go out one after the other: its head, and what stands behind it.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub line: Line,
    pub run: Vec<Delivery>,
}

/// What waits for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub endpoint: EndpointId,
    pub count: u64,
    /// When the oldest of them was written.
    pub oldest: Timestamp,
}

/// An endpoint, and how many of its lines there is room for.
#[derive(Debug, Clone)]
pub struct Wanting {
    pub endpoint: Arc<Endpoint>,
    pub room: usize,
}

/// Heads that are due at `$1`, at most `limit` of each endpoint, urgent ones first. The two databases have no common words
/// for "the first few of each".
pub(crate) fn heads_sql(postgres: bool, endpoints: usize, limit: u64) -> String {
    let of = tuples(1, endpoints, 1);
    if postgres {
        format!(
            "SELECT h.id, h.endpoint_id, h.instance_pk, h.order_key FROM (VALUES {of}) AS v
             CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE endpoint_id = v.column1 AND state = 'pending' AND head
               AND next_at <= $1 ORDER BY priority, next_at, event_pk LIMIT {limit}) AS h
             ORDER BY h.priority, h.next_at, h.event_pk"
        )
    } else {
        format!(
            "SELECT h.id, h.endpoint_id, h.instance_pk, h.order_key FROM (VALUES {of}) AS v CROSS JOIN deliveries h
             WHERE h.id IN (SELECT x.id FROM deliveries x WHERE x.endpoint_id = v.column1 AND x.state = 'pending'
                 AND x.head AND x.next_at <= $1 ORDER BY x.priority, x.next_at, x.event_pk LIMIT {limit})
             ORDER BY h.priority, h.next_at, h.event_pk"
        )
    }
}

/// The event of a row of [`lines_sql`].
fn event_row(row: &QueryResult) -> Result<events::Model, StoreError> {
    Ok(events::Model {
        pk: row.try_get_by_index(8)?,
        id: row.try_get_by_index(9)?,
        instance_pk: row.try_get_by_index(10)?,
        kind: row.try_get_by_index(11)?,
        order_key: row.try_get_by_index(12)?,
        dedupe_key: None,
        seq: row.try_get_by_index(13)?,
        fanout: 1,
        occurred_at: row.try_get_by_index(14)?,
        message_id: row.try_get_by_index(15)?,
        data: row.try_get_by_index(16)?,
        request_id: row.try_get_by_index(17)?,
        verdict: row.try_get_by_index(18)?,
        hook_errors: row.try_get_by_index(19)?,
    })
}

/// What is read of each: its head's id, the delivery, its event.
const COLUMNS: &str = "h.id, d.id, d.attempts, d.uncounted, d.triggered_by, d.next_at, d.created_at, d.request, e.pk, e.id,
    e.instance_pk, e.kind, e.order_key, e.seq, e.occurred_at, e.message_id, e.data, e.request_id, e.verdict, e.hook_errors";

/// The lines of these heads with their events, at most `limit` deliveries of each, in no order: to sort them the database
/// would copy the events.
pub(crate) fn lines_sql(postgres: bool, heads: usize, limit: u64) -> String {
    if postgres {
        format!(
            "SELECT {COLUMNS} FROM (VALUES {}) AS v JOIN deliveries h ON h.id = v.column1
             CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE endpoint_id = h.endpoint_id
               AND instance_pk = h.instance_pk AND order_key = h.order_key AND state = 'pending'
               AND event_pk >= h.event_pk ORDER BY event_pk LIMIT {limit}) AS d JOIN events e ON e.pk = d.event_pk",
            tuples(0, heads, 1)
        )
    } else {
        format!(
            "SELECT {COLUMNS} FROM deliveries h CROSS JOIN deliveries d CROSS JOIN events e WHERE h.id IN ({})
               AND d.id IN (SELECT y.id FROM deliveries y WHERE y.endpoint_id = h.endpoint_id
                 AND y.instance_pk = h.instance_pk AND y.order_key = h.order_key AND y.state = 'pending'
                 AND y.event_pk >= h.event_pk ORDER BY y.event_pk LIMIT {limit}) AND e.pk = d.event_pk",
            placeholders(0, heads)
        )
    }
}

impl Store {
    /// Lines whose head is due, of these endpoints, whether or not they are enabled: of each at most `lines`, with at
    /// most `length` deliveries each. Lines that are `busy`, and those that there is no room for, are named without
    /// their deliveries (an empty run).
    pub async fn claim_deliveries(
        &self,
        wanting: &[Wanting],
        now: Timestamp,
        lines: u64,
        length: u64,
        busy: &HashSet<Line>,
    ) -> Result<Vec<Claimed>, StoreError> {
        if wanting.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = values![now.0];
        values.extend(wanting.iter().map(|wanting| Value::from(wanting.endpoint.id.0)));
        let sql = heads_sql(self.reader().is_postgres(), wanting.len(), lines);
        let mut room: HashMap<EndpointId, usize> =
            wanting.iter().map(|wanting| (wanting.endpoint.id, wanting.room)).collect();
        let mut claimed: Vec<Claimed> = Vec::new();
        let mut places: HashMap<Uuid, usize> = HashMap::new();
        for row in self.reader().all(sql, values).await? {
            let line = line_of(&row)?;
            let left = room.entry(line.endpoint).or_default();
            if !busy.contains(&line) && *left > 0 {
                *left -= 1;
                places.insert(row.try_get("", "id")?, claimed.len());
            }
            claimed.push(Claimed { line, run: Vec::new() });
        }
        if places.is_empty() {
            return Ok(claimed);
        }
        let endpoints: HashMap<EndpointId, &Arc<Endpoint>> =
            wanting.iter().map(|wanting| (wanting.endpoint.id, &wanting.endpoint)).collect();
        let sql = lines_sql(self.reader().is_postgres(), places.len(), length);
        // an event that goes to several endpoints is opened once
        let mut events: HashMap<i64, Arc<RawEvent>> = HashMap::new();
        for row in self.reader().all(sql, places.keys().map(|id| Value::from(*id)).collect()).await? {
            let Some(place) = places.get(&row.try_get_by_index::<Uuid>(0)?) else { continue };
            let Claimed { line, run } = &mut claimed[*place];
            let event_pk = row.try_get_by_index(8)?;
            let event = match events.get(&event_pk) {
                Some(event) => Arc::clone(event),
                None => {
                    // an event whose instance is gone is going, too
                    let Some(instance_id) = self.id_of(line.instance_pk).await? else { continue };
                    let event = Arc::new(self.open_event(event_row(&row)?, instance_id)?);
                    events.insert(event_pk, Arc::clone(&event));
                    event
                }
            };
            if let Some(endpoint) = endpoints.get(&line.endpoint) {
                run.push(self.delivery(&row, Arc::clone(endpoint), event)?);
            }
        }
        for claimed in &mut claimed {
            claimed.run.sort_unstable_by_key(|delivery| delivery.event.row);
        }
        Ok(claimed)
    }

    fn delivery(
        &self,
        row: &QueryResult,
        endpoint: Arc<Endpoint>,
        event: Arc<RawEvent>,
    ) -> Result<Delivery, StoreError> {
        let id: Uuid = row.try_get_by_index(1)?;
        let open =
            |sealed: Vec<u8>| self.sealer().open("delivery's request", &request_place(event.instance_pk, id), &sealed);
        Ok(Delivery {
            id: DeliveryId(id),
            endpoint,
            attempts: u32::try_from(row.try_get_by_index::<i32>(2)?).unwrap_or(0),
            uncounted: u32::try_from(row.try_get_by_index::<i32>(3)?).unwrap_or(0),
            trigger: trigger(&row.try_get_by_index::<String>(4)?)?,
            next_at: Timestamp(row.try_get_by_index(5)?),
            created_at: Timestamp(row.try_get_by_index(6)?),
            request: row.try_get_by_index::<Option<Vec<u8>>>(7)?.map(open).transpose()?,
            event,
        })
    }

    /// Every enabled endpoint with a pending delivery, and when its next one is due.
    pub async fn due_endpoints(&self) -> Result<Vec<(EndpointId, Timestamp)>, StoreError> {
        let first = |priority: u8| {
            format!(
                "(SELECT MIN(next_at) FROM deliveries WHERE endpoint_id = e.id AND state = 'pending' AND head
                  AND priority = {priority})"
            )
        };
        let sql =
            format!("SELECT e.id, {} AS urgent, {} AS other FROM endpoints e WHERE e.enabled", first(0), first(1));
        let mut due = Vec::new();
        for row in self.reader().all(sql, Vec::new()).await? {
            let at = |column| row.try_get::<Option<i64>>("", column);
            let next = match (at("urgent")?, at("other")?) {
                (Some(urgent), Some(other)) => urgent.min(other),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => continue,
            };
            due.push((EndpointId(row.try_get("", "id")?), Timestamp(next)));
        }
        Ok(due)
    }

    /// What waits, by endpoint; disabled ones, too.
    pub async fn pending_deliveries(&self) -> Result<Vec<Pending>, StoreError> {
        let sql = "SELECT endpoint_id, COUNT(*) AS n, MIN(created_at) AS oldest FROM deliveries
                   WHERE state = 'pending' GROUP BY endpoint_id";
        let rows = self.reader().all(sql, Vec::new()).await?;
        let read = |row: &QueryResult| {
            Ok(Pending {
                endpoint: EndpointId(row.try_get("", "endpoint_id")?),
                count: u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0),
                oldest: Timestamp(row.try_get("", "oldest")?),
            })
        };
        rows.iter().map(read).collect()
    }

    /// These endpoints, as far as they are there.
    pub async fn endpoints_by_id(&self, ids: &[EndpointId]) -> Result<Vec<Endpoint>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT * FROM endpoints WHERE id IN ({})", placeholders(0, ids.len()));
        let values = ids.iter().map(|id| Value::from(id.0)).collect();
        let statement = self.reader().statement(sql, values);
        let rows = endpoints::Entity::find().from_raw_sql(statement).all(self.reader()).await?;
        rows.into_iter().map(|row| endpoint(self.sealer(), row)).collect()
    }
}
