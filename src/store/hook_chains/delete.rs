//! Calls that are no longer kept.

use super::{COLUMNS, SETS_OF, Stored, calls_place, open, pairs, seal, write_sets};
use crate::sql::{tuples, values};
use crate::writer::{Op, Tx, work};
use crate::{Durability, Store, StoreError};
use kero_domain::Timestamp;

/// Rows that one statement takes up.
const STEP: usize = 2_000;

impl Store {
    /// Deletes the calls of chains that were run before a moment, some thousand rows at a time; how many rows.
    pub async fn prune_hook_calls(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.submit(0, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let sql = format!(
                    "DELETE FROM hook_chains WHERE pk IN (SELECT pk FROM
                     (SELECT pk, ran_at FROM hook_chains ORDER BY pk LIMIT {STEP}) AS oldest WHERE ran_at < $1)"
                );
                Box::pin(tx.db.run(sql, values![before.0]))
            }))
        })
        .await
    }

    /// Takes the calls of a plugin out of all chains, some thousand rows at a time; how many rows.
    pub(crate) async fn take_calls(&self, plugin: &str) -> Result<u64, StoreError> {
        let plugin = plugin.to_owned();
        self.submit(0, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let plugin = plugin.clone();
                Box::pin(async move { take_calls(tx, &plugin).await })
            }))
        })
        .await
    }
}

async fn take_calls(tx: &Tx, plugin: &str) -> Result<u64, StoreError> {
    for row in tx.db.all(SETS_OF, values![format!("% {plugin}=%")]).await? {
        let (pk, set): (i64, String) = (row.try_get("", "pk")?, row.try_get("", "calls")?);
        let keeps: Vec<bool> = pairs(&set).map(|(of, _)| of != plugin).collect();
        let rest: Vec<&str> = set.split(' ').zip(&keeps).filter(|(_, keep)| **keep).map(|(pair, _)| pair).collect();
        let taken = if rest.is_empty() {
            let sql = format!(
                "DELETE FROM hook_chains WHERE pk IN (SELECT pk FROM hook_chains WHERE set_pk = $1 LIMIT {STEP})"
            );
            tx.db.run(sql, values![pk]).await?
        } else if keeps.contains(&false) {
            shorten(tx, pk, &keeps, rest.join(" ")).await?
        } else {
            0
        };
        if taken > 0 {
            return Ok(taken);
        }
    }
    Ok(0)
}

/// Leaves only some of the calls of a set's chains.
async fn shorten(tx: &Tx, set: i64, keeps: &[bool], rest: String) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM hook_chains c JOIN events e ON e.pk = c.event_pk WHERE c.set_pk = $1 LIMIT {STEP}"
    );
    let rows = tx.db.all(sql, values![set]).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let Some((_, shorter)) = write_sets(tx, &[rest]).await?.pop() else { return Err(StoreError::bug("no set")) };
    let mut values = values![shorter];
    for row in &rows {
        let (instance_pk, at) = (row.try_get("", "instance_pk")?, Timestamp(row.try_get("", "ran_at")?));
        let place = calls_place(instance_pk, row.try_get("", "event_pk")?, at);
        let calls = open(&tx.sealer, &place, &row.try_get::<Vec<u8>>("", "calls")?)?;
        let kept: Vec<Stored> = calls.into_iter().zip(keeps).filter(|(_, keep)| **keep).map(|(call, _)| call).collect();
        values.extend(values![row.try_get::<i64>("", "pk")?, seal(&tx.sealer, &place, &kept)?]);
    }
    let sql = format!(
        "UPDATE hook_chains SET set_pk = $1, calls = v.column2 FROM (VALUES {}) AS v WHERE hook_chains.pk = v.column1",
        tuples(1, rows.len(), 2)
    );
    tx.db.run(sql, values).await
}
