//! Newsletters (channels): their posts are not encrypted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wacore_binary::{Jid, Node};

use crate::node::{holding, node};

/// All newsletters by the user part of their JID.
pub(crate) type Newsletters = BTreeMap<String, Newsletter>;

/// A newsletter; owner and subscribers are phone numbers.
#[derive(Clone, Debug)]
pub(crate) struct Newsletter {
    pub id: String,
    pub name: String,
    pub description: String,
    pub invite: String,
    pub owner: String,
    pub subscribers: BTreeSet<String>,
    pub muted: BTreeSet<String>,
    /// Unix seconds.
    pub created: u64,
    pub posts: Vec<Post>,
}

#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// The server's number of the post; grows within a newsletter.
    pub server_id: u64,
    pub id: String,
    /// Unix seconds.
    pub at: u64,
    /// `text` or `media`.
    pub kind: String,
    pub sender: String,
    pub body: Vec<u8>,
    pub mediatype: Option<String>,
    /// Who reacted, by emoji.
    pub reactions: BTreeMap<String, BTreeSet<String>>,
}

impl Newsletter {
    pub fn jid(&self) -> Jid {
        Jid::newsletter(self.id.as_str())
    }

    pub fn role(&self, viewer: &str) -> &'static str {
        if self.owner == viewer {
            "owner"
        } else if self.subscribers.contains(viewer) {
            "subscriber"
        } else {
            "guest"
        }
    }

    /// The object that GraphQL answers describe a newsletter with.
    pub fn to_json(&self, viewer: &str) -> Value {
        json!({
            "id": format!("{}@newsletter", self.id),
            "state": {"type": "active"},
            "thread_metadata": {
                "name": {"id": "1", "text": self.name, "update_time": "1"},
                "description": {"id": "1", "text": self.description, "update_time": "1"},
                "subscribers_count": self.subscribers.len().to_string(),
                "verification": "UNVERIFIED",
                "invite": self.invite,
                "handle": null,
                "creation_time": self.created.to_string(),
                "settings": {"reaction_codes": {"value": "ALL"}},
            },
            "viewer_metadata": {
                "role": self.role(viewer),
                "mute": if self.muted.contains(viewer) { "ON" } else { "OFF" },
            },
        })
    }
}

impl Post {
    /// The post as history shows it.
    pub fn to_node(&self, viewer: &str) -> Node {
        let mut plaintext = node("plaintext");
        if let Some(kind) = &self.mediatype {
            plaintext = plaintext.attr("mediatype", kind.clone());
        }
        let mut children = vec![plaintext.bytes(self.body.clone()).build()];
        children.extend(self.reactions_node());
        let mut message = node("message")
            .attr("id", self.id.clone())
            .attr("server_id", self.server_id)
            .attr("t", self.at)
            .attr("type", self.kind.clone());
        if self.sender == viewer {
            message = message.attr("is_sender", "true");
        }
        message.children(children).build()
    }

    /// The post's reactions as a live update shows them.
    pub fn to_update(&self) -> Node {
        node("message")
            .attr("id", self.id.clone())
            .attr("server_id", self.server_id)
            .attr("t", self.at)
            .attr("type", self.kind.clone())
            .children(self.reactions_node())
            .build()
    }

    fn reactions_node(&self) -> Option<Node> {
        if self.reactions.is_empty() {
            return None;
        }
        let each = |(code, people): (&String, &BTreeSet<String>)| {
            node("reaction").attr("code", code.clone()).attr("count", people.len()).build()
        };
        Some(holding("reactions", self.reactions.iter().map(each)))
    }

    /// Replaces the person's reaction; an empty code removes it.
    pub fn react(&mut self, person: &str, code: &str) {
        for people in self.reactions.values_mut() {
            people.remove(person);
        }
        if !code.is_empty() {
            self.reactions.entry(code.to_owned()).or_default().insert(person.to_owned());
        }
        self.reactions.retain(|_, people| !people.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_one_reaction() {
        let mut post = Post {
            server_id: 1,
            id: "A".into(),
            at: 0,
            kind: "text".into(),
            sender: "1".into(),
            body: vec![],
            mediatype: None,
            reactions: BTreeMap::new(),
        };
        post.react("1", "👍");
        post.react("2", "👍");
        post.react("1", "❤");
        assert_eq!(post.reactions["👍"].len(), 1);
        post.react("1", "");
        post.react("2", "");
        assert!(post.reactions.is_empty());
    }
}
