//! Smaller promises: counted queries, refused writes, quiet logs, one request id from request to webhook.

use crate::support::{Kero, Options, Sink, eventually, person, simulator};
use kero_simulator::Script;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_send_to_a_known_number_is_one_stanza_and_no_query() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491561000001").await;
    person(&simulator, "491561000002", Script::Silent);
    for n in 0..3 {
        kero.send_text("a", "491561000002", &format!("first {n}")).await.expect(200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = simulator.stats();
    for n in 0..10 {
        kero.send_text("a", "491561000002", &format!("n{n}")).await.expect(200);
    }
    let after = simulator.stats();
    assert_eq!(after.messages - before.messages, 10);
    assert_eq!(after.iqs, before.iqs, "no query of any kind");
}

/// The database refuses to buffer an inbound message, then recovers: the session is rebuilt and the event arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_inbound_write_loses_no_message() {
    let simulator = simulator().await;
    let (kero, sink) = (Kero::start(&simulator).await, Sink::start().await);
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491561000011").await;
    person(&simulator, "491561000012", Script::Silent);
    simulator.send_text("491561000012", "491561000011", "before").await.unwrap();
    sink.wait_for("the first message", |event| event["data"]["text"] == "before").await;
    let database = format!("sqlite://{}/kero.db?mode=rw", kero.data.path().display());
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON pending_inbound BEGIN SELECT RAISE(ABORT, 'refused'); END";
    kero_store::testing::execute(&database, refuse).await.unwrap();
    simulator.send_text("491561000012", "491561000011", "refused").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(sink.events("message").iter().all(|event| event["data"]["text"] != "refused"));
    kero_store::testing::execute(&database, "DROP TRIGGER refuse").await.unwrap();
    sink.wait_for("the refused message", |event| event["data"]["text"] == "refused").await;
    simulator.send_text("491561000012", "491561000011", "after").await.unwrap();
    sink.wait_for("the next message", |event| event["data"]["text"] == "after").await;
    let texts: Vec<_> =
        sink.events("message").iter().map(|event| event["data"]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, ["before", "refused", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_no_text_number_or_secret_and_one_request_id_goes_all_the_way() {
    let simulator = simulator().await;
    let (kero, sink) = (Kero::start(&simulator).await, Sink::start().await);
    let secret = "a-webhook-secret-of-some-length";
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "secret": secret, "events": ["all"] }))
        .await
        .expect(200);
    kero.pair(&simulator, "a", "491561000021").await;
    person(&simulator, "491561000022", Script::Echo);
    let headers = [("x-request-id", "trace-me-1"), ("x-async", "true")];
    let body = json!({ "phone": "491561000022", "message": "highly private text" });
    let answer = kero.post_with("/instances/a/messages/text", &headers, body).await;
    answer.expect(202);
    assert_eq!(answer.header("x-request-id").as_deref(), Some("trace-me-1"));
    let (received, _) = sink.wait_for("the ack", |event| event["event"] == "message_ack").await;
    assert_eq!(received.headers["x-request-id"], "trace-me-1");
    sink.wait_for("the echo", |event| event["data"]["text"] == "echo: highly private text").await;
    kero.send_text("a", "491561000000", "another private text").await;
    let log = kero.log();
    assert!(log.contains("trace-me-1"), "{log}");
    for private in ["private text", "491561000021", "491561000022", "491561000000", secret, crate::support::KEY] {
        assert!(!log.contains(private), "the log names {private}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_prints_a_key_once_and_stores_only_its_hash() {
    let simulator = simulator().await;
    let mut kero = Kero::start_with(&simulator, Options::default().env("KERO_API_KEY", "")).await;
    let key = |log: &str| {
        log.lines().find_map(|line| line.split_whitespace().find(|word| word.starts_with("kero_")).map(str::to_owned))
    };
    let printed = eventually("the key to be printed", || async { key(&kero.log()) }).await;
    let headers = [("x-api-key", printed.as_str())];
    assert_eq!(kero.request(reqwest::Method::GET, "/instances", &headers, None).await.status, 200);
    kero.terminate().await;
    std::fs::write(kero.log_path(), "").unwrap();
    kero.launch().await;
    assert_eq!(key(&kero.log()), None, "printed once");
    assert_eq!(kero.request(reqwest::Method::GET, "/instances", &headers, None).await.status, 200);
    for entry in std::fs::read_dir(kero.data.path()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(printed.len()).any(|window| window == printed.as_bytes());
        assert!(!found, "{:?} has the key in clear", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_build_talks_to_loopback_only() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.terminate().await;
    for url in
        ["wss://web.whatsapp.com/ws/chat", "ws://10.0.0.1/ws", "ws://127.0.0.1.example.com/", "ws://0.0.0.0:1/", ""]
    {
        let output = kero.command().env("KERO_WHATSAPP__URL", url).arg("serve").output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{url} was taken");
        assert!(error.contains("on this machine") || error.contains("loopback"), "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_swagger_are_served_offline() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    assert_eq!(kero.get("/openapi.json").await.expect(200)["openapi"], "3.1.0");
    assert_eq!(kero.get("/openapi-3.0.json").await.expect(200)["openapi"], "3.0.3");
    let page = kero.get("/docs").await;
    assert_eq!(page.status, 200);
    let outside = page.text().matches("src=\"http").count() + page.text().matches("href=\"http").count();
    assert_eq!(outside, 0, "nothing is fetched from elsewhere");
    eventually("metrics", || async { kero.get("/metrics").await.text().contains("kero_").then_some(()) }).await;
    for (version, file) in [("3.1", "openapi.json"), ("3.0", "openapi-3.0.json")] {
        let printed = kero.command().args(["spec", "--version", version]).output().await.unwrap().stdout;
        let committed =
            std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi").join(file)).unwrap();
        assert!(printed.trim_ascii() == committed.trim_ascii(), "openapi/{file} is stale: UPDATE=1 cargo test … spec");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_prepares_a_database_once() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.terminate().await;
    let fresh = tempfile::TempDir::new().unwrap();
    let migrate = || kero.command().env("KERO_DATA_DIR", fresh.path()).arg("migrate").output();
    let first = migrate().await.unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(String::from_utf8_lossy(&first.stdout).contains("m2026"), "it names what it applied");
    let second = migrate().await.unwrap();
    assert!(second.status.success());
    assert!(!String::from_utf8_lossy(&second.stdout).contains("m2026"), "nothing is applied twice");
}
