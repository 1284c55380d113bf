//! The fan-out of events that hooks were called for: with the verdict go their calls, storage and messages.

use crate::deliveries;
use crate::entity::events::Column;
use crate::events::Event;
use crate::events::{DEAD, DONE, DROPPED, FanOut, FannedOut, PENDING, Verdict, pending, seal, take_numbers};
use crate::hook_calls::{self, NewHookCall, Sent, Staged};
use crate::jobs::word;
use crate::sql::{placeholders, tuples, values};
use crate::writer::{Fence, Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::{EventId, EventKind};
use sea_orm::{ColumnTrait, QueryFilter, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

impl Store {
    pub(crate) async fn fan_out_hooked(
        &self,
        instance_pk: i64,
        epoch: i64,
        items: Vec<FanOut>,
    ) -> Result<FannedOut, StoreError> {
        let mut staged = Vec::with_capacity(items.len());
        for item in &items {
            staged.push(match &item.hooked {
                Some(hooked) => self.staged_sends(&hooked.sends).await?,
                None => Vec::new(),
            });
        }
        let items = Arc::new((items, staged));
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let items = Arc::clone(&items);
                Box::pin(async move { fan_out(tx, instance_pk, &items.0, &items.1).await })
            }))
        })
        .await
    }

    /// (row, order key) of events that wait for their fan-out, in order, behind a row.
    pub async fn pending_lines(
        &self,
        instance_pk: i64,
        after: i64,
        limit: u64,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        let sql = "SELECT pk, order_key FROM events WHERE instance_pk = $1 AND fanout = 0 AND pk > $2
                   ORDER BY pk LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.reader().all(sql, values![instance_pk, after, limit]).await?;
        rows.iter().map(|row| Ok((row.try_get("", "pk")?, row.try_get("", "order_key")?))).collect()
    }

    /// Those of these events that wait for their fan-out, in order.
    pub async fn pending_events_of(&self, instance_pk: i64, rows: &[i64]) -> Result<Vec<Event>, StoreError> {
        let find = pending(instance_pk).filter(Column::Pk.is_in(rows.iter().copied()));
        self.read_events(find.all(self.reader()).await?).await
    }

    /// Has the hooks of dead events called again: they wait for their fan-out once more, which takes their dead
    /// deliveries up again. How many there were.
    pub async fn revive_events(&self, instance_pk: i64, events: Vec<EventId>) -> Result<u64, StoreError> {
        let events = Arc::new(events);
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let events = Arc::clone(&events);
                Box::pin(async move {
                    let mut revived = 0;
                    for ids in events.chunks(500) {
                        let sql = format!(
                            "UPDATE events SET fanout = 0 WHERE instance_pk = $1 AND fanout = 3 AND id IN ({})",
                            placeholders(1, ids.len())
                        );
                        let mut values = values![instance_pk];
                        values.extend(ids.iter().map(|id| Value::from(id.0)));
                        revived += tx.db.run(sql, values).await?;
                    }
                    Ok(revived)
                })
            }))
        })
        .await
    }
}

