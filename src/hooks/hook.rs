//! A plugin in its place: artefact, manifest, grants and settings together, ready to be called.

use crate::breaker::Breaker;
use crate::compile::Compiled;
use crate::engine::{Host, Inner};
use crate::grants::Grants;
use crate::host::log::LogLine;
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestError, Name};
use crate::versions;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Immutable but for its breaker: other settings or another version are another `Hook`. A call holds its own, so the
/// gateway may put a new one in place at any time: begun calls end on the old. Dropping the last one drops the
/// instances that wait for reuse.
pub struct Hook {
    seat: Arc<Seat>,
    pub(crate) places: Semaphore,
    /// Calls that wait for one of them.
    queue: AtomicUsize,
    breaker: Mutex<Breaker>,
    logged: Mutex<Logged>,
}

/// Bytes of log in a minute (Unix minutes).
#[derive(Default)]
struct Logged {
    minute: i64,
    bytes: usize,
}

/// Bytes of log per plugin and minute.
const LOG_MINUTE: usize = 1 << 20;

/// What a running guest is bound to.
pub struct Seat {
    pub manifest: Manifest,
    pub compiled: Compiled,
    /// In force: asked for and given.
    pub grants: Grants,
    pub limits: Limits,
    pub(crate) config: Map<String, Value>,
    pub(crate) config_text: String,
    /// Unique in the process: the key of waiting instances.
    pub(crate) id: u64,
    pub(crate) host: Arc<Inner>,
}

impl std::ops::Deref for Hook {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl Hook {
    /// `given` are the operator's grants; `config` is checked by the manifest's schema.
    pub fn new(
        host: &Host,
        manifest: Manifest,
        compiled: Compiled,
        given: &Grants,
        config: Value,
    ) -> Result<Arc<Self>, ManifestError> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        if !compiled.is(manifest.kind) {
            let exports = compiled.info().exports.join(", ");
            let kind = manifest.kind.as_str();
            return Err(ManifestError(format!("kind = {kind:?}, but the artefact exports {exports}")));
        }
        let built = &compiled.info().wit;
        if manifest.wit() != Some(versions::minor(built)) {
            let api = &manifest.api;
            return Err(ManifestError(format!("api = {api:?}, but the artefact was built against version {built}")));
        }
        if let Some((pointer, complaint)) = manifest.check_config(&config).into_iter().next() {
            return Err(ManifestError(format!("config{pointer}: {complaint}")));
        }
        let config_text = config.to_string();
        let Value::Object(config) = config else { return Err(ManifestError("config: must be an object".to_owned())) };
        let settings = host.config();
        let places = Semaphore::new(settings.calls_per_plugin.max(1));
        let seat = Seat {
            grants: manifest.grants.meet(given),
            limits: settings.limits.with(manifest.limits, settings.maxima),
            host: Arc::clone(&host.inner),
            id: IDS.fetch_add(1, Ordering::Relaxed),
            manifest,
            compiled,
            config,
            config_text,
        };
        let (queue, breaker, logged) = (AtomicUsize::default(), Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { seat: Arc::new(seat), places, queue, breaker, logged }))
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    pub fn name(&self) -> &Name {
        &self.manifest.name
    }

    /// The lines that the plugin's share of this minute has room for, and the bytes of the others.
    pub(crate) fn within_the_minute(&self, lines: Vec<LogLine>, now: i64) -> (Vec<LogLine>, u64) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.div_euclid(60_000);
        if logged.minute != minute {
            *logged = Logged { minute, bytes: 0 };
        }
        let mut over = 0;
        let mut kept = lines;
        kept.retain(|line| {
            let fits = logged.bytes + line.text.len() <= LOG_MINUTE;
            if fits {
                logged.bytes += line.text.len()
            } else {
                over += line.text.len() as u64
            }
            fits
        });
        (kept, over)
    }

    /// A call waits for a place, until this is dropped.
    pub(crate) fn queued(&self) -> Queued<'_> {
        self.queue.fetch_add(1, Ordering::Relaxed);
        Queued(&self.queue)
    }

    /// Calls that wait for a place, for metrics.
    pub fn queue_depth(&self) -> usize {
        self.queue.load(Ordering::Relaxed)
    }

    /// For the admin API and the chains.
    pub fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.host.forget(self.id);
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook({} {})", self.manifest.name, self.manifest.version)
    }
}
