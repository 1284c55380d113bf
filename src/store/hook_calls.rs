//! What hooks did: their calls with their cost, and the messages that they sent.

use crate::deliveries::{self, Attempt, Delivery, DeliveryOutcome, Record};
use crate::jobs::Accept;
use crate::kv::{self, KvWrite};
use crate::seal::place;
use crate::sql::{few_shapes, placeholders, tuples, values};
use crate::writer::{Op, Tx, work};
use crate::{Accepted, Durability, Job, NewJob, Store, StoreError};
use kero_domain::{DeliveryId, EventId, InstanceId, Timestamp, text};
use sea_orm::Value;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What hooks leave with an event or a delivery; committed with it or not at all.
#[derive(Debug, Clone, Default)]
pub struct Hooked {
    /// `plugin/kind` of hooks that failed and were passed by, separated by commas.
    pub errors: Option<String>,
    pub calls: Vec<NewHookCall>,
    pub kv: Vec<KvWrite>,
    pub sends: Vec<HookSend>,
}

/// A call to keep.
#[derive(Debug, Clone)]
pub struct NewHookCall {
    pub plugin: String,
    pub version: String,
    pub delivery: Option<DeliveryId>,
    pub outcome: String,
    pub at: Timestamp,
    /// Of the engine's clock.
    pub ticks: u32,
    pub wall: Duration,
    pub memory_peak: u64,
    /// The note and the log; stored sealed.
    pub detail: Option<Json>,
}

/// A call that was kept.
#[derive(Debug, Clone)]
pub struct HookCall {
    /// Increasing with time.
    pub id: Uuid,
    pub plugin: String,
    pub version: String,
    pub instance_id: InstanceId,
    pub event: EventId,
    pub delivery: Option<DeliveryId>,
    pub outcome: String,
    pub at: Timestamp,
    pub ticks: u32,
    pub wall: Duration,
    pub memory_peak: u64,
    pub detail: Option<Json>,
}

/// A message of a plugin, to be accepted with the verdict.
#[derive(Debug, Clone)]
pub struct HookSend {
    pub plugin: String,
    pub job: NewJob,
    /// Messages of the plugin to the chat in a minute; what is over is left out.
    pub per_minute: u32,
}

/// The window of a plugin's quota.
const MINUTE_MS: i64 = 60_000;

fn detail_place(instance_pk: i64, id: Uuid) -> String {
    place("hook_calls.detail", instance_pk, id)
}

