//! Jobs on the wire. They never show what was said.

use super::recipient::Recipient;
use super::time::Moment;
use super::words::{HeldReason, JobState, Priority};
use crate::body::Body;
use poem_openapi::Object;
use uuid::Uuid;

/// A send that was accepted.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Job {
    pub correlation_id: String,
    /// The gateway's own id.
    pub id: Uuid,
    pub instance_id: String,
    /// WhatsApp's message id, final from the start.
    pub message_id: String,
    /// The kind of content, e.g. `text`.
    #[oai(rename = "type")]
    pub kind: String,
    /// The address it goes to.
    pub chat: String,
    pub state: JobState,
    pub held_reason: Option<HeldReason>,
    pub priority: Priority,
    /// Whether its end is told by `message_ack`.
    pub asynchronous: bool,
    /// Attempts begun so far, over every retry as a dead letter.
    pub attempts: u32,
    /// How often it was retried as a dead letter. Each retry ends in a `message_ack` of its own.
    pub retries: u32,
    /// The scheduled time, where one was given.
    pub send_at: Option<Moment>,
    /// When it is looked at next; only while it waits.
    pub due_at: Option<Moment>,
    /// The stable code of the last error.
    pub error_code: Option<String>,
    /// The last error as a sentence.
    pub error: Option<String>,
    pub created_at: Moment,
    pub updated_at: Moment,
    /// When it ended: sent, failed or cancelled.
    pub ended_at: Option<Moment>,
}

impl From<kero_store::Job> for Job {
    fn from(job: kero_store::Job) -> Self {
        use kero_domain::JobState as State;
        let waits = matches!(job.state, State::Queued | State::Held);
        Self {
            correlation_id: job.correlation_id.into(),
            id: job.id.0,
            instance_id: job.instance_id.into(),
            message_id: job.message_id.into(),
            kind: job.content.kind().to_owned(),
            chat: job.chat,
            state: job.state.into(),
            held_reason: job.held.filter(|_| job.state == State::Held).map(HeldReason::from),
            priority: job.priority.into(),
            asynchronous: job.asynchronous,
            attempts: job.attempts,
            retries: job.retries,
            send_at: Moment::maybe(job.send_at),
            due_at: waits.then(|| job.due_at.into()),
            error_code: job.error_code,
            error: job.error,
            created_at: job.created_at.into(),
            updated_at: job.updated_at.into(),
            ended_at: Moment::maybe(job.ended_at),
        }
    }
}

/// The new time of a job.
#[derive(Object)]
pub(crate) struct MoveJob {
    /// Not before then, within the next 90 days; a time that is past means now. (Unix seconds are taken too.)
    pub send_at: Moment,
}

impl Body for MoveJob {}

/// An asynchronous send that failed.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct DeadLetter {
    pub correlation_id: String,
    /// The gateway's own id.
    pub id: Uuid,
    pub instance_id: String,
    /// WhatsApp's message id. A retry uses it again.
    pub message_id: String,
    /// The kind of content, e.g. `text`.
    #[oai(rename = "type")]
    pub kind: String,
    /// The address it was to go to.
    pub chat: String,
    pub priority: Priority,
    /// The stable code of the failure.
    pub code: String,
    /// The failure as a sentence.
    pub reason: String,
    /// Attempts begun, over every retry.
    pub attempts: u32,
    /// How often it was retried.
    pub retries: u32,
    /// Whether WhatsApp may have got it all the same. A retry is safe either way: message id and content stay, so
    /// that a recipient who has it sees it once.
    pub in_doubt: bool,
    pub created_at: Moment,
    pub failed_at: Moment,
}

impl From<kero_store::Job> for DeadLetter {
    fn from(job: kero_store::Job) -> Self {
        let code = job.error_code.unwrap_or_else(|| "failed".to_owned());
        // a first attempt that WhatsApp refused by a code is the only one whose outcome is certain
        let refused = job.attempts <= 1 && code.parse::<u32>().is_ok();
        Self {
            correlation_id: job.correlation_id.into(),
            id: job.id.0,
            instance_id: job.instance_id.into(),
            message_id: job.message_id.into(),
            kind: job.content.kind().to_owned(),
            chat: job.chat,
            priority: job.priority.into(),
            in_doubt: job.proto.is_some() && !refused,
            code,
            reason: job.error.unwrap_or_default(),
            attempts: job.attempts,
            retries: job.retries,
            created_at: job.created_at.into(),
            failed_at: job.ended_at.unwrap_or(job.updated_at).into(),
        }
    }
}

/// Which dead letters to retry. All members must fit; `{}` means all of the instance.
#[derive(Object)]
pub(crate) struct RetryDeadLetters {
    /// The code that they failed with.
    pub code: Option<String>,
    /// The recipient: a phone number or a WhatsApp address. (`jid` is taken too.)
    pub phone: Option<Recipient>,
    /// Failed at this moment or later.
    pub since: Option<Moment>,
    /// Failed before this moment.
    pub until: Option<Moment>,
    /// At most so many, the last accepted first; 1 to 10,000.
    #[oai(default = "most", validator(minimum(value = "1"), maximum(value = "10000")))]
    pub limit: u64,
}

fn most() -> u64 {
    1_000
}

impl Body for RetryDeadLetters {
    const ALIASES: &'static [(&'static str, &'static str)] = &[("jid", "phone")];
}

/// What a retry by filter did.
#[derive(Object)]
pub(crate) struct RetriedDeadLetters {
    /// Dead letters that are jobs again.
    pub retried: u64,
    /// Dead letters that the filter still names.
    pub remaining: u64,
}

impl From<kero_gateway::Retried> for RetriedDeadLetters {
    fn from(done: kero_gateway::Retried) -> Self {
        Self { retried: done.retried, remaining: done.remaining }
    }
}
