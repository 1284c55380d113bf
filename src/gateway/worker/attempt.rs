//! One turn of a lane: claim the oldest due job of a chat, store the intent, send, wait for the server's word, settle.

use super::LaneKey;
use super::acks::AckOutcome;
use super::known::Next;
use super::lane::{LaneContext, paused};
use super::limits::Token;
use super::marks::hold_for_rate;
use super::settle::{settle, settle_behind};
use crate::crash;
use crate::instances::View;
use kero_domain::retry::jitter;
use kero_domain::{Address, HeldReason, JobState, Timestamp};
use kero_store::{AttemptCount, IntentOutcome, Job, LaneAhead, NextJob, Settlement, StoreError};
use kero_whatsapp::SendError;

/// What the lane does with the key afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// There may be another job.
    More,
    /// The same, while the result of this one is being committed.
    Settling,
    /// The oldest job is due later.
    At(Timestamp),
    /// Nothing to do, or nothing that can be done now.
    Idle,
}

/// Jobs of a chat that one look-up reads.
const AHEAD: u64 = 16;

/// The seed's sentence.
const NOT_ON_WHATSAPP: &str = "The phone number is not registered on WhatsApp";

pub(super) async fn turn(context: &LaneContext, key: &LaneKey, leave: Token) -> TurnEnd {
    let known = &context.known;
    let job = match known.next(key) {
        Next::Run(job) => *job,
        Next::Empty => return TurnEnd::Idle,
        Next::Ask => match ask(context, key).await {
            Ok(job) => job,
            Err(end) => return end,
        },
    };
    let end = if job.asynchronous && paused(&context.gateway) { TurnEnd::Idle } else { run(context, job, leave).await };
    if !matches!(end, TurnEnd::More | TurnEnd::Settling) {
        // the job is unfinished, and no longer kept
        known.forget(key);
    }
    end
}

/// The oldest due job by the rows.
async fn ask(context: &LaneContext, key: &LaneKey) -> Result<Job, TurnEnd> {
    // the rows do not know yet what is being settled
    context.settling.wait(key).await;
    context.known.asking(key);
    let now = Timestamp::now();
    let found = context.gateway.store().next_jobs(context.pk, &key.chat, key.priority, now, AHEAD).await;
    let next = match found {
        Ok(LaneAhead { next, behind, whole }) => {
            if matches!(next, NextJob::Run(_) | NextJob::Empty) {
                context.known.found(key, behind, whole);
            } else {
                context.known.forget(key);
            }
            Ok(next)
        }
        Err(error) => {
            context.known.forget(key);
            Err(error)
        }
    };
    match next {
        Ok(NextJob::Run(job)) => Ok(job),
        Ok(NextJob::Wait(at)) => Err(TurnEnd::At(at)),
        // this turn is the chat's only one: an intent without an attempt, whose commit's answer was lost, or which could
        // not be put in doubt after a restart
        Ok(NextJob::InFlight(job)) => {
            let view = context.view.borrow().clone();
            let due_at = Timestamp::now().after(context.gateway.config().doubt_wait);
            Err(settle(context, &view, &job, job.attempts, doubt(due_at)).await)
        }
        Ok(NextJob::Empty) => Err(TurnEnd::Idle),
        Err(error) => Err(later(context, &error)),
    }
}

/// The database did not answer: the job stays as it is in its row, and its lane tries again.
pub(super) fn later(context: &LaneContext, error: &StoreError) -> TurnEnd {
    if matches!(error, StoreError::EpochLost | StoreError::NotFound) {
        return TurnEnd::Idle;
    }
    tracing::warn!(instance = %context.id, error = error as &dyn std::error::Error, "a send waits for the database");
    TurnEnd::At(Timestamp::now().after(std::time::Duration::from_secs(1)))
}

