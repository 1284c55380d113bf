//! The life of an instance: concurrency, kill -9 in each state, no zombie, no orphan, no inherited data.

use crate::support::{Kero, Sink, eventually, person, simulator};
use kero_simulator::{Fault, FaultRule, Script};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_keeps_the_credentials_and_logout_removes_the_device() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491513000001").await;
    kero.post_empty("/instances/a/disconnect").await.expect(200);
    assert_eq!(kero.status("a").await["status"], "disconnected");
    assert_eq!(kero.status("a").await["cause"], "requested");
    kero.send_text("a", "491513000002", "x").await.problem(409, "instance-not-connected");
    kero.post_empty("/instances/a/connect").await.expect(200);
    kero.wait_status("a", "connected").await;
    kero.post_empty("/instances/a/logout").await.expect(200);
    let status = kero.status("a").await;
    assert_eq!((status["status"].as_str(), status["cause"].as_str()), (Some("logged_out"), Some("logout-requested")));
    assert_eq!(simulator.stats().devices, 0, "WhatsApp no longer knows the device");
    kero.post_empty("/instances/a/logout").await.problem(409, "instance-not-paired");
    kero.pair(&simulator, "a", "491513000001").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unlinking_on_the_phone_logs_out_without_reconnect() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491513000011").await;
    simulator.unlink("491513000011", None).await.unwrap();
    let status = kero.wait_status("a", "logged_out").await;
    assert_eq!(status["cause"], "device-removed");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(kero.status("a").await["status"], "logged_out");
    kero.send_text("a", "491513000012", "x").await.problem(409, "instance-not-connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn paired_instances_resume_after_kill_and_inbound_is_not_lost() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.paired(&simulator, "a", "491513000021").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["message"] })).await.expect(200);
    person(&simulator, "491513000022", Script::Silent);
    kero.kill().await;
    for n in 0..20 {
        simulator.send_text("491513000022", "491513000021", &format!("offline {n}")).await.unwrap();
    }
    kero.launch().await;
    kero.wait_status("a", "connected").await;
    eventually("twenty messages", || async { (sink.events("message").len() >= 20).then_some(()) }).await;
    let texts: Vec<_> =
        sink.events("message").iter().map(|event| event["data"]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, (0..20).map(|n| format!("offline {n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creates_and_connects_leave_one_of_each() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let creates =
        futures_util::future::join_all((0..16).map(|_| kero.post("/instances", json!({ "instance_id": "same" }))))
            .await;
    let created = creates.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for answer in creates.iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "instance-exists");
    }
    kero.pair(&simulator, "same", "491513000031").await;
    kero.post_empty("/instances/same/disconnect").await.expect(200);
    let connects = futures_util::future::join_all((0..16).map(|_| kero.post_empty("/instances/same/connect"))).await;
    assert!(connects.iter().all(|answer| answer.status == 200));
    kero.wait_status("same", "connected").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(kero.status("same").await["status"], "connected", "no connection replaced another");
    assert_eq!(simulator.stats().connected, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_with_an_old_id_inherits_nothing() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.paired(&simulator, "a", "491513000041").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url })).await.expect(200);
    person(&simulator, "491513000042", Script::Silent);
    kero.send_text("a", "491513000042", "x").await.expect(200);
    kero.delete("/instances/a").await.expect(200);
    assert_eq!(simulator.stats().devices, 0, "deleting unlinks the device");
    for path in ["/instances/a", "/instances/a/status", "/instances/a/jobs", "/instances/a/webhook"] {
        kero.get(path).await.problem(404, "instance-not-found");
    }
    kero.create("a").await;
    kero.get("/instances/a/webhook").await.problem(404, "webhook-not-found");
    assert_eq!(kero.get("/instances/a/jobs").await.expect(200)["data"], json!([]));
    assert_eq!(kero.status("a").await["status"], "disconnected");
    assert_eq!(kero.get("/instances/a").await.expect(200)["data"].get("jid"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_while_pairing_and_kill_in_each_state_leave_no_zombie() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.create("pairing").await;
    kero.get("/instances/pairing/qr").await.expect(200);
    kero.delete("/instances/pairing").await.expect(200);
    kero.get("/instances/pairing").await.problem(404, "instance-not-found");
    // killed while pairing: it starts over
    kero.create("b").await;
    kero.get("/instances/b/qr").await.expect(200);
    kero.restart().await;
    assert_eq!(kero.status("b").await["status"], "disconnected");
    kero.pair(&simulator, "b", "491513000051").await;
    // killed while connecting
    kero.post_empty("/instances/b/disconnect").await.expect(200);
    kero.post_empty("/instances/b/connect").await.expect(200);
    kero.restart().await;
    kero.wait_status("b", "connected").await;
    // killed after a disconnect: stays disconnected
    kero.post_empty("/instances/b/disconnect").await.expect(200);
    kero.restart().await;
    assert_eq!(kero.status("b").await["status"], "disconnected");
    assert_eq!(kero.get("/instances").await.expect(200)["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn qr_comes_in_four_forms_and_pairs_by_code_too() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.create("a").await;
    let get =
        async |accept: &'static str| kero.request(Method::GET, "/instances/a/qr", &[("accept", accept)], None).await;
    let json = get("application/json").await.expect(200);
    assert_eq!((json["format"].as_str(), json["image_type"].as_str()), (Some("base64"), Some("png")));
    let png = get("image/png").await;
    assert_eq!(png.header("content-type").as_deref(), Some("image/png"));
    assert!(png.bytes.starts_with(b"\x89PNG"));
    assert!(get("image/svg+xml").await.text().contains("<svg"));
    let text = get("text/plain").await;
    assert_eq!(text.text().split(',').count(), 5, "{}", text.text());
    assert!(text.header("cache-control").is_some_and(|value| value.contains("no-store")));
    let code = kero.post("/instances/a/pair-code", json!({ "phone": "+49 151 3000 061" })).await.expect(200);
    let code = code["data"]["code"].as_str().or(code["code"].as_str()).expect("a code").to_owned();
    assert_eq!(code.chars().filter(char::is_ascii_alphanumeric).count(), 8);
    // looking for a picture neither waits nor ends the code; disconnecting does, and pictures come again
    get("application/json").await.problem(404, "qr-not-available");
    kero.post("/instances/a/disconnect", json!({})).await.expect(200);
    get("application/json").await.expect(200);
    let code = kero.post("/instances/a/pair-code", json!({ "phone": "+49 151 3000 061" })).await.expect(200);
    let code = code["code"].as_str().expect("a code").to_owned();
    simulator.enter_code("491513000061", &code).await.unwrap();
    kero.wait_status("a", "connected").await;
    get("application/json").await.problem(409, "instance-already-paired");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_within_ten_seconds_with_nothing_lost() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491513000071").await;
    person(&simulator, "491513000072", Script::Silent);
    for n in 0..10 {
        kero.send_text("a", "491513000072", &format!("n{n}")).await.expect(200);
    }
    let (took, code) = kero.terminate().await;
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(code, Some(0));
    kero.launch().await;
    kero.wait_status("a", "connected").await;
    kero.send_text("a", "491513000072", "after").await.expect(200);
    let texts: Vec<_> = simulator.received_texts("491513000072").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_and_a_wrong_master_key_are_refused() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    let second = kero.command().arg("serve").output().await.unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("lock"), "{}", String::from_utf8_lossy(&second.stderr));
    kero.terminate().await;
    let wrong = kero.command().env("KERO_MASTER_KEY", "00".repeat(32)).arg("serve").output().await.unwrap();
    assert!(!wrong.status.success());
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("master key"),
        "{}",
        String::from_utf8_lossy(&wrong.stderr)
    );
    kero.launch().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_need_an_operator_are_named_and_never_reconnect() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let phone = "491513000081";
    kero.paired(&simulator, "a", phone).await;
    for (code, cause) in [(409, "replaced"), (405, "client-outdated"), (402, "temporary-ban")] {
        simulator.inject(FaultRule::new(Fault::StreamError).code(code).phone(phone));
        let status = kero.wait_status("a", "failed").await;
        assert_eq!(status["cause"], cause, "{code}");
        assert!(status["detail"].is_string());
        let logins = simulator.stats().logins;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(simulator.stats().logins, logins, "{cause}: no login by itself");
        kero.post_empty("/instances/a/connect").await.expect(200);
        kero.wait_status("a", "connected").await;
    }
    // a passing trouble reconnects by itself
    let logins = simulator.stats().logins;
    simulator.inject(FaultRule::new(Fault::StreamError).code(503).phone(phone));
    eventually("another login", || async { (simulator.stats().logins > logins).then_some(()) }).await;
    kero.wait_status("a", "connected").await;
}

/// Each new code comes by the `pairing` event, without asking for it; so does the end of the pairing.
#[tokio::test(flavor = "multi_thread")]
async fn pairing_can_be_followed_by_its_events() {
    let simulator = simulator().await;
    let (kero, sink) = (Kero::start(&simulator).await, Sink::start().await);
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["pairing"] })).await.expect(200);
    kero.post_empty("/instances/a/connect").await.expect(200);
    let (_, qr) = sink.wait_for("a QR code", |event| event["data"]["kind"] == "qr").await;
    assert!(qr["data"]["expires_at"].is_string());
    simulator.scan_qr(qr["data"]["code"].as_str().unwrap(), Some("491513000091")).await.unwrap();
    sink.wait_for("the end", |event| event["data"]["kind"] == "paired").await;
    kero.wait_status("a", "connected").await;
}
