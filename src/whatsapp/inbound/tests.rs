//! Golden conversions: a message in, the whole `data` out.

use super::{Extras, Known, convert, people};
use buffa::MessageField;
use kero_domain::{EventKind, NewEvent, Timestamp};
use serde_json::{Value, json};
use wacore::types::message::{EditAttribute, MessageInfo, MessageSource};
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

const AT: i64 = 1_735_000_000;

fn info(chat: &str, sender: &str) -> MessageInfo {
    let chat: wacore_binary::Jid = chat.parse().unwrap();
    MessageInfo {
        source: MessageSource {
            is_group: chat.to_string().ends_with("@g.us"),
            chat,
            sender: sender.parse().unwrap(),
            ..Default::default()
        },
        id: "3EB0AABB".into(),
        push_name: "Ada".into(),
        timestamp: wacore::chrono::DateTime::from_timestamp(AT, 0).unwrap(),
        ..Default::default()
    }
}

/// A private chat by LID whose number is known from the stanza.
fn private() -> MessageInfo {
    let mut info = info("100000011111111@lid", "100000011111111:3@lid");
    info.source.sender_alt = Some("491701234567:3@s.whatsapp.net".parse().unwrap());
    info
}

fn event(message: &wa::Message, info: &MessageInfo) -> NewEvent {
    convert(message, info, &people(info), &Extras::default()).expect("an event")
}

/// The private chat's head around what a kind adds: `middle` after `message_type`, `tail` at the end.
fn private_message(message_type: &str, middle: Value, tail: Value) -> Value {
    let sender = json!({"phone": "491701234567", "lid": "100000011111111@lid", "jid": "100000011111111:3@lid"});
    let chat = json!({"phone": "491701234567", "lid": "100000011111111@lid", "jid": "100000011111111@lid"});
    let mut data = json!({
        "message_id": "3EB0AABB", "from": "491701234567@s.whatsapp.net", "to": "491701234567@s.whatsapp.net",
        "is_group": false, "message_type": message_type
    });
    let rest = json!({
        "timestamp": AT, "is_from_me": false, "sender_name": "Ada", "chat": "491701234567@s.whatsapp.net",
        "sender": sender, "chat_identity": chat
    });
    for part in [middle, rest, tail] {
        data.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    data
}

fn text(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.into()), ..Default::default() }
}

fn key(id: &str, from_me: bool, participant: Option<&str>) -> MessageField<wa::MessageKey> {
    MessageField::some(wa::MessageKey {
        remote_jid: None,
        from_me: Some(from_me),
        id: Some(id.into()),
        participant: participant.map(Into::into),
    })
}

#[test]
fn text_has_the_contracts_keys_in_order() {
    let event = event(&text("hello"), &private());
    let expected = private_message("text", json!({"text": "hello"}), json!({}));
    assert_eq!(event.data, expected);
    // equality of objects ignores order; the texts do not
    assert_eq!(event.data.to_string(), expected.to_string());
    assert_eq!(event.kind, EventKind::Message);
    assert_eq!(event.order_key, "491701234567@s.whatsapp.net");
    assert_eq!(event.message_id.as_deref(), Some("3EB0AABB"));
    assert_eq!(event.at, Timestamp::from_secs(AT));
    // as the server addressed it, whatever is known of the people
    assert_eq!(event.dedupe_key.as_deref(), Some("m|100000011111111@lid|100000011111111@lid|3EB0AABB"));
}

#[test]
fn without_the_number_there_is_no_number() {
    let mut info = private();
    info.source.sender_alt = None;
    let data = event(&text("hello"), &info).data;
    assert_eq!(data["from"], "100000011111111@lid");
    assert_eq!(data["sender"], json!({"lid": "100000011111111@lid", "jid": "100000011111111:3@lid"}));
}

#[test]
fn a_group_names_the_participant_and_the_group() {
    let mut info = info("120363000000000001@g.us", "100000011111111:3@lid");
    info.source.sender_alt = Some("491701234567@s.whatsapp.net".parse().unwrap());
    let event = event(&text("hi all"), &info);
    assert_eq!(event.order_key, "120363000000000001@g.us");
    assert_eq!(
        event.data,
        json!({
            "message_id": "3EB0AABB", "from": "491701234567@s.whatsapp.net", "to": "120363000000000001@g.us", "is_group": true,
            "message_type": "text", "text": "hi all", "timestamp": AT, "is_from_me": false, "sender_name": "Ada",
            "chat": "120363000000000001@g.us",
            "sender": {"phone": "491701234567", "lid": "100000011111111@lid", "jid": "100000011111111:3@lid"}
        })
    );
}

