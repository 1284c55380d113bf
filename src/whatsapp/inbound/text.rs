//! Plain text, with or without a link preview.

use super::Body;
use waproto::whatsapp as wa;

pub(super) fn read(message: &wa::Message) -> Option<Body> {
    let text = match (&message.conversation, message.extended_text_message.as_option()) {
        (Some(text), _) if !text.is_empty() => text.clone(),
        (_, Some(extended)) => extended.text.clone().unwrap_or_default(),
        _ => return None,
    };
    Some(Body { message_type: "text", text: Some(text), ..Body::default() })
}
