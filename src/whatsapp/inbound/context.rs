//! What a message refers to: the quoted message, mentions, forwarding.

use super::{Data, unwrap};
use crate::people::Known;
use waproto::whatsapp as wa;

/// The context that a message carries, whatever its kind.
pub(super) fn info(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! kinds {
        ($($field:ident),+ $(,)?) => {
            $(if let Some(inner) = message.$field.as_option() { return inner.context_info.as_option(); })+
        };
    }
    kinds!(
        extended_text_message,
        image_message,
        video_message,
        ptv_message,
        audio_message,
        document_message,
        sticker_message,
        location_message,
        live_location_message,
        contact_message,
        contacts_array_message,
        poll_creation_message,
        poll_creation_message_v2,
        poll_creation_message_v3,
        poll_creation_message_v5,
        poll_creation_message_v6,
        event_message,
        group_invite_message,
        product_message,
        order_message,
        list_message,
        list_response_message,
        buttons_message,
        buttons_response_message,
        interactive_message,
        interactive_response_message,
        template_message,
        template_button_reply_message,
        album_message,
        sticker_pack_message,
        call,
    );
    None
}

pub(super) fn put(data: &mut Data, context: Option<&wa::ContextInfo>, known: &Known) {
    let Some(context) = context else { return };
    if let Some(id) = context.stanza_id.as_deref().filter(|id| !id.is_empty()) {
        let mut quoted = Data::default();
        quoted.put("message_id", id);
        quoted.put_some(
            "sender",
            context.participant.as_deref().filter(|it| !it.is_empty()).map(|it| known.canonical_text(it)),
        );
        quoted.put_some("text", context.quoted_message.as_option().and_then(quoted_text));
        data.put("quoted", quoted);
    }
    if !context.mentioned_jid.is_empty() {
        data.put("mentions", context.mentioned_jid.iter().map(|jid| known.canonical_text(jid)).collect::<Vec<_>>());
    }
    if context.is_forwarded == Some(true) {
        data.put("forwarded", true);
    }
}

fn quoted_text(message: &wa::Message) -> Option<String> {
    let body = super::body(unwrap::open(message).message)?;
    body.text.or(body.caption).filter(|text| !text.is_empty())
}
