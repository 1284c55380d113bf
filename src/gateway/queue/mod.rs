//! The work queue of asynchronous sends. Rows are the truth; an element only wakes the lane of its job.

mod element;
mod local;
mod reconcile;
mod redis;
#[cfg(test)]
pub(crate) mod tests;

use crate::worker::LaneKey;
use crate::{Gateway, GatewayConfig, RedisHealth};
use async_trait::async_trait;
use element::Resolved;
use kero_domain::Timestamp;
use kero_store::{Job, JobName};
use reconcile::Reconciler;
pub use redis::QueueKeys;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The pass over due rows: the fallback when a wake was lost.
const POLL_EVERY: Duration = Duration::from_secs(5);
const POLL_LIMIT: u64 = 1_000;
/// Of rows that became due since, the wakes may be on their way.
const UNDER_WAY_MS: i64 = 1_000;
/// Counts what waits, for the metrics and for the limits of the queue.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How long one read waits; a pause takes effect within it.
const READ_WAIT: Duration = Duration::from_millis(500);

/// What the queue gives to the workers.
pub(crate) enum Taken {
    Wake {
        instance_pk: i64,
        key: LaneKey,
    },
    /// The bytes of an element of `kero_message_queue`, now in `kero_processing`.
    Element(Vec<u8>),
    /// The same of an element that this process does not remember to have put there.
    Stranger(Vec<u8>),
}

/// Lengths of the lists, as far as they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLengths {
    pub message_queue: u64,
    pub processing: u64,
    pub dead_letters: u64,
}

/// One of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    MessageQueue,
    Processing,
    DeadLetters,
}

/// A job that ended as failed, for `kero_dead_letter_queue`.
pub(crate) struct DeadLetter<'a> {
    pub job: &'a Job,
    pub code: &'a str,
    pub reason: &'a str,
    pub attempts: u32,
    pub failed_at: Timestamp,
}

impl<'a> DeadLetter<'a> {
    /// The letter of a job whose row says that it failed.
    pub fn of(job: &'a Job) -> Self {
        Self {
            job,
            code: job.error_code.as_deref().unwrap_or("failed"),
            reason: job.error.as_deref().unwrap_or_default(),
            attempts: job.attempts,
            failed_at: job.ended_at.unwrap_or(job.updated_at),
        }
    }
}

#[async_trait]
pub(crate) trait Queue: Send + Sync {
    /// Puts a job before the workers. Never fails and never waits: what is lost here is found in the rows.
    fn push(&self, job: &Job);
    /// The next jobs to wake; waits at most `wait` for one.
    async fn next(&self, wait: Duration) -> Vec<Taken>;
    /// Keeps an element in `kero_processing` until the lane's turn for `key` ends. When the instance has its share of
    /// the window there, or all have it together, it is finished instead: its row keeps the job.
    fn keep(&self, instance_pk: i64, key: LaneKey, element: Vec<u8>);
    /// An element has done its work.
    fn finish(&self, element: Vec<u8>);
    /// A turn for `key` ended: what was kept for it is finished.
    fn release(&self, instance_pk: i64, key: &LaneKey);
    /// Moves an element that is no job to the dead letters.
    fn reject(&self, element: Vec<u8>);
    fn dead(&self, letter: DeadLetter<'_>);
    async fn health(&self) -> RedisHealth;
    async fn lengths(&self) -> Option<QueueLengths>;
    /// Takes a dead letter off its list: it is retried or discarded.
    fn undead(&self, letter: DeadLetter<'_>);
    /// Removes one element.
    fn remove(&self, list: List, element: Vec<u8>);
    /// The elements of `kero_processing` that lanes work on.
    fn kept(&self) -> HashSet<Vec<u8>>;
    /// `count` elements of a list, the oldest first, after the `from` oldest. `None` without Redis or while it does not
    /// answer.
    async fn scan(&self, list: List, from: u64, count: u64) -> Option<Vec<Vec<u8>>>;
    /// Puts keys out of the way that have a list's name and are none; how many. `None` as in `scan`.
    async fn clear_wrong_types(&self) -> Option<u64>;
    /// Empties `kero_processing` after a restart: its jobs are still in their rows.
    async fn recover(&self);
}

pub(crate) fn build(config: &GatewayConfig) -> Result<Arc<dyn Queue>, String> {
    match &config.redis_url {
        Some(url) => Ok(Arc::new(redis::Redis::new(url, config.redis_ca.as_deref(), &config.queue_keys)?)),
        None => Ok(Arc::new(local::Local::default())),
    }
}

/// Hands what the queue holds to the lanes. Nothing else ends its reads early: an element that was taken and not handed
/// over would lie in `kero_processing` until the next start.
pub(crate) async fn read(gateway: Gateway) {
    let queue = gateway.inner.queue.clone();
    queue.recover().await;
    loop {
        {
            let _turn = gateway.inner.queue_turn.lock().await;
            if !gateway.queue_paused() {
                tokio::select! {
                    () = gateway.inner.stopping.cancelled() => return,
                    taken = queue.next(READ_WAIT) => {
                        let jobs = without_unknown(&gateway, taken).await;
                        hand_over(&gateway, jobs);
                    }
                }
                continue;
            }
        }
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            () = gateway.inner.queue_resumed.notified() => {}
        }
    }
}

/// Wakes due rows that nobody woke, and repairs the lists.
pub(crate) async fn tend(gateway: Gateway) {
    let mut poll = interval(POLL_EVERY);
    let mut reconcile = interval(gateway.config().reconcile_every);
    let mut count = interval(COUNT_EVERY);
    let mut reconciler = Reconciler::default();
    loop {
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            _ = poll.tick() => if !gateway.queue_paused() { poll_due(&gateway).await },
            _ = reconcile.tick() => repair(&gateway, &mut reconciler).await,
            _ = count.tick() => if let Err(error) = crate::load::count(&gateway).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the jobs that wait could not be counted");
            },
        }
    }
}

