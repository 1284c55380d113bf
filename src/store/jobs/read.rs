//! Reading jobs.

use super::{DueJob, Job, LaneAhead, NextJob, QueueCount, QueuedJob, word};
use crate::entity::jobs::{Column, Entity, Model};
use crate::sql::values;
use crate::{Store, StoreError};
use kero_domain::{CorrelationId, HeldReason, JobId, JobState, Priority, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use uuid::Uuid;

/// Rows of one instance that the polling pass looks at: enough to see past a lane with many due jobs.
const WINDOW: i64 = 256;

/// The first unfinished jobs of a lane (`$1` instance, `$2` chat, `$3` class), in order. SQLite prepares a statement
/// whose limit is a parameter anew each time that it is run.
pub(crate) fn lane(limit: u64) -> String {
    format!(
        "SELECT * FROM jobs WHERE instance_pk = $1 AND chat = $2 AND priority = $3 AND ended_at IS NULL
         ORDER BY order_at, id LIMIT {limit}"
    )
}

/// Jobs whose intent is stored. The literal lets both databases see that the partial index holds them.
pub(crate) fn sending(instance_pk: i64) -> Select<Entity> {
    Entity::find()
        .filter(Column::InstancePk.eq(instance_pk))
        .filter(Expr::cust("state = 'sending'"))
        .order_by_asc(Column::Id)
}

/// The polling pass: `$1` now, `$2` rows to look at per instance, `$3` lanes.
pub(crate) fn due(postgres: bool) -> String {
    // as many as one instance may show, from an index in which offline instances have nothing
    let due = "SELECT id, instance_pk, chat, priority, due_at FROM jobs
               WHERE jobs.instance_pk = i.pk AND ended_at IS NULL AND state <> 'sending'
                 AND (held IS NULL OR held <> 'offline') AND due_at <= $1 ORDER BY due_at, id LIMIT $2";
    let from = if postgres {
        format!("instances i CROSS JOIN LATERAL ({due}) j")
    } else {
        // SQLite has no LATERAL; its CROSS JOIN keeps the order of the tables
        format!("instances i CROSS JOIN jobs j WHERE j.id IN (SELECT id FROM ({due}))")
    };
    format!(
        "SELECT id, instance_pk, chat, priority FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY instance_pk ORDER BY due_at, id) AS turn FROM (
             SELECT j.id, j.instance_pk, j.chat, j.priority, j.due_at,
               ROW_NUMBER() OVER (PARTITION BY j.instance_pk, j.chat, j.priority ORDER BY j.due_at, j.id) AS place
             FROM {from}) AS due WHERE place = 1) AS lanes
         ORDER BY turn, due_at LIMIT $3"
    )
}

impl Store {
    /// The job of a correlation id.
    pub async fn job(&self, instance_pk: i64, correlation_id: &CorrelationId) -> Result<Option<Job>, StoreError> {
        let find = Entity::find()
            .filter(Column::InstancePk.eq(instance_pk))
            .filter(Column::CorrelationId.eq(correlation_id.as_str()));
        self.read_job(find.one(self.reader()).await?).await
    }

    pub async fn job_by_id(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read_job(Entity::find_by_id(id.0).one(self.reader()).await?).await
    }

    /// The newest job that has this WhatsApp message id.
    pub async fn job_by_message_id(&self, instance_pk: i64, id: &str) -> Result<Option<Job>, StoreError> {
        let find = Entity::find()
            .filter(Column::InstancePk.eq(instance_pk))
            .filter(Column::MessageId.eq(id))
            .order_by_desc(Column::Id);
        self.read_job(find.one(self.reader()).await?).await
    }

    /// The oldest unfinished job of a lane, by `send_at` or else the moment of acceptance. A job held for being
    /// offline may be run: whoever asks is connected.
    pub async fn next_job(
        &self,
        instance_pk: i64,
        chat: &str,
        priority: Priority,
        now: Timestamp,
    ) -> Result<NextJob, StoreError> {
        Ok(self.next_jobs(instance_pk, chat, priority, now, 1).await?.next)
    }

