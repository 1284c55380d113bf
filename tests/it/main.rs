//! The one integration binary: the real `kero` process, the simulated WhatsApp, real sockets.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod attempts;
mod away;
mod bad_input;
mod baileys;
mod callers;
mod catalogue;
mod changed;
mod chaos;
mod counts;
mod crash;
mod dead_letters;
mod endpoints;
mod foreign;
mod guard;
mod hangups;
mod hooks;
mod hostile;
mod house;
mod http2;
mod jobs;
mod ledger;
mod lifecycle;
mod measured;
mod promises;
mod queue;
mod rates;
mod reading;
mod receipts;
mod redis_faults;
mod room;
mod scale;
mod seed;
mod shares;
mod streams;
mod support;
mod tampering;
mod tls;
mod verify;
mod webhook;
mod worker;
