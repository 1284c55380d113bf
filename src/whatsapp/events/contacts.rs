//! Contacts: names, pictures, numbers, keys; and which addresses an event names.

use crate::inbound::{Data, Known, millis};
use kero_domain::{EventKind, NewEvent, Timestamp};
use wacore::types::events::Event;
use wacore_binary::{Jid, JidExt as _};

/// Two addresses of one person that the event itself gives.
pub(super) fn pairs(event: &Event) -> Vec<(&Jid, &Jid)> {
    match event {
        Event::ChatPresence(it) => it.source.sender_alt.iter().map(|alt| (&it.source.sender, alt)).collect(),
        Event::GroupUpdate(it) => it.participant.iter().zip(&it.participant_pn).collect(),
        Event::IdentityChange(it) => it.lid_user.iter().map(|lid| (&it.user, lid)).collect(),
        Event::ContactNumberChanged(it) => it.new_lid.iter().map(|lid| (&it.new_jid, lid)).collect(),
        _ => Vec::new(),
    }
}

/// The people whose other addresses are worth looking up.
pub(super) fn people(event: &Event) -> Vec<&Jid> {
    match event {
        Event::ChatPresence(it) => vec![&it.source.sender, &it.source.chat],
        Event::Presence(it) => vec![&it.from],
        Event::IncomingCall(it) => vec![it.action.call_creator()],
        Event::MissedCall(it) => vec![&it.from],
        Event::CallEndedElsewhere(it) => vec![&it.from],
        Event::GroupUpdate(it) => it.participant.iter().collect(),
        Event::PictureUpdate(it) => vec![&it.jid],
        Event::UserAboutUpdate(it) => vec![&it.jid],
        Event::ContactUpdate(it) => vec![&it.jid],
        Event::ContactNumberChanged(it) => vec![&it.new_jid],
        Event::PushNameUpdate(it) => vec![&it.jid],
        Event::IdentityChange(it) => vec![&it.user],
        Event::BusinessStatusUpdate(it) => vec![&it.jid],
        Event::PinUpdate(it) => vec![&it.jid],
        Event::MuteUpdate(it) => vec![&it.jid],
        Event::ArchiveUpdate(it) => vec![&it.jid],
        Event::StarUpdate(it) => vec![&it.chat_jid],
        Event::MarkChatAsReadUpdate(it) => vec![&it.jid],
        Event::DeleteChatUpdate(it) => vec![&it.jid],
        Event::ClearChatUpdate(it) => vec![&it.jid],
        Event::DeleteMessageForMeUpdate(it) => vec![&it.chat_jid],
        Event::DisappearingModeChanged(it) => vec![&it.from],
        Event::LabelAssociationUpdate(it) => vec![&it.chat_jid],
        _ => Vec::new(),
    }
}

pub(super) fn read(event: &Event, known: &Known) -> Option<NewEvent> {
    let mut data = Data::default();
    let (jid, at) = match event {
        Event::PictureUpdate(it) => {
            data.put("change", "picture");
            data.put("removed", it.removed);
            data.put_text("picture_id", it.picture_id.as_deref());
            if it.jid.is_group() {
                return Some(group_picture(it, data, known));
            }
            (&it.jid, millis(&it.timestamp))
        }
        Event::UserAboutUpdate(it) => {
            data.put("change", "about");
            data.put("about", it.status.as_str());
            (&it.jid, millis(&it.timestamp))
        }
        Event::ContactUpdate(it) => {
            data.put("change", "name");
            data.put_text("full_name", it.action.full_name.as_deref());
            data.put_text("first_name", it.action.first_name.as_deref());
            data.put("from_full_sync", it.from_full_sync);
            (&it.jid, millis(&it.timestamp))
        }
        Event::ContactNumberChanged(it) => {
            data.put("change", "number");
            data.put("old", it.old_jid.to_non_ad_string());
            data.put("new", it.new_jid.to_non_ad_string());
            (&it.new_jid, millis(&it.timestamp))
        }
        Event::PushNameUpdate(it) => {
            data.put("change", "push_name");
            data.put("push_name", it.new_push_name.as_str());
            data.put_text("old_push_name", Some(&it.old_push_name));
            (&it.jid, Timestamp::now())
        }
        Event::IdentityChange(it) => {
            data.put("change", "security_code");
            (&it.user, Timestamp::now())
        }
        Event::BusinessStatusUpdate(it) => {
            data.put("change", "business");
            data.put_text("verified_name", it.verified_name.as_deref());
            (&it.jid, millis(&it.timestamp))
        }
        Event::SelfPushNameUpdated(it) => {
            data.put("change", "own_push_name");
            data.put("push_name", it.new_name.as_str());
            return Some(NewEvent::new(EventKind::Contact, "", Timestamp::now(), data.into_value()));
        }
        _ => return None,
    };
    let contact = known.canonical(jid);
    let mut whole = Data::default();
    whole.put("contact", contact.as_str());
    whole.put("identity", &known.identity(jid));
    whole.put("timestamp", at.secs());
    whole.append(data);
    Some(NewEvent::new(EventKind::Contact, contact, at, whole.into_value()))
}

fn group_picture(it: &wacore::types::events::PictureUpdate, change: Data, known: &Known) -> NewEvent {
    let group = it.jid.to_string();
    let at = millis(&it.timestamp);
    let mut data = Data::default();
    data.put("group", group.as_str());
    data.put("action", "picture");
    data.put("timestamp", at.secs());
    if let Some(author) = &it.author {
        data.put("actor", &known.identity(author));
    }
    data.append(change);
    NewEvent::new(EventKind::Group, group, at, data.into_value())
}
