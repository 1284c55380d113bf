//! The journal: events that wait are fanned out once, in order, with a dense number each.

use crate::append::{DONE, PENDING, data_place, plain, take_numbers};
use crate::deliveries;
use crate::entity::events::{Column, Entity, Model};
use crate::hook_chains::{self, StagedChain};
use crate::hooked::{self, Hooked, Sent, Staged};
use crate::jobs::word;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx};
use crate::{Job, Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, EventId, EventKind, InstanceId, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Select, Value};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

const DROPPED: i16 = 2;
const DEAD: i16 = 3;

/// An event in the journal, its data read or (see [`RawEvent`]) as it is stored.
#[derive(Debug, Clone)]
pub struct Event<D = Json> {
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
    pub data: D,
    pub request_id: Option<String>,
    /// `None` where no hook was called.
    pub verdict: Option<Verdict>,
    /// `plugin/kind` of hooks that failed and were passed by.
    pub hook_errors: Option<String>,
}

/// An event whose data goes out as it is stored, without being read in between.
pub type RawEvent = Event<Box<RawValue>>;

impl RawEvent {
    /// With its data read.
    pub fn read(&self) -> Result<Event, StoreError> {
        let data = serde_json::from_str(self.data.get()).map_err(|_| StoreError::Corrupt("event's data"))?;
        let head = self.clone();
        Ok(Event {
            row: head.row,
            id: head.id,
            instance_pk: head.instance_pk,
            instance_id: head.instance_id,
            kind: head.kind,
            order_key: head.order_key,
            seq: head.seq,
            at: head.at,
            message_id: head.message_id,
            data,
            request_id: head.request_id,
            verdict: head.verdict,
            hook_errors: head.hook_errors,
        })
    }
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
    /// [`Store::replay_delivery`] has its hooks called again.
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

/// Pending events in order. The literal lets both databases see that the partial index holds them.
pub(crate) fn pending(instance_pk: i64) -> Select<Entity> {
    Entity::find().filter(Column::InstancePk.eq(instance_pk)).filter(Expr::cust("fanout = 0")).order_by_asc(Column::Pk)
}

impl Store {
    /// Events that wait for their fan-out, in order.
    pub async fn pending_events(&self, instance_pk: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        self.pending_events_after(instance_pk, 0, limit).await
    }

    /// The same, behind a row.
    pub async fn pending_events_after(
        &self,
        instance_pk: i64,
        after: i64,
        limit: u64,
    ) -> Result<Vec<Event>, StoreError> {
        let find = pending(instance_pk).filter(Column::Pk.gt(after));
        self.read_events(self.reader().first(find, limit).all(self.reader()).await?).await
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
            .order_by_asc(Column::Seq);
        self.read_events(self.reader().first(find, limit).all(self.reader()).await?).await
    }

    pub async fn event_by_id(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let row = Entity::find().filter(Column::Id.eq(id.0)).one(self.reader()).await?;
        Ok(self.read_events(row.into_iter().collect()).await?.pop())
    }

    /// Ends the fan-out of events, in one transaction: verdict, data, number, deliveries, and what hooks left. Numbers
    /// go up in the order of `items` without gaps; dropped and dead events take none, and events that were fanned out
    /// before are left as they are. Fenced.
    pub async fn fan_out(&self, instance_pk: i64, epoch: i64, items: Vec<FanOut>) -> Result<FannedOut, StoreError> {
        self.know_sets(items.iter().filter_map(|item| item.hooked.as_ref()?.chain.as_ref())).await?;
        let mut ready = Vec::with_capacity(items.len());
        for mut item in items {
            let data = item.data.take().map(plain).transpose()?;
            let hooked = match item.hooked.take() {
                Some(hooked) => Some(self.stage_known(instance_pk, item.event_row, *hooked).await?),
                None => None,
            };
            ready.push(Ready { item, data, hooked });
        }
        let fence = Some(Fence { pk: instance_pk, epoch });
        let op = |answer| Op::Spread(Box::new(Spread { instance_pk, items: ready, answer }));
        self.submit(instance_pk, fence, self.configured(), op).await
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

    pub(crate) async fn read_events(&self, rows: Vec<Model>) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            // an event whose instance is gone is going, too
            let Some(instance_id) = self.id_of(row.instance_pk).await? else { continue };
            events.push(self.open_event(row, instance_id)?);
        }
        Ok(events)
    }

