//! Content → protobuf, pure: a file per kind.

mod text;

use buffa::MessageField;
use kero_domain::Content;
use waproto::whatsapp as wa;

/// The protobuf of a send, to be frozen with its first intent: later attempts send these bytes again.
///
/// The message secret is drawn here, because the client would draw another one at every attempt, and one message id
/// must never carry two contents.
pub fn encode(content: &Content) -> Vec<u8> {
    let mut message = message(content);
    let mut context = message.message_context_info.take().unwrap_or_default();
    context.message_secret.get_or_insert_with(|| rand::random::<[u8; 32]>().to_vec());
    message.message_context_info = MessageField::some(context);
    waproto::codec::message_to_vec(&message)
}

pub(crate) fn message(content: &Content) -> wa::Message {
    match content {
        Content::Text(text) => text::message(text),
    }
}
