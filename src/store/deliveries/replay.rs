//! Replays: deliveries that ended go out once more, under the same id, and what an endpoint missed goes out at last.

use super::{Line, Row, Trigger, insert, line_of, reset_heads};
use crate::entity::events;
use crate::events::{Event, NewDelivery};
use crate::sql::{placeholders, values};
use crate::writer::{Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, EventKind, Timestamp};
use sea_orm::{EntityTrait, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Which deliveries of an endpoint to one instance's events.
#[derive(Debug, Clone)]
pub struct Replay {
    pub endpoint: EndpointId,
    pub instance_pk: i64,
    /// The event's time, inclusive.
    pub since: Timestamp,
    /// The event's time, exclusive.
    pub until: Timestamp,
    /// Empty for all.
    pub events: Vec<EventKind>,
}

/// Deliveries in one command, so that others' writes come between.
const BATCH: usize = 500;

impl Store {
    /// Makes a delivery due now, whether it ended or not; its retry schedule begins anew. `false`: there is none.
    pub async fn replay_delivery(&self, instance_pk: i64, id: DeliveryId) -> Result<bool, StoreError> {
        Ok(self.make_due(instance_pk, vec![id]).await? > 0)
    }

    /// The same for every dead delivery of the range; how many.
    pub async fn replay_dead(&self, replay: &Replay) -> Result<u64, StoreError> {
        let mut values = values![replay.endpoint.0, replay.instance_pk, replay.since.0, replay.until.0];
        let mut sql = "SELECT d.id FROM deliveries d JOIN events e ON e.pk = d.event_pk WHERE d.endpoint_id = $1
             AND d.instance_pk = $2 AND d.state = 'dead' AND e.occurred_at >= $3 AND e.occurred_at < $4"
            .to_owned();
        if !replay.events.is_empty() {
            sql.push_str(&format!(" AND e.kind IN ({})", placeholders(4, replay.events.len())));
            values.extend(replay.events.iter().map(|kind| Value::from(kind.as_str())));
        }
        let rows = self.reader().all(sql, values).await?;
        let ids: Result<Vec<DeliveryId>, StoreError> =
            rows.iter().map(|row| Ok(DeliveryId(row.try_get("", "id")?))).collect();
        let mut count = 0;
        for ids in ids?.chunks(BATCH) {
            count += self.make_due(replay.instance_pk, ids.to_vec()).await?;
        }
        Ok(count)
    }

    async fn make_due(&self, instance_pk: i64, ids: Vec<DeliveryId>) -> Result<u64, StoreError> {
        let ids = Arc::new(ids);
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let ids = Arc::clone(&ids);
                Box::pin(async move { make_due(tx, instance_pk, &ids).await })
            }))
        })
        .await
    }

    /// Fanned-out events of the range, behind row `after`, that no delivery takes to the endpoint. What a hook routed
    /// elsewhere was not missed.
    pub async fn missed_events(&self, replay: &Replay, after: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        let mut values = values![
            replay.instance_pk,
            after,
            replay.since.0,
            replay.until.0,
            replay.endpoint.0,
            i64::try_from(limit).unwrap_or(i64::MAX)
        ];
        let kinds = match replay.events.len() {
            0 => String::new(),
            count => format!(" AND e.kind IN ({})", placeholders(values.len(), count)),
        };
        values.extend(replay.events.iter().map(|kind| Value::from(kind.as_str())));
        let sql = format!(
            "SELECT e.* FROM events e WHERE e.instance_pk = $1 AND e.pk > $2 AND e.occurred_at >= $3
               AND e.occurred_at < $4 AND e.fanout = 1 AND (e.verdict IS NULL OR e.verdict <> 'route'){kinds}
               AND NOT EXISTS
               (SELECT 1 FROM deliveries d WHERE d.event_pk = e.pk AND d.endpoint_id = $5) ORDER BY e.pk LIMIT $6"
        );
        let statement = self.reader().statement(sql, values);
        self.read_events(events::Entity::find().from_raw_sql(statement).all(self.reader()).await?).await
    }

    /// Writes deliveries of events that were fanned out before; how many were new.
    pub async fn deliver_late(
        &self,
        endpoint: EndpointId,
        instance_pk: i64,
        late: &[Event],
    ) -> Result<u64, StoreError> {
        let row = |event: &Event| (event.row, event.order_key.clone(), event.kind);
        let late: Arc<Vec<_>> = Arc::new(late.iter().map(row).collect());
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let late = Arc::clone(&late);
                Box::pin(async move {
                    let next_at = Timestamp::now();
                    let row = |(event_pk, order_key, kind): &(i64, String, EventKind)| Row {
                        event_pk: *event_pk,
                        instance_pk,
                        order_key: order_key.clone(),
                        kind: *kind,
                        delivery: NewDelivery { id: DeliveryId::new(), endpoint, next_at },
                    };
                    let rows: Vec<Row> = late.iter().map(row).collect();
                    let written = insert(tx, &rows, Trigger::Manual).await?;
                    // they are older than what may stand in their lines
                    let ids: Vec<DeliveryId> = rows.iter().map(|row| row.delivery.id).collect();
                    reset_heads(tx, &lines(tx, &ids).await?).await?;
                    Ok(written)
                })
            }))
        })
        .await
    }

    /// Puts the pending deliveries of an endpoint to an instance's events into the lines of its present order.
    pub async fn reline_deliveries(&self, endpoint: EndpointId, instance_pk: i64) -> Result<(), StoreError> {
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| Box::pin(async move { reline(tx, endpoint, instance_pk).await })))
        })
        .await
    }

    /// Instances with pending deliveries to the endpoint.
    pub async fn instances_waiting_for(&self, endpoint: EndpointId) -> Result<Vec<i64>, StoreError> {
        let sql = "SELECT DISTINCT instance_pk FROM deliveries WHERE endpoint_id = $1 AND state = 'pending'";
        let rows = self.reader().all(sql, values![endpoint.0]).await?;
        rows.iter().map(|row| Ok(row.try_get("", "instance_pk")?)).collect()
    }
}

