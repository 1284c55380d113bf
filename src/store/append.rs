//! Appending events. Those that nothing else has a say in are fanned out by the same statements, while no event of
//! their instance waits: they get their numbers and their deliveries at once.

use crate::deliveries::{self, Trigger};
use crate::events::NewDelivery;
use crate::seal::{Sealer, place};
use crate::sql::{MAX_BINDS, few_shapes, placeholders, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx};
use crate::{Store, StoreError};
use kero_domain::{EventKind, NewEvent, text};
use sea_orm::Value;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

pub(crate) const PENDING: i16 = 0;
pub(crate) const DONE: i16 = 1;

/// An event to append.
#[derive(Debug, Clone)]
pub struct Entry {
    pub event: NewEvent,
    /// Whom it goes to, where no hook has a say in that; it is fanned out at once, unless events of its instance wait.
    /// `None`: it waits for [`Store::fan_out`].
    pub deliveries: Option<Vec<NewDelivery>>,
}

impl From<NewEvent> for Entry {
    fn from(event: NewEvent) -> Self {
        Self { event, deliveries: None }
    }
}

/// What became of events that were appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Those that were not there before.
    pub new: u64,
    /// The highest number that one of them got.
    pub newest: Option<i64>,
    /// Some wait for their fan-out.
    pub wait: bool,
}

impl Appended {
    pub(crate) fn of(placed: impl Iterator<Item = Option<Placed>>) -> Self {
        let mut appended = Self::default();
        for placed in placed.flatten() {
            appended.new += 1;
            match placed {
                Placed::Numbered(seq) => appended.newest = appended.newest.max(Some(seq)),
                Placed::Waits => appended.wait = true,
            }
        }
        appended
    }
}

/// Where an event that was not there before is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Numbered(i64),
    Waits,
}

/// An event as it is inserted, its data sealed.
pub(crate) struct EventRow {
    id: Uuid,
    instance_pk: i64,
    kind: EventKind,
    order_key: String,
    dedupe_key: Option<String>,
    at: i64,
    message_id: Option<String>,
    data: Vec<u8>,
    request_id: Option<String>,
    raw: Option<Vec<u8>>,
    deliveries: Option<Vec<NewDelivery>>,
}

impl EventRow {
    pub(crate) fn new(sealer: &Sealer, instance_pk: i64, entry: impl Into<Entry>) -> Result<Self, StoreError> {
        let Entry { event, deliveries } = entry.into();
        let storable = |text: String| text::storable(&text).into_owned();
        Ok(Self {
            id: event.id.0,
            instance_pk,
            kind: event.kind,
            order_key: storable(event.order_key),
            dedupe_key: event.dedupe_key.map(storable),
            at: event.at.0,
            message_id: event.message_id.map(storable),
            data: sealer.seal(&data_place(instance_pk, event.id.0), &plain(event.data)?)?,
            request_id: event.request_id,
            raw: event.raw.map(|raw| sealer.seal(&raw_place(instance_pk, event.id.0), &raw)).transpose()?,
            deliveries,
        })
    }

    fn delivers(&self) -> bool {
        self.deliveries.as_ref().is_some_and(|deliveries| !deliveries.is_empty())
    }
}

pub(crate) fn data_place(instance_pk: i64, id: Uuid) -> String {
    place("events.data", instance_pk, id)
}

pub(crate) fn raw_place(instance_pk: i64, id: Uuid) -> String {
    place("events.raw", instance_pk, id)
}

/// An event's data as it is sealed.
pub(crate) fn plain(mut data: Json) -> Result<Vec<u8>, StoreError> {
    text::storable_json(&mut data);
    serde_json::to_vec(&data).map_err(|_| StoreError::bug("an event's data does not serialise"))
}

/// The command that appends events.
pub(crate) struct Append {
    pub rows: Vec<EventRow>,
    pub answer: Answer<Appended>,
}

