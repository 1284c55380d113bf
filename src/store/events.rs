//! The journal: events are appended pending, then fanned out once, in order, with a dense number each.

use crate::deliveries;
use crate::entity::events::{Column, Entity, Model};
use crate::hook_calls::{self, Hooked, NewHookCall, Sent, Staged};
use crate::jobs::word;
use crate::seal::{Sealer, place};
use crate::sql::{placeholders, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx, work};
use crate::{Job, Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, EventId, EventKind, InstanceId, NewEvent, Timestamp, text};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select, Value};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

const PENDING: i16 = 0;
const DONE: i16 = 1;
const DROPPED: i16 = 2;
const DEAD: i16 = 3;

/// An event in the journal.
#[derive(Debug, Clone)]
pub struct Event {
    /// Increasing; the order within an instance before it is fanned out.
    pub row: i64,
    pub id: EventId,
    pub instance_pk: i64,
    pub instance_id: InstanceId,
    pub kind: EventKind,
    /// Events of one key are delivered in order.
    pub order_key: String,
    /// Per instance and dense; `None` until fanned out, and for dropped ones.
    pub seq: Option<i64>,
    pub at: Timestamp,
    pub message_id: Option<String>,
    pub data: Json,
    pub request_id: Option<String>,
    /// `None` where no hook was called.
    pub verdict: Option<Verdict>,
    /// `plugin/kind` of hooks that failed and were passed by.
    pub hook_errors: Option<String>,
}

/// What the transform hooks said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// It takes no number and is never shown.
    Drop,
    /// With other data.
    Replace,
    /// To some of the endpoints that asked for it.
    Route,
    /// A hook failed on it: it takes no number and is not shown, its deliveries are dead, and
    /// [`Store::revive_events`] has its hooks called again.
    Dead,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Replace => "replace",
            Self::Route => "route",
            Self::Dead => "dead",
        }
    }

    fn of(text: &str) -> Result<Self, StoreError> {
        [Self::Pass, Self::Drop, Self::Replace, Self::Route, Self::Dead]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or(StoreError::Corrupt("verdict"))
    }
}

/// The end of an event's fan-out.
#[derive(Debug, Clone)]
pub struct FanOut {
    pub event_row: i64,
    pub verdict: Verdict,
    /// Replaces the event's data.
    pub data: Option<Json>,
    pub deliveries: Vec<NewDelivery>,
    /// `None` when no hook was called.
    pub hooked: Option<Box<Hooked>>,
}

/// What a fan-out made.
#[derive(Debug, Clone, Default)]
pub struct FannedOut {
    /// The (row, number) of each event that has one, in order.
    pub numbers: Vec<(i64, i64)>,
    /// The sends of hooks that were accepted with it.
    pub jobs: Vec<Job>,
    /// Plugins that had used up their quota, once for each message that was left out.
    pub over_quota: Vec<String>,
}

/// A delivery to write with the fan-out.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub next_at: Timestamp,
}

/// An event as it is inserted, its data sealed.
pub(crate) struct EventRow {
    id: Uuid,
    instance_pk: i64,
    kind: &'static str,
    order_key: String,
    dedupe_key: Option<String>,
    at: i64,
    message_id: Option<String>,
    data: Vec<u8>,
    request_id: Option<String>,
}

impl EventRow {
    pub(crate) fn new(sealer: &Sealer, instance_pk: i64, event: NewEvent) -> Result<Self, StoreError> {
        let storable = |text: String| text::storable(&text).into_owned();
        Ok(Self {
            id: event.id.0,
            instance_pk,
            kind: event.kind.as_str(),
            order_key: storable(event.order_key),
            dedupe_key: event.dedupe_key.map(storable),
            at: event.at.0,
            message_id: event.message_id.map(storable),
            data: seal(sealer, instance_pk, event.id.0, event.data)?,
            request_id: event.request_id,
        })
    }
}

fn data_place(instance_pk: i64, id: Uuid) -> String {
    place("events.data", instance_pk, id)
}

fn seal(sealer: &Sealer, instance_pk: i64, id: Uuid, mut data: Json) -> Result<Vec<u8>, StoreError> {
    text::storable_json(&mut data);
    let bytes = serde_json::to_vec(&data).map_err(|_| StoreError::bug("an event's data does not serialise"))?;
    sealer.seal(&data_place(instance_pk, id), &bytes)
}

/// Inserts events that are not there yet, by id or by dedupe key; the ids of those inserted.
pub(crate) async fn insert(tx: &Tx, rows: &[&EventRow]) -> Result<HashSet<Uuid>, StoreError> {
    const WIDTH: usize = 10;
    let mut inserted = HashSet::new();
    for rows in rows.chunks(crate::sql::MAX_BINDS / WIDTH) {
        let mut values = Vec::with_capacity(rows.len() * WIDTH);
        for row in rows {
            values.extend(values![
                row.id,
                row.instance_pk,
                row.kind,
                row.order_key.clone(),
                row.dedupe_key.clone(),
                PENDING,
                row.at,
                row.message_id.clone(),
                row.data.clone(),
                row.request_id.clone()
            ]);
        }
        let sql = format!(
            "INSERT INTO events (id, instance_pk, kind, order_key, dedupe_key, fanout, occurred_at, message_id, data,
             request_id) VALUES {} ON CONFLICT DO NOTHING RETURNING id",
            tuples(0, rows.len(), WIDTH)
        );
        for row in tx.db.all(sql, values).await? {
            inserted.insert(row.try_get("", "id")?);
        }
    }
    Ok(inserted)
}

