//! Stanzas with an address on a server that does not exist, which some clients send for malformed input. The library
//! cannot decode them, but the client waits for an answer: so the server's name is replaced by that of a server that
//! nobody here is on, and the stanza is refused like any other with a wrong address.

use bytes::Bytes;
use wacore_binary::{Node, OwnedNodeRef};

/// What stands in for a server that does not exist.
const STAND_IN: &[u8] = b"interop";

/// How the decoder reports one; its name follows.
const COMPLAINT: &str = "JID_PAIR unknown server: ";

/// Codes of the wire format: short strings, and strings packed two characters a byte.
const BINARY_8: u8 = 252;
const NIBBLE_8: u8 = 255;
const HEX_8: u8 = 251;

/// The most unknown servers in one stanza.
const MOST: usize = 16;

/// Decodes a stanza, whatever the addresses in it.
pub(crate) fn decode(plain: Vec<u8>) -> anyhow::Result<Node> {
    let mut plain = Bytes::from(plain);
    for _ in 0..MOST {
        let complaint = match OwnedNodeRef::new(plain.clone()) {
            Ok(stanza) => return Ok(stanza.to_owned_node()),
            Err(e) => e.to_string(),
        };
        let unknown = complaint.split_once(COMPLAINT).map(|(_, name)| name);
        match unknown.and_then(|name| without(&plain, name)) {
            Some(replaced) => plain = replaced.into(),
            None => anyhow::bail!("cannot be decoded: {complaint}"),
        }
    }
    anyhow::bail!("too many unknown servers")
}

/// The bytes with one occurrence of the name replaced.
fn without(plain: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut stand_in = vec![BINARY_8, STAND_IN.len() as u8];
    stand_in.extend(STAND_IN);
    for written in [short(name), packed(name, NIBBLE_8, nibble), packed(name, HEX_8, hex)].into_iter().flatten() {
        if let Some(at) = plain.windows(written.len()).position(|w| w == written) {
            return Some([&plain[..at], &stand_in, &plain[at + written.len()..]].concat());
        }
    }
    None
}

fn short(name: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(name.len()).ok().filter(|n| *n > 0)?;
    Some([&[BINARY_8, length], name.as_bytes()].concat())
}

/// Two characters a byte; an odd last one is marked in the length and filled up.
fn packed(name: &str, code: u8, value: fn(u8) -> Option<u8>) -> Option<Vec<u8>> {
    let values: Vec<u8> = name.bytes().map(value).collect::<Option<_>>()?;
    let odd = u8::from(values.len() % 2 == 1) << 7;
    let length = u8::try_from(values.len().div_ceil(2)).ok().filter(|n| (1..128).contains(n))?;
    let bytes = values.chunks(2).map(|pair| (pair[0] << 4) | pair.get(1).copied().unwrap_or(15));
    Some([code, odd | length].into_iter().chain(bytes).collect())
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'-' => Some(10),
        b'.' => Some(11),
        _ => None,
    }
}

fn hex(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{attr, jid, node};

    /// A stanza whose `to` is on the server that `written` says.
    fn stanza(written: &[u8]) -> Vec<u8> {
        const JID_PAIR: u8 = 250;
        let known = [&[BINARY_8, 7][..], b"interop"].concat();
        let sample = node("message").attr("id", "A").attr("to", wacore_binary::Jid::pn("15551234567")).build();
        let mut plain = wacore_binary::marshal(&sample).unwrap();
        plain.remove(0);
        let pair = plain.iter().position(|b| *b == JID_PAIR).unwrap();
        // The pair ends with the one-byte token of the known server.
        plain.truncate(plain.len() - 1);
        assert!(plain.len() > pair);
        assert_ne!(plain, known);
        plain.extend(written);
        plain
    }

    #[test]
    fn unknown_servers_are_stood_in_for_however_they_are_written() {
        let odd = [NIBBLE_8, 0x80 | 2, 0x12, 0x3f];
        let cases = [[&[BINARY_8, 9][..], b"123%40g.u"].concat(), odd.to_vec(), vec![NIBBLE_8, 2, 0x12, 0x34]];
        for written in cases {
            let node = decode(stanza(&written)).unwrap();
            assert_eq!(attr(&node, "id").as_deref(), Some("A"));
            assert_eq!(jid(&node, "to").unwrap().to_string(), "15551234567@interop");
        }
    }

    #[test]
    fn other_damage_is_an_error() {
        assert!(decode(vec![248, 3, 1]).is_err());
    }
}
