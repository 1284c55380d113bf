//! What a simulated phone does with a message from a companion: decrypt, note, acknowledge, follow its script.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use buffa::Message as _;
use sha2::{Digest, Sha256};
use wacore::libsignal::protocol::SignalProtocolError;
use wacore_binary::{Jid, JidExt, Node};
use waproto::whatsapp as wa;

use super::script::Script;
use super::{address, retry, send};
use crate::node::{attr, attr_is, bytes, hex, node, now, now_ms, required, required_jid};
use crate::world::account::{Account, ReceivedText, same};
use crate::world::{World, lock};

pub(crate) async fn message(
    world: &Arc<World>,
    phone: &Arc<Account>,
    from: &Arc<Account>,
    device: u16,
    stanza: &Node,
) -> Result<()> {
    let id = required(stanza, "id")?;
    let sender = required_jid(stanza, "from")?;
    let group = sender.is_group().then(|| sender.clone());
    let (mut text, mut opened) = (None, false);
    for enc in stanza.get_children_by_tag("enc") {
        match open(phone, from, device, group.as_ref(), enc).await {
            Ok(plain) => {
                opened = true;
                let message = wa::Message::decode_from_slice(&plain)?;
                let own_copy = message.device_sent_message.is_set();
                // The copy for the own phone wraps the message; its hash would be another.
                if !own_copy && has_content(&message) {
                    world.ledger.decrypted(&from.phone, device, &id, hex(&Sha256::digest(&plain)));
                }
                text = text.or(text_of(&message));
            }
            // What was decrypted before is a repetition, which a phone passes over in silence.
            Err(SignalProtocolError::DuplicatedMessage(..)) => {}
            Err(e) => {
                tracing::warn!("phone {} cannot read {id} from {}:{device}: {e}", phone.phone, from.phone);
                retry::ask(phone, from, device, stanza).await;
                return Ok(());
            }
        }
    }
    let own = same(phone, from);
    let handled = (from.phone.clone(), id.clone());
    if !opened && !lock(&phone.state).handled.contains(&handled) {
        // A new message under a counter that was used before: the sender's state was rewound, and a phone drops it.
        tracing::warn!("phone {} drops {id}: {}:{device} used its counter before", phone.phone, from.phone);
        return Ok(());
    }
    let fresh = lock(&phone.state).handled.insert(handled);
    if fresh && let Some(text) = &text {
        lock(&phone.state).texts.push(ReceivedText {
            at: now_ms(),
            from: from.phone.clone(),
            id: id.clone(),
            text: text.clone(),
            chat: group.as_ref().map(Jid::to_string),
        });
    }
    if own || attr_is(stanza, "category", "peer") {
        return Ok(());
    }
    // The phone of a linked account leaves receipts and answers to its companions.
    let script = {
        let state = lock(&phone.state);
        if !state.devices.is_empty() {
            return Ok(());
        }
        state.script
    };
    from.deliver(device, receipt(phone, &sender, &id, None));
    if fresh {
        follow(world, phone, from, device, (&sender, &id), script, text).await?;
    }
    Ok(())
}

/// Follows the script; only people, never groups, are answered.
async fn follow(
    world: &Arc<World>,
    phone: &Arc<Account>,
    from: &Arc<Account>,
    device: u16,
    (sender, id): (&Jid, &str),
    script: Script,
    text: Option<String>,
) -> Result<()> {
    let read = receipt(phone, sender, id, Some("read"));
    let text = text.filter(|_| !sender.is_group());
    match script {
        Script::Silent => {}
        Script::Read => from.deliver(device, read),
        Script::Echo => {
            from.deliver(device, read);
            if let Some(text) = text {
                send::to_person(world, phone, from, &format!("echo: {text}")).await?;
            }
        }
        Script::Late(delay) => {
            let (w, phone, from) = (world.clone(), phone.clone(), from.clone());
            world.spawn(async move { late(&w, &phone, &from, device, read, text, delay).await });
        }
    }
    Ok(())
}