impl Store {
    /// Appends events, all or none, except those whose dedupe key is there already. Fenced.
    pub async fn append_events(
        &self,
        instance_pk: i64,
        epoch: i64,
        events: Vec<impl Into<Entry>>,
    ) -> Result<Appended, StoreError> {
        let rows: Result<Vec<_>, _> =
            events.into_iter().map(|event| EventRow::new(self.sealer(), instance_pk, event)).collect();
        let rows = rows?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| Op::Append(Append { rows, answer })).await
    }
}

/// Inserts events that are not there yet, by id or by dedupe key, with the deliveries of those that are fanned out at
/// once; where each is, `None` for those that were there.
pub(crate) async fn insert(tx: &Tx, rows: &[&EventRow]) -> Result<Vec<Option<Placed>>, StoreError> {
    const CHUNK: usize = MAX_BINDS / WIDTH;
    let numbers = numbers(tx, rows).await?;
    let (mut written, mut places) = (0, HashMap::new());
    for (rows, numbers) in rows.chunks(CHUNK).zip(numbers.chunks(CHUNK)) {
        written += insert_chunk(tx, rows, numbers, &mut places).await?;
    }
    if written < rows.len() as u64 {
        return insert_again(tx, rows, &numbers, &places).await;
    }
    deliver(tx, rows.iter().copied().zip(&numbers).filter(|(_, number)| number.is_some()), &places).await?;
    Ok(numbers.into_iter().map(|number| Some(number.map_or(Placed::Waits, Placed::Numbered))).collect())
}

/// The numbers of those that are fanned out at once. What waits, in the journal or among these, is overtaken by nothing
/// of its instance.
async fn numbers(tx: &Tx, rows: &[&EventRow]) -> Result<Vec<Option<i64>>, StoreError> {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.deliveries.is_some()) {
        *counts.entry(row.instance_pk).or_default() += 1;
    }
    for row in rows.iter().filter(|row| row.deliveries.is_none()) {
        counts.remove(&row.instance_pk);
    }
    let nothing_waits = "AND NOT EXISTS (SELECT 1 FROM events e WHERE e.instance_pk = v.column1 AND e.fanout = 0)";
    let mut next = raise(tx, &counts, nothing_waits).await?;
    let number = |row: &&EventRow| {
        let next = next.get_mut(&row.instance_pk)?;
        *next += 1;
        Some(*next - 1)
    };
    Ok(rows.iter().map(number).collect())
}

const WIDTH: usize = 12;

/// Inserts rows; how many. Adds the places of those with deliveries, by id.
async fn insert_chunk(
    tx: &Tx,
    rows: &[&EventRow],
    numbers: &[Option<i64>],
    places: &mut HashMap<Uuid, i64>,
) -> Result<u64, StoreError> {
    let mut values = Vec::with_capacity(rows.len() * WIDTH);
    for (row, number) in rows.iter().zip(numbers) {
        values.extend(values![
            row.id,
            row.instance_pk,
            row.kind.as_str(),
            row.order_key.clone(),
            row.dedupe_key.clone(),
            if number.is_some() { DONE } else { PENDING },
            *number,
            row.at,
            row.message_id.clone(),
            row.data.clone(),
            row.request_id.clone(),
            row.raw.clone()
        ]);
    }
    let count = few_shapes(&mut values, rows.len(), WIDTH);
    let sql = format!(
        "INSERT INTO events (id, instance_pk, kind, order_key, dedupe_key, fanout, seq, occurred_at, message_id, data,
         request_id, raw) VALUES {} ON CONFLICT DO NOTHING",
        tuples(0, count, WIDTH)
    );
    if !rows.iter().any(|row| row.delivers()) {
        return tx.db.run(sql, values).await;
    }
    let inserted = tx.db.all(format!("{sql} RETURNING id, pk"), values).await?;
    for row in &inserted {
        places.insert(row.try_get("", "id")?, row.try_get("", "pk")?);
    }
    Ok(inserted.len() as u64)
}

