//! Reading and building binary stanzas: thin helpers over `wacore_binary`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeContent, Server};

/// Starts a node with a fixed tag.
pub(crate) fn node(tag: &'static str) -> NodeBuilder {
    NodeBuilder::new(tag)
}

/// A node without attributes that holds `children`.
pub(crate) fn holding(tag: &'static str, children: impl IntoIterator<Item = Node>) -> Node {
    NodeBuilder::new(tag).children(children).build()
}

/// A node without attributes whose content is `bytes`.
pub(crate) fn holding_bytes(tag: &'static str, bytes: impl Into<Vec<u8>>) -> Node {
    NodeBuilder::new(tag).bytes(bytes).build()
}

/// A node without attributes and content.
pub(crate) fn empty(tag: &'static str) -> Node {
    NodeBuilder::new(tag).build()
}

/// The attribute as text.
pub(crate) fn attr(n: &Node, key: &str) -> Option<String> {
    n.attrs.get(key).map(|v| v.as_str().into_owned())
}

/// The attribute as text, which the stanza must have.
pub(crate) fn required(n: &Node, key: &'static str) -> Result<String> {
    attr(n, key).with_context(|| format!("<{}> has no {key}", n.tag))
}

/// Whether the attribute is exactly this text.
pub(crate) fn attr_is(n: &Node, key: &str, value: &str) -> bool {
    n.attrs.get(key).is_some_and(|v| v.as_str() == value)
}

/// The attribute as a number.
pub(crate) fn number<T: std::str::FromStr>(n: &Node, key: &str) -> Option<T> {
    n.attrs.get(key).and_then(|v| v.as_str().parse().ok())
}

/// The attribute as a JID; `None` when it is missing or is none.
pub(crate) fn jid(n: &Node, key: &str) -> Option<Jid> {
    n.attrs.get(key).and_then(|v| v.to_jid())
}

/// The attribute as a JID, which the stanza must have.
pub(crate) fn required_jid(n: &Node, key: &'static str) -> Result<Jid> {
    jid(n, key).with_context(|| format!("<{}> has no JID in {key}", n.tag))
}

/// The content as bytes; text content counts too, children do not.
pub(crate) fn bytes(n: &Node) -> Vec<u8> {
    match &n.content {
        Some(NodeContent::Bytes(b)) => b.clone(),
        Some(NodeContent::String(s)) => s.as_bytes().to_vec(),
        _ => Vec::new(),
    }
}

/// The content as text.
pub(crate) fn text(n: &Node) -> String {
    String::from_utf8_lossy(&bytes(n)).into_owned()
}

/// The children; none for a node that holds bytes or nothing.
pub(crate) fn children(n: &Node) -> &[Node] {
    n.children().unwrap_or(&[])
}

/// The bytes of the child with this tag; empty when there is none.
pub(crate) fn child_bytes(n: &Node, tag: &str) -> Vec<u8> {
    n.get_optional_child(tag).map(bytes).unwrap_or_default()
}

/// Exactly 32 bytes: a Curve25519 key.
pub(crate) fn key32(b: &[u8]) -> Result<[u8; 32]> {
    b.try_into().map_err(|_| anyhow!("want 32 bytes, got {}", b.len()))
}

/// A big-endian number of any length up to four bytes, as prekey ids (3) and registration ids (4) are.
pub(crate) fn big_endian(b: &[u8]) -> u32 {
    b.iter().fold(0, |n, byte| (n << 8) | u32::from(*byte))
}

/// Prekey ids travel as three bytes.
pub(crate) fn id24(id: u32) -> Vec<u8> {
    id.to_be_bytes()[1..].to_vec()
}

/// `s.whatsapp.net`, the server itself.
pub(crate) fn server() -> Jid {
    Jid::new("", Server::Pn)
}

/// Unix seconds.
#[allow(clippy::disallowed_methods, reason = "the simulator reads the clock here only")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Unix milliseconds.
#[allow(clippy::disallowed_methods, reason = "the simulator reads the clock here only")]
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Random bytes for keys, tokens and salts.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    std::array::from_fn(|_| rand::random())
}

/// A message id in the form that phones mint: `3EB0` and 18 hex digits.
pub(crate) fn message_id() -> String {
    format!("3EB0{}", hex(&random::<9>()).to_uppercase())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_travel_big_endian() {
        assert_eq!(big_endian(&[1, 2, 3]), 0x010203);
        assert_eq!(id24(0x010203), vec![1, 2, 3]);
        assert_eq!(big_endian(&id24(0x00ff_ffff)), 0x00ff_ffff);
    }

    #[test]
    fn content_reads_as_bytes_whatever_its_kind() {
        assert_eq!(bytes(&node("a").string_content("x").build()), b"x");
        assert_eq!(bytes(&holding_bytes("a", vec![1])), vec![1]);
        assert!(bytes(&holding("a", [empty("b")])).is_empty());
    }

    #[test]
    fn message_ids_look_like_a_phones() {
        let id = message_id();
        assert!(id.starts_with("3EB0"));
        assert_eq!(id.len(), 22);
        assert_ne!(id, message_id());
    }
}
