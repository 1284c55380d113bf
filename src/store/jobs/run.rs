//! Intent and settlement: one statement each for all lanes of a group.

use super::{IntentOutcome, Settlement};
use crate::entity::jobs;
use crate::events::{self, EventRow};
use crate::sql::{few_shapes, tuples, values};
use crate::writer::{Answer, Fence, Op, Tx};
use crate::{Store, StoreError};
use kero_domain::{JobId, JobState, NewEvent, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The command that stores an intent.
pub(crate) struct Intend {
    job: JobId,
    instance_pk: i64,
    /// Sealed.
    proto: Vec<u8>,
    at: Timestamp,
    pub answer: Answer<IntentOutcome>,
}

/// The command that stores how an attempt ended.
pub(crate) struct Settle {
    job: JobId,
    instance_pk: i64,
    change: Change,
    event: Option<EventRow>,
    pub answer: Answer<bool>,
}

/// What a settlement writes.
#[derive(Clone)]
struct Change {
    state: JobState,
    held: Option<&'static str>,
    due_at: Option<i64>,
    /// Taken off the count when an attempt was begun.
    unburn: i32,
    code: Option<String>,
    error: Option<String>,
    at: i64,
}

impl From<Settlement> for Change {
    fn from(settlement: Settlement) -> Self {
        let now = Timestamp::now().0;
        let change =
            Self { state: JobState::Queued, held: None, due_at: None, unburn: 0, code: None, error: None, at: now };
        match settlement {
            Settlement::Sent { at } => Self { state: JobState::Sent, at: at.0, ..change },
            Settlement::Failed { code, error, at } => {
                Self { state: JobState::Failed, code: Some(code), error: Some(error), at: at.0, ..change }
            }
            Settlement::Hold { reason, due_at, code, error, burn_attempt } => Self {
                state: JobState::Held,
                held: Some(reason.as_str()),
                due_at: Some(due_at.0),
                unburn: i32::from(!burn_attempt),
                code,
                error,
                ..change
            },
            Settlement::Requeue => Self { due_at: Some(now), unburn: 1, ..change },
        }
    }
}

impl Store {
    /// Stores the intent to send: `queued`, `held` and due, or `sending` becomes `sending`, with one attempt more and
    /// the protobuf of the first intent. Fenced.
    pub async fn intend_job(
        &self,
        job: JobId,
        instance_pk: i64,
        epoch: i64,
        proto: Vec<u8>,
        at: Timestamp,
    ) -> Result<IntentOutcome, StoreError> {
        let proto = self.sealer().seal(&super::proto_place(instance_pk, job), &proto)?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Intend(Box::new(Intend { job, instance_pk, proto, at, answer }))
        })
        .await
    }

    /// Stores how an attempt ended and, in the same transaction, the event of an asynchronous job. `false`: the job had ended before, and
    /// neither was written. Fenced.
    pub async fn settle_job(
        &self,
        job: JobId,
        instance_pk: i64,
        epoch: i64,
        settlement: Settlement,
        event: Option<NewEvent>,
    ) -> Result<bool, StoreError> {
        let event = event.map(|event| EventRow::new(self.sealer(), instance_pk, event)).transpose()?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        let change = settlement.into();
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Settle(Box::new(Settle { job, instance_pk, change, event, answer }))
        })
        .await
    }
}

/// Splits off the commands that name a job which an earlier one of them names.
fn turns<T>(commands: Vec<&mut T>, job: impl Fn(&T) -> JobId) -> Vec<Vec<&mut T>> {
    let mut turns: Vec<(HashSet<JobId>, Vec<&mut T>)> = Vec::new();
    for command in commands {
        let id = job(command);
        match turns.iter_mut().find(|(seen, _)| !seen.contains(&id)) {
            Some((seen, turn)) => {
                seen.insert(id);
                turn.push(command);
            }
            None => turns.push((HashSet::from([id]), vec![command])),
        }
    }
    turns.into_iter().map(|(_, turn)| turn).collect()
}

pub(crate) async fn intend(tx: &Tx, intents: Vec<&mut Intend>) -> Result<(), StoreError> {
    for turn in turns(intents, |intent| intent.job) {
        intend_turn(tx, turn).await?;
    }
    Ok(())
}

