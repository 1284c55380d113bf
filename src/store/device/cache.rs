//! What can be learned again: sent messages for retries, message secrets, privacy tokens. Survives the process only.

use super::{DeviceRows, joined};
use crate::entity::{msg_secrets, sent_messages, tc_tokens};
use crate::seal::place;
use crate::sql::values;
use crate::writer::{OnConflict, Op, work};
use crate::{Durability, StoreError};
use kero_domain::{JobId, Timestamp};

const LEVEL: Durability = Durability::Process;

/// A contact's privacy token, and when we gave them ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Empty while none was received.
    pub token: Vec<u8>,
    pub token_secs: i64,
    pub sender_secs: Option<i64>,
}

/// The secret of a message, by which its reactions, votes and edits are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSecret<'a> {
    pub chat: &'a str,
    pub sender: &'a str,
    pub message_id: &'a str,
    pub secret: &'a [u8],
    /// 0: never.
    pub expires_secs: i64,
    /// When the message was sent; 0: unknown.
    pub message_secs: i64,
}

impl DeviceRows {
    /// The token of a contact. One statement on a reading connection: every send asks for it.
    pub async fn token(&self, jid: &str) -> Result<Option<Token>, StoreError> {
        let rows = self.select("tc_tokens", "token, token_secs, sender_secs", &[("jid", jid.into())]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get("", "token")?;
        let token = if sealed.is_empty() { sealed } else { self.open("tc_tokens", jid, &sealed)? };
        Ok(Some(Token {
            token,
            token_secs: row.try_get("", "token_secs")?,
            sender_secs: row.try_get("", "sender_secs")?,
        }))
    }

    fn token_row(&self, jid: &str, token: &Token) -> Result<tc_tokens::Model, StoreError> {
        let sealed = if token.token.is_empty() { Vec::new() } else { self.seal("tc_tokens", jid, &token.token)? };
        Ok(tc_tokens::Model {
            instance_pk: self.pk,
            jid: jid.to_owned(),
            token: sealed,
            token_secs: token.token_secs,
            sender_secs: token.sender_secs,
        })
    }

    pub async fn put_token(&self, jid: &str, token: &Token) -> Result<(), StoreError> {
        self.put(LEVEL, &[self.token_row(jid, token)?]).await
    }

    pub async fn delete_token(&self, jid: &str) -> Result<(), StoreError> {
        self.remove(LEVEL, "tc_tokens", &[("jid", jid.into())]).await.map(drop)
    }

    pub async fn token_jids(&self) -> Result<Vec<String>, StoreError> {
        self.select("tc_tokens", "jid", &[]).await?.iter().map(|row| Ok(row.try_get("", "jid")?)).collect()
    }

    /// Moves the moment at which we gave our token forward, never back; the token itself stays as it is.
    pub async fn touch_token_sender(&self, jid: &str, secs: i64) -> Result<(), StoreError> {
        const FORWARD: OnConflict = OnConflict::Set(
            "sender_secs = CASE WHEN tc_tokens.sender_secs >= excluded.sender_secs THEN tc_tokens.sender_secs
             ELSE excluded.sender_secs END",
        );
        let token = Token { token: Vec::new(), token_secs: secs, sender_secs: Some(secs) };
        self.put_with(LEVEL, &[self.token_row(jid, &token)?], FORWARD).await
    }

    /// Stores a received token unless a newer one is there; the sender's moment stays as it is.
    pub async fn receive_token(&self, jid: &str, token: &[u8], secs: i64) -> Result<(), StoreError> {
        const NEWER: OnConflict = OnConflict::Set(
            "token = excluded.token, token_secs = excluded.token_secs
             WHERE length(tc_tokens.token) = 0 OR excluded.token_secs >= tc_tokens.token_secs",
        );
        let token = Token { token: token.to_vec(), token_secs: secs, sender_secs: None };
        self.put_with(LEVEL, &[self.token_row(jid, &token)?], NEWER).await
    }

    /// Deletes tokens of which neither side is younger than its cutoff; how many.
    pub async fn delete_expired_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM tc_tokens WHERE instance_pk = $1 AND (length(token) = 0 OR token_secs < $2)
                   AND (sender_secs IS NULL OR sender_secs < $3)";
        self.run(LEVEL, vec![(sql.to_owned(), values![self.pk, token_cutoff, sender_cutoff])]).await
    }

    /// Keeps a sent message for a receiver that could not read it; what a job sends need not be kept here as well
    /// ([`Self::protobuf_of_job`]).
    pub async fn put_sent_message(&self, chat: &str, message_id: &str, payload: &[u8]) -> Result<(), StoreError> {
        let row = sent_messages::Model {
            instance_pk: self.pk,
            chat: chat.to_owned(),
            message_id: message_id.to_owned(),
            payload: self.seal("sent_messages", &joined(&[chat, message_id]), payload)?,
            stored_at: Timestamp::now().0,
        };
        self.put(LEVEL, &[row]).await
    }

