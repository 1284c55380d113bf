//! Signal state: identities, sessions, prekeys, sender keys.

use super::{DeviceStore, database};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use wacore::store::error::{Result, StoreError};
use wacore::store::traits::SignalStore;

fn borrowed(records: &[(Arc<str>, Bytes)]) -> impl Iterator<Item = (&str, &[u8])> {
    records.iter().map(|(address, record)| (address.as_ref(), record.as_ref()))
}

#[async_trait]
impl SignalStore for DeviceStore {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.rows.put_identities([(address, key.as_slice())]).await.map_err(database)
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let records = identities.iter().map(|(address, key)| (address.as_ref(), key.as_slice()));
        self.rows.put_identities(records).await.map_err(database)
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let Some(key) = self.rows.identity(address).await.map_err(database)? else { return Ok(None) };
        let length = key.len();
        let key = key.try_into().map_err(|_| StoreError::Validation(format!("an identity key of {length} bytes")))?;
        Ok(Some(key))
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.rows.delete_identity(address).await.map_err(database)
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        Ok(self.rows.session(address).await.map_err(database)?.map(Bytes::from))
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.rows.put_sessions([(address, session)]).await.map_err(database)
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.rows.put_sessions(borrowed(sessions)).await.map_err(database)
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.rows.delete_session(address).await.map_err(database)
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        self.rows.has_session(address).await.map_err(database)
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        self.rows.has_signal_state_for_user(user).await.map_err(database)
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.rows.put_prekeys([(id, record)], uploaded).await.map_err(database)
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], uploaded: bool) -> Result<()> {
        let records = keys.iter().map(|(id, record)| (*id, record.as_ref()));
        self.rows.put_prekeys(records, uploaded).await.map_err(database)
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        Ok(self.rows.prekey(id).await.map_err(database)?.map(Bytes::from))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let keys = self.rows.prekeys(ids).await.map_err(database)?;
        Ok(keys.into_iter().map(|(id, record)| (id, Bytes::from(record))).collect())
    }

    async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<()> {
        self.rows.mark_prekeys_uploaded(ids).await.map_err(database)
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.rows.delete_prekey(id).await.map_err(database)
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        self.rows.max_prekey_id().await.map_err(database)
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.rows.put_signed_prekey(id, record).await.map_err(database)
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.rows.signed_prekey(id).await.map_err(database)
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        self.rows.signed_prekeys().await.map_err(database)
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.rows.delete_signed_prekey(id).await.map_err(database)
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.rows.put_sender_keys([(address, record)]).await.map_err(database)
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.rows.put_sender_keys(borrowed(sender_keys)).await.map_err(database)
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.rows.sender_key(address).await.map_err(database)
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.rows.delete_sender_key(address).await.map_err(database)
    }
}
