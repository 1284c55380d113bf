//! Queries: one file per namespace. A query that nobody knows is answered with an empty result, which clients accept
//! nearly everywhere; what needs more is listed here.

pub(crate) mod app_state;
pub(crate) mod community;
pub(crate) mod devices;
pub(crate) mod group;
pub(crate) mod group_invite;
pub(crate) mod keys;
pub(crate) mod mex;
pub(crate) mod newsletter;
pub(crate) mod privacy;
pub(crate) mod profile;
pub(crate) mod usync;

use anyhow::Result;
use wacore_binary::{Jid, Node};

use crate::login;
use crate::node::{attr, attr_is, bytes, children, jid, node, now, server};
use crate::session::Caller;

/// What a query is answered with.
pub(crate) enum Answer {
    /// A result with these children.
    Result(Vec<Node>),
    /// An error with its code and the server's word for it.
    Error(u16, &'static str),
    /// The handler has sent the answer itself.
    Sent,
}

impl Answer {
    pub fn empty() -> Self {
        Self::Result(Vec::new())
    }

    pub fn one(child: Node) -> Self {
        Self::Result(vec![child])
    }

    pub fn not_found() -> Self {
        Self::Error(404, "item-not-found")
    }
}

/// A query, taken apart for dispatch.
pub(crate) struct Query<'a> {
    pub stanza: &'a Node,
    pub namespace: &'a str,
    /// `get` or `set`.
    pub kind: &'a str,
    /// Tag of the first child; empty when there is none.
    pub first: &'a str,
    /// The first child itself.
    pub child: Option<&'a Node>,
}

impl Query<'_> {
    /// The addressee; the server itself when the attribute is missing or no JID.
    pub fn to(&self) -> Jid {
        jid(self.stanza, "to").unwrap_or_else(server)
    }
}

/// Answers a query; one that cannot be understood with error 400.
pub(crate) async fn answer(caller: &Caller, stanza: &Node) -> Result<()> {
    let namespace = attr(stanza, "xmlns").unwrap_or_default();
    let kind = attr(stanza, "type").unwrap_or_default();
    let child = children(stanza).first();
    let query =
        Query { stanza, namespace: &namespace, kind: &kind, first: child.map_or("", |c| c.tag.as_ref()), child };
    caller.world.counters.iq(&namespace);
    let answer = dispatch(caller, &query).await.unwrap_or_else(|e| {
        tracing::warn!("query {namespace} {kind} <{}>: {e:#}", query.first);
        Answer::Error(400, "bad-request")
    });
    match answer {
        Answer::Result(children) => caller.send(result(stanza, children)),
        Answer::Error(code, text) => caller.send(error(stanza, code, text)),
        Answer::Sent => {}
    }
    Ok(())
}

async fn dispatch(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    match (query.namespace, query.kind, query.first) {
        ("passive", _, "active") => login::activate(caller, query.stanza).await,
        ("encrypt", ..) => keys::answer(caller, query).await,
        ("usync", ..) => usync::answer(caller, query),
        ("w:sync:app:state", ..) => app_state::answer(caller, query),
        ("w:g2", ..) => group::answer(caller, query),
        ("w:mex", ..) => mex::answer(caller, query),
        ("newsletter", ..) => newsletter::answer(caller, query),
        ("privacy", ..) | ("blocklist", ..) | ("disappearing_mode", ..) => privacy::answer(caller, query),
        ("status", ..) | ("w:profile:picture", ..) | ("w:biz", ..) => profile::answer(caller, query),
        ("w:m", ..) => Ok(Answer::one(media_connection(caller))),
        ("abt", ..) | ("w", "get", "props") => Ok(Answer::one(properties(caller))),
        ("md", "set", "remove-companion-device") => Ok(log_out(caller, query)),
        ("w:p", ..) | ("urn:xmpp:ping", ..) => Ok(Answer::empty()),
        (namespace, kind, first) => {
            tracing::debug!("empty result for query {namespace} {kind} <{first}>");
            Ok(Answer::empty())
        }
    }
}

/// `type="result"` for a query.
pub(crate) fn result(query: &Node, children: Vec<Node>) -> Node {
    let mut answer = node("iq")
        .attr("from", jid(query, "to").unwrap_or_else(server))
        .attr("type", "result")
        .attr("id", attr(query, "id").unwrap_or_default());
    if attr_is(query, "xmlns", "w:p") {
        answer = answer.attr("t", now());
    }
    if !children.is_empty() {
        answer = answer.children(children);
    }
    answer.build()
}

fn error(query: &Node, code: u16, text: &'static str) -> Node {
    node("iq")
        .attr("from", jid(query, "to").unwrap_or_else(server))
        .attr("type", "error")
        .attr("id", attr(query, "id").unwrap_or_default())
        .children([node("error").attr("code", code).attr("text", text).build()])
        .build()
}

/// Server-set properties: 10518 lets clients issue privacy tokens, the others are scenario flags.
fn properties(caller: &Caller) -> Node {
    let scenario = caller.account.scenario();
    let properties = [
        (10518, true),
        (24941, scenario.nct_send_prop),
        (25253, scenario.nct_syncd_prop),
        (25189, scenario.nct_history_prop),
    ];
    let property = |(code, on): (u32, bool)| {
        node("prop").attr("config_code", code).attr("config_value", if on { "1" } else { "0" }).build()
    };
    node("props")
        .attr("protocol", "1")
        .attr("ab_key", "sim")
        .attr("hash", "simhash")
        .attr("refresh", 86_400)
        .attr("refresh_id", 1)
        .children(properties.map(property))
        .build()
}

/// Where media is uploaded to and downloaded from: this server.
fn media_connection(caller: &Caller) -> Node {
    let host = node("host")
        .attr("hostname", caller.world.host())
        .attr("type", "primary")
        .children([node("upload").build(), node("download").build()])
        .build();
    node("media_conn")
        .attr("auth", "simauth")
        .attr("ttl", 3600)
        .attr("auth_ttl", 21_600)
        .attr("max_buckets", 12)
        .children([host])
        .build()
}

/// The client logs a companion out, itself as a rule.
fn log_out(caller: &Caller, query: &Query<'_>) -> Answer {
    let device = query.child.and_then(|c| jid(c, "jid")).map_or(caller.device, |j| j.device);
    caller.send(result(query.stanza, Vec::new()));
    login::remove_device(&caller.world, &caller.account, device);
    Answer::Sent
}

/// The text of a child, as names and descriptions are sent.
pub(crate) fn text_of(n: &Node) -> String {
    String::from_utf8_lossy(&bytes(n)).into_owned()
}