    /// Takes a sent message out; of callers at the same time one gets it.
    pub async fn take_sent_message(&self, chat: &str, message_id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (pk, row) = (self.pk, joined(&[chat, message_id]));
        let values = values![pk, chat, message_id];
        self.store
            .submit(pk, self.fence(), LEVEL, |answer| {
                Op::Device(work(answer, move |tx| {
                    let (values, place) = (values.clone(), place("sent_messages", pk, &row));
                    Box::pin(async move {
                        let sql = "DELETE FROM sent_messages WHERE instance_pk = $1 AND chat = $2 AND message_id = $3
                                   RETURNING payload";
                        let Some(row) = tx.db.one(sql, values).await? else { return Ok(None) };
                        let sealed: Vec<u8> = row.try_get("", "payload")?;
                        tx.sealer.open("sent message", &place, &sealed).map(Some)
                    })
                }))
            })
            .await
    }

    /// The protobuf that a job sent to a chat under this id, whether the job names the chat by its number or by its LID,
    /// and when it was sent.
    pub async fn protobuf_of_job(
        &self,
        chat: &str,
        message_id: &str,
    ) -> Result<Option<(Vec<u8>, Timestamp)>, StoreError> {
        let sql = "SELECT id, chat, proto, COALESCE(ended_at, updated_at) AS at FROM jobs
                   WHERE instance_pk = $1 AND message_id = $2 AND proto IS NOT NULL";
        for row in self.store.reader().all(sql, values![self.pk, message_id]).await? {
            if self.same_chat(chat, &row.try_get::<String>("", "chat")?).await? {
                let place = crate::jobs::proto_place(self.pk, JobId(row.try_get("", "id")?));
                let proto: Vec<u8> = row.try_get("", "proto")?;
                let proto = self.store.sealer().open("job's protobuf", &place, &proto)?;
                return Ok(Some((proto, Timestamp(row.try_get("", "at")?))));
            }
        }
        Ok(None)
    }

    async fn same_chat(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        const LID: &str = "@lid";
        const PHONE: &str = "@s.whatsapp.net";
        if one == other {
            return Ok(true);
        }
        let pairs = [(one, other), (other, one)];
        let Some((lid, phone)) = pairs.iter().find_map(|(a, b)| Some((a.strip_suffix(LID)?, b.strip_suffix(PHONE)?)))
        else {
            return Ok(false);
        };
        Ok(self.lid_mapping(lid).await?.is_some_and(|mapping| mapping.phone == phone))
    }

    /// Deletes sent messages stored before `cutoff`; how many.
    pub async fn delete_expired_sent_messages(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sent_messages WHERE instance_pk = $1 AND stored_at < $2";
        self.run(LEVEL, vec![(sql.to_owned(), values![self.pk, cutoff.0])]).await
    }

    /// Stores secrets, all in one transaction. A row that is there keeps the later expiry (never is the latest) and
    /// the later message time.
    pub async fn put_message_secrets(&self, secrets: &[MessageSecret<'_>]) -> Result<(), StoreError> {
        const LATER: OnConflict = OnConflict::Set(
            "secret = excluded.secret,
             expires_secs = CASE WHEN msg_secrets.expires_secs = 0 OR excluded.expires_secs = 0 THEN 0
               WHEN msg_secrets.expires_secs > excluded.expires_secs THEN msg_secrets.expires_secs
               ELSE excluded.expires_secs END,
             message_secs = CASE WHEN msg_secrets.message_secs > excluded.message_secs THEN msg_secrets.message_secs
               ELSE excluded.message_secs END",
        );
        let mut rows = Vec::with_capacity(secrets.len());
        for entry in secrets {
            let row = joined(&[entry.chat, entry.sender, entry.message_id]);
            rows.push(msg_secrets::Model {
                instance_pk: self.pk,
                chat: entry.chat.to_owned(),
                sender: entry.sender.to_owned(),
                message_id: entry.message_id.to_owned(),
                secret: self.seal("msg_secrets", &row, entry.secret)?,
                expires_secs: entry.expires_secs,
                message_secs: entry.message_secs,
            });
        }
        self.put_with(LEVEL, &rows, LATER).await
    }

    /// A message's secret and when the message was sent (0: unknown).
    pub async fn message_secret(
        &self,
        chat: &str,
        sender: &str,
        message_id: &str,
    ) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        let key = [("chat", chat.into()), ("sender", sender.into()), ("message_id", message_id.into())];
        let rows = self.select("msg_secrets", "secret, message_secs", &key).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get("", "secret")?;
        let secret = self.open("msg_secrets", &joined(&[chat, sender, message_id]), &sealed)?;
        Ok(Some((secret, row.try_get("", "message_secs")?)))
    }

    /// Deletes secrets that expire, and have at `now_secs`; how many.
    pub async fn delete_expired_message_secrets(&self, now_secs: i64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM msg_secrets WHERE instance_pk = $1 AND expires_secs > 0 AND expires_secs <= $2";
        self.run(LEVEL, vec![(sql.to_owned(), values![self.pk, now_secs])]).await
    }
}