async fn intend_turn(tx: &Tx, intents: Vec<&mut Intend>) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(intents.len() * 4);
    for intent in &intents {
        values.extend(values![intent.job.0, intent.instance_pk, intent.proto.clone(), intent.at.0]);
    }
    let rows = few_shapes(&mut values, intents.len(), 4);
    let sql = format!(
        "UPDATE jobs SET state = 'sending', held = NULL, attempts = jobs.attempts + 1,
         proto = COALESCE(jobs.proto, v.column3), updated_at = v.column4
         FROM (VALUES {}) AS v
         WHERE jobs.id = v.column1 AND jobs.instance_pk = v.column2 AND jobs.ended_at IS NULL
           AND (jobs.state <> 'held' OR jobs.held IN ('offline', 'rate') OR jobs.due_at <= v.column4)
         RETURNING id, attempts, proto",
        tuples(0, rows, 4)
    );
    let mut started = HashMap::new();
    for row in tx.db.all(sql, values).await? {
        let id: Uuid = row.try_get("", "id")?;
        started.insert(id, (row.try_get::<i32>("", "attempts")?, row.try_get::<Vec<u8>>("", "proto")?));
    }
    let mut idle = Vec::new();
    for intent in intents {
        match started.remove(&intent.job.0) {
            Some((attempts, sealed)) => {
                let place = super::proto_place(intent.instance_pk, intent.job);
                let proto = tx.sealer.open("job's protobuf", &place, &sealed)?;
                intent.answer.set(IntentOutcome::Started { attempt: u32::try_from(attempts).unwrap_or(0), proto });
            }
            None => idle.push(intent),
        }
    }
    let states = states(tx, idle.iter().map(|intent| intent.job)).await?;
    for intent in idle {
        // a job that is not there any more went with its instance
        let state = states.get(&intent.job).map_or(JobState::Cancelled, |(state, _)| *state);
        intent.answer.set(IntentOutcome::NotRunnable(state));
    }
    Ok(())
}

async fn states(tx: &Tx, ids: impl Iterator<Item = JobId>) -> Result<HashMap<JobId, (JobState, i64)>, StoreError> {
    let ids: Vec<Uuid> = ids.map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = jobs::Entity::find().filter(jobs::Column::Id.is_in(ids)).all(&tx.db).await?;
    rows.into_iter().map(|row| Ok((JobId(row.id), (super::word("job state", &row.state)?, row.updated_at)))).collect()
}

pub(crate) async fn settle(tx: &Tx, settles: Vec<&mut Settle>) -> Result<(), StoreError> {
    for turn in turns(settles, |settle| settle.job) {
        settle_turn(tx, turn).await?;
    }
    Ok(())
}

async fn settle_turn(tx: &Tx, mut settles: Vec<&mut Settle>) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(settles.len() * 10);
    for settle in &settles {
        let change = settle.change.clone();
        let ended = change.state.is_terminal().then_some(change.at);
        values.extend(values![
            settle.job.0,
            settle.instance_pk,
            change.state.as_str(),
            change.held,
            change.due_at,
            change.unburn,
            change.code,
            change.error,
            ended,
            change.at
        ]);
    }
    let rows = few_shapes(&mut values, settles.len(), 10);
    let sql = format!(
        "UPDATE jobs SET state = v.column3, held = v.column4, due_at = COALESCE(v.column5, jobs.due_at),
         attempts = jobs.attempts - CASE WHEN jobs.state = 'sending' THEN v.column6 ELSE 0 END,
         error_code = v.column7, error = v.column8, ended_at = v.column9, updated_at = v.column10
         FROM (VALUES {}) AS v
         WHERE jobs.id = v.column1 AND jobs.instance_pk = v.column2 AND jobs.ended_at IS NULL
         RETURNING id, asynchronous",
        tuples(0, rows, 10)
    );
    let mut changed = HashSet::new();
    // a synchronous job reports to its request and has no event
    let mut silent = HashSet::new();
    for row in tx.db.all(sql, values).await? {
        let job = JobId(row.try_get("", "id")?);
        changed.insert(job);
        if !row.try_get::<bool>("", "asynchronous")? {
            silent.insert(job);
        }
    }
    let unchanged = settles.iter().map(|settle| settle.job).filter(|job| !changed.contains(job));
    // this very settlement may have been committed although the commit's answer was lost
    for (job, (state, updated_at)) in states(tx, unchanged).await? {
        let same = |settle: &&mut Settle| {
            settle.job == job && settle.change.state == state && settle.change.at == updated_at && state.is_terminal()
        };
        if settles.iter().any(same) {
            changed.insert(job);
        }
    }
    let written: Vec<&EventRow> = settles
        .iter()
        .filter(|settle| changed.contains(&settle.job) && !silent.contains(&settle.job))
        .filter_map(|settle| settle.event.as_ref())
        .collect();
    events::insert(tx, &written).await?;
    for settle in &mut settles {
        let applied = changed.contains(&settle.job);
        settle.answer.set(applied);
    }
    Ok(())
}