#[test]
fn own_messages_from_other_devices_go_to_the_peer() {
    let mut info = info("491701234567@s.whatsapp.net", "15550000001@s.whatsapp.net");
    info.source.is_from_me = true;
    info.source.recipient_alt = Some("100000011111111@lid".parse().unwrap());
    let inner = text("from my phone");
    let message = wa::Message {
        device_sent_message: MessageField::some(wa::message::DeviceSentMessage {
            message: MessageField::some(inner),
            ..Default::default()
        }),
        ..Default::default()
    };
    let data = event(&message, &info).data;
    assert_eq!((&data["is_from_me"], &data["text"]), (&json!(true), &json!("from my phone")));
    assert_eq!(
        (&data["from"], &data["to"]),
        (&json!("15550000001@s.whatsapp.net"), &json!("491701234567@s.whatsapp.net"))
    );
    assert_eq!(
        data["chat_identity"],
        json!({"phone": "491701234567", "lid": "100000011111111@lid", "jid": "491701234567@s.whatsapp.net"})
    );
}

#[test]
fn a_reply_has_its_quote_mentions_and_forwarding() {
    let context = wa::ContextInfo {
        stanza_id: Some("QUOTED".into()),
        participant: Some("100000011111111@lid".into()),
        quoted_message: MessageField::some(text("earlier")),
        mentioned_jid: vec!["100000011111111@lid".into(), "999@lid".into()],
        is_forwarded: Some(true),
        ..Default::default()
    };
    let message = wa::Message {
        extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
            text: Some("later".into()),
            context_info: MessageField::some(context),
            ..Default::default()
        }),
        ..Default::default()
    };
    let tail = json!({
        "quoted": {"message_id": "QUOTED", "sender": "491701234567@s.whatsapp.net", "text": "earlier"},
        "mentions": ["491701234567@s.whatsapp.net", "999@lid"],
        "forwarded": true
    });
    assert_eq!(event(&message, &private()).data, private_message("text", json!({"text": "later"}), tail));
}

#[test]
fn an_image_has_a_handle_and_no_placeholder_text() {
    let image = wa::message::ImageMessage {
        mimetype: Some("image/jpeg".into()),
        caption: Some("look".into()),
        file_sha256: Some(vec![0xab; 2]),
        file_enc_sha256: Some(vec![1, 2]),
        media_key: Some(vec![3, 4]),
        direct_path: Some("/v/t62".into()),
        file_length: Some(1234),
        width: Some(10),
        height: Some(20),
        view_once: Some(true),
        ..Default::default()
    };
    let message = wa::Message {
        ephemeral_message: MessageField::some(wa::message::FutureProofMessage {
            message: MessageField::some(wa::Message { image_message: MessageField::some(image), ..Default::default() }),
        }),
        ..Default::default()
    };
    let middle = json!({"caption": "look", "mime_type": "image/jpeg", "file_size": 1234});
    let tail = json!({
        "media": {
            "kind": "image", "mime_type": "image/jpeg", "file_size": 1234, "sha256": "abab",
            "handle": {"direct_path": "/v/t62", "media_key": "AwQ=", "file_sha256": "q6s=", "file_enc_sha256": "AQI=", "file_length": 1234},
            "width": 10, "height": 20
        },
        "view_once": true
    });
    assert_eq!(event(&message, &private()).data, private_message("image", middle, tail));
}

#[test]
fn voice_notes_documents_videos_and_stickers_are_told_apart() {
    let audio = wa::message::AudioMessage {
        mimetype: Some("audio/ogg; codecs=opus".into()),
        ptt: Some(true),
        seconds: Some(3),
        ..Default::default()
    };
    let data = event(&wa::Message { audio_message: MessageField::some(audio), ..Default::default() }, &private()).data;
    assert_eq!(
        (&data["message_type"], &data["voice_note"], &data["media"]["seconds"]),
        (&json!("audio"), &json!(true), &json!(3))
    );
    assert!(data.get("text").is_none());

    let document = wa::message::DocumentMessage {
        file_name: Some("a.pdf".into()),
        caption: Some("c".into()),
        page_count: Some(2),
        ..Default::default()
    };
    let wrapped = wa::Message {
        document_with_caption_message: MessageField::some(wa::message::FutureProofMessage {
            message: MessageField::some(wa::Message {
                document_message: MessageField::some(document),
                ..Default::default()
            }),
        }),
        ..Default::default()
    };
    let data = event(&wrapped, &private()).data;
    assert_eq!(
        (&data["message_type"], &data["file_name"], &data["caption"]),
        (&json!("document"), &json!("a.pdf"), &json!("c"))
    );

    let video = wa::message::VideoMessage { gif_playback: Some(true), ..Default::default() };
    let data = event(&wa::Message { video_message: MessageField::some(video), ..Default::default() }, &private()).data;
    assert_eq!((&data["message_type"], &data["gif"]), (&json!("video"), &json!(true)));

    let note = wa::message::VideoMessage::default();
    let data = event(&wa::Message { ptv_message: MessageField::some(note), ..Default::default() }, &private()).data;
    assert_eq!((&data["message_type"], &data["video_note"]), (&json!("video"), &json!(true)));

    let sticker = wa::message::StickerMessage { is_animated: Some(true), ..Default::default() };
    let data =
        event(&wa::Message { sticker_message: MessageField::some(sticker), ..Default::default() }, &private()).data;
    assert_eq!((&data["message_type"], &data["media"]["animated"]), (&json!("sticker"), &json!(true)));
}