impl Store {
    /// Keeps calls whose verdict is not committed: tries that are repeated later.
    pub async fn record_hook_calls(
        &self,
        instance_pk: i64,
        event_row: i64,
        calls: Vec<NewHookCall>,
    ) -> Result<(), StoreError> {
        let calls = Arc::new(calls);
        self.submit(instance_pk, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let calls = Arc::clone(&calls);
                Box::pin(async move {
                    let rows: Vec<(i64, &NewHookCall)> = calls.iter().map(|call| (event_row, call)).collect();
                    insert_calls(tx, instance_pk, &rows).await
                })
            }))
        })
        .await
    }

    /// A plugin's calls, newest first, before the one with this id; only those that ended with one of `outcomes`,
    /// when there are any.
    pub async fn hook_calls(
        &self,
        plugin: &str,
        outcomes: &[String],
        event: Option<EventId>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<HookCall>, StoreError> {
        let mut sql = "SELECT c.*, e.id AS event_id FROM hook_calls c JOIN events e ON e.pk = c.event_pk
                       WHERE c.plugin = $1"
            .to_owned();
        let mut values = values![plugin];
        if !outcomes.is_empty() {
            sql.push_str(&format!(" AND c.outcome IN ({})", placeholders(values.len(), outcomes.len())));
            values.extend(outcomes.iter().map(|outcome| Value::from(outcome.clone())));
        }
        if let Some(event) = event {
            values.push(Value::from(event.0));
            sql.push_str(&format!(" AND e.id = ${}", values.len()));
        }
        if let Some(before) = before {
            values.push(Value::from(before));
            sql.push_str(&format!(" AND c.id < ${}", values.len()));
        }
        values.push(Value::from(i64::try_from(limit).unwrap_or(i64::MAX)));
        sql.push_str(&format!(" ORDER BY c.id DESC LIMIT ${}", values.len()));
        let mut calls = Vec::new();
        for row in self.reader().all(sql, values).await? {
            let instance_pk: i64 = row.try_get("", "instance_pk")?;
            let Some(instance_id) = self.id_of(instance_pk).await? else { continue };
            let id: Uuid = row.try_get("", "id")?;
            let detail = match row.try_get::<Option<Vec<u8>>>("", "detail")? {
                Some(sealed) => {
                    let bytes = self.sealer().open("call's detail", &detail_place(instance_pk, id), &sealed)?;
                    Some(serde_json::from_slice(&bytes).map_err(|_| StoreError::Corrupt("call's detail"))?)
                }
                None => None,
            };
            let unsigned = |name: &str| row.try_get::<i64>("", name).map(|it| u64::try_from(it).unwrap_or(0));
            calls.push(HookCall {
                id,
                plugin: row.try_get("", "plugin")?,
                version: row.try_get("", "version")?,
                instance_id,
                event: EventId(row.try_get("", "event_id")?),
                delivery: row.try_get::<Option<Uuid>>("", "delivery_id")?.map(DeliveryId),
                outcome: row.try_get("", "outcome")?,
                at: Timestamp(row.try_get("", "called_at")?),
                ticks: u32::try_from(row.try_get::<i32>("", "ticks")?).unwrap_or(0),
                wall: Duration::from_micros(unsigned("wall_us")?),
                memory_peak: unsigned("memory_peak")?,
                detail,
            });
        }
        Ok(calls)
    }

    /// Deletes calls before a moment, some thousand at a time; how many.
    pub async fn prune_hook_calls(&self, before: Timestamp) -> Result<u64, StoreError> {
        // ids begin with the time in milliseconds
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&u64::try_from(before.0).unwrap_or(0).to_be_bytes()[2..]);
        let bound = Uuid::from_bytes(bytes);
        self.submit(0, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let sql = "DELETE FROM hook_calls WHERE id IN (SELECT id FROM hook_calls WHERE id < $1 LIMIT 5000)";
                Box::pin(tx.db.run(sql, values![bound]))
            }))
        })
        .await
    }

    /// Fixes what every try of a delivery sends, together with what its hooks left. When it was fixed before, that
    /// counts, and nothing is left.
    pub async fn shape_delivery(
        &self,
        instance_pk: i64,
        delivery: DeliveryId,
        event_row: i64,
        request: Vec<u8>,
        hooked: Hooked,
    ) -> Result<Shaped, StoreError> {
        let request = deliveries::seal_request(self.sealer(), instance_pk, delivery, &request)?;
        let staged = self.staged_sends(&hooked.sends).await?;
        let left = Arc::new((request, hooked, staged));
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let left = Arc::clone(&left);
                Box::pin(async move {
                    let (request, hooked, staged) = &*left;
                    let (request, new) = deliveries::fix_request(tx, instance_pk, delivery, request.clone()).await?;
                    let mut sent = Sent::default();
                    if new {
                        leave(tx, instance_pk, event_row, hooked, staged, &mut sent).await?;
                    }
                    Ok(Shaped { request, jobs: sent.jobs, over_quota: sent.over_quota })
                })
            }))
        })
        .await
    }

    /// [`Store::record_attempt`], together with what the hooks that judged it left.
    pub async fn record_judged_attempt(
        &self,
        delivery: &Delivery,
        attempt: Attempt,
        outcome: DeliveryOutcome,
        request: Option<Vec<u8>>,
        hooked: Hooked,
    ) -> Result<(Vec<Job>, Vec<String>), StoreError> {
        let (instance_pk, event_row, id) = (delivery.event.instance_pk, delivery.event.row, delivery.id);
        let staged = self.staged_sends(&hooked.sends).await?;
        let left = Arc::new((attempt, request, hooked, staged));
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let left = Arc::clone(&left);
                Box::pin(async move {
                    let (attempt, request, hooked, staged) = &*left;
                    let record = Record::new(&tx.sealer, instance_pk, id, attempt.clone(), outcome, request.clone());
                    let (mut record, _) = record?;
                    deliveries::record(tx, vec![&mut record]).await?;
                    let mut sent = Sent::default();
                    if record.answer.take() == Some(true) {
                        leave(tx, instance_pk, event_row, hooked, staged, &mut sent).await?;
                    }
                    Ok((sent.jobs, sent.over_quota))
                })
            }))
        })
        .await
    }

    /// Puts a delivery off without a try.
    pub async fn hold_delivery(
        &self,
        instance_pk: i64,
        delivery: DeliveryId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.submit(instance_pk, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let sql = "UPDATE deliveries SET next_at = $1 WHERE id = $2 AND state = 'pending'";
                Box::pin(async move { tx.db.run(sql, values![until.0, delivery.0]).await.map(drop) })
            }))
        })
        .await
    }

    /// Which plugin sent these messages, by message id.
    pub async fn hook_senders(
        &self,
        instance_pk: i64,
        message_ids: &[String],
    ) -> Result<HashMap<String, String>, StoreError> {
        let mut senders = HashMap::new();
        for ids in message_ids.chunks(500) {
            let sql = format!(
                "SELECT message_id, plugin FROM hook_sends WHERE instance_pk = $1 AND message_id IN ({})",
                placeholders(1, ids.len())
            );
            let mut values = values![instance_pk];
            values.extend(ids.iter().map(|id| Value::from(id.clone())));
            for row in self.reader().all(sql, values).await? {
                senders.insert(row.try_get("", "message_id")?, row.try_get("", "plugin")?);
            }
        }
        Ok(senders)
    }

    /// Messages that a plugin sent to a chat since a moment.
    pub async fn hook_sends_since(
        &self,
        plugin: &str,
        instance_pk: i64,
        chat: &str,
        since: Timestamp,
    ) -> Result<u64, StoreError> {
        let row = self.reader().one(SENT, values![instance_pk, plugin, chat, since.0]).await?;
        count(row)
    }

    /// Prepares a plugin's send for a transaction.
    pub(crate) async fn staged_sends(&self, sends: &[HookSend]) -> Result<Vec<Staged>, StoreError> {
        let mut staged = Vec::with_capacity(sends.len());
        for send in sends {
            // an instance that is gone takes its events along
            let Some(instance_id) = self.id_of(send.job.instance_pk).await? else { continue };
            staged.push(Staged { send: send.clone(), instance_id });
        }
        Ok(staged)
    }
}

