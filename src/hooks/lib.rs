//! Hooks: WebAssembly between events and endpoints, without trusting it.
//!
//! A hook is a component with no ambient authority. It gets an event, answers a verdict, and may ask for effects; the
//! gateway does everything that touches the world. The only crate that names wasmtime.
//!
//! ```text
//! upload ─ compile ─ info ─────────────► Compiled ─┐
//! plugin.toml ─ manifest ── grants ────────────────┴─► Hook
//! event ─ chain ─ run ─ call ─ instance ─ versions/v0_1 ─ guest ─ host/ ─ capabilities (traits the gateway implements)
//!                  └─ verdict · ack rule · policy · breaker ─► End, Effects, Records: what the gateway commits
//! ```
//!
//! What holds:
//! - Nothing a guest does has an effect before the gateway commits the verdict: writes and sends are staged, and a call
//!   that fails leaves none.
//! - Guests run on threads of their own. One that spins is stopped after its CPU budget, and until then never holds the
//!   last free thread.
//! - An instance that trapped is never entered again; without `reuse` no instance serves two calls, and with it none
//!   serves two WhatsApp instances.
//! - Compiled code is never taken from outside.
//! - No capability is reachable without its grant: the guest is answered `denied`.
//! - The crate knows neither store nor gateway: capabilities are traits ([`capabilities`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod ack;
pub mod breaker;
pub mod cache;
pub mod call;
pub mod capabilities;
pub mod cases;
pub mod chain;
mod check;
mod compile;
pub mod dry;
pub mod effects;
mod engine;
mod error;
mod event;
pub mod fixture;
pub mod grants;
mod hook;
mod host;
mod info;
mod instances;
mod limits;
pub mod manifest;
pub mod policy;
pub mod run;
mod snapshot;
pub mod template;
mod v0_1;
#[cfg(test)]
#[path = "tests/next/v0_2.rs"]
mod v0_2;
pub mod verdict;
mod versions;
mod work;

pub use cache::CacheConfig;
pub use call::{Cost, Delivery, HostCalls, Ran, Setting};
pub use capabilities::Capabilities;
pub use compile::{Compiled, RUNNER};
pub use effects::{Effects, KvChange, KvWrite, StagedSend};
pub use engine::{Host, HostConfig, StartError};
pub use error::{Class, CompileError, HookError, Kind as ErrorKind};
pub use event::Event;
pub use grants::Grants;
pub use hook::{Hook, Seat};
pub use host::log::{Level, LogLine};
pub use info::Info;
pub use limits::{Limits, Maxima, Wishes};
pub use manifest::{Kind, Manifest, ManifestError};
pub use verdict::{Judgement, Request, Response, Verdict};
pub use versions::VERSIONS;
