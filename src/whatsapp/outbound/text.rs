//! Plain text.

use kero_domain::content::Text;
use waproto::whatsapp as wa;

pub(super) fn message(text: &Text) -> wa::Message {
    wa::Message { conversation: Some(text.message.clone()), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use crate::outbound::encode;
    use kero_domain::Content;

    #[test]
    fn text_is_a_conversation() {
        // field 1, length 2; then the message's secret
        let encoded = encode(&Content::text("hi"));
        assert_eq!(encoded[..4], [0x0a, 2, b'h', b'i']);
        let decoded = waproto::codec::message_decode(&encoded).unwrap();
        let secret = decoded.message_context_info.as_option().and_then(|context| context.message_secret.clone());
        assert_eq!(secret.map(|secret| secret.len()), Some(32));
    }

    #[test]
    fn text_survives_the_round_trip() {
        let text = "*bold* Grüße 👋🏽\n\u{202e}rtl";
        let decoded = waproto::codec::message_decode(&encode(&Content::text(text))).unwrap();
        assert_eq!(decoded.conversation.as_deref(), Some(text));
    }
}
