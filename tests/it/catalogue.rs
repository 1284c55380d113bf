//! Every kind of event that a simulated WhatsApp can cause: it happens, and what the webhook gets is what the document
//! says, with no member that the document does not name.

use crate::support::{Behaviour, Foreign, Kero, Sink, eventually, person, simulator};
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use serde_json::{Value, json};
use std::path::Path;
use wacore_binary::Jid;
use wacore_binary::builder::NodeBuilder;
use waproto::buffa::MessageField;
use waproto::whatsapp as wa;

/// A paired instance `a` whose webhook gets every event, and a person who has no client of their own.
struct Stage {
    simulator: Simulator,
    kero: Kero,
    sink: Sink,
    phone: String,
    peer: String,
}

impl Stage {
    /// `number` keeps the phones of the tests apart in the log.
    async fn new(number: u32) -> Self {
        let simulator = simulator().await;
        let kero = Kero::start(&simulator).await;
        let sink = Sink::start().await;
        let (phone, peer) = (format!("4915280{number:02}001"), format!("4915280{number:02}002"));
        kero.create("a").await;
        kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["all"] })).await.expect(200);
        kero.pair(&simulator, "a", &phone).await;
        person(&simulator, &peer, Script::Silent);
        Self { simulator, kero, sink, phone, peer }
    }

    /// The peer with a real client.
    async fn foreign(&self) -> Foreign {
        Foreign::paired(&self.simulator, &self.peer).await
    }

    /// Another device of the instance's own account.
    async fn sibling(&self) -> Foreign {
        Foreign::paired(&self.simulator, &self.phone).await
    }

    fn own(&self) -> Jid {
        Jid::pn(&*self.phone)
    }

    fn other(&self) -> Jid {
        Jid::pn(&*self.peer)
    }

    /// The first event that fits, checked against the document; its data.
    async fn event(&self, kind: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{kind}: {what}");
        let (_, event) = self.sink.wait_for(&what, |event| event["event"] == kind && fits(&event["data"])).await;
        check(kind, &event);
        // and the journal says the same
        let path = format!("/instances/a/events/{}", event["id"].as_str().unwrap());
        assert_eq!(self.kero.get(&path).await.expect(200)["data"], event);
        event["data"].clone()
    }

    /// Everything that came is as the document says, whatever the test looked for.
    fn check_all(&self) {
        for received in self.sink.received() {
            let event = received.json();
            check(event["event"].as_str().unwrap(), &event);
        }
    }
}

fn document() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// An event against the schema of its webhook.
fn check(kind: &str, event: &Value) {
    let document = document();
    let webhook = &document["webhooks"][kind];
    assert!(webhook.is_object(), "{kind} is not described");
    let mut schema = webhook["post"]["requestBody"]["content"]["application/json"]["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> =
        validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{kind}: {errors:#?}\n{event:#}");
    let mut unknown = Vec::new();
    unnamed(&document, &schema, event, kind, &mut unknown);
    assert!(unknown.is_empty(), "{kind} has members that the document does not name: {unknown:?}\n{event:#}");
}

/// Members of `value` that the schema does not name.
fn unnamed(document: &Value, schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return unnamed(document, document.pointer(&target[1..]).unwrap(), value, path, unknown);
    }
    for part in ["allOf", "anyOf", "oneOf"] {
        if let Some(part) = schema[part].as_array().and_then(|parts| parts.iter().find(|part| part["$ref"].is_string()))
        {
            return unnamed(document, part, value, path, unknown);
        }
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(members), Some(properties)) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                match properties.get(name) {
                    Some(schema) => unnamed(document, schema, member, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(items), _) => {
            items.iter().for_each(|item| unnamed(document, &schema["items"], item, path, unknown));
        }
        _ => {}
    }
}

#[test]
fn a_wrong_or_unnamed_member_is_found() {
    let event = json!({
        "event": "sync_progress", "instance_id": "a", "timestamp": 1, "seq": 1, "schema": 1,
        "id": uuid::Uuid::nil(), "data": {"percentage": 1, "sync_type": "full"}
    });
    check("sync_progress", &event);
    for (pointer, value) in [("/data/percentage", json!("1")), ("/event", json!("other")), ("/data/new", json!(1))] {
        let mut wrong = event.clone();
        match wrong.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => wrong["data"]["new"] = value,
        }
        assert!(std::panic::catch_unwind(|| check("sync_progress", &wrong)).is_err(), "{pointer}");
    }
}

