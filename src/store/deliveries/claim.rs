//! What is due: by endpoint, so that the backlog of one that is down is not even looked at for the others.

use super::{Delivery, Line, line_of};
use crate::endpoints::{Endpoint, endpoint};
use crate::entity::{deliveries, endpoints, events};
use crate::events::Event;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::{Store, StoreError};
use kero_domain::{EndpointId, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Value};
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

/// The lines of these heads, at most `limit` deliveries of each.
pub(crate) fn lines_sql(postgres: bool, heads: usize, limit: u64) -> String {
    if postgres {
        format!(
            "SELECT d.* FROM (VALUES {}) AS v JOIN deliveries h ON h.id = v.column1
             CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE endpoint_id = h.endpoint_id
               AND instance_pk = h.instance_pk AND order_key = h.order_key AND state = 'pending'
               AND event_pk >= h.event_pk ORDER BY event_pk LIMIT {limit}) AS d ORDER BY d.event_pk",
            tuples(0, heads, 1)
        )
    } else {
        format!(
            "SELECT d.* FROM deliveries h CROSS JOIN deliveries d WHERE h.id IN ({})
               AND d.id IN (SELECT y.id FROM deliveries y WHERE y.endpoint_id = h.endpoint_id
                 AND y.instance_pk = h.instance_pk AND y.order_key = h.order_key AND y.state = 'pending'
                 AND y.event_pk >= h.event_pk ORDER BY y.event_pk LIMIT {limit}) ORDER BY d.event_pk",
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
        let mut heads: Vec<Uuid> = Vec::new();
        for row in self.reader().all(sql, values).await? {
            let line = line_of(&row)?;
            let left = room.entry(line.endpoint).or_default();
            if !busy.contains(&line) && *left > 0 {
                *left -= 1;
                heads.push(row.try_get("", "id")?);
            }
            claimed.push(Claimed { line, run: Vec::new() });
        }
        if heads.is_empty() {
            return Ok(claimed);
        }
        let sql = lines_sql(self.reader().is_postgres(), heads.len(), length);
        let statement = self.reader().statement(sql, heads.into_iter().map(Value::from).collect());
        let rows = deliveries::Entity::find().from_raw_sql(statement).all(self.reader()).await?;
        let events = self.events_by_row(rows.iter().map(|row| row.event_pk).collect()).await?;
        let endpoints: HashMap<EndpointId, &Arc<Endpoint>> =
            wanting.iter().map(|wanting| (wanting.endpoint.id, &wanting.endpoint)).collect();
        let places: HashMap<Line, usize> =
            claimed.iter().enumerate().map(|(place, claimed)| (claimed.line.clone(), place)).collect();
        for row in rows {
            let endpoint = EndpointId(row.endpoint_id);
            let line = Line { endpoint, instance_pk: row.instance_pk, order_key: row.order_key.clone() };
            // an event that was just deleted takes its deliveries along
            if let (Some(event), Some(endpoint), Some(place)) =
                (events.get(&row.event_pk), endpoints.get(&endpoint), places.get(&line))
            {
                let delivery = self.delivery(row, Arc::clone(endpoint), event.clone())?;
                claimed[*place].run.push(delivery);
            }
        }
        Ok(claimed)
    }

    async fn events_by_row(&self, mut rows: Vec<i64>) -> Result<HashMap<i64, Event>, StoreError> {
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let count = rows.len();
        few_shapes(&mut rows, count, 1);
        let found = events::Entity::find().filter(events::Column::Pk.is_in(rows)).all(self.reader()).await?;
        Ok(self.read_events(found).await?.into_iter().map(|event| (event.row, event)).collect())
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
        let read = |row: &sea_orm::QueryResult| {
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
