//! Dead letters: sends that failed, to look at, to try again, or to put away.
//!
//! A retried dead letter is a new promise: its end is told by one more `message_ack` under the same correlation id, and
//! `attempts` goes on counting. It keeps its message id and its content, so that a recipient who got it after all sees
//! it once.

use crate::{Gateway, crash, errors::fault, queue::DeadLetter};
use kero_domain::{CorrelationId, Fault, FaultCode, HeldReason, InstanceId, InstanceStatus, JobId, Timestamp};
use kero_store::{DeadFilter, Job};

/// Letters retried in one transaction.
const BATCH: u64 = 200;

/// Which dead letters; an empty one means all.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    pub code: Option<String>,
    /// The JID they were addressed to.
    pub chat: Option<String>,
    /// Failed at this moment or later.
    pub since: Option<Timestamp>,
    /// Failed before this moment.
    pub until: Option<Timestamp>,
}

impl LetterFilter {
    fn of(&self, instance_pk: Option<i64>) -> DeadFilter {
        let Self { code, chat, since, until } = self.clone();
        DeadFilter { instance_pk, code, chat, since, until }
    }
}

/// What a retry by filter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried {
    pub retried: u64,
    /// Letters that the filter still names.
    pub remaining: u64,
}

impl Gateway {
    /// The last accepted first; `before` is the last one of the page before. Without an instance: of all.
    pub async fn dead_letters(
        &self,
        id: Option<&InstanceId>,
        filter: &LetterFilter,
        before: Option<JobId>,
        limit: u64,
    ) -> Result<Vec<Job>, Fault> {
        let pk = match id {
            Some(id) => Some(self.instance(id).await?.pk),
            None => None,
        };
        self.store().dead_letters(&filter.of(pk), before, limit).await.map_err(fault)
    }

    /// Makes a dead letter a job again.
    pub async fn retry_dead_letter(&self, id: &InstanceId, correlation: &CorrelationId) -> Result<Job, Fault> {
        let letter = self.dead_letter(id, correlation).await?;
        if self.retry(id, vec![letter]).await? == 0 {
            return Err(FaultCode::DeadLetterNotFound.into());
        }
        self.job(id, correlation).await
    }

    /// The same for those that the filter names, at most `limit`, the last accepted first.
    pub async fn retry_dead_letters(
        &self,
        id: &InstanceId,
        filter: &LetterFilter,
        limit: u64,
    ) -> Result<Retried, Fault> {
        let pk = self.instance(id).await?.pk;
        // what fails again meanwhile is not tried twice
        let until = Some(filter.until.map_or(Timestamp::now(), |until| until.min(Timestamp::now())));
        let filter = LetterFilter { until, ..filter.clone() }.of(Some(pk));
        let (mut retried, mut before, mut left) = (0, None, limit);
        while left > 0 {
            let page = left.min(BATCH);
            let letters = self.store().dead_letters(&filter, before, page).await.map_err(fault)?;
            let Some(last) = letters.last().map(|letter| letter.id) else { break };
            let full = letters.len() as u64 == page;
            (before, left) = (Some(last), left - letters.len() as u64);
            retried += self.retry(id, letters).await?;
            if !full {
                break;
            }
        }
        let remaining = self.store().count_dead_letters(&filter).await.map_err(fault)?;
        Ok(Retried { retried, remaining })
    }

    /// Takes a job off the dead letters. It stays failed and can be read as a job.
    pub async fn discard_dead_letter(&self, id: &InstanceId, correlation: &CorrelationId) -> Result<(), Fault> {
        let letter = self.dead_letter(id, correlation).await?;
        let now = Timestamp::now();
        if !self.store().discard_dead_letter(letter.instance_pk, letter.id, now).await.map_err(fault)? {
            return Err(FaultCode::DeadLetterNotFound.into());
        }
        self.inner.queue.undead(DeadLetter::of(&letter));
        Ok(())
    }

    async fn dead_letter(&self, id: &InstanceId, correlation: &CorrelationId) -> Result<Job, Fault> {
        let instance = self.instance(id).await?;
        let job = self.store().job(instance.pk, correlation).await.map_err(fault)?;
        job.filter(Job::is_dead_letter).ok_or_else(|| FaultCode::DeadLetterNotFound.into())
    }

    /// How many of these were still dead letters and are jobs now.
    async fn retry(&self, id: &InstanceId, letters: Vec<Job>) -> Result<u64, Fault> {
        let handle = self.handle(id)?;
        let view = handle.view();
        if !view.paired {
            return Err(crate::intake::not_connected(view.cause));
        }
        let held = (view.status != InstanceStatus::Connected).then_some(HeldReason::Offline);
        let ids: Vec<JobId> = letters.iter().map(|letter| letter.id).collect();
        let now = Timestamp::now();
        let retried = self.store().retry_dead_letters(handle.pk, &ids, held, now).await.map_err(fault)?;
        crash::point("after_retry");
        self.inner.load.reopened(handle.pk, retried.len() as u64);
        for letter in letters.iter().filter(|letter| retried.contains(&letter.id)) {
            self.inner.queue.undead(DeadLetter::of(letter));
            if let Some(job) = self.store().job_by_id(letter.id).await.map_err(fault)? {
                self.enqueue(&handle, &job);
            }
        }
        Ok(retried.len() as u64)
    }
}
