//! What waits, on the wire.

use super::time::Moment;
use super::words::{HeldReason, JobState};
use kero_domain::{InstanceId, Timestamp};
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

/// How many jobs are held, by reason.
#[derive(Object, Default)]
pub(crate) struct HeldCounts {
    pub offline: u64,
    pub scheduled: u64,
    pub retry: u64,
    pub rate: u64,
    pub reach_out_lock: u64,
    pub in_doubt: u64,
}

/// The queue of one instance.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct InstanceQueue {
    pub instance_id: String,
    /// Jobs that have not ended.
    pub depth: u64,
    /// Of these, the held ones.
    pub held: HeldCounts,
    /// When the oldest of them was accepted.
    pub oldest_at: Option<Moment>,
    /// Seconds since then; 0 when nothing waits.
    pub oldest_age: u64,
    /// Accepted in the last minute.
    pub accepted_per_minute: u32,
    /// Sent in the last minute.
    pub sent_per_minute: u32,
    /// Failed in the last minute.
    pub failed_per_minute: u32,
}

impl InstanceQueue {
    pub fn new(id: InstanceId, queue: kero_gateway::InstanceQueue) -> Self {
        use kero_domain::HeldReason as Reason;
        let held = |reason: Reason| queue.held.get(reason.as_str()).copied().unwrap_or(0);
        let age = queue.oldest.map_or(0, |oldest| oldest.until(Timestamp::now()).as_secs());
        Self {
            instance_id: id.into(),
            depth: queue.depth,
            held: HeldCounts {
                offline: held(Reason::Offline),
                scheduled: held(Reason::Scheduled),
                retry: held(Reason::Retry),
                rate: held(Reason::Rate),
                reach_out_lock: held(Reason::ReachOutLock),
                in_doubt: held(Reason::InDoubt),
            },
            oldest_at: Moment::maybe(queue.oldest),
            oldest_age: age,
            accepted_per_minute: queue.rates.accepted,
            sent_per_minute: queue.rates.sent,
            failed_per_minute: queue.rates.failed,
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
    /// Instances with jobs that wait, or that sent something in the last minute.
    pub instances: Vec<InstanceQueue>,
    /// The sum of the counts.
    pub total: u64,
    pub paused: bool,
    /// Absent without Redis, while it does not answer, and for a key of one instance.
    pub lists: Option<QueueLists>,
}
