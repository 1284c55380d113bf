//! The writer: takes the commands that wait, runs them as one transaction, answers after the commit.
//!
//! - Submission order is kept per instance. Within a group, commands of one kind become one multi-row statement.
//! - A group that fails is rolled back and run again command by command, so that one command's error is its own.
//! - A fenced command is left out when its epoch is not the instance's; the rest of the group commits.
//! - When a pending inbound message cannot be stored, every later write of that (instance, epoch) is refused:
//!   the client's ratchet has moved, and a stored session would make it take the redelivery for a duplicate.

mod put;
mod steps;

pub(crate) use put::{OnConflict, Put};

use crate::events::Append;
use crate::jobs::{Accept, Intend, Settle};
use crate::seal::Sealer;
use crate::sql::{Counters, Db, placeholders};
use crate::{Durability, StoreError};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait, Value,
};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Commands in one transaction at most. Nothing waits for a group to fill: it is what came in during the last commit.
const GROUP: usize = 64;
/// Runs of a command that met another transaction.
const TRIES: u32 = 4;

/// Who may write: the holder of this epoch of this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    pub pk: i64,
    pub epoch: i64,
}

/// A command's answer: set while it runs, sent after the commit.
pub(crate) struct Answer<T> {
    to: Option<oneshot::Sender<Result<T, StoreError>>>,
    value: Option<T>,
}

impl<T> Answer<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (to, wait) = oneshot::channel();
        (Self { to: Some(to), value: None }, wait)
    }

    pub(crate) fn set(&mut self, value: T) {
        self.value = Some(value);
    }

    fn commit(&mut self) {
        let result = self.value.take().ok_or_else(|| StoreError::bug("a command ran without an answer"));
        self.send(result);
    }

    fn fail(&mut self, error: StoreError) {
        self.send(Err(error));
    }

    fn send(&mut self, result: Result<T, StoreError>) {
        if let Some(to) = self.to.take() {
            // a caller that no longer waits is none of the writer's business
            let _ = to.send(result);
        }
    }
}

/// What a command does. Those with a kind of their own are run together.
pub(crate) enum Op {
    /// Rows into a device table.
    Put(Put),
    /// Anything else on device tables; keeps its place among the puts.
    Device(Box<dyn Work>),
    Accept(Box<Accept>),
    Intend(Box<Intend>),
    Settle(Box<Settle>),
    Append(Append),
    /// Runs by itself, in its place.
    Run(Box<dyn Work>),
    Close(Option<oneshot::Sender<()>>),
}

impl Op {
    fn end(&mut self, result: Result<(), StoreError>) {
        macro_rules! end {
            ($answer:expr) => {
                match result {
                    Ok(()) => $answer.commit(),
                    Err(error) => $answer.fail(error),
                }
            };
        }
        match self {
            Self::Put(put) => end!(put.answer),
            Self::Device(work) | Self::Run(work) => end!(work),
            Self::Accept(accept) => end!(accept.answer),
            Self::Intend(intend) => end!(intend.answer),
            Self::Settle(settle) => end!(settle.answer),
            Self::Append(append) => end!(append.answer),
            Self::Close(done) => {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
            }
        }
    }
}

/// A command on its way.
pub(crate) struct Pending {
    fence: Option<Fence>,
    level: Durability,
    /// When it fails, nothing later of its fence may be written.
    poisons: bool,
    /// The instance whose epoch or existence it changes.
    moves: Option<i64>,
    op: Op,
}

impl Pending {
    pub(crate) fn new(fence: Option<Fence>, level: Durability, op: Op) -> Self {
        let poisons = matches!(&op, Op::Put(put) if put.table() == "pending_inbound");
        let moves = match &op {
            Op::Run(work) => work.moves(),
            _ => None,
        };
        Self { fence, level, poisons, moves, op }
    }

    pub(crate) fn close(done: oneshot::Sender<()>) -> Self {
        Self::new(None, Durability::Process, Op::Close(Some(done)))
    }
}

/// A transaction in which commands run.
pub(crate) struct Tx {
    pub db: Db,
    pub sealer: Sealer,
}

