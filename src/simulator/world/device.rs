//! A linked device: its keys, its connection, and the stanzas it has not acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use wacore_binary::Node;
use waproto::whatsapp as wa;

use crate::node::{attr, children, holding, node, server};

/// What a connection's writer is told.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Stanza(Node),
    /// Close the connection after what was sent before.
    Close,
    /// Let the connection fall, without a closing word.
    Drop,
}

pub(crate) type Outbox = UnboundedSender<Outgoing>;

/// A device's connection. The number tells it from the device's earlier and later ones.
pub(crate) struct Link {
    pub connection: u64,
    pub outbox: Outbox,
}

#[derive(Clone)]
pub(crate) struct SignedPrekey {
    pub id: u32,
    pub key: [u8; 32],
    pub signature: Vec<u8>,
}

/// A stanza that was written to the socket and not yet acknowledged.
struct Unacknowledged {
    class: &'static str,
    id: String,
    stanza: Node,
}

pub(crate) struct Device {
    pub id: u16,
    pub key_index: u32,
    pub identity: [u8; 32],
    /// The static Noise key seen at pairing; a login must show the same.
    pub noise: [u8; 32],
    pub registration: u32,
    pub signed_prekey: SignedPrekey,
    pub prekeys: VecDeque<(u32, [u8; 32])>,
    /// Signed by the phone and by the device; part of its key bundle.
    pub signed_identity: wa::ADVSignedDeviceIdentity,
    pub link: Option<Link>,
    /// Live stanzas flow: the backlog of this login was delivered.
    pub active: bool,
    /// How often the client has asked for a batch of its backlog in this login. One that never asks is sent all.
    pub pulls: u64,
    /// The phone has shared the app-state key with it.
    pub key_shared: bool,
    queue: VecDeque<Node>,
    unacknowledged: VecDeque<Unacknowledged>,
    /// Chat states for an offline device, with their end of life.
    fleeting: Vec<(Instant, Node)>,
}

impl Device {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: u16,
        key_index: u32,
        identity: [u8; 32],
        noise: [u8; 32],
        registration: u32,
        signed_prekey: SignedPrekey,
        signed_identity: wa::ADVSignedDeviceIdentity,
    ) -> Self {
        Self {
            id,
            key_index,
            identity,
            noise,
            registration,
            signed_prekey,
            prekeys: VecDeque::new(),
            signed_identity,
            link: None,
            active: false,
            pulls: 0,
            key_shared: false,
            queue: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            fleeting: Vec::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(|l| !l.outbox.is_closed())
    }

    pub fn waiting(&self) -> &VecDeque<Node> {
        &self.queue
    }

    /// Ids of the messages that the client has not acknowledged, sent or not.
    pub fn unacknowledged_messages(&self) -> impl Iterator<Item = String> {
        let sent = self.unacknowledged.iter().filter(|u| u.class == "message").map(|u| u.id.clone());
        let waiting =
            self.queue.iter().filter(|stanza| stanza.tag.as_ref() == "message").filter_map(|stanza| attr(stanza, "id"));
        sent.chain(waiting)
    }

    /// Sends if connected; nothing is kept.
    pub fn send(&self, stanza: Node) -> bool {
        self.link.as_ref().is_some_and(|l| l.outbox.send(Outgoing::Stanza(stanza)).is_ok())
    }

    /// Sends now and keeps until acknowledged, or queues.
    pub fn deliver(&mut self, stanza: Node) {
        if !(self.active && self.is_connected()) {
            self.queue.push_back(stanza);
            return;
        }
        self.track(&stanza);
        self.send(stanza);
    }

    /// A chat state: sent if the device is there, else kept until it is, for a while.
    pub fn deliver_fleeting(&mut self, stanza: Node, life: Duration) {
        if self.active && self.is_connected() {
            self.send(stanza);
        } else {
            let now = Instant::now();
            self.fleeting.retain(|(end, _)| *end > now);
            self.fleeting.push((now + life, stanza));
        }
    }

    /// Forgets a stanza that the client acknowledged. Acks mostly come in order, so the search is short.
    pub fn acknowledged(&mut self, class: &str, id: &str) {
        if let Some(at) = self.unacknowledged.iter().position(|u| u.class == class && u.id == id) {
            self.unacknowledged.remove(at);
        }
    }

    /// Takes over a new connection; the old one, if any, is handed out.
    pub fn connected(&mut self, link: Link) -> Option<Link> {
        let old = self.link.replace(link);
        self.requeue();
        old
    }

    /// The connection is gone: what it did not acknowledge waits for the next one, before what came since.
    pub fn disconnected(&mut self) {
        self.link = None;
        self.requeue();
    }

    fn requeue(&mut self) {
        self.active = false;
        self.pulls = 0;
        for u in std::mem::take(&mut self.unacknowledged).into_iter().rev() {
            self.queue.push_front(u.stanza);
        }
    }

    /// Sends the next `count` stanzas of the backlog; after the last one the device is live.
    pub fn flush(&mut self, count: usize) {
        if self.active || !self.is_connected() {
            return;
        }
        let count = count.min(self.queue.len());
        for n in 0..count {
            let Some(mut stanza) = self.queue.pop_front() else { break };
            self.track(&stanza);
            stanza.attrs.insert("offline", (n % 10).to_string());
            self.send(stanza);
        }
        if self.queue.is_empty() {
            self.active = true;
            let now = Instant::now();
            for (end, stanza) in std::mem::take(&mut self.fleeting) {
                if end > now {
                    self.send(stanza);
                }
            }
            let end =
                node("ib").attr("from", server()).children([node("offline").attr("count", count).build()]).build();
            self.send(end);
        }
    }

    /// Sends what the phone left for a device that is logging in, ahead of the backlog's end.
    pub fn send_waiting(&mut self) {
        while let Some(stanza) = self.queue.pop_front() {
            self.track(&stanza);
            self.send(stanza);
        }
    }

    fn track(&mut self, stanza: &Node) {
        let class = match stanza.tag.as_ref() {
            "message" => "message",
            "receipt" => "receipt",
            "notification" => "notification",
            _ => return,
        };
        if let Some(id) = attr(stanza, "id") {
            self.unacknowledged.push_back(Unacknowledged { class, id, stanza: stanza.clone() });
        }
    }
}

