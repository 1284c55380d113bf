//! What the WhatsApp client keeps for one instance, as rows. No method logs an error away, and every write is fenced.
//!
//! Durability: sessions, identities, prekeys, sender keys, the device itself and app-state keys survive power loss
//! whatever the configuration; sent messages, message secrets, privacy tokens and device lists survive the process
//! only; the rest is at the configured level. Both databases keep a prefix of what was committed, so a weaker write
//! that came before a stronger one is never lost without it.
//!
//! Columns that end in `_secs` are the protocol's Unix seconds and pass through unchanged.

mod app_state;
mod cache;
mod inbound;
mod protocol;
mod signal;

pub use cache::{MessageSecret, Token};
pub use inbound::PendingMessage;
pub use protocol::LidMapping;

use crate::entity::device;
use crate::seal::place;
use crate::sql::{MAX_BINDS, placeholders};
use crate::writer::{Fence, OnConflict, Op, Put, work};
use crate::{Durability, Store, StoreError};
use kero_domain::Timestamp;
use sea_orm::{ModelTrait, QueryResult, Value};
use std::sync::Arc;

/// Every table of this module.
pub(crate) const TABLES: &[&str] = &[
    "device",
    "identities",
    "sessions",
    "prekeys",
    "signed_prekeys",
    "sender_keys",
    "sender_key_devices",
    "app_state_keys",
    "app_state_versions",
    "app_state_macs",
    "lid_mappings",
    "base_keys",
    "device_lists",
    "group_metadata",
    "tc_tokens",
    "sent_messages",
    "msg_secrets",
    "pending_inbound",
];

/// The device rows of one instance, for the holder of one epoch of it. Cheap to clone.
#[derive(Clone)]
pub struct DeviceRows {
    store: Store,
    pk: i64,
    epoch: i64,
}

impl Store {
    /// The device rows of an instance. Nothing is checked here: a write with an epoch that is not the instance's is
    /// refused with [`StoreError::EpochLost`].
    pub fn device(&self, instance_pk: i64, epoch: i64) -> DeviceRows {
        DeviceRows { store: self.clone(), pk: instance_pk, epoch }
    }
}

impl DeviceRows {
    /// The device's own record; `None` before it was created.
    pub async fn load_device(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("device", "record", &[], "").await
    }

    pub async fn device_exists(&self) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM device WHERE instance_pk = $1";
        Ok(self.store.reader().one(sql, vec![self.pk.into()]).await?.is_some())
    }

    pub async fn save_device(&self, record: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("device", "", record)?;
        let row = device::Model { instance_pk: self.pk, record, updated_at: Timestamp::now().0 };
        self.put(Durability::Power, &[row]).await
    }

    /// The same unless there is a record already.
    pub async fn create_device(&self, record: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("device", "", record)?;
        let sql = "INSERT INTO device (instance_pk, record, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values = vec![self.pk.into(), record.into(), Timestamp::now().0.into()];
        self.run(Durability::Power, vec![(sql.to_owned(), values)]).await.map(drop)
    }

    fn fence(&self) -> Option<Fence> {
        Some(Fence { pk: self.pk, epoch: self.epoch })
    }

    fn seal(&self, table: &str, row: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.store.sealer().seal(&place(table, self.pk, row), plain)
    }

    fn open(&self, table: &'static str, row: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.store.sealer().open(table, &place(table, self.pk, row), sealed)
    }

    /// Upserts rows in one transaction, together with what other callers put into the table.
    async fn put<M: ModelTrait>(&self, level: Durability, rows: &[M]) -> Result<(), StoreError> {
        self.put_with(level, rows, OnConflict::Replace).await
    }

    async fn put_with<M: ModelTrait>(
        &self,
        level: Durability,
        rows: &[M],
        conflict: OnConflict,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.store.submit(self.pk, self.fence(), level, |answer| Op::Put(Put::new(rows, conflict, answer))).await
    }

    /// Runs statements in one transaction; the rows that they touched.
    async fn run(&self, level: Durability, statements: Vec<(String, Vec<Value>)>) -> Result<u64, StoreError> {
        if statements.is_empty() {
            return Ok(0);
        }
        let statements = Arc::new(statements);
        self.store
            .submit(self.pk, self.fence(), level, |answer| {
                Op::Device(work(answer, move |tx| {
                    let statements = Arc::clone(&statements);
                    Box::pin(async move {
                        let mut touched = 0;
                        for (sql, values) in statements.iter() {
                            touched += tx.db.run(sql.as_str(), values.clone()).await?;
                        }
                        Ok(touched)
                    })
                }))
            })
            .await
    }

    /// Deletes the row of a key, or every row that has the beginning of one.
    async fn remove(
        &self,
        level: Durability,
        table: &'static str,
        key: &[(&'static str, Value)],
    ) -> Result<u64, StoreError> {
        let (condition, values) = self.condition(key);
        self.run(level, vec![(format!("DELETE FROM {table} WHERE {condition}"), values)]).await
    }

    fn condition(&self, key: &[(&'static str, Value)]) -> (String, Vec<Value>) {
        let mut condition = "instance_pk = $1".to_owned();
        let mut values = vec![Value::from(self.pk)];
        for (column, value) in key {
            values.push(value.clone());
            condition.push_str(&format!(" AND {column} = ${}", values.len()));
        }
        (condition, values)
    }

    /// Reads columns of the rows with a key, or with the beginning of one.
    async fn select(
        &self,
        table: &'static str,
        columns: &str,
        key: &[(&'static str, Value)],
    ) -> Result<Vec<QueryResult>, StoreError> {
        let (condition, values) = self.condition(key);
        self.store.reader().all(format!("SELECT {columns} FROM {table} WHERE {condition}"), values).await
    }

    /// Reads the rows whose `column` is one of many.
    async fn select_in(
        &self,
        table: &'static str,
        columns: &str,
        key: &[(&'static str, Value)],
        column: &'static str,
        wanted: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut rows = Vec::new();
        for wanted in wanted.chunks(MAX_BINDS) {
            let (condition, mut values) = self.condition(key);
            let list = placeholders(values.len(), wanted.len());
            values.extend_from_slice(wanted);
            let sql = format!("SELECT {columns} FROM {table} WHERE {condition} AND {column} IN ({list})");
            rows.extend(self.store.reader().all(sql, values).await?);
        }
        Ok(rows)
    }

    /// Reads and opens one sealed column. `row` is the key as it was sealed with.
    async fn sealed(
        &self,
        table: &'static str,
        column: &'static str,
        key: &[(&'static str, Value)],
        row: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(found) = self.select(table, column, key).await?.into_iter().next() else { return Ok(None) };
        self.open(table, row, &found.try_get::<Vec<u8>>("", column)?).map(Some)
    }
}

/// A key of several texts as one, for the seal.
fn joined(parts: &[&str]) -> String {
    parts.join("|")
}
