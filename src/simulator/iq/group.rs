//! `w:g2`: groups. Every change is announced to all members but the device that made it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use wacore_binary::{Jid, Node, Server};

use super::{Answer, Query, community, group_invite, text_of};
use crate::node::{attr, attr_is, children, empty, holding, jid, node, now, number, required_jid};
use crate::session::Caller;
use crate::world::account::Account;
use crate::world::group::{Description, Group, add, announce, get, participant};
use crate::world::lock;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let to = query.to();
    let id = to.user.to_string();
    if to.server == Server::Group && !id.is_empty() && get(&caller.world, &id).is_none() {
        return Ok(Answer::not_found());
    }
    let Some(child) = query.child else { return Ok(Answer::empty()) };
    match (query.kind, query.first) {
        ("set", "create") => create(caller, child),
        ("set", "leave") => leave(caller, child),
        ("get", "participating") => participating(caller),
        ("get", "pictures") => Ok(Answer::one(super::profile::group_pictures(caller, child))),
        // To the server itself: no group is named.
        ("get", "query") if id.is_empty() => batch(caller, child),
        (_, "invite" | "accept" | "revoke" | "membership_approval_requests" | "membership_requests_action")
        | (_, "cancel_membership_requests") => group_invite::answer(caller, query, &id, child),
        (_, "links" | "unlink" | "delete_parent" | "join_linked_group" | "query_linked")
        | (_, "linked_groups_participants") => community::answer(caller, query, &id, child),
        _ if id.is_empty() => Ok(Answer::Error(400, "bad-request")),
        ("set", "add") => change_members(caller, &id, child, Change::Add),
        ("set", "remove") => change_members(caller, &id, child, Change::Remove),
        ("set", "promote") => change_members(caller, &id, child, Change::Promote),
        ("set", "demote") => change_members(caller, &id, child, Change::Demote),
        ("set", _) => setting(caller, &id, child),
        ("get", "query") => Ok(describe(caller, &id)),
        _ => Ok(Answer::empty()),
    }
}

/// Only members see a group.
fn describe(caller: &Caller, id: &str) -> Answer {
    match get(&caller.world, id) {
        Some(group) if group.members.contains(&caller.account.phone) || group.linked_parent.is_some() => {
            Answer::one(group.to_node(&caller.world.directory))
        }
        Some(_) => Answer::Error(403, "forbidden"),
        None => Answer::not_found(),
    }
}

fn batch(caller: &Caller, query: &Node) -> Result<Answer> {
    let one = |jid: Jid| match get(&caller.world, &jid.user) {
        Some(group) if group.members.contains(&caller.account.phone) => group.to_node(&caller.world.directory),
        Some(_) => node("group").attr("id", jid.user.to_string()).attr("error", 403).build(),
        None => node("group").attr("id", jid.user.to_string()).attr("error", 404).build(),
    };
    Ok(Answer::one(holding("groups", children(query).iter().filter_map(|g| jid(g, "jid")).map(one))))
}

fn participating(caller: &Caller) -> Result<Answer> {
    let mine: Vec<Group> = {
        let groups = lock(&caller.world.groups);
        groups.values().filter(|g| g.members.contains(&caller.account.phone)).cloned().collect()
    };
    Ok(Answer::one(holding("groups", mine.iter().map(|g| g.to_node(&caller.world.directory)))))
}

/// A participant's account, in either address; an unknown number becomes a person.
pub(crate) fn person(caller: &Caller, participant: &Node) -> Option<Arc<Account>> {
    let named = jid(participant, "phone_number").or_else(|| jid(participant, "jid"))?;
    caller.world.directory.by_jid_or_new(&named)
}

