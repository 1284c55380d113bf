//! The link to WhatsApp: the only crate that names `whatsapp-rust`.
//!
//! A [`Link`] is **one connection life** of one instance: it dials, pairs when asked to, carries messages both ways, and
//! ends. It never reconnects after a loss; the instance's actor owns back-off and jitter and calls [`Link::start`] again
//! (the client is rebuilt from the device store, so nothing stale survives a connection). The one exception is the
//! restart that WhatsApp orders after pairing: the link dials again by itself, at once.
//!
//! - `link.rs`, `driver.rs`: start, stop, send; the life of a connection and how it ended.
//! - `transport.rs`, `http.rs`, `guard.rs`: sockets of our own, and the rule that only loopback may be configured.
//! - `events/`: what the client reports → [`LinkEvent`], in order.
//! - `inbound/`: messages → [`NewEvent`](kero_domain::NewEvent), pure, a file per kind.
//! - `raw.rs`: a message's protobuf as JSON.
//! - `outbound/`: [`Content`](kero_domain::Content) → protobuf, pure, a file per kind.
//! - `recipient.rs`: number → LID, and whether a number is on WhatsApp.
//! - `device_store/`: the client's storage traits over kero-store.
//!
//! Deliberately absent: retry, queueing and any decision about a message's fate. Texts and numbers are never logged.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod device_store;
mod driver;
mod error;
mod events;
mod guard;
mod hook;
mod http;
pub mod inbound;
mod link;
pub mod outbound;
mod pairing;
mod people;
mod raw;
mod recipient;
#[cfg(test)]
mod simulated;
mod transport;

pub use error::{LinkError, SendError};
pub use events::{LinkEvent, ReceiptIn, receipt_event};
pub use guard::check_url;
pub use hook::{Inbound, InboundMessage};
pub use link::{Link, LinkConfig, is_paired};
pub use pairing::PairBy;
pub use raw::raw_json;
