//! What a simulated phone sends: to each companion of the recipient, to its own companions, to groups.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use buffa::MessageField;
use wacore::libsignal::protocol::{IdentityKey, PreKeyBundle, PublicKey};
use wacore::messages::MessageUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;

use super::store::SignalState;
use super::{SentMessage, address};
use crate::Refused;
use crate::node::{message_id, node, now, now_ms};
use crate::world::account::{Account, ReceivedText, same};
use crate::world::group;
use crate::world::{World, lock};

/// A plain text.
pub(crate) fn text(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.to_owned()), ..Default::default() }
}

/// Sends a text to a phone number, a person's JID or a group's; the message's id.
pub(crate) async fn send_text(world: &Arc<World>, from: &str, to: &str, body: &str) -> Result<String, Refused> {
    let from = world.directory.ensure(from)?;
    if let Some(group) = to.strip_suffix("@g.us") {
        return to_group(world, &from, group, body).await;
    }
    let to = match to.strip_suffix("@lid") {
        Some(lid) => {
            let lid = lid.split([':', '.']).next().unwrap_or_default();
            world.directory.by_jid(&Jid::lid(lid)).ok_or_else(|| Refused::NoSuchAccount(to.to_owned()))?
        }
        None => world.directory.ensure(to.split(':').next().unwrap_or_default())?,
    };
    to_person(world, &from, &to, body).await.map_err(|e| Refused::Failed(format!("{e:#}")))
}

/// Sends a text to a person: every companion of theirs, a copy to each own companion, and the other phone.
pub(crate) async fn to_person(
    world: &Arc<World>,
    from: &Arc<Account>,
    to: &Arc<Account>,
    body: &str,
) -> Result<String> {
    let id = message_id();
    let message = text(body);
    let recipient = to.pn_jid(0);
    remember(from, &id, &message, None, Some(recipient.clone()), None);
    // What a blocked person sends goes nowhere.
    if !same(from, to) && !lock(&to.state).blocked.contains(&from.phone) {
        for device in to.companions() {
            let sealed = seal(from, to, device, &message).await?;
            world.deliver_message(to, device, stanza(from, &id, None).children([sealed]).build());
        }
        note_text(to, from, &id, body, None);
    }
    let copy = device_sent(&recipient, &message);
    for device in from.companions() {
        let sealed = seal(from, from, device, &copy).await?;
        let copy = stanza(from, &id, None).attr("recipient", recipient.clone()).children([sealed]).build();
        world.deliver_message(from, device, copy);
    }
    Ok(id)
}

/// A message among one account's devices, as key shares are.
pub(crate) async fn to_own_device(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    id: &str,
    message: wa::Message,
) -> Result<()> {
    remember(account, id, &message, None, None, Some("peer"));
    let sealed = seal(account, account, device, &message).await?;
    world.deliver_message(account, device, stanza(account, id, Some("peer")).children([sealed]).build());
    Ok(())
}

async fn to_group(world: &Arc<World>, from: &Arc<Account>, id: &str, body: &str) -> Result<String, Refused> {
    let group = group::get(world, id).ok_or_else(|| Refused::NoSuchGroup(format!("{id}@g.us")))?;
    if !group.members.contains(&from.phone) {
        return Err(Refused::NotAMember { phone: from.phone.clone(), group: group.jid().to_string() });
    }
    to_members(world, from, &group, body).await.map_err(|e| Refused::Failed(format!("{e:#}")))
}

async fn to_members(world: &Arc<World>, from: &Arc<Account>, group: &group::Group, body: &str) -> Result<String> {
    let (id, jid) = (message_id(), group.jid());
    let message = text(body);
    remember(from, &id, &message, Some(jid.clone()), None, None);
    let plain = MessageUtils::encode_and_pad(&message);
    let own = address(from, 0);
    let (key, sealed) = {
        let mut signal = from.signal().lock().await;
        let key = signal.own_sender_key(&group.id, &own).await.map_err(|e| anyhow!("sender key: {e}"))?;
        let sealed = signal.encrypt_for_group(&group.id, &own, &plain).await.map_err(|e| anyhow!("group: {e}"))?;
        (key, sealed)
    };
    let for_all = node("enc").attr("v", "2").attr("type", "skmsg").bytes(sealed).build();
    for phone in &group.members {
        let Some(member) = world.directory.by_phone(phone) else { continue };
        for device in member.companions() {
            let mut encs = Vec::with_capacity(2);
            let holder = (group.id.clone(), member.phone.clone(), device);
            if !from.signal().lock().await.distributed.contains(&holder) {
                encs.push(seal(from, &member, device, &sender_key(&jid, &key)).await?);
                from.signal().lock().await.distributed.insert(holder);
            }
            encs.push(for_all.clone());
            world.deliver_message(&member, device, group_stanza(from, &jid, &id).children(encs).build());
        }
        if !same(&member, from) {
            note_text(&member, from, &id, body, Some(jid.to_string()));
        }
    }
    Ok(id)
}

