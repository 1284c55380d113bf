//! Changes outside an attempt: cancelling, reporting mode.

use crate::append::{self, EventRow};
use crate::sql::{tuples, values};
use crate::writer::{Op, work};
use crate::{Store, StoreError};
use kero_domain::{JobId, NewEvent, Timestamp};
use std::sync::Arc;

/// Nothing was sent of these, as far as is known, and nothing will be once they are cancelled.
const NOT_BEGUN: &str = "(receipt IS NULL AND (state = 'queued' OR (state = 'held' AND held <> 'in_doubt')))";

impl Store {
    /// Cancels a job that is queued or held (but not in doubt) and writes the event with it. `false`: it has begun or
    /// ended, and nothing was written.
    pub async fn cancel_job(
        &self,
        job: JobId,
        code: &str,
        error: &str,
        event: Option<NewEvent>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(instance_pk) = self.instance_of_job(job).await? else { return Ok(false) };
        let event = event.map(|event| EventRow::new(self.sealer(), instance_pk, event)).transpose()?.map(Arc::new);
        let (code, error) = (code.to_owned(), error.to_owned());
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (code, error, event) = (code.clone(), error.clone(), event.clone());
                Box::pin(async move {
                    let sql = format!(
                        "UPDATE jobs SET state = 'cancelled', held = NULL, error_code = $1, error = $2, ended_at = $3,
                         updated_at = $3 WHERE id = $4 AND {NOT_BEGUN}"
                    );
                    let cancelled = tx.db.run(sql, values![code, error, at.0, job.0]).await? > 0;
                    if let (true, Some(event)) = (cancelled, &event) {
                        append::insert(tx, &[event]).await?;
                    }
                    Ok(cancelled)
                })
            }))
        })
        .await
    }

    /// Says of jobs at the heads of their lanes that a rate holds them, each until its moment. Those that have begun,
    /// ended or are in doubt stay as they are.
    pub async fn hold_for_rate(&self, instance_pk: i64, jobs: Vec<(JobId, Timestamp)>) -> Result<(), StoreError> {
        let mut values = values![Timestamp::now().0];
        for (job, due_at) in &jobs {
            values.extend(values![job.0, due_at.0]);
        }
        let sql = format!(
            "UPDATE jobs SET state = 'held', held = 'rate', due_at = v.column2, updated_at = $1
             FROM (VALUES {}) AS v WHERE jobs.id = v.column1 AND {NOT_BEGUN}",
            tuples(1, jobs.len(), 2)
        );
        self.submit(instance_pk, None, crate::Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let (sql, values) = (sql.clone(), values.clone());
                Box::pin(async move { tx.db.run(sql, values).await.map(drop) })
            }))
        })
        .await
    }

    /// Says of at most `limit` queued jobs that are due that they wait for their instance to be online. How many.
    pub async fn hold_offline(&self, instance_pk: i64, now: Timestamp, limit: u64) -> Result<u64, StoreError> {
        // in the words of the index of what is due
        let sql = format!(
            "UPDATE jobs SET state = 'held', held = 'offline', updated_at = $1 WHERE id IN (
               SELECT id FROM jobs WHERE instance_pk = $2 AND ended_at IS NULL AND state <> 'sending'
                 AND (held IS NULL OR held <> 'offline') AND due_at <= $1 AND state = 'queued'
               ORDER BY due_at, id LIMIT {limit}) AND state = 'queued'"
        );
        self.submit(instance_pk, None, crate::Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let (sql, values) = (sql.clone(), values![now.0, instance_pk]);
                Box::pin(async move { tx.db.run(sql, values).await })
            }))
        })
        .await
    }

    /// From now on the job's end is reported by an event: its request ended without it. A job that has ended stays
    /// as it is.
    pub async fn mark_asynchronous(&self, job: JobId) -> Result<(), StoreError> {
        let Some(instance_pk) = self.instance_of_job(job).await? else { return Ok(()) };
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE jobs SET asynchronous = $1 WHERE id = $2 AND ended_at IS NULL";
                    tx.db.run(sql, values![true, job.0]).await.map(drop)
                })
            }))
        })
        .await
    }

    /// At start nobody waits any more: every unfinished synchronous job becomes asynchronous. How many.
    pub async fn release_orphaned_sync_jobs(&self) -> Result<u64, StoreError> {
        self.submit(0, None, self.configured(), |answer| {
            Op::Run(work(answer, |tx| {
                let sql = "UPDATE jobs SET asynchronous = $1 WHERE ended_at IS NULL AND asynchronous = $2";
                Box::pin(tx.db.run(sql, values![true, false]))
            }))
        })
        .await
    }
}
