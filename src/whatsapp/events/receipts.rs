//! Receipts: who got, read or played which messages.

use crate::hook::Converter;
use crate::inbound::{Data, Known, millis};
use kero_domain::address::Identity;
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::events::Receipt;
use wacore::types::presence::ReceiptType;
use whatsapp_rust::Client;

/// A receipt for messages of this account.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceiptIn {
    pub ids: Vec<String>,
    /// The chat's JID: the phone's when known.
    pub chat: String,
    pub from: Identity,
    /// `delivered`, `read`, `read-self`, `played`, … (WhatsApp's words; an empty one and `inactive` are `delivered`).
    pub kind: String,
    pub at: Timestamp,
}

/// `None` for the client's own receipts: retries, peer data, history.
pub(super) async fn read(receipt: &Receipt, client: &Client, converter: &Converter) -> Option<ReceiptIn> {
    let kind = word(&receipt.r#type)?;
    let source = &receipt.source;
    let mut known = Known::default();
    if let Some(alt) = &source.sender_alt {
        known.learn(&source.sender, alt);
    }
    converter.people(client, &mut known, &[&source.sender, &source.chat]).await;
    Some(ReceiptIn {
        ids: receipt.message_ids.clone(),
        chat: known.canonical(&source.chat),
        from: known.identity(&source.sender),
        kind,
        at: millis(&receipt.timestamp),
    })
}

fn word(kind: &ReceiptType) -> Option<String> {
    Some(match kind {
        ReceiptType::Delivered | ReceiptType::Inactive => "delivered".to_owned(),
        ReceiptType::Retry | ReceiptType::EncRekeyRetry | ReceiptType::PeerMsg | ReceiptType::HistorySync => {
            return None;
        }
        other => other.as_wire_str().to_owned(),
    })
}

/// The event of a receipt.
pub fn receipt_event(receipt: &ReceiptIn) -> NewEvent {
    let phone = receipt.from.phone.as_ref().map(|phone| format!("{phone}@s.whatsapp.net"));
    let from = phone
        .or_else(|| receipt.from.lid.clone())
        .or_else(|| receipt.from.jid.clone())
        .unwrap_or_else(|| receipt.chat.clone());
    let mut data = Data::default();
    data.put("message_id", receipt.ids.first().map_or("", String::as_str));
    data.put("ids", receipt.ids.clone());
    data.put("from", from);
    data.put("chat", receipt.chat.as_str());
    data.put("sender", &receipt.from);
    data.put("type", receipt.kind.as_str());
    data.put("timestamp", receipt.at.secs());
    let mut event = NewEvent::new(EventKind::Receipt, receipt.chat.clone(), receipt.at, data.into_value());
    event.message_id = receipt.ids.first().cloned();
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_receipt_names_its_messages() {
        let event = receipt_event(&ReceiptIn {
            ids: vec!["3EB0A".into(), "3EB0B".into()],
            chat: "491701234567@s.whatsapp.net".into(),
            from: Identity {
                phone: Some("491701234567".into()),
                lid: Some("1000@lid".into()),
                jid: Some("1000:2@lid".into()),
            },
            kind: "read".into(),
            at: Timestamp::from_secs(1_735_000_000),
        });
        assert_eq!(event.kind, EventKind::Receipt);
        assert_eq!(event.order_key, "491701234567@s.whatsapp.net");
        assert_eq!(event.message_id.as_deref(), Some("3EB0A"));
        assert_eq!(
            event.data,
            json!({
                "message_id": "3EB0A", "ids": ["3EB0A", "3EB0B"], "from": "491701234567@s.whatsapp.net",
                "chat": "491701234567@s.whatsapp.net",
                "sender": {"phone": "491701234567", "lid": "1000@lid", "jid": "1000:2@lid"},
                "type": "read", "timestamp": 1_735_000_000
            })
        );
    }

    #[test]
    fn a_lid_alone_stays_a_lid() {
        let event = receipt_event(&ReceiptIn {
            ids: vec![],
            chat: "1000@lid".into(),
            from: Identity { phone: None, lid: Some("1000@lid".into()), jid: Some("1000@lid".into()) },
            kind: "delivered".into(),
            at: Timestamp::from_secs(1),
        });
        assert_eq!(event.data["from"], "1000@lid");
        assert_eq!(event.data["sender"], json!({"lid": "1000@lid", "jid": "1000@lid"}));
    }

    #[test]
    fn words_are_whatsapps_and_housekeeping_is_silent() {
        assert_eq!(word(&ReceiptType::parse("")).as_deref(), Some("delivered"));
        assert_eq!(word(&ReceiptType::parse("inactive")).as_deref(), Some("delivered"));
        assert_eq!(word(&ReceiptType::parse("read-self")).as_deref(), Some("read-self"));
        assert_eq!(word(&ReceiptType::parse("something-new")).as_deref(), Some("something-new"));
        for quiet in ["retry", "peer_msg", "hist_sync", "enc_rekey_retry"] {
            assert_eq!(word(&ReceiptType::parse(quiet)), None, "{quiet}");
        }
    }
}
