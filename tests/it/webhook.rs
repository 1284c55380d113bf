//! The instance's webhook: Kero-Kero's routes, envelope and signature; retried until accepted; nothing lost over kill -9.

use crate::support::{Behaviour, Kero, Options, Sink, eventually, person, simulator};
use hmac::{Hmac, KeyInit, Mac};
use kero_simulator::Script;
use serde_json::json;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn hex_hmac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_signed_and_the_secret_is_write_only() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    kero.get("/instances/a/webhook").await.problem(404, "webhook-not-found");
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["all"], "secret": SECRET }))
        .await
        .expect(200);
    let stored = kero.get("/instances/a/webhook").await;
    assert!(!stored.text().contains(SECRET), "{}", stored.text());
    assert_eq!(stored.expect(200)["data"]["url"], sink.url);
    kero.pair(&simulator, "a", "491512000001").await;
    person(&simulator, "491512000002", Script::Silent);
    simulator.send_text("491512000002", "491512000001", "hi").await.unwrap();
    let (received, json) = sink.wait_for("the message", |json| json["event"] == "message").await;
    let members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["event", "instance_id", "timestamp", "data", "id", "seq", "schema"]);
    assert_eq!(received.headers["x-webhook-signature"], hex_hmac(SECRET, &received.body));
    assert_eq!(received.headers["x-hub-signature-256"], format!("sha256={}", hex_hmac(SECRET, &received.body)));
    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.headers[name].parse().unwrap());
    }
    verifier.verify(&received.body, &headers).expect("the published library accepts the signature");
    assert_eq!(received.headers["webhook-id"], json["id"].as_str().unwrap());
    kero.delete("/instances/a/webhook").await.expect(200);
    kero.get("/instances/a/webhook").await.problem(404, "webhook-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_or_refusing_webhook_loses_nothing_over_kill() {
    let simulator = simulator().await;
    let fast = Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"200ms\",\"200ms\",\"500ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\"]");
    let mut kero = Kero::start_with(&simulator, fast).await;
    let sink = Sink::start().await;
    sink.behave(Behaviour::Status(500));
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["message"] })).await.expect(200);
    kero.pair(&simulator, "a", "491512000011").await;
    person(&simulator, "491512000012", Script::Silent);
    for n in 0..5 {
        simulator.send_text("491512000012", "491512000011", &format!("n{n}")).await.unwrap();
    }
    eventually("a first attempt", || async { (!sink.received().is_empty()).then_some(()) }).await;
    kero.restart().await;
    for n in 5..10 {
        simulator.send_text("491512000012", "491512000011", &format!("n{n}")).await.unwrap();
    }
    let before = sink.received().len();
    sink.behave(Behaviour::Status(200));
    let texts = eventually("ten messages", || async {
        let texts: Vec<String> =
            sink.received()[before..].iter().map(|r| r.json()["data"]["text"].as_str().unwrap().to_owned()).collect();
        (texts.iter().collect::<std::collections::HashSet<_>>().len() == 10).then_some(texts)
    })
    .await;
    let mut unique = texts.clone();
    unique.dedup();
    assert_eq!(unique, (0..10).map(|n| format!("n{n}")).collect::<Vec<_>>(), "in order per chat");
    // one event, one id and one body, whatever the number of attempts
    let mut bodies = std::collections::HashMap::new();
    for received in sink.received() {
        let id = received.headers["webhook-id"].clone();
        assert_eq!(bodies.entry(id).or_insert_with(|| received.body.clone()), &received.body);
    }
    assert_eq!(bodies.len(), 10);
}
