//! Receipts and acks from clients.

use anyhow::Result;
use wacore_binary::{JidExt, Node};

use crate::node::{attr, attr_is, jid, node, now, required_jid};
use crate::phone::{self, Inbound};
use crate::session::Caller;
use crate::stats::Counters;
use crate::world::device::ids_of;
use crate::world::lock;

/// Receipts that nobody else is told of.
const KEPT: [&str; 3] = ["peer_msg", "sender", "hist_sync"];

/// `<ack class id>`: the stanza has arrived and is not sent again.
pub(crate) fn ack(caller: &Caller, stanza: &Node) {
    let class = attr(stanza, "class").unwrap_or_default();
    settle(caller, &class, &ids_of(stanza));
}

fn settle(caller: &Caller, class: &str, ids: &[String]) {
    let mut state = lock(&caller.account.state);
    if let Some(device) = state.devices.get_mut(&caller.device) {
        for id in ids {
            device.acknowledged(class, id);
        }
    }
}

/// A receipt acknowledges messages to us, and is passed on to the device that sent them.
pub(crate) fn receipt(caller: &Caller, stanza: &Node) -> Result<()> {
    Counters::add(&caller.world.counters.receipts);
    settle(caller, "message", &ids_of(stanza));
    let to = required_jid(stanza, "to")?;
    let mut ack = node("ack")
        .attr("class", "receipt")
        .attr("id", attr(stanza, "id").unwrap_or_default())
        .attr("from", to.clone());
    if let Some(kind) = attr(stanza, "type") {
        ack = ack.attr("type", kind);
    }
    let participant = jid(stanza, "participant");
    if let Some(participant) = &participant {
        ack = ack.attr("participant", participant.clone());
    }
    caller.send(ack.build());
    if KEPT.iter().any(|kind| attr_is(stanza, "type", kind)) {
        return Ok(());
    }
    relay(caller, stanza);
    Ok(())
}

fn relay(caller: &Caller, stanza: &Node) {
    let Some(to) = jid(stanza, "to") else { return };
    let mut relayed = stanza.clone();
    relayed.attrs = Default::default();
    for key in ["id", "type", "t"] {
        if let Some(value) = attr(stanza, key) {
            relayed.attrs.insert(key, value);
        }
    }
    if !relayed.attrs.contains_key("t") {
        relayed.attrs.insert("t", now().to_string());
    }
    let shared = to.is_group() || to.is_status_broadcast();
    let target = if shared { jid(stanza, "participant") } else { Some(to.clone()) };
    let Some(target) = target else { return };
    let Some(account) = caller.world.directory.by_jid(&target) else { return };
    let me = &caller.account;
    if shared {
        relayed.attrs.insert("from", to.clone());
        relayed.attrs.insert("participant", me.jid_like(&target, caller.device));
    } else {
        relayed.attrs.insert("from", me.jid_like(&to, caller.device));
        if let Some(recipient) = jid(stanza, "recipient") {
            relayed.attrs.insert("recipient", recipient);
        }
    }
    if target.device != 0 {
        account.deliver(target.device, relayed);
        return;
    }
    // A retry asks the sending device alone, and that is the phone.
    if attr_is(stanza, "type", "retry") {
        let inbound = Inbound::Retry { from: me.clone(), device: caller.device, stanza: relayed };
        phone::post(&caller.world, &account, inbound);
        return;
    }
    account.deliver_to_all(&relayed, None);
}
