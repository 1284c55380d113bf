//! What hooks can reach, as the gateway provides it. Guest code calls none of this directly: the host checks the grant
//! and the limits first.
//!
//! Futures of these traits run on the runtime that the call came from, never on the guests'.

use async_trait::async_trait;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Whose call it is: the key of a plugin's storage and quotas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    pub plugin: String,
    pub instance: String,
    pub event: String,
    /// The event's id, or the delivery's; with the step, no two calls that may both have effects have the same.
    pub about: String,
    /// Of a delivery: `shape`, or `judge-` and the number of the attempt.
    pub step: Option<String>,
}

impl Scope {
    /// The name of the n-th thing of its sort that a call asks for: the same in every try of the call.
    pub(crate) fn name(&self, joint: char, n: impl std::fmt::Display) -> String {
        let (about, plugin) = (&self.about, &self.plugin);
        match &self.step {
            None => format!("{about}{joint}{plugin}{joint}{n}"),
            Some(step) => format!("{about}{joint}{plugin}{joint}{step}{joint}{n}"),
        }
    }
}

/// A plugin's storage. Writes are staged ([`crate::effects`]), so there are none here.
#[async_trait]
pub trait KvRead: Send + Sync {
    /// The live value (expired ones are absent). An error is told to the guest as `unavailable`.
    async fn get(&self, scope: &Scope, key: &str) -> Result<Option<Vec<u8>>, String>;

    /// Bytes of keys and values that are stored for the plugin and the instance.
    async fn used(&self, scope: &Scope) -> Result<u64, String>;
}

/// A request that the grant allows.
#[derive(Debug, Clone)]
pub struct HttpCall {
    pub method: String,
    pub url: Url,
    /// Lower-case names; neither `host` nor the connection's.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// For the whole request.
    pub timeout: Duration,
    /// Bytes of the answer's body after which to stop with [`HttpFailure::TooLarge`].
    pub response_limit: usize,
}

#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpFailure {
    /// The guard refused the address.
    Denied(String),
    Timeout,
    TooLarge,
    Failed(String),
}

/// HTTP through the gateway's guard: private networks closed, redirects not followed, names checked when resolved.
#[async_trait]
pub trait HttpFetch: Send + Sync {
    async fn fetch(&self, scope: &Scope, call: HttpCall) -> Result<HttpAnswer, HttpFailure>;
}

/// How many messages a plugin may still send.
#[async_trait]
pub trait SendQuota: Send + Sync {
    /// Messages to `chat` that are left in the current minute of `per_minute`. Staged ones are not counted yet.
    async fn left(&self, scope: &Scope, chat: &str, per_minute: u32) -> u32;

    /// Whether `chat` is an address that this text can go to; what is said is what is wrong.
    fn check(&self, chat: &str, text: &str) -> Result<(), String>;
}

/// Both clocks that guests see.
pub trait Clock: Send + Sync {
    /// Unix milliseconds.
    fn now(&self) -> u64;
    /// Nanoseconds since some moment; never goes back.
    fn monotonic(&self) -> u64;
}

pub trait Random: Send + Sync {
    fn next(&self) -> u64;
}

/// Everything at once. Cheap to clone.
#[derive(Clone)]
pub struct Capabilities {
    pub kv: Arc<dyn KvRead>,
    pub http: Arc<dyn HttpFetch>,
    pub send: Arc<dyn SendQuota>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        u64::try_from(kero_domain::Timestamp::now().0).unwrap_or(0)
    }

    fn monotonic(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The operating system's random numbers, by way of a generator for cryptography.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next(&self) -> u64 {
        rand::random()
    }
}
