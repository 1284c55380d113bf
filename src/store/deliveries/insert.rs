//! Writing deliveries, each into the line that its endpoint's order gives it.

use super::Trigger;
use crate::StoreError;
use crate::events::NewDelivery;
use crate::sql::{MAX_BINDS, few_shapes, placeholders, tuples, values};
use crate::writer::Tx;
use kero_domain::{DeliveryId, EndpointId, EventKind, Timestamp};
use sea_orm::Value;
use std::collections::HashMap;
use uuid::Uuid;

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

/// Writes deliveries; how many. Those of an endpoint that is gone, and those that are there already, are left out.
pub(crate) async fn insert(tx: &Tx, rows: &[Row], trigger: Trigger) -> Result<u64, StoreError> {
    const WIDTH: usize = 8;
    let now = Timestamp::now().0;
    let mut written = 0;
    for rows in rows.chunks((MAX_BINDS - 3) / WIDTH) {
        let mut values = values![trigger.as_str(), now, now];
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
        let count = few_shapes(&mut values, rows.len(), WIDTH);
        let sql = format!(
            "INSERT INTO deliveries (id, endpoint_id, event_pk, instance_pk, order_key, state, head, priority, attempts,
             uncounted, triggered_by, next_at, created_at, updated_at)
             SELECT v.column1, e.id, v.column3, v.column4,
               CASE e.ordering WHEN 'none' THEN v.column6 WHEN 'strict' THEN '' ELSE v.column5 END,
               'pending', FALSE, v.column7, 0, 0, $1, v.column8, $2, $3
             FROM (VALUES {}) AS v JOIN endpoints e ON e.id = v.column2 WHERE TRUE ON CONFLICT DO NOTHING",
            tuples(3, count, WIDTH)
        );
        written += tx.db.run(sql, values).await?;
        let mut ids: Vec<Value> = rows.iter().map(|row| Value::from(row.delivery.id.0)).collect();
        few_shapes(&mut ids, rows.len(), 1);
        let sql = format!(
            "UPDATE deliveries SET head = TRUE WHERE id IN ({}) AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier
             WHERE earlier.endpoint_id = deliveries.endpoint_id AND earlier.instance_pk = deliveries.instance_pk
               AND earlier.order_key = deliveries.order_key AND earlier.state = 'pending'
               AND earlier.event_pk < deliveries.event_pk)",
            placeholders(0, ids.len())
        );
        tx.db.run(sql, ids).await?;
    }
    Ok(written)
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
