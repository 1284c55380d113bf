//! What waits, on the wire.

use super::time::Moment;
use super::words::{HeldReason, JobState};
use poem_openapi::Object;

/// How many jobs of an instance are in a state.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct QueueRow {
    pub instance_id: String,
    pub state: JobState,
    pub held_reason: Option<HeldReason>,
    pub count: u64,
    /// When the oldest of them was accepted.
    pub oldest_at: Moment,
}

impl From<kero_store::QueueCount> for QueueRow {
    fn from(row: kero_store::QueueCount) -> Self {
        Self {
            instance_id: row.instance_id.into(),
            state: row.state.into(),
            held_reason: row.held.map(HeldReason::from),
            count: row.count,
            oldest_at: row.oldest.into(),
        }
    }
}

/// Lengths of the lists in Redis. They hold what waits for a worker, not every job: rows are the truth.
#[derive(Object)]
pub(crate) struct QueueLists {
    /// `kero_message_queue`: jobs that no worker has seen yet.
    pub message_queue: u64,
    /// `kero_processing`
    pub processing: u64,
    /// `kero_dead_letter_queue`
    pub dead_letters: u64,
}

impl From<kero_gateway::QueueLengths> for QueueLists {
    fn from(lengths: kero_gateway::QueueLengths) -> Self {
        Self {
            message_queue: lengths.message_queue,
            processing: lengths.processing,
            dead_letters: lengths.dead_letters,
        }
    }
}

/// Whether the queue is paused now.
#[derive(Object)]
pub(crate) struct QueueSwitch {
    /// Always true.
    pub success: bool,
    pub paused: bool,
}

/// The jobs that have not ended.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Queue {
    /// Always true.
    pub success: bool,
    pub data: Vec<QueueRow>,
    /// The sum of the counts.
    pub total: u64,
    pub paused: bool,
    /// Absent without Redis, while it does not answer, and for a key of one instance.
    pub lists: Option<QueueLists>,
}
