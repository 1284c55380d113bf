//! `w:g2`: invite links, and requests to join that an admin decides.

use anyhow::Result;
use wacore_binary::Node;

use super::group::{done, person};
use super::{Answer, Query};
use crate::node::{attr, children, holding, node, now};
use crate::session::Caller;
use crate::world::account::Account;
use crate::world::group::{Group, announce, get, participant};
use crate::world::lock;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>, id: &str, child: &Node) -> Result<Answer> {
    match (query.kind, query.first) {
        // With a group: its link. Without: what a link leads to.
        ("get", "invite") if !id.is_empty() => Ok(link(caller, id, false)),
        ("set", "invite") if !id.is_empty() => Ok(link(caller, id, true)),
        ("get", "invite") => Ok(match by_code(caller, child) {
            Some(group) => Answer::one(group.to_node(&caller.world.directory)),
            None => Answer::not_found(),
        }),
        ("set", "invite") => Ok(match by_code(caller, child) {
            Some(group) => join(caller, &group),
            None => Answer::not_found(),
        }),
        (_, "accept") => Ok(match get(&caller.world, id) {
            Some(group) => join(caller, &group),
            None => Answer::not_found(),
        }),
        (_, "revoke") => done("revoke"),
        ("get", "membership_approval_requests") => Ok(requests(caller, id)),
        (_, "membership_requests_action") => decide(caller, id, child),
        (_, "cancel_membership_requests") => {
            forget_requests(caller, id, &caller.account.phone);
            done("cancel_membership_requests")
        }
        _ => Ok(Answer::empty()),
    }
}

fn link(caller: &Caller, id: &str, renew: bool) -> Answer {
    let fresh = format!("INV{id}{}", caller.world.next());
    let mut groups = lock(&caller.world.groups);
    let Some(group) = groups.get_mut(id) else { return Answer::not_found() };
    if !group.is_admin(&caller.account.phone) {
        return Answer::Error(403, "forbidden");
    }
    if renew {
        group.invite = fresh;
    }
    Answer::one(node("invite").attr("code", group.invite.clone()).build())
}

fn by_code(caller: &Caller, invite: &Node) -> Option<Group> {
    let code = attr(invite, "code")?;
    lock(&caller.world.groups).values().find(|g| g.invite == code).cloned()
}

/// Joins at once, or asks the admins where they decide.
fn join(caller: &Caller, group: &Group) -> Answer {
    let me = &caller.account;
    if group.members.contains(&me.phone) {
        return Answer::Error(409, "conflict");
    }
    if group.approval {
        if let Some(g) = lock(&caller.world.groups).get_mut(&group.id)
            && !g.requests.contains(&me.phone)
        {
            g.requests.push(me.phone.clone());
        }
        return Answer::one(node("membership_approval_request").attr("jid", group.jid()).build());
    }
    if let Some(g) = lock(&caller.world.groups).get_mut(&group.id) {
        g.members.push(me.phone.clone());
    }
    let news = node("add").attr("reason", "invite").children([participant(me)]).build();
    announce(&caller.world, &group.id, me, Some(caller.device), &[], news);
    Answer::one(node("group").attr("jid", group.jid()).build())
}

fn requests(caller: &Caller, id: &str) -> Answer {
    let Some(group) = get(&caller.world, id) else { return Answer::not_found() };
    let one = |account: &Account| {
        node("membership_approval_request")
            .attr("jid", account.lid_jid(0))
            .attr("phone_number", account.pn_jid(0))
            .attr("request_time", now())
            .build()
    };
    let waiting = group.requests.iter().filter_map(|p| caller.world.directory.by_phone(p));
    Answer::one(holding("membership_approval_requests", waiting.map(|a| one(&a))))
}

/// `<membership_requests_action>` holding `<approve>` or `<reject>` with participants; the answer has the same shape.
fn decide(caller: &Caller, id: &str, action: &Node) -> Result<Answer> {
    if !get(&caller.world, id).is_some_and(|g| g.is_admin(&caller.account.phone)) {
        return Ok(Answer::Error(403, "forbidden"));
    }
    let mut outcomes = Vec::new();
    for decision in children(action) {
        let approve = decision.tag == "approve";
        let mut answers = Vec::new();
        for p in children(decision) {
            let Some(asked) = crate::node::jid(p, "jid") else { continue };
            let answer = node("participant").attr("jid", asked);
            let account = person(caller, p).filter(|a| forget_requests(caller, id, &a.phone));
            let Some(account) = account else {
                answers.push(answer.attr("type", "200").attr("error", 404).build());
                continue;
            };
            if approve {
                if let Some(g) = lock(&caller.world.groups).get_mut(id) {
                    g.members.push(account.phone.clone());
                }
                let news = node("add").attr("reason", "approved").children([participant(&account)]).build();
                announce(&caller.world, id, &caller.account, Some(caller.device), &[], news);
            }
            answers.push(answer.attr("type", "200").build());
        }
        outcomes.push(holding(if approve { "approve" } else { "reject" }, answers));
    }
    Ok(Answer::one(holding("membership_requests_action", outcomes)))
}

/// Whether there was a request.
fn forget_requests(caller: &Caller, id: &str, phone: &str) -> bool {
    lock(&caller.world.groups).get_mut(id).is_some_and(|g| {
        let before = g.requests.len();
        g.requests.retain(|p| p != phone);
        g.requests.len() < before
    })
}
