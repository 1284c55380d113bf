//! The client's messages → events, pure: a file per kind. Nothing is dropped except the library's own housekeeping.

mod context;
mod data;
mod edits;
mod identity;
mod media;
mod other;
mod places;
mod polls;
mod reactions;
#[cfg(test)]
mod tests;
mod text;
mod unwrap;

pub use crate::people::Known;
pub(crate) use data::Data;
pub(crate) use identity::{millis, people};
pub(crate) use polls::vote_of;

use identity::Head;
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::message::MessageInfo;
use waproto::whatsapp as wa;

/// What the pure conversion cannot find out for itself.
#[derive(Debug, Default)]
pub struct Extras {
    /// SHA-256 of each option that a poll vote names, where it could be decrypted.
    pub poll_vote: Option<Vec<Vec<u8>>>,
}

/// What one kind of message says, in the keys of the wire contract.
#[derive(Debug, Default)]
struct Body {
    message_type: &'static str,
    text: Option<String>,
    caption: Option<String>,
    file_name: Option<String>,
    mime_type: Option<String>,
    file_size: Option<u64>,
    place: Option<places::Place>,
    voice_note: bool,
    media: Option<Data>,
    /// Members of this kind alone.
    extra: Data,
}

/// The event of a message; `None` for the library's own messages (keys, history, peer data) and for key distributions
/// that carry nothing else.
pub fn convert(message: &wa::Message, info: &MessageInfo, known: &Known, extras: &Extras) -> Option<NewEvent> {
    let opened = unwrap::open(message);
    let (whole, message) = (message, opened.message);
    let head = Head::new(info, known);

    let (kind, data) = if let Some(protocol) = message.protocol_message.as_option() {
        match edits::read(protocol, info, &head)? {
            edits::Protocol::Event(kind, data) => (kind, data),
            edits::Protocol::Unknown(body) => (EventKind::Message, head.message(info, body, None, opened.view_once)),
        }
    } else if let Some(reaction) = message.reaction_message.as_option() {
        (EventKind::Reaction, reactions::data(reaction, &head))
    } else if let Some(update) = message.poll_update_message.as_option() {
        (EventKind::PollVote, polls::vote(update, extras.poll_vote.as_deref(), &head))
    } else {
        let body = body(message)?;
        (EventKind::Message, head.message(info, body, context::info(message), opened.view_once))
    };

    let mut event = NewEvent::new(kind, head.chat.clone(), head.at, data.into_value());
    event.dedupe_key = Some(dedupe_key(info));
    event.message_id = Some(info.id.clone());
    event.raw = Some(waproto::codec::message_to_vec(whole));
    Some(event)
}

/// What the server itself says of a message, so that a redelivery has the same key whatever was learnt in between.
fn dedupe_key(info: &MessageInfo) -> String {
    format!("m|{}|{}|{}", crate::people::bare(&info.source.chat), crate::people::bare(&info.source.sender), info.id)
}

fn body(message: &wa::Message) -> Option<Body> {
    text::read(message)
        .or_else(|| media::read(message))
        .or_else(|| places::read(message))
        .or_else(|| polls::read(message))
        .or_else(|| other::contacts(message))
        .or_else(|| other::unknown(message))
}

/// The event of a message that nobody can read.
pub(crate) fn undecryptable(event: &wacore::types::events::UndecryptableMessage, known: &Known) -> NewEvent {
    use wacore::types::events::DecryptFailMode;
    let info = &event.info;
    let head = Head::new(info, known);
    let mut data = Data::default();
    data.put("message_id", info.id.as_str());
    data.put("chat", head.chat.as_str());
    data.put("from", head.from.as_str());
    data.put("sender", &head.sender);
    data.put("is_group", head.is_group);
    data.put("timestamp", head.at.secs());
    let reason = match (event.is_unavailable, event.unavailable_type) {
        (true, wacore::types::events::UnavailableType::ViewOnce) => "view-once",
        (true, wacore::types::events::UnavailableType::Hosted) => "hosted",
        (true, wacore::types::events::UnavailableType::Bot) => "bot",
        (true, wacore::types::events::UnavailableType::Unknown) => "unavailable",
        (false, _) => "decryption-failed",
    };
    data.put("reason", reason);
    if event.decrypt_fail_mode == DecryptFailMode::Hide {
        data.put("hidden", true);
    }
    let mut new = NewEvent::new(EventKind::Undecryptable, head.chat.clone(), head.at, data.into_value());
    new.dedupe_key = Some(format!(
        "u|{}|{}|{}",
        crate::people::bare(&info.source.chat),
        crate::people::bare(&info.source.sender),
        info.id
    ));
    new.message_id = Some(info.id.clone());
    new
}

/// The time of a message in our clock's unit.
fn at(info: &MessageInfo) -> Timestamp {
    millis(&info.timestamp)
}
