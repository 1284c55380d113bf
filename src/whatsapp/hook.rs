//! The durability hook: WhatsApp hears that a message arrived only after its event is committed.

use crate::inbound::{self, Extras};
use crate::people::{Directory, Known};
use async_trait::async_trait;
use kero_domain::NewEvent;
use kero_store::StoreError;
use std::sync::Arc;
use wacore::store::traits::Backend;
use wacore::types::message::MessageInfo;
use wacore_binary::{Jid, JidExt as _};
use waproto::whatsapp as wa;
use whatsapp_rust::{Client, InboundDurabilityHook};

/// Where inbound messages are made durable.
#[async_trait]
pub trait Inbound: Send + Sync {
    /// Commits all of them or none; called before the acknowledgement to WhatsApp. After an error the server delivers
    /// them again with the next connection, so events already known by their `dedupe_key` must not fail.
    async fn commit(&self, batch: Vec<InboundMessage>) -> Result<(), StoreError>;
}

/// A message on its way into the journal.
#[derive(Debug, Clone)]
pub struct InboundMessage {
    pub event: NewEvent,
}

pub(crate) struct Hook {
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) converter: Converter,
}

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(
        &self,
        client: Arc<Client>,
        batch: &[wacore::types::events::InboundMessage],
    ) -> anyhow::Result<()> {
        let mut converted = Vec::with_capacity(batch.len());
        for item in batch {
            if let Some(event) = self.converter.event(&client, &item.message, &item.info).await {
                converted.push(InboundMessage { event });
            }
        }
        if converted.is_empty() {
            return Ok(());
        }
        let count = converted.len();
        self.inbound.commit(converted).await.map_err(|error| {
            tracing::warn!(count, %error, "inbound messages could not be committed; WhatsApp will deliver them again");
            anyhow::Error::new(error)
        })
    }
}

/// Looks up what the pure conversion needs, then converts.
#[derive(Clone)]
pub(crate) struct Converter {
    pub(crate) directory: Arc<Directory>,
    pub(crate) backend: Arc<dyn Backend>,
}

impl Converter {
    pub(crate) async fn event(&self, client: &Client, message: &wa::Message, info: &MessageInfo) -> Option<NewEvent> {
        let mut known = inbound::people(info);
        self.directory.complete(client, &mut known, &[&info.source.sender, &info.source.chat]).await;
        let poll_vote = match inbound::vote_of(message) {
            Some(update) => self.poll_vote(client, update, info).await,
            None => None,
        };
        inbound::convert(message, info, &known, &Extras { poll_vote })
    }

    pub(crate) async fn people(&self, client: &Client, known: &mut Known, jids: &[&Jid]) {
        self.directory.complete(client, known, jids).await;
    }

    /// The options that a vote names, if the poll's secret is known: polls that came or went while this device was linked.
    async fn poll_vote(
        &self,
        client: &Client,
        update: &wa::message::PollUpdateMessage,
        info: &MessageInfo,
    ) -> Option<Vec<Vec<u8>>> {
        let key = update.poll_creation_message_key.as_option()?;
        let poll = key.id.as_deref()?;
        let vote = update.vote.as_option()?;
        let ciphertext = wacore::poll::PollVoteCiphertext {
            enc_payload: vote.enc_payload.as_deref()?,
            enc_iv: vote.enc_iv.as_deref()?,
        };
        let source = &info.source;
        let creator = match key.participant.as_deref().and_then(|it| it.parse::<Jid>().ok()) {
            Some(participant) => participant,
            None if key.from_me == Some(true) => source.sender.clone(),
            None if source.is_from_me && !source.chat.is_group() => source.chat.clone(),
            None if source.chat.server.is_lid_family() => client.lid()?,
            None => client.pn()?,
        };
        let creator = creator.to_non_ad();
        for chat in both_names(client, &source.chat.to_non_ad()).await {
            for sender in both_names(client, &creator).await {
                let secret = match self.backend.get_msg_secret(&chat.to_string(), &sender.to_string(), poll).await {
                    Ok(Some(secret)) => secret,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::debug!(%error, "a poll's secret could not be read");
                        return None;
                    }
                };
                return client.polls().decrypt_vote(ciphertext, &secret, poll, &sender, &source.sender).await.ok();
            }
        }
        None
    }
}

async fn both_names(client: &Client, jid: &Jid) -> Vec<Jid> {
    let mut names = vec![jid.clone()];
    if let Ok(Some(entry)) = client.get_lid_pn_entry(jid).await {
        names.push(if jid.is_lid() { Jid::pn(&*entry.phone_number) } else { Jid::lid(&*entry.lid) });
    }
    names
}
