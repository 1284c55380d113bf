//! The hooks that come with Kero, from end to end: a person writes, an endpoint or the person gets what was promised.

use super::{JANE, JOHN, Stage, activate, upload_form};
use crate::support::eventually;
use reqwest::Method;
use serde_json::{Value, json};

async fn bundled(stage: &Stage, name: &str, config: Option<Value>) {
    let uploaded = upload_form(&stage.kero, &[("bundled", name.as_bytes())], &[]).await.expect(201);
    if let Some(config) = config {
        let body = json!({ "config": config }).to_string().into_bytes();
        stage.kero.request(Method::PUT, &format!("/plugins/{name}/config"), &[], Some(body)).await.expect(200);
    }
    activate(&stage.kero, &uploaded["data"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redact_hides_numbers_from_webhooks_and_journal() {
    let stage = Stage::new().await;
    bundled(&stage, "redact", None).await;
    stage.receive(JANE, "call +4915551234567 please").await;
    let (received, event) = stage.sink.wait_for("a message", |event| event["event"] == "message").await;
    let body = String::from_utf8(received.body.clone()).unwrap();
    assert!(!body.contains(JANE) && !body.contains("15551234567"), "{body}");
    assert!(event["data"]["text"].as_str().unwrap().starts_with("call "));
    let journal = stage.kero.get("/instances/a/events?limit=1000").await.text();
    assert!(!journal.contains(JANE) && !journal.contains("15551234567"), "{journal}");
    // a result that a client waits for keeps what it is known by
    let sent = stage.kero.send_async("a", JANE, "hello").await;
    let (_, ack) = stage.sink.wait_for("ack", |event| event["event"] == "message_ack").await;
    assert_eq!(ack["data"]["correlation_id"], sent["correlation_id"]);
    assert_eq!(ack["data"]["message_id"], sent["message_id"]);
    assert_eq!(ack["data"]["status"], "sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn keyword_reply_answers_once_in_its_pause() {
    let stage = Stage::new().await;
    let replies = json!([{ "keyword": "hours", "reply": "Open from 9 to 17." }]);
    bundled(&stage, "keyword-reply", Some(json!({ "replies": replies, "pause_seconds": 3600 }))).await;
    let got = async |who: &str| {
        stage.simulator.received_texts(who).await.iter().map(|it| it.text.clone()).collect::<Vec<_>>()
    };
    stage.receive(JANE, "your HOURS?").await;
    stage.receive(JANE, "hours again").await;
    stage.receive(JANE, "something else").await;
    stage.receive(JOHN, "hours").await;
    for who in [JANE, JOHN] {
        eventually("the reply", || async { (!got(who).await.is_empty()).then_some(()) }).await;
    }
    stage.wait_text("something else").await;
    stage.kero.send_async("a", JANE, "the end").await;
    eventually("the end", || async { got(JANE).await.contains(&"the end".to_owned()).then_some(()) }).await;
    assert_eq!(got(JANE).await, ["Open from 9 to 17.", "the end"], "once in its pause");
    assert_eq!(got(JOHN).await, ["Open from 9 to 17."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn evolution_speaks_evolutions_webhooks() {
    let stage = Stage::new().await;
    bundled(&stage, "evolution", Some(json!({ "by_events": true, "apikey": "flow-key" }))).await;
    stage.receive(JANE, "hello evolution").await;
    let found = eventually("the event", || async {
        stage.sink.received().into_iter().find(|it| String::from_utf8_lossy(&it.body).contains("hello evolution"))
    })
    .await;
    let body = found.json();
    assert_eq!(body["event"], "messages.upsert", "{body}");
    assert_eq!(body["instance"], "a");
    assert_eq!(body["apikey"], "flow-key");
    assert_eq!(body["data"]["message"]["conversation"], "hello evolution");
    assert_eq!(body["data"]["key"]["fromMe"], false);
    assert_eq!(found.target.as_deref(), Some("POST /hook/messages-upsert"));
    assert!(found.headers.contains_key("webhook-id"), "identified and timed by the gateway, whatever the shape");
}
