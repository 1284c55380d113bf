//! What is not kept for ever: finished jobs with their idempotency keys, and events with their deliveries.
//!
//! Rows go in small parts, oldest first, so that the writer is never held for long. A job stays as long as its
//! idempotency key is valid, because a repeated request is answered from it; an event stays until it was fanned out and
//! none of its deliveries is pending.

use crate::entity::jobs;
use crate::sql::{placeholders, values};
use crate::writer::{Op, work};
use crate::{Durability, Store, StoreError};
use kero_domain::{JobId, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Value};
use uuid::Uuid;

/// Rows looked at, and deleted at most, in one step.
const STEP: u64 = 500;

/// What to keep of an instance's rows; what neither member keeps may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Rows that came (and jobs that ended) before this moment go.
    pub since: Option<Timestamp>,
    /// Rows beyond the newest so many go.
    pub newest: Option<u64>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned<P> {
    pub deleted: u64,
    /// Where the next step begins; `None`: nothing older is left to look at.
    pub next: Option<P>,
}

/// When a row with an id of ours was made.
fn made(id: Uuid) -> Timestamp {
    let Some((secs, nanos)) = id.get_timestamp().map(|at| at.to_unix()) else { return Timestamp(i64::MAX) };
    Timestamp(i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1_000) + i64::from(nanos / 1_000_000))
}

impl Store {
    /// Deletes finished jobs of an instance, in order of acceptance, from behind `after` on.
    pub async fn prune_jobs(
        &self,
        instance_pk: i64,
        keep: Keep,
        after: Option<JobId>,
    ) -> Result<Pruned<JobId>, StoreError> {
        let find = || jobs::Entity::find().filter(jobs::Column::InstancePk.eq(instance_pk)).select_only();
        let edge = match keep.newest {
            Some(newest) => {
                let find = find().column(jobs::Column::Id).order_by_desc(jobs::Column::Id).offset(newest).limit(1);
                find.into_tuple::<Uuid>().one(self.reader()).await?
            }
            None => None,
        };
        let after = after.map_or(Uuid::nil(), |after| after.0);
        let rows: Vec<(Uuid, Option<i64>)> = find()
            .columns([jobs::Column::Id, jobs::Column::EndedAt])
            .filter(jobs::Column::Id.gt(after))
            .order_by_asc(jobs::Column::Id)
            .limit(STEP)
            .into_tuple()
            .all(self.reader())
            .await?;
        let over = |id: Uuid| edge.is_some_and(|edge| id <= edge);
        let old = |at: Timestamp| keep.since.is_some_and(|since| at < since);
        let fits = |(id, ended): &&(Uuid, Option<i64>)| {
            ended.is_some_and(|ended| over(*id) || (old(made(*id)) && old(Timestamp(ended))))
        };
        let going: Vec<Uuid> = rows.iter().filter(fits).map(|(id, _)| *id).collect();
        let last =
            rows.last().map(|(id, _)| *id).filter(|id| rows.len() as u64 == STEP && (over(*id) || old(made(*id))));
        let deleted = if going.is_empty() { 0 } else { self.delete_jobs(instance_pk, going).await? };
        Ok(Pruned { deleted, next: last.map(JobId) })
    }

    async fn delete_jobs(&self, instance_pk: i64, ids: Vec<Uuid>) -> Result<u64, StoreError> {
        let now = Timestamp::now().0;
        let list = placeholders(1, ids.len());
        let delete = format!(
            "DELETE FROM jobs WHERE id IN ({list}) AND ended_at IS NOT NULL AND NOT EXISTS
             (SELECT 1 FROM idempotency k WHERE k.job_id = jobs.id AND k.expires_at > $1)"
        );
        let keys = format!("DELETE FROM idempotency WHERE job_id IN ({list}) AND expires_at <= $1");
        let mut values = values![now];
        values.extend(ids.into_iter().map(Value::from));
        self.submit(instance_pk, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let (delete, keys, values) = (delete.clone(), keys.clone(), values.clone());
                Box::pin(async move {
                    let deleted = tx.db.run(delete, values.clone()).await?;
                    tx.db.run(keys, values).await?;
                    Ok(deleted)
                })
            }))
        })
        .await
    }

    /// Deletes events of an instance that were fanned out, in order of their numbers, from behind `after` on.
    pub async fn prune_events(
        &self,
        instance_pk: i64,
        keep: Keep,
        after: Option<i64>,
    ) -> Result<Pruned<i64>, StoreError> {
        let sql = "SELECT e.pk, e.id, e.seq, i.next_seq FROM events e JOIN instances i ON i.pk = e.instance_pk
                   WHERE e.instance_pk = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3";
        let rows = self.reader().all(sql, values![instance_pk, after.unwrap_or(0), STEP as i64]).await?;
        let (mut going, mut last) = (Vec::new(), None);
        for row in &rows {
            let (seq, next_seq): (i64, i64) = (row.try_get("", "seq")?, row.try_get("", "next_seq")?);
            let over = keep
                .newest
                .is_some_and(|newest| next_seq.saturating_sub(seq) > i64::try_from(newest).unwrap_or(i64::MAX));
            let old = keep.since.is_some_and(|since| row.try_get("", "id").is_ok_and(|id| made(id) < since));
            if over || old {
                going.push(row.try_get::<i64>("", "pk")?);
                last = Some(seq);
            }
        }
        let next = last.filter(|_| rows.len() as u64 == STEP);
        Ok(Pruned { deleted: self.delete_events(instance_pk, going).await?, next })
    }

    /// Deletes events that a hook dropped: they have no number.
    pub async fn prune_dropped_events(
        &self,
        instance_pk: i64,
        since: Timestamp,
        after: Option<i64>,
    ) -> Result<Pruned<i64>, StoreError> {
        let sql =
            "SELECT pk, id FROM events WHERE instance_pk = $1 AND fanout IN (2, 3) AND pk > $2 ORDER BY pk LIMIT $3";
        let rows = self.reader().all(sql, values![instance_pk, after.unwrap_or(0), STEP as i64]).await?;
        let mut going = Vec::new();
        for row in &rows {
            if made(row.try_get("", "id")?) < since {
                going.push(row.try_get::<i64>("", "pk")?);
            }
        }
        let next = going.last().copied().filter(|_| rows.len() as u64 == STEP);
        Ok(Pruned { deleted: self.delete_events(instance_pk, going).await?, next })
    }

    /// Deliveries and attempts go with their event.
    async fn delete_events(&self, instance_pk: i64, pks: Vec<i64>) -> Result<u64, StoreError> {
        if pks.is_empty() {
            return Ok(0);
        }
        let sql = format!(
            "DELETE FROM events WHERE pk IN ({}) AND fanout <> 0 AND NOT EXISTS
             (SELECT 1 FROM deliveries d WHERE d.event_pk = events.pk AND d.state = 'pending')",
            placeholders(0, pks.len())
        );
        let values: Vec<Value> = pks.into_iter().map(Value::from).collect();
        self.submit(instance_pk, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let (sql, values) = (sql.clone(), values.clone());
                Box::pin(async move { tx.db.run(sql, values).await })
            }))
        })
        .await
    }
}