/// The message that hands over a sender key.
pub(crate) fn sender_key(group: &Jid, key: &[u8]) -> wa::Message {
    wa::Message {
        sender_key_distribution_message: MessageField::some(wa::message::SenderKeyDistributionMessage {
            group_id: Some(group.to_string()),
            axolotl_sender_key_distribution_message: Some(key.to_vec()),
        }),
        ..Default::default()
    }
}

/// The copy that own companions get of a sent message.
pub(crate) fn device_sent(recipient: &Jid, message: &wa::Message) -> wa::Message {
    wa::Message {
        device_sent_message: MessageField::some(wa::message::DeviceSentMessage {
            destination_jid: Some(recipient.to_string()),
            message: MessageField::some(message.clone()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A message stanza from the phone, without its content.
pub(crate) fn stanza(from: &Account, id: &str, category: Option<&'static str>) -> NodeBuilder {
    let stanza = node("message")
        .attr("from", from.pn_jid(0))
        .attr("sender_lid", from.lid_jid(0))
        .attr("id", id.to_owned())
        .attr("type", "text")
        .attr("t", now())
        .attr("notify", from.name());
    match category {
        Some(category) => stanza.attr("category", category),
        None => stanza,
    }
}

pub(crate) fn group_stanza(from: &Account, group: &Jid, id: &str) -> NodeBuilder {
    node("message")
        .attr("from", group.clone())
        .attr("participant", from.lid_jid(0))
        .attr("participant_pn", from.pn_jid(0))
        .attr("addressing_mode", "lid")
        .attr("id", id.to_owned())
        .attr("type", "text")
        .attr("t", now())
        .attr("notify", from.name())
}

/// Encrypts for one companion, starting a session from its uploaded keys when there is none.
pub(crate) async fn seal(from: &Account, to: &Account, device: u16, message: &wa::Message) -> Result<Node> {
    let peer = address(to, device);
    let plain = MessageUtils::encode_and_pad(message);
    let mut signal = from.signal().lock().await;
    if !signal.has_session(&peer) {
        start_session(&mut signal, to, device).await?;
    }
    let (kind, sealed) = signal.encrypt(&peer, &plain).await.map_err(|e| anyhow!("encrypt for {peer}: {e}"))?;
    Ok(node("enc").attr("v", "2").attr("type", kind).bytes(sealed).build())
}

/// The server hands the phone the companion's keys, and one one-time prekey while there are some.
pub(crate) async fn start_session(signal: &mut SignalState, to: &Account, device: u16) -> Result<()> {
    let bundle = {
        let mut state = lock(&to.state);
        let d = state.devices.get_mut(&device).context("no such device")?;
        let prekey = match d.prekeys.pop_front() {
            Some((id, key)) => Some((id.into(), PublicKey::from_djb_public_key_bytes(&key)?)),
            None => None,
        };
        PreKeyBundle::new(
            d.registration,
            u32::from(device).into(),
            prekey,
            d.signed_prekey.id.into(),
            PublicKey::from_djb_public_key_bytes(&d.signed_prekey.key)?,
            d.signed_prekey.signature.clone(),
            IdentityKey::new(PublicKey::from_djb_public_key_bytes(&d.identity)?),
        )
        .map_err(|e| anyhow!("{e}"))?
    };
    signal.start_session(&address(to, device), &bundle).await.map_err(|e| anyhow!("new session: {e}"))
}

fn remember(
    from: &Account,
    id: &str,
    message: &wa::Message,
    group: Option<Jid>,
    recipient: Option<Jid>,
    category: Option<&'static str>,
) {
    let sent = SentMessage { message: message.clone(), group, recipient, category };
    lock(&from.state).sent.remember(id, sent);
}

/// The other phone shows the text.
fn note_text(to: &Account, from: &Account, id: &str, body: &str, chat: Option<String>) {
    lock(&to.state).texts.push(ReceivedText {
        at: now_ms(),
        from: from.phone.clone(),
        id: id.to_owned(),
        text: body.to_owned(),
        chat,
    });
}