/// The command that appends events.
pub(crate) struct Append {
    rows: Vec<EventRow>,
    pub answer: Answer<u64>,
}

/// Runs the appends of a group as one insert.
pub(crate) async fn append(tx: &Tx, appends: Vec<&mut Append>) -> Result<(), StoreError> {
    let rows: Vec<&EventRow> = appends.iter().flat_map(|append| &append.rows).collect();
    let mut inserted = insert(tx, &rows).await?;
    for append in appends {
        // an id that is there twice counts once
        let new = append.rows.iter().filter(|row| inserted.remove(&row.id)).count();
        append.answer.set(new as u64);
    }
    Ok(())
}

/// Pending events in order. The literal lets both databases see that the partial index holds them.
pub(crate) fn pending(instance_pk: i64) -> Select<Entity> {
    Entity::find().filter(Column::InstancePk.eq(instance_pk)).filter(Expr::cust("fanout = 0")).order_by_asc(Column::Pk)
}

impl Store {
    /// Appends events, all or none, except those whose dedupe key is there already. How many were new. Fenced.
    pub async fn append_events(&self, instance_pk: i64, epoch: i64, events: Vec<NewEvent>) -> Result<u64, StoreError> {
        let rows: Result<Vec<_>, _> =
            events.into_iter().map(|event| EventRow::new(self.sealer(), instance_pk, event)).collect();
        let rows = rows?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| Op::Append(Append { rows, answer })).await
    }

    /// Events that wait for their fan-out, in order.
    pub async fn pending_events(&self, instance_pk: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        self.read_events(pending(instance_pk).limit(limit).all(self.reader()).await?).await
    }

    /// Instances with events that wait for their fan-out.
    pub async fn instances_with_pending_events(&self) -> Result<Vec<i64>, StoreError> {
        let sql = "SELECT pk FROM instances i WHERE EXISTS
                   (SELECT 1 FROM events e WHERE e.instance_pk = i.pk AND e.fanout = 0) ORDER BY pk";
        let rows = self.reader().all(sql, Vec::new()).await?;
        rows.iter().map(|row| Ok(row.try_get("", "pk")?)).collect()
    }

    /// Fanned-out events with a number above `seq`, in order.
    pub async fn events_after(&self, instance_pk: i64, seq: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        let find = Entity::find()
            .filter(Column::InstancePk.eq(instance_pk))
            .filter(Column::Seq.gt(seq))
            .order_by_asc(Column::Seq)
            .limit(limit);
        self.read_events(find.all(self.reader()).await?).await
    }

    pub async fn event_by_id(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let row = Entity::find().filter(Column::Id.eq(id.0)).one(self.reader()).await?;
        Ok(self.read_events(row.into_iter().collect()).await?.pop())
    }

    /// Ends the fan-out of events, in one transaction: verdict, data, number, deliveries, and what hooks left. Numbers
    /// go up in the order of `items` without gaps; dropped and dead events take none, and events that were fanned out
    /// before are left as they are. Fenced.
    pub async fn fan_out(&self, instance_pk: i64, epoch: i64, items: Vec<FanOut>) -> Result<FannedOut, StoreError> {
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

    pub(crate) async fn read_events(&self, rows: Vec<Model>) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            // an event whose instance is gone is going, too
            let Some(instance_id) = self.id_of(row.instance_pk).await? else { continue };
            let data = self.sealer().open("event's data", &data_place(row.instance_pk, row.id), &row.data)?;
            events.push(Event {
                row: row.pk,
                id: EventId(row.id),
                instance_pk: row.instance_pk,
                instance_id,
                kind: word("event kind", &row.kind)?,
                order_key: row.order_key,
                seq: row.seq,
                at: Timestamp(row.occurred_at),
                message_id: row.message_id,
                data: serde_json::from_slice(&data).map_err(|_| StoreError::Corrupt("event's data"))?,
                request_id: row.request_id,
                verdict: row.verdict.as_deref().map(Verdict::of).transpose()?,
                hook_errors: row.hook_errors,
            });
        }
        Ok(events)
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
    let mut seq = take_numbers(tx, instance_pk, shown).await?;

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
        let sql = format!(
            "UPDATE events SET seq = v.column2, fanout = v.column3, data = COALESCE(v.column4, events.data)
             FROM (VALUES {}) AS v WHERE events.pk = v.column1",
            tuples(0, items.len(), 4)
        );
        tx.db.run(sql, values).await?;
    }
    if !revived.is_empty() {
        // they keep their ids, under which somebody may be looking for them
        let known = deliveries::take_dead(tx, &revived).await?;
        for row in rows.iter_mut().chain(&mut dead) {
            if let Some(id) = known.get(&(row.event_pk, row.delivery.endpoint)) {
                row.delivery.id = *id;
            }
        }
    }
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

/// The first of `count` numbers, which nobody else gets.
async fn take_numbers(tx: &Tx, instance_pk: i64, count: i64) -> Result<i64, StoreError> {
    if count == 0 {
        return Ok(0);
    }
    let sql = "UPDATE instances SET next_seq = next_seq + $1 WHERE pk = $2 RETURNING next_seq";
    let row = tx.db.one(sql, values![count, instance_pk]).await?.ok_or(StoreError::NotFound)?;
    Ok(row.try_get::<i64>("", "next_seq")? - count)
}
