//! Accepting: one insert for all sends of a group, which no duplicate can make fail.

use super::{Accepted, Job, NewJob};
use crate::entity::{idempotency, jobs};
use crate::seal::Sealer;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::writer::{Answer, Op, Tx};
use crate::{Store, StoreError};
use kero_domain::{ApiKeyId, InstanceId, JobId, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Value};
use std::collections::{HashMap, HashSet};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The command.
pub(crate) struct Accept {
    row: jobs::Model,
    key: Option<idempotency::Model>,
    /// What the caller gets when the row is written.
    job: Job,
    pub answer: Answer<Accepted>,
}

impl Accept {
    /// The command, and where its answer arrives.
    pub(crate) fn new(
        sealer: &Sealer,
        job: NewJob,
        instance_id: InstanceId,
    ) -> Result<(Self, oneshot::Receiver<Result<Accepted, StoreError>>), StoreError> {
        let row = super::row(sealer, &job)?;
        let key = job.idempotency.map(|key| idempotency::Model {
            api_key_id: key.api_key.0,
            idem_key: key.key,
            instance_pk: job.instance_pk,
            job_id: job.id.0,
            body_hash: key.body_hash.to_vec(),
            expires_at: key.expires_at.0,
        });
        let job = Job {
            id: job.id,
            instance_pk: job.instance_pk,
            instance_id,
            correlation_id: job.correlation_id,
            message_id: job.message_id,
            chat: job.chat,
            priority: job.priority,
            content: job.content,
            proto: None,
            state: job.state,
            held: job.held,
            due_at: Timestamp(row.due_at),
            send_at: job.send_at,
            order_at: Timestamp(row.order_at),
            attempts: 0,
            attempts_before: 0,
            retries: 0,
            asynchronous: job.asynchronous,
            error_code: None,
            error: None,
            request_id: job.request_id,
            created_at: job.created_at,
            updated_at: job.created_at,
            ended_at: None,
            discarded_at: None,
            receipt: None,
        };
        let (answer, wait) = Answer::new();
        Ok((Self { row, key, job, answer }, wait))
    }
}

impl Store {
    /// Accepts a send. It is durable at the configured level when this returns.
    pub async fn accept_job(&self, job: NewJob) -> Result<Accepted, StoreError> {
        let Some(instance_id) = self.id_of(job.instance_pk).await? else { return Ok(Accepted::InstanceGone) };
        let lane = job.instance_pk;
        let (mut command, _) = Accept::new(self.sealer(), job, instance_id)?;
        self.submit(lane, None, self.configured(), |answer| {
            command.answer = answer;
            Op::Accept(Box::new(command))
        })
        .await
    }

    /// Whether an idempotency key names a send now.
    pub async fn knows_key(&self, api_key: ApiKeyId, key: &str, now: Timestamp) -> Result<bool, StoreError> {
        let found = idempotency::Entity::find_by_id((api_key.0, key.to_owned())).one(self.reader()).await?;
        Ok(found.is_some_and(|found| found.expires_at > now.0))
    }

    /// Frees idempotency keys that expired; how many.
    pub async fn prune_idempotency(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.submit(0, None, crate::Durability::Process, |answer| {
            Op::Run(crate::writer::work(answer, move |tx| {
                Box::pin(tx.db.run("DELETE FROM idempotency WHERE expires_at <= $1", values![now.0]))
            }))
        })
        .await
    }
}

/// Runs the accepts of a group. Sends that could meet each other (one idempotency key, one correlation id) take turns.
pub(crate) async fn accept(tx: &Tx, mut waiting: Vec<&mut Accept>) -> Result<(), StoreError> {
    // a job of an instance that is gone makes the group's insert fail
    if tx.alone {
        let alive = instances(tx, &waiting).await?;
        waiting.retain_mut(|accept| {
            let gone = !alive.contains(&accept.row.instance_pk);
            if gone {
                accept.answer.set(Accepted::InstanceGone);
            }
            !gone
        });
    }
    while !waiting.is_empty() {
        let mut keys = HashSet::new();
        let mut correlations = HashSet::new();
        let (mut turn, mut later) = (Vec::new(), Vec::new());
        for accept in waiting {
            let key = accept.key.as_ref().map(|key| (key.api_key_id, key.idem_key.clone()));
            let correlation = (accept.row.instance_pk, accept.row.correlation_id.clone());
            if key.as_ref().is_some_and(|key| keys.contains(key)) || correlations.contains(&correlation) {
                later.push(accept);
            } else {
                keys.extend(key);
                correlations.insert(correlation);
                turn.push(accept);
            }
        }
        take_turn(tx, turn).await?;
        waiting = later;
    }
    Ok(())
}