fn create(caller: &Caller, create: &Node) -> Result<Answer> {
    let world = &caller.world;
    let me = &caller.account.phone;
    let mut members = vec![me.clone()];
    for p in create.get_children_by_tag("participant") {
        if let Some(account) = person(caller, p)
            && !members.contains(&account.phone)
        {
            members.push(account.phone.clone());
        }
    }
    let parent = create.get_optional_child("parent").is_some();
    let base = Group {
        subject: attr(create, "subject").unwrap_or_default(),
        creator: me.clone(),
        members,
        ..Group::default()
    };
    let id = add(
        world,
        Group {
            parent,
            linked_parent: create
                .get_optional_child("linked_parent")
                .and_then(|l| jid(l, "jid"))
                .map(|j| j.user.to_string()),
            ephemeral: create.get_optional_child("ephemeral").and_then(|e| number(e, "expiration")).unwrap_or(0),
            announcement: create.get_optional_child("announcement").is_some(),
            locked: create.get_optional_child("locked").is_some(),
            approval: create.get_optional_child("membership_approval_mode").is_some_and(approval_on),
            description: create.get_optional_child("description").and_then(description),
            ..base.clone()
        },
    );
    if parent {
        let linked = Some(id.clone());
        add(world, Group { linked_parent: linked.clone(), default_subgroup: true, announcement: true, ..base.clone() });
        if create.get_optional_child("create_general_chat").is_some() {
            add(world, Group { subject: "General".to_owned(), linked_parent: linked, general_chat: true, ..base });
        }
    }
    let group = get(world, &id).context("the group is gone")?.to_node(&world.directory);
    let news = node("create").attr("type", "new").attr("key", id.clone()).children([group.clone()]).build();
    announce(world, &id, &caller.account, Some(caller.device), &[], news);
    Ok(Answer::one(group))
}

