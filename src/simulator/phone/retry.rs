//! Retries: a device that cannot decrypt asks for the message again, and gets it encrypted anew.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use wacore::libsignal::protocol::{IdentityKey, PreKeyBundle, PublicKey};
use wacore_binary::{JidExt, Node};

use super::{address, send};
use crate::iq::keys::retry_keys;
use crate::node::{
    attr, big_endian, bytes, child_bytes, holding_bytes, key32, node, now, number, required, required_jid,
};
use crate::world::account::{Account, same};
use crate::world::{World, lock};

/// Nobody asks, or is answered, more often than this for one message.
const MOST: u32 = 5;

/// The phone asks a companion to send a message again, with keys for a new session.
pub(crate) async fn ask(phone: &Arc<Account>, from: &Arc<Account>, device: u16, stanza: &Node) {
    let (Some(id), Ok(sender)) = (attr(stanza, "id"), required_jid(stanza, "from")) else { return };
    let before: u32 = stanza.get_children_by_tag("enc").find_map(|e| number(e, "count")).unwrap_or(0);
    if before >= MOST {
        tracing::warn!("phone {} gives up on {id}", phone.phone);
        return;
    }
    let (registration, keys) = {
        let mut signal = phone.signal().lock().await;
        let prekey = signal.new_prekey();
        (signal.registration(), retry_keys(&phone.identity_public(), prekey, &signal.signed_prekey()))
    };
    let retry = node("retry")
        .attr("v", "1")
        .attr("id", id.clone())
        .attr("t", attr(stanza, "t").unwrap_or_else(|| now().to_string()))
        .attr("count", before + 1)
        .build();
    let mut receipt = node("receipt").attr("type", "retry").attr("id", id).attr("t", now());
    receipt = if sender.is_group() {
        receipt.attr("from", sender.clone()).attr("participant", phone.lid_jid(0))
    } else if same(phone, from) {
        // Own devices name the chat that the message belongs to.
        let receipt = receipt.attr("from", phone.jid_like(&sender, 0));
        match crate::node::jid(stanza, "recipient") {
            Some(recipient) => receipt.attr("recipient", recipient),
            None => receipt,
        }
    } else {
        receipt.attr("from", phone.jid_like(&sender, 0))
    };
    let children = [retry, holding_bytes("registration", registration.to_be_bytes()), keys];
    from.deliver(device, receipt.children(children).build());
}

/// A companion asks the phone for a message again.
pub(crate) async fn repeat(
    world: &Arc<World>,
    phone: &Arc<Account>,
    from: &Arc<Account>,
    device: u16,
    receipt: &Node,
) -> Result<()> {
    let id = required(receipt, "id")?;
    let count: u32 = receipt.get_optional_child("retry").and_then(|r| number(r, "count")).unwrap_or(1);
    if count > MOST {
        return Ok(());
    }
    let sent = lock(&phone.state).sent.get(&id).context("asked for a message that is not remembered")?;
    renew_session(phone, from, device, receipt, count).await?;

    let own = same(phone, from);
    let (message, stanza) = match &sent.group {
        Some(group) => {
            let mut message = sent.message.clone();
            let key = {
                let mut signal = phone.signal().lock().await;
                let own = address(phone, 0);
                signal.own_sender_key(&group.user, &own).await.map_err(|e| anyhow!("sender key: {e}"))?
            };
            message.sender_key_distribution_message = send::sender_key(group, &key).sender_key_distribution_message;
            (message, send::group_stanza(phone, group, &id))
        }
        None => match (&sent.recipient, own) {
            (Some(recipient), true) => (
                send::device_sent(recipient, &sent.message),
                send::stanza(phone, &id, sent.category).attr("recipient", recipient.clone()),
            ),
            _ => (sent.message.clone(), send::stanza(phone, &id, sent.category)),
        },
    };
    let mut enc = send::seal(phone, from, device, &message).await?;
    enc.attrs.insert("count", count);
    world.deliver_message(from, device, stanza.children([enc]).build());
    Ok(())
}

/// A new session from the keys in the receipt; without keys the old one is kept the first time, then replaced.
async fn renew_session(phone: &Account, from: &Account, device: u16, receipt: &Node, count: u32) -> Result<()> {
    let mut signal = phone.signal().lock().await;
    let Some(keys) = receipt.get_optional_child("keys") else {
        if count > 1 {
            send::start_session(&mut signal, from, device).await?;
        }
        return Ok(());
    };
    let registration = receipt.get_optional_child("registration").map(bytes).unwrap_or_default();
    let signed = keys.get_optional_child("skey").context("no signed prekey")?;
    let prekey = match keys.get_optional_child("key") {
        Some(key) => Some((big_endian(&child_bytes(key, "id")).into(), public(&child_bytes(key, "value"))?)),
        None => None,
    };
    let bundle = PreKeyBundle::new(
        big_endian(&registration),
        u32::from(device).into(),
        prekey,
        big_endian(&child_bytes(signed, "id")).into(),
        public(&child_bytes(signed, "value"))?,
        child_bytes(signed, "signature"),
        IdentityKey::new(public(&child_bytes(keys, "identity"))?),
    )
    .map_err(|e| anyhow!("{e}"))?;
    signal.start_session(&address(from, device), &bundle).await.map_err(|e| anyhow!("new session: {e}"))
}

fn public(key: &[u8]) -> Result<PublicKey> {
    Ok(PublicKey::from_djb_public_key_bytes(&key32(key)?)?)
}
