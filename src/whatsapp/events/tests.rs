//! Golden conversions of what is no message.

use super::{calls, chats, contacts, groups, presence, sync};
use crate::inbound::Known;
use kero_domain::{EventKind, NewEvent};
use serde_json::{Value, json};
use wacore::chrono::{DateTime, Utc};
use wacore::stanza::groups::GroupNotificationAction;
use wacore::types::call::{CallAction, IncomingCall, MissedCall, MissedReason};
use wacore::types::events::{
    ChatPresenceUpdate, ContactNumberChanged, Event, GroupUpdate, IdentityChange, OfflineSyncCompleted, PinUpdate,
    PresenceUpdate, PushNameUpdate,
};
use wacore::types::message::MessageSource;
use wacore::types::presence::{ChatPresence, ChatPresenceMedia};
use wacore_binary::Jid;
use waproto::whatsapp as wa;

const AT: i64 = 1_735_000_000;
const LID: &str = "100000011111111@lid";
const PHONE: &str = "491701234567@s.whatsapp.net";

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(AT, 0).unwrap()
}

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn known() -> Known {
    let mut known = Known::default();
    known.learn(&jid(LID), &jid(PHONE));
    known
}

fn person(address: &str) -> Value {
    json!({"phone": "491701234567", "lid": LID, "jid": address})
}

fn read(event: &Event) -> NewEvent {
    let mut known = known();
    for (one, other) in contacts::pairs(event) {
        known.learn(one, other);
    }
    presence::read(event, &known)
        .or_else(|| calls::read(event, &known))
        .or_else(|| groups::read(event, &known))
        .or_else(|| contacts::read(event, &known))
        .or_else(|| chats::read(event, &known))
        .or_else(|| sync::read(event))
        .expect("an event")
}

#[test]
fn typing_and_recording_are_kero_keros_presence() {
    let source = MessageSource { chat: jid(LID), sender: jid(LID), ..Default::default() };
    let update = ChatPresenceUpdate::builder()
        .source(source)
        .state(ChatPresence::Composing)
        .media(ChatPresenceMedia::Audio)
        .build();
    let event = read(&Event::ChatPresence(update));
    assert_eq!((event.kind, event.order_key.as_str()), (EventKind::Presence, PHONE));
    assert_eq!(
        event.data,
        json!({"from": PHONE, "state": "composing", "media": "audio", "chat": PHONE, "sender": person(LID)})
    );
}

#[test]
fn online_and_last_seen() {
    let update = PresenceUpdate::builder().from(jid(PHONE)).unavailable(true).last_seen(at()).build();
    let data = read(&Event::Presence(update)).data;
    assert_eq!(
        data,
        json!({"from": PHONE, "state": "unavailable", "media": "", "chat": PHONE, "sender": person(PHONE), "last_seen": AT})
    );
}

#[test]
fn a_call_rings_and_is_missed() {
    let offer = CallAction::Offer {
        call_id: "CALL".into(),
        call_creator: jid(LID),
        caller_pn: None,
        caller_country_code: None,
        device_class: None,
        joinable: false,
        is_video: true,
        audio: vec![],
        group_jid: None,
    };
    let call = IncomingCall::builder()
        .from(jid(LID))
        .stanza_id("S".into())
        .timestamp(at())
        .offline(false)
        .action(offer)
        .build();
    let event = read(&Event::IncomingCall(call));
    let expected = json!({"from": PHONE, "timestamp": AT, "status": "incoming", "call_id": "CALL", "sender": person(LID), "is_video": true});
    assert_eq!(event.data, expected);
    assert_eq!(event.dedupe_key.as_deref(), Some("c|CALL|incoming"));

    let missed = MissedCall::new(jid(PHONE), "CALL".into(), at(), MissedReason::Offline);
    assert_eq!(read(&Event::MissedCall(missed)).data["status"], "missed");
}

#[test]
fn a_group_change_names_actor_and_change() {
    let update = GroupUpdate::builder()
        .group_jid(jid("120363000000000001@g.us"))
        .notification_id("N1".into())
        .participant(jid(LID))
        .timestamp(at())
        .is_lid_addressing_mode(true)
        .action(GroupNotificationAction::Subject { subject: "New".into(), subject_owner: None, subject_time: None })
        .build();
    let event = read(&Event::GroupUpdate(update));
    let expected = json!({"group": "120363000000000001@g.us", "action": "subject", "timestamp": AT, "actor": person(LID), "subject": "New"});
    assert_eq!((event.kind, event.data), (EventKind::Group, expected));
    assert_eq!(event.dedupe_key.as_deref(), Some("g|N1|0"));
}

#[test]
fn contacts_change_names_numbers_and_keys() {
    let name = PushNameUpdate::builder()
        .jid(jid(PHONE))
        .message(Box::default())
        .old_push_name("A".into())
        .new_push_name("B".into())
        .build();
    let data = read(&Event::PushNameUpdate(name)).data;
    assert_eq!(
        (&data["contact"], &data["change"], &data["push_name"], &data["old_push_name"]),
        (&json!(PHONE), &json!("push_name"), &json!("B"), &json!("A"))
    );

    let number =
        ContactNumberChanged::builder().old_jid(jid("1555@s.whatsapp.net")).new_jid(jid(PHONE)).timestamp(at()).build();
    let data = read(&Event::ContactNumberChanged(number)).data;
    assert_eq!(
        (&data["change"], &data["old"], &data["new"]),
        (&json!("number"), &json!("1555@s.whatsapp.net"), &json!(PHONE))
    );

    let code =
        IdentityChange::builder().user(jid("1777@s.whatsapp.net")).lid_user(jid("7@lid")).implicit(false).build();
    let data = read(&Event::IdentityChange(code)).data;
    assert_eq!(data["identity"], json!({"phone": "1777", "lid": "7@lid", "jid": "1777@s.whatsapp.net"}));
}

#[test]
fn chats_and_progress_have_their_words() {
    let action = wa::sync_action_value::PinAction { pinned: Some(true) };
    let pin = PinUpdate::builder().jid(jid(LID)).timestamp(at()).action(Box::new(action)).from_full_sync(false).build();
    let event = read(&Event::PinUpdate(pin));
    assert_eq!(
        (event.kind, event.data),
        (EventKind::Chat, json!({"chat": PHONE, "timestamp": AT, "change": "pin", "pinned": true}))
    );

    let done = OfflineSyncCompleted::builder().count(7).build();
    let event = read(&Event::OfflineSyncCompleted(done));
    assert_eq!(
        (event.order_key.as_str(), event.data),
        ("", json!({"percentage": 100, "sync_type": "offline", "count": 7}))
    );
}