const SENT: &str = "SELECT COUNT(*) AS n FROM hook_sends
                    WHERE instance_pk = $1 AND plugin = $2 AND chat = $3 AND created_at > $4";

fn count(row: Option<sea_orm::QueryResult>) -> Result<u64, StoreError> {
    let n = row.map(|row| row.try_get::<i64>("", "n")).transpose()?;
    Ok(u64::try_from(n.unwrap_or(0)).unwrap_or(0))
}

/// A send that is ready for the transaction.
#[derive(Clone)]
pub(crate) struct Staged {
    send: HookSend,
    instance_id: InstanceId,
}

/// A delivery's request that is fixed.
#[derive(Debug, Clone)]
pub struct Shaped {
    pub request: Vec<u8>,
    pub jobs: Vec<Job>,
    pub over_quota: Vec<String>,
}

/// Writes what hooks left with a delivery.
async fn leave(
    tx: &Tx,
    instance_pk: i64,
    event_row: i64,
    hooked: &Hooked,
    staged: &[Staged],
    sent: &mut Sent,
) -> Result<(), StoreError> {
    apply(tx, instance_pk, &hooked.kv, staged, sent).await?;
    let calls: Vec<(i64, &NewHookCall)> = hooked.calls.iter().map(|call| (event_row, call)).collect();
    insert_calls(tx, instance_pk, &calls).await
}

/// What came of a plugin's sends.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) jobs: Vec<Job>,
    /// The plugins whose quota was used up, once for each message left out.
    pub(crate) over_quota: Vec<String>,
}

/// Writes what hooks left with an event.
pub(crate) async fn apply(
    tx: &Tx,
    instance_pk: i64,
    kv: &[KvWrite],
    sends: &[Staged],
    sent: &mut Sent,
) -> Result<(), StoreError> {
    kv::apply(tx, instance_pk, kv).await?;
    for Staged { send, instance_id } in sends {
        let now = send.job.created_at;
        let values = values![instance_pk, send.plugin.clone(), send.job.chat.clone(), now.0 - MINUTE_MS];
        // again here, where nothing can come between: another chat's event may have used the quota up
        if count(tx.db.one(SENT, values).await?)? >= u64::from(send.per_minute) {
            sent.over_quota.push(send.plugin.clone());
            continue;
        }
        let (mut accept, _) = Accept::new(&tx.sealer, send.job.clone(), instance_id.clone())?;
        crate::jobs::accept(tx, vec![&mut accept]).await?;
        // a taken correlation id is this very send, made before
        let Some(Accepted::New(job)) = accept.answer.take() else { continue };
        let sql = "INSERT INTO hook_sends (job_id, plugin, instance_pk, chat, message_id, created_at)
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let values =
            values![job.id.0, send.plugin.clone(), instance_pk, job.chat.clone(), job.message_id.as_str(), now.0];
        tx.db.run(sql, values).await?;
        sent.jobs.push(job);
    }
    Ok(())
}

/// Writes calls: (event, call).
pub(crate) async fn insert_calls(tx: &Tx, instance_pk: i64, calls: &[(i64, &NewHookCall)]) -> Result<(), StoreError> {
    const WIDTH: usize = 12;
    // short enough for few shapes
    for calls in calls.chunks(256) {
        let mut values = Vec::with_capacity(calls.len() * WIDTH);
        for (event_row, call) in calls {
            let id = Uuid::now_v7();
            let detail = match &call.detail {
                Some(detail) => {
                    let mut detail = detail.clone();
                    text::storable_json(&mut detail);
                    Some(tx.sealer.seal(&detail_place(instance_pk, id), detail.to_string().as_bytes())?)
                }
                None => None,
            };
            values.extend(values![
                id,
                call.plugin.clone(),
                call.version.clone(),
                instance_pk,
                *event_row,
                call.delivery.map(|delivery| delivery.0),
                call.outcome.clone(),
                call.at.0,
                i32::try_from(call.ticks).unwrap_or(i32::MAX),
                i64::try_from(call.wall.as_micros()).unwrap_or(i64::MAX),
                i64::try_from(call.memory_peak).unwrap_or(i64::MAX),
                detail
            ]);
        }
        let count = few_shapes(&mut values, calls.len(), WIDTH);
        let sql = format!(
            "INSERT INTO hook_calls (id, plugin, version, instance_pk, event_pk, delivery_id, outcome, called_at, ticks,
             wall_us, memory_peak, detail) VALUES {} ON CONFLICT DO NOTHING",
            tuples(0, count, WIDTH)
        );
        tx.db.run(sql, values).await?;
    }
    Ok(())
}