/// A command with its own statements. It may run more than once; only the last run is committed.
#[async_trait::async_trait]
pub(crate) trait Work: Send {
    async fn run(&mut self, tx: &Tx) -> Result<(), StoreError>;
    fn commit(&mut self);
    fn fail(&mut self, error: StoreError);
    fn moves(&self) -> Option<i64>;
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Task<T, F> {
    run: F,
    answer: Answer<T>,
    moves: Option<i64>,
}

#[async_trait::async_trait]
impl<T, F> Work for Task<T, F>
where
    T: Send,
    F: for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync,
{
    async fn run(&mut self, tx: &Tx) -> Result<(), StoreError> {
        let value = (self.run)(tx).await?;
        self.answer.set(value);
        Ok(())
    }

    fn commit(&mut self) {
        self.answer.commit();
    }

    fn fail(&mut self, error: StoreError) {
        self.answer.fail(error);
    }

    fn moves(&self) -> Option<i64> {
        self.moves
    }
}

/// A command from a closure.
pub(crate) fn work<T: Send + 'static>(
    answer: Answer<T>,
    run: impl for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
) -> Box<dyn Work> {
    Box::new(Task { run, answer, moves: None })
}

/// The same for a command after which the epoch of instance `pk` has to be read again.
pub(crate) fn moving_work<T: Send + 'static>(
    pk: i64,
    answer: Answer<T>,
    run: impl for<'a> Fn(&'a Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
) -> Box<dyn Work> {
    Box::new(Task { run, answer, moves: Some(pk) })
}

/// Fences behind which nothing is written any more.
pub(crate) struct Poison {
    marks: Mutex<HashMap<i64, i64>>,
    heard: broadcast::Sender<i64>,
}

impl Default for Poison {
    fn default() -> Self {
        Self { marks: Mutex::default(), heard: broadcast::channel(1024).0 }
    }
}

impl Poison {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<i64> {
        self.heard.subscribe()
    }

    fn mark(&self, fence: Fence) {
        self.marks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(fence.pk, fence.epoch);
        // nobody needs to listen
        let _ = self.heard.send(fence.pk);
    }

    fn refuses(&self, fence: Fence) -> bool {
        let marks = self.marks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        marks.get(&fence.pk).is_some_and(|epoch| fence.epoch <= *epoch)
    }
}

/// One writing connection and its queue.
pub(crate) struct Writer {
    connection: DatabaseConnection,
    sealer: Sealer,
    counters: Arc<Counters>,
    poison: Arc<Poison>,
    /// SQLite: the connection's `synchronous`, changed only between transactions.
    synchronous: Durability,
    /// SQLite: the data folder's lock makes this process the only writer, so epochs are read once.
    epochs: HashMap<i64, i64>,
}

impl Writer {
    pub(crate) fn new(
        connection: DatabaseConnection,
        sealer: Sealer,
        counters: Arc<Counters>,
        poison: Arc<Poison>,
    ) -> Self {
        Self { connection, sealer, counters, poison, synchronous: Durability::Power, epochs: HashMap::new() }
    }