async fn run(context: &LaneContext, job: Job, leave: Token) -> TurnEnd {
    let view = context.view.borrow().clone();
    let Some(link) = view.link.clone() else { return TurnEnd::Idle };
    if job.receipt.is_some() {
        // in doubt until a receipt named it: whoever has it need not get it again
        return settle(context, &view, &job, job.attempts, Settlement::Sent { at: Timestamp::now() }).await;
    }
    let Ok(chat) = Address::parse(&job.chat) else {
        return settle(
            context,
            &view,
            &job,
            job.attempts,
            fail("invalid-recipient", "The recipient is not a WhatsApp address."),
        )
        .await;
    };
    if let Address::Phone(number) = &chat {
        match link.is_on_whatsapp(number).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                return settle(context, &view, &job, job.attempts, fail("recipient-not-on-whatsapp", NOT_ON_WHATSAPP))
                    .await;
            }
            Err(SendError::NotConnected) => return TurnEnd::Idle,
            Err(error) => {
                let (attempts, ended) = unknown_recipient(context, &job, &error);
                return settle(context, &view, &job, attempts, ended).await;
            }
        }
    }
    if job.attempts_now() > context.gateway.config().retry.max_retries {
        // in doubt at every attempt, or a send that ended the process each time
        return settle(
            context,
            &view,
            &job,
            job.attempts,
            fail("attempts-exhausted", "WhatsApp never acknowledged the message."),
        )
        .await;
    }
    // what may have been sent is settled first
    if job.held != Some(HeldReason::InDoubt)
        && let Err(due_at) = context.limits.write_to(&job.chat, Timestamp::now())
    {
        return hold_for_rate(context, &view, &job, due_at).await;
    }
    leave.spend();
    let resend = job.state == JobState::Sending || job.proto.is_some();
    let proto = match &job.proto {
        Some(proto) => proto.clone(),
        None => kero_whatsapp::outbound::encode(&job.content),
    };
    crash::point("before_intent");
    let intent = context.gateway.store().intend_job(job.id, context.pk, view.epoch, proto, Timestamp::now()).await;
    let (attempts, proto) = match intent {
        Ok(IntentOutcome::Started { attempt, proto }) => {
            crash::point("after_intent");
            metrics::counter!("kero_queue_claims_total").increment(1);
            (attempt, proto)
        }
        Ok(IntentOutcome::NotRunnable(_)) => {
            context.known.forget(&LaneKey::of(&job));
            return TurnEnd::More;
        }
        Err(error) => return later(context, &error),
    };
    let ack = context.acks.expect(job.message_id.as_str());
    crash::point("before_write");
    let settlement = match link.send(&chat, &job.message_id, &proto, resend).await {
        Ok(()) => {
            crash::point("after_write");
            wait_for_ack(context, &view, &job, attempts, ack).await
        }
        Err(error) => {
            context.acks.forget(job.message_id.as_str());
            refused_locally(context, &job, attempts, &error)
        }
    };
    crash::point("after_ack");
    if matches!(settlement, Settlement::Sent { .. }) {
        return settle_behind(context, view, job, attempts, settlement).await;
    }
    settle(context, &view, &job, attempts, settlement).await
}

async fn wait_for_ack(
    context: &LaneContext,
    view: &View,
    job: &Job,
    attempts: u32,
    ack: tokio::sync::oneshot::Receiver<AckOutcome>,
) -> Settlement {
    let mut watched = context.view.clone();
    let lost = async {
        loop {
            if watched.borrow_and_update().generation != view.generation || watched.borrow().link.is_none() {
                return;
            }
            if watched.changed().await.is_err() {
                return;
            }
        }
    };
    let config = context.gateway.config();
    tokio::select! {
        biased;
        Ok(outcome) = ack => acknowledged(context, job, attempts, outcome),
        () = lost => {
            context.acks.forget(job.message_id.as_str());
            doubt(Timestamp::now().after(config.doubt_wait))
        }
        () = tokio::time::sleep(config.ack_timeout) => {
            context.acks.forget(job.message_id.as_str());
            doubt(Timestamp::now().after(config.retry.delay(attempts.saturating_sub(job.attempts_before)).unwrap_or_default()))
        }
    }
}

fn doubt(due_at: Timestamp) -> Settlement {
    Settlement::Hold { reason: HeldReason::InDoubt, due_at, code: None, error: None, count: AttemptCount::Kept }
}

fn acknowledged(context: &LaneContext, job: &Job, attempts: u32, outcome: AckOutcome) -> Settlement {
    match outcome {
        AckOutcome::Accepted => Settlement::Sent { at: Timestamp::now() },
        AckOutcome::Refused(463) => {
            let config = context.gateway.config();
            let now = Timestamp::now();
            if job.order_at.after(config.reach_out_limit) <= now {
                return fail("463", "WhatsApp restricts messages to people who have not written first.");
            }
            Settlement::Hold {
                reason: HeldReason::ReachOutLock,
                due_at: now.after(config.retry.ceiling),
                code: Some("463".to_owned()),
                error: Some("WhatsApp restricts messages to people who have not written first.".to_owned()),
                count: AttemptCount::Undone,
            }
        }
        AckOutcome::Refused(code @ (429 | 500..=599)) => retry(
            context,
            job,
            attempts,
            &code.to_string(),
            &SendError::Transient(format!("WhatsApp answered {code}.")),
        ),
        AckOutcome::Refused(code) => fail(&code.to_string(), &format!("WhatsApp refused the message (code {code}).")),
    }
}

