//! `newsletter`: history and live updates; and posts, which come as messages.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use wacore_binary::{Jid, Node};

use super::{Answer, Query};
use crate::node::{attr, attr_is, bytes, holding, jid, node, now, number, required_jid};
use crate::session::Caller;
use crate::world::lock;
use crate::world::newsletter::Post;

/// How long live updates flow after being asked for, in seconds.
const LIVE: u64 = 300;

/// Posts are numbered from here.
const FIRST_POST: u64 = 100;

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    match (query.kind, query.first) {
        (_, "live_updates") => Ok(Answer::one(node("live_updates").attr("duration", LIVE).build())),
        ("get", "messages" | "message_updates") => history(caller, query),
        _ => Ok(Answer::empty()),
    }
}

/// The newest `count` posts before `before`, oldest first.
fn history(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let request = query.child.context("no <messages>")?;
    // Some clients ask the server itself and name the newsletter inside.
    let to = jid(request, "jid").map_or_else(|| required_jid(query.stanza, "to"), Ok)?;
    let count: usize = number(request, "count").unwrap_or(50);
    let before: u64 = number(request, "before").unwrap_or(u64::MAX);
    let newsletters = lock(&caller.world.newsletters);
    let Some(newsletter) = newsletters.get(to.user.as_str()) else { return Ok(Answer::not_found()) };
    let older: Vec<&Post> = newsletter.posts.iter().filter(|p| p.server_id < before).collect();
    let newest = older.get(older.len().saturating_sub(count)..).unwrap_or(&[]);
    let posts: Vec<Node> = newest.iter().map(|p| p.to_node(&caller.account.phone)).collect();
    let messages = node("messages").attr("jid", to.clone()).attr("t", now()).children(posts).build();
    if query.first == "message_updates" {
        return Ok(Answer::one(holding("message_updates", [messages])));
    }
    Ok(Answer::one(messages))
}

/// Takes a post, its change, or a reaction; its number. Subscribers are told, a reaction also to its sender's device.
pub(crate) fn publish(caller: &Caller, to: &Jid, id: &str, stanza: &Node) -> u64 {
    let me = &caller.account;
    let reaction = attr_is(stanza, "type", "reaction");
    let (server_id, news, subscribers) = {
        let mut newsletters = lock(&caller.world.newsletters);
        let Some(newsletter) = newsletters.get_mut(to.user.as_str()) else { return 0 };
        let subscribers: Vec<String> = newsletter.subscribers.iter().cloned().collect();
        if reaction {
            let server_id: u64 = number(stanza, "server_id").unwrap_or(0);
            let code = stanza.get_optional_child("reaction").and_then(|r| attr(r, "code")).unwrap_or_default();
            let post = newsletter.posts.iter_mut().find(|p| p.server_id == server_id);
            let news = post.map(|post| {
                post.react(&me.phone, &code);
                post.to_update()
            });
            (server_id, news, subscribers)
        } else if let Some(plaintext) = stanza.get_optional_child("plaintext") {
            // Changes name the post by its id: edit 3 replaces it, edit 8 takes it back.
            if attr_is(stanza, "edit", "8") {
                newsletter.posts.retain(|p| p.id != id);
                (0, None, Vec::new())
            } else if let Some(post) = newsletter.posts.iter_mut().find(|p| p.id == id) {
                post.body = bytes(plaintext);
                (post.server_id, None, Vec::new())
            } else {
                let post = Post {
                    server_id: newsletter.posts.last().map_or(FIRST_POST, |p| p.server_id + 1),
                    id: id.to_owned(),
                    at: now(),
                    kind: attr(stanza, "type").unwrap_or_else(|| "text".to_owned()),
                    sender: me.phone.clone(),
                    body: bytes(plaintext),
                    mediatype: attr(plaintext, "mediatype"),
                    reactions: BTreeMap::new(),
                };
                let server_id = post.server_id;
                newsletter.posts.push(post);
                (server_id, None, subscribers)
            }
        } else {
            (0, None, Vec::new())
        }
    };
    if let Some(update) = news {
        let messages = node("messages").attr("jid", to.clone()).attr("t", now()).children([update]).build();
        let notification =
            caller.world.notification("newsletter", to.clone()).children([holding("live_updates", [messages])]).build();
        caller.world.broadcast(&notification, |a| subscribers.contains(&a.phone));
    } else if !reaction {
        deliver_post(caller, to, server_id, &subscribers);
    }
    server_id
}

/// A new post reaches subscribers as a message, in the clear.
fn deliver_post(caller: &Caller, to: &Jid, server_id: u64, subscribers: &[String]) {
    let post = {
        let newsletters = lock(&caller.world.newsletters);
        let post = newsletters.get(to.user.as_str()).and_then(|n| n.posts.iter().find(|p| p.server_id == server_id));
        post.map(|p| p.to_node(""))
    };
    let Some(mut message) = post else { return };
    message.attrs.insert("from", to.clone());
    for phone in subscribers.iter().filter(|p| **p != caller.account.phone) {
        if let Some(account) = caller.world.directory.by_phone(phone) {
            account.send_to_connected(&message);
        }
    }
}
