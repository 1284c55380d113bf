//! Dead letters: asynchronous jobs that failed, until they are retried, discarded or pruned.

use super::Job;
use crate::entity::jobs::{Column, Entity};
use crate::sql::{placeholders, tuples, values};
use crate::writer::{Op, work};
use crate::{Store, StoreError};
use kero_domain::{CorrelationId, HeldReason, InstanceId, JobId, JobState, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, Select, Value,
};
use std::collections::{HashMap, HashSet};

/// What makes a row a dead letter, in the words of the partial indices.
const DEAD: &str = "state = 'failed' AND asynchronous AND discarded_at IS NULL";
/// Nothing was sent of these, and they can be put off.
const MOVABLE: &str =
    "asynchronous AND (state = 'queued' OR (state = 'held' AND held IN ('scheduled', 'offline', 'rate')))
     AND attempts = attempts_before";

/// Which dead letters; an empty one means all.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    pub instance_pk: Option<i64>,
    /// The code they failed with.
    pub code: Option<String>,
    /// The JID they were addressed to.
    pub chat: Option<String>,
    /// Failed at this moment or later.
    pub since: Option<Timestamp>,
    /// Failed before this moment.
    pub until: Option<Timestamp>,
}

/// What names a job outside of the database: in the queue's lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobName {
    pub instance_id: InstanceId,
    pub correlation_id: CorrelationId,
}

/// Dead letters, the newest first.
pub(crate) fn dead(filter: &DeadFilter) -> Select<Entity> {
    let mut find = Entity::find().filter(Expr::cust(DEAD));
    if let Some(pk) = filter.instance_pk {
        find = find.filter(Column::InstancePk.eq(pk));
    }
    if let Some(code) = &filter.code {
        find = find.filter(Column::ErrorCode.eq(code.as_str()));
    }
    if let Some(chat) = &filter.chat {
        find = find.filter(Column::Chat.eq(chat.as_str()));
    }
    if let Some(since) = filter.since {
        find = find.filter(Column::EndedAt.gte(since.0));
    }
    if let Some(until) = filter.until {
        find = find.filter(Column::EndedAt.lt(until.0));
    }
    find
}

impl Store {
    /// Dead letters, the last accepted first, accepted before the job `before`.
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        before: Option<JobId>,
        limit: u64,
    ) -> Result<Vec<Job>, StoreError> {
        let mut find = dead(filter);
        if let Some(before) = before {
            find = find.filter(Column::Id.lt(before.0));
        }
        let rows = find.order_by_desc(Column::Id).limit(limit).all(self.reader()).await?;
        self.read_jobs(rows).await
    }

    pub async fn count_dead_letters(&self, filter: &DeadFilter) -> Result<u64, StoreError> {
        Ok(dead(filter).count(self.reader()).await?)
    }

    /// Makes dead letters jobs again: `queued`, or `held` with a reason, behind the other jobs of their chats. They keep
    /// message id and protobuf; their attempts count from zero against the limit. Those that were still dead letters.
    pub async fn retry_dead_letters(
        &self,
        instance_pk: i64,
        jobs: &[JobId],
        held: Option<HeldReason>,
        at: Timestamp,
    ) -> Result<Vec<JobId>, StoreError> {
        let state = if held.is_some() { JobState::Held } else { JobState::Queued };
        let mut values = values![state.as_str(), held.map(HeldReason::as_str), at.0, instance_pk];
        values.extend(jobs.iter().map(|job| Value::from(job.0)));
        let sql = format!(
            "UPDATE jobs SET state = $1, held = $2, due_at = $3, order_at = $3, send_at = NULL, updated_at = $3,
             attempts_before = attempts, retries = retries + 1, error_code = NULL, error = NULL, ended_at = NULL
             WHERE instance_pk = $4 AND id IN ({}) AND {DEAD} RETURNING id",
            placeholders(4, jobs.len())
        );
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (sql, values) = (sql.clone(), values.clone());
                Box::pin(async move {
                    let rows = tx.db.all(sql, values).await?;
                    rows.iter().map(|row| Ok(JobId(row.try_get("", "id")?))).collect()
                })
            }))
        })
        .await
    }

    /// Takes a job off the dead letters; it stays failed. `false`: it is none.
    pub async fn discard_dead_letter(&self, instance_pk: i64, job: JobId, at: Timestamp) -> Result<bool, StoreError> {
        let sql = format!("UPDATE jobs SET discarded_at = $1, updated_at = $1 WHERE id = $2 AND {DEAD}");
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let sql = sql.clone();
                Box::pin(async move { Ok(tx.db.run(sql, values![at.0, job.0]).await? > 0) })
            }))
        })
        .await
    }

    /// Which of these jobs are dead letters, and when they failed.
    pub async fn dead_among(&self, names: &[JobName]) -> Result<HashMap<JobName, Timestamp>, StoreError> {
        let rows = self.named(names, "j.state = 'failed' AND j.asynchronous AND j.discarded_at IS NULL").await?;
        rows.iter().map(|row| Ok((name(row)?, Timestamp(row.try_get("", "ended_at")?)))).collect()
    }

    /// Which of these jobs there are.
    pub async fn jobs_among(&self, names: &[JobName]) -> Result<HashSet<JobName>, StoreError> {
        self.named(names, "TRUE").await?.iter().map(name).collect()
    }

    async fn named(&self, names: &[JobName], condition: &str) -> Result<Vec<QueryResult>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT i.id, j.correlation_id, j.ended_at FROM (VALUES {}) AS v JOIN instances i ON i.id = v.column1
             JOIN jobs j ON j.instance_pk = i.pk AND j.correlation_id = v.column2 WHERE {condition}",
            tuples(0, names.len(), 2)
        );
        let values =
            names.iter().flat_map(|name| values![name.instance_id.as_str(), name.correlation_id.as_str()]).collect();
        self.reader().all(sql, values).await
    }

    /// Gives a job that has not begun another time: `held` until then, or due at once when that is past (with `held`
    /// then saying what else it waits for). `false`: it has begun or ended, or a request waits for it.
    pub async fn move_job(
        &self,
        instance_pk: i64,
        job: JobId,
        send_at: Timestamp,
        held: Option<HeldReason>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let due_at = send_at.max(now);
        let held = if send_at > now { Some(HeldReason::Scheduled) } else { held };
        let state = if held.is_some() { JobState::Held } else { JobState::Queued };
        let values = values![state.as_str(), held.map(HeldReason::as_str), due_at.0, send_at.0, now.0, job.0];
        let sql = format!(
            "UPDATE jobs SET state = $1, held = $2, due_at = $3, order_at = $3, send_at = $4, updated_at = $5
             WHERE id = $6 AND {MOVABLE}"
        );
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let (sql, values) = (sql.clone(), values.clone());
                Box::pin(async move { Ok(tx.db.run(sql, values).await? > 0) })
            }))
        })
        .await
    }
}

fn name(row: &QueryResult) -> Result<JobName, StoreError> {
    Ok(JobName {
        instance_id: super::word("instance id", &row.try_get::<String>("", "id")?)?,
        correlation_id: super::word("correlation id", &row.try_get::<String>("", "correlation_id")?)?,
    })
}
