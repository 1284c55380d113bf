//! Online, offline, typing, recording.

use crate::inbound::{Data, Known, millis};
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::events::Event;
use wacore::types::presence::{ChatPresence, ChatPresenceMedia};

pub(super) fn read(event: &Event, known: &Known) -> Option<NewEvent> {
    let mut data = Data::default();
    let chat = match event {
        Event::ChatPresence(update) => {
            let chat = known.canonical(&update.source.chat);
            data.put("from", chat.as_str());
            data.put("state", if update.state == ChatPresence::Composing { "composing" } else { "paused" });
            data.put("media", if update.media == ChatPresenceMedia::Audio { "audio" } else { "" });
            data.put("chat", chat.as_str());
            data.put("sender", &known.identity(&update.source.sender));
            chat
        }
        Event::Presence(update) => {
            let chat = known.canonical(&update.from);
            data.put("from", chat.as_str());
            data.put("state", if update.unavailable { "unavailable" } else { "available" });
            data.put("media", "");
            data.put("chat", chat.as_str());
            data.put("sender", &known.identity(&update.from));
            data.put_some("last_seen", update.last_seen.as_ref().map(|seen| millis(seen).secs()));
            chat
        }
        _ => return None,
    };
    Some(NewEvent::new(EventKind::Presence, chat, Timestamp::now(), data.into_value()))
}
