//! The work queue of asynchronous sends. Rows are the truth; an element only wakes the lane of its job.

mod local;

use crate::worker::LaneKey;
use crate::{Gateway, GatewayConfig, RedisHealth};
use async_trait::async_trait;
use kero_domain::Timestamp;
use kero_store::Job;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The pass over due rows: the fallback when a wake was lost.
const POLL_EVERY: Duration = Duration::from_secs(5);
const POLL_LIMIT: u64 = 1_000;

/// Wakes the lane of a job.
#[derive(Debug, Clone)]
pub struct Wake {
    pub instance_pk: i64,
    pub key: LaneKey,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Puts a job before the workers. Never fails: what is lost here is found in the rows.
    async fn push(&self, job: &Job);
    /// The next jobs to wake; waits until there is one.
    async fn next(&self) -> Vec<Wake>;
    async fn health(&self) -> RedisHealth;
}

pub(crate) fn build(_config: &GatewayConfig) -> Result<Arc<dyn Queue>, String> {
    Ok(Arc::new(local::Local::default()))
}

/// Hands queue elements to lanes and, now and then, due rows that nobody woke.
pub(crate) async fn run(gateway: Gateway) {
    let mut poll = tokio::time::interval(POLL_EVERY);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let paused = gateway.inner.paused.load(Ordering::Acquire);
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            wakes = gateway.inner.queue.next(), if !paused => wake(&gateway, wakes),
            _ = poll.tick() => if !paused {
                match gateway.store().due_jobs(Timestamp::now(), POLL_LIMIT).await {
                    Ok(due) => wake(&gateway, due.into_iter().map(|job| Wake {
                        instance_pk: job.instance_pk,
                        key: LaneKey { chat: job.chat.into(), priority: job.priority },
                    }).collect()),
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "due jobs could not be read"),
                }
            },
        }
    }
}

fn wake(gateway: &Gateway, wakes: Vec<Wake>) {
    for wake in wakes {
        if let Some(handle) = gateway.inner.instances.by_pk(wake.instance_pk) {
            handle.lane.wake(wake.key);
        }
    }
}
