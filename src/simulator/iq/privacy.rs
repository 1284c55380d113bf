//! `privacy`, `blocklist`: settings, blocked people, and the tokens that let somebody reach a restricted account.

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use std::sync::Arc;
use wacore_binary::Node;

use super::{Answer, Query};
use crate::node::{attr, attr_is, bytes, children, holding, jid, node, now};
use crate::session::Caller;
use crate::world::account::{Account, same};
use crate::world::{World, lock};

/// The settings that clients ask for; each is `all` until it is set.
const SETTINGS: [&str; 11] = [
    "last",
    "online",
    "profile",
    "status",
    "groupadd",
    "readreceipts",
    "calladd",
    "messages",
    "defense",
    "stickers",
    "linked_profiles",
];

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    match (query.namespace, query.kind, query.first) {
        ("blocklist", "get", _) => Ok(Answer::one(block_list(&caller.account))),
        ("blocklist", "set", _) => Ok(block(caller, query)),
        ("privacy", "set", "tokens") => Ok(issue_tokens(caller, query)),
        ("privacy", "set", "privacy") => Ok(set(caller, query)),
        ("privacy", "get", _) => Ok(Answer::one(settings(&caller.account))),
        _ => Ok(Answer::empty()),
    }
}

fn settings(account: &Account) -> Node {
    let state = lock(&account.state);
    let category = |name: &&'static str| {
        let value = state.privacy.get(*name).cloned().unwrap_or_else(|| "all".to_owned());
        node("category").attr("name", *name).attr("value", value).build()
    };
    holding("privacy", SETTINGS.iter().map(category))
}

fn set(caller: &Caller, query: &Query<'_>) -> Answer {
    let categories = query.child.map(children).unwrap_or(&[]);
    {
        let mut state = lock(&caller.account.state);
        for category in categories {
            if let (Some(name), Some(value)) = (attr(category, "name"), attr(category, "value")) {
                state.privacy.insert(name, value);
            }
        }
    }
    Answer::one(settings(&caller.account))
}

fn block_list(account: &Account) -> Node {
    let state = lock(&account.state);
    let item = |phone: &String| node("item").attr("jid", wacore_binary::Jid::pn(phone.as_str())).build();
    let items: Vec<Node> = state.blocked.iter().map(item).collect();
    node("list").attr("dhash", format!("{}", items.len())).children(items).build()
}

fn block(caller: &Caller, query: &Query<'_>) -> Answer {
    let items = query.stanza.get_children_by_tag("item");
    for item in items {
        let who = jid(item, "jid").or_else(|| jid(item, "pn_jid"));
        let Some(who) = who.and_then(|j| caller.world.directory.by_jid_or_new(&j)) else {
            return Answer::not_found();
        };
        let mut state = lock(&caller.account.state);
        if attr_is(item, "action", "unblock") {
            state.blocked.remove(&who.phone);
        } else {
            state.blocked.insert(who.phone.clone());
        }
    }
    Answer::one(block_list(&caller.account))
}

/// The caller lets others reach it: each of them gets its token on every device. The answer is empty: bytes in it
/// would be taken for tokens of the others.
fn issue_tokens(caller: &Caller, query: &Query<'_>) -> Answer {
    let me = &caller.account;
    for request in query.child.map(children).unwrap_or(&[]) {
        let Some(other) = jid(request, "jid").and_then(|j| caller.world.directory.by_jid(&j)) else { continue };
        let token = node("token")
            .attr("type", "trusted_contact")
            .attr("t", attr(request, "t").unwrap_or_else(|| now().to_string()))
            .bytes(caller.world.token(me, &other))
            .build();
        let notification = caller
            .world
            .notification("privacy_token", me.pn_jid(0))
            .attr("sender_lid", me.lid_jid(0))
            .children([holding("tokens", [token])])
            .build();
        other.deliver_to_all(&notification, None);
    }
    Answer::empty()
}

/// Whether `from` may write to `to`, see its picture or its presence: always, unless `to` is restricted; then with
/// a token that it issued, or one made from the sender's salt. The token is a child of `stanza`.
pub(crate) fn may_reach(world: &World, from: &Arc<Account>, to: &Arc<Account>, stanza: &Node) -> bool {
    let scenario = to.scenario();
    if !scenario.restricted || same(from, to) {
        return true;
    }
    if scenario.tc_tokens
        && let Some(token) = stanza.get_optional_child("tctoken")
        && world.issued_token(to, from) == Some(bytes(token))
    {
        return true;
    }
    if scenario.cs_tokens
        && let Some(token) = stanza.get_optional_child("cstoken")
        && let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(&from.nct_salt)
    {
        mac.update(to.lid_jid(0).to_non_ad_string().as_bytes());
        return mac.finalize().into_bytes()[..] == bytes(token)[..];
    }
    false
}