async fn take_turn(tx: &Tx, turn: Vec<&mut Accept>) -> Result<(), StoreError> {
    let claimed = claim_keys(tx, &turn).await?;
    let mut inserting = Vec::new();
    for accept in turn {
        let Some(key) = &accept.key else {
            inserting.push(accept);
            continue;
        };
        if claimed.contains(&accept.row.id) {
            inserting.push(accept);
            continue;
        }
        let holder = idempotency::Entity::find_by_id((key.api_key_id, key.idem_key.clone())).one(&tx.db).await?;
        let Some(holder) = holder else { return Err(StoreError::Corrupt("idempotency key")) };
        if holder.job_id == accept.row.id {
            // our own claim, committed although the commit's answer was lost
            inserting.push(accept);
        } else if holder.body_hash != key.body_hash || holder.instance_pk != accept.row.instance_pk {
            accept.answer.set(Accepted::IdempotencyMismatch);
        } else {
            let found = jobs::Entity::find_by_id(holder.job_id).one(&tx.db).await?;
            let found = found.ok_or(StoreError::Corrupt("idempotency key"))?;
            let job = super::job(&tx.sealer, found, accept.job.instance_id.clone())?;
            accept.answer.set(Accepted::Duplicate(job));
        }
    }
    insert(tx, inserting).await
}

async fn instances(tx: &Tx, accepts: &[&mut Accept]) -> Result<HashSet<i64>, StoreError> {
    let wanted: HashSet<i64> = accepts.iter().map(|accept| accept.row.instance_pk).collect();
    let sql = format!("SELECT pk FROM instances WHERE pk IN ({})", placeholders(0, wanted.len()));
    let rows = tx.db.all(sql, wanted.into_iter().map(Value::from).collect()).await?;
    rows.iter().map(|row| Ok(row.try_get("", "pk")?)).collect()
}

/// The jobs whose idempotency key was free or expired, and is theirs now.
async fn claim_keys(tx: &Tx, accepts: &[&mut Accept]) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<&idempotency::Model> = accepts.iter().filter_map(|accept| accept.key.as_ref()).collect();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let mut values = values![Timestamp::now().0];
    for key in &keys {
        values.extend(values![
            key.api_key_id,
            key.idem_key.clone(),
            key.instance_pk,
            key.job_id,
            key.body_hash.clone(),
            key.expires_at
        ]);
    }
    let sql = format!(
        "INSERT INTO idempotency (api_key_id, idem_key, instance_pk, job_id, body_hash, expires_at) VALUES {}
         ON CONFLICT (api_key_id, idem_key) DO UPDATE SET instance_pk = excluded.instance_pk, job_id = excluded.job_id,
         body_hash = excluded.body_hash, expires_at = excluded.expires_at WHERE idempotency.expires_at <= $1
         RETURNING job_id",
        tuples(1, keys.len(), 6)
    );
    tx.db.all(sql, values).await?.iter().map(|row| Ok(row.try_get("", "job_id")?)).collect()
}

async fn insert(tx: &Tx, accepts: Vec<&mut Accept>) -> Result<(), StoreError> {
    if accepts.is_empty() {
        return Ok(());
    }
    let mut values = Vec::with_capacity(accepts.len() * 16);
    for accept in &accepts {
        let row = &accept.row;
        values.extend(values![
            row.id,
            row.instance_pk,
            row.correlation_id.clone(),
            row.message_id.clone(),
            row.chat.clone(),
            row.priority.clone(),
            row.content.clone(),
            row.state.clone(),
            row.held.clone(),
            row.due_at,
            row.send_at,
            row.order_at,
            row.attempts,
            row.asynchronous,
            row.request_id.clone(),
            row.created_at,
            row.updated_at
        ]);
    }
    let rows = few_shapes(&mut values, accepts.len(), 17);
    let sql = format!(
        "INSERT INTO jobs (id, instance_pk, correlation_id, message_id, chat, priority, content, state, held, due_at,
         send_at, order_at, attempts, asynchronous, request_id, created_at, updated_at) VALUES {}
         ON CONFLICT DO NOTHING",
        tuples(0, rows, 17)
    );
    if tx.db.run(sql, values).await? < accepts.len() as u64 {
        return answer_some(tx, accepts).await;
    }
    for accept in accepts {
        accept.answer.set(Accepted::New(accept.job.clone()));
    }
    Ok(())
}

/// The correlation id of some was taken, be it by themselves: the first try's commit may have gone through unheard.
async fn answer_some(tx: &Tx, accepts: Vec<&mut Accept>) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = accepts.iter().map(|accept| accept.row.id).collect();
    let found = jobs::Entity::find().filter(jobs::Column::Id.is_in(ids)).all(&tx.db).await?;
    let mut found: HashMap<JobId, jobs::Model> = found.into_iter().map(|row| (JobId(row.id), row)).collect();
    for accept in accepts {
        if let Some(row) = found.remove(&accept.job.id) {
            let job = super::job(&tx.sealer, row, accept.job.instance_id.clone())?;
            accept.answer.set(Accepted::New(job));
            continue;
        }
        if accept.key.is_some() {
            // nothing was accepted, so the key stays free
            tx.db.run("DELETE FROM idempotency WHERE job_id = $1", values![accept.row.id]).await?;
        }
        accept.answer.set(Accepted::CorrelationTaken);
    }
    Ok(())
}
