//! The ledger: one line for each message stanza that the server accepted. What tests count with.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::prelude::*;
use serde::Serialize;
use tokio::sync::Notify;
use wacore::libsignal::protocol::{PreKeySignalMessage, SenderKeyMessage, SignalMessage};
use wacore_binary::{Jid, Node};

use crate::node::{attr, bytes, children, jid, now_ms};
use crate::world::lock;

/// An accepted message stanza.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerLine {
    /// Unix milliseconds.
    pub at: u64,
    /// The sender's phone number.
    pub from: String,
    /// The stanza's `to`: a person, a group, a newsletter, or a device when a message is sent again for it.
    pub to: String,
    pub id: String,
    /// The sending device.
    pub device: u16,
    /// Whether this repeats an earlier message for one device that asked for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
    /// `peer` for messages among one account's own devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// SHA-256 (hex) of the unpadded message protobuf, once a simulated phone has decrypted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext_sha256: Option<String>,
    /// The Signal messages inside, from which a counter used twice can be told.
    pub messages: Vec<Sealed>,
}

/// One Signal message of a stanza. The pair (ratchet key, counter) must never come twice from one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// The device it is for; the group for a sender-key message.
    pub to_device: String,
    /// `pkmsg`, `msg` or `skmsg`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The sender's ratchet key (base64); for `skmsg` the chain id.
    pub ratchet_key_b64: String,
    pub counter: u32,
}

#[derive(Default)]
struct Lines {
    all: Vec<LedgerLine>,
    /// By (sender, device, id): the last line, for the plaintext that is known later.
    index: HashMap<(String, u16, String), usize>,
    /// Every line written or completed, in order: a waiter looks at each change once.
    changes: Vec<usize>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    lines: Mutex<Lines>,
    changed: Notify,
}

impl Ledger {
    /// Writes the line of an accepted stanza.
    pub fn record(&self, from: &str, device: u16, to: &Jid, id: &str, stanza: &Node) {
        let line = LedgerLine {
            at: now_ms(),
            from: from.to_owned(),
            to: to.to_string(),
            id: id.to_owned(),
            device,
            retry: children(stanza).iter().any(|c| c.tag == "enc" && c.attrs.contains_key("count")),
            category: attr(stanza, "category"),
            plaintext_sha256: None,
            messages: sealed_messages(to, stanza),
        };
        let mut lines = lock(&self.lines);
        let at = lines.all.len();
        lines.index.insert((line.from.clone(), device, line.id.clone()), at);
        lines.all.push(line);
        lines.changes.push(at);
        drop(lines);
        self.changed.notify_waiters();
    }

    /// Adds what a phone decrypted; the first hash stays.
    pub fn decrypted(&self, from: &str, device: u16, id: &str, sha256: String) {
        let mut lines = lock(&self.lines);
        let Some(&at) = lines.index.get(&(from.to_owned(), device, id.to_owned())) else { return };
        if let Some(line) = lines.all.get_mut(at)
            && line.plaintext_sha256.is_none()
        {
            line.plaintext_sha256 = Some(sha256);
            lines.changes.push(at);
            drop(lines);
            self.changed.notify_waiters();
        }
    }

    pub fn all(&self) -> Vec<LedgerLine> {
        lock(&self.lines).all.clone()
    }

    /// JSON, one line each.
    pub fn to_json_lines(&self) -> String {
        let lines = lock(&self.lines);
        let mut out = String::with_capacity(lines.all.len() * 200);
        for line in &lines.all {
            if let Ok(json) = serde_json::to_string(line) {
                out.push_str(&json);
                out.push('\n');
            }
        }
        out
    }

    /// The first line, old or new, that `wanted` accepts.
    pub async fn wait_for(&self, wanted: impl Fn(&LedgerLine) -> bool, timeout: Duration) -> Option<LedgerLine> {
        tokio::time::timeout(timeout, async {
            let mut seen = 0;
            loop {
                // Registered before looking, so that a line written in between wakes us.
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let lines = lock(&self.lines);
                    let fresh = lines.changes.get(seen..).unwrap_or(&[]);
                    if let Some(line) = fresh.iter().filter_map(|&at| lines.all.get(at)).find(|l| wanted(l)) {
                        return line.clone();
                    }
                    seen = lines.changes.len();
                }
                changed.await;
            }
        })
        .await
        .ok()
    }
}

fn sealed_messages(to: &Jid, stanza: &Node) -> Vec<Sealed> {
    let mut out = Vec::new();
    if let Some(participants) = stanza.get_optional_child("participants") {
        for recipient in participants.get_children_by_tag("to") {
            let device = jid(recipient, "jid").map(|j| j.to_string()).unwrap_or_default();
            out.extend(recipient.get_children_by_tag("enc").filter_map(|e| sealed(&device, e)));
        }
    }
    out.extend(stanza.get_children_by_tag("enc").filter_map(|e| sealed(&to.to_string(), e)));
    out
}

fn sealed(to_device: &str, enc: &Node) -> Option<Sealed> {
    let kind = attr(enc, "type")?;
    let body = bytes(enc);
    let of = |m: &SignalMessage| (m.sender_ratchet_key().public_key_bytes().to_vec(), m.counter());
    let (key, counter) = match kind.as_str() {
        "pkmsg" => of(PreKeySignalMessage::try_from(body.as_slice()).ok()?.message()),
        "msg" => of(&SignalMessage::try_from(body.as_slice()).ok()?),
        "skmsg" => {
            let m = SenderKeyMessage::try_from(body.as_slice()).ok()?;
            (m.chain_id().to_be_bytes().to_vec(), m.iteration())
        }
        _ => return None,
    };
    Some(Sealed { to_device: to_device.to_owned(), kind, ratchet_key_b64: BASE64_STANDARD.encode(key), counter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::node;

    #[tokio::test]
    async fn lines_are_waited_for_and_completed() {
        let ledger = std::sync::Arc::new(Ledger::default());
        let waiting = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.wait_for(|l| l.plaintext_sha256.is_some(), Duration::from_secs(5)).await }
        });
        let stanza = node("message").build();
        ledger.record("1", 3, &Jid::pn("2"), "A", &stanza);
        ledger.decrypted("1", 3, "A", "first".into());
        ledger.decrypted("1", 3, "A", "second".into());
        ledger.decrypted("1", 4, "A", "another device".into());
        let line = waiting.await.unwrap().unwrap();
        assert_eq!((line.from.as_str(), line.device, line.to.as_str()), ("1", 3, "2@s.whatsapp.net"));
        assert_eq!(line.plaintext_sha256.as_deref(), Some("first"));
        assert!(ledger.wait_for(|l| l.id == "B", Duration::from_millis(10)).await.is_none());
        assert_eq!(ledger.to_json_lines().lines().count(), 1);
    }
}
