//! Where the time of an exchange goes: looking up the name, connecting, waiting, in all.
//!
//! The client resolves and connects within the task that asks for it, so a task-local cell collects what the resolver
//! and the connector measure. An exchange over an open connection has neither.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

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

/// Measures the client's connector.
#[derive(Clone)]
pub(super) struct Timed;

#[derive(Clone)]
pub(super) struct TimedConnector<S>(S);

impl<S> Layer<S> for Timed {
    type Service = TimedConnector<S>;
    fn layer(&self, inner: S) -> TimedConnector<S> {
        TimedConnector(inner)
    }
}

impl<R, S> Service<R> for TimedConnector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        Box::pin(async move {
            let started = Instant::now();
            let connected = connecting.await;
            // outside of an exchange when the pool went on with it in the background
            let _ = MEASURED.try_with(|parts| parts.connect.set(Some(started.elapsed())));
            connected
        })
    }
}
