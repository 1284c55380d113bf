//! App state: the sync keys, each collection's version, and the MACs of its mutations.

use super::DeviceRows;
use crate::entity::{app_state_macs, app_state_versions};
use crate::sql::{MAX_BINDS, placeholders};
use crate::{Durability, StoreError};
use sea_orm::Value;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl DeviceRows {
    pub async fn app_state_key(&self, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("app_state_keys", "record", &[("key_id", id.to_vec().into())], &hex(id)).await
    }

    /// Stores a key, which becomes the latest one.
    pub async fn put_app_state_key(&self, id: &[u8], record: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("app_state_keys", &hex(id), record)?;
        let sql = "INSERT INTO app_state_keys (instance_pk, key_id, record, position) VALUES ($1, $2, $3,
                   (SELECT COALESCE(MAX(position), 0) + 1 FROM app_state_keys WHERE instance_pk = $1))
                   ON CONFLICT (instance_pk, key_id) DO UPDATE SET record = excluded.record, position = excluded.position";
        let values = vec![self.pk.into(), id.to_vec().into(), record.into()];
        self.run(Durability::Power, vec![(sql.to_owned(), values)]).await.map(drop)
    }

    /// The id of the key that was stored last.
    pub async fn latest_app_state_key_id(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT key_id FROM app_state_keys WHERE instance_pk = $1 ORDER BY position DESC LIMIT 1";
        let row = self.store.reader().one(sql, vec![self.pk.into()]).await?;
        Ok(row.map(|row| row.try_get("", "key_id")).transpose()?)
    }

    pub async fn app_state_version(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("app_state_versions", "record", &[("name", name.into())], name).await
    }

    pub async fn put_app_state_version(&self, name: &str, record: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("app_state_versions", name, record)?;
        let row = app_state_versions::Model { instance_pk: self.pk, name: name.to_owned(), record };
        self.put(self.store.configured(), &[row]).await
    }

    /// Stores (index MAC, value MAC) pairs of a collection.
    pub async fn put_mutation_macs<'a>(
        &self,
        name: &str,
        version: u64,
        macs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), StoreError> {
        let row = |(index_mac, value_mac): (&[u8], &[u8])| app_state_macs::Model {
            instance_pk: self.pk,
            name: name.to_owned(),
            index_mac: index_mac.to_vec(),
            value_mac: value_mac.to_vec(),
            version: i64::try_from(version).unwrap_or(i64::MAX),
        };
        let rows: Vec<_> = macs.into_iter().map(row).collect();
        self.put(self.store.configured(), &rows).await
    }

    /// The (index MAC, value MAC) pairs that exist of those asked for.
    pub async fn mutation_macs<'a>(
        &self,
        name: &str,
        index_macs: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let wanted = index_macs.into_iter().map(|mac| mac.to_vec().into()).collect();
        let key = [("name", name.into())];
        let rows = self.select_in("app_state_macs", "index_mac, value_mac", &key, "index_mac", wanted).await?;
        rows.iter().map(|row| Ok((row.try_get("", "index_mac")?, row.try_get("", "value_mac")?))).collect()
    }

    pub async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut statements = Vec::new();
        for macs in index_macs.chunks(MAX_BINDS) {
            let mut values = vec![self.pk.into(), name.into()];
            values.extend(macs.iter().map(|mac| Value::from(mac.clone())));
            let list = placeholders(2, macs.len());
            let sql =
                format!("DELETE FROM app_state_macs WHERE instance_pk = $1 AND name = $2 AND index_mac IN ({list})");
            statements.push((sql, values));
        }
        self.run(self.store.configured(), statements).await.map(drop)
    }

    pub async fn clear_mutation_macs(&self, name: &str) -> Result<(), StoreError> {
        self.remove(self.store.configured(), "app_state_macs", &[("name", name.into())]).await.map(drop)
    }
}
