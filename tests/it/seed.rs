//! The seed document's main job (§3.1), word for word.

use crate::support::{Kero, Options, Sink, database_url, person, simulator};
use kero_simulator::Script;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_without_special_header_answers_200_when_whatsapp_has_it() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    main_job(&simulator, &kero, "491511000001", "491511000002").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_runs_on_postgres() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, Options::default().database(database_url().await)).await;
    main_job(&simulator, &kero, "491511000011", "491511000012").await;
}

async fn main_job(simulator: &kero_simulator::Simulator, kero: &Kero, own: &str, other: &str) {
    let sink = Sink::start().await;
    person(simulator, other, Script::Echo);
    kero.post("/instances", json!({ "instance_id": "demo", "webhook_url": sink.url })).await.expect(201);
    kero.pair(simulator, "demo", own).await;

    let answer = kero.post("/messages/text", json!({ "phone": other, "message": "Hello from Kero" })).await;
    let body = answer.expect(200);
    let members: Vec<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, ["success", "message_id", "status"], "{body}");
    assert_eq!(body["success"], true);
    assert_eq!(body["status"], "sent");
    let id = body["message_id"].as_str().expect("a message id");

    // 200 means: WhatsApp's server has it, under that id
    let line = simulator.ledger().into_iter().find(|line| line.id == id).expect("the ledger has the stanza");
    assert_eq!(line.from, own);
    let texts = simulator.received_texts(other).await;
    assert_eq!(texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["Hello from Kero"]);

    // the answer becomes an event with the sender's identity
    let (_, event) = sink
        .wait_for("the contact's answer", |json| {
            json["event"] == "message" && json["data"]["text"] == "echo: Hello from Kero"
        })
        .await;
    assert_eq!(event["instance_id"], "demo");
    assert_eq!(event["data"]["sender"]["phone"], other, "{event}");
    assert!(event["data"]["sender"]["lid"].as_str().is_some_and(|lid| lid.ends_with("@lid")), "{event}");
    assert_eq!(event["data"]["is_from_me"], false);
    assert_eq!(event["data"]["message_type"], "text");
    // and so do the receipts
    sink.wait_for("a read receipt", |json| {
        json["event"] == "receipt" && json["data"]["type"] == "read" && json["data"]["message_id"] == id
    })
    .await;
}
