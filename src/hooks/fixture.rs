//! Capabilities that reach nothing: answers from a test case, a clock that stands, random numbers that repeat.

use crate::capabilities::{
    Capabilities, Clock, HttpAnswer, HttpCall, HttpFailure, HttpFetch, KvRead, Random, Scope, SendQuota,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a hook finds when it is run without the world.
#[derive(Debug, Default)]
pub struct Fixture {
    /// Unix milliseconds: the clock stands there.
    pub now: u64,
    pub kv: BTreeMap<String, String>,
    pub http: Vec<Stub>,
    /// Messages to any chat that are left in this minute; nothing means the grant's number.
    pub send_left: Option<u32>,
    pub seen: Seen,
}

/// What the fixture itself keeps during a run.
#[derive(Debug, Default)]
pub struct Seen {
    requests: Mutex<Vec<Requested>>,
    random: AtomicU64,
    monotonic: AtomicU64,
}

/// An answer to requests. The first that fits is used; a request that none fits fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stub {
    #[serde(default)]
    pub method: Option<String>,
    pub url: String,
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
    /// The request ends with this instead of an answer.
    #[serde(default)]
    pub fails: Option<Failing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    Timeout,
    Refused,
    TooLarge,
}

const fn ok() -> u16 {
    200
}

/// A request that a hook made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requested {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Fixture {
    pub fn capabilities(self) -> Capabilities {
        Arc::new(self).shared()
    }

    /// The same, when the requests are wanted afterwards.
    pub fn shared(self: &Arc<Self>) -> Capabilities {
        Capabilities {
            kv: Arc::clone(self) as _,
            http: Arc::clone(self) as _,
            send: Arc::clone(self) as _,
            clock: Arc::clone(self) as _,
            random: Arc::clone(self) as _,
        }
    }

    pub fn requests(&self) -> Vec<Requested> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl KvRead for Fixture {
    async fn get(&self, _: &Scope, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.kv.get(key).map(|value| value.clone().into_bytes()))
    }

    async fn used(&self, _: &Scope) -> Result<u64, String> {
        Ok(self.kv.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

#[async_trait]
impl HttpFetch for Fixture {
    async fn fetch(&self, _: &Scope, call: HttpCall) -> Result<HttpAnswer, HttpFailure> {
        let (method, url) = (call.method, call.url.to_string());
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let asked = Requested { method: method.clone(), url: url.clone(), headers: call.headers, body };
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let fits =
            |stub: &&Stub| stub.url == url && stub.method.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(&method));
        let Some(stub) = self.http.iter().find(fits) else {
            return Err(HttpFailure::Failed(format!("the case has no answer for {method} {url}: add it to http.json")));
        };
        match stub.fails {
            Some(Failing::Timeout) => Err(HttpFailure::Timeout),
            Some(Failing::Refused) => Err(HttpFailure::Failed("connection refused".to_owned())),
            Some(Failing::TooLarge) => Err(HttpFailure::TooLarge),
            None => Ok(HttpAnswer {
                status: stub.status,
                headers: stub.headers.clone().into_iter().collect(),
                body: stub.body.clone().into_bytes(),
            }),
        }
    }
}

/// Whether a text can be sent to a chat; what is said is what is wrong.
pub fn sendable(chat: &str, text: &str) -> Result<(), String> {
    let address = kero_domain::Address::parse(chat).map_err(|error| error.to_string())?;
    if matches!(address, kero_domain::Address::Broadcast(_)) {
        return Err("a broadcast list cannot be written to".to_owned());
    }
    kero_domain::Content::text(text).validate().map_err(|error| error.to_string())
}

#[async_trait]
impl SendQuota for Fixture {
    async fn left(&self, _: &Scope, _: &str, per_minute: u32) -> u32 {
        self.send_left.unwrap_or(per_minute)
    }

    fn check(&self, chat: &str, text: &str) -> Result<(), String> {
        sendable(chat, text)
    }
}

impl Clock for Fixture {
    fn now(&self) -> u64 {
        self.now
    }

    /// A millisecond later at each look, so that guests which wait for time to pass do not wait for ever.
    fn monotonic(&self) -> u64 {
        self.seen.monotonic.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

impl Random for Fixture {
    /// SplitMix64 from 0.
    fn next(&self) -> u64 {
        let mut z =
            self.seen.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
