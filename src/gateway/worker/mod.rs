//! Lanes and attempts: the life of a job from its row to its end.

mod acks;
mod attempt;
mod known;
mod lane;
mod limits;
mod marks;
mod ready;
mod settle;
mod settling;

pub(crate) use lane::{Lane, spawn_lane};

use kero_domain::{EventKind, JobState, NewEvent, Priority, Timestamp};
use kero_store::Job;
use std::sync::Arc;

/// The unit of order: sends of one instance with one key go out one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    pub chat: Arc<str>,
    pub priority: Priority,
}

impl LaneKey {
    pub(crate) fn of(job: &Job) -> Self {
        Self { chat: job.chat.as_str().into(), priority: job.priority }
    }
}

/// The `message_ack` event of a job's end: the seed's keys, then `code` and `attempts`.
pub(crate) fn ack_event(
    job: &Job,
    state: JobState,
    error: Option<(&str, &str)>,
    attempts: u32,
    at: Timestamp,
) -> NewEvent {
    let mut data = serde_json::Map::new();
    data.insert("status".into(), state.as_str().into());
    data.insert("correlation_id".into(), job.correlation_id.as_str().into());
    if state == JobState::Sent {
        data.insert("message_id".into(), job.message_id.as_str().into());
    }
    if let Some((code, sentence)) = error {
        data.insert("error".into(), sentence.into());
        data.insert("code".into(), code.into());
    }
    data.insert("attempts".into(), attempts.into());
    let mut event = NewEvent::new(EventKind::MessageAck, job.chat.as_str(), at, data.into());
    // exactly one for each promise: a retried dead letter is a new one
    event.dedupe_key = Some(match job.retries {
        0 => format!("a|{}", job.id),
        retries => format!("a|{}|{retries}", job.id),
    });
    event.message_id = Some(job.message_id.as_str().to_owned());
    event.request_id.clone_from(&job.request_id);
    event
}
