//! The end of the fan-out of events that waited: once, in order, with a dense number each.

use crate::append::{DONE, PENDING, data_place, plain, take_numbers};
use crate::deliveries;
use crate::events::{FanOut, FannedOut, Verdict};
use crate::hook_chains::{self, StagedChain};
use crate::hooked::{self, Sent, Staged};
use crate::jobs::word;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx};
use crate::{Store, StoreError};
use kero_domain::EventKind;
use sea_orm::Value;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

const DROPPED: i16 = 2;
const DEAD: i16 = 3;

impl Store {
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
