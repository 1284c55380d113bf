//! What the client reports → [`LinkEvent`], in the order in which it was reported.

mod calls;
mod chats;
mod contacts;
mod groups;
mod presence;
mod receipts;
mod sink;
mod sync;
#[cfg(test)]
mod tests;

pub use receipts::{ReceiptIn, receipt_event};
pub(crate) use sink::{Raw, Sink};

use crate::hook::Converter;
use crate::inbound::{self, millis};
use crate::people::bare;
use kero_domain::{Cause, NewEvent, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wacore::types::events::Event;
use whatsapp_rust::Client;

/// What a link tells its instance.
#[derive(Debug, Clone)]
pub enum LinkEvent {
    /// A code to show; the next one replaces it.
    PairingQr {
        code: String,
        expires_in: Duration,
    },
    /// To be entered on the phone.
    PairingCode {
        code: String,
        expires_in: Duration,
    },
    /// The last QR code expired; `Closed(PairingTimeout)` follows.
    PairingExhausted,
    /// `Closed(PairingFailed)` follows.
    PairingFailed {
        reason: String,
    },
    /// The phone accepted the QR code.
    Scanned,
    /// Linked; WhatsApp now ends the stream, and the link dials again by itself.
    Paired {
        jid: String,
        phone: Option<String>,
        lid: Option<String>,
        push_name: Option<String>,
    },
    /// Logged in, offline messages taken, able to send.
    Connected {
        jid: String,
        phone: Option<String>,
        lid: Option<String>,
        push_name: Option<String>,
    },
    /// The connection ended, or none came about; the link is over, and another one may be started. Always the last event.
    Disconnected {
        detail: String,
    },
    /// The connection ended for a reason that another attempt meets again. Always the last event.
    Closed(Cause),
    /// The server's answer to a send, by message id alone.
    Ack {
        message_id: String,
        chat: String,
        error: Option<u32>,
        at: Timestamp,
    },
    Receipt(ReceiptIn),
    /// An event that passes no durability hook: it is committed on arrival, best effort.
    Event(NewEvent),
}

/// Translates until told that the connection has ended, then what is left, then returns.
pub(crate) async fn tell(
    client: Arc<Client>,
    converter: Converter,
    mut raw: mpsc::UnboundedReceiver<Raw>,
    out: mpsc::UnboundedSender<LinkEvent>,
    mut ended: oneshot::Receiver<()>,
) {
    let teller = Teller { client, converter, out };
    loop {
        tokio::select! {
            biased;
            next = raw.recv() => match next {
                Some(event) => teller.tell(&event).await,
                None => return,
            },
            _ = &mut ended => break,
        }
    }
    while let Ok(event) = raw.try_recv() {
        teller.tell(&event).await;
    }
}

struct Teller {
    client: Arc<Client>,
    converter: Converter,
    out: mpsc::UnboundedSender<LinkEvent>,
}

impl Teller {
    fn send(&self, event: LinkEvent) {
        // nobody listens any more: the link is being dropped
        let _ = self.out.send(event);
    }

    fn send_some(&self, event: Option<NewEvent>) {
        if let Some(event) = event {
            self.send(LinkEvent::Event(event));
        }
    }

    async fn tell(&self, raw: &Raw) {
        match raw {
            Raw::Qr { code, expires_in } => {
                self.send(LinkEvent::PairingQr { code: code.clone(), expires_in: *expires_in })
            }
            Raw::Failed(reason) => self.send(LinkEvent::PairingFailed { reason: reason.clone() }),
            Raw::Event(event) => self.tell_event(event).await,
        }
    }

    async fn tell_event(&self, event: &Event) {
        match event {
            Event::PairingCode(code) => {
                self.send(LinkEvent::PairingCode { code: code.code.clone(), expires_in: code.timeout })
            }
            Event::PairingQrCodesExhausted(_) => self.send(LinkEvent::PairingExhausted),
            Event::PairSuccess(pair) => {
                self.send(LinkEvent::Scanned);
                let name = Some(pair.business_name.clone()).filter(|name| !name.is_empty());
                self.send(LinkEvent::Paired {
                    jid: pair.id.to_string(),
                    phone: Some(pair.id.user_base().to_owned()),
                    lid: Some(bare(&pair.lid)).filter(|_| pair.lid.is_lid()),
                    push_name: name.or_else(|| self.push_name()),
                });
            }
            Event::Connected(_) => {
                let (pn, lid) = (self.client.pn(), self.client.lid());
                self.send(LinkEvent::Connected {
                    jid: pn.as_ref().or(lid.as_ref()).map(ToString::to_string).unwrap_or_default(),
                    phone: pn.map(|jid| jid.user_base().to_owned()),
                    lid: lid.map(|jid| bare(&jid)),
                    push_name: self.push_name(),
                });
            }
            Event::Messages(batch) => {
                // the hook has committed the others
                for item in batch.iter().filter(|_| !batch.hook_committed) {
                    self.send_some(self.converter.event(&self.client, &item.message, &item.info).await);
                }
            }
            Event::ServerAck(ack) if ack.class.as_deref() == Some("message") => self.send(LinkEvent::Ack {
                message_id: ack.id.clone(),
                chat: ack.from.as_ref().map(bare).unwrap_or_default(),
                error: ack.error.as_deref().map(|code| code.parse().unwrap_or_default()),
                at: ack.timestamp.as_ref().map_or_else(Timestamp::now, millis),
            }),
            Event::Receipt(receipt) => {
                if let Some(receipt) = receipts::read(receipt, &self.client, &self.converter).await {
                    self.send(LinkEvent::Receipt(receipt));
                }
            }
            Event::UndecryptableMessage(it) => {
                let mut known = inbound::people(&it.info);
                self.converter.people(&self.client, &mut known, &[&it.info.source.sender, &it.info.source.chat]).await;
                self.send(LinkEvent::Event(inbound::undecryptable(it, &known)));
            }
            other => self.tell_news(other).await,
        }
    }

    /// Everything about people and chats that is no message.
    async fn tell_news(&self, event: &Event) {
        let mut known = inbound::Known::default();
        for (one, other) in contacts::pairs(event) {
            known.learn(one, other);
        }
        self.converter.people(&self.client, &mut known, &contacts::people(event)).await;
        let news = presence::read(event, &known)
            .or_else(|| calls::read(event, &known))
            .or_else(|| groups::read(event, &known))
            .or_else(|| contacts::read(event, &known))
            .or_else(|| chats::read(event, &known))
            .or_else(|| sync::read(event));
        self.send_some(news);
    }

    fn push_name(&self) -> Option<String> {
        Some(self.client.push_name()).filter(|name| !name.is_empty())
    }
}