fn leave(caller: &Caller, leave: &Node) -> Result<Answer> {
    let me = &caller.account;
    let mut left = Vec::new();
    for entry in children(leave) {
        let Some(id) = jid(entry, "id").map(|j| j.user.to_string()).or_else(|| attr(entry, "id")) else { continue };
        let was_member = lock(&caller.world.groups).get_mut(&id).is_some_and(|g| {
            let was = g.members.contains(&me.phone);
            g.remove(&me.phone);
            was
        });
        let mut answer = node("group").attr("id", Jid::group(id.as_str()));
        if was_member {
            let news = holding("remove", [participant(me)]);
            announce(&caller.world, &id, me, Some(caller.device), std::slice::from_ref(&me.phone), news);
        } else {
            answer = answer.attr("error", 404);
        }
        left.push(answer.build());
    }
    Ok(Answer::one(holding("leave", left)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Promote,
    Demote,
}

impl Change {
    fn tag(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Promote => "promote",
            Self::Demote => "demote",
        }
    }

    /// Applies the change; the error code when it cannot be.
    fn apply(self, group: &mut Group, phone: &str) -> Result<(), u16> {
        let member = group.members.iter().any(|m| m == phone);
        match self {
            Self::Add if member => return Err(409),
            Self::Add => group.members.push(phone.to_owned()),
            _ if !member => return Err(404),
            Self::Remove => group.remove(phone),
            Self::Promote => {
                group.admins.insert(phone.to_owned());
            }
            Self::Demote => {
                group.admins.remove(phone);
            }
        }
        Ok(())
    }
}

fn change_members(caller: &Caller, id: &str, request: &Node, change: Change) -> Result<Answer> {
    let world = &caller.world;
    let me = &caller.account.phone;
    let allowed = get(world, id)
        .is_some_and(|g| g.is_admin(me) || (change == Change::Add && !g.admins_add_only && g.members.contains(me)));
    if !allowed {
        return Ok(Answer::Error(403, "forbidden"));
    }
    let (mut answers, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for p in request.get_children_by_tag("participant") {
        let asked = required_jid(p, "jid")?;
        let mut answer = node("participant").attr("jid", asked).attr("type", "200");
        let outcome = match person(caller, p) {
            Some(account) => {
                let mut groups = lock(&world.groups);
                let group = groups.get_mut(id).context("the group is gone")?;
                change.apply(group, &account.phone).map(|()| account.clone())
            }
            None => Err(404),
        };
        match outcome {
            Ok(account) => {
                answer = answer.attr("phone_number", account.pn_jid(0));
                changed.push(participant(&account));
                if change == Change::Remove {
                    gone.push(account.phone.clone());
                }
            }
            Err(code) => answer = answer.attr("error", code),
        }
        answers.push(answer.build());
    }
    if !changed.is_empty() {
        announce(world, id, &caller.account, Some(caller.device), &gone, holding(change.tag(), changed));
    }
    Ok(Answer::one(holding(change.tag(), answers)))
}

fn approval_on(mode: &Node) -> bool {
    mode.get_optional_child("group_join").is_some_and(|j| attr_is(j, "state", "on"))
}

fn description(n: &Node) -> Option<Description> {
    let text = text_of(n.get_optional_child("body")?);
    Some(Description { id: attr(n, "id").unwrap_or_default(), text })
}

/// Subject, description and switches. Unknown ones are answered and not kept.
fn setting(caller: &Caller, id: &str, request: &Node) -> Result<Answer> {
    let me = &caller.account;
    {
        let mut groups = lock(&caller.world.groups);
        let group = groups.get_mut(id).context("the group is gone")?;
        let free = !group.locked && matches!(request.tag.as_ref(), "subject" | "description" | "ephemeral");
        let allowed = group.is_admin(&me.phone) || (free && group.members.contains(&me.phone));
        if !allowed {
            return Ok(Answer::Error(403, "forbidden"));
        }
        match request.tag.as_ref() {
            "locked" => group.locked = true,
            "unlocked" => group.locked = false,
            "announcement" => group.announcement = true,
            "not_announcement" => group.announcement = false,
            "ephemeral" => group.ephemeral = number(request, "expiration").unwrap_or(0),
            "not_ephemeral" => group.ephemeral = 0,
            "membership_approval_mode" => group.approval = approval_on(request),
            "member_add_mode" => group.admins_add_only = text_of(request) == "admin_add",
            "subject" => group.subject = text_of(request),
            "description" => group.description = description(request),
            _ => return Ok(Answer::empty()),
        }
    }
    let news = match request.tag.as_ref() {
        "subject" => node("subject")
            .attr("subject", text_of(request))
            .attr("s_t", now())
            .attr("s_o", me.lid_jid(0))
            .attr("s_o_pn", me.pn_jid(0))
            .build(),
        _ => request.clone(),
    };
    announce(&caller.world, id, me, Some(caller.device), &[], news);
    Ok(Answer::empty())
}

/// People of several groups, each once.
pub(crate) fn people(caller: &Caller, groups: impl Fn(&Group) -> bool) -> Vec<Node> {
    let phones: BTreeSet<String> = {
        let all = lock(&caller.world.groups);
        all.values().filter(|g| groups(g)).flat_map(|g| g.members.clone()).collect()
    };
    phones.iter().filter_map(|p| caller.world.directory.by_phone(p)).map(|a| participant(&a)).collect()
}

/// `<tag/>` as an answer.
pub(crate) fn done(tag: &'static str) -> Result<Answer> {
    Ok(Answer::one(empty(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_apply_or_say_why_not() {
        let mut group = Group { members: vec!["1".into()], creator: "1".into(), ..Group::default() };
        assert_eq!(Change::Add.apply(&mut group, "1"), Err(409));
        assert_eq!(Change::Add.apply(&mut group, "2"), Ok(()));
        assert_eq!(Change::Promote.apply(&mut group, "2"), Ok(()));
        assert!(group.is_admin("2"));
        assert_eq!(Change::Remove.apply(&mut group, "2"), Ok(()));
        assert!(!group.is_admin("2"));
        assert_eq!(Change::Demote.apply(&mut group, "2"), Err(404));
    }
}
