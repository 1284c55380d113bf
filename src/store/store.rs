//! The handle, and how calls reach the writers.

use crate::entity::instances;
use crate::seal::Sealer;
use crate::sql::{Counters, Db};
use crate::writer::{self, Answer, Fence, Pending, Poison};
use crate::{MasterKey, StoreError, conn};
use kero_domain::InstanceId;
use sea_orm::{DatabaseConnection, EntityTrait};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use tokio::sync::{broadcast, mpsc, oneshot};

/// What survives when: at `Power` a commit survives the loss of power, at `Process` that of the process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    Process,
    Power,
}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// How to open a store.
#[derive(Clone)]
pub struct StoreConfig {
    /// `sqlite://path?mode=rwc` or `postgres://…`.
    pub url: String,
    /// The level of accept, intent, result, inbound event and pending inbound. Session, identity, prekey and
    /// sender-key writes are always at [`Durability::Power`]: a rewound counter costs the account.
    pub durability: Durability,
    pub master_key: MasterKey,
    /// Connections that read.
    pub readers: u32,
    /// Connections that write, on Postgres; instances are spread over them. SQLite has one.
    pub writers: u32,
    /// The most bytes that an SQLite database may take; 0: no limit.
    pub max_size: u64,
}

impl std::fmt::Debug for StoreConfig {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Transactions committed.
    pub commits: u64,
    /// Statements run, those of readers included; BEGIN and COMMIT not.
    pub statements: u64,
    /// Commands that the writers took.
    pub commands: u64,
}

/// The store. A cheap handle; the last one's end stops the writers.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    kind: Database,
    pub(crate) reader: Db,
    /// The writing one, the reading one.
    pub(crate) pools: [DatabaseConnection; 2],
    writers: Vec<mpsc::Sender<Pending>>,
    pub(crate) sealer: Sealer,
    master_key: MasterKey,
    durability: Durability,
    counters: Arc<Counters>,
    poison: Arc<Poison>,
    /// An instance's id never changes, and its pk is never given twice.
    ids: RwLock<HashMap<i64, InstanceId>>,
    /// The sets of hooks' calls that are stored, and their pks, which never change.
    sets: RwLock<HashMap<String, i64>>,
}

/// Commands that may wait for a writer before callers have to.
const BACKLOG: usize = 1024;

