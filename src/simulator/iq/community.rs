//! `w:g2` to a community: its groups and its people.

use anyhow::Result;
use wacore_binary::{Jid, Node};

use super::group::{done, people};
use super::{Answer, Query};
use crate::node::{children, holding, jid, node, required_jid};
use crate::session::Caller;
use crate::world::group::{announce, get, participant};
use crate::world::lock;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>, id: &str, child: &Node) -> Result<Answer> {
    match (query.kind, query.first) {
        ("set", "links") => Ok(link(caller, id, child)),
        ("set", "unlink") => Ok(unlink(caller, id, child)),
        ("set", "delete_parent") => delete(caller, id),
        ("set", "join_linked_group") => linked_group(caller, id, child, true),
        ("get", "query_linked") => linked_group(caller, id, child, false),
        ("get", "linked_groups_participants") => {
            let people = people(caller, |g| g.id == id || g.linked_parent.as_deref() == Some(id));
            Ok(Answer::one(holding("linked_groups_participants", people)))
        }
        _ => Ok(Answer::empty()),
    }
}

/// The answer for one group of a list, with an error when it could not be done.
fn outcome(jid: Jid, done: bool) -> Node {
    let answer = node("group").attr("jid", jid);
    if done { answer.build() } else { answer.attr("error", 404).build() }
}

fn link(caller: &Caller, id: &str, links: &Node) -> Answer {
    let mut outcomes = Vec::new();
    for entry in links.get_children_by_tag("link").flat_map(children) {
        let Some(jid) = jid(entry, "jid") else { continue };
        let mut groups = lock(&caller.world.groups);
        let group = groups.get_mut(jid.user.as_str());
        let known = group.is_some();
        if let Some(group) = group {
            group.linked_parent = Some(id.to_owned());
        }
        outcomes.push(outcome(jid, known));
    }
    Answer::one(holding("links", [node("link").attr("link_type", "sub_group").children(outcomes).build()]))
}

fn unlink(caller: &Caller, id: &str, unlink: &Node) -> Answer {
    let mut outcomes = Vec::new();
    for entry in children(unlink) {
        let Some(jid) = jid(entry, "jid") else { continue };
        let mut groups = lock(&caller.world.groups);
        let group = groups.get_mut(jid.user.as_str()).filter(|g| g.linked_parent.as_deref() == Some(id));
        let linked = group.is_some();
        if let Some(group) = group {
            group.linked_parent = None;
        }
        outcomes.push(outcome(jid, linked));
    }
    Answer::one(node("unlink").attr("unlink_type", "sub_group").children(outcomes).build())
}

/// The community goes with the groups that were made with it; the others stand alone again.
fn delete(caller: &Caller, id: &str) -> Result<Answer> {
    let mut groups = lock(&caller.world.groups);
    groups.remove(id);
    groups.retain(|_, g| g.linked_parent.as_deref() != Some(id) || !(g.default_subgroup || g.general_chat));
    for group in groups.values_mut().filter(|g| g.linked_parent.as_deref() == Some(id)) {
        group.linked_parent = None;
    }
    done("delete_parent")
}

/// Shows a group of the community, and joins it when asked to.
fn linked_group(caller: &Caller, id: &str, request: &Node, join: bool) -> Result<Answer> {
    let jid = required_jid(request, "jid")?;
    let me = &caller.account;
    let joined = {
        let mut groups = lock(&caller.world.groups);
        let group = groups.get_mut(jid.user.as_str()).filter(|g| g.linked_parent.as_deref() == Some(id));
        let Some(group) = group else { return Ok(Answer::not_found()) };
        let joins = join && !group.members.contains(&me.phone);
        if joins {
            group.members.push(me.phone.clone());
        }
        joins
    };
    if joined {
        let news = node("add").attr("reason", "linked_group_join").children([participant(me)]).build();
        announce(&caller.world, &jid.user, me, Some(caller.device), &[], news);
    }
    let group = get(&caller.world, &jid.user).map(|g| g.to_node(&caller.world.directory));
    Ok(Answer::one(node("linked_group").attr("jid", jid).children(group).build()))
}
