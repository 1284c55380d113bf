//! Who has which sender key, which LID is which number, which devices a user has.

use super::{DeviceRows, joined};
use crate::entity::{base_keys, device_lists, group_metadata, lid_mappings, sender_key_devices};
use crate::sql::{MAX_BINDS, placeholders};
use crate::{Durability, StoreError};
use sea_orm::{QueryResult, Value};

/// A LID and the phone number that it belongs to (user parts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LidMapping {
    pub lid: String,
    pub phone: String,
    pub created_secs: i64,
    pub updated_secs: i64,
    /// Where it was learned.
    pub source: String,
}

impl DeviceRows {
    /// The devices of a group, and whether each has our sender key.
    pub async fn sender_key_devices(&self, group: &str) -> Result<Vec<(String, bool)>, StoreError> {
        let rows = self.select("sender_key_devices", "device_jid, has_key", &[("group_jid", group.into())]).await?;
        rows.iter().map(|row| Ok((row.try_get("", "device_jid")?, row.try_get("", "has_key")?))).collect()
    }

    pub async fn put_sender_key_devices(&self, group: &str, devices: &[(&str, bool)]) -> Result<(), StoreError> {
        let row = |(device, has_key): &(&str, bool)| sender_key_devices::Model {
            instance_pk: self.pk,
            group_jid: group.to_owned(),
            device_jid: (*device).to_owned(),
            has_key: *has_key,
        };
        self.put(self.store.configured(), &devices.iter().map(row).collect::<Vec<_>>()).await
    }

    pub async fn clear_sender_key_devices(&self, group: &str) -> Result<(), StoreError> {
        self.remove(self.store.configured(), "sender_key_devices", &[("group_jid", group.into())]).await.map(drop)
    }

    pub async fn clear_all_sender_key_devices(&self) -> Result<(), StoreError> {
        self.remove(self.store.configured(), "sender_key_devices", &[]).await.map(drop)
    }

    /// Deletes devices from all groups.
    pub async fn delete_sender_key_devices(&self, devices: &[&str]) -> Result<(), StoreError> {
        let mut statements = Vec::new();
        for devices in devices.chunks(MAX_BINDS) {
            let mut values = vec![Value::from(self.pk)];
            values.extend(devices.iter().map(|device| Value::from(*device)));
            let list = placeholders(1, devices.len());
            statements.push((
                format!("DELETE FROM sender_key_devices WHERE instance_pk = $1 AND device_jid IN ({list})"),
                values,
            ));
        }
        self.run(self.store.configured(), statements).await.map(drop)
    }

    pub async fn put_lid_mappings(&self, mappings: impl IntoIterator<Item = LidMapping>) -> Result<(), StoreError> {
        let row = |mapping: LidMapping| lid_mappings::Model {
            instance_pk: self.pk,
            lid: mapping.lid,
            phone: mapping.phone,
            created_secs: mapping.created_secs,
            updated_secs: mapping.updated_secs,
            source: mapping.source,
        };
        self.put(self.store.configured(), &mappings.into_iter().map(row).collect::<Vec<_>>()).await
    }

    pub async fn lid_mapping(&self, lid: &str) -> Result<Option<LidMapping>, StoreError> {
        let rows = self.select("lid_mappings", "*", &[("lid", lid.into())]).await?;
        rows.first().map(mapping).transpose()
    }

    /// The mapping of a phone number that was learned last.
    pub async fn phone_mapping(&self, phone: &str) -> Result<Option<LidMapping>, StoreError> {
        let sql = "SELECT * FROM lid_mappings WHERE instance_pk = $1 AND phone = $2
                   ORDER BY updated_secs DESC, created_secs DESC LIMIT 1";
        let row = self.store.reader().one(sql, vec![self.pk.into(), phone.into()]).await?;
        row.as_ref().map(mapping).transpose()
    }

    pub async fn lid_mappings(&self) -> Result<Vec<LidMapping>, StoreError> {
        self.select("lid_mappings", "*", &[]).await?.iter().map(mapping).collect()
    }

    pub async fn put_base_key(&self, address: &str, message_id: &str, key: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("base_keys", &joined(&[address, message_id]), key)?;
        let row = base_keys::Model {
            instance_pk: self.pk,
            address: address.to_owned(),
            message_id: message_id.to_owned(),
            record,
        };
        self.put(self.store.configured(), &[row]).await
    }

    pub async fn base_key(&self, address: &str, message_id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = [("address", address.into()), ("message_id", message_id.into())];
        self.sealed("base_keys", "record", &key, &joined(&[address, message_id])).await
    }

    pub async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<(), StoreError> {
        let key = [("address", address.into()), ("message_id", message_id.into())];
        self.remove(self.store.configured(), "base_keys", &key).await.map(drop)
    }

    /// Stores device lists by user, all in one transaction.
    pub async fn put_device_lists(&self, lists: impl IntoIterator<Item = (String, String)>) -> Result<(), StoreError> {
        let row = |(account, record)| device_lists::Model { instance_pk: self.pk, account, record };
        self.put(Durability::Process, &lists.into_iter().map(row).collect::<Vec<_>>()).await
    }

    pub async fn device_list(&self, user: &str) -> Result<Option<String>, StoreError> {
        let rows = self.select("device_lists", "record", &[("account", user.into())]).await?;
        Ok(rows.first().map(|row| row.try_get("", "record")).transpose()?)
    }

    pub async fn delete_device_list(&self, user: &str) -> Result<(), StoreError> {
        self.remove(Durability::Process, "device_lists", &[("account", user.into())]).await.map(drop)
    }

    pub async fn put_group_metadata(&self, group: &str, blob: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("group_metadata", group, blob)?;
        let row = group_metadata::Model { instance_pk: self.pk, group_jid: group.to_owned(), record };
        self.put(self.store.configured(), &[row]).await
    }

    pub async fn group_metadata(&self, group: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("group_metadata", "record", &[("group_jid", group.into())], group).await
    }

    pub async fn delete_group_metadata(&self, group: &str) -> Result<(), StoreError> {
        self.remove(self.store.configured(), "group_metadata", &[("group_jid", group.into())]).await.map(drop)
    }
}

fn mapping(row: &QueryResult) -> Result<LidMapping, StoreError> {
    Ok(LidMapping {
        lid: row.try_get("", "lid")?,
        phone: row.try_get("", "phone")?,
        created_secs: row.try_get("", "created_secs")?,
        updated_secs: row.try_get("", "updated_secs")?,
        source: row.try_get("", "source")?,
    })
}
