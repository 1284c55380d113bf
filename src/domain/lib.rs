//! Words and rules of Kero: identifiers, addresses, content, states, events, retry schedules and client-visible faults.
//!
//! No I/O, no async, no SQL, no HTTP. Everybody may know this room; it knows nobody.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod address;
pub mod content;
pub mod endpoint;
pub mod event;
pub mod fault;
pub mod ids;
pub mod instance;
pub mod job;
pub mod rate;
pub mod recent;
pub mod retry;
pub mod text;
pub mod time;

pub use address::Address;
pub use content::Content;
pub use endpoint::DeliveryState;
pub use event::{EventKind, NewEvent};
pub use fault::{Class, Fault, FaultCode};
pub use ids::{ApiKeyId, CorrelationId, DeliveryId, EndpointId, EventId, IdError, InstanceId, JobId, MessageId};
pub use instance::{Cause, InstanceStatus};
pub use job::{HeldReason, JobState, Priority};
pub use recent::Recent;
pub use time::Timestamp;
