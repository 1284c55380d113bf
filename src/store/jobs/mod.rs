//! Jobs: sends that were accepted, from the commit that accepts them to the one that ends them.

mod accept;
mod change;
pub(crate) mod dead;
pub(crate) mod read;
pub(crate) mod receipt;
mod run;

pub(crate) use accept::{Accept, accept};
pub use dead::{DeadFilter, JobName};
pub(crate) use receipt::{Receipt, receipts};
pub(crate) use run::{Intend, Settle, intend, settle};
pub use run::{Report, Settled};

use crate::StoreError;
use crate::entity::jobs::Model;
use crate::seal::{Sealer, place};
use kero_domain::{
    ApiKeyId, Content, CorrelationId, HeldReason, InstanceId, JobId, JobState, MessageId, Priority, Timestamp,
};
use std::str::FromStr;

/// A send that was accepted.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub instance_pk: i64,
    pub instance_id: InstanceId,
    pub correlation_id: CorrelationId,
    /// WhatsApp's id, minted at accept; every attempt uses it.
    pub message_id: MessageId,
    /// The JID as addressed.
    pub chat: String,
    pub priority: Priority,
    pub content: Content,
    /// The protobuf, frozen with the first intent.
    pub proto: Option<Vec<u8>>,
    pub state: JobState,
    pub held: Option<HeldReason>,
    /// Not before this moment, except while held for being offline.
    pub due_at: Timestamp,
    pub send_at: Option<Timestamp>,
    /// Its place in the lane: `send_at`, else when it was accepted, or retried as a dead letter.
    pub order_at: Timestamp,
    /// Attempts begun, over every retry of the dead letter.
    pub attempts: u32,
    /// Of these, the attempts before the last retry of the dead letter.
    pub attempts_before: u32,
    /// How often the dead letter was retried.
    pub retries: u32,
    /// Its end is reported by a `message_ack`.
    pub asynchronous: bool,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub request_id: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Set with the first terminal state.
    pub ended_at: Option<Timestamp>,
    /// When it was taken off the dead letters.
    pub discarded_at: Option<Timestamp>,
    /// How far the message is by the receipts that came before its result: WhatsApp has it, whatever else is known.
    pub receipt: Option<JobState>,
}

impl Job {
    /// Failed, asynchronous, and not discarded.
    pub fn is_dead_letter(&self) -> bool {
        self.state == JobState::Failed && self.asynchronous && self.discarded_at.is_none()
    }

    /// Attempts of the present promise: those since the last retry of the dead letter.
    pub fn attempts_now(&self) -> u32 {
        self.attempts.saturating_sub(self.attempts_before)
    }
}

/// A send to accept.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: JobId,
    pub instance_pk: i64,
    pub correlation_id: CorrelationId,
    pub message_id: MessageId,
    pub chat: String,
    pub priority: Priority,
    pub content: Content,
    pub asynchronous: bool,
    /// It is due then; without, at `created_at`.
    pub send_at: Option<Timestamp>,
    /// `Queued` or `Held`.
    pub state: JobState,
    pub held: Option<HeldReason>,
    pub request_id: Option<String>,
    pub created_at: Timestamp,
    pub idempotency: Option<Idempotency>,
}

/// A caller's idempotency key: the same key and body again is the same send.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub api_key: ApiKeyId,
    pub key: String,
    /// Of the canonical body, and of whatever else makes two requests differ.
    pub body_hash: [u8; 32],
    /// From then on the key is free again.
    pub expires_at: Timestamp,
}

/// What became of a send to accept.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// Durable now.
    New(Job),
    /// The job that the same key and body made before.
    Duplicate(Job),
    /// The key was used with another body.
    IdempotencyMismatch,
    /// Another job of the instance has the correlation id.
    CorrelationTaken,
    /// The instance was deleted.
    InstanceGone,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntentOutcome {
    /// The job is `sending`. `proto` is what has to be sent: the first intent's.
    Started { attempt: u32, proto: Vec<u8> },
    /// It is in this state, or held and not yet due.
    NotRunnable(JobState),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Sent {
        at: Timestamp,
    },
    Failed {
        code: String,
        error: String,
        count: AttemptCount,
        at: Timestamp,
    },
    /// Waits until `due_at`.
    Hold {
        reason: HeldReason,
        due_at: Timestamp,
        code: Option<String>,
        error: Option<String>,
        count: AttemptCount,
    },
    /// Back to `queued`; the attempt that was begun is not counted.
    Requeue,
}

/// What an attempt's end does to the count of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptCount {
    /// The intent counted it, if there was one.
    Kept,
    /// The intent counted it, and it was none.
    Undone,
    /// It failed before there was an intent.
    Added,
}