async fn fan_out(tx: &Tx, instance_pk: i64, items: &[FanOut], staged: &[Vec<Staged>]) -> Result<FannedOut, StoreError> {
    if items.is_empty() {
        return Ok(FannedOut::default());
    }
    let sql = format!(
        "SELECT pk, id, kind, order_key, fanout, seq, verdict FROM events WHERE instance_pk = $1 AND pk IN ({})",
        placeholders(1, items.len())
    );
    let mut values = values![instance_pk];
    values.extend(items.iter().map(|item| Value::from(item.event_row)));
    let mut pending: HashMap<i64, (Uuid, EventKind, String)> = HashMap::new();
    let mut revived = Vec::new();
    let mut numbers = Vec::new();
    for row in tx.db.all(sql, values).await? {
        let pk: i64 = row.try_get("", "pk")?;
        if row.try_get::<i16>("", "fanout")? == PENDING {
            let kind = word("event kind", &row.try_get::<String>("", "kind")?)?;
            pending.insert(pk, (row.try_get("", "id")?, kind, row.try_get("", "order_key")?));
            if row.try_get::<Option<String>>("", "verdict")?.is_some() {
                revived.push(pk);
            }
        } else if let Some(seq) = row.try_get::<Option<i64>>("", "seq")? {
            numbers.push((pk, seq));
        }
    }
    let items: Vec<(&FanOut, &[Staged])> = items
        .iter()
        .zip(staged.iter().map(Vec::as_slice))
        .filter(|(item, _)| pending.contains_key(&item.event_row))
        .collect();
    let hidden = |verdict| matches!(verdict, Verdict::Drop | Verdict::Dead);
    let shown = items.iter().filter(|(item, _)| !hidden(item.verdict)).count() as i64;
    let first = take_numbers(tx, BTreeMap::from([(instance_pk, shown)])).await?;
    let mut seq = first.get(&instance_pk).copied().unwrap_or_default();

    let mut values = Vec::new();
    let (mut rows, mut dead) = (Vec::new(), Vec::new());
    for (item, _) in &items {
        let Some((id, kind, order_key)) = pending.get(&item.event_row) else { continue };
        let number = (!hidden(item.verdict)).then_some(seq);
        if let Some(number) = number {
            seq += 1;
            numbers.push((item.event_row, number));
        }
        let deliveries = item.deliveries.iter().map(|delivery| deliveries::Row {
            event_pk: item.event_row,
            instance_pk,
            order_key: order_key.clone(),
            kind: *kind,
            delivery: delivery.clone(),
        });
        let state = match item.verdict {
            Verdict::Drop => DROPPED,
            Verdict::Dead => {
                dead.extend(deliveries);
                DEAD
            }
            Verdict::Pass | Verdict::Replace | Verdict::Route => {
                rows.extend(deliveries);
                DONE
            }
        };
        let data = item.data.clone().map(|data| seal(&tx.sealer, instance_pk, *id, data)).transpose()?;
        values.extend(values![item.event_row, number, state, data]);
    }
    if !items.is_empty() {
        // what a hook changed or took away must not come back through the message as it was; a dead event keeps it
        let sql = format!(
            "UPDATE events SET seq = v.column2, fanout = v.column3, data = COALESCE(v.column4, events.data),
             raw = CASE WHEN v.column4 IS NULL AND v.column3 <> 2 THEN events.raw END
             FROM (VALUES {}) AS v WHERE events.pk = v.column1",
            tuples(0, items.len(), 4)
        );
        tx.db.run(sql, values).await?;
    }
    deliveries::take_up(tx, &revived, rows.iter_mut().chain(&mut dead)).await?;
    if !dead.is_empty() {
        deliveries::insert(tx, &dead, deliveries::Trigger::Event).await?;
        deliveries::kill(tx, &dead).await?;
    }
    deliveries::insert(tx, &rows, deliveries::Trigger::Event).await?;
    let mut sent = Sent::default();
    if items.iter().any(|(item, _)| item.hooked.is_some()) {
        leave_hooked(tx, instance_pk, &items, &mut sent).await?;
    }
    numbers.sort_unstable();
    Ok(FannedOut { numbers, jobs: sent.jobs, over_quota: sent.over_quota })
}

/// Writes what hooks said of events, and what they left with them.
async fn leave_hooked(
    tx: &Tx,
    instance_pk: i64,
    items: &[(&FanOut, &[Staged])],
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let mut values = Vec::new();
    let mut count = 0;
    let mut calls: Vec<(i64, &NewHookCall)> = Vec::new();
    for (item, staged) in items {
        let Some(hooked) = &item.hooked else { continue };
        count += 1;
        values.extend(values![item.event_row, item.verdict.as_str(), hooked.errors.clone()]);
        calls.extend(hooked.calls.iter().map(|call| (item.event_row, call)));
        hook_calls::apply(tx, instance_pk, &hooked.kv, staged, sent).await?;
    }
    let sql = format!(
        "UPDATE events SET verdict = v.column2, hook_errors = v.column3 FROM (VALUES {}) AS v
         WHERE events.pk = v.column1",
        tuples(0, count, 3)
    );
    tx.db.run(sql, values).await?;
    hook_calls::insert_calls(tx, instance_pk, &calls).await
}
