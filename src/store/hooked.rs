//! What hooks leave with an event or a delivery: their calls, what they store, the messages that they send.

use crate::deliveries::{self, Attempt, Delivery, DeliveryOutcome, Record};
use crate::hook_chains::{self, NewHookChain, StagedChain};
use crate::jobs::Accept;
use crate::kv::{self, KvWrite};
use crate::sql::{placeholders, values};
use crate::writer::{Op, Tx, work};
use crate::{Accepted, Durability, Job, NewJob, Store, StoreError};
use kero_domain::{DeliveryId, InstanceId, Timestamp};
use sea_orm::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What hooks leave with an event or a delivery; committed with it or not at all.
#[derive(Debug, Clone, Default)]
pub struct Hooked {
    /// `plugin/kind` of hooks that failed and were passed by, separated by commas.
    pub errors: Option<String>,
    pub chain: Option<NewHookChain>,
    pub kv: Vec<KvWrite>,
    pub sends: Vec<HookSend>,
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

impl Store {
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
        let left = Arc::new((request, self.stage(instance_pk, event_row, hooked).await?));
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let left = Arc::clone(&left);
                Box::pin(async move {
                    let (request, staged) = &*left;
                    let (request, new) = deliveries::fix_request(tx, instance_pk, delivery, request.clone()).await?;
                    let mut sent = Sent::default();
                    if new {
                        leave(tx, instance_pk, staged, &mut sent).await?;
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
        let left = Arc::new((attempt, request, self.stage(instance_pk, event_row, hooked).await?));
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let left = Arc::clone(&left);
                Box::pin(async move {
                    let (attempt, request, staged) = &*left;
                    let record = Record::new(&tx.sealer, instance_pk, id, attempt.clone(), outcome, request.clone());
                    let (mut record, _) = record?;
                    deliveries::record(tx, vec![&mut record]).await?;
                    let mut sent = Sent::default();
                    if record.answer.take() == Some(true) {
                        leave(tx, instance_pk, staged, &mut sent).await?;
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

    async fn stage(&self, instance_pk: i64, event_row: i64, hooked: Hooked) -> Result<Staged, StoreError> {
        self.know_sets(&hooked.chain).await?;
        self.stage_known(instance_pk, event_row, hooked).await
    }

    /// Prepares what hooks left for a transaction; the set of the chain is known.
    pub(crate) async fn stage_known(
        &self,
        instance_pk: i64,
        event_row: i64,
        hooked: Hooked,
    ) -> Result<Staged, StoreError> {
        let chain = hooked.chain.as_ref().map(|chain| self.stage_chain(instance_pk, event_row, chain)).transpose()?;
        let mut sends = Vec::with_capacity(hooked.sends.len());
        for send in hooked.sends {
            // an instance that is gone takes its events along
            let Some(instance_id) = self.id_of(send.job.instance_pk).await? else { continue };
            sends.push((send, instance_id));
        }
        Ok(Staged { errors: hooked.errors, chain, kv: hooked.kv, sends })
    }
}

const SENT: &str = "SELECT COUNT(*) AS n FROM hook_sends
                    WHERE instance_pk = $1 AND plugin = $2 AND chat = $3 AND created_at > $4";

fn count(row: Option<sea_orm::QueryResult>) -> Result<u64, StoreError> {
    let n = row.map(|row| row.try_get::<i64>("", "n")).transpose()?;
    Ok(u64::try_from(n.unwrap_or(0)).unwrap_or(0))
}

/// What hooks left, ready for the transaction.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) errors: Option<String>,
    pub(crate) chain: Option<StagedChain>,
    kv: Vec<KvWrite>,
    sends: Vec<(HookSend, InstanceId)>,
}

/// A delivery's request that is fixed.
#[derive(Debug, Clone)]
pub struct Shaped {
    pub request: Vec<u8>,
    pub jobs: Vec<Job>,
    pub over_quota: Vec<String>,
}

/// Writes what hooks left with a delivery.
async fn leave(tx: &Tx, instance_pk: i64, staged: &Staged, sent: &mut Sent) -> Result<(), StoreError> {
    apply(tx, instance_pk, staged, sent).await?;
    let chain: Vec<&StagedChain> = staged.chain.iter().collect();
    hook_chains::insert(tx, &chain).await
}

/// What came of a plugin's sends.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) jobs: Vec<Job>,
    /// The plugins whose quota was used up, once for each message left out.
    pub(crate) over_quota: Vec<String>,
}

/// Writes what hooks stored and sent with an event.
pub(crate) async fn apply(tx: &Tx, instance_pk: i64, staged: &Staged, sent: &mut Sent) -> Result<(), StoreError> {
    kv::apply(tx, instance_pk, &staged.kv).await?;
    for (send, instance_id) in &staged.sends {
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
