//! What plugins store: a value by plugin, instance and key. Written only together with a verdict.

use crate::seal::{Sealer, place};
use crate::sql::values;
use crate::writer::{Op, Tx, work};
use crate::{Durability, Store, StoreError};
use kero_domain::Timestamp;
use std::time::Duration;

/// A write, in the order in which the plugin asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvWrite {
    pub plugin: String,
    pub key: String,
    pub change: KvChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange {
    /// Without `ttl` it stays until it is deleted.
    Set {
        value: Vec<u8>,
        ttl: Option<Duration>,
    },
    Delete,
    /// To the stored decimal number, or to 0. Without `ttl` the expiry stays as it is.
    Add {
        by: i64,
        ttl: Option<Duration>,
    },
}

fn value_place(instance_pk: i64, plugin: &str, key: &str) -> String {
    // the length keeps `a`+`|b` and `a|`+`b` apart
    place("hook_kv.value", instance_pk, format_args!("{plugin}|{}|{key}", key.len()))
}

fn open(sealer: &Sealer, pk: i64, plugin: &str, key: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    sealer.open("plugin's value", &value_place(pk, plugin, key), sealed)
}

const LIVE: &str = "(expires_at IS NULL OR expires_at > ";

impl Store {
    /// The live value.
    pub async fn kv_get(
        &self,
        plugin: &str,
        instance_pk: i64,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql =
            format!("SELECT value FROM hook_kv WHERE plugin = $1 AND instance_pk = $2 AND entry = $3 AND {LIVE}$4)");
        let values = values![plugin, instance_pk, key.as_bytes().to_vec(), now.0];
        let Some(row) = self.reader().one(sql, values).await? else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get("", "value")?;
        open(self.sealer(), instance_pk, plugin, key, &sealed).map(Some)
    }

    /// Bytes of the live keys and values of a plugin in an instance.
    pub async fn kv_used(&self, plugin: &str, instance_pk: i64, now: Timestamp) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS used FROM hook_kv
             WHERE plugin = $1 AND instance_pk = $2 AND {LIVE}$3)"
        );
        let row = self.reader().one(sql, values![plugin, instance_pk, now.0]).await?;
        let used = row.map(|row| row.try_get::<i64>("", "used")).transpose()?;
        Ok(u64::try_from(used.unwrap_or(0)).unwrap_or(0))
    }

    /// Deletes values that expired; how many.
    pub async fn prune_kv(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.submit(0, None, Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(tx.db.run("DELETE FROM hook_kv WHERE expires_at <= $1", values![now.0]))
            }))
        })
        .await
    }
}

/// Applies writes within a transaction.
pub(crate) async fn apply(tx: &Tx, instance_pk: i64, writes: &[KvWrite]) -> Result<(), StoreError> {
    let now = Timestamp::now();
    for write in writes {
        // a plugin that was deleted meanwhile stores nothing
        if tx.db.one("SELECT 1 FROM plugins WHERE name = $1", values![write.plugin.clone()]).await?.is_none() {
            continue;
        }
        let key = write.key.as_bytes().to_vec();
        match &write.change {
            KvChange::Set { value, ttl } => {
                put(tx, instance_pk, write, value, ttl.map(|ttl| now.after(ttl).0), now).await?;
            }
            KvChange::Delete => {
                let sql = "DELETE FROM hook_kv WHERE plugin = $1 AND instance_pk = $2 AND entry = $3";
                tx.db.run(sql, values![write.plugin.clone(), instance_pk, key]).await?;
            }
            KvChange::Add { by, ttl } => {
                let sql = format!(
                    "SELECT value, expires_at FROM hook_kv WHERE plugin = $1 AND instance_pk = $2 AND entry = $3
                     AND {LIVE}$4)"
                );
                let found = tx.db.one(sql, values![write.plugin.clone(), instance_pk, key, now.0]).await?;
                let (mut number, mut expires_at) = (0i64, None);
                if let Some(row) = found {
                    let sealed: Vec<u8> = row.try_get("", "value")?;
                    let value = open(&tx.sealer, instance_pk, &write.plugin, &write.key, &sealed)?;
                    number = std::str::from_utf8(&value).ok().and_then(|it| it.trim().parse().ok()).unwrap_or(0);
                    expires_at = row.try_get("", "expires_at")?;
                }
                let expires_at = ttl.map(|ttl| now.after(ttl).0).or(expires_at);
                let value = number.saturating_add(*by).to_string();
                put(tx, instance_pk, write, value.as_bytes(), expires_at, now).await?;
            }
        }
    }
    Ok(())
}

async fn put(
    tx: &Tx,
    instance_pk: i64,
    write: &KvWrite,
    value: &[u8],
    expires_at: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sealed = tx.sealer.seal(&value_place(instance_pk, &write.plugin, &write.key), value)?;
    let sql = "INSERT INTO hook_kv (plugin, instance_pk, entry, value, bytes, expires_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (plugin, instance_pk, entry) DO UPDATE SET value = excluded.value, bytes = excluded.bytes,
               expires_at = excluded.expires_at, updated_at = excluded.updated_at";
    let bytes = i64::try_from(write.key.len() + value.len()).unwrap_or(i64::MAX);
    let values =
        values![write.plugin.clone(), instance_pk, write.key.as_bytes().to_vec(), sealed, bytes, expires_at, now.0];
    tx.db.run(sql, values).await.map(drop)
}
