//! Chats, labels and channels, as this account's other devices changed them.

use crate::inbound::{Data, Known, millis};
use kero_domain::{EventKind, NewEvent, Timestamp};
use serde_json::Value;
use wacore::types::events::Event;

pub(super) fn read(event: &Event, known: &Known) -> Option<NewEvent> {
    let mut data = Data::default();
    let (kind, jid, at) = match event {
        Event::PinUpdate(it) => {
            data.put("change", "pin");
            data.put("pinned", it.action.pinned.unwrap_or_default());
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::MuteUpdate(it) => {
            data.put("change", "mute");
            data.put("muted", it.action.muted.unwrap_or_default());
            data.put_some("until_ms", it.action.mute_end_timestamp);
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::ArchiveUpdate(it) => {
            data.put("change", "archive");
            data.put("archived", it.action.archived.unwrap_or_default());
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::StarUpdate(it) => {
            data.put("change", "star");
            data.put("target_message_id", it.message_id.as_str());
            data.put("starred", it.action.starred.unwrap_or_default());
            (EventKind::Chat, &it.chat_jid, &it.timestamp)
        }
        Event::MarkChatAsReadUpdate(it) => {
            data.put("change", "read");
            data.put("read", it.action.read.unwrap_or_default());
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::DeleteChatUpdate(it) => {
            data.put("change", "delete");
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::ClearChatUpdate(it) => {
            data.put("change", "clear");
            (EventKind::Chat, &it.jid, &it.timestamp)
        }
        Event::DeleteMessageForMeUpdate(it) => {
            data.put("change", "delete_message_for_me");
            data.put("target_message_id", it.message_id.as_str());
            (EventKind::Chat, &it.chat_jid, &it.timestamp)
        }
        Event::DisappearingModeChanged(it) => {
            data.put("change", "disappearing_mode");
            data.put("duration", it.duration);
            (EventKind::Chat, &it.from, &it.setting_timestamp)
        }
        Event::LabelAssociationUpdate(it) => {
            data.put("label_id", it.label_id.as_str());
            data.put("change", "assignment");
            data.put("labeled", it.action.labeled.unwrap_or_default());
            (EventKind::Label, &it.chat_jid, &it.timestamp)
        }
        Event::LabelEditUpdate(it) => {
            data.put("label_id", it.label_id.as_str());
            data.put("change", "label");
            data.put_text("name", it.action.name.as_deref());
            data.put_some("color", it.action.color);
            data.put("deleted", it.action.deleted.unwrap_or_default());
            return Some(NewEvent::new(EventKind::Label, "", millis(&it.timestamp), data.into_value()));
        }
        Event::NewsletterLiveUpdate(it) => {
            let chat = it.newsletter_jid.to_string();
            data.put("chat", chat.as_str());
            data.put("change", "reactions");
            let messages: Vec<Value> = it
                .messages
                .iter()
                .map(|message| {
                    let reactions: Vec<Value> = message
                        .reactions
                        .iter()
                        .map(|it| serde_json::json!({"emoji": it.code, "count": it.count}))
                        .collect();
                    serde_json::json!({"server_id": message.server_id, "reactions": reactions})
                })
                .collect();
            data.put("messages", messages);
            return Some(NewEvent::new(EventKind::Newsletter, chat, Timestamp::now(), data.into_value()));
        }
        _ => return None,
    };
    let chat = known.canonical(jid);
    let at = millis(at);
    let mut whole = Data::default();
    whole.put("chat", chat.as_str());
    whole.put("timestamp", at.secs());
    whole.append(data);
    Some(NewEvent::new(kind, chat, at, whole.into_value()))
}
