//! What waits says for what: its instance, or a rate.

use super::LaneKey;
use super::attempt::TurnEnd;
use super::lane::LaneContext;
use super::settle::settle;
use crate::instances::View;
use kero_domain::{HeldReason, Timestamp};
use kero_store::{AttemptCount, Job, NextJob, Settlement};

/// How long an instance is away before its jobs say so, and how many of them at once.
const AWAY: std::time::Duration = std::time::Duration::from_secs(1);
const MARKED: u64 = 500;

/// The connection is lost: the jobs that could be sent say what they wait for.
pub(super) async fn mark_offline(context: LaneContext) {
    tokio::time::sleep(AWAY).await;
    while context.view.borrow().link.is_none() && !context.gateway.inner.stopping.is_cancelled() {
        match context.gateway.store().hold_offline(context.pk, Timestamp::now(), MARKED).await {
            Ok(MARKED) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(instance = %context.id, error = &error as &dyn std::error::Error, "sends that wait for their instance do not say so");
                return;
            }
        }
    }
}

/// The recipient's rate is used up: the chat waits, and burns no attempt.
pub(super) async fn hold_for_rate(context: &LaneContext, view: &View, job: &Job, due_at: Timestamp) -> TurnEnd {
    if job.held == Some(HeldReason::Rate) && job.due_at == due_at {
        return TurnEnd::At(due_at);
    }
    let hold =
        Settlement::Hold { reason: HeldReason::Rate, due_at, code: None, error: None, count: AttemptCount::Undone };
    settle(context, view, job, job.attempts, hold).await
}

/// The instance's rate is used up: the first jobs of the chats that wait say so, the n-th until about the n-th moment.
pub(super) async fn mark_limited(context: LaneContext, keys: Vec<LaneKey>, from: Timestamp) {
    let mut heads = Vec::new();
    let mut due_at = from;
    for key in keys {
        context.known.forget(&key);
        match context.gateway.store().next_job(context.pk, &key.chat, key.priority, Timestamp::now()).await {
            Ok(NextJob::Run(job)) if !matches!(job.held, Some(HeldReason::Rate | HeldReason::InDoubt)) => {
                heads.push((job.id, due_at));
            }
            _ => {}
        }
        due_at = due_at.after(context.limits.interval());
    }
    if heads.is_empty() {
        return;
    }
    if let Err(error) = context.gateway.store().hold_for_rate(context.pk, heads).await {
        tracing::warn!(instance = %context.id, error = &error as &dyn std::error::Error, "sends that wait for their rate do not say so");
    }
}