/// Deliveries of an event that a hook failed on wait until its hooks have been called again.
async fn call_hooks_again(tx: &Tx, instance_pk: i64, ids: &[DeliveryId]) -> Result<u64, StoreError> {
    let which = format!("SELECT event_pk FROM deliveries WHERE id IN ({})", placeholders(1, ids.len()));
    let mut values = values![instance_pk];
    values.extend(ids.iter().map(|id| Value::from(id.0)));
    let sql = format!("UPDATE events SET fanout = 0 WHERE instance_pk = $1 AND fanout = 3 AND pk IN ({which})");
    tx.db.run(sql, values.clone()).await?;
    let sql = format!(
        "SELECT COUNT(*) AS n FROM deliveries d JOIN events e ON e.pk = d.event_pk
         WHERE d.instance_pk = $1 AND e.fanout = 0 AND d.id IN ({})",
        placeholders(1, ids.len())
    );
    let n: i64 = tx.db.one(sql, values).await?.map(|row| row.try_get("", "n")).transpose()?.unwrap_or(0);
    Ok(u64::try_from(n).unwrap_or(0))
}

async fn make_due(tx: &Tx, instance_pk: i64, ids: &[DeliveryId]) -> Result<u64, StoreError> {
    let waiting = call_hooks_again(tx, instance_pk, ids).await?;
    let mut values = values![Timestamp::now().0, Trigger::Manual.as_str(), instance_pk];
    values.extend(ids.iter().map(|id| Value::from(id.0)));
    let sql = format!(
        "UPDATE deliveries SET state = 'pending', head = FALSE, uncounted = attempts, triggered_by = $2, next_at = $1,
         updated_at = $1 WHERE instance_pk = $3 AND id IN ({})
           AND NOT EXISTS (SELECT 1 FROM events e WHERE e.pk = deliveries.event_pk AND e.fanout = 0)
         RETURNING endpoint_id, instance_pk, order_key",
        placeholders(3, ids.len())
    );
    let rows = tx.db.all(sql, values).await?;
    let lines: Result<HashSet<Line>, StoreError> = rows.iter().map(line_of).collect();
    reset_heads(tx, &lines?).await?;
    Ok(rows.len() as u64 + waiting)
}

async fn lines(tx: &Tx, ids: &[DeliveryId]) -> Result<HashSet<Line>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = format!(
        "SELECT DISTINCT endpoint_id, instance_pk, order_key FROM deliveries WHERE id IN ({})",
        placeholders(0, ids.len())
    );
    let rows = tx.db.all(sql, ids.iter().map(|id| Value::from(id.0)).collect()).await?;
    rows.iter().map(line_of).collect()
}

async fn reline(tx: &Tx, endpoint: EndpointId, instance_pk: i64) -> Result<(), StoreError> {
    let key = if tx.db.is_postgres() {
        "deliveries.id::text"
    } else {
        // as the ids are written elsewhere
        "lower(substr(hex(deliveries.id), 1, 8) || '-' || substr(hex(deliveries.id), 9, 4) || '-' ||
         substr(hex(deliveries.id), 13, 4) || '-' || substr(hex(deliveries.id), 17, 4) || '-' ||
         substr(hex(deliveries.id), 21))"
    };
    let sql = format!(
        "UPDATE deliveries SET head = FALSE, order_key = CASE
           (SELECT ordering FROM endpoints WHERE endpoints.id = deliveries.endpoint_id)
           WHEN 'none' THEN {key} WHEN 'strict' THEN ''
           ELSE (SELECT events.order_key FROM events WHERE events.pk = deliveries.event_pk) END
         WHERE endpoint_id = $1 AND instance_pk = $2 AND state = 'pending'"
    );
    tx.db.run(sql, values![endpoint.0, instance_pk]).await?;
    let sql = "UPDATE deliveries SET head = TRUE WHERE endpoint_id = $1 AND instance_pk = $2 AND state = 'pending'
         AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier WHERE earlier.endpoint_id = deliveries.endpoint_id
           AND earlier.instance_pk = deliveries.instance_pk AND earlier.order_key = deliveries.order_key
           AND earlier.state = 'pending' AND earlier.event_pk < deliveries.event_pk)";
    tx.db.run(sql, values![endpoint.0, instance_pk]).await.map(drop)
}
