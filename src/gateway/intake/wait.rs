//! Requests that wait for the end of a job.

use super::{SendReply, reply};
use crate::Gateway;
use kero_domain::{Fault, FaultCode, JobId, JobState};
use kero_store::Job;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Sent,
    Failed { code: String, error: String },
    Cancelled,
}

impl JobEnd {
    /// The end that a stored job shows, if it ended.
    pub(crate) fn of(job: &Job) -> Option<Self> {
        match job.state {
            JobState::Sent | JobState::Delivered | JobState::Read | JobState::Played => Some(Self::Sent),
            JobState::Cancelled => Some(Self::Cancelled),
            JobState::Failed => Some(Self::Failed {
                code: job.error_code.clone().unwrap_or_else(|| "failed".to_owned()),
                error: job.error.clone().unwrap_or_default(),
            }),
            JobState::Queued | JobState::Held | JobState::Sending => None,
        }
    }

    pub(crate) fn answer(self, job: &Job) -> Result<SendReply, Fault> {
        match self {
            Self::Sent => Ok(reply(job, false)),
            Self::Cancelled => Err(FaultCode::JobCancelled.into()),
            Self::Failed { code, error } => {
                let fault = match code.as_str() {
                    "recipient-not-on-whatsapp" => Fault::new(FaultCode::RecipientNotOnWhatsApp),
                    "instance-logged-out" => Fault::new(FaultCode::InstanceNotConnected),
                    _ => Fault::new(FaultCode::SendRefused).with("reason", code),
                };
                Err(fault.with_detail(error).with("message_id", job.message_id.as_str()))
            }
        }
    }
}

/// Who waits for which job.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Arc<Mutex<HashMap<JobId, watch::Sender<Option<JobEnd>>>>>,
}

/// One waiting request; dropping it ends the wait.
pub(crate) struct Waiting {
    job: JobId,
    end: watch::Receiver<Option<JobEnd>>,
    waiting: Arc<Mutex<HashMap<JobId, watch::Sender<Option<JobEnd>>>>>,
}

impl Waiters {
    pub(crate) fn register(&self, job: JobId) -> Waiting {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let end = waiting.entry(job).or_insert_with(|| watch::channel(None).0).subscribe();
        Waiting { job, end, waiting: self.waiting.clone() }
    }

    /// Tells everybody who waits for `job`.
    pub(crate) fn end(&self, job: JobId, end: JobEnd) {
        if let Some(sender) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&job) {
            sender.send_replace(Some(end));
        }
    }
}

impl Waiting {
    pub(crate) async fn end(&mut self) -> JobEnd {
        match self.end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            // the sender lives as long as this entry; without it nobody can tell any more
            _ => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(&self.job).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.job);
        }
    }
}

/// A synchronous request that may be dropped while it waits: its job then reports by `message_ack`.
pub(crate) struct Orphan {
    gateway: Gateway,
    job: Option<JobId>,
}

impl Orphan {
    pub(crate) fn new(gateway: &Gateway, job: &Job) -> Self {
        Self { gateway: gateway.clone(), job: Some(job.id) }
    }

    pub(crate) fn settled(&mut self) {
        self.job = None;
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            let gateway = self.gateway.clone();
            tokio::spawn(async move {
                if let Err(error) = gateway.store().mark_asynchronous(job).await {
                    tracing::warn!(%job, error = &error as &dyn std::error::Error, "an abandoned send stays without message_ack");
                }
            });
        }
    }
}