    /// Runs until closed, or until every handle is gone.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut group, GROUP).await > 0 {
            let mut commands = Vec::with_capacity(group.len());
            let mut closing = Vec::new();
            for pending in group.drain(..) {
                match pending.op {
                    Op::Close(_) => {
                        queue.close();
                        closing.push(pending);
                    }
                    _ => commands.push(pending),
                }
            }
            self.counters.commands.fetch_add(commands.len() as u64, Ordering::Relaxed);
            self.group(commands).await;
            if !closing.is_empty() {
                // what was sent before the queue closed
                while let Some(pending) = queue.recv().await {
                    match pending.op {
                        Op::Close(_) => closing.push(pending),
                        _ => self.group(vec![pending]).await,
                    }
                }
                closing.iter_mut().for_each(|pending| pending.op.end(Ok(())));
                return;
            }
        }
    }

    async fn group(&mut self, group: Vec<Pending>) {
        let mut group = self.without_refused(group);
        if group.is_empty() {
            return;
        }
        match self.attempt(&mut group).await {
            Ok(lost) => self.answer(group, &lost),
            // nobody's fault in particular: trying each command would only wait for the database once more
            Err(error @ StoreError::Unavailable(_)) if !error.lost_a_race() => {
                for pending in group {
                    self.fail(pending, error.clone());
                }
            }
            Err(_) => {
                for pending in group {
                    self.alone(pending).await;
                }
            }
        }
    }

    async fn alone(&mut self, pending: Pending) {
        let mut one = self.without_refused(vec![pending]);
        for remaining in (0..TRIES).rev() {
            if one.is_empty() {
                return;
            }
            match self.attempt(&mut one).await {
                Ok(lost) => return self.answer(one, &lost),
                Err(error) if error.lost_a_race() && remaining > 0 => {}
                Err(error) => return one.into_iter().for_each(|pending| self.fail(pending, error.clone())),
            }
        }
    }

    fn without_refused(&self, group: Vec<Pending>) -> Vec<Pending> {
        let mut kept = Vec::with_capacity(group.len());
        for mut pending in group {
            if pending.fence.is_some_and(|fence| self.poison.refuses(fence)) {
                pending.op.end(Err(StoreError::EpochLost));
            } else {
                kept.push(pending);
            }
        }
        kept
    }

    fn answer(&mut self, group: Vec<Pending>, lost: &[bool]) {
        for (mut pending, lost) in group.into_iter().zip(lost) {
            if let Some(pk) = pending.moves {
                self.epochs.remove(&pk);
            }
            pending.op.end(if *lost { Err(StoreError::EpochLost) } else { Ok(()) });
        }
    }

    fn fail(&self, mut pending: Pending, error: StoreError) {
        if let (true, Some(fence)) = (pending.poisons, pending.fence) {
            self.poison.mark(fence);
        }
        pending.op.end(Err(error));
    }

    /// One transaction; for each command whether its epoch was lost.
    async fn attempt(&mut self, group: &mut [Pending]) -> Result<Vec<bool>, StoreError> {
        let level = group.iter().map(|pending| pending.level).max().unwrap_or(Durability::Power);
        let fences: Vec<Option<Fence>> = group.iter().map(|pending| pending.fence).collect();
        let tx = self.begin(level).await?;
        let done = async {
            let lost = self.lost(&tx.db, &fences).await?;
            steps::run(&tx, group, &lost).await?;
            Ok(lost)
        };
        match done.await {
            Ok(lost) => {
                tx.db.commit().await?;
                Ok(lost)
            }
            Err(error) => {
                // the connection rolls back by itself when this fails
                let _ = tx.db.rollback().await;
                Err(error)
            }
        }
    }

    async fn begin(&mut self, level: Durability) -> Result<Tx, StoreError> {
        let sqlite = self.connection.get_database_backend() == DbBackend::Sqlite;
        if sqlite && level != self.synchronous {
            let mode = if level == Durability::Power { "FULL" } else { "NORMAL" };
            self.connection.execute_unprepared(&format!("PRAGMA synchronous = {mode}")).await?;
            self.synchronous = level;
        }
        let options =
            TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        let transaction = self.connection.begin_with_options(options).await?;
        let db = Db::transaction(transaction, Arc::clone(&self.counters));
        if !sqlite && level == Durability::Process {
            db.execute_unprepared("SET LOCAL synchronous_commit = off").await?;
        }
        Ok(Tx { db, sealer: self.sealer.clone() })
    }

    /// The epochs of the group's instances against those of its commands. On Postgres the rows stay locked against
    /// [`crate::Store::take_ownership`] of another process until the commit.
    async fn lost(&mut self, db: &Db, fences: &[Option<Fence>]) -> Result<Vec<bool>, StoreError> {
        let mut wanted: Vec<i64> = fences.iter().flatten().map(|fence| fence.pk).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if !db.is_postgres() {
            wanted.retain(|pk| !self.epochs.contains_key(pk));
        }
        let mut found = HashMap::new();
        if !wanted.is_empty() {
            let lock = if db.is_postgres() { " ORDER BY pk FOR SHARE" } else { "" };
            let sql = format!("SELECT pk, owner_epoch FROM instances WHERE pk IN ({}){lock}", placeholders(0, wanted.len()));
            for row in db.all(sql, wanted.into_iter().map(Value::from).collect()).await? {
                found.insert(row.try_get::<i64>("", "pk")?, row.try_get::<i64>("", "owner_epoch")?);
            }
        }
        let epochs = if db.is_postgres() {
            &found
        } else {
            self.epochs.extend(found);
            &self.epochs
        };
        let lost = |fence: Fence| epochs.get(&fence.pk) != Some(&fence.epoch);
        Ok(fences.iter().map(|fence| fence.is_some_and(lost)).collect())
    }
}
