//! Messages from clients: judged, acknowledged, and handed to every device they are for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeContent, Server};

use crate::faults::Fault;
use crate::iq::newsletter;
use crate::iq::privacy::may_reach;
use crate::node::{attr, attr_is, children, jid, node, now, required};
use crate::phone::{self, Inbound};
use crate::session::Caller;
use crate::stats::Counters;
use crate::world::account::{Account, same};
use crate::world::group::{self, Group};
use crate::world::{World, lock};

/// How late a late ack is unless the rule says.
const LATE: Duration = Duration::from_secs(3);

/// What a nack says unless the rule does.
const NACK: u16 = 479;

/// Whom a message is for.
enum Recipient {
    /// A person, or one device of theirs.
    Person,
    Group(Box<Group>),
    /// `status@broadcast`: the devices that are listed.
    Status,
    Newsletter,
}

pub(crate) fn message(caller: &Caller, stanza: &Node) -> Result<()> {
    let id = required(stanza, "id")?;
    let Some(to) = jid(stanza, "to") else {
        caller.send(node("ack").attr("class", "message").attr("id", id).attr("error", 400).attr("t", now()).build());
        return Ok(());
    };
    if let Some(rule) = caller.world.faults.take(Fault::Nack, &caller.account.phone) {
        refuse(caller, &to, &id, rule.code.unwrap_or(NACK));
        return Ok(());
    }
    let recipient = match recipient(caller, &to, stanza) {
        Ok(recipient) => recipient,
        Err(code) => {
            refuse(caller, &to, &id, code);
            return Ok(());
        }
    };
    Counters::add(&caller.world.counters.messages);
    caller.world.ledger.record(&caller.account.phone, caller.device, &to, &id, stanza);
    if matches!(recipient, Recipient::Newsletter) {
        let server_id = newsletter::publish(caller, &to, &id, stanza);
        accept(caller, &to, &id, Some(server_id));
        return Ok(());
    }
    let relay = Relay::new(caller, stanza, &id, &to);
    match recipient {
        Recipient::Person => relay.to_devices(),
        Recipient::Group(group) => relay.to_group(&group),
        Recipient::Status => relay.to_status(),
        Recipient::Newsletter => {}
    }
    // Last, so that what is acknowledged is in the inboxes.
    accept(caller, &to, &id, None);
    Ok(())
}

/// Who is meant, or the code by which the message is refused.
fn recipient(caller: &Caller, to: &Jid, stanza: &Node) -> Result<Recipient, u16> {
    match to.server {
        Server::Pn | Server::Lid | Server::Legacy => {
            let account = caller.world.directory.by_jid_or_new(to).ok_or(404u16)?;
            let exempt = same(&account, &caller.account) || attr_is(stanza, "category", "peer");
            if !exempt && !may_reach(&caller.world, &caller.account, &account, stanza) {
                return Err(463);
            }
            Ok(Recipient::Person)
        }
        Server::Group => {
            let group = group::get(&caller.world, &to.user).ok_or(404u16)?;
            if !group.members.contains(&caller.account.phone) {
                return Err(403);
            }
            if group.announcement && !group.is_admin(&caller.account.phone) && jid(stanza, "participant").is_none() {
                return Err(403);
            }
            Ok(Recipient::Group(Box::new(group)))
        }
        Server::Broadcast => Ok(Recipient::Status),
        Server::Newsletter if lock(&caller.world.newsletters).contains_key(to.user.as_str()) => {
            Ok(Recipient::Newsletter)
        }
        Server::Newsletter => Err(404),
        _ => Err(400),
    }
}

fn refuse(caller: &Caller, to: &Jid, id: &str, code: u16) {
    caller.send(ack(to, id).attr("error", code).build());
}

fn ack(to: &Jid, id: &str) -> NodeBuilder {
    node("ack").attr("class", "message").attr("id", id.to_owned()).attr("from", to.clone()).attr("t", now())
}