    /// An event from its row, its data read as far as `D` says.
    pub(crate) fn open_event<D: DeserializeOwned>(
        &self,
        row: Model,
        instance_id: InstanceId,
    ) -> Result<Event<D>, StoreError> {
        let data = self.sealer().open("event's data", &data_place(row.instance_pk, row.id), &row.data)?;
        Ok(Event {
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
        })
    }
}

/// The end of an event's fan-out, ready for the transaction: data and hooks are taken out of the item.
struct Ready {
    item: FanOut,
    /// JSON.
    data: Option<Vec<u8>>,
    hooked: Option<Staged>,
}

/// The command that ends the fan-out of one instance's events.
pub(crate) struct Spread {
    instance_pk: i64,
    items: Vec<Ready>,
    pub answer: Answer<FannedOut>,
}

/// An event that waits for its fan-out.
struct Waiting {
    id: Uuid,
    instance_pk: i64,
    kind: EventKind,
    order_key: String,
    /// It was dead, and its hooks were called again.
    revived: bool,
}

/// An event of a spread that waits, in the order of the items.
struct Taken<'a> {
    item: &'a FanOut,
    data: Option<&'a [u8]>,
    hooked: Option<&'a Staged>,
    event: Waiting,
}

impl Taken<'_> {
    /// Takes a number and is shown.
    fn is_shown(&self) -> bool {
        !matches!(self.item.verdict, Verdict::Drop | Verdict::Dead)
    }

    /// What hooks said; nothing where none was called, unless they were before.
    fn verdict(&self) -> Option<&'static str> {
        (self.hooked.is_some() || self.event.revived).then(|| self.item.verdict.as_str())
    }

    fn errors(&self) -> Option<String> {
        self.hooked.and_then(|hooked| hooked.errors.clone())
    }

    fn state(&self) -> i16 {
        match self.item.verdict {
            Verdict::Drop => DROPPED,
            Verdict::Dead => DEAD,
            Verdict::Pass | Verdict::Replace | Verdict::Route => DONE,
        }
    }
}

