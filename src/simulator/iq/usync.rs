//! `usync`: who is on WhatsApp, with which hidden id, devices, picture, about text.

use anyhow::{Context, Result};
use std::sync::Arc;
use wacore_binary::{Jid, Node};

use super::{Answer, Query, devices};
use crate::faults::Fault;
use crate::node::{attr, children, holding, jid as jid_attr, node, now, text};
use crate::session::Caller;
use crate::world::account::Account;
use crate::world::lock;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let usync = query.stanza.get_optional_child("usync").context("no <usync>")?;
    let protocols: Vec<String> =
        usync.get_optional_child("query").map(children).unwrap_or(&[]).iter().map(|p| p.tag.to_string()).collect();
    if protocols.iter().any(|protocol| protocol == "contact")
        && let Some(rule) = caller.world.faults.take(Fault::LookupError, &caller.account.phone)
    {
        return Ok(Answer::Error(rule.code.unwrap_or(500), "refused-by-a-fault"));
    }
    let wanted = usync.get_optional_child("list").map(children).unwrap_or(&[]);
    let users: Vec<Node> = wanted.iter().filter_map(|user| describe(caller, user, &protocols)).collect();

    let results = protocols.iter().map(|p| wacore_binary::builder::NodeBuilder::new_dynamic(p.clone()).build());
    let answer = node("usync")
        .attr("sid", attr(usync, "sid").unwrap_or_default())
        .attr("index", "0")
        .attr("last", "true")
        .attr("mode", attr(usync, "mode").unwrap_or_default())
        .attr("context", attr(usync, "context").unwrap_or_default())
        .children([holding("result", results), holding("list", users)])
        .build();
    Ok(Answer::one(answer))
}

fn describe(caller: &Caller, user: &Node, protocols: &[String]) -> Option<Node> {
    let asked = user.get_optional_child("contact").map(text).filter(|t| !t.is_empty());
    let jid = jid_attr(user, "jid")
        .or_else(|| jid_attr(user, "pn_jid"))
        .or_else(|| asked.as_deref().and_then(contact_jid))?
        .to_non_ad();
    let account = caller.world.directory.by_jid_or_new(&jid);
    if let Some(account) = &account {
        // They are told when the device list changes that we show here.
        lock(&account.state).list_watchers.insert(caller.account.phone.clone());
    }
    let answers = protocols.iter().filter_map(|p| protocol(p, account.as_ref(), asked.as_deref()));
    let mut described = node("user").attr("jid", jid.clone());
    if let Some(account) = &account
        && jid.is_lid()
    {
        described = described.attr("pn_jid", account.pn_jid(0));
    }
    Some(described.children(answers.collect::<Vec<_>>()).build())
}

/// A contact query is a number, with or without `+`, and in some clients with `@c.us`.
fn contact_jid(contact: &str) -> Option<Jid> {
    let user = contact.split('@').next().unwrap_or_default();
    let digits: String = user.chars().filter(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| Jid::pn(digits))
}

fn protocol(name: &str, account: Option<&Arc<Account>>, asked: Option<&str>) -> Option<Node> {
    let Some(account) = account else {
        return (name == "contact").then(|| {
            let mut out = node("contact").attr("type", "out");
            if let Some(asked) = asked {
                out = out.bytes(echoed(asked));
            }
            out.build()
        });
    };
    match name {
        "contact" => {
            let mut found = node("contact").attr("type", "in");
            if let Some(asked) = asked {
                found = found.bytes(echoed(asked));
            }
            Some(found.build())
        }
        "lid" => Some(node("lid").attr("val", account.lid_jid(0)).build()),
        "devices" => Some(devices::list(account)),
        "status" => {
            let about = lock(&account.state).about.clone();
            Some(node("status").attr("t", now()).string_content(about).build())
        }
        "picture" => lock(&account.state).picture.clone().map(|id| node("picture").attr("id", id).build()),
        _ => None,
    }
}

/// The query's text comes back as it was asked, a bare number with its `+`.
fn echoed(asked: &str) -> Vec<u8> {
    if asked.contains('@') || asked.starts_with('+') {
        asked.as_bytes().to_vec()
    } else {
        format!("+{asked}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_looked_up_by_number_in_every_form() {
        for form in ["+15551234567", "15551234567", "15551234567@c.us", "+15551234567@c.us"] {
            assert_eq!(contact_jid(form).unwrap().to_string(), "15551234567@s.whatsapp.net");
        }
        assert!(contact_jid("@c.us").is_none());
    }

    #[test]
    fn the_asked_text_is_echoed() {
        assert_eq!(echoed("1555@c.us"), b"1555@c.us");
        assert_eq!(echoed("1555"), b"+1555");
        assert_eq!(echoed("+1555"), b"+1555");
    }
}
