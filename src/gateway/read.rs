//! Reading jobs.

use crate::load::Rates;
use crate::worker::{LaneKey, ack_event};
use crate::{Gateway, errors::fault};
use kero_domain::{CorrelationId, Fault, FaultCode, InstanceId, JobId, JobState, Timestamp};
use kero_store::{Job, QueueCount};
use std::collections::BTreeMap;

impl Gateway {
    /// Newest first; `before` is the last job of the page before.
    pub async fn jobs(
        &self,
        id: &InstanceId,
        states: &[JobState],
        before: Option<JobId>,
        limit: u64,
    ) -> Result<Vec<Job>, Fault> {
        let instance = self.instance(id).await?;
        self.store().jobs_page(instance.pk, states, before, limit).await.map_err(fault)
    }

    pub async fn job(&self, id: &InstanceId, correlation: &CorrelationId) -> Result<Job, Fault> {
        let instance = self.instance(id).await?;
        self.store().job(instance.pk, correlation).await.map_err(fault)?.ok_or_else(|| FaultCode::JobNotFound.into())
    }

    /// Cancels a job that has not begun. Its `message_ack` says `cancelled`.
    pub async fn cancel_job(&self, id: &InstanceId, correlation: &CorrelationId) -> Result<Job, Fault> {
        let job = self.job(id, correlation).await?;
        let (code, error) = ("cancelled", "Cancelled on request before it was sent.");
        let now = Timestamp::now();
        let event = ack_event(&job, JobState::Cancelled, Some((code, error)), job.attempts, now);
        let cancelled = self.store().cancel_job(job.id, code, error, Some(event), now).await.map_err(fault)?;
        if !cancelled {
            return Err(FaultCode::JobNotCancellable.into());
        }
        self.inner.load.cancelled(job.instance_pk);
        if let Some(handle) = self.inner.instances.by_pk(job.instance_pk) {
            // it may have been what the chat's next one waited for
            let key = LaneKey::of(&job);
            handle.lane.forget(&key);
            handle.lane.wake(key);
        }
        self.inner.fanout.dirty(job.instance_pk);
        self.inner.waiters.end(job.id, crate::intake::JobEnd::Cancelled);
        self.job(id, correlation).await
    }

    /// What waits and how fast it goes.
    pub async fn queue_view(&self) -> Result<QueueView, Fault> {
        let counts = self.store().queue_counts().await.map_err(fault)?;
        let mut instances: BTreeMap<InstanceId, InstanceQueue> = BTreeMap::new();
        for (pk, rates) in self.inner.load.rates() {
            if let Some(handle) = self.inner.instances.by_pk(pk) {
                instances.entry(handle.id.clone()).or_default().rates = rates;
            }
        }
        for count in &counts {
            let queue = instances.entry(count.instance_id.clone()).or_default();
            queue.depth += count.count;
            queue.oldest = Some(queue.oldest.map_or(count.oldest, |oldest| oldest.min(count.oldest)));
            if let Some(reason) = count.held {
                *queue.held.entry(reason.as_str()).or_default() += count.count;
            }
        }
        Ok(QueueView { counts, instances })
    }
}

/// What waits: rows by instance and state, and summed up by instance.
#[derive(Debug, Clone)]
pub struct QueueView {
    pub counts: Vec<QueueCount>,
    pub instances: BTreeMap<InstanceId, InstanceQueue>,
}

/// The queue of one instance.
#[derive(Debug, Clone, Default)]
pub struct InstanceQueue {
    /// Jobs that have not ended.
    pub depth: u64,
    /// Of these, the held ones by reason.
    pub held: BTreeMap<&'static str, u64>,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
    pub rates: Rates,
}