async fn late(
    world: &Arc<World>,
    phone: &Arc<Account>,
    from: &Arc<Account>,
    device: u16,
    read: Node,
    text: Option<String>,
    delay: Duration,
) {
    tokio::time::sleep(delay).await;
    from.deliver(device, read);
    if let Some(text) = text
        && let Err(e) = send::to_person(world, phone, from, &format!("echo: {text}")).await
    {
        tracing::warn!("phone {}: {e:#}", phone.phone);
    }
}

/// Decrypts one `<enc>` and takes its padding off; a sender key inside is learnt.
async fn open(
    phone: &Account,
    from: &Account,
    device: u16,
    group: Option<&Jid>,
    enc: &Node,
) -> Result<Vec<u8>, SignalProtocolError> {
    let kind = attr(enc, "type").unwrap_or_default();
    let peer = address(from, device);
    let mut signal = phone.signal().lock().await;
    let padded = match (kind.as_str(), group) {
        ("skmsg", Some(group)) => signal.decrypt_for_group(&group.user, &peer, &bytes(enc)).await?,
        _ => signal.decrypt(&peer, &kind, &bytes(enc)).await?,
    };
    let plain = if attr_is(enc, "v", "3") { padded } else { unpadded(padded) };
    if let Ok(message) = wa::Message::decode_from_slice(&plain)
        && let Some(key) = message.sender_key_distribution_message.as_option()
    {
        let named = key.group_id.as_deref().and_then(|g| g.strip_suffix("@g.us"));
        let target = named.map(str::to_owned).or_else(|| group.map(|g| g.user.to_string()));
        if let (Some(target), Some(key)) = (target, &key.axolotl_sender_key_distribution_message) {
            signal.learn_sender_key(&target, &peer, key).await?;
        }
    }
    Ok(plain)
}

/// The last byte says how many bytes of padding there are, itself included.
fn unpadded(mut plain: Vec<u8>) -> Vec<u8> {
    let padding = plain.last().map_or(0, |n| usize::from(*n));
    plain.truncate(plain.len().saturating_sub(padding));
    plain
}

/// Whether there is more than a sender key.
fn has_content(message: &wa::Message) -> bool {
    let mut rest = message.clone();
    rest.sender_key_distribution_message = buffa::MessageField::none();
    rest.message_context_info = buffa::MessageField::none();
    rest != wa::Message::default()
}

/// The text of a message, or of the message that an own companion's copy wraps.
fn text_of(message: &wa::Message) -> Option<String> {
    let inner = message.device_sent_message.as_option().and_then(|d| d.message.as_option()).unwrap_or(message);
    inner.conversation.clone().or_else(|| inner.extended_text_message.as_option().and_then(|e| e.text.clone()))
}

/// A receipt from the phone for a message.
fn receipt(phone: &Account, sender: &Jid, id: &str, kind: Option<&'static str>) -> Node {
    let receipt = node("receipt").attr("id", id.to_owned()).attr("t", now());
    let receipt = if sender.is_group() {
        receipt.attr("from", sender.clone()).attr("participant", phone.lid_jid(0))
    } else {
        receipt.attr("from", phone.jid_like(sender, 0))
    };
    match kind {
        Some(kind) => receipt.attr("type", kind).build(),
        None => receipt.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_taken_off() {
        assert_eq!(unpadded(vec![1, 2, 3, 3, 3]), vec![1, 2]);
        assert_eq!(unpadded(vec![9]), Vec::<u8>::new());
        assert_eq!(unpadded(vec![]), Vec::<u8>::new());
    }

    #[test]
    fn the_text_of_an_own_copy_is_the_inner_one() {
        let copy = send::device_sent(&Jid::pn("1"), &send::text("hello"));
        assert_eq!(text_of(&copy).as_deref(), Some("hello"));
        assert_eq!(text_of(&send::text("hi")).as_deref(), Some("hi"));
        assert!(has_content(&send::text("hi")));
        assert!(!has_content(&send::sender_key(&Jid::group("1"), b"key")));
    }
}