#[test]
fn every_kind_of_the_document_is_caused_here() {
    for kind in document()["webhooks"].as_object().unwrap().keys().filter(|kind| *kind != "other") {
        let caused = include_str!("catalogue.rs").contains(&format!("stage.event(\"{kind}\","));
        assert!(caused, "{kind} is in the catalogue, and nothing here causes it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn message_of_every_kind() {
    let stage = Stage::new(1).await;
    let ann = stage.foreign().await;
    let to = stage.own();
    let kinds = document_of_kinds(&ann).await;
    for (message_type, message) in kinds {
        let sent = ann.client.send_message(to.clone(), message).await.unwrap().message_id;
        let data = stage.event("message", &message_type, |data| data["message_id"] == sent).await;
        assert_eq!(data["message_type"], message_type, "{data}");
        assert_eq!(data["kind"].is_string(), message_type == "unknown", "WhatsApp's name for it: {data}");
        assert_eq!(data["sender"]["phone"], stage.peer);
        assert_eq!(data["chat"], stage.other().to_string());
    }
    // in a group, with a quotation and a mention
    let group = stage.simulator.create_group("Team", &[&stage.peer, &stage.phone]).await.unwrap();
    let context = wa::ContextInfo {
        stanza_id: Some("QUOTED".into()),
        participant: Some(stage.own().to_string()),
        quoted_message: MessageField::some(wa::Message { conversation: Some("before".into()), ..Default::default() }),
        mentioned_jid: vec![stage.own().to_string()],
        is_forwarded: Some(true),
        ..Default::default()
    };
    let text = wa::message::ExtendedTextMessage {
        text: Some("@you".into()),
        context_info: MessageField::some(context),
        ..Default::default()
    };
    let message = wa::Message { extended_text_message: MessageField::some(text), ..Default::default() };
    ann.client.send_message(group.parse::<Jid>().unwrap(), message).await.unwrap();
    let data = stage.event("message", "in the group", |data| data["text"] == "@you").await;
    assert_eq!((&data["is_group"], &data["chat"], &data["forwarded"]), (&true.into(), &json!(group), &true.into()));
    assert_eq!((&data["quoted"]["message_id"], &data["quoted"]["text"]), (&"QUOTED".into(), &"before".into()));
    assert_eq!(data["mentions"], json!([stage.own().to_string()]));
    // what another device of the account sends is an event, too
    let sibling = stage.sibling().await;
    sibling.client.send_text(stage.other(), "from my other device").await.unwrap();
    let data = stage.event("message", "its own", |data| data["text"] == "from my other device").await;
    assert_eq!(data["is_from_me"], true);
    stage.check_all();
}

/// A message of each kind, with the word for it.
async fn document_of_kinds(ann: &Foreign) -> Vec<(String, wa::Message)> {
    let mut kinds = Vec::new();
    let mut add = |word: &str, message: wa::Message| kinds.push((word.to_owned(), message));
    let uploaded = ann.client.upload(vec![7; 5000], wacore::download::MediaType::Image, Default::default());
    let uploaded = uploaded.await.unwrap();
    let image = whatsapp_rust::media::image_message(uploaded, Default::default());
    let source = image.image_message.as_option().expect("an image").clone();
    add("text", wa::Message { conversation: Some("hello".into()), ..Default::default() });
    add("image", image);
    macro_rules! media {
        ($word:literal, $field:ident, $type:ident { $($name:ident: $value:expr),* }) => {
            add($word, wa::Message {
                $field: MessageField::some(wa::message::$type {
                    url: source.url.clone(), direct_path: source.direct_path.clone(), media_key: source.media_key.clone(),
                    file_sha256: source.file_sha256.clone(), file_enc_sha256: source.file_enc_sha256.clone(),
                    file_length: source.file_length, mimetype: Some("application/x-test".into()), $($name: $value,)*
                    ..Default::default()
                }),
                ..Default::default()
            });
        };
    }
    media!(
        "video",
        video_message,
        VideoMessage { seconds: Some(3), caption: Some("see".into()), gif_playback: Some(true) }
    );
    media!("video", ptv_message, VideoMessage { seconds: Some(3), width: Some(4), height: Some(5) });
    media!("audio", audio_message, AudioMessage { seconds: Some(3), ptt: Some(true) });
    media!("document", document_message, DocumentMessage { file_name: Some("a.pdf".into()), page_count: Some(2) });
    media!("sticker", sticker_message, StickerMessage { is_animated: Some(true), width: Some(1), height: Some(1) });
    let place = wa::message::LocationMessage {
        degrees_latitude: Some(52.5),
        degrees_longitude: Some(13.4),
        name: Some("Berlin".into()),
        url: Some("https://example.org".into()),
        ..Default::default()
    };
    add("location", wa::Message { location_message: MessageField::some(place), ..Default::default() });
    let live = wa::message::LiveLocationMessage {
        degrees_latitude: Some(52.5),
        degrees_longitude: Some(13.4),
        accuracy_in_meters: Some(5),
        sequence_number: Some(1),
        ..Default::default()
    };
    add("location", wa::Message { live_location_message: MessageField::some(live), ..Default::default() });
    let card = wa::message::ContactMessage {
        display_name: Some("Bob".into()),
        vcard: Some("BEGIN:VCARD\nEND:VCARD".into()),
        ..Default::default()
    };
    add("contact", wa::Message { contact_message: MessageField::some(card), ..Default::default() });
    let option = |name: &str| wa::message::poll_creation_message::Option {
        option_name: Some(name.into()),
        ..Default::default()
    };
    let poll = wa::message::PollCreationMessage {
        name: Some("Where?".into()),
        options: vec![option("here"), option("there")],
        selectable_options_count: Some(1),
        ..Default::default()
    };
    add("poll", wa::Message { poll_creation_message: MessageField::some(poll), ..Default::default() });
    // a kind that Kero has no words for, one that the client has none for, and a change of settings
    let order = wa::message::OrderMessage { order_id: Some("1".into()), ..Default::default() };
    add("unknown", wa::Message { order_message: MessageField::some(order), ..Default::default() });
    let secret = wa::MessageContextInfo { message_secret: Some(vec![1; 32]), ..Default::default() };
    add("unknown", wa::Message { message_context_info: MessageField::some(secret), ..Default::default() });
    let timer = wa::message::ProtocolMessage {
        r#type: Some(wa::message::protocol_message::Type::EPHEMERAL_SETTING),
        ephemeral_expiration: Some(86_400),
        ..Default::default()
    };
    add("unknown", wa::Message { protocol_message: MessageField::some(timer), ..Default::default() });
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn message_ack_receipt_status_and_pairing() {
    let stage = Stage::new(2).await;
    stage.event("pairing", "the code", |data| data["kind"] == "qr" && data["code"].is_string()).await;
    stage.event("pairing", "the scan", |data| data["kind"] == "scanned").await;
    stage.event("pairing", "the end", |data| data["kind"] == "paired").await;
    stage.event("status", "connected", |data| data["status"] == "connected").await;
    let ann = stage.foreign().await;
    let sent = stage.kero.send_async("a", &stage.peer, "read me").await;
    let acked = stage.event("message_ack", "sent", |data| data["correlation_id"] == sent["correlation_id"]).await;
    assert_eq!((&acked["status"], &acked["message_id"]), (&"sent".into(), &sent["message_id"]));
    let id = ann.wait_text("read me").await;
    stage.event("receipt", "delivered", |data| data["type"] == "delivered" && data["message_id"] == id).await;
    ann.client.mark_as_read(&stage.own(), None, &[id.as_str()]).await.unwrap();
    let read = stage.event("receipt", "read", |data| data["type"] == "read" && data["message_id"] == id).await;
    assert_eq!((&read["ids"], &read["sender"]["phone"]), (&json!([id]), &json!(stage.peer)));
    let failed = stage.kero.send_async("a", "491528990000", "nobody").await;
    let acked = stage.event("message_ack", "failed", |data| data["correlation_id"] == failed["correlation_id"]).await;
    assert_eq!(acked["status"], "failed");
    assert!(acked["error"].is_string() && acked["code"].is_string() && acked["attempts"].is_u64(), "{acked}");
    stage.kero.post_empty("/instances/a/disconnect").await.expect(200);
    let status = stage.event("status", "disconnected", |data| data["status"] == "disconnected").await;
    assert_eq!(status["cause"], "requested");
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn message_edit_message_revoke_reaction_and_poll_vote() {
    let stage = Stage::new(3).await;
    let ann = stage.foreign().await;
    let to = stage.own();
    let sent = ann.client.send_text(to.clone(), "frist").await.unwrap().message_id;
    stage.event("message", "the text", |data| data["message_id"] == sent).await;
    let mended = wa::Message { conversation: Some("first".into()), ..Default::default() };
    ann.client.edit_message(to.clone(), sent.clone(), mended).await.unwrap();
    let edit = stage.event("message_edit", "the edit", |data| data["target_message_id"] == sent).await;
    assert_eq!((&edit["text"], &edit["actor"]["phone"]), (&"first".into(), &json!(stage.peer)));

    let key = |id: &str, from_me: bool| wa::MessageKey {
        remote_jid: Some(to.to_string()),
        id: Some(id.to_owned()),
        from_me: Some(from_me),
        ..Default::default()
    };
    ann.client.send_reaction(to.clone(), key(&sent, true), "👍").await.unwrap();
    let reaction = stage.event("reaction", "the thumb", |data| data["target_message_id"] == sent).await;
    assert_eq!((&reaction["emoji"], &reaction["removed"]), (&"👍".into(), &false.into()));
    ann.client.send_reaction(to.clone(), key(&sent, true), "").await.unwrap();
    stage.event("reaction", "its removal", |data| data["removed"] == true).await;

    let options = ["here".to_owned(), "there".to_owned()];
    let (poll, secret) = ann.client.polls().create(to.clone(), "Where?", &options, 1).await.unwrap();
    stage.event("message", "the poll", |data| data["message_id"] == poll.message_id).await;
    let creator = ann.client.pn().unwrap().to_non_ad();
    let chosen = ["there".to_owned()];
    ann.client.polls().vote(to.clone(), &poll.message_id, &creator, &secret, &chosen).await.unwrap();
    let vote = stage.event("poll_vote", "the vote", |data| data["target_message_id"] == poll.message_id).await;
    assert_eq!(vote["selected_option_hashes"].as_array().map(Vec::len), Some(1), "{vote}");

    ann.client.revoke_message(to.clone(), sent.clone(), whatsapp_rust::send::RevokeType::Sender).await.unwrap();
    let revoke = stage.event("message_revoke", "the revoke", |data| data["target_message_id"] == sent).await;
    assert_eq!(revoke["by_admin"], false);
    // all of them raw
    let raw = stage.kero.get("/instances/a/events?include=raw&limit=1000").await.expect(200);
    let mut seen = std::collections::HashSet::new();
    for event in raw["data"].as_array().unwrap() {
        let kind = event["event"].as_str().unwrap();
        check(kind, event);
        if event["data"].get("raw").is_some() {
            seen.insert(kind.to_owned());
        }
    }
    for kind in ["message", "message_edit", "message_revoke", "reaction", "poll_vote"] {
        assert!(seen.contains(kind), "{kind} has no raw: {seen:?}");
    }
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_call() {
    let stage = Stage::new(4).await;
    let ann = stage.foreign().await;
    let to = stage.own();
    ann.client.chatstate().send_composing(&to).await.unwrap();
    let typing = stage.event("presence", "typing", |data| data["state"] == "composing").await;
    assert_eq!((&typing["from"], &typing["media"]), (&json!(stage.other().to_string()), &"".into()));
    ann.client.chatstate().send_recording(&to).await.unwrap();
    stage.event("presence", "recording", |data| data["media"] == "audio").await;
    ann.client.chatstate().send_paused(&to).await.unwrap();
    stage.event("presence", "the pause", |data| data["state"] == "paused").await;

    let creator = ann.client.pn().unwrap();
    let call = |child: NodeBuilder, id: &str| {
        let child = child.attr("call-id", "CALL1").attr("call-creator", creator.clone()).build();
        NodeBuilder::new("call").attr("to", to.clone()).attr("id", id).children([child]).build()
    };
    ann.client.send_node(call(NodeBuilder::new("offer"), "C1")).await.unwrap();
    let ringing = stage.event("call", "it rings", |data| data["status"] == "incoming").await;
    assert_eq!((&ringing["call_id"], &ringing["sender"]["phone"]), (&"CALL1".into(), &json!(stage.peer)));
    ann.client.send_node(call(NodeBuilder::new("terminate").attr("reason", "timeout"), "C2")).await.unwrap();
    eventually("the end of the call", || async {
        let calls = stage.sink.events("call");
        calls.iter().any(|call| call["data"]["status"] != "incoming").then_some(())
    })
    .await;
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn group() {
    let stage = Stage::new(5).await;
    let ann = stage.foreign().await;
    let group = stage.simulator.create_group("Team", &[&stage.peer, &stage.phone]).await.unwrap();
    let jid: Jid = group.parse().unwrap();
    stage.event("group", "it is made", |data| data["action"] == "create" && data["group"] == group).await;
    let third = person(&stage.simulator, "491528005003", Script::Silent);
    let groups = ann.client.groups();
    groups.set_subject(jid.clone(), wacore::iq::groups::GroupSubject::new("New name").unwrap()).await.unwrap();
    let subject = stage.event("group", "its name", |data| data["action"] == "subject").await;
    assert_eq!((&subject["subject"], &subject["actor"]["phone"]), (&"New name".into(), &json!(stage.peer)));
    let third = [Jid::pn(&*third)];
    groups.add_participants(jid.clone(), &third).await.unwrap();
    let added = stage.event("group", "somebody new", |data| data["action"] == "add").await;
    assert_eq!(added["participants"][0]["phone"], "491528005003");
    groups.promote_participants(jid.clone(), &third).await.unwrap();
    stage.event("group", "an admin", |data| data["action"] == "promote").await;
    groups.demote_participants(jid.clone(), &third).await.unwrap();
    stage.event("group", "none any longer", |data| data["action"] == "demote").await;
    groups.set_announce(jid.clone(), true).await.unwrap();
    stage.event("group", "only admins write", |data| data["action"] == "announcement").await;
    groups.set_locked(jid.clone(), true).await.unwrap();
    stage.event("group", "only admins change it", |data| data["action"] == "locked").await;
    groups.set_ephemeral(jid.clone(), 86_400).await.unwrap();
    let timer = stage.event("group", "messages disappear", |data| data["action"] == "ephemeral").await;
    assert_eq!(timer["expiration"], 86_400);
    groups.set_membership_approval(jid.clone(), wacore::iq::groups::MembershipApprovalMode::On).await.unwrap();
    stage.event("group", "admins let in", |data| data["action"] == "membership_approval_mode").await;
    groups.remove_participants(jid.clone(), &third).await.unwrap();
    stage.event("group", "somebody less", |data| data["action"] == "remove").await;
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn contact() {
    let stage = Stage::new(6).await;
    let ann = stage.foreign().await;
    ann.client.send_text(stage.own(), "hello").await.unwrap();
    stage.event("message", "they know each other", |data| data["text"] == "hello").await;
    ann.client.profile().set_status_text("at the sea").await.unwrap();
    let about = stage.event("contact", "about", |data| data["change"] == "about").await;
    assert_eq!((&about["about"], &about["identity"]["phone"]), (&"at the sea".into(), &json!(stage.peer)));
    ann.client.profile().set_profile_picture(vec![0xff, 0xd8, 0xff]).await.unwrap();
    let picture = stage.event("contact", "picture", |data| data["change"] == "picture").await;
    assert_eq!(picture["removed"], false);
    // what another device of the account writes into the address book
    let sibling = stage.sibling().await;
    let names = (Some("Ann Example".to_owned()), Some("Ann".to_owned()));
    sibling.client.chat_actions().save_contact(&stage.other(), names.0, names.1, false).await.unwrap();
    let named = stage.event("contact", "name", |data| data["change"] == "name").await;
    assert_eq!((&named["full_name"], &named["first_name"]), (&"Ann Example".into(), &"Ann".into()));
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_and_label() {
    let stage = Stage::new(7).await;
    let id = stage.simulator.send_text(&stage.peer, &stage.phone, "star me").await.unwrap();
    stage.event("message", "something to star", |data| data["message_id"] == id).await;
    let sibling = stage.sibling().await;
    let (actions, chat) = (sibling.client.chat_actions(), stage.other());
    actions.pin_chat(&chat).await.unwrap();
    assert_eq!(stage.event("chat", "pin", |data| data["change"] == "pin").await["pinned"], true);
    actions.mute_chat(&chat).await.unwrap();
    assert_eq!(stage.event("chat", "mute", |data| data["change"] == "mute").await["muted"], true);
    actions.archive_chat(&chat, None).await.unwrap();
    let archived = stage.event("chat", "archive", |data| data["change"] == "archive").await;
    assert_eq!((&archived["archived"], &archived["chat"]), (&true.into(), &json!(chat.to_string())));
    actions.star_message(&chat, None, &id, false).await.unwrap();
    assert_eq!(stage.event("chat", "star", |data| data["change"] == "star").await["target_message_id"], id);
    actions.mark_chat_as_read(&chat, true, None).await.unwrap();
    assert_eq!(stage.event("chat", "read", |data| data["change"] == "read").await["read"], true);
    actions.delete_message_for_me(&chat, None, &id, false, false, None).await.unwrap();
    stage.event("chat", "a message less", |data| data["change"] == "delete_message_for_me").await;
    actions.clear_chat(&chat, false, false, None).await.unwrap();
    stage.event("chat", "clear", |data| data["change"] == "clear").await;
    actions.delete_chat(&chat, false, None).await.unwrap();
    stage.event("chat", "delete", |data| data["change"] == "delete").await;

    sibling.client.labels().create_label("7", "Customers", 3).await.unwrap();
    let label = stage.event("label", "a label", |data| data["change"] == "label").await;
    assert_eq!((&label["label_id"], &label["name"], &label["color"]), (&"7".into(), &"Customers".into(), &3.into()));
    sibling.client.labels().add_chat_label("7", &chat).await.unwrap();
    let given = stage.event("label", "an assignment", |data| data["change"] == "assignment").await;
    assert_eq!((&given["labeled"], &given["chat"]), (&true.into(), &json!(chat.to_string())));
    sibling.client.labels().delete_label("7").await.unwrap();
    stage.event("label", "no label", |data| data["deleted"] == true).await;
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn newsletter() {
    let stage = Stage::new(8).await;
    let sibling = stage.sibling().await;
    let newsletter = sibling.client.newsletter().create("News", None).await.unwrap().jid;
    sibling.client.send_text(newsletter.clone(), "first post").await.unwrap();
    let posts = sibling.client.newsletter().get_messages(&newsletter, 10, None).await.unwrap();
    sibling.client.newsletter().send_reaction(&newsletter, posts[0].server_id, "🎉").await.unwrap();
    let live = stage.event("newsletter", "a reaction", |data| data["change"] == "reactions").await;
    assert_eq!(live["chat"], newsletter.to_string());
    assert_eq!(live["messages"][0]["reactions"], json!([{"emoji": "🎉", "count": 1}]));
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn undecryptable_and_then_its_content() {
    let stage = Stage::new(9).await;
    stage.simulator.inject(FaultRule::new(Fault::Undecryptable).phone(&stage.phone).count(1));
    let id = stage.simulator.send_text(&stage.peer, &stage.phone, "at the second try").await.unwrap();
    let lost = stage.event("undecryptable", "it cannot be read", |data| data["message_id"] == id).await;
    assert_eq!((&lost["reason"], &lost["sender"]["phone"]), (&"decryption-failed".into(), &json!(stage.peer)));
    let found = stage.event("message", "its content", |data| data["message_id"] == id).await;
    assert_eq!(found["text"], "at the second try");
    let order = |kind: &str| stage.sink.kinds().iter().position(|found| *found == format!("\"{kind}\"")).unwrap();
    assert!(order("undecryptable") < order("message"), "{:?}", stage.sink.kinds());
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_progress() {
    let stage = Stage::new(10).await;
    stage.kero.post_empty("/instances/a/disconnect").await.expect(200);
    stage.kero.wait_status("a", "disconnected").await;
    for n in 0..3 {
        stage.simulator.send_text(&stage.peer, &stage.phone, &format!("missed {n}")).await.unwrap();
    }
    stage.kero.post_empty("/instances/a/connect").await.expect(200);
    stage.event("sync_progress", "it begins", |data| data["percentage"] == 0 && data["messages"] == 3).await;
    stage.event("sync_progress", "it is done", |data| data["percentage"] == 100 && data["count"].is_number()).await;
    stage.event("message", "the last of them", |data| data["text"] == "missed 2").await;
    stage.check_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint() {
    let stage = Stage::new(11).await;
    let leaving = Sink::start().await;
    leaving.behave(Behaviour::Status(410));
    let made = stage.kero.post("/instances/a/endpoints", json!({ "url": leaving.url, "events": ["message"] })).await;
    let made = made.expect(201);
    stage.simulator.send_text(&stage.peer, &stage.phone, "go away").await.unwrap();
    let gone = stage.event("endpoint", "it is disabled", |data| data["status"] == "disabled").await;
    assert_eq!((&gone["endpoint_id"], &gone["reason"]), (&made["data"]["id"], &"gone".into()));
    stage.check_all();
}

/// Samples are as the document says, too.
#[tokio::test(flavor = "multi_thread")]
async fn samples_of_every_kind() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    let made = kero.post("/instances/a/endpoints", json!({ "url": sink.url })).await.expect(201);
    for kind in document()["webhooks"].as_object().unwrap().keys().filter(|kind| *kind != "other") {
        let path = format!("/instances/a/endpoints/{}/test?event={kind}", made["data"]["id"].as_str().unwrap());
        kero.post_empty(&path).await.expect(200);
        let mut event = sink.received().pop().unwrap().json();
        assert_eq!(event["data"].as_object_mut().unwrap().remove("test"), Some(json!(true)));
        check(kind, &event);
    }
}
