//! Which hooks were called, and what came of it: one row for each run of a chain, however many hooks it has.
//!
//! How the calls of a chain ended ("redact=replace spam=pass") is one of few texts, which are rows of their own: sets.
//! The calls of a plugin that ended in some way are found by the sets that have one.

mod delete;
mod list;

pub use list::HookCall;
#[cfg(test)]
pub(crate) use list::{by_row_sql, by_set_sql};

use crate::seal::{Sealer, place};
use crate::sql::{FILLED, placeholders, tuples, values};
use crate::writer::{Op, Tx, work};
use crate::{Durability, Store, StoreError};
use kero_domain::{DeliveryId, Timestamp, text};
use sea_orm::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The calls of a chain, to keep.
#[derive(Debug, Clone)]
pub struct NewHookChain {
    /// Of delivery hooks.
    pub delivery: Option<DeliveryId>,
    pub at: Timestamp,
    /// In order; not empty.
    pub calls: Vec<NewHookCall>,
}

/// A call to keep.
#[derive(Debug, Clone)]
pub struct NewHookCall {
    /// `[a-z0-9-]`
    pub plugin: String,
    pub version: String,
    /// A word: `[a-z_]`.
    pub outcome: &'static str,
    /// Of the engine's clock.
    pub ticks: u32,
    pub wall: Duration,
    /// In bytes.
    pub memory_peak: u64,
    /// The note and the log.
    pub detail: Option<Json>,
}

/// What a chain's row holds of a call; which plugin it was, and how it ended, stands in the set. Sealed: the detail may
/// repeat what the event says.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "t")]
    ticks: u32,
    #[serde(rename = "w")]
    wall_us: u64,
    #[serde(rename = "m")]
    memory_peak: u64,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    detail: Option<Json>,
}

/// A chain that is ready for the transaction.
#[derive(Debug, Clone)]
pub(crate) struct StagedChain {
    event_row: i64,
    delivery: Option<DeliveryId>,
    at: Timestamp,
    set: i64,
    sealed: Vec<u8>,
}

/// A row's number is not known before it is written.
fn calls_place(instance_pk: i64, event_row: i64, at: Timestamp) -> String {
    place("hook_chains.calls", instance_pk, format_args!("{event_row}|{}", at.0))
}

fn seal(sealer: &Sealer, place: &str, calls: &[Stored]) -> Result<Vec<u8>, StoreError> {
    let bytes = serde_json::to_vec(calls).map_err(|_| StoreError::bug("a chain's calls do not serialise"))?;
    sealer.seal(place, &bytes)
}

fn open(sealer: &Sealer, place: &str, sealed: &[u8]) -> Result<Vec<Stored>, StoreError> {
    let bytes = sealer.open("chain's calls", place, sealed)?;
    serde_json::from_slice(&bytes).map_err(|_| StoreError::Corrupt("chain's calls"))
}

/// The text of a set.
fn set_of(calls: &[NewHookCall]) -> String {
    let mut text = String::with_capacity(calls.len() * 16);
    for call in calls {
        let space = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{space}{}={}", call.plugin, call.outcome);
    }
    text
}

/// The (plugin, outcome) of each call of a set, in order.
fn pairs(set: &str) -> impl Iterator<Item = (&str, &str)> {
    set.split(' ').filter_map(|pair| pair.split_once('='))
}

