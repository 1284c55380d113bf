//! The end of an attempt: its result is committed, and told.

use super::attempt::{TurnEnd, later};
use super::lane::LaneContext;
use super::{LaneKey, ack_event};
use crate::instances::View;
use crate::intake::JobEnd;
use crate::queue::{self, DeadLetter};
use crate::{crash, events};
use kero_domain::{HeldReason, JobState, Timestamp};
use kero_store::{Job, Report, Settlement, StoreError};

/// Commits how an attempt ended, for as long as it takes, and tells whoever waits for the job's end.
pub(super) async fn settle(
    context: &LaneContext,
    view: &View,
    job: &Job,
    attempts: u32,
    settlement: Settlement,
) -> TurnEnd {
    let now = Timestamp::now();
    let settlement = still_in_doubt(job, settlement);
    let (end, event, next) = match &settlement {
        Settlement::Sent { at } => {
            (Some(JobEnd::Sent), Some(ack_event(job, JobState::Sent, None, attempts, *at)), TurnEnd::More)
        }
        Settlement::Failed { code, error, at, .. } => (
            Some(JobEnd::Failed { code: code.clone(), error: error.clone() }),
            Some(ack_event(job, JobState::Failed, Some((code, error)), attempts, *at)),
            TurnEnd::More,
        ),
        Settlement::Hold { due_at, .. } => (None, None, TurnEnd::At(*due_at)),
        Settlement::Requeue => (None, None, TurnEnd::At(now.after(std::time::Duration::from_secs(1)))),
    };
    let gateway = &context.gateway;
    let mut tries = 0u32;
    loop {
        let report = event
            .clone()
            .map(|event| Report { entry: events::entry(gateway, context.pk, event), surely: job.asynchronous });
        let due = events::due(report.iter().map(|report| &report.entry));
        match gateway.store().settle_job(job.id, context.pk, view.epoch, settlement.clone(), report).await {
            Ok(settled) => {
                crash::point("after_result");
                if let Some(end) = end.filter(|_| settled.applied) {
                    gateway.inner.load.ended(context.pk, end == JobEnd::Sent);
                    events::appended(gateway, context.pk, settled.event, due);
                    if let Settlement::Failed { code, error, at, .. } = &settlement {
                        crash::point("before_dead_letter");
                        queue::report_dead(gateway, DeadLetter { job, code, reason: error, attempts, failed_at: *at });
                    }
                    gateway.inner.waiters.end(job.id, end);
                }
                return next;
            }
            Err(error @ (StoreError::EpochLost | StoreError::NotFound)) => return later(context, &error),
            Err(error) => {
                // the outcome is known only here: keep trying while the gateway runs
                tries += 1;
                tracing::warn!(instance = %context.id, job = %job.id, tries, error = &error as &dyn std::error::Error, "a result waits for the database");
                if gateway.inner.stopping.is_cancelled() && tries > 3 {
                    return TurnEnd::Idle;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200 * u64::from(tries.min(10)))).await;
            }
        }
    }
}

/// A repetition that was refused says nothing about the attempt before it: what may have arrived cannot be cancelled.
fn still_in_doubt(job: &Job, mut settlement: Settlement) -> Settlement {
    if let Settlement::Hold { reason, .. } = &mut settlement
        && job.held == Some(HeldReason::InDoubt)
    {
        *reason = HeldReason::InDoubt;
    }
    settlement
}

/// WhatsApp has the message: the chat's next one need not wait until that is committed. Results of a chat are submitted,
/// and so committed, in their order.
pub(super) async fn settle_behind(
    context: &LaneContext,
    view: View,
    job: Job,
    attempts: u32,
    settlement: Settlement,
) -> TurnEnd {
    let key = LaneKey::of(&job);
    context.settling.wait(&key).await;
    let under_way = context.settling.begin(key.clone());
    let context = context.clone();
    context.gateway.inner.tasks.clone().spawn(async move {
        settle(&context, &view, &job, attempts, settlement).await;
        context.gateway.inner.queue.release(context.pk, &key);
        drop(under_way);
    });
    TurnEnd::Settling
}
