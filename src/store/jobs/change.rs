//! Changes outside an attempt: cancelling, reporting mode, receipts.

use crate::events::{self, EventRow};
use crate::sql::{placeholders, tuples, values};
use crate::writer::{Fence, Op, work};
use crate::{Store, StoreError};
use kero_domain::{Address, JobId, JobState, NewEvent, Timestamp};
use std::sync::Arc;

/// Nothing was sent of these, and nothing will be once they are cancelled.
const NOT_BEGUN: &str = "(state = 'queued' OR (state = 'held' AND held <> 'in_doubt'))";

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
                        events::insert(tx, &[event]).await?;
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

    /// Moves the jobs whose WhatsApp ids a receipt names forward to `state` (delivered, read, played; never back, and
    /// only jobs that were sent) and appends the event, in one transaction. Fenced.
    ///
    /// A receipt from a contact may come under another address than the job has (a LID for a number), so only the
    /// kind of chat is compared there; groups and broadcasts have one address, which must be the same.
    pub async fn record_receipt(
        &self,
        instance_pk: i64,
        epoch: i64,
        ids: &[String],
        from_chat: &str,
        state: Option<JobState>,
        event: NewEvent,
    ) -> Result<(), StoreError> {
        let event = Arc::new(EventRow::new(self.sealer(), instance_pk, event)?);
        let behind = match state {
            Some(JobState::Delivered) => "'sent'",
            Some(JobState::Read) => "'sent', 'delivered'",
            Some(JobState::Played) => "'sent', 'delivered', 'read'",
            _ => "",
        };
        let update = state.filter(|_| !behind.is_empty() && !ids.is_empty()).map(|state| {
            let mut values = values![state.as_str(), Timestamp::now().0, instance_pk];
            values.extend(ids.iter().map(|id| id.as_str().into()));
            let mut sql = format!(
                "UPDATE jobs SET state = $1, updated_at = $2 WHERE instance_pk = $3 AND message_id IN ({})
                 AND state IN ({behind})",
                placeholders(3, ids.len())
            );
            match Address::parse(from_chat) {
                Ok(Address::Phone(_) | Address::Lid(_)) => {
                    sql.push_str(" AND (chat LIKE '%@s.whatsapp.net' OR chat LIKE '%@lid')");
                }
                _ => {
                    sql.push_str(&format!(" AND chat = ${}", values.len() + 1));
                    values.push(from_chat.into());
                }
            }
            (sql, values)
        });
        let update = Arc::new(update);
        let fence = Some(Fence { pk: instance_pk, epoch });
        self.submit(instance_pk, fence, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (update, event) = (Arc::clone(&update), Arc::clone(&event));
                Box::pin(async move {
                    if let Some((sql, values)) = update.as_ref() {
                        tx.db.run(sql.as_str(), values.clone()).await?;
                    }
                    events::insert(tx, &[&event]).await.map(drop)
                })
            }))
        })
        .await
    }
}