/// Runs the fan-outs of a group as one.
pub(crate) async fn spread(tx: &Tx, spreads: Vec<&mut Spread>) -> Result<(), StoreError> {
    let rows: Vec<i64> =
        spreads.iter().flat_map(|spread| spread.items.iter().map(|ready| ready.item.event_row)).collect();
    let (mut waiting, numbered) = if rows.is_empty() { Default::default() } else { read_waiting(tx, rows).await? };
    // an event that is there twice is taken once
    let plans: Vec<(i64, Vec<Taken<'_>>)> = spreads
        .iter()
        .map(|spread| {
            let mut take =
                |item: &FanOut| waiting.remove(&item.event_row).filter(|event| event.instance_pk == spread.instance_pk);
            let items = spread.items.iter();
            let taken = items.filter_map(|Ready { item, data, hooked }| {
                Some(Taken { item, data: data.as_deref(), hooked: hooked.as_ref(), event: take(item)? })
            });
            (spread.instance_pk, taken.collect())
        })
        .collect();
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for (pk, items) in &plans {
        *counts.entry(*pk).or_default() += items.iter().filter(|taken| taken.is_shown()).count() as i64;
    }
    let mut next = take_numbers(tx, counts).await?;

    let (mut values, mut answers) = (Vec::new(), Vec::new());
    let (mut deliveries, mut dead) = (Vec::new(), Vec::new());
    for (pk, items) in &plans {
        let mut numbers = Vec::new();
        for taken in items {
            let (item, event) = (taken.item, &taken.event);
            let number = match next.get_mut(pk) {
                Some(seq) if taken.is_shown() => {
                    *seq += 1;
                    Some(*seq - 1)
                }
                _ => None,
            };
            numbers.extend(number.map(|number| (item.event_row, number)));
            let data = taken.data.map(|data| tx.sealer.seal(&data_place(*pk, event.id), data)).transpose()?;
            values.extend(values![item.event_row, number, taken.state(), data, taken.verdict(), taken.errors()]);
            let rows = item.deliveries.iter().map(|delivery| deliveries::Row {
                event_pk: item.event_row,
                instance_pk: *pk,
                order_key: event.order_key.clone(),
                kind: event.kind,
                delivery: delivery.clone(),
            });
            match item.verdict {
                Verdict::Drop => {}
                Verdict::Dead => dead.extend(rows),
                Verdict::Pass | Verdict::Replace | Verdict::Route => deliveries.extend(rows),
            }
        }
        answers.push(numbers);
    }
    if !values.is_empty() {
        const WIDTH: usize = 6;
        let count = values.len() / WIDTH;
        let count = few_shapes(&mut values, count, WIDTH);
        let sql = format!(
            // what a hook changed or took away must not come back through the message as it was
            "UPDATE events SET seq = v.column2, fanout = v.column3, data = COALESCE(v.column4, events.data),
             raw = CASE WHEN v.column4 IS NULL AND v.column2 IS NOT NULL THEN events.raw END,
             verdict = v.column5, hook_errors = v.column6
             FROM (VALUES {}) AS v WHERE events.pk = v.column1",
            tuples(0, count, WIDTH)
        );
        tx.db.run(sql, values).await?;
    }
    take_up(tx, &plans, &mut deliveries, &mut dead).await?;
    if !dead.is_empty() {
        deliveries::insert(tx, &dead, deliveries::Trigger::Event).await?;
        deliveries::kill(tx, &dead).await?;
    }
    deliveries::insert(tx, &deliveries, deliveries::Trigger::Event).await?;
    let sent = leave_hooked(tx, &plans).await?;
    drop(plans);
    for ((spread, mut numbers), sent) in spreads.into_iter().zip(answers).zip(sent) {
        let rows = spread.items.iter().map(|ready| ready.item.event_row);
        numbers.extend(rows.filter_map(|row| numbered.get(&row).map(|seq| (row, *seq))));
        numbers.sort_unstable();
        spread.answer.set(FannedOut { numbers, jobs: sent.jobs, over_quota: sent.over_quota });
    }
    Ok(())
}

/// The dead deliveries of events whose hooks were called again make room for the new ones, which keep their ids:
/// somebody may be looking for them.
async fn take_up(
    tx: &Tx,
    plans: &[(i64, Vec<Taken<'_>>)],
    deliveries: &mut [deliveries::Row],
    dead: &mut [deliveries::Row],
) -> Result<(), StoreError> {
    let taken = plans.iter().flat_map(|(_, items)| items).filter(|taken| taken.event.revived);
    let revived: Vec<i64> = taken.map(|taken| taken.item.event_row).collect();
    if revived.is_empty() {
        return Ok(());
    }
    let known = deliveries::take_dead(tx, &revived).await?;
    for row in deliveries.iter_mut().chain(dead) {
        if let Some(id) = known.get(&(row.event_pk, row.delivery.endpoint)) {
            row.delivery.id = *id;
        }
    }
    Ok(())
}

/// Writes what hooks left with events; for each plan what came of the sends.
async fn leave_hooked(tx: &Tx, plans: &[(i64, Vec<Taken<'_>>)]) -> Result<Vec<Sent>, StoreError> {
    let mut sent = Vec::with_capacity(plans.len());
    let mut chains: Vec<&StagedChain> = Vec::new();
    for (pk, items) in plans {
        let mut mine = Sent::default();
        for hooked in items.iter().filter_map(|taken| taken.hooked) {
            chains.extend(&hooked.chain);
            hooked::apply(tx, *pk, hooked, &mut mine).await?;
        }
        sent.push(mine);
    }
    hook_chains::insert(tx, &chains).await?;
    Ok(sent)
}

/// Of these events: those that wait, and the numbers of those that do not.
async fn read_waiting(tx: &Tx, rows: Vec<i64>) -> Result<(HashMap<i64, Waiting>, HashMap<i64, i64>), StoreError> {
    let (mut waiting, mut numbered) = (HashMap::new(), HashMap::new());
    let mut values: Vec<Value> = rows.into_iter().map(Value::from).collect();
    let count = values.len();
    let count = few_shapes(&mut values, count, 1);
    let sql = format!(
        "SELECT pk, id, instance_pk, kind, order_key, fanout, seq, verdict FROM events WHERE pk IN ({})",
        placeholders(0, count)
    );
    for row in tx.db.all(sql, values).await? {
        let pk: i64 = row.try_get("", "pk")?;
        if row.try_get::<i16>("", "fanout")? == PENDING {
            let event = Waiting {
                id: row.try_get("", "id")?,
                instance_pk: row.try_get("", "instance_pk")?,
                kind: word("event kind", &row.try_get::<String>("", "kind")?)?,
                order_key: row.try_get("", "order_key")?,
                revived: row.try_get::<Option<String>>("", "verdict")?.is_some(),
            };
            waiting.insert(pk, event);
        } else if let Some(seq) = row.try_get::<Option<i64>>("", "seq")? {
            numbered.insert(pk, seq);
        }
    }
    Ok((waiting, numbered))
}