    /// The same with what may follow it, at most `limit` jobs in all.
    pub async fn next_jobs(
        &self,
        instance_pk: i64,
        chat: &str,
        priority: Priority,
        now: Timestamp,
        limit: u64,
    ) -> Result<LaneAhead, StoreError> {
        let statement = self.reader().statement(lane(limit), values![instance_pk, chat, priority.as_str()]);
        let rows = Entity::find().from_raw_sql(statement).all(self.reader()).await?;
        let mut whole = (rows.len() as u64) < limit;
        let mut jobs = self.read_jobs(rows).await?.into_iter();
        let next = match jobs.next() {
            None => NextJob::Empty,
            Some(job) => match (job.state, job.held) {
                (JobState::Sending, _) => NextJob::InFlight(job),
                (JobState::Held, Some(HeldReason::Offline | HeldReason::Rate)) => NextJob::Run(job),
                _ if job.due_at <= now => NextJob::Run(job),
                _ => NextJob::Wait(job.due_at),
            },
        };
        let mut behind = Vec::new();
        for job in jobs {
            if job.state != JobState::Queued || job.due_at > now {
                whole = false;
                break;
            }
            behind.push(job);
        }
        Ok(LaneAhead { next, behind, whole })
    }

    /// The lanes of an instance that have unfinished jobs.
    pub async fn lane_keys(&self, instance_pk: i64) -> Result<Vec<(String, Priority)>, StoreError> {
        let sql = "SELECT DISTINCT chat, priority FROM jobs WHERE instance_pk = $1 AND ended_at IS NULL";
        let rows = self.reader().all(sql, values![instance_pk]).await?;
        rows.iter()
            .map(|row| Ok((row.try_get("", "chat")?, word("priority", &row.try_get::<String>("", "priority")?)?)))
            .collect()
    }

    /// Lanes with a job that is queued, or held and due; the oldest first, instances taking turns. A lane whose head
    /// is being sent may be among them. Jobs held for being offline are not: connecting takes those up.
    pub async fn due_jobs(&self, now: Timestamp, limit: u64) -> Result<Vec<DueJob>, StoreError> {
        let sql = due(self.reader().is_postgres());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.reader().all(sql, values![now.0, WINDOW, limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(DueJob {
                    job: JobId(row.try_get::<Uuid>("", "id")?),
                    instance_pk: row.try_get("", "instance_pk")?,
                    chat: row.try_get("", "chat")?,
                    priority: word("priority", &row.try_get::<String>("", "priority")?)?,
                })
            })
            .collect()
    }

    /// When the next job that is held for a moment becomes due; `None` without any.
    pub async fn next_due_job(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT MIN(due_at) AS due_at FROM jobs WHERE ended_at IS NULL AND state <> 'sending'
                   AND (held IS NULL OR held <> 'offline') AND due_at > $1";
        let Some(row) = self.reader().one(sql, values![after.0]).await? else { return Ok(None) };
        Ok(row.try_get::<Option<i64>>("", "due_at")?.map(Timestamp))
    }

    /// Jobs whose intent is stored and whose outcome is unknown.
    pub async fn in_doubt_jobs(&self, instance_pk: i64) -> Result<Vec<Job>, StoreError> {
        let mut rows = sending(instance_pk).all(self.reader()).await?;
        let held = Entity::find()
            .filter(Column::InstancePk.eq(instance_pk))
            .filter(Column::EndedAt.is_null())
            .filter(Column::Held.eq(HeldReason::InDoubt.as_str()))
            .order_by_asc(Column::Id);
        rows.extend(held.all(self.reader()).await?);
        self.read_jobs(rows).await
    }

