//! Deliveries that hooks shape and judge: signed, held without an attempt, each with its own effects, never in a circle.

use super::{JANE, Stage, install, manifest, module_for};
use crate::support::{Behaviour, Sink, eventually};
use hmac::{Hmac, KeyInit, Mac};
use kero_domain::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const DEAD: &str = "on = [\"message\"]\non_error = \"dead\"";

fn hex_hmac(body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is signed is what is sent: the shaped bytes, in each attempt, for receivers of either scheme.
#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_signs_the_shaped_body() {
    let stage = Stage::new().await;
    let webhook = json!({ "url": stage.sink.url, "events": ["message"], "secret": SECRET });
    stage.kero.post("/instances/a/webhook", webhook).await.expect(200);
    let script = "export function shape(event, request) { request.body = { said: event.message.text, dice: Math.random() }; return request; }";
    install(&stage.kero, &manifest("shaper", "1", "delivery", DEAD), script.as_bytes()).await;
    stage.sink.behave(Behaviour::Status(500));
    stage.receive(JANE, "hello").await;
    let shaped = || stage.sink.received().into_iter().filter(|it| it.json()["said"] == "hello").collect::<Vec<_>>();
    eventually("two tries", || async { (shaped().len() >= 2).then_some(()) }).await;
    stage.sink.behave(Behaviour::Status(200));
    eventually("a success", || async { shaped().iter().any(|it| it.status == 200).then_some(()) }).await;
    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    for received in shaped() {
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, received.headers[name].parse().unwrap());
        }
        verifier.verify(&received.body, &headers).expect("the published library accepts the signature");
        assert_eq!(received.headers["x-webhook-signature"], hex_hmac(&received.body));
        assert_eq!(received.headers["x-hub-signature-256"], format!("sha256={}", hex_hmac(&received.body)));
    }
}

/// No attempt is made before the hook has shaped the request, whatever keeps it from that.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_hook_burns_no_attempt() {
    let stage = Stage::new().await;
    let waits = async |why: &str| {
        let held = eventually(why, || async {
            let pending = stage.deliveries("pending").await;
            // due with the event at first, later once it is held
            pending.into_iter().find(|it| {
                let at = |member: &str| Timestamp::parse_rfc3339(it[member].as_str().unwrap()).unwrap().0;
                at("next_attempt_at") > at("created_at") + 100
            })
        })
        .await;
        assert_eq!(held["attempts"], 0, "{why}: {held}");
        let path = format!("/instances/a/deliveries/{}", held["id"].as_str().unwrap());
        let shown = stage.kero.get(&path).await.expect(200);
        assert_eq!(shown["data"]["attempts"].as_array().unwrap().len(), 0, "{why}: {shown}");
        path
    };
    let delivered = async |path: &str| {
        let shown = eventually("it to be delivered", || async {
            let shown = stage.kero.get(path).await.expect(200);
            (shown["data"]["delivery"]["state"] == "delivered").then_some(shown)
        })
        .await;
        assert_eq!(shown["data"]["delivery"]["attempts"], 1, "{shown}");
    };
    let script = "export function shape(event, request) {
        if (event.message.text === 'later') throw new kero.Retry('not yet');
        return request; }";
    install(&stage.kero, &manifest("shaper", "1", "delivery", DEAD), script.as_bytes()).await;
    stage.receive(JANE, "later").await;
    let path = waits("a hook that asks for time").await;
    assert!(stage.calls("shaper").await.iter().all(|call| call["outcome"] == "retry"));
    stage.kero.post_empty("/plugins/shaper/suspend").await.expect(200);
    let same = waits("a suspended hook").await;
    assert_eq!(path, same);
    stage.kero.delete("/plugins/shaper").await.expect(200);
    delivered(&path).await;

    let traps = r#"(func (export "kero:plugin/on-delivery@0.1.0#shape") (param i32) (result i32) unreachable)
        (func (export "kero:plugin/on-delivery@0.1.0#judge") (param i32) (result i32) unreachable)"#;
    let asked = manifest("trap", "1", "delivery", DEAD).replace("hook.js", "hook.wasm");
    install(&stage.kero, &asked, &module_for("delivery", "", traps)).await;
    for n in 0..4 {
        stage.receive(JANE, &format!("trap {n}")).await;
    }
    eventually("the breaker to open", || async {
        (stage.kero.get("/plugins/trap").await.expect(200)["data"]["breaker_open"] == true).then_some(())
    })
    .await;
    let path = waits("an open breaker").await;
    stage.kero.delete("/plugins/trap").await.expect(200);
    delivered(&path).await;
}

