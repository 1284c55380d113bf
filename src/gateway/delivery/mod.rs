//! Deliveries: signed POSTs of fanned-out events, in order per chat, retried until they are accepted or dead.
//!
//! The [`dispatch`]er claims what is due and gives every line its [`turn`]. An [`attempt`] is a chain of plain steps:
//! [`prepare`] what is sent, [`exchange`] it, [`classify`] the outcome, schedule, record. Before an endpoint's exchanges
//! stands its [`gate`] (breaker, rate limit); [`places`] keeps slow endpoints from holding up the others.

mod attempt;
pub mod breaker;
pub(crate) mod classify;
pub(crate) mod client;
mod dispatch;
pub(crate) mod exchange;
mod gate;
mod gauges;
pub mod guard;
mod places;
pub(crate) mod prepare;
mod resolve;
pub(crate) mod sample;
mod sample_data;
pub mod sign;
pub(crate) mod timing;
mod turn;

pub use breaker::BreakerConfig;
pub use sample::Sampled;

use crate::Gateway;
use client::Client;
use ipnet::IpNet;
use kero_domain::EndpointId;
use kero_store::Delivery;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest an endpoint may set for an exchange.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Networks that the guard lets through although they are private.
    pub allow_networks: Vec<IpNet>,
    /// Hosts (`n8n`, `*.internal`) that may have internal addresses.
    pub allow_hosts: Vec<String>,
    /// The whole exchange: name, connection, request, answer. Endpoints may set their own.
    pub timeout: Duration,
    /// Waits after failed attempts; one more attempt than entries. Endpoints may set their own.
    pub schedule: Vec<Duration>,
    /// Exchanges under way at once with endpoints that answer fast, and as many with slow ones.
    pub concurrency: usize,
    /// Exchanges under way at once with one endpoint, each of another chat.
    pub per_endpoint: usize,
    /// Bytes of an answer that are read.
    pub max_response: usize,
    /// The largest body that is sent; a larger one becomes a thin event.
    pub max_payload: usize,
    /// Where clients reach the gateway, for the thin events' `fetch_url`; a path alone without it.
    pub public_url: Option<String>,
    pub breaker: BreakerConfig,
    /// How long an endpoint may fail without one success before it is disabled.
    pub disable_after: Duration,
    /// Endpoints of one instance, and global ones.
    pub max_endpoints: u64,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        let secs = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
        Self {
            allow_networks: Vec::new(),
            allow_hosts: Vec::new(),
            timeout: Duration::from_secs(15),
            schedule: secs.map(Duration::from_secs).to_vec(),
            concurrency: 64,
            per_endpoint: 8,
            max_response: 16 * 1024,
            max_payload: 256 * 1024,
            public_url: None,
            breaker: BreakerConfig::default(),
            disable_after: Duration::from_secs(5 * 86_400),
            max_endpoints: 20,
        }
    }
}

/// What the dispatcher is told.
enum Input {
    /// Deliveries to these endpoints may be due.
    Due(Vec<EndpointId>),
    /// An endpoint's row is not what it was.
    Changed(EndpointId),
    /// Somebody believes that the endpoint answers now.
    Asked(EndpointId),
    /// Something may be due somewhere.
    Anything,
}

/// Tells the dispatcher what to look at, and holds what every exchange needs.
#[derive(Clone)]
pub(crate) struct DeliveryHandle {
    inbox: mpsc::UnboundedSender<Input>,
    http: Client,
    config: Arc<DeliveryConfig>,
}

/// The dispatcher's end of the handle.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Input>);

impl DeliveryHandle {
    /// Something may be due, nobody knows where. Costs a look at every endpoint.
    #[allow(dead_code, reason = "for callers that do not know the endpoints")]
    pub(crate) fn wake(&self) {
        let _ = self.inbox.send(Input::Anything);
    }

    /// Something may be due for these endpoints.
    pub(crate) fn due(&self, endpoints: Vec<EndpointId>) {
        if !endpoints.is_empty() {
            let _ = self.inbox.send(Input::Due(endpoints));
        }
    }

    /// Somebody asked for deliveries to this endpoint, or saw it answer: one that is left alone is probed at once.
    pub(crate) fn asked(&self, endpoint: EndpointId) {
        let _ = self.inbox.send(Input::Asked(endpoint));
    }

    fn changed(&self, endpoint: EndpointId) {
        let _ = self.inbox.send(Input::Changed(endpoint));
    }

    /// The waits after failed attempts of a delivery.
    fn schedule<'a>(&'a self, delivery: &'a Delivery) -> &'a [Duration] {
        delivery.endpoint.schedule.as_deref().unwrap_or(&self.config.schedule)
    }
}

pub(crate) fn channel(config: &DeliveryConfig) -> Result<(DeliveryHandle, Inbox), rustls::Error> {
    let (inbox, outbox) = mpsc::unbounded_channel();
    let http = Client::new(config)?;
    Ok((DeliveryHandle { inbox, http, config: Arc::new(config.clone()) }, Inbox(outbox)))
}

pub(crate) async fn run(gateway: Gateway, inbox: Inbox) {
    dispatch::run(gateway, inbox.0).await;
}

impl Gateway {
    /// What is cached of an endpoint is stale: it was made, changed, deleted, disabled. `instance_pk` is its owner's.
    pub(crate) fn endpoint_changed(&self, instance_pk: Option<i64>, id: EndpointId) {
        match instance_pk {
            Some(pk) => self.inner.fanout.endpoints_changed(pk),
            None => self.inner.fanout.all_endpoints_changed(),
        }
        self.inner.delivery.changed(id);
    }
}