/// `<stream:error>` with a conflict, by which a connection is told that it is not wanted.
pub(crate) fn conflict(code: Option<u16>, kind: &'static str) -> Node {
    let children = [node("conflict").attr("type", kind).build()];
    match code {
        Some(code) => node("stream:error").attr("code", code).children(children).build(),
        None => holding("stream:error", children),
    }
}

/// Ids of a receipt or ack: its own and those of its list.
pub(crate) fn ids_of(stanza: &Node) -> Vec<String> {
    let listed = stanza.get_optional_child("list").map(children).unwrap_or(&[]);
    attr(stanza, "id").into_iter().chain(listed.iter().filter_map(|item| attr(item, "id"))).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn device() -> Device {
        let prekey = SignedPrekey { id: 1, key: [0; 32], signature: vec![] };
        Device::new(1, 1, [0; 32], [0; 32], 1, prekey, Default::default())
    }

    fn connect(device: &mut Device) -> UnboundedReceiver<Outgoing> {
        let (outbox, sent) = unbounded_channel();
        device.connected(Link { connection: 1, outbox });
        sent
    }

    fn message(id: &str) -> Node {
        node("message").attr("id", id.to_owned()).build()
    }

    /// Ids of messages sent, and the tags of the rest.
    fn sent(from: &mut UnboundedReceiver<Outgoing>) -> Vec<String> {
        let mut out = Vec::new();
        while let Ok(Outgoing::Stanza(stanza)) = from.try_recv() {
            out.push(attr(&stanza, "id").unwrap_or_else(|| stanza.tag.to_string()));
        }
        out
    }

    #[test]
    fn a_backlog_comes_in_batches_and_in_order() {
        let mut d = device();
        for id in ["1", "2", "3"] {
            d.deliver(message(id));
        }
        let mut live = connect(&mut d);
        d.flush(2);
        assert_eq!(sent(&mut live), ["1", "2"]);
        d.deliver(message("4"));
        assert!(sent(&mut live).is_empty(), "nothing overtakes the backlog");
        d.flush(100);
        assert_eq!(sent(&mut live), ["3", "4", "ib"]);
        d.deliver(message("5"));
        assert_eq!(sent(&mut live), ["5"]);
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_before_what_is_new() {
        let mut d = device();
        let mut live = connect(&mut d);
        d.flush(0);
        for id in ["1", "2", "3"] {
            d.deliver(message(id));
        }
        d.acknowledged("message", "2");
        d.acknowledged("receipt", "1");
        d.disconnected();
        d.deliver(message("4"));
        assert_eq!(sent(&mut live), ["ib", "1", "2", "3"]);
        let mut live = connect(&mut d);
        d.flush(usize::MAX);
        assert_eq!(sent(&mut live), ["1", "3", "4", "ib"]);
        d.deliver(message("5"));
        let mut newer = connect(&mut d);
        d.flush(usize::MAX);
        assert_eq!(sent(&mut newer), ["1", "3", "4", "5", "ib"]);
    }

    #[test]
    fn a_connection_that_ended_swallows_nothing() {
        let mut d = device();
        let live = connect(&mut d);
        d.flush(0);
        drop(live);
        d.deliver(message("1"));
        let mut live = connect(&mut d);
        d.flush(usize::MAX);
        assert_eq!(sent(&mut live), ["1", "ib"]);
    }

    #[test]
    fn a_chat_state_waits_for_a_while_only() {
        let mut d = device();
        d.deliver_fleeting(node("chatstate").build(), Duration::ZERO);
        d.deliver_fleeting(node("chatstate").attr("id", "fresh").build(), Duration::from_secs(60));
        let mut live = connect(&mut d);
        d.flush(0);
        let sent = sent(&mut live);
        assert!(sent.contains(&"fresh".to_owned()) && !sent.contains(&"chatstate".to_owned()), "{sent:?}");
    }
}