/// A plugin names the endpoints that it shapes for; nothing of it concerns another.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_of_one_endpoint_does_not_hold_another() {
    let stage = Stage::new().await;
    let mine = Sink::start().await;
    let body = json!({ "url": mine.url, "events": ["message"] });
    let made = stage.kero.post("/instances/a/endpoints", body).await.expect(201);
    let id = made["data"]["id"].as_str().unwrap();
    let script = "export function shape(event, request, context) { request.headers['x-shaped'] = context.endpoint; return request; }";
    let more = format!("{DEAD}\nendpoints = [\"{id}\"]");
    install(&stage.kero, &manifest("shaper", "1", "delivery", &more), script.as_bytes()).await;
    let at = |sink: &Sink, text: &str| {
        sink.received()
            .into_iter()
            .find(|it| it.json()["data"]["text"] == text)
            .map(|it| it.headers.get("x-shaped").cloned())
    };
    stage.receive(JANE, "one").await;
    let shaped = eventually("the shaped one", || async { at(&mine, "one") }).await;
    assert_eq!(shaped.as_deref(), Some(id));
    let plain = eventually("the plain one", || async { at(&stage.sink, "one") }).await;
    assert_eq!(plain, None);
    stage.kero.post_empty("/plugins/shaper/suspend").await.expect(200);
    stage.receive(JANE, "two").await;
    stage.receive(JANE, "three").await;
    eventually("the other endpoint's", || async { at(&stage.sink, "three") }).await;
    assert!(at(&mine, "two").is_none(), "held");
    stage.kero.post_empty("/plugins/shaper/resume").await.expect(200);
    assert_eq!(eventually("the held one", || async { at(&mine, "three") }).await.as_deref(), Some(id));
    assert!(at(&mine, "two").is_some());
    assert_eq!(stage.calls("shaper").await.iter().filter(|it| it["outcome"] == "shaped").count(), 3);
}

