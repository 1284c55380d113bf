//! Who and where: the members that every event of a chat begins with.

use super::{Body, Data, at};
use crate::people::{Known, is_lid, is_phone};
use kero_domain::Timestamp;
use kero_domain::address::Identity;
use wacore::types::message::MessageInfo;
use wacore_binary::JidExt as _;
use waproto::whatsapp as wa;

/// What a stanza itself says about who is who.
pub(crate) fn people(info: &MessageInfo) -> Known {
    let source = &info.source;
    let mut known = Known::default();
    if let Some(alt) = &source.sender_alt {
        known.learn(&source.sender, alt);
    }
    if source.is_from_me {
        for alt in [&source.recipient_alt, &info.peer_recipient_pn].into_iter().flatten() {
            known.learn(&source.chat, alt);
        }
    }
    known
}

pub(crate) fn millis(moment: &wacore::chrono::DateTime<wacore::chrono::Utc>) -> Timestamp {
    Timestamp(moment.timestamp_millis())
}

pub(super) struct Head<'a> {
    pub(super) chat: String,
    pub(super) from: String,
    pub(super) sender: Identity,
    pub(super) is_group: bool,
    pub(super) at: Timestamp,
    pub(super) known: &'a Known,
    info: &'a MessageInfo,
}

impl<'a> Head<'a> {
    pub(super) fn new(info: &'a MessageInfo, known: &'a Known) -> Self {
        let source = &info.source;
        Self {
            chat: known.canonical(&source.chat),
            from: known.canonical(&source.sender),
            sender: known.identity(&source.sender),
            is_group: source.is_group || source.chat.is_group(),
            at: at(info),
            known,
            info,
        }
    }

    /// The head of an event about an earlier message: edit, revoke, reaction, poll vote.
    pub(super) fn about(&self, target: Option<&wa::MessageKey>) -> Data {
        let mut data = Data::default();
        data.put("message_id", self.info.id.as_str());
        data.put_text("target_message_id", target.and_then(|key| key.id.as_deref()));
        data.put("chat", self.chat.as_str());
        data.put("is_group", self.is_group);
        data.put("from", self.from.as_str());
        data.put("actor", &self.sender);
        data.put("is_from_me", self.info.source.is_from_me);
        data.put("timestamp", self.at.secs());
        data
    }

    /// Who wrote the message that a key names, from the point of view of the key's sender.
    pub(super) fn target_sender(&self, target: &wa::MessageKey) -> Option<String> {
        if let Some(participant) = target.participant.as_deref().filter(|it| !it.is_empty()) {
            return Some(self.known.canonical_text(participant));
        }
        match target.from_me {
            Some(true) => Some(self.from.clone()),
            // in a private chat whoever did not react to it wrote it: for the peer's reaction that is this account
            Some(false) if !self.is_group && self.info.source.is_from_me => Some(self.chat.clone()),
            _ => None,
        }
    }

    /// `data` of `message`: Kero-Kero's keys in their order, then ours.
    pub(super) fn message(
        &self,
        info: &MessageInfo,
        body: Body,
        context: Option<&wa::ContextInfo>,
        view_once: bool,
    ) -> Data {
        let source = &info.source;
        let mut data = Data::default();
        data.put("message_id", info.id.as_str());
        data.put("from", self.from.as_str());
        data.put("to", self.chat.as_str());
        data.put("is_group", self.is_group);
        data.put("message_type", body.message_type);
        data.append(content(&body));
        data.put("timestamp", self.at.secs());
        data.put("is_from_me", source.is_from_me);
        data.put_text("sender_name", self.sender_name());

        data.put("chat", self.chat.as_str());
        data.put("sender", &self.sender);
        if is_phone(&source.chat) || is_lid(&source.chat) {
            data.put("chat_identity", &self.known.identity(&source.chat));
        }
        super::context::put(&mut data, context, self.known);
        data.put_some("media", body.media);
        if body.voice_note {
            data.put("voice_note", true);
        }
        if view_once {
            data.put("view_once", true);
        }
        if info.server_id != 0 {
            data.put("server_id", i64::from(info.server_id));
        }
        if let Some(request) = &info.unavailable_request_id {
            data.put("recovered_by", request.as_str());
        }
        data.append(body.extra);
        data
    }

    fn sender_name(&self) -> Option<&str> {
        let name = self.info.push_name.as_str();
        if name.is_empty() || name == "-" {
            self.info.verified_name.as_ref().and_then(|it| it.name.as_deref())
        } else {
            Some(name)
        }
    }
}

/// The members that say what was written, shared by messages and edits.
pub(super) fn content(body: &Body) -> Data {
    let mut data = Data::default();
    data.put_text("text", body.text.as_deref());
    data.put_text("caption", body.caption.as_deref());
    data.put_text("file_name", body.file_name.as_deref());
    data.put_text("mime_type", body.mime_type.as_deref());
    data.put_some("file_size", body.file_size);
    if let Some(place) = &body.place {
        place.put(&mut data);
    }
    data
}
