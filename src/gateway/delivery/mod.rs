//! Deliveries: signed POSTs of fanned-out events, in order per chat, retried until they are accepted or dead.

//!
//! An attempt is a chain of plain steps ([`attempt`]): [`prepare`] what is sent, [`exchange`] it, [`classify`] the
//! outcome, schedule, record.

mod attempt;
pub(crate) mod classify;
pub(crate) mod exchange;
pub mod guard;
pub(crate) mod prepare;
pub mod sign;
mod timing;

use crate::Gateway;
use ipnet::IpNet;
use kero_domain::{DeliveryId, EndpointId, Timestamp};
use kero_store::Delivery;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Networks that the guard lets through although they are private.
    pub allow_networks: Vec<IpNet>,
    /// The whole exchange: connect, send, answer. Endpoints may set their own.
    pub timeout: Duration,
    /// Waits after failed attempts; one more attempt than entries.
    pub schedule: Vec<Duration>,
    /// Attempts under way at once, all endpoints together.
    pub concurrency: usize,
    /// Attempts under way at once to one endpoint.
    pub per_endpoint: usize,
    /// Bytes of an answer that are read.
    pub max_response: usize,
    /// The largest body that is sent; a larger one becomes a thin event.
    pub max_payload: usize,
    /// Where clients reach the gateway, for the thin events' `fetch_url`; a path alone without it.
    pub public_url: Option<String>,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        let secs = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
        Self {
            allow_networks: Vec::new(),
            timeout: Duration::from_secs(15),
            schedule: secs.map(Duration::from_secs).to_vec(),
            concurrency: 64,
            per_endpoint: 8,
            max_response: 16 * 1024,
            max_payload: 256 * 1024,
            public_url: None,
        }
    }
}

/// Tells the dispatcher that deliveries may be due.
#[derive(Clone)]
pub(crate) struct DeliveryHandle {
    wake: Arc<Notify>,
    http: reqwest::Client,
    config: Arc<DeliveryConfig>,
}

impl DeliveryHandle {
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The waits after failed attempts of a delivery.
    fn schedule<'a>(&'a self, delivery: &'a Delivery) -> &'a [Duration] {
        delivery.endpoint.schedule.as_deref().unwrap_or(&self.config.schedule)
    }
}

pub(crate) fn channel(config: &DeliveryConfig) -> Result<(DeliveryHandle, Arc<Notify>), reqwest::Error> {
    let wake = Arc::new(Notify::new());
    let http = guard::client(config)?;
    Ok((DeliveryHandle { wake: wake.clone(), http, config: Arc::new(config.clone()) }, wake))
}

/// How many due heads one look-up brings.
const LOOK_AHEAD: u64 = 512;
/// The longest sleep between look-ups.
const IDLE: Duration = Duration::from_secs(5);

/// The dispatcher: looks up due heads, runs their attempts, records what came back.
pub(crate) async fn run(gateway: Gateway, wake: Arc<Notify>) {
    let stopping = gateway.inner.stopping.clone();
    let config = gateway.config().delivery.clone();
    let (done, mut finished) = mpsc::unbounded_channel::<(DeliveryId, EndpointId)>();
    let mut in_flight: HashSet<DeliveryId> = HashSet::new();
    let mut per_endpoint: HashMap<EndpointId, usize> = HashMap::new();
    let mut attempts = JoinSet::new();
    loop {
        let mut sleep = IDLE;
        if !stopping.is_cancelled() && in_flight.len() < config.concurrency {
            match gateway.store().due_deliveries(Timestamp::now(), LOOK_AHEAD).await {
                Ok(due) => {
                    for delivery in due {
                        let busy = per_endpoint.get(&delivery.endpoint.id).copied().unwrap_or(0);
                        if in_flight.len() >= config.concurrency
                            || busy >= config.per_endpoint
                            || !in_flight.insert(delivery.id)
                        {
                            continue;
                        }
                        *per_endpoint.entry(delivery.endpoint.id).or_default() += 1;
                        let (gateway, done) = (gateway.clone(), done.clone());
                        attempts.spawn(async move {
                            let (id, endpoint) = (delivery.id, delivery.endpoint.id);
                            attempt::run(&gateway, delivery).await;
                            let _ = done.send((id, endpoint));
                        });
                    }
                    if let Ok(Some(at)) = gateway.store().next_due_delivery().await {
                        let until = Timestamp::now().until(at);
                        // heads that are due already wait for a free place, which wakes us
                        if !until.is_zero() {
                            sleep = sleep.min(until);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "due deliveries could not be read");
                    sleep = Duration::from_secs(1);
                }
            }
        }
        tokio::select! {
            () = wake.notified() => {}
            Some((id, endpoint)) = finished.recv() => {
                let mut free = |id: DeliveryId, endpoint: EndpointId| {
                    in_flight.remove(&id);
                    if let Some(busy) = per_endpoint.get_mut(&endpoint) {
                        *busy -= 1;
                        if *busy == 0 {
                            per_endpoint.remove(&endpoint);
                        }
                    }
                };
                free(id, endpoint);
                while let Ok((id, endpoint)) = finished.try_recv() {
                    free(id, endpoint);
                }
            }
            () = tokio::time::sleep(sleep) => {}
            () = stopping.cancelled(), if in_flight.is_empty() => return,
        }
        while attempts.try_join_next().is_some() {}
    }
}
