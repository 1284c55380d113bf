//! Content → protobuf, pure: a file per kind.

mod text;

use kero_domain::Content;
use waproto::whatsapp as wa;

/// The protobuf of a send, to be frozen with its first intent: later attempts send these bytes again.
pub fn encode(content: &Content) -> Vec<u8> {
    waproto::codec::message_to_vec(&message(content))
}

pub(crate) fn message(content: &Content) -> wa::Message {
    match content {
        Content::Text(text) => text::message(text),
    }
}
