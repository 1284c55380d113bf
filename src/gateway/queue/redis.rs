//! The queue on Redis: three lists that operators can look at, rebuilt from the rows whenever they were lost.

use super::element;
use super::{DeadLetter, List, Queue, QueueLengths, Taken};
use crate::RedisHealth;
use crate::worker::LaneKey;
use async_trait::async_trait;
use kero_domain::{Recent, Timestamp};
use kero_store::Job;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, RedisResult, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Elements kept in `kero_processing` at once, of all instances and of one.
const WINDOW: usize = 1_024;
const SHARE: usize = 256;
/// Elements taken in one round trip after the first.
const BATCH: usize = 63;
/// Writes sent in one pipeline.
const PIPELINE: usize = 256;
/// Writes that wait for the server; while it does not answer, more are dropped.
const WRITES: usize = 16_384;
/// Elements of this process that are remembered at least until they are taken.
const PUSHED: usize = 65_536;

/// Names of the three lists; several gateways on one database each have a prefix.
#[derive(Debug, Clone)]
pub struct QueueKeys {
    pub message_queue: String,
    pub processing: String,
    pub dead_letters: String,
    /// Written to see whether the server takes writes; it expires at once.
    probe: String,
}

impl Default for QueueKeys {
    fn default() -> Self {
        Self::with_prefix("")
    }
}

impl QueueKeys {
    pub fn with_prefix(prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}{name}");
        Self {
            message_queue: key("kero_message_queue"),
            processing: key("kero_processing"),
            dead_letters: key("kero_dead_letter_queue"),
            probe: key("kero_health"),
        }
    }

    fn lists(&self) -> [&str; 3] {
        [List::MessageQueue, List::Processing, List::DeadLetters].map(|list| self.of(list))
    }

    fn of(&self, list: List) -> &str {
        match list {
            List::MessageQueue => &self.message_queue,
            List::Processing => &self.processing,
            List::DeadLetters => &self.dead_letters,
        }
    }
}

/// Raw list elements.
type Elements = Vec<Vec<u8>>;

enum Write {
    Push(Vec<u8>),
    Finish(Vec<u8>),
    Reject(Vec<u8>),
    Dead(Vec<u8>),
    Undead(Vec<u8>),
    Remove(List, Vec<u8>),
}

/// What lanes work on, by instance.
#[derive(Default)]
struct Kept {
    shares: HashMap<i64, Share>,
    all: usize,
}

#[derive(Default)]
struct Share {
    lanes: HashMap<LaneKey, Elements>,
    count: usize,
}

impl Kept {
    /// Gives the element back when there is no room for it.
    fn keep(&mut self, instance_pk: i64, key: LaneKey, element: Vec<u8>) -> Option<Vec<u8>> {
        let count = self.shares.get(&instance_pk).map_or(0, |share| share.count);
        if count >= SHARE || self.all >= WINDOW {
            return Some(element);
        }
        let share = self.shares.entry(instance_pk).or_default();
        share.lanes.entry(key).or_default().push(element);
        share.count += 1;
        self.all += 1;
        None
    }

    fn release(&mut self, instance_pk: i64, key: &LaneKey) -> Elements {
        let Some(share) = self.shares.get_mut(&instance_pk) else { return Vec::new() };
        let elements = share.lanes.remove(key).unwrap_or_default();
        share.count -= elements.len();
        self.all -= elements.len();
        if share.count == 0 {
            self.shares.remove(&instance_pk);
        }
        elements
    }
}

pub(super) struct Redis {
    client: Client,
    manager: ConnectionManager,
    keys: QueueKeys,
    /// Blocking reads hold up everything else on their connection, so they have their own.
    reader: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    kept: Mutex<Kept>,
    /// Hashes of what this process put into the message queue.
    pushed: Mutex<Recent<u64>>,
    hasher: RandomState,
    writes: mpsc::Sender<Write>,
}