/// The server's ack, with the faults that are in force.
fn accept(caller: &Caller, to: &Jid, id: &str, server_id: Option<u64>) {
    let faults = &caller.world.faults;
    let phone = &caller.account.phone;
    let mut ack = ack(to, id);
    if let Some(server_id) = server_id {
        ack = ack.attr("server_id", server_id);
    }
    let ack = ack.build();
    if faults.take(Fault::AckMissing, phone).is_some() {
        return;
    }
    if faults.take(Fault::AckDouble, phone).is_some() {
        caller.send(ack.clone());
    }
    if let Some(rule) = faults.take(Fault::AckLate, phone) {
        let (caller, delay) = (caller.clone(), rule.delay.unwrap_or(LATE));
        caller.world.clone().spawn(async move {
            tokio::time::sleep(delay).await;
            caller.send(ack);
        });
        return;
    }
    caller.send(ack);
}

/// A message on its way: what is the same for every recipient.
struct Relay<'a> {
    caller: &'a Caller,
    stanza: &'a Node,
    to: &'a Jid,
    id: &'a str,
    name: String,
    /// The ciphertexts that are for one device each.
    addressed: Vec<(Jid, &'a [Node])>,
    /// The ciphertext for all: a sender-key message, or the one of a message to a single device.
    common: Vec<Node>,
    identity: Option<&'a Node>,
    extras: Vec<&'a Node>,
}

impl<'a> Relay<'a> {
    fn new(caller: &'a Caller, stanza: &'a Node, id: &'a str, to: &'a Jid) -> Self {
        let listed = stanza.get_optional_child("participants").map(children).unwrap_or(&[]);
        Self {
            caller,
            stanza,
            to,
            id,
            name: caller.account.name(),
            addressed: listed.iter().filter_map(|p| Some((jid(p, "jid")?, children(p)))).collect(),
            common: stanza.get_children_by_tag("enc").cloned().collect(),
            identity: stanza.get_optional_child("device-identity"),
            extras: children(stanza)
                .iter()
                .filter(|c| matches!(c.tag.as_ref(), "reporting" | "meta" | "biz" | "bot"))
                .collect(),
        }
    }

    fn world(&self) -> &'a Arc<World> {
        &self.caller.world
    }

    /// To a person: every listed device gets its own ciphertext, the sender's other devices a copy.
    fn to_devices(&self) {
        let alone = [(self.to.clone(), self.common.as_slice())];
        let addressed = if self.addressed.is_empty() { &alone[..] } else { &self.addressed[..] };
        for (device, encs) in addressed {
            let Some(account) = self.world().directory.by_jid(device) else { continue };
            let own = same(&account, &self.caller.account);
            let peer = own && attr_is(self.stanza, "category", "peer");
            let me = &self.caller.account;
            let mut message = if peer {
                // Own devices answer a peer message to the address it came from, which must be the hidden id.
                self.base(me.lid_jid(self.caller.device))
            } else if device.is_lid() {
                self.base(me.lid_jid(self.caller.device)).attr("sender_pn", me.pn_jid(0))
            } else {
                self.base(me.pn_jid(self.caller.device)).attr("sender_lid", me.lid_jid(0))
            };
            if own && !peer {
                let recipient = jid(self.stanza, "recipient").unwrap_or_else(|| self.to.to_non_ad());
                message = message.attr("recipient", recipient);
            }
            self.hand_over(&account, device.device, self.complete(message, encs));
        }
    }

    /// To a group: every device of every member, with the ciphertext for it first and the common one after it.
    fn to_group(&self, group: &Group) {
        // A repetition is for one device.
        let only = jid(self.stanza, "participant");
        for phone in &group.members {
            let Some(account) = self.world().directory.by_phone(phone) else { continue };
            let own = same(&account, &self.caller.account);
            for device in std::iter::once(0).chain(account.companions()) {
                let wanted = only.as_ref().is_none_or(|o| o.device == device && is_of(&account, o));
                if !wanted || (own && device == self.caller.device) {
                    continue;
                }
                self.to_member(&account, device, true);
            }
        }
    }

    /// A status: the devices that are listed, each with its own ciphertext and the common one.
    fn to_status(&self) {
        for (device, _) in &self.addressed {
            if let Some(account) = self.world().directory.by_jid(device) {
                self.to_member(&account, device.device, false);
            }
        }
    }

    fn to_member(&self, account: &Arc<Account>, device: u16, by_lid: bool) {
        let own_part = self.addressed.iter().filter(|(j, _)| j.device == device && is_of(account, j));
        let mut encs: Vec<Node> = own_part.flat_map(|(_, encs)| encs.iter().cloned()).collect();
        encs.extend(self.common.iter().cloned());
        if encs.is_empty() {
            return;
        }
        let me = &self.caller.account;
        let base = self.base(self.to.clone());
        let message = if by_lid {
            base.attr("participant", me.lid_jid(self.caller.device))
                .attr("participant_pn", me.pn_jid(self.caller.device))
                .attr("addressing_mode", "lid")
        } else {
            base.attr("participant", me.pn_jid(self.caller.device))
                .attr("participant_lid", me.lid_jid(self.caller.device))
        };
        self.hand_over(account, device, self.complete(message, &encs));
    }

    fn base(&self, from: Jid) -> NodeBuilder {
        let mut message = node("message")
            .attr("from", from)
            .attr("id", self.id.to_owned())
            .attr("type", attr(self.stanza, "type").unwrap_or_else(|| "text".to_owned()))
            .attr("t", now())
            .attr("notify", self.name.clone());
        for key in ["category", "edit", "push_priority"] {
            if let Some(value) = attr(self.stanza, key) {
                message = message.attr(key, value);
            }
        }
        message
    }

    fn complete(&self, message: NodeBuilder, encs: &[Node]) -> Node {
        let mut content = encs.to_vec();
        if encs.iter().any(|e| attr_is(e, "type", "pkmsg")) {
            content.extend(self.identity.cloned());
        }
        content.extend(self.extras.iter().map(|n| (*n).clone()));
        message.children(content).build()
    }

    fn hand_over(&self, account: &Arc<Account>, device: u16, mut stanza: Node) {
        if device == 0 {
            // A person without companions asks for the damaged message again; else the fault is for the companions.
            let alone = lock(&account.state).devices.is_empty();
            if alone && self.world().faults.take(Fault::Undecryptable, &account.phone).is_some() {
                damage(&mut stanza);
            }
            let from = self.caller.account.clone();
            let inbound = Inbound::Message { from, device: self.caller.device, stanza };
            phone::post(self.world(), account, inbound);
        } else if !is_blocked(account, &self.caller.account) {
            self.world().deliver_message(account, device, stanza);
        }
    }
}

