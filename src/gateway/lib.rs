//! What Kero does, in the order of the data flow: instances, intake, queue, worker, events, delivery.
//!
//! The database row is the truth; everything in memory can be rebuilt from it. This room owns the life of a message
//! (`intake → queue → worker → whatsapp`) and the life of an event (`whatsapp → events → delivery`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod crash;
mod dead_letters;
mod deliveries;
pub mod delivery;
mod endpoints;
mod errors;
pub mod events;
mod health;
pub mod hooks;
pub mod instances;
pub mod intake;
mod load;
pub mod queue;
mod read;
mod retention;
mod webhooks;
pub mod worker;

pub use dead_letters::{LetterFilter, Retried};
pub use delivery::{BreakerConfig, DeliveryConfig, Sampled};
pub use endpoints::{EndpointSettings, ReplayRange, Replayed, WithSecret};
pub use events::{Ended, EventPage, Follow, Follower};
pub use health::{Health, RedisHealth};
pub use hooks::HooksConfig;
pub use instances::{CreateInstance, PairCode, QrCode, StatusView, UpdateInstance};
pub use intake::{SendReply, SendRequest};
pub use load::Rates;
pub use queue::{QueueKeys, QueueLengths};
pub use read::{InstanceQueue, QueueView};
pub use retention::Retention;
pub use webhooks::PutWebhook;

use kero_domain::retry::Schedule;
use kero_store::{Store, StoreError};
use kero_whatsapp::LinkConfig;
use secrecy::SecretString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the gateway is told at boot.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub link: LinkConfig,
    /// How long a synchronous send waits for its end.
    pub sync_timeout: Duration,
    /// How long an attempt waits for WhatsApp's acknowledgement before its outcome counts as unknown.
    pub ack_timeout: Duration,
    /// How long an in-doubt send waits after a reconnect for a receipt that settles it.
    pub doubt_wait: Duration,
    /// How long a send stays held under WhatsApp's reach-out restriction (code 463) before it fails.
    pub reach_out_limit: Duration,
    pub retry: Schedule,
    pub delivery: DeliveryConfig,
    pub hooks: HooksConfig,
    /// Keep each message as WhatsApp sent it beside its event.
    pub keep_raw: bool,
    pub redis_url: Option<SecretString>,
    /// Certificates (PEM) that Redis' own must lead to, in the place of the well-known ones.
    pub redis_ca: Option<Vec<u8>>,
    pub queue_keys: QueueKeys,
    /// Start with the queue paused: nothing leaves `kero_message_queue`.
    pub queue_paused: bool,
    /// Jobs of one instance that may wait at once.
    pub max_jobs: u64,
    /// Jobs of all instances that may wait at once.
    pub max_jobs_total: u64,
    pub retention: Retention,
    /// How often the lists are compared with the rows.
    pub reconcile_every: Duration,
    /// Pause between the starts of paired instances at boot.
    pub resume_pace: Duration,
    /// First wait before a reconnect; doubles up to `reconnect_ceiling`.
    pub reconnect_base: Duration,
    pub reconnect_ceiling: Duration,
    /// How long a pairing may take before the instance gives up.
    pub pairing_timeout: Duration,
    /// Sends of one instance that may be on the wire at once, each in another chat.
    pub lane_concurrency: usize,
    /// Messages a minute that an instance may send; 0: as many as there are.
    pub rate_per_instance: u32,
    /// The same to one recipient.
    pub rate_per_recipient: u32,
    /// Messages at once after a rest.
    pub rate_burst: u32,
    pub version: &'static str,
}

/// The gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database does not answer")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Link(#[from] kero_whatsapp::LinkError),
    #[error("the HTTP client for deliveries could not be built")]
    Http(#[source] rustls::Error),
    #[error("the Redis URL is not valid: {0}")]
    Redis(String),
}

/// A cheap handle on everything the gateway holds.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub config: GatewayConfig,
    pub instances: instances::Registry,
    pub waiters: intake::Waiters,
    pub fanout: events::FanOutHandle,
    pub feed: events::Feed,
    pub delivery: delivery::DeliveryHandle,
    pub hooks: hooks::Hooks,
    pub queue: Arc<dyn queue::Queue>,
    pub load: load::Load,
    pub paused: AtomicBool,
    /// Held while the queue is being read.
    pub queue_turn: tokio::sync::Mutex<()>,
    pub queue_resumed: tokio::sync::Notify,
    pub ready: AtomicBool,
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl Gateway {
    /// Starts every part, resumes the paired instances (paced, in the background) and takes up unfinished work.
    pub async fn start(store: Store, config: GatewayConfig) -> Result<Self, StartError> {
        kero_whatsapp::check_url(config.link.url.as_deref())?;
        let (fanout, fanout_inbox) = events::channel();
        let (delivery, delivery_inbox) = delivery::channel(&config.delivery).map_err(StartError::Http)?;
        // connections of its own, apart from the deliveries'
        let http = delivery::client::Client::new(&config.delivery).map_err(StartError::Http)?;
        let hooks = hooks::Hooks::new(config.hooks.clone(), http, store.derived_key("compiled hooks"));
        let queue = queue::build(&config).map_err(StartError::Redis)?;
        let gateway = Self {
            inner: Arc::new(Inner {
                instances: instances::Registry::default(),
                waiters: intake::Waiters::default(),
                fanout,
                feed: events::Feed::default(),
                delivery,
                hooks,
                queue,
                load: load::Load::default(),
                paused: AtomicBool::new(config.queue_paused),
                queue_turn: tokio::sync::Mutex::default(),
                queue_resumed: tokio::sync::Notify::new(),
                ready: AtomicBool::new(false),
                stopping: CancellationToken::new(),
                tasks: TaskTracker::new(),
                store,
                config,
            }),
        };
        // A synchronous job whose request died with the last process still owes its caller an end.
        gateway.store().release_orphaned_sync_jobs().await?;
        // before anything is fanned out: an event must not go by a hook that is not in place yet
        hooks::load(&gateway).await?;
        load::count(&gateway).await?;
        // before anything is delivered: what a delivery's hooks store and send belongs to its instance
        instances::load(&gateway).await?;
        let spawn = |task| {
            gateway.inner.tasks.spawn(task);
        };
        spawn(boxed(events::run(gateway.clone(), fanout_inbox)));
        spawn(boxed(delivery::run(gateway.clone(), delivery_inbox)));
        spawn(boxed(queue::read(gateway.clone())));
        spawn(boxed(queue::tend(gateway.clone())));
        spawn(boxed(hooks::tend(gateway.clone())));
        spawn(boxed(retention::run(gateway.clone())));
        spawn(boxed(instances::resume(gateway.clone())));
        spawn(boxed(instances::watch_poisoned(gateway.clone())));
        gateway.inner.ready.store(true, Ordering::Release);
        Ok(gateway)
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    /// Started, and not stopping.
    pub fn ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire) && !self.inner.stopping.is_cancelled()
    }

    /// Stops in order: no new work, links flushed and closed, running attempts and deliveries ended. What is left
    /// undone at the deadline stays in its rows and is taken up at the next start.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.stopping.cancel();
        instances::stop_all(self).await;
        self.inner.tasks.close();
        if tokio::time::timeout(deadline, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                "tasks were still running at the shutdown deadline; their work is taken up at the next start"
            );
        }
    }
}

fn boxed(task: impl Future<Output = ()> + Send + 'static) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(task)
}