impl Redis {
    pub(super) fn new(url: &SecretString, ca: Option<&[u8]>, keys: &QueueKeys) -> Result<Self, String> {
        let opened = match ca {
            Some(ca) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
                Client::build_with_tls(url.expose_secret(), certificates)
            }
            None => Client::open(url.expose_secret()),
        };
        // the error's text may repeat the URL with its password
        let client = opened.map_err(|_| match ca {
            Some(_) => "use rediss://… with certificates in PEM in redis_ca_file".to_owned(),
            None => "use redis://[:password@]host[:port][/db] or rediss://…".to_owned(),
        })?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(|error| format!("{:?}", error.kind()))?;
        let (writes, inbox) = mpsc::channel(WRITES);
        tokio::spawn(write_loop(manager.clone(), keys.clone(), inbox));
        Ok(Self {
            client,
            manager,
            keys: keys.clone(),
            reader: tokio::sync::Mutex::new(None),
            kept: Mutex::default(),
            pushed: Mutex::new(Recent::new(PUSHED)),
            hasher: RandomState::new(),
            writes,
        })
    }

    /// What finds no room is dropped, like what cannot be written.
    fn write(&self, write: Write) {
        if self.writes.try_send(write).is_err() {
            metrics::counter!("kero_redis_dropped_total").increment(1);
        }
    }

    fn held(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, wait: Duration) -> RedisResult<Vec<Vec<u8>>> {
        let mut reader = self.reader.lock().await;
        let connection = match reader.as_mut() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(Duration::from_secs(2)))
                    .set_response_timeout(Some(Duration::from_secs(5)));
                reader.insert(self.client.get_multiplexed_async_connection_with_config(&config).await?)
            }
        };
        let taken = take(connection, &self.keys, wait).await;
        if taken.is_err() {
            *reader = None;
        }
        taken
    }
}

/// One element, waiting for it a moment, then whatever else is there.
async fn take(connection: &mut MultiplexedConnection, keys: &QueueKeys, wait: Duration) -> RedisResult<Vec<Vec<u8>>> {
    count_request();
    let first: Option<Vec<u8>> = redis::cmd("BLMOVE")
        .arg(&keys.message_queue)
        .arg(&keys.processing)
        .arg("RIGHT")
        .arg("LEFT")
        .arg(wait.as_secs_f64())
        .query_async(connection)
        .await?;
    let Some(first) = first else { return Ok(Vec::new()) };
    count_request();
    let waiting: usize = redis::cmd("LLEN").arg(&keys.message_queue).query_async(connection).await?;
    let mut taken = vec![first];
    if waiting > 0 {
        let mut pipe = Pipeline::new();
        for _ in 0..waiting.min(BATCH) {
            pipe.cmd("LMOVE").arg(&keys.message_queue).arg(&keys.processing).arg("RIGHT").arg("LEFT");
        }
        count_request();
        let more: Vec<Option<Vec<u8>>> = pipe.query_async(connection).await?;
        taken.extend(more.into_iter().flatten());
    }
    Ok(taken)
}

