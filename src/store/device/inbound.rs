//! Messages that were decrypted and whose event is not yet committed.
//!
//! When one cannot be stored, every later write of this owner is refused: the ratchet in memory has moved past the
//! message, and a session stored after it would make the client take the redelivery for a duplicate.

use super::{DeviceRows, joined};
use crate::entity::pending_inbound;
use crate::sql::{MAX_BINDS, tuples, values};
use crate::{Durability, StoreError};
use kero_domain::Timestamp;
use sea_orm::Value;

/// A message by its key, which is unique only as a whole.
#[derive(Debug, Clone, Copy)]
pub struct PendingMessage<'a> {
    pub chat: &'a str,
    pub sender: &'a str,
    pub id: &'a str,
    pub message: &'a [u8],
}

impl DeviceRows {
    /// Stores messages, all in one transaction.
    pub async fn put_pending_inbound(&self, messages: &[PendingMessage<'_>]) -> Result<(), StoreError> {
        let stored_at = Timestamp::now().0;
        let mut rows = Vec::with_capacity(messages.len());
        for entry in messages {
            let row = joined(&[entry.chat, entry.sender, entry.id]);
            rows.push(pending_inbound::Model {
                instance_pk: self.pk,
                chat: entry.chat.to_owned(),
                sender: entry.sender.to_owned(),
                message_id: entry.id.to_owned(),
                message: self.seal("pending_inbound", &row, entry.message)?,
                stored_at,
            });
        }
        self.put(self.store.configured(), &rows).await
    }

    pub async fn pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = [("chat", chat.into()), ("sender", sender.into()), ("message_id", id.into())];
        self.sealed("pending_inbound", "message", &key, &joined(&[chat, sender, id])).await
    }

    /// Deletes messages by (chat, sender, id). A deletion that is lost costs a row until it expires, so it does not
    /// wait for the disk.
    pub async fn delete_pending_inbound(&self, keys: &[(&str, &str, &str)]) -> Result<(), StoreError> {
        let mut statements = Vec::new();
        for keys in keys.chunks(MAX_BINDS / 3) {
            let mut values = values![self.pk];
            for (chat, sender, id) in keys {
                values.extend([Value::from(*chat), Value::from(*sender), Value::from(*id)]);
            }
            let list = tuples(1, keys.len(), 3);
            let sql = format!(
                "DELETE FROM pending_inbound WHERE instance_pk = $1 AND (chat, sender, message_id) IN (VALUES {list})"
            );
            statements.push((sql, values));
        }
        self.run(Durability::Process, statements).await.map(drop)
    }

    /// Deletes messages stored before `cutoff`; how many.
    pub async fn delete_expired_pending_inbound(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM pending_inbound WHERE instance_pk = $1 AND stored_at < $2";
        self.run(Durability::Process, vec![(sql.to_owned(), values![self.pk, cutoff.0])]).await
    }
}
