//! Intent and settlement: one statement each for all lanes of a group.

use super::{AttemptCount, IntentOutcome, Settlement};
use crate::append::{Appended, Entry, EventRow};
use crate::entity::jobs;
use crate::sql::{few_shapes, placeholders, tuples, values};
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
    proto: Vec<u8>,
    sealed: Vec<u8>,
    at: Timestamp,
    pub answer: Answer<IntentOutcome>,
}

/// The command that stores how an attempt ended.
pub(crate) struct Settle {
    job: JobId,
    instance_pk: i64,
    change: Change,
    event: Option<EventRow>,
    /// The job is asynchronous, and stays so.
    surely_reports: bool,
    /// It ran, and there is an event to append.
    reports: bool,
    pub answer: Answer<Settled>,
}

/// The event of a job's end.
#[derive(Debug, Clone)]
pub struct Report {
    pub entry: Entry,
    /// The job is known to be asynchronous. Otherwise its row decides whether there is an event: a synchronous one
    /// reports to its request.
    pub surely: bool,
}

impl From<NewEvent> for Report {
    fn from(event: NewEvent) -> Self {
        Self { entry: event.into(), surely: false }
    }
}

/// What came of a settlement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// `false`: the job had ended before, and nothing was written.
    pub applied: bool,
    /// What became of the event.
    pub event: Appended,
}

/// What a settlement writes.
#[derive(Clone)]
struct Change {
    state: JobState,
    held: Option<&'static str>,
    due_at: Option<i64>,
    /// Taken off the count of attempts: one that was begun, or (less than none) one that was not.
    unburn: i32,
    code: Option<String>,
    error: Option<String>,
    at: i64,
}

impl AttemptCount {
    fn taken_off(self) -> i32 {
        match self {
            Self::Kept => 0,
            Self::Undone => 1,
            Self::Added => -1,
        }
    }
}

impl From<Settlement> for Change {
    fn from(settlement: Settlement) -> Self {
        let now = Timestamp::now().0;
        let change =
            Self { state: JobState::Queued, held: None, due_at: None, unburn: 0, code: None, error: None, at: now };
        match settlement {
            Settlement::Sent { at } => Self { state: JobState::Sent, at: at.0, ..change },
            Settlement::Failed { code, error, count, at } => Self {
                state: JobState::Failed,
                unburn: count.taken_off(),
                code: Some(code),
                error: Some(error),
                at: at.0,
                ..change
            },
            Settlement::Hold { reason, due_at, code, error, count } => Self {
                state: JobState::Held,
                held: Some(reason.as_str()),
                due_at: Some(due_at.0),
                unburn: count.taken_off(),
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
        let sealed = self.sealer().seal(&super::proto_place(instance_pk, job), &proto)?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Intend(Box::new(Intend { job, instance_pk, proto, sealed, at, answer }))
        })
        .await
    }

