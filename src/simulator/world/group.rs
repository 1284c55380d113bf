//! Groups and communities.

use std::collections::{BTreeMap, BTreeSet};

use wacore_binary::{Jid, Node};

use super::account::Account;
use super::directory::Directory;
use super::{World, lock};
use crate::node::{empty, holding, node, now};

/// All groups by the user part of their JID.
pub(crate) type Groups = BTreeMap<String, Group>;

/// A group; members, admins and creator are phone numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub id: String,
    pub subject: String,
    pub description: Option<Description>,
    pub creator: String,
    /// Unix seconds.
    pub created: u64,
    pub members: Vec<String>,
    pub admins: BTreeSet<String>,
    pub locked: bool,
    pub announcement: bool,
    /// Seconds until messages disappear; 0 is never.
    pub ephemeral: u32,
    pub approval: bool,
    /// People who asked to join and wait for an admin.
    pub requests: Vec<String>,
    pub admins_add_only: bool,
    pub invite: String,
    pub picture: Option<String>,
    /// This is a community.
    pub parent: bool,
    /// The community it belongs to.
    pub linked_parent: Option<String>,
    pub default_subgroup: bool,
    pub general_chat: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub id: String,
    pub text: String,
}

impl Group {
    pub fn jid(&self) -> Jid {
        Jid::group(self.id.as_str())
    }

    pub fn is_admin(&self, phone: &str) -> bool {
        self.creator == phone || self.admins.contains(phone)
    }

    pub fn remove(&mut self, phone: &str) {
        self.members.retain(|m| m != phone);
        self.admins.remove(phone);
    }

    /// The `<group>` that clients read a group from.
    pub fn to_node(&self, directory: &Directory) -> Node {
        let mut children: Vec<Node> = self
            .members
            .iter()
            .filter_map(|phone| directory.by_phone(phone))
            .map(|a| {
                let mut p = participant(&a);
                if a.phone == self.creator {
                    p.attrs.insert("type", "superadmin");
                } else if self.admins.contains(&a.phone) {
                    p.attrs.insert("type", "admin");
                }
                p
            })
            .collect();
        let size = children.len();
        let flags = [
            (self.locked, "locked"),
            (self.announcement, "announcement"),
            (self.parent, "parent"),
            (self.default_subgroup, "default_sub_group"),
            (self.general_chat, "general_chat"),
        ];
        children.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, tag)| empty(tag)));
        if self.ephemeral > 0 {
            children.push(node("ephemeral").attr("expiration", self.ephemeral).build());
        }
        if self.approval {
            let on = node("group_join").attr("state", "on").build();
            children.push(holding("membership_approval_mode", [on]));
        }
        if self.admins_add_only {
            children.push(node("member_add_mode").string_content("admin_add").build());
        }
        if let Some(parent) = &self.linked_parent {
            children.push(node("linked_parent").attr("jid", Jid::group(parent.as_str())).build());
        }
        if let Some(d) = &self.description {
            let body = node("body").string_content(d.text.clone()).build();
            children.push(node("description").attr("id", d.id.clone()).children([body]).build());
        }
        let mut group = node("group")
            .attr("id", self.id.clone())
            .attr("subject", self.subject.clone())
            .attr("addressing_mode", "lid")
            .attr("creation", self.created)
            .attr("s_t", self.created)
            .attr("size", size);
        if let Some(creator) = directory.by_phone(&self.creator) {
            group = group
                .attr("creator", creator.lid_jid(0))
                .attr("creator_pn", creator.pn_jid(0))
                .attr("s_o", creator.lid_jid(0))
                .attr("s_o_pn", creator.pn_jid(0));
        }
        group.children(children).build()
    }
}

/// `<participant>` with both addresses.
pub(crate) fn participant(account: &Account) -> Node {
    node("participant").attr("jid", account.lid_jid(0)).attr("phone_number", account.pn_jid(0)).build()
}

/// Adds a group under a fresh id, which is answered.
pub(crate) fn add(world: &World, mut group: Group) -> String {
    group.id = format!("1203{:014}", world.next() + now() * 1000);
    group.created = now();
    group.invite = format!("INV{}", group.id);
    let id = group.id.clone();
    lock(&world.groups).insert(id.clone(), group);
    id
}

/// A copy of the group.
pub(crate) fn get(world: &World, id: &str) -> Option<Group> {
    lock(&world.groups).get(id).cloned()
}

/// The members' phone numbers; none for an unknown group.
pub(crate) fn members(world: &World, id: &str) -> Vec<String> {
    lock(&world.groups).get(id).map(|g| g.members.clone()).unwrap_or_default()
}

/// Tells every device of every member, and of those in `also`, what happened; `except` is the device that did it.
pub(crate) fn announce(world: &World, id: &str, actor: &Account, except: Option<u16>, also: &[String], what: Node) {
    let mut people = members(world, id);
    people.extend(also.iter().filter(|p| !people.contains(p)).cloned().collect::<Vec<_>>());
    let notification = world
        .notification("w:gp2", Jid::group(id))
        .attr("participant", actor.lid_jid(0))
        .attr("participant_pn", actor.pn_jid(0))
        .attr("addressing_mode", "lid")
        .attr("notify", actor.name())
        .children([what])
        .build();
    for phone in people {
        if let Some(account) = world.directory.by_phone(&phone) {
            let except = except.filter(|_| account.phone == actor.phone);
            account.deliver_to_all(&notification, except);
        }
    }
}
