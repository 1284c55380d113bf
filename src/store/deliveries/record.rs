//! Recording tries: one statement each for all endpoints of a group.

use super::{Attempt, DeliveryOutcome, head_place, request_place};
use crate::seal::Sealer;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::writer::{Answer, Op, Tx, work};
use crate::{Durability, Store, StoreError};
use kero_domain::{DeliveryId, Timestamp};
use sea_orm::Value;
use std::collections::HashSet;
use tokio::sync::oneshot;

/// The command.
pub(crate) struct Record {
    delivery: DeliveryId,
    attempt: Attempt,
    /// Sealed.
    response_head: Option<Vec<u8>>,
    /// Sealed.
    request: Option<Vec<u8>>,
    outcome: DeliveryOutcome,
    pub answer: Answer<bool>,
}

impl Record {
    /// The command, and where its answer arrives.
    pub(crate) fn new(
        sealer: &Sealer,
        instance_pk: i64,
        delivery: DeliveryId,
        attempt: Attempt,
        outcome: DeliveryOutcome,
        request: Option<Vec<u8>>,
    ) -> Result<(Self, oneshot::Receiver<Result<bool, StoreError>>), StoreError> {
        let place = head_place(instance_pk, delivery.0, attempt.n);
        let response_head =
            attempt.response_head.as_ref().map(|head| sealer.seal(&place, head.as_bytes())).transpose()?;
        let request = request.map(|request| seal_request(sealer, instance_pk, delivery, &request)).transpose()?;
        let (answer, wait) = Answer::new();
        Ok((Self { delivery, attempt, response_head, request, outcome, answer }, wait))
    }

    fn state(&self) -> &'static str {
        match self.outcome {
            DeliveryOutcome::Delivered => "delivered",
            DeliveryOutcome::Retry { .. } => "pending",
            DeliveryOutcome::Dead => "dead",
        }
    }
}

impl Store {
    /// Stores a try and what it leads to; when that ends the delivery, the next in line moves up. `request` fixes what
    /// later tries send, unless that is fixed already. `false`: the delivery is gone or had ended, nothing changed.
    ///
    /// At [`Durability::Process`]: after a loss of power the delivery is repeated under the same id, which receivers
    /// must bear in any case.
    pub async fn record_attempt(
        &self,
        instance_pk: i64,
        delivery: DeliveryId,
        attempt: Attempt,
        outcome: DeliveryOutcome,
        request: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let (record, _) = Record::new(self.sealer(), instance_pk, delivery, attempt, outcome, request)?;
        self.submit(instance_pk, None, Durability::Process, |answer| Op::Record(Box::new(Record { answer, ..record })))
            .await
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

/// Runs the records of a group.
pub(crate) async fn record(tx: &Tx, mut records: Vec<&mut Record>) -> Result<(), StoreError> {
    while !records.is_empty() {
        // a delivery that is there twice takes turns
        let mut seen = HashSet::new();
        let (turn, later) = records.into_iter().partition(|record| seen.insert(record.delivery));
        take_turn(tx, turn).await?;
        records = later;
    }
    Ok(())
}

async fn take_turn(tx: &Tx, records: Vec<&mut Record>) -> Result<(), StoreError> {
    let mut values = values![Timestamp::now().0];
    for record in &records {
        let (next_at, counts) = match record.outcome {
            DeliveryOutcome::Retry { next_at, counts } => (Some(next_at.0), counts),
            DeliveryOutcome::Delivered | DeliveryOutcome::Dead => (None, true),
        };
        values.extend(values![
            record.delivery.0,
            record.state(),
            next_at,
            number(record.attempt.n),
            i32::from(!counts),
            record.request.clone()
        ]);
    }
    let rows = few_shapes(&mut values, records.len(), 6);
    let sql = format!(
        "UPDATE deliveries SET state = v.column2, next_at = COALESCE(v.column3, deliveries.next_at),
         attempts = v.column4, uncounted = deliveries.uncounted + v.column5,
         request = COALESCE(deliveries.request, v.column6), updated_at = $1
         FROM (VALUES {}) AS v WHERE deliveries.id = v.column1 AND deliveries.state = 'pending'",
        tuples(1, rows, 6)
    );
    // how many were changed says enough, and a row less for each is a wake-up less
    let changed = tx.db.run(sql, values).await?;
    if changed == records.len() as u64 {
        insert_attempts(tx, &records).await?;
        move_up(tx, &records).await?;
    } else if changed > 0 {
        // some are gone or had ended: each of them finds out by itself
        return Err(StoreError::Conflict("another end of a delivery"));
    }
    for record in records {
        record.answer.set(changed > 0);
    }
    Ok(())
}

/// Marks what stands first in the lines of those that ended.
async fn move_up(tx: &Tx, records: &[&mut Record]) -> Result<(), StoreError> {
    let ended = records.iter().filter(|record| !matches!(record.outcome, DeliveryOutcome::Retry { .. }));
    let mut ids: Vec<Value> = ended.map(|record| Value::from(record.delivery.0)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let count = ids.len();
    let count = few_shapes(&mut ids, count, 1);
    let sql = format!(
        "UPDATE deliveries SET head = TRUE WHERE id IN (SELECT (SELECT first.id FROM deliveries AS first
           WHERE first.endpoint_id = line.endpoint_id AND first.instance_pk = line.instance_pk
             AND first.order_key = line.order_key AND first.state = 'pending' ORDER BY first.event_pk LIMIT 1)
         FROM (SELECT DISTINCT endpoint_id, instance_pk, order_key FROM deliveries WHERE id IN ({})) AS line)",
        placeholders(0, count)
    );
    tx.db.run(sql, ids).await.map(drop)
}

async fn insert_attempts(tx: &Tx, records: &[&mut Record]) -> Result<(), StoreError> {
    const WIDTH: usize = 12;
    let mut values = Vec::with_capacity(records.len() * WIDTH);
    for record in records {
        let attempt = &record.attempt;
        values.extend(values![
            record.delivery.0,
            number(attempt.n),
            attempt.at.0,
            attempt.trigger.as_str(),
            attempt.http_status.map(i32::from),
            attempt.error.clone(),
            attempt.dns_ms.map(signed),
            attempt.connect_ms.map(signed),
            attempt.first_byte_ms.map(signed),
            signed(attempt.total_ms),
            record.response_head.clone(),
            attempt.next_at.map(|at| at.0)
        ]);
    }
    let rows = few_shapes(&mut values, records.len(), WIDTH);
    let sql = format!(
        "INSERT INTO attempts (delivery_id, n, started_at, triggered_by, http_status, error, dns_ms, connect_ms,
         first_byte_ms, total_ms, response_head, next_at) VALUES {} ON CONFLICT DO NOTHING",
        tuples(0, rows, WIDTH)
    );
    tx.db.run(sql, values).await.map(drop)
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

fn number(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