    /// Jobs in any of `states` (none: all), newest first, older than `before`.
    pub async fn jobs_page(
        &self,
        instance_pk: i64,
        states: &[JobState],
        before: Option<JobId>,
        limit: u64,
    ) -> Result<Vec<Job>, StoreError> {
        let mut find = Entity::find().filter(Column::InstancePk.eq(instance_pk));
        if !states.is_empty() {
            find = find.filter(Column::State.is_in(states.iter().map(|state| state.as_str())));
        }
        if let Some(before) = before {
            find = find.filter(Column::Id.lt(before.0));
        }
        let rows = find.order_by_desc(Column::Id).limit(limit).all(self.reader()).await?;
        self.read_jobs(rows).await
    }

    /// Asynchronous jobs of an instance that are `queued`, by due time, after (due time, id) `after`: what the queue's
    /// list is compared with. Names and places only.
    pub async fn queued_jobs(
        &self,
        instance_pk: i64,
        after: (Timestamp, JobId),
        limit: u64,
    ) -> Result<Vec<QueuedJob>, StoreError> {
        let sql = "SELECT id, correlation_id, chat, priority, due_at FROM jobs
                   WHERE instance_pk = $1 AND ended_at IS NULL AND state <> 'sending'
                     AND (held IS NULL OR held <> 'offline') AND (due_at, id) > ($2, $3)
                     AND state = 'queued' AND asynchronous ORDER BY due_at, id LIMIT $4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.reader().all(sql, values![instance_pk, after.0.0, after.1.0, limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(QueuedJob {
                    job: JobId(row.try_get("", "id")?),
                    correlation_id: word("correlation id", &row.try_get::<String>("", "correlation_id")?)?,
                    chat: row.try_get("", "chat")?,
                    priority: word("priority", &row.try_get::<String>("", "priority")?)?,
                    due_at: Timestamp(row.try_get("", "due_at")?),
                })
            })
            .collect()
    }

    /// Unfinished jobs by instance and state.
    pub async fn queue_counts(&self) -> Result<Vec<QueueCount>, StoreError> {
        let sql = "SELECT i.pk, i.id, j.state, j.held, COUNT(*) AS jobs, MIN(j.created_at) AS oldest
                   FROM jobs j JOIN instances i ON i.pk = j.instance_pk WHERE j.ended_at IS NULL
                   GROUP BY i.pk, i.id, j.state, j.held ORDER BY i.id, j.state, j.held";
        let rows = self.reader().all(sql, Vec::new()).await?;
        rows.iter()
            .map(|row| {
                let held: Option<String> = row.try_get("", "held")?;
                Ok(QueueCount {
                    instance_pk: row.try_get("", "pk")?,
                    instance_id: word("instance id", &row.try_get::<String>("", "id")?)?,
                    state: word("job state", &row.try_get::<String>("", "state")?)?,
                    held: held.as_deref().map(|text| word("held reason", text)).transpose()?,
                    count: u64::try_from(row.try_get::<i64>("", "jobs")?).unwrap_or(0),
                    oldest: Timestamp(row.try_get("", "oldest")?),
                })
            })
            .collect()
    }

    /// The owner of a job; `None` when it is gone.
    pub(crate) async fn instance_of_job(&self, job: JobId) -> Result<Option<i64>, StoreError> {
        let find = Entity::find_by_id(job.0).select_only().column(Column::InstancePk).into_tuple::<i64>();
        Ok(find.one(self.reader()).await?)
    }

    async fn read_job(&self, row: Option<Model>) -> Result<Option<Job>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        // a row whose instance is gone is going, too
        let Some(id) = self.id_of(row.instance_pk).await? else { return Ok(None) };
        super::job(self.sealer(), row, id).map(Some)
    }

    pub(super) async fn read_jobs(&self, rows: Vec<Model>) -> Result<Vec<Job>, StoreError> {
        let mut jobs = Vec::with_capacity(rows.len());
        for row in rows {
            jobs.extend(self.read_job(Some(row)).await?);
        }
        Ok(jobs)
    }
}
