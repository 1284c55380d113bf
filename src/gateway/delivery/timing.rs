//! Where the time of an exchange goes: looking up the name, connecting, waiting, in all.
//!
//! The client resolves and connects within the task that asks for it, so a task-local cell collects what the resolver
//! and the connector measure. An exchange over an open connection has neither.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Parts of an exchange's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timings {
    pub dns: Option<Duration>,
    /// DNS, TCP and TLS together.
    pub connect: Option<Duration>,
    /// Until status and headers were there.
    pub first_byte: Option<Duration>,
    pub total: Duration,
}

#[derive(Default)]
struct Measured {
    dns: Cell<Option<Duration>>,
    connect: Cell<Option<Duration>>,
}

tokio::task_local! {
    static MEASURED: Measured;
}

/// Runs an exchange and measures it.
pub(crate) async fn measured<F: Future>(exchange: F) -> (F::Output, Timings) {
    MEASURED
        .scope(Measured::default(), async {
            let started = Instant::now();
            let output = exchange.await;
            let total = started.elapsed();
            let (dns, connect) = MEASURED.with(|parts| (parts.dns.get(), parts.connect.get()));
            (output, Timings { dns, connect, first_byte: None, total })
        })
        .await
}

/// The name was looked up.
pub(super) fn resolved(took: Duration) {
    let _ = MEASURED.try_with(|parts| parts.dns.set(Some(took)));
}

/// A connection came about, or did not.
pub(super) fn connected(took: Duration) {
    // outside of an exchange when the pool went on with it in the background
    let _ = MEASURED.try_with(|parts| parts.connect.set(Some(took)));
}
