//! Reading jobs.

use crate::worker::ack_event;
use crate::{Gateway, errors::fault};
use kero_domain::{CorrelationId, Fault, FaultCode, InstanceId, JobId, JobState, Timestamp};
use kero_store::{Job, QueueCount};

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
        self.inner.fanout.dirty(job.instance_pk);
        self.inner.waiters.end(job.id, crate::intake::JobEnd::Cancelled);
        self.job(id, correlation).await
    }

    /// Rows by instance and state.
    pub async fn queue_counts(&self) -> Result<Vec<QueueCount>, Fault> {
        self.store().queue_counts().await.map_err(fault)
    }
}