/// SQLite's one writer has a thread of its own: between two statements of a group it waits for the driver's thread, and
/// among the other tasks each of these waits would end behind whatever is ready to run.
fn start(kind: Database, writer: writer::Writer, queue: mpsc::Receiver<Pending>) -> Result<(), StoreError> {
    if kind == Database::Postgres {
        tokio::spawn(writer.run(queue));
        return Ok(());
    }
    let failed = |error: std::io::Error| StoreError::Unavailable(Arc::new(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name("kero-writer".to_owned());
    thread.spawn(move || runtime.block_on(writer.run(queue))).map_err(failed)?;
    Ok(())
}

impl Store {
    /// Connects, migrates and verifies the master key. Needs a tokio runtime, which the writers run on.
    ///
    /// Errors: [`StoreError::Address`], [`StoreError::Unavailable`], [`StoreError::WrongMasterKey`].
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let kind = conn::kind(&config.url)?;
        conn::migrate(&config.url).await?;
        let counters = Arc::new(Counters::default());
        let sealer = Sealer::new(&config.master_key);
        let writing = conn::writer(&config.url, &config).await?;
        conn::verify_key(&Db::pool(writing.clone(), Arc::clone(&counters)), &sealer).await?;
        let reading = conn::reader(&config.url, &config).await?;

        let poison = Arc::new(Poison::default());
        let count = if kind == Database::Sqlite { 1 } else { config.writers.max(1) };
        let mut writers = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = mpsc::channel(BACKLOG);
            let reopen = (kind == Database::Sqlite).then(|| config.clone());
            let (counters, poison) = (Arc::clone(&counters), Arc::clone(&poison));
            let writer = writer::Writer::new(writing.clone(), reopen, sealer.clone(), counters, poison);
            start(kind, writer, receiver)?;
            writers.push(sender);
        }
        let inner = Inner {
            kind,
            reader: Db::pool(reading.clone(), Arc::clone(&counters)),
            pools: [writing, reading],
            writers,
            sealer,
            master_key: config.master_key,
            durability: config.durability,
            counters,
            poison,
            ids: RwLock::default(),
            sets: RwLock::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Applies the missing migrations; the names of those applied.
    pub async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
        conn::kind(url)?;
        conn::migrate(url).await
    }

    /// Commits what was submitted, refuses what comes later, and closes the connections.
    pub async fn close(&self) {
        let mut drained = Vec::new();
        for writer in &self.inner.writers {
            let (done, wait) = oneshot::channel();
            if writer.send(Pending::close(done)).await.is_ok() {
                drained.push(wait);
            }
        }
        for wait in drained {
            // a writer that is gone already has nothing to commit
            let _ = wait.await;
        }
        for pool in &self.inner.pools {
            let _ = pool.close_by_ref().await;
        }
    }

    pub fn backend(&self) -> Database {
        self.inner.kind
    }

    /// Whether the database answers a read.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.inner.reader.one("SELECT 1", Vec::new()).await.map(drop)
    }

    pub fn stats(&self) -> StoreStats {
        let counters = &self.inner.counters;
        StoreStats {
            commits: counters.commits.load(Ordering::Relaxed),
            statements: counters.statements.load(Ordering::Relaxed),
            commands: counters.commands.load(Ordering::Relaxed),
        }
    }

    /// Hears of every instance whose pending inbound message could not be stored: its writes are refused with
    /// [`StoreError::EpochLost`] until [`Store::take_ownership`], and its client must be torn down without a flush.
    pub fn on_poisoned(&self) -> broadcast::Receiver<i64> {
        self.inner.poison.subscribe()
    }

    /// A key for another purpose of this installation, made from the master key.
    pub fn derived_key(&self, purpose: &str) -> [u8; 32] {
        self.inner.master_key.derived(purpose)
    }

    pub(crate) fn reader(&self) -> &Db {
        &self.inner.reader
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    /// The level that the configuration decides.
    pub(crate) fn configured(&self) -> Durability {
        self.inner.durability
    }

    pub(crate) fn sets(&self) -> &RwLock<HashMap<String, i64>> {
        &self.inner.sets
    }

    /// The instance's id; `None` when it was deleted.
    pub(crate) async fn id_of(&self, pk: i64) -> Result<Option<InstanceId>, StoreError> {
        if let Some(id) = self.inner.ids.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&pk) {
            return Ok(Some(id.clone()));
        }
        let Some(row) = instances::Entity::find_by_id(pk).one(self.reader()).await? else { return Ok(None) };
        let id: InstanceId = row.id.parse().map_err(|_| StoreError::Corrupt("instance id"))?;
        self.remember(pk, &id);
        Ok(Some(id))
    }

    pub(crate) fn remember(&self, pk: i64, id: &InstanceId) {
        self.inner.ids.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(pk, id.clone());
    }

    pub(crate) fn forget(&self, pk: i64) {
        self.inner.ids.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&pk);
    }

    /// Hands a command to the writer of `lane` (an instance's pk, or anything that spreads) and waits for its answer.
    pub(crate) async fn submit<T>(
        &self,
        lane: i64,
        fence: Option<Fence>,
        level: Durability,
        op: impl FnOnce(Answer<T>) -> writer::Op,
    ) -> Result<T, StoreError> {
        let (answer, wait) = Answer::new();
        let pending = Pending::new(fence, level, op(answer));
        let index = usize::try_from(lane.unsigned_abs()).unwrap_or(0) % self.inner.writers.len().max(1);
        let Some(writer) = self.inner.writers.get(index) else { return Err(StoreError::Closed) };
        writer.send(pending).await.map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }
}
