//! The one integration binary: the real `kero` process, the simulated WhatsApp, real sockets.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod baileys;
mod chaos;
mod counts;
mod crash;
mod dead_letters;
mod endpoints;
mod foreign;
mod hooks;
mod hostile;
mod house;
mod lifecycle;
mod promises;
mod queue;
mod rates;
mod redis_faults;
mod room;
mod scale;
mod seed;
mod support;
mod tampering;
mod webhook;
mod worker;
