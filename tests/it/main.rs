//! The one integration binary: the real `kero` process, the simulated WhatsApp, real sockets.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod baileys;
mod chaos;
mod foreign;
mod hooks;
mod house;
mod lifecycle;
mod promises;
mod queue;
mod scale;
mod seed;
mod support;
mod webhook;
