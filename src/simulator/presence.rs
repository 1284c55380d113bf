//! Presence and chat states: sent to those who are there; a chat state is kept for a while for those who are not.

use std::sync::Arc;

use anyhow::Result;
use wacore_binary::{JidExt, Node};

use crate::iq::privacy::may_reach;
use crate::node::{attr, node, now, required_jid};
use crate::session::Caller;
use crate::world::account::Account;
use crate::world::group;
use crate::world::lock;

pub(crate) fn presence(caller: &Caller, stanza: &Node) -> Result<()> {
    match attr(stanza, "type").as_deref() {
        Some("subscribe") => subscribe(caller, stanza),
        Some("unsubscribe") => {
            let to = required_jid(stanza, "to")?;
            if let Some(account) = caller.world.directory.by_jid(&to) {
                let watcher = (caller.account.phone.clone(), caller.device);
                lock(&account.state).presence_watchers.retain(|w| *w != watcher);
            }
            Ok(())
        }
        kind => {
            announce(caller, stanza, kind != Some("unavailable"));
            Ok(())
        }
    }
}

/// The state of now comes at once, changes later; a restricted account shows neither without a token.
fn subscribe(caller: &Caller, stanza: &Node) -> Result<()> {
    let to = required_jid(stanza, "to")?;
    let Some(account) = caller.world.directory.by_jid_or_new(&to) else { return Ok(()) };
    if !may_reach(&caller.world, &caller.account, &account, stanza) {
        return Ok(());
    }
    let (available, last) = {
        let mut state = lock(&account.state);
        let watcher = (caller.account.phone.clone(), caller.device);
        if !state.presence_watchers.contains(&watcher) {
            state.presence_watchers.push(watcher);
        }
        (state.available, state.last_seen)
    };
    let mut answer = node("presence").attr("from", to.to_non_ad());
    if !available {
        answer = answer.attr("type", "unavailable").attr("last", last);
    }
    caller.send(answer.build());
    Ok(())
}

fn announce(caller: &Caller, stanza: &Node, available: bool) {
    let watchers = {
        let mut state = lock(&caller.account.state);
        state.available = available;
        if !available {
            state.last_seen = now();
        }
        if let Some(name) = attr(stanza, "name").filter(|n| !n.is_empty()) {
            state.name = name;
        }
        state.presence_watchers.clone()
    };
    let mut change = node("presence").attr("from", caller.account.pn_jid(0));
    if !available {
        change = change.attr("type", "unavailable").attr("last", now());
    }
    let change = change.build();
    for (phone, device) in watchers {
        if let Some(watcher) = caller.world.directory.by_phone(&phone) {
            watcher.send_if_connected(device, change.clone());
        }
    }
}

/// `<chatstate to>` with composing or paused.
pub(crate) fn chat_state(caller: &Caller, stanza: &Node) -> Result<()> {
    let to = required_jid(stanza, "to")?;
    let me = &caller.account;
    let mut relayed = stanza.clone();
    relayed.attrs = Default::default();
    if to.is_group() {
        relayed.attrs.insert("from", to.clone());
        relayed.attrs.insert("participant", me.lid_jid(caller.device));
        for phone in group::members(&caller.world, &to.user) {
            if let Some(member) = caller.world.directory.by_phone(&phone).filter(|m| m.phone != me.phone) {
                fleeting(caller, &member, &relayed);
            }
        }
    } else if let Some(account) = caller.world.directory.by_jid(&to) {
        relayed.attrs.insert("from", me.jid_like(&to, caller.device));
        fleeting(caller, &account, &relayed);
    }
    Ok(())
}

fn fleeting(caller: &Caller, account: &Arc<Account>, stanza: &Node) {
    let life = caller.world.config.chat_state_ttl;
    for device in lock(&account.state).devices.values_mut() {
        device.deliver_fleeting(stanza.clone(), life);
    }
}
