//! The device itself, and the secrets of messages.

use super::{DeviceStore, count, database, serialization};
use async_trait::async_trait;
use kero_store::device::MessageSecret;
use wacore::stats::StorageResourceReport;
use wacore::store::Device;
use wacore::store::error::Result;
use wacore::store::traits::{DeviceStore as DeviceTrait, MsgSecretEntry, MsgSecretStore};
use waproto::whatsapp as wa;

/// One instance is one device, and the client never looks at the number.
const DEVICE: i32 = 1;
/// For how long the client keeps the secret of an ordinary message, in seconds; those of polls it keeps longer than
/// most jobs are kept.
const OF_TEXT: i64 = 30 * 86_400;

#[async_trait]
impl DeviceTrait for DeviceStore {
    async fn save(&self, device: &Device) -> Result<()> {
        let record = serde_json::to_vec(device).map_err(serialization)?;
        self.rows.save_device(&record).await.map_err(database)
    }

    async fn load(&self) -> Result<Option<Device>> {
        let Some(record) = self.rows.load_device().await.map_err(database)? else { return Ok(None) };
        serde_json::from_slice(&record).map(Some).map_err(serialization)
    }

    async fn exists(&self) -> Result<bool> {
        self.rows.device_exists().await.map_err(database)
    }

    async fn create(&self) -> Result<i32> {
        let record = serde_json::to_vec(&Device::new()).map_err(serialization)?;
        self.rows.create_device(&record).await.map_err(database)?;
        Ok(DEVICE)
    }

    #[allow(clippy::field_reassign_with_default, reason = "the struct is non-exhaustive")]
    async fn resource_report(&self) -> StorageResourceReport {
        // nothing is held in memory per instance
        let mut report = StorageResourceReport::default();
        report.memory_bytes = Some(0);
        report
    }
}

impl DeviceStore {
    /// The secret of a message that a job of this account sent.
    async fn secret_of_job(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let Some((proto, sent)) = self.rows.protobuf_of_job(chat, msg_id).await.map_err(database)? else {
            return Ok(None);
        };
        let Some(device) = self.load().await? else { return Ok(None) };
        if ![&device.pn, &device.lid].into_iter().flatten().any(|own| own.to_non_ad().to_string() == sender) {
            return Ok(None);
        }
        let message: wa::Message = waproto::codec::message_decode(&proto)
            .map_err(|error| wacore::store::error::StoreError::Serialization(Box::new(error)))?;
        let secret = message.message_context_info.as_option().and_then(|context| context.message_secret.clone());
        Ok(secret.map(|secret| (secret, sent.secs())))
    }
}

#[async_trait]
impl MsgSecretStore for DeviceStore {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        fn secret(entry: &MsgSecretEntry) -> MessageSecret<'_> {
            MessageSecret {
                chat: &entry.chat,
                sender: &entry.sender,
                message_id: &entry.msg_id,
                secret: &entry.secret,
                expires_secs: entry.expires_at,
                message_secs: entry.message_ts,
            }
        }
        let kept_by_job = |entry: &&MsgSecretEntry| {
            let lasting = entry.expires_at == 0 || entry.expires_at - entry.message_ts > OF_TEXT;
            !lasting && self.outgoing.has(&entry.msg_id)
        };
        let secrets: Vec<MessageSecret<'_>> = entries.iter().filter(|entry| !kept_by_job(entry)).map(secret).collect();
        self.rows.put_message_secrets(&secrets).await.map_err(database)?;
        Ok(entries.len())
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_msg_secret_with_ts(chat, sender, msg_id).await?.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        if let Some(found) = self.rows.message_secret(chat, sender, msg_id).await.map_err(database)? {
            return Ok(Some(found));
        }
        self.secret_of_job(chat, sender, msg_id).await
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.rows.delete_expired_message_secrets(cutoff_timestamp).await.map(count).map_err(database)
    }
}
