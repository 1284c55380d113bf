//! `status`, `w:profile:picture`, `w:biz`: about text, pictures of people and groups, business profiles.

use anyhow::{Context, Result};
use wacore_binary::{Jid, JidExt, Node};

use super::privacy::may_reach;
use super::{Answer, Query, result, text_of};
use crate::media::direct_path;
use crate::node::{attr, bytes, children, empty, holding, jid, node, required_jid};
use crate::session::Caller;
use crate::world::group;
use crate::world::lock;

/// Picture ids are times on WhatsApp; ours count up from here.
const FIRST_PICTURE: u64 = 1_700_000_000;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    match (query.namespace, query.kind) {
        ("status", "set") => set_about(caller, query),
        ("w:profile:picture", "set") => set_picture(caller, query),
        ("w:profile:picture", "get") => picture(caller, query),
        ("w:biz", "get") => Ok(business_profile(query)),
        _ => Ok(Answer::empty()),
    }
}

fn set_about(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let about = text_of(query.child.context("no <status>")?);
    lock(&caller.account.state).about = about.clone();
    if caller.world.config.announce_about {
        let notification = caller
            .world
            .notification("status", caller.account.pn_jid(0))
            .attr("notify", caller.account.name())
            .children([node("set").string_content(about).build()])
            .build();
        caller.world.broadcast(&notification, |a| a.phone != caller.account.phone);
    }
    Ok(Answer::empty())
}

/// Sets or removes the own picture, or a group's; the device that did it is told like everybody.
fn set_picture(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let image = query.stanza.get_optional_child("picture").map(bytes).filter(|image| !image.is_empty());
    let id = image.map(|image| {
        let id = (FIRST_PICTURE + caller.world.next()).to_string();
        caller.world.media.put(&token(&id), image.into());
        id
    });
    let group = jid(query.stanza, "target").filter(JidExt::is_group);
    let me = &caller.account;
    let of = group.clone().unwrap_or_else(|| me.pn_jid(0));
    match &group {
        Some(jid) => match lock(&caller.world.groups).get_mut(jid.user.as_str()) {
            Some(group) => group.picture = id.clone(),
            None => return Ok(Answer::not_found()),
        },
        None => lock(&me.state).picture = id.clone(),
    }
    caller.send(result(query.stanza, id.iter().map(|id| node("picture").attr("id", id.clone()).build()).collect()));
    let change = match &id {
        Some(id) => node("set").attr("jid", of.clone()).attr("id", id.clone()).attr("author", me.pn_jid(0)).build(),
        None => node("delete").attr("jid", of.clone()).attr("author", me.pn_jid(0)).build(),
    };
    let notification = caller.world.notification("picture", of).children([change]).build();
    match group {
        Some(jid) => {
            for phone in group::members(&caller.world, &jid.user) {
                if let Some(member) = caller.world.directory.by_phone(&phone) {
                    member.deliver_to_all(&notification, None);
                }
            }
        }
        None => caller.world.broadcast(&notification, |_| true),
    }
    Ok(Answer::Sent)
}

fn picture(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let target = jid(query.stanza, "target").map_or_else(|| required_jid(query.stanza, "to"), Ok)?;
    let request = query.stanza.get_optional_child("picture").context("no <picture>")?;
    let refused = |code: u16, text: &'static str| {
        let error = node("error").attr("code", code).attr("text", text).build();
        Ok(Answer::one(holding("picture", [error])))
    };
    let id = if target.is_group() {
        group::get(&caller.world, &target.user).and_then(|g| g.picture)
    } else {
        let Some(account) = caller.world.directory.by_jid_or_new(&target) else {
            return refused(404, "item-not-found");
        };
        if !may_reach(&caller.world, &caller.account, &account, request) {
            return refused(401, "not-authorized");
        }
        lock(&account.state).picture.clone()
    };
    let Some(id) = id else { return refused(404, "item-not-found") };
    // A client that knows the current picture is not told it again.
    if attr(request, "id").as_deref() == Some(&id) {
        return Ok(Answer::empty());
    }
    let path = direct_path(&token(&id));
    let found = node("picture")
        .attr("id", id)
        .attr("type", attr(request, "type").unwrap_or_else(|| "image".to_owned()))
        .attr("url", format!("https://{}{path}", caller.world.host()))
        .attr("direct_path", path)
        .build();
    Ok(Answer::one(found))
}

/// The pictures of several groups; a group without one is left out.
pub(crate) fn group_pictures(caller: &Caller, pictures: &Node) -> Node {
    let one = |asked: &Node| {
        let jid = jid(asked, "jid")?;
        let id = group::get(&caller.world, &jid.user)?.picture?;
        let path = direct_path(&token(&id));
        let found = node("picture")
            .attr("jid", jid)
            .attr("id", id)
            .attr("type", attr(asked, "type").unwrap_or_else(|| "image".to_owned()))
            .attr("url", format!("https://{}{path}", caller.world.host()))
            .attr("direct_path", path);
        Some(found.build())
    };
    holding("pictures", children(pictures).iter().filter_map(one))
}

fn token(id: &str) -> String {
    format!("pic{id}")
}

/// Everybody has an empty business profile: clients that ask for one do not take none for an answer.
fn business_profile(query: &Query<'_>) -> Answer {
    let asked = query.child.map(children).unwrap_or(&[]);
    let profile = |jid: Jid| {
        node("profile")
            .attr("jid", jid)
            .attr("tag", "1")
            .children([empty("address"), empty("description"), empty("email"), holding("categories", [])])
            .build()
    };
    Answer::one(holding("business_profile", asked.iter().filter_map(|p| jid(p, "jid")).map(profile)))
}