#[test]
fn a_location_has_six_decimals_as_text() {
    let location = wa::message::LocationMessage {
        degrees_latitude: Some(52.52),
        degrees_longitude: Some(-13.405),
        name: Some("Tower".into()),
        address: Some("Street 1".into()),
        ..Default::default()
    };
    let message = wa::Message { location_message: MessageField::some(location), ..Default::default() };
    let middle = json!({"latitude": "52.520000", "longitude": "-13.405000", "location_name": "Tower", "location_address": "Street 1"});
    assert_eq!(event(&message, &private()).data, private_message("location", middle, json!({})));
}

#[test]
fn contacts_and_polls_carry_their_content() {
    let contact = wa::message::ContactMessage {
        display_name: Some("Bob".into()),
        vcard: Some("BEGIN:VCARD".into()),
        ..Default::default()
    };
    let message = wa::Message { contact_message: MessageField::some(contact), ..Default::default() };
    let tail = json!({"contacts": [{"display_name": "Bob", "vcard": "BEGIN:VCARD"}]});
    assert_eq!(event(&message, &private()).data, private_message("contact", json!({}), tail));

    let option = |name: &str| wa::message::poll_creation_message::Option {
        option_name: Some(name.into()),
        ..Default::default()
    };
    let poll = wa::message::PollCreationMessage {
        name: Some("Lunch?".into()),
        options: vec![option("yes"), option("no")],
        selectable_options_count: Some(1),
        ..Default::default()
    };
    let message = wa::Message { poll_creation_message_v3: MessageField::some(poll), ..Default::default() };
    let tail = json!({"poll": {"question": "Lunch?", "options": ["yes", "no"], "selectable": 1}});
    assert_eq!(event(&message, &private()).data, private_message("poll", json!({"text": "Lunch?"}), tail));
}

