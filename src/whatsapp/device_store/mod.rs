//! whatsapp-rust's storage traits over the store: types are mapped here, rows and their rules are the store's.
//!
//! Errors are returned as they are; the client decides. A lost epoch shows as an error of every write.

mod app_sync;
mod device;
mod outgoing;
mod protocol;
mod signal;

#[cfg(test)]
mod tests;

pub(crate) use outgoing::Outgoing;

use kero_store::device::DeviceRows;
use kero_store::{Store, StoreError as KeroError};
use std::sync::Arc;
use wacore::store::error::StoreError;
use wacore::store::traits::Backend;

/// The storage of one instance's client, for the holder of one epoch.
pub struct DeviceStore {
    rows: DeviceRows,
    outgoing: Arc<Outgoing>,
}

impl DeviceStore {
    #[allow(clippy::new_ret_no_self, reason = "the client takes the trait object")]
    pub fn new(store: Store, instance_pk: i64, epoch: i64) -> Arc<dyn Backend> {
        Self::of_jobs(store, instance_pk, epoch, Arc::default())
    }

    /// The same for a client that sends the messages of jobs.
    pub(crate) fn of_jobs(store: Store, instance_pk: i64, epoch: i64, outgoing: Arc<Outgoing>) -> Arc<dyn Backend> {
        Arc::new(Self { rows: store.device(instance_pk, epoch), outgoing })
    }
}

/// Keeps the source, which says whether the epoch was lost.
fn database(error: KeroError) -> StoreError {
    match error {
        error @ (KeroError::Unavailable(_) | KeroError::Closed) => StoreError::Connection(Box::new(error)),
        error => StoreError::Database(Box::new(error)),
    }
}

fn serialization(error: serde_json::Error) -> StoreError {
    StoreError::Serialization(Box::new(error))
}

fn count(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
