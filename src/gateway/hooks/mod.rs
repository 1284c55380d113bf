//! Hooks in the gateway: which plugins are active, what they can reach, and their part in fan-out and delivery.
//!
//! kero-hooks runs them and decides what their verdicts come to; here that is committed. [`registry`] holds the plugins
//! that are in place, [`admin`] changes them, [`fanout`] is the fan-out of an instance that has any,
//! [`capabilities`] is what they reach through their grants.

mod admin;
mod capabilities;
mod chains;
mod delivery;
mod fanout;
mod fresh;
mod gauges;
mod record;
mod registry;
mod trial;
mod upload;

pub use admin::{Activation, PluginState, PluginView, VersionView};
pub(crate) use delivery::{Shaping, held, judge, shape, took_sends};
pub(crate) use fanout::fan_out;
pub(crate) use fresh::Fresh;
pub use kero_hooks::Kind as PluginKind;
pub use kero_hooks::dry::Report;
pub(crate) use registry::load;
pub use trial::PluginTrial;
pub use upload::{BUNDLED, CaseResult, PluginUpload, Uploaded};

use crate::Gateway;
use crate::delivery::client::Client;
use fanout::Lines;
use kero_domain::{InstanceId, Timestamp};
use kero_hooks::capabilities::{SystemClock, SystemRandom};
use kero_hooks::{Capabilities, Host, HostConfig, Setting, StartError};
use registry::Table;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// What hooks are told at boot.
#[derive(Debug, Clone)]
pub struct HooksConfig {
    /// Where `plugins/build` puts the runner of `.js` hooks and the bundled ones.
    pub dist_dir: PathBuf,
    /// Where compiled code is kept.
    pub cache_dir: PathBuf,
    /// Largest artefact, in bytes.
    pub max_artefact: usize,
    /// How long an upload's compilation may take.
    pub compile_timeout: Duration,
    /// How long calls are kept; never longer than their events.
    pub keep_calls: Duration,
    /// Threads for hooks' code.
    pub workers: usize,
}

/// The hooks of a gateway.
pub(crate) struct Hooks {
    config: HooksConfig,
    cache_key: [u8; 32],
    /// Started with the first plugin: a gateway without any pays nothing.
    host: OnceCell<Host>,
    table: RwLock<Arc<Table>>,
    /// Changes of what is called are made one after the other.
    turn: tokio::sync::Mutex<()>,
    /// So are uploads, which may compile for long: nobody who wants to suspend a plugin waits for them.
    uploads: tokio::sync::Mutex<()>,
    /// By instance: what its fan-out knows beside the rows.
    lines: Mutex<HashMap<i64, Lines>>,
    waiting: delivery::Waiting,
    http: Client,
    meters: record::Meters,
    gauges: gauges::Shown,
    clock: Arc<SystemClock>,
    random: Arc<SystemRandom>,
}

impl Hooks {
    pub(crate) fn new(config: HooksConfig, http: Client, cache_key: [u8; 32]) -> Self {
        Self {
            config,
            cache_key,
            host: OnceCell::new(),
            table: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            uploads: tokio::sync::Mutex::default(),
            lines: Mutex::default(),
            waiting: delivery::Waiting::default(),
            meters: record::Meters::default(),
            gauges: gauges::Shown::default(),
            http,
            clock: Arc::default(),
            random: Arc::default(),
        }
    }

    async fn host(&self) -> Result<&Host, StartError> {
        let start = || async {
            Host::start(HostConfig {
                workers: self.config.workers,
                artefact: self.config.max_artefact,
                cache: Some(kero_hooks::CacheConfig { dir: self.config.cache_dir.clone(), key: self.cache_key }),
                dist_dir: self.config.dist_dir.clone(),
                ..HostConfig::default()
            })
        };
        self.host.get_or_try_init(start).await
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is any active plugin.
    pub(crate) fn any(&self) -> bool {
        !self.table().seats.is_empty()
    }

    /// Whether a transform may be called for an instance's events.
    pub(crate) fn transform(&self, instance: &InstanceId) -> bool {
        self.table().transforms(instance)
    }

    /// Whether chains of an instance's events run that no round waits for.
    pub(crate) fn has_begun(&self, instance_pk: i64) -> bool {
        self.lines().get(&instance_pk).is_some_and(Lines::has_begun)
    }

    /// Deliveries of an instance are made once more: those of events that a hook failed on wait for their hooks first.
    pub(crate) fn replayed(&self, gateway: &Gateway, instance_pk: i64) {
        // they may stand before everything that was looked at
        self.lines().remove(&instance_pk);
        gateway.inner.fanout.dirty(instance_pk);
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Lines>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The surroundings of a call that counts.
fn setting(gateway: &Gateway) -> Setting {
    let hooks = &gateway.inner.hooks;
    let reach = Arc::new(capabilities::Reach { gateway: gateway.clone() });
    let capabilities = Capabilities {
        kv: Arc::clone(&reach) as _,
        http: Arc::clone(&reach) as _,
        send: reach as _,
        clock: Arc::clone(&hooks.clock) as _,
        random: Arc::clone(&hooks.random) as _,
    };
    Setting { capabilities, dry_run: false }
}

/// Between deletions of what is no longer kept.
const TEND_EVERY: Duration = Duration::from_secs(600);

/// Shows what changes by itself, and deletes values that expired and calls that are no longer kept.
pub(crate) async fn tend(gateway: Gateway) {
    let stopping = gateway.inner.stopping.clone();
    let mut next = Instant::now() + TEND_EVERY;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(gauges::EVERY) => {}
        }
        if gateway.inner.hooks.host.get().is_none() {
            continue;
        }
        gauges::show(&gateway);
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + TEND_EVERY;
        let now = Timestamp::now();
        let before = now.before(gateway.inner.hooks.config.keep_calls);
        let pruned = async {
            gateway.store().prune_kv(now).await?;
            while gateway.store().prune_hook_calls(before).await? > 0 && !stopping.is_cancelled() {}
            Ok::<_, kero_store::StoreError>(())
        };
        if let Err(error) = pruned.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what hooks left could not be pruned");
        }
    }
}
