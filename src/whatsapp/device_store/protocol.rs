//! Sender-key devices, LID mappings, base keys, device lists, groups, tokens, sent messages, pending inbound.

use super::{DeviceStore, count, database, serialization};
use async_trait::async_trait;
use kero_domain::Timestamp;
use kero_store::device::{LidMapping, PendingMessage, Token};
use wacore::store::error::Result;
use wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore, TcTokenEntry,
};

fn mapping(entry: &LidPnMappingEntry) -> LidMapping {
    LidMapping {
        lid: entry.lid.clone(),
        phone: entry.phone_number.clone(),
        created_secs: entry.created_at,
        updated_secs: entry.updated_at,
        source: entry.learning_source.clone(),
    }
}

fn entry(mapping: LidMapping) -> LidPnMappingEntry {
    LidPnMappingEntry {
        lid: mapping.lid,
        phone_number: mapping.phone,
        created_at: mapping.created_secs,
        updated_at: mapping.updated_secs,
        learning_source: mapping.source,
    }
}

fn list(record: &DeviceListRecord) -> Result<(String, String)> {
    Ok((record.user.clone(), serde_json::to_string(record).map_err(serialization)?))
}

#[async_trait]
impl ProtocolStore for DeviceStore {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        self.rows.sender_key_devices(group_jid).await.map_err(database)
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        self.rows.put_sender_key_devices(group_jid, entries).await.map_err(database)
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.rows.clear_sender_key_devices(group_jid).await.map_err(database)
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        self.rows.delete_sender_key_devices(device_jids).await.map_err(database)
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.rows.clear_all_sender_key_devices().await.map_err(database)
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        Ok(self.rows.lid_mapping(lid).await.map_err(database)?.map(entry))
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        Ok(self.rows.phone_mapping(phone).await.map_err(database)?.map(entry))
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.rows.put_lid_mappings([mapping(entry)]).await.map_err(database)
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        self.rows.put_lid_mappings(entries.iter().map(mapping)).await.map_err(database)
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        Ok(self.rows.lid_mappings().await.map_err(database)?.into_iter().map(entry).collect())
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.rows.put_base_key(address, message_id, base_key).await.map_err(database)
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current_base_key: &[u8]) -> Result<bool> {
        let saved = self.rows.base_key(address, message_id).await.map_err(database)?;
        Ok(saved.is_some_and(|saved| saved == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.rows.delete_base_key(address, message_id).await.map_err(database)
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.rows.put_device_lists([list(&record)?]).await.map_err(database)
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let lists = records.iter().map(list).collect::<Result<Vec<_>>>()?;
        self.rows.put_device_lists(lists).await.map_err(database)
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        let Some(record) = self.rows.device_list(user).await.map_err(database)? else { return Ok(None) };
        serde_json::from_str(&record).map(Some).map_err(serialization)
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.rows.delete_device_list(user).await.map_err(database)
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.rows.group_metadata(group_jid).await.map_err(database)
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.rows.put_group_metadata(group_jid, blob).await.map_err(database)
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.rows.delete_group_metadata(group_jid).await.map_err(database)
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let entry = |token: Token| TcTokenEntry {
            token: token.token,
            token_timestamp: token.token_secs,
            sender_timestamp: token.sender_secs,
        };
        Ok(self.rows.token(jid).await.map_err(database)?.map(entry))
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let token = Token {
            token: entry.token.clone(),
            token_secs: entry.token_timestamp,
            sender_secs: entry.sender_timestamp,
        };
        self.rows.put_token(jid, &token).await.map_err(database)
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.rows.delete_token(jid).await.map_err(database)
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        self.rows.token_jids().await.map_err(database)
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        self.rows.delete_expired_tokens(token_cutoff, sender_cutoff).await.map(count).map_err(database)
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        self.rows.touch_token_sender(jid, sender_timestamp).await.map_err(database)
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        self.rows.receive_token(jid, token, token_timestamp).await.map_err(database)
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        if self.outgoing.has(message_id) {
            return Ok(());
        }
        self.rows.put_sent_message(chat_jid, message_id, payload).await.map_err(database)
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        if let Some(payload) = self.rows.take_sent_message(chat_jid, message_id).await.map_err(database)? {
            return Ok(Some(payload));
        }
        let found = self.rows.protobuf_of_job(chat_jid, message_id).await.map_err(database)?;
        Ok(found.map(|(proto, _)| proto))
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        let cutoff = Timestamp::from_secs(cutoff_timestamp);
        self.rows.delete_expired_sent_messages(cutoff).await.map(count).map_err(database)
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.rows.put_pending_inbound(&[PendingMessage { chat, sender, id, message }]).await.map_err(database)
    }

    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        self.rows.pending_inbound(chat, sender, id).await.map_err(database)
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.rows.delete_pending_inbound(&[(chat, sender, id)]).await.map_err(database)
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        let cutoff = Timestamp::from_secs(cutoff_timestamp);
        self.rows.delete_expired_pending_inbound(cutoff).await.map(count).map_err(database)
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let messages: Vec<_> = rows
            .iter()
            .map(|row| PendingMessage { chat: row.chat, sender: row.sender, id: row.id, message: row.message })
            .collect();
        self.rows.put_pending_inbound(&messages).await.map_err(database)
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let keys: Vec<_> = keys.iter().map(|key| (key.chat, key.sender, key.id)).collect();
        self.rows.delete_pending_inbound(&keys).await.map_err(database)
    }
}