/// Sends writes in pipelines. What cannot be written is dropped: the reconciliation repairs the lists from the rows.
async fn write_loop(mut manager: ConnectionManager, keys: QueueKeys, mut inbox: mpsc::Receiver<Write>) {
    let mut writes = Vec::with_capacity(PIPELINE);
    while inbox.recv_many(&mut writes, PIPELINE).await > 0 {
        let mut pipe = Pipeline::new();
        for write in writes.drain(..) {
            match write {
                Write::Push(element) => pipe.cmd("LPUSH").arg(&keys.message_queue).arg(element).ignore(),
                Write::Finish(element) => pipe.cmd("LREM").arg(&keys.processing).arg(1).arg(element).ignore(),
                Write::Dead(element) => pipe.cmd("LPUSH").arg(&keys.dead_letters).arg(element).ignore(),
                // the comparison looks at the oldest first, and what is retried or discarded is mostly young
                Write::Remove(list, element) => pipe.cmd("LREM").arg(keys.of(list)).arg(-1).arg(element).ignore(),
                Write::Undead(element) => pipe.cmd("LREM").arg(&keys.dead_letters).arg(1).arg(element).ignore(),
                Write::Reject(element) => {
                    let letter = element::unknown(&element, Timestamp::now().secs());
                    pipe.cmd("LPUSH").arg(&keys.dead_letters).arg(letter).ignore();
                    pipe.cmd("LREM").arg(&keys.processing).arg(1).arg(element).ignore()
                }
            };
        }
        count_request();
        if let Err(error) = pipe.query_async::<()>(&mut manager).await {
            log_failure("Redis refused queue writes; the rows keep the jobs", &error);
            // a stopped server would otherwise be asked for every single element
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A round trip to the server, as sends cause them.
fn count_request() {
    metrics::counter!("kero_redis_requests_total").increment(1);
}

fn log_failure(what: &str, error: &RedisError) {
    tracing::warn!(kind = ?error.kind(), code = error.code(), "{what}");
}

#[async_trait]
impl Queue for Redis {
    fn push(&self, job: &Job) {
        let element = serde_json::Value::from(element::message_job(job)).to_string().into_bytes();
        let hash = self.hasher.hash_one(&element);
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
        self.write(Write::Push(element));
    }

    async fn next(&self, wait: Duration) -> Vec<Taken> {
        match self.read(wait).await {
            Ok(elements) => {
                let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = elements.into_iter().map(|element| match pushed.remove(&self.hasher.hash_one(&element)) {
                    true => Taken::Element(element),
                    false => Taken::Stranger(element),
                });
                taken.collect()
            }
            Err(error) => {
                log_failure("the message queue could not be read", &error);
                tokio::time::sleep(wait).await;
                Vec::new()
            }
        }
    }

    fn keep(&self, instance_pk: i64, key: LaneKey, element: Vec<u8>) {
        let left = self.held().keep(instance_pk, key, element);
        left.into_iter().for_each(|element| self.finish(element));
    }

    fn finish(&self, element: Vec<u8>) {
        self.write(Write::Finish(element));
    }

    fn release(&self, instance_pk: i64, key: &LaneKey) {
        let kept = self.held().release(instance_pk, key);
        kept.into_iter().for_each(|element| self.finish(element));
    }

    fn reject(&self, element: Vec<u8>) {
        self.write(Write::Reject(element));
    }

    fn dead(&self, letter: DeadLetter<'_>) {
        self.write(Write::Dead(element::dead_letter(&letter)));
    }

    async fn health(&self) -> RedisHealth {
        // a server that answers may still refuse to write (a replica, no memory), or hold something else under a name
        let mut pipe = Pipeline::new();
        pipe.cmd("SET").arg(&self.keys.probe).arg(1).arg("PX").arg(1_000).ignore();
        for key in self.keys.lists() {
            pipe.cmd("LLEN").arg(key).ignore();
        }
        match pipe.query_async::<()>(&mut self.manager.clone()).await {
            Ok(()) => RedisHealth::Ok,
            Err(_) => RedisHealth::Error,
        }
    }

    async fn lengths(&self) -> Option<QueueLengths> {
        let mut pipe = Pipeline::new();
        for key in self.keys.lists() {
            pipe.cmd("LLEN").arg(key);
        }
        let (message_queue, processing, dead_letters) = pipe.query_async(&mut self.manager.clone()).await.ok()?;
        Some(QueueLengths { message_queue, processing, dead_letters })
    }

    fn undead(&self, letter: DeadLetter<'_>) {
        self.write(Write::Undead(element::dead_letter(&letter)));
    }

    fn remove(&self, list: List, element: Vec<u8>) {
        self.write(Write::Remove(list, element));
    }

    fn kept(&self) -> HashSet<Vec<u8>> {
        self.held().shares.values().flat_map(|share| share.lanes.values()).flatten().cloned().collect()
    }

    async fn scan(&self, list: List, from: u64, count: u64) -> Option<Vec<Vec<u8>>> {
        let (from, count) = (i64::try_from(from).ok()?, i64::try_from(count).ok()?);
        let mut range = redis::cmd("LRANGE");
        range.arg(self.keys.of(list)).arg(-from - count).arg(-from - 1);
        let mut elements: Vec<Vec<u8>> = range.query_async(&mut self.manager.clone()).await.ok()?;
        elements.reverse();
        Some(elements)
    }

    async fn clear_wrong_types(&self) -> Option<u64> {
        let mut moved = 0;
        for key in self.keys.lists() {
            let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut self.manager.clone()).await.ok()?;
            if kind == "list" || kind == "none" {
                continue;
            }
            tracing::warn!(key, kind, "something else than a list is in the place of one; it is renamed");
            let aside = format!("{key}:was_{kind}:{}", Timestamp::now().0);
            redis::cmd("RENAME").arg(key).arg(aside).query_async::<()>(&mut self.manager.clone()).await.ok()?;
            moved += 1;
        }
        Some(moved)
    }

    async fn recover(&self) {
        // jobs named here are in their rows, junk is not: it goes where junk goes
        let mut from = 0;
        while let Some(elements) = self.scan(List::Processing, from, WINDOW as u64).await {
            from += elements.len() as u64;
            let last = elements.len() < WINDOW;
            for element in elements {
                match element::name(&element) {
                    Some(_) => self.finish(element),
                    None => self.reject(element),
                }
            }
            if last {
                return;
            }
        }
    }
}