#[test]
fn an_unknown_kind_is_named_and_never_dropped() {
    let message = wa::Message {
        event_message: MessageField::some(wa::message::EventMessage {
            name: Some("Party".into()),
            ..Default::default()
        }),
        message_context_info: MessageField::some(wa::MessageContextInfo {
            message_secret: Some(vec![1; 32]),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        event(&message, &private()).data,
        private_message("unknown", json!({}), json!({"kind": "eventMessage"}))
    );
}

/// The head of events about another message, in the private chat.
fn about(extra: Value) -> Value {
    let mut data = json!({
        "message_id": "3EB0AABB", "target_message_id": "TARGET", "chat": "491701234567@s.whatsapp.net", "is_group": false,
        "from": "491701234567@s.whatsapp.net",
        "actor": {"phone": "491701234567", "lid": "100000011111111@lid", "jid": "100000011111111:3@lid"},
        "is_from_me": false, "timestamp": AT
    });
    data.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    data
}

#[test]
fn an_edit_has_the_target_and_the_new_text() {
    let protocol = wa::message::ProtocolMessage {
        key: key("TARGET", true, None),
        r#type: Some(Type::MESSAGE_EDIT),
        edited_message: MessageField::some(text("corrected")),
        ..Default::default()
    };
    let message = wa::Message {
        edited_message: MessageField::some(wa::message::FutureProofMessage {
            message: MessageField::some(wa::Message {
                protocol_message: MessageField::some(protocol),
                ..Default::default()
            }),
        }),
        ..Default::default()
    };
    let event = event(&message, &private());
    assert_eq!(event.kind, EventKind::MessageEdit);
    assert_eq!(event.data, about(json!({"message_type": "text", "text": "corrected"})));
}

#[test]
fn revokes_say_by_whom() {
    let protocol = |from_me, participant| wa::message::ProtocolMessage {
        key: key("TARGET", from_me, participant),
        r#type: Some(Type::REVOKE),
        ..Default::default()
    };
    let own = wa::Message { protocol_message: MessageField::some(protocol(true, None)), ..Default::default() };
    let event = event(&own, &private());
    assert_eq!(event.kind, EventKind::MessageRevoke);
    assert_eq!(event.data, about(json!({"target_sender": "491701234567@s.whatsapp.net", "by_admin": false})));

    let mut info = info("120363000000000001@g.us", "100000011111111@lid");
    info.edit = EditAttribute::AdminRevoke;
    let admin =
        wa::Message { protocol_message: MessageField::some(protocol(false, Some("999@lid"))), ..Default::default() };
    let data = convert(&admin, &info, &people(&info), &Extras::default()).unwrap().data;
    assert_eq!((&data["by_admin"], &data["target_sender"]), (&json!(true), &json!("999@lid")));
}

#[test]
fn reactions_come_and_go() {
    let reaction = |emoji: &str| wa::Message {
        reaction_message: MessageField::some(wa::message::ReactionMessage {
            key: key("TARGET", true, None),
            text: Some(emoji.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let given = event(&reaction("👍"), &private());
    assert_eq!(given.kind, EventKind::Reaction);
    assert_eq!(
        given.data,
        about(json!({"target_sender": "491701234567@s.whatsapp.net", "emoji": "👍", "removed": false}))
    );
    assert_eq!(event(&reaction(""), &private()).data["removed"], json!(true));
}

#[test]
fn a_vote_names_options_by_their_hashes() {
    let update =
        wa::message::PollUpdateMessage { poll_creation_message_key: key("TARGET", false, None), ..Default::default() };
    let message = wa::Message { poll_update_message: MessageField::some(update), ..Default::default() };
    let info = private();
    let extras = Extras { poll_vote: Some(vec![vec![0xaa, 0xbb]]) };
    let event = convert(&message, &info, &people(&info), &extras).unwrap();
    assert_eq!(event.kind, EventKind::PollVote);
    assert_eq!(event.data, about(json!({"selected_option_hashes": ["aabb"]})));
    // an undecryptable vote is still an event
    assert!(self::event(&message, &info).data.get("selected_option_hashes").is_none());
}

#[test]
fn the_librarys_housekeeping_is_no_event() {
    let info = private();
    for kind in [
        Type::APP_STATE_SYNC_KEY_SHARE,
        Type::HISTORY_SYNC_NOTIFICATION,
        Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE,
    ] {
        let protocol = wa::message::ProtocolMessage { r#type: Some(kind), ..Default::default() };
        let message = wa::Message { protocol_message: MessageField::some(protocol), ..Default::default() };
        assert!(convert(&message, &info, &Known::default(), &Extras::default()).is_none());
    }
    let distribution = wa::Message {
        sender_key_distribution_message: MessageField::some(wa::message::SenderKeyDistributionMessage::default()),
        ..Default::default()
    };
    assert!(convert(&distribution, &info, &Known::default(), &Extras::default()).is_none());
    let timer = wa::message::ProtocolMessage {
        r#type: Some(Type::EPHEMERAL_SETTING),
        ephemeral_expiration: Some(86_400),
        ..Default::default()
    };
    let message = wa::Message { protocol_message: MessageField::some(timer), ..Default::default() };
    let tail = json!({"kind": "protocolMessage", "protocol_type": "EPHEMERAL_SETTING", "ephemeral_expiration": 86_400});
    assert_eq!(event(&message, &info).data, private_message("unknown", json!({}), tail));
}

#[test]
fn a_kind_that_is_newer_than_this_build_is_named_as_such() {
    // the client decodes away what it does not know; context may be left
    let context = wa::Message {
        message_context_info: MessageField::some(wa::MessageContextInfo::default()),
        ..Default::default()
    };
    for message in [wa::Message::default(), context] {
        let event = event(&message, &private());
        assert_eq!(event.data, private_message("unknown", json!({}), json!({"kind": "newer"})));
        assert_eq!(event.raw, Some(waproto::codec::message_to_vec(&message)));
    }
}

#[test]
fn nul_characters_are_made_storable() {
    let data = event(&text("a\0b"), &private()).data;
    assert_eq!(data["text"], "a\u{fffd}b");
}

#[test]
fn deep_nesting_ends() {
    let mut message = text("inside");
    for _ in 0..200 {
        message = wa::Message {
            ephemeral_message: MessageField::some(wa::message::FutureProofMessage {
                message: MessageField::some(message),
            }),
            ..Default::default()
        };
    }
    assert_eq!(event(&message, &private()).data["kind"], "ephemeralMessage");
}