fn interval(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Puts strangers that name no job to the dead letters.
async fn without_unknown(gateway: &Gateway, mut taken: Vec<Taken>) -> Vec<Taken> {
    let name = |taken: &Taken| match taken {
        Taken::Stranger(bytes) => element::name(bytes),
        Taken::Wake { .. } | Taken::Element(_) => None,
    };
    let strangers: Vec<JobName> = taken.iter().filter_map(name).collect();
    if strangers.is_empty() {
        return taken;
    }
    match gateway.store().jobs_among(&strangers).await {
        Ok(jobs) => {
            for unknown in taken.extract_if(.., |taken| name(taken).is_some_and(|name| !jobs.contains(&name))) {
                if let Taken::Stranger(bytes) = unknown {
                    reject(gateway, bytes);
                }
            }
        }
        // at worst their lanes look for them
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "elements of the message queue were not checked");
        }
    }
    taken
}

fn reject(gateway: &Gateway, bytes: Vec<u8>) {
    tracing::warn!(bytes = bytes.len(), "an element of the message queue is no job; it goes to the dead letters");
    gateway.inner.queue.reject(bytes);
}

fn hand_over(gateway: &Gateway, taken: Vec<Taken>) {
    let queue = &gateway.inner.queue;
    for taken in taken {
        match taken {
            Taken::Wake { instance_pk, key } => {
                if let Some(handle) = gateway.inner.instances.by_pk(instance_pk) {
                    handle.lane.wake(key);
                }
            }
            Taken::Element(bytes) | Taken::Stranger(bytes) => {
                match element::resolve(&gateway.inner.instances, &bytes) {
                    Resolved::Job { handle, key } => {
                        // what cannot run now leaves at once: its row keeps the job
                        if handle.lane.is_busy(&key) {
                            queue.finish(bytes);
                        } else {
                            queue.keep(handle.pk, key.clone(), bytes);
                        }
                        if !handle.lane.wakes(key.clone()) {
                            queue.release(handle.pk, &key);
                        }
                    }
                    Resolved::Unknown => reject(gateway, bytes),
                }
            }
        }
    }
}

async fn poll_due(gateway: &Gateway) {
    let due = Timestamp(Timestamp::now().0 - UNDER_WAY_MS);
    match gateway.store().due_jobs(due, POLL_LIMIT).await {
        Ok(due) => {
            let mut claimed = 0;
            for job in due {
                let key = LaneKey { chat: job.chat.into(), priority: job.priority };
                let Some(handle) = gateway.inner.instances.by_pk(job.instance_pk) else { continue };
                if !handle.lane.is_busy(&key) {
                    // nobody woke it: what the lane believes to know may be why
                    handle.lane.forget(&key);
                }
                if handle.lane.offer(key) {
                    claimed += 1;
                }
            }
            metrics::counter!("kero_queue_polled_total").increment(claimed);
        }
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "due jobs could not be read"),
    }
}

async fn repair(gateway: &Gateway, reconciler: &mut Reconciler) {
    match reconciler.pass(gateway).await {
        Ok(Some(repairs)) => {
            metrics::counter!("kero_queue_repairs_total").increment(repairs);
            metrics::gauge!("kero_queue_drift").set(repairs as f64);
            if repairs > 0 {
                tracing::warn!(repairs, "the queue's lists were repaired from the rows");
            }
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the queue could not be compared with the rows")
        }
    }
}

impl Gateway {
    pub fn queue_paused(&self) -> bool {
        self.inner.paused.load(Ordering::Acquire)
    }

    /// While paused nothing leaves `kero_message_queue`; synchronous sends go on. Returns when a read that was under
    /// way has ended.
    pub async fn pause_queue(&self) {
        self.inner.paused.store(true, Ordering::Release);
        drop(self.inner.queue_turn.lock().await);
    }

    pub fn resume_queue(&self) {
        self.inner.paused.store(false, Ordering::Release);
        self.inner.queue_resumed.notify_one();
        for handle in self.inner.instances.all() {
            handle.lane.wake_all();
        }
    }

    /// Lengths of the lists; `None` without Redis or while it does not answer.
    pub async fn queue_lengths(&self) -> Option<QueueLengths> {
        self.inner.queue.lengths().await
    }
}

/// Tells the queue of a job's failure, when it was an asynchronous one.
pub(crate) fn report_dead(gateway: &Gateway, letter: DeadLetter<'_>) {
    metrics::counter!("kero_jobs_dead_total").increment(1);
    if letter.job.asynchronous {
        gateway.inner.queue.dead(letter);
    }
}

/// The code of elements that are no job.
pub(crate) const UNKNOWN_JOB: &str = "unknown_job";
