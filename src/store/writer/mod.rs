//! The writer: takes the commands that wait, runs them as one transaction, answers after the commit.
//!
//! - Submission order is kept per instance. Within a group, commands of one kind become one multi-row statement.
//! - A group that fails is rolled back and run again command by command, so that one command's error is its own.
//! - A fenced command is left out when its epoch is not the instance's; the rest of the group commits.
//! - When a pending inbound message cannot be stored, every later write of that (instance, epoch) is refused:
//!   the client's ratchet has moved, and a stored session would make it take the redelivery for a duplicate.

mod command;
mod put;
mod steps;

pub(crate) use command::{Answer, Fence, Op, Pending, Tx, moving_work, work};
pub(crate) use put::{OnConflict, Put};

use crate::seal::Sealer;
use crate::sql::{Counters, Db, placeholders};
use crate::{Durability, StoreConfig, StoreError, conn};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait, Value,
};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// Commands in one transaction at most.
const GROUP: usize = 256;
/// Runs of a command that met another transaction, and attempts to begin one.
const TRIES: u32 = 4;
/// Between tries to get a live connection.
const PAUSE: Duration = Duration::from_millis(20);

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
    /// SQLite: how to open the connection anew.
    reopen: Option<StoreConfig>,
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
        reopen: Option<StoreConfig>,
        sealer: Sealer,
        counters: Arc<Counters>,
        poison: Arc<Poison>,
    ) -> Self {
        Self { connection, reopen, sealer, counters, poison, synchronous: Durability::Power, epochs: HashMap::new() }
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
                if self.reopen.is_some() {
                    let _ = self.connection.close_by_ref().await;
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
        match self.attempt(&mut group, false).await {
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
            match self.attempt(&mut one, true).await {
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
    async fn attempt(&mut self, group: &mut [Pending], alone: bool) -> Result<Vec<bool>, StoreError> {
        let level = group.iter().map(|pending| pending.level).max().unwrap_or(Durability::Power);
        let fences: Vec<Option<Fence>> = group.iter().map(|pending| pending.fence).collect();
        let tx = self.begin_surely(level, alone).await?;
        let done = async {
            let lost = self.lost(&tx.db, &fences).await?;
            steps::run(&tx, group, &lost).await?;
            Ok(lost)
        };
        match done.await {
            Ok(lost) => match tx.db.commit().await {
                Ok(()) => Ok(lost),
                Err(error) => {
                    self.renew().await;
                    Err(error)
                }
            },
            Err(error) => {
                if tx.db.rollback().await.is_err() {
                    self.renew().await;
                }
                Err(error)
            }
        }
    }

    /// SQLite ends a transaction by itself when the disk is full; the driver, which does not hear of it, would take every
    /// later one for a part of that. On Postgres the pool drops what is broken.
    async fn renew(&mut self) {
        let Some(config) = &self.reopen else { return };
        // when this fails, the next failed commit tries again
        if let Ok(fresh) = conn::writer(&config.url, config).await {
            let old = std::mem::replace(&mut self.connection, fresh);
            self.synchronous = Durability::Power;
            let _ = old.close().await;
        }
    }

    /// A connection that died while it was idle shows here, before anything was written: the pool drops it, and the
    /// next one is fresh.
    async fn begin_surely(&mut self, level: Durability, alone: bool) -> Result<Tx, StoreError> {
        let mut tries = if self.connection.get_database_backend() == DbBackend::Postgres { TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.begin(level, alone).await {
                Err(StoreError::Unavailable(_)) if tries > 0 => tokio::time::sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    async fn begin(&mut self, level: Durability, alone: bool) -> Result<Tx, StoreError> {
        let sqlite = self.connection.get_database_backend() == DbBackend::Sqlite;
        if sqlite && level != self.synchronous {
            let mode = if level == Durability::Power { "FULL" } else { "NORMAL" };
            self.connection.execute_unprepared(&format!("PRAGMA synchronous = {mode}")).await?;
            self.synchronous = level;
        }
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let transaction = self.connection.begin_with_options(options).await?;
        let db = Db::transaction(transaction, Arc::clone(&self.counters));
        if !sqlite && level == Durability::Process {
            db.execute_unprepared("SET LOCAL synchronous_commit = off").await?;
        }
        Ok(Tx { db, sealer: self.sealer.clone(), alone })
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
            let sql =
                format!("SELECT pk, owner_epoch FROM instances WHERE pk IN ({}){lock}", placeholders(0, wanted.len()));
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