impl Store {
    /// Keeps a chain whose verdict is not committed: tries that are repeated later.
    pub async fn record_hook_calls(
        &self,
        instance_pk: i64,
        event_row: i64,
        chain: NewHookChain,
    ) -> Result<(), StoreError> {
        self.know_sets([&chain]).await?;
        let staged = Arc::new(self.stage_chain(instance_pk, event_row, &chain)?);
        self.submit(instance_pk, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let staged = Arc::clone(&staged);
                Box::pin(async move { insert(tx, &[&staged]).await })
            }))
        })
        .await
    }

    /// Writes the sets of these chains that were never seen before. Committed before the chains: others may refer to a
    /// set as soon as it is known.
    pub(crate) async fn know_sets(&self, chains: impl IntoIterator<Item = &NewHookChain>) -> Result<(), StoreError> {
        let mut missing = HashSet::new();
        {
            let known = self.sets().read().unwrap_or_else(PoisonError::into_inner);
            missing.extend(chains.into_iter().map(|it| set_of(&it.calls)).filter(|set| !known.contains_key(set)));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Arc<Vec<String>> = Arc::new(missing.into_iter().collect());
        let found = self
            .submit(0, None, Durability::Process, |answer| {
                Op::Run(work(answer, move |tx| {
                    let missing = Arc::clone(&missing);
                    Box::pin(async move { write_sets(tx, &missing).await })
                }))
            })
            .await?;
        self.sets().write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// Prepares a chain whose set is known.
    pub(crate) fn stage_chain(
        &self,
        instance_pk: i64,
        event_row: i64,
        chain: &NewHookChain,
    ) -> Result<StagedChain, StoreError> {
        let known = self.sets().read().unwrap_or_else(PoisonError::into_inner).get(&set_of(&chain.calls)).copied();
        let stored = |call: &NewHookCall| {
            let mut detail = call.detail.clone();
            detail.iter_mut().for_each(text::storable_json);
            Stored {
                version: call.version.clone(),
                ticks: call.ticks,
                wall_us: u64::try_from(call.wall.as_micros()).unwrap_or(u64::MAX),
                memory_peak: call.memory_peak,
                detail,
            }
        };
        let calls: Vec<Stored> = chain.calls.iter().map(stored).collect();
        Ok(StagedChain {
            event_row,
            delivery: chain.delivery,
            at: chain.at,
            set: known.ok_or(StoreError::bug("a chain's set is not known"))?,
            sealed: seal(self.sealer(), &calls_place(instance_pk, event_row, chain.at), &calls)?,
        })
    }
}

/// The sets with calls of a plugin, among few others: their texts decide.
const SETS_OF: &str = "SELECT pk, calls FROM hook_sets WHERE ' ' || calls LIKE $1";
const COLUMNS: &str = "c.pk, c.event_pk, c.delivery_id, c.ran_at, c.set_pk, c.calls, e.id AS event_id, e.instance_pk";

/// Writes sets, and reads them: some may be there.
async fn write_sets(tx: &Tx, sets: &[String]) -> Result<Vec<(String, i64)>, StoreError> {
    let mut found = Vec::with_capacity(sets.len());
    for sets in sets.chunks(FILLED) {
        let hash = |set: &String| Value::from(Sha256::digest(set).to_vec());
        let values = sets.iter().flat_map(|set| [hash(set), Value::from(set.clone())]).collect();
        let rows = tuples(0, sets.len(), 2);
        tx.db.run(format!("INSERT INTO hook_sets (hash, calls) VALUES {rows} ON CONFLICT DO NOTHING"), values).await?;
        let sql = format!("SELECT pk, calls FROM hook_sets WHERE hash IN ({})", placeholders(0, sets.len()));
        for row in tx.db.all(sql, sets.iter().map(hash).collect()).await? {
            found.push((row.try_get("", "calls")?, row.try_get("", "pk")?));
        }
    }
    Ok(found)
}

/// Writes chains.
pub(crate) async fn insert(tx: &Tx, chains: &[&StagedChain]) -> Result<(), StoreError> {
    const WIDTH: usize = 5;
    for chains in chains.chunks(FILLED) {
        let mut values = Vec::with_capacity(chains.len().next_power_of_two() * WIDTH);
        for chain in chains {
            values.extend(values![
                chain.event_row,
                chain.delivery.map(|delivery| delivery.0),
                chain.at.0,
                chain.set,
                chain.sealed.clone()
            ]);
        }
        // few texts of the statement, as elsewhere; but here a row that is there twice would be two
        let rows = chains.len().next_power_of_two();
        for _ in chains.len()..rows {
            values.extend(values![None::<i64>, None::<Uuid>, 0i64, 0i64, Vec::<u8>::new()]);
        }
        let sql = format!(
            "INSERT INTO hook_chains (event_pk, delivery_id, ran_at, set_pk, calls)
             SELECT v.column1, v.column2, v.column3, v.column4, v.column5 FROM (VALUES {}) AS v
             WHERE v.column1 IS NOT NULL",
            tuples(0, rows, WIDTH)
        );
        tx.db.run(sql, values).await?;
    }
    Ok(())
}
