//! The store: rows in SQLite or Postgres behind typed calls. The only room that names sea-orm.
//!
//! Reads go to a reader pool. Writes are commands: they go through a channel to a writer, which takes what waits,
//! runs it as one transaction with one statement per kind, and answers each caller after the commit ([`writer`]).
//! A write that belongs to an instance's owner carries the owner's epoch and is refused when that has moved on.
//!
//! Secrets and content are sealed before they reach the writer; the keys by which rows are found are not.
//! Times are Unix milliseconds. Nothing here logs; errors are returned.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod append;
mod conn;
mod deliveries;
pub mod device;
mod endpoints;
mod entity;
mod error;
mod events;
mod fan_out;
mod hook_chains;
mod hooked;
mod instances;
mod jobs;
mod journal;
mod keys;
mod kv;
mod plugins;
mod retention;
mod seal;
mod sql;
mod store;
#[doc(hidden)]
pub mod testing;
mod webhook_urls;
mod writer;

#[cfg(test)]
mod tests;

pub use append::{Appended, Entry};
pub use deliveries::{
    Attempt, Claimed, Delivery, DeliveryFilter, DeliveryLine, DeliveryOutcome, Line, Pending, Replay, Trigger, Wanting,
};
pub use endpoints::{Endpoint, EndpointChange, NewEndpoint, OldSecret};
pub use error::{Source, StoreError};
pub use events::{Event, FanOut, FannedOut, NewDelivery, RawEvent, Verdict};
pub use hook_chains::{HookCall, NewHookCall, NewHookChain};
pub use hooked::{HookSend, Hooked, Shaped};
pub use instances::Instance;
pub use jobs::{
    Accepted, AttemptCount, DeadFilter, DueJob, Idempotency, IntentOutcome, Job, JobName, LaneAhead, NewJob, NextJob,
    QueueCount, QueuedJob, Report, Settled, Settlement,
};
pub use journal::Reading;
pub use keys::ApiKey;
pub use kv::{KvChange, KvWrite};
pub use plugins::{NewPluginVersion, Plugin, PluginChange, PluginVersion};
pub use retention::{Keep, Pruned};
pub use seal::MasterKey;
pub use store::{Database, Durability, Store, StoreConfig, StoreStats};