/// Some were there already: the numbers of the others close up.
async fn insert_again(
    tx: &Tx,
    rows: &[&EventRow],
    numbers: &[Option<i64>],
    places: &HashMap<Uuid, i64>,
) -> Result<Vec<Option<Placed>>, StoreError> {
    let mut found: HashMap<Uuid, Option<i64>> = HashMap::new();
    for rows in rows.chunks(MAX_BINDS) {
        let sql = format!("SELECT id, seq FROM events WHERE id IN ({})", placeholders(0, rows.len()));
        for row in tx.db.all(sql, rows.iter().map(|row| Value::from(row.id)).collect()).await? {
            found.insert(row.try_get("", "id")?, row.try_get("", "seq")?);
        }
    }
    let (mut placed, mut moved) = (Vec::with_capacity(rows.len()), Vec::new());
    let mut unused: BTreeMap<i64, i64> = BTreeMap::new();
    for (row, number) in rows.iter().zip(numbers) {
        // a number was never given before, so one that is there is this row's; an id that is there twice counts once
        let new = found.get(&row.id) == Some(number) && found.remove(&row.id).is_some();
        let skipped = unused.entry(row.instance_pk).or_default();
        placed.push(match number {
            Some(_) if !new => {
                *skipped += 1;
                None
            }
            Some(number) => {
                if *skipped > 0 {
                    moved.push((row.id, number - *skipped));
                }
                Some(Placed::Numbered(number - *skipped))
            }
            None => new.then_some(Placed::Waits),
        });
    }
    if !moved.is_empty() {
        // none may pass over another's
        let ids: Vec<Value> = moved.iter().map(|(id, _)| Value::from(*id)).collect();
        tx.db.run(format!("UPDATE events SET seq = NULL WHERE id IN ({})", placeholders(0, ids.len())), ids).await?;
        let values = moved.iter().flat_map(|(id, seq)| values![*id, *seq]).collect();
        let sql = "UPDATE events SET seq = v.column2 FROM (VALUES";
        let sql = format!("{sql} {}) AS v WHERE events.id = v.column1", tuples(0, moved.len(), 2));
        tx.db.run(sql, values).await?;
    }
    take_numbers(tx, unused.into_iter().map(|(pk, count)| (pk, -count)).collect()).await?;
    let numbered = rows.iter().copied().zip(&placed).filter(|(_, placed)| matches!(placed, Some(Placed::Numbered(_))));
    deliver(tx, numbered, places).await?;
    Ok(placed)
}

async fn deliver<'a, T>(
    tx: &Tx,
    numbered: impl Iterator<Item = (&'a EventRow, T)>,
    places: &HashMap<Uuid, i64>,
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    for (row, _) in numbered {
        let Some(event_pk) = places.get(&row.id) else { continue };
        rows.extend(row.deliveries.iter().flatten().map(|delivery| deliveries::Row {
            event_pk: *event_pk,
            instance_pk: row.instance_pk,
            order_key: row.order_key.clone(),
            kind: row.kind,
            delivery: delivery.clone(),
        }));
    }
    deliveries::insert(tx, &rows, Trigger::Event).await.map(drop)
}

/// The first of as many numbers as each instance needs, which nobody else gets. A negative count gives the last ones
/// back.
pub(crate) async fn take_numbers(tx: &Tx, mut counts: BTreeMap<i64, i64>) -> Result<HashMap<i64, i64>, StoreError> {
    counts.retain(|_, count| *count != 0);
    let first = raise(tx, &counts, "").await?;
    // an instance that is gone; run by itself, its command fails alone
    if first.len() == counts.len() { Ok(first) } else { Err(StoreError::NotFound) }
}

/// The same for those of the instances that meet a condition.
async fn raise(tx: &Tx, counts: &BTreeMap<i64, i64>, condition: &str) -> Result<HashMap<i64, i64>, StoreError> {
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "UPDATE instances SET next_seq = instances.next_seq + v.column2 FROM (VALUES {}) AS v
         WHERE instances.pk = v.column1 {condition} RETURNING instances.pk, instances.next_seq",
        tuples(0, counts.len(), 2)
    );
    let values = counts.iter().flat_map(|(pk, count)| values![*pk, *count]).collect();
    let mut first = HashMap::new();
    for row in tx.db.all(sql, values).await? {
        let pk: i64 = row.try_get("", "pk")?;
        first.insert(pk, row.try_get::<i64>("", "next_seq")? - counts.get(&pk).copied().unwrap_or_default());
    }
    Ok(first)
}