/// The head of a lane.
#[derive(Debug, Clone)]
pub enum NextJob {
    /// May be run now.
    Run(Job),
    /// Its head is due then.
    Wait(Timestamp),
    /// Its head's intent is stored: it is being sent, or was when a process ended.
    InFlight(Job),
    /// No unfinished job.
    Empty,
}

/// The head of a lane, and what stands behind it.
#[derive(Debug, Clone)]
pub struct LaneAhead {
    pub next: NextJob,
    /// Queued jobs that come right after the head, in order.
    pub behind: Vec<Job>,
    /// The lane has no unfinished job but these.
    pub whole: bool,
}

/// A lane with something due, by its oldest due job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueJob {
    pub job: JobId,
    pub instance_pk: i64,
    pub chat: String,
    pub priority: Priority,
}

/// A job that waits for its lane, as far as the queue's list needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedJob {
    pub job: JobId,
    pub correlation_id: CorrelationId,
    pub chat: String,
    pub priority: Priority,
    pub due_at: Timestamp,
}

/// How many unfinished jobs of an instance are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCount {
    pub instance_pk: i64,
    pub instance_id: InstanceId,
    pub state: JobState,
    pub held: Option<HeldReason>,
    pub count: u64,
    /// When the oldest of them was accepted.
    pub oldest: Timestamp,
}

fn content_place(instance_pk: i64, id: JobId) -> String {
    place("jobs.content", instance_pk, id)
}

pub(crate) fn proto_place(instance_pk: i64, id: JobId) -> String {
    place("jobs.proto", instance_pk, id)
}

/// A word of ours as it was stored.
pub(crate) fn word<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(what))
}

fn job(sealer: &Sealer, row: Model, instance_id: InstanceId) -> Result<Job, StoreError> {
    let id = JobId(row.id);
    let content = sealer.open("job's content", &content_place(row.instance_pk, id), &row.content)?;
    let proto = match row.proto {
        Some(sealed) => Some(sealer.open("job's protobuf", &proto_place(row.instance_pk, id), &sealed)?),
        None => None,
    };
    Ok(Job {
        id,
        instance_pk: row.instance_pk,
        instance_id,
        correlation_id: word("correlation id", &row.correlation_id)?,
        message_id: word("message id", &row.message_id)?,
        chat: row.chat,
        priority: word("priority", &row.priority)?,
        content: serde_json::from_slice(&content).map_err(|_| StoreError::Corrupt("job's content"))?,
        proto,
        state: word("job state", &row.state)?,
        held: row.held.as_deref().map(|text| word("held reason", text)).transpose()?,
        due_at: Timestamp(row.due_at),
        send_at: row.send_at.map(Timestamp),
        order_at: Timestamp(row.order_at),
        attempts: u32::try_from(row.attempts).unwrap_or(0),
        attempts_before: u32::try_from(row.attempts_before).unwrap_or(0),
        retries: u32::try_from(row.retries).unwrap_or(0),
        asynchronous: row.asynchronous,
        error_code: row.error_code,
        error: row.error,
        request_id: row.request_id,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
        ended_at: row.ended_at.map(Timestamp),
        discarded_at: row.discarded_at.map(Timestamp),
        receipt: row.receipt.as_deref().map(|text| word("receipt", text)).transpose()?,
    })
}

fn row(sealer: &Sealer, job: &NewJob) -> Result<Model, StoreError> {
    let content = serde_json::to_vec(&job.content).map_err(|_| StoreError::bug("content does not serialise"))?;
    // a time that is past runs now, and jumps no queue
    let order_at = job.send_at.map_or(job.created_at, |at| at.max(job.created_at)).0;
    Ok(Model {
        id: job.id.0,
        instance_pk: job.instance_pk,
        correlation_id: job.correlation_id.as_str().to_owned(),
        message_id: job.message_id.as_str().to_owned(),
        chat: job.chat.clone(),
        priority: job.priority.as_str().to_owned(),
        content: sealer.seal(&content_place(job.instance_pk, job.id), &content)?,
        proto: None,
        state: job.state.as_str().to_owned(),
        held: job.held.map(|reason| reason.as_str().to_owned()),
        due_at: order_at,
        send_at: job.send_at.map(|at| at.0),
        order_at,
        attempts: 0,
        asynchronous: job.asynchronous,
        error_code: None,
        error: None,
        request_id: job.request_id.clone(),
        created_at: job.created_at.0,
        updated_at: job.created_at.0,
        ended_at: None,
        retries: 0,
        attempts_before: 0,
        discarded_at: None,
        receipt: None,
    })
}