/// Answers every request in the same words.
async fn answering(words: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut begun = vec![0; 64 << 10];
            let _ = stream.read(&mut begun).await;
            let _ = stream.write_all(words.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_sees_the_answer_and_says_when_to_try_again() {
    let stage = Stage::new().await;
    let url = answering(
        "HTTP/1.1 409 Conflict\r\nx-why: busy\r\ncontent-length: 12\r\nconnection: close\r\n\r\nin an hour  ",
    )
    .await;
    stage.kero.post("/instances/a/webhook", json!({ "url": url, "events": ["message"] })).await.expect(200);
    let script = "export function shape(event, request) { return request; }
        export function judge(request, response, usual) {
          const said = JSON.parse(request.body).data.text;
          if (said === 'broken') throw new Error('no say');
          console.log([response.status, response.headers['x-why'], response.body.trim(), usual].join(' '));
          return response.body.startsWith('in an hour') ? ['retry', 3600] : 'success'; }";
    install(&stage.kero, &manifest("judge", "1", "delivery", DEAD), script.as_bytes()).await;
    stage.receive(JANE, "first").await;
    let tried = async |text: &str| {
        eventually(text, || async {
            let pending = stage.deliveries("pending").await;
            pending.into_iter().find(|it| it["attempts"].as_u64() >= Some(1))
        })
        .await
    };
    let at = |it: &Value, member: &str| Timestamp::parse_rfc3339(it[member].as_str().unwrap()).unwrap().0;
    let first = tried("the first").await;
    let wait = at(&first, "next_attempt_at") - at(&first, "created_at");
    assert!((3_600_000..3_700_000).contains(&wait), "as it was judged: {wait} ms");
    let calls = stage.calls("judge").await;
    assert_eq!(
        (&calls[0]["outcome"], &calls[0]["logs"][0]["text"]),
        (&"retry".into(), &"409 busy in an hour retry".into())
    );

    // one that fails has no say: the usual schedule, which is a hundred milliseconds here
    stage.simulator.send_text(super::JOHN, super::ACCOUNT, "broken").await.unwrap();
    eventually("three tries of the other", || async {
        let pending = stage.deliveries("pending").await;
        pending.into_iter().find(|it| it["attempts"].as_u64() >= Some(3))
    })
    .await;
    let failed = stage.calls("judge").await.into_iter().filter(|call| call["outcome"] == "reject").count();
    assert!(failed >= 2, "it was asked each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_shapes_are_dead_and_replayed_or_dropped_but_an_ack_goes_out() {
    let stage = Stage::new().await;
    let broken = "export function shape(event) { throw new Error('no'); }";
    install(&stage.kero, &manifest("shaper", "1", "delivery", DEAD), broken.as_bytes()).await;
    stage.receive(JANE, "dead").await;
    let dead = eventually("it to be dead", || async { stage.deliveries("dead").await.into_iter().next() }).await;
    let mended = "export function shape(event, request) { request.body = { event: 'message', data: { text: 'mended' } }; return request; }";
    install(&stage.kero, &manifest("shaper", "2", "delivery", DEAD), mended.as_bytes()).await;
    let path = format!("/instances/a/deliveries/{}", dead["id"].as_str().unwrap());
    stage.kero.post_empty(&format!("{path}/replay")).await.expect(200);
    stage.wait_text("mended").await;
    assert_eq!(stage.texts(), ["mended"]);

    let more = "on = [\"message\", \"message_ack\"]\non_error = \"drop\"\norder = 60";
    stage.kero.delete("/plugins/shaper").await.expect(200);
    install(&stage.kero, &manifest("dropper", "1", "delivery", more), broken.as_bytes()).await;
    stage.receive(JANE, "dropped").await;
    eventually("its end", || async {
        stage.calls("dropper").await.iter().any(|call| call["outcome"] == "reject").then_some(())
    })
    .await;
    // what a client waits for is not dropped
    let sent = stage.kero.send_async("a", JANE, "hello").await;
    let acknowledged = |event: &Value| event["data"]["correlation_id"] == sent["correlation_id"];
    let (received, _) = stage.sink.wait_for("the acknowledgement", acknowledged).await;
    assert_eq!(received.headers.get("x-kero-hook-error").map(String::as_str), Some("dropper/reject"));
    assert_eq!(stage.texts(), ["mended"]);
    assert_eq!(stage.deliveries("dead").await.len(), 1, "visible, and nothing waits");
    // with the grant it is
    let more = format!("{more}\n[grants]\ndrop-ack = true");
    install(&stage.kero, &manifest("dropper", "2", "delivery", &more), broken.as_bytes()).await;
    stage.kero.send_async("a", JANE, "hello").await;
    eventually("the dropped acknowledgement", || async { (stage.deliveries("dead").await.len() == 2).then_some(()) })
        .await;
}

/// Answers everything, the acknowledgements of its own answers, too, if it were asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_hook_does_not_answer_its_own_answers() {
    let stage = Stage::new().await;
    let script = "export function shape(event, request) {
          if (event.name === 'message_ack') request.headers['x-shaped'] = 'yes';
          kero.send.text(kero.config.chat, 'shape of ' + event.name); return request; }
        export function judge(request, response, usual) { kero.send.text(kero.config.chat, 'judge'); return usual; }";
    let more = "on = [\"message\", \"message_ack\"]\non_error = \"dead\"\n[grants]\nsend = { per_chat_per_minute = 50 }\n\
                [config.schema]\ntype = \"object\"";
    install(&stage.kero, &manifest("answer", "1", "delivery", more), script.as_bytes()).await;
    let chat = |chat: &str| json!({ "config": { "chat": chat } }).to_string().into_bytes();
    let config = Some(chat(&format!("+{JANE}")));
    stage.kero.request(Method::PUT, "/plugins/answer/config", &[], config).await.expect(200);
    stage.receive(JANE, "hello").await;
    let acks =
        || stage.sink.received().into_iter().filter(|it| it.json()["event"] == "message_ack").collect::<Vec<_>>();
    eventually("both acknowledgements", || async { (acks().len() >= 2).then_some(()) }).await;
    // a third message would have been accepted with the shape of the first acknowledgement, before that was sent
    let jobs = stage.kero.get("/instances/a/jobs?limit=100").await.expect(200)["data"].as_array().unwrap().len();
    assert_eq!(jobs, 2);
    let mut got = stage.got(JANE).await;
    got.sort();
    assert_eq!(got, ["judge", "shape of message"]);
    assert!(acks().iter().all(|it| !it.headers.contains_key("x-shaped")));
    let calls = stage.calls("answer").await;
    assert_eq!(calls.len(), 2, "called for the message only: {calls:?}");
    // the acknowledgement of somebody else's message is shaped, and answered
    let sent = stage.kero.send_async("a", JANE, "by the API").await;
    let ack = |event: &Value| event["data"]["correlation_id"] == sent["correlation_id"];
    let (received, _) = stage.sink.wait_for("its acknowledgement", ack).await;
    assert_eq!(received.headers.get("x-shaped").map(String::as_str), Some("yes"));
}

/// Two endpoints, and attempts that fail: what a hook sends for each goes out, and once.
#[tokio::test(flavor = "multi_thread")]
async fn effects_of_every_delivery_and_attempt_happen_once() {
    let stage = Stage::new().await;
    let second = Sink::start().await;
    let body = json!({ "url": second.url, "events": ["message"] });
    let two =
        stage.kero.post("/instances/a/endpoints", body).await.expect(201)["data"]["id"].as_str().unwrap().to_owned();
    let one = stage.kero.get("/instances/a/endpoints").await.expect(200);
    let one = one["data"].as_array().unwrap().iter().find(|it| it["id"] != two.as_str()).unwrap()["id"].clone();
    let one = one.as_str().unwrap().to_owned();
    let script = "export function shape(event, request, context) {
          kero.kv.set('chat ' + event.id, event.message.chat);
          kero.send.text(event.message.chat, 'shape ' + context.endpoint);
          return request; }
        export function judge(request, response, usual, context) {
          if (response.status === 500) {
            const chat = kero.kv.get('chat ' + JSON.parse(request.body).id);
            kero.send.text(chat, 'judge ' + context.endpoint);
          }
          return usual; }";
    let more = format!("{DEAD}\n[grants]\nkv = \"1KiB\"\nsend = {{ per_chat_per_minute = 100 }}");
    install(&stage.kero, &manifest("tells", "1", "delivery", &more), script.as_bytes()).await;
    stage.sink.behave(Behaviour::Status(500));
    stage.receive(JANE, "hello").await;
    let tries = |sink: &Sink, status: u16| {
        sink.received().iter().filter(|it| it.status == status && it.json()["data"]["text"] == "hello").count()
    };
    eventually("three tries", || async { (tries(&stage.sink, 500) >= 3).then_some(()) }).await;
    stage.sink.behave(Behaviour::Status(200));
    eventually("a success", || async { (tries(&stage.sink, 200) == 1 && tries(&second, 200) == 1).then_some(()) })
        .await;
    let mut expected = BTreeMap::from([(format!("shape {one}"), 1), (format!("shape {two}"), 1)]);
    expected.insert(format!("judge {one}"), tries(&stage.sink, 500));
    let total: usize = expected.values().sum();
    eventually(&format!("{expected:?}; so far {:?}", stage.got(JANE).await), || async {
        (stage.got(JANE).await.len() >= total).then_some(())
    })
    .await;
    let mut got = BTreeMap::new();
    stage.got(JANE).await.into_iter().for_each(|text| *got.entry(text).or_insert(0) += 1);
    assert_eq!(got, expected);
}