    /// Stores how an attempt ended and, in the same transaction, the event of an asynchronous job. Fenced.
    pub async fn settle_job(
        &self,
        job: JobId,
        instance_pk: i64,
        epoch: i64,
        settlement: Settlement,
        report: Option<Report>,
    ) -> Result<Settled, StoreError> {
        let surely_reports = report.as_ref().is_some_and(|report| report.surely);
        let event = report.map(|report| EventRow::new(self.sealer(), instance_pk, report.entry)).transpose()?;
        let fence = Some(Fence { pk: instance_pk, epoch });
        let change = settlement.into();
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Settle(Box::new(Settle { job, instance_pk, change, event, surely_reports, reports: false, answer }))
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

async fn intend_turn(tx: &Tx, mut intents: Vec<&mut Intend>) -> Result<(), StoreError> {
    // nearly all are the first of their jobs: then nothing has to be read back
    let begun = begin(tx, &intents).await?;
    for intent in intents.extract_if(.., |intent| begun.contains(&intent.job)) {
        intent.answer.set(IntentOutcome::Started { attempt: 1, proto: std::mem::take(&mut intent.proto) });
    }
    if intents.is_empty() {
        return Ok(());
    }
    let mut values = intent_values(&intents);
    let rows = few_shapes(&mut values, intents.len(), 4);
    let sql = format!(
        "UPDATE jobs SET state = 'sending', held = NULL, attempts = jobs.attempts + 1,
         proto = COALESCE(jobs.proto, v.column3), updated_at = v.column4
         FROM (VALUES {}) AS v WHERE {RUNNABLE} RETURNING id, attempts, proto",
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

/// A job that may be sent now; `v` names it, its instance and, in the fourth place, the time.
const RUNNABLE: &str = "jobs.id = v.column1 AND jobs.instance_pk = v.column2 AND jobs.ended_at IS NULL
     AND (jobs.state <> 'held' OR jobs.held IN ('offline', 'rate') OR jobs.due_at <= v.column4)";

fn intent_values(intents: &[&mut Intend]) -> Vec<sea_orm::Value> {
    let mut values = Vec::with_capacity(intents.len() * 4);
    for intent in intents {
        values.extend(values![intent.job.0, intent.instance_pk, intent.sealed.clone(), intent.at.0]);
    }
    values
}

/// Stores the intents of jobs that never had one; which these are.
async fn begin(tx: &Tx, intents: &[&mut Intend]) -> Result<HashSet<JobId>, StoreError> {
    let mut values = intent_values(intents);
    let rows = few_shapes(&mut values, intents.len(), 4);
    let sql = format!(
        "UPDATE jobs SET state = 'sending', held = NULL, attempts = 1, proto = v.column3, updated_at = v.column4
         FROM (VALUES {}) AS v WHERE {RUNNABLE} AND jobs.proto IS NULL AND jobs.attempts = 0",
        tuples(0, rows, 4)
    );
    let begun = tx.db.run(sql, values).await?;
    let all = intents.iter().map(|intent| intent.job);
    if begun == intents.len() as u64 {
        return Ok(all.collect());
    }
    if begun == 0 {
        return Ok(HashSet::new());
    }
    // sealed twice, the same bytes are different ones: where ours are, this intent wrote them
    let mut values: Vec<sea_orm::Value> = all.map(|job| job.0.into()).collect();
    let rows = few_shapes(&mut values, intents.len(), 1);
    let sql = format!("SELECT id, proto FROM jobs WHERE proto IS NOT NULL AND id IN ({})", placeholders(0, rows));
    let mut found: HashMap<JobId, Vec<u8>> = HashMap::new();
    for row in tx.db.all(sql, values).await? {
        found.insert(JobId(row.try_get("", "id")?), row.try_get("", "proto")?);
    }
    let ours = intents.iter().filter(|intent| found.get(&intent.job) == Some(&intent.sealed));
    Ok(ours.map(|intent| intent.job).collect())
}

async fn states(tx: &Tx, ids: impl Iterator<Item = JobId>) -> Result<HashMap<JobId, (JobState, i64)>, StoreError> {
    let ids: Vec<Uuid> = ids.map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = jobs::Entity::find().filter(jobs::Column::Id.is_in(ids)).all(&tx.db).await?;
    rows.into_iter().map(|row| Ok((JobId(row.id), (super::word("job state", &row.state)?, row.updated_at)))).collect()
}

/// Runs the settlements of a group. Their events are appended with the group's others.
pub(crate) async fn settle(tx: &Tx, settles: Vec<&mut Settle>) -> Result<(), StoreError> {
    for turn in turns(settles, |settle| settle.job) {
        settle_turn(tx, turn).await?;
    }
    Ok(())
}

async fn settle_turn(tx: &Tx, settles: Vec<&mut Settle>) -> Result<(), StoreError> {
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
        "UPDATE jobs SET state = CASE WHEN v.column3 = 'sent' THEN COALESCE(jobs.receipt, 'sent') ELSE v.column3 END,
         held = v.column4, due_at = COALESCE(v.column5, jobs.due_at),
         attempts = jobs.attempts - CASE WHEN jobs.state = 'sending' OR v.column6 < 0 THEN v.column6 ELSE 0 END,
         error_code = v.column7, error = v.column8, ended_at = v.column9, updated_at = v.column10
         FROM (VALUES {}) AS v
         WHERE jobs.id = v.column1 AND jobs.instance_pk = v.column2 AND jobs.ended_at IS NULL",
        tuples(0, rows, 10)
    );
    // a synchronous job reports to its request and has no event
    let mut silent = HashSet::new();
    let written = if settles.iter().all(|settle| settle.event.is_none() || settle.surely_reports) {
        tx.db.run(sql, values).await?
    } else {
        let rows = tx.db.all(format!("{sql} RETURNING id, asynchronous"), values).await?;
        for row in &rows {
            if !row.try_get::<bool>("", "asynchronous")? {
                silent.insert(JobId(row.try_get("", "id")?));
            }
        }
        rows.len() as u64
    };
    let changed = if written == settles.len() as u64 {
        settles.iter().map(|settle| settle.job).collect()
    } else {
        now_settled(tx, &settles).await?
    };
    for settle in settles {
        let applied = changed.contains(&settle.job);
        settle.reports = applied && !silent.contains(&settle.job);
        settle.answer.set(Settled { applied, event: Appended::default() });
    }
    Ok(())
}

impl Settle {
    /// The event that is to be appended, now that the settlement has run.
    pub(crate) fn event(&self) -> Option<&EventRow> {
        self.event.as_ref().filter(|_| self.reports)
    }

    pub(crate) fn appended(&mut self, event: Appended) {
        if let Some(settled) = self.answer.take() {
            self.answer.set(Settled { event, ..settled });
        }
    }
}

/// Which of these settlements are in the rows now. A job that has not ended was changed just now; one that has, when it
/// ended like this: the same settlement may have been committed although the commit's answer was lost.
async fn now_settled(tx: &Tx, settles: &[&mut Settle]) -> Result<HashSet<JobId>, StoreError> {
    let states = states(tx, settles.iter().map(|settle| settle.job)).await?;
    let is = |settle: &&&mut Settle| {
        states.get(&settle.job).is_some_and(|(state, updated_at)| {
            let same =
                *state == settle.change.state || (settle.change.state == JobState::Sent && state.progress().is_some());
            !state.is_terminal() || (same && *updated_at == settle.change.at)
        })
    };
    Ok(settles.iter().filter(is).map(|settle| settle.job).collect())
}
