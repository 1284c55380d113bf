//! Simulated phones: device 0 of every account. A phone has its own Signal identity, decrypts what companions send
//! to it, one message after the other, and sends to companions. Phones among each other exchange plain messages:
//! only links to real clients are encrypted.

pub(crate) mod receive;
pub(crate) mod retry;
pub(crate) mod script;
pub(crate) mod send;
pub(crate) mod store;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result};
use buffa::{Message as _, MessageField};
use tokio::sync::{mpsc, oneshot};
use wacore::libsignal::protocol::ProtocolAddress;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;

use crate::node::{message_id, now};
use crate::world::account::Account;
use crate::world::{World, lock};

/// How many sent messages a phone can repeat.
const REPEATABLE: usize = 512;

/// Something for a phone to do; all of it in the order of arrival.
pub(crate) enum Inbound {
    /// A message from a companion, its own account's or another's.
    Message {
        from: Arc<Account>,
        device: u16,
        /// The stanza as a device would get it.
        stanza: Node,
    },
    /// A companion could not decrypt a message of the phone.
    Retry {
        from: Arc<Account>,
        device: u16,
        /// The receipt.
        stanza: Node,
    },
    /// Tells that everything before it is done.
    Mark(oneshot::Sender<()>),
}

/// Messages a phone sent, for those who ask again.
#[derive(Default)]
pub(crate) struct Sent {
    by_id: HashMap<String, SentMessage>,
    order: VecDeque<String>,
}

#[derive(Clone)]
pub(crate) struct SentMessage {
    pub message: wa::Message,
    /// The group it went to.
    pub group: Option<Jid>,
    /// `recipient` of the copy for own companions.
    pub recipient: Option<Jid>,
    pub category: Option<&'static str>,
}

impl Sent {
    pub fn remember(&mut self, id: &str, message: SentMessage) {
        if self.by_id.insert(id.to_owned(), message).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REPEATABLE
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    pub fn get(&self, id: &str) -> Option<SentMessage> {
        self.by_id.get(id).cloned()
    }
}

/// Where a phone keeps its session with a device: one place, whichever of the two addresses is on the wire.
pub(crate) fn address(account: &Account, device: u16) -> ProtocolAddress {
    ProtocolAddress::new(&account.phone, u32::from(device).into())
}

/// Puts something into a phone's inbox, which its own task empties in order.
pub(crate) fn post(world: &Arc<World>, phone: &Arc<Account>, inbound: Inbound) {
    let inbox = phone.inbox.get_or_init(|| {
        let (inbox, letters) = mpsc::unbounded_channel();
        world.spawn(attend(world.clone(), phone.clone(), letters));
        inbox
    });
    let _ = inbox.send(inbound);
}

/// Returns when the phone has done all that is in its inbox now.
pub(crate) async fn caught_up(phone: &Account) {
    let (done, marked) = oneshot::channel();
    if let Some(inbox) = phone.inbox.get()
        && inbox.send(Inbound::Mark(done)).is_ok()
    {
        // An error means that the simulator stops: nothing more is done.
        let _ = marked.await;
    }
}

async fn attend(world: Arc<World>, phone: Arc<Account>, mut letters: mpsc::UnboundedReceiver<Inbound>) {
    while let Some(letter) = letters.recv().await {
        let done = match letter {
            Inbound::Message { from, device, stanza } => receive::message(&world, &phone, &from, device, &stanza).await,
            Inbound::Retry { from, device, stanza } => retry::repeat(&world, &phone, &from, device, &stanza).await,
            Inbound::Mark(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
        if let Err(e) = done {
            tracing::warn!("phone {}: {e:#}", phone.phone);
        }
    }
}

/// Shares the app-state key with a new companion, and the salt when the scenario sends it as history.
pub(crate) async fn share_keys(world: &Arc<World>, account: &Arc<Account>, device: u16) -> Result<()> {
    use wa::message as m;
    let (key_id, key) = {
        let state = lock(&account.state);
        let app_state = state.app_state.as_ref().context("no companion was ever linked")?;
        (app_state.key_id.clone(), app_state.key.clone())
    };
    let shared = m::AppStateSyncKey {
        key_id: MessageField::some(m::AppStateSyncKeyId { key_id: Some(key_id) }),
        key_data: MessageField::some(m::AppStateSyncKeyData {
            key_data: Some(key),
            fingerprint: MessageField::some(m::AppStateSyncKeyFingerprint {
                raw_id: Some(account.raw_id),
                current_index: Some(0),
                device_indexes: vec![0],
            }),
            timestamp: Some(now() as i64),
        }),
    };
    let share = protocol_message(m::ProtocolMessage {
        r#type: Some(m::protocol_message::Type::AppStateSyncKeyShare),
        app_state_sync_key_share: MessageField::some(m::AppStateSyncKeyShare { keys: vec![shared] }),
        ..Default::default()
    });
    send::to_own_device(world, account, device, &message_id(), share).await?;

    if account.scenario().nct_by_history {
        let history = wa::HistorySync {
            sync_type: wa::history_sync::HistorySyncType::InitialBootstrap,
            nct_salt: Some(account.nct_salt.to_vec()),
            chunk_order: Some(1),
            progress: Some(100),
            ..Default::default()
        };
        let notice = protocol_message(m::ProtocolMessage {
            r#type: Some(m::protocol_message::Type::HistorySyncNotification),
            history_sync_notification: MessageField::some(m::HistorySyncNotification {
                sync_type: Some(m::HistorySyncType::InitialBootstrap),
                chunk_order: Some(1),
                progress: Some(100),
                initial_hist_bootstrap_inline_payload: Some(zlib_stored(&history.encode_to_vec())),
                ..Default::default()
            }),
            ..Default::default()
        });
        send::to_own_device(world, account, device, &message_id(), notice).await?;
    }
    Ok(())
}

fn protocol_message(message: wa::message::ProtocolMessage) -> wa::Message {
    wa::Message { protocol_message: MessageField::some(message), ..Default::default() }
}

/// A zlib stream with one uncompressed block; the input is shorter than 64 KiB.
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b << 16) | a).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_forgets_its_oldest_messages() {
        let mut sent = Sent::default();
        let message = SentMessage { message: wa::Message::default(), group: None, recipient: None, category: None };
        for n in 0..=REPEATABLE {
            sent.remember(&n.to_string(), message.clone());
        }
        assert!(sent.get("0").is_none());
        assert!(sent.get("1").is_some());
    }

    #[test]
    fn stored_zlib_has_its_checksum() {
        // As `zlib.compress(b"a", 0)` gives it.
        assert_eq!(zlib_stored(b"a"), [0x78, 1, 1, 1, 0, 0xfe, 0xff, b'a', 0, 0x62, 0, 0x62]);
    }
}
