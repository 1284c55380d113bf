//! Lets go of what is kept long enough: finished jobs, events, expired idempotency keys.

use crate::Gateway;
use kero_domain::Timestamp;
use kero_store::{Keep, StoreError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// A breath between two steps, in which others write.
const BREATH: Duration = Duration::from_millis(5);

/// How long, and how many; zero means for ever, and all.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub jobs: Duration,
    pub max_jobs: u64,
    pub events: Duration,
    pub max_events: u64,
    /// Between two passes.
    pub every: Duration,
}

fn keep(age: Duration, count: u64) -> Option<Keep> {
    let since = (!age.is_zero()).then(|| Timestamp::now().before(age));
    let newest = (count > 0).then_some(count);
    (since.is_some() || newest.is_some()).then_some(Keep { since, newest })
}

pub(crate) async fn run(gateway: Gateway) {
    let mut tick = tokio::time::interval(gateway.config().retention.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            _ = tick.tick() => {}
        }
        let pass = async {
            gateway.store().prune_idempotency(Timestamp::now()).await?;
            for handle in gateway.inner.instances.all() {
                prune(&gateway, handle.pk).await?;
            }
            Ok::<_, StoreError>(())
        };
        tokio::select! {
            () = gateway.inner.stopping.cancelled() => return,
            done = pass => if let Err(error) = done {
                tracing::warn!(error = &error as &dyn std::error::Error, "old rows could not be deleted; the next pass tries again");
            }
        }
    }
}

async fn prune(gateway: &Gateway, pk: i64) -> Result<(), StoreError> {
    let (store, retention) = (gateway.store(), gateway.config().retention);
    let mut jobs = 0;
    if let Some(keep) = keep(retention.jobs, retention.max_jobs) {
        let mut after = None;
        loop {
            let pruned = store.prune_jobs(pk, keep, after).await?;
            jobs += pruned.deleted;
            after = pruned.next;
            if after.is_none() {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
    }
    let mut events = 0;
    if let Some(keep) = keep(retention.events, retention.max_events) {
        let mut after = None;
        loop {
            let pruned = store.prune_events(pk, keep, after).await?;
            events += pruned.deleted;
            after = pruned.next;
            if after.is_none() {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
        let mut after = keep.since.map(|_| 0);
        while let (Some(since), Some(from)) = (keep.since, after) {
            let pruned = store.prune_dropped_events(pk, since, Some(from)).await?;
            events += pruned.deleted;
            after = pruned.next;
        }
    }
    metrics::counter!("kero_pruned_jobs_total").increment(jobs);
    metrics::counter!("kero_pruned_events_total").increment(events);
    Ok(())
}
