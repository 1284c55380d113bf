//! Jobs on the wire. They never show what was said.

use super::time::Moment;
use super::words::{HeldReason, JobState, Priority};
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
    /// Attempts begun so far.
    pub attempts: u32,
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