fn fail(code: &str, error: &str) -> Settlement {
    let (code, error) = (code.to_owned(), error.to_owned());
    Settlement::Failed { code, error, count: AttemptCount::Kept, at: Timestamp::now() }
}

/// The next attempt by the schedule, or the end.
fn retry(context: &LaneContext, job: &Job, attempts: u32, code: &str, error: &SendError) -> Settlement {
    match context.gateway.config().retry.delay(attempts.saturating_sub(job.attempts_before)) {
        Some(delay) => Settlement::Hold {
            reason: HeldReason::Retry,
            due_at: Timestamp::now().after(jitter(delay, rand::random())),
            code: Some(code.to_owned()),
            error: Some(error.to_string()),
            count: AttemptCount::Kept,
        },
        None => fail(code, &error.to_string()),
    }
}

/// The client refused before or while writing the stanza.
fn refused_locally(context: &LaneContext, job: &Job, attempts: u32, error: &SendError) -> Settlement {
    match error {
        SendError::NotConnected => Settlement::Hold {
            reason: HeldReason::InDoubt,
            due_at: Timestamp::now().after(context.gateway.config().doubt_wait),
            code: None,
            error: None,
            count: AttemptCount::Undone,
        },
        SendError::NotOnWhatsApp => fail("recipient-not-on-whatsapp", NOT_ON_WHATSAPP),
        SendError::Invalid(_) => fail("invalid-message", "WhatsApp's client library refused the message."),
        SendError::Transient(_) => retry(context, job, attempts, "send-failed", error),
    }
}

/// WhatsApp was asked for the number, and did not say whether it has it: an attempt, as one that ended later.
fn unknown_recipient(context: &LaneContext, job: &Job, error: &SendError) -> (u32, Settlement) {
    let attempts = job.attempts + 1;
    let ended = match error {
        SendError::Invalid(_) => fail("lookup-failed", &error.to_string()),
        _ => retry(context, job, attempts, "lookup-failed", error),
    };
    let count = AttemptCount::Added;
    let ended = match ended {
        Settlement::Hold { reason, due_at, code, error, .. } => Settlement::Hold { reason, due_at, code, error, count },
        Settlement::Failed { code, error, at, .. } => Settlement::Failed { code, error, count, at },
        ended => ended,
    };
    (attempts, ended)
}

/// After a (re)connect: sends whose outcome is unknown wait a moment for receipts before they are sent again.
pub(super) async fn take_up(context: &LaneContext, epoch: i64) {
    let store = context.gateway.store();
    let jobs = match store.in_doubt_jobs(context.pk).await {
        Ok(jobs) => jobs,
        Err(error) => {
            tracing::warn!(instance = %context.id, error = &error as &dyn std::error::Error, "in-doubt sends could not be read");
            return;
        }
    };
    let due_at = Timestamp::now().after(context.gateway.config().doubt_wait);
    for job in jobs {
        let context = context.clone();
        // a receipt or late ack that names the id settles it
        let ack = context.acks.expect(job.message_id.as_str());
        if let Err(error) = store.settle_job(job.id, context.pk, epoch, doubt(due_at), None).await {
            tracing::warn!(instance = %context.id, job = %job.id, error = &error as &dyn std::error::Error, "an in-doubt send was not held");
        }
        let tasks = context.gateway.inner.tasks.clone();
        tasks.spawn(async move {
            let wait = Timestamp::now().until(due_at);
            if let Ok(Ok(AckOutcome::Accepted)) = tokio::time::timeout(wait, ack).await {
                let view = context.view.borrow().clone();
                settle(&context, &view, &job, job.attempts, Settlement::Sent { at: Timestamp::now() }).await;
            }
        });
    }
}

/// After a logout: nothing of this instance will ever be sent.
pub(super) async fn fail_all(context: &LaneContext) {
    let store = context.gateway.store();
    context.known.forget_all();
    if store.lane_keys(context.pk).await.is_ok_and(|keys| keys.is_empty()) {
        return;
    }
    crash::point("before_fail_all");
    loop {
        let states = [JobState::Queued, JobState::Held, JobState::Sending];
        let jobs = match store.jobs_page(context.pk, &states, None, 200).await {
            Ok(jobs) if jobs.is_empty() => return,
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(instance = %context.id, error = &error as &dyn std::error::Error, "jobs of a logged-out instance could not be read");
                return;
            }
        };
        let view = context.view.borrow().clone();
        for job in &jobs {
            let ended = match job.receipt {
                // it had arrived before
                Some(_) => Settlement::Sent { at: Timestamp::now() },
                None => fail("instance-logged-out", "The instance was logged out of WhatsApp."),
            };
            if settle(context, &view, job, job.attempts, ended).await == TurnEnd::Idle {
                return;
            }
        }
    }
}
