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

/// The jobs that have not ended.
#[derive(Object)]
pub(crate) struct Queue {
    /// Always true.
    pub success: bool,
    pub data: Vec<QueueRow>,
    /// The sum of the counts.
    pub total: u64,
}