fn is_of(account: &Account, jid: &Jid) -> bool {
    jid.user == account.lid || jid.user == account.phone
}

/// What a blocked person sends is accepted and goes nowhere.
fn is_blocked(account: &Account, sender: &Account) -> bool {
    lock(&account.state).blocked.contains(&sender.phone)
}

/// Damages the ciphertexts of a message; its frame stays intact.
pub(crate) fn damage(message: &mut Node) {
    let Some(NodeContent::Nodes(content)) = &mut message.content else { return };
    for enc in content.iter_mut().filter(|n| n.tag == "enc") {
        if let Some(NodeContent::Bytes(bytes)) = &mut enc.content {
            let at = bytes.len().saturating_sub(12);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x55;
            }
        }
    }
}

/// Call signalling goes to the other account's connected devices; what it means is the clients' affair.
pub(crate) fn call(caller: &Caller, stanza: &Node) -> Result<()> {
    let id = required(stanza, "id")?;
    let Some(to) = jid(stanza, "to") else { return Ok(()) };
    let kind = children(stanza).first().map(|c| c.tag.to_string()).unwrap_or_default();
    let ack = node("ack").attr("class", "call").attr("id", id).attr("from", to.clone()).attr("type", kind);
    caller.send(ack.build());
    let Some(account) = caller.world.directory.by_jid(&to) else { return Ok(()) };
    let mut relayed = stanza.clone();
    relayed.attrs = Default::default();
    relayed.attrs.insert("from", caller.account.jid_like(&to, caller.device));
    relayed.attrs.insert("id", required(stanza, "id")?);
    relayed.attrs.insert("t", now().to_string());
    relayed.attrs.insert("notify", caller.account.name());
    match to.device {
        0 => account.send_to_connected(&relayed),
        device => account.send_if_connected(device, relayed),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{bytes, holding, holding_bytes};

    #[test]
    fn damage_changes_the_ciphertext_only() {
        let mut message = holding("message", [holding_bytes("enc", vec![0; 40]), holding_bytes("meta", vec![0; 40])]);
        damage(&mut message);
        let parts = children(&message);
        assert_ne!(bytes(&parts[0]), vec![0; 40]);
        assert_eq!(bytes(&parts[1]), vec![0; 40]);
        let mut short = holding("message", [holding_bytes("enc", vec![1])]);
        damage(&mut short);
    }
}
