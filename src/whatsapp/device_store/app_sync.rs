//! App state: sync keys, versions, MACs.

use super::{DeviceStore, database, serialization};
use async_trait::async_trait;
use std::collections::HashMap;
use wacore::appstate::hash::HashState;
use wacore::appstate::processor::AppStateMutationMAC;
use wacore::store::error::Result;
use wacore::store::traits::{AppStateSyncKey, AppSyncStore};

#[async_trait]
impl AppSyncStore for DeviceStore {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        let Some(record) = self.rows.app_state_key(key_id).await.map_err(database)? else { return Ok(None) };
        serde_json::from_slice(&record).map(Some).map_err(serialization)
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let record = serde_json::to_vec(&key).map_err(serialization)?;
        self.rows.put_app_state_key(key_id, &record).await.map_err(database)
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        match self.rows.app_state_version(name).await.map_err(database)? {
            Some(record) => serde_json::from_slice(&record).map_err(serialization),
            None => Ok(HashState::default()),
        }
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        let record = serde_json::to_vec(&state).map_err(serialization)?;
        self.rows.put_app_state_version(name, &record).await.map_err(database)
    }

    async fn put_mutation_macs(&self, name: &str, version: u64, mutations: &[AppStateMutationMAC]) -> Result<()> {
        let macs = mutations.iter().map(|mutation| (mutation.index_mac.as_slice(), mutation.value_mac.as_slice()));
        self.rows.put_mutation_macs(name, version, macs).await.map_err(database)
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.rows.mutation_macs(name, [index_mac]).await.map_err(database)?;
        Ok(found.into_iter().next().map(|(_, value)| value))
    }

    async fn get_mutation_macs(&self, name: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let found =
            self.rows.mutation_macs(name, index_macs.iter().map(<[u8; 32]>::as_slice)).await.map_err(database)?;
        // every index asked for has 32 bytes, and so has every one found
        Ok(found.into_iter().filter_map(|(index, value)| Some((index.try_into().ok()?, value))).collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        self.rows.delete_mutation_macs(name, index_macs).await.map_err(database)
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        self.rows.clear_mutation_macs(name).await.map_err(database)
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.rows.latest_app_state_key_id().await.map_err(database)
    }
}
