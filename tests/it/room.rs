//! Room: retention, a full queue, a full database. Nothing that was accepted is lost.

use crate::support::{Kero, Options, Redis, Sink, eventually, eventually_within, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn old_jobs_and_events_go_and_what_is_needed_stays() {
    let (simulator, redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env("KERO_RETENTION__JOBS", "2s")
        .env("KERO_RETENTION__EVENTS", "2s")
        .env("KERO_RETENTION__EVERY", "300ms")
        .env("KERO_QUEUE__RECONCILE_EVERY", "300ms");
    let kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491524000001").await;
    person(&simulator, "491524000002", Script::Silent);
    let body = json!({ "phone": "491524000002", "message": "keyed" });
    let keyed =
        kero.post_with("/instances/a/messages/text", &[("idempotency-key", "k")], body.clone()).await.expect(200);
    kero.send_text("a", "491524000002", "plain").await.expect(200);
    kero.send_async("a", "491524000000", "a dead letter").await;
    let far = kero_domain::Timestamp::now().after(Duration::from_secs(3_600)).rfc3339();
    let later = json!({ "phone": "491524000002", "message": "later", "send_at": far });
    kero.post("/instances/a/messages/text", later).await.expect(202);
    sink.wait_for("the dead letter's end", |event| event["event"] == "message_ack").await;
    let jobs =
        async || -> Vec<Value> { kero.get("/instances/a/jobs").await.expect(200)["data"].as_array().unwrap().clone() };
    eventually("two jobs to be left", || async { (jobs().await.len() == 2).then_some(()) }).await;
    let left = jobs().await;
    assert_eq!(left[0]["state"], "held", "the scheduled one");
    assert_eq!(left[1]["message_id"], keyed["message_id"], "the one whose key is remembered");
    let again = kero.post_with("/instances/a/messages/text", &[("idempotency-key", "k")], body).await.expect(200);
    assert_eq!(again["message_id"], keyed["message_id"]);
    eventually("no event to be left", || async {
        let events = kero.get("/instances/a/events").await.expect(200);
        events["data"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    assert!(kero.get("/instances/a/dead-letters").await.expect(200)["data"].as_array().unwrap().is_empty());
    eventually("the letter in Redis to go", || async {
        (redis.len("kero_dead_letter_queue").await == 0).then_some(())
    })
    .await;
    // a number is never given twice
    let newest = kero.send_async("a", "491524000002", "after").await;
    let (_, ack) =
        sink.wait_for("the next end", |event| event["data"]["correlation_id"] == newest["correlation_id"]).await;
    assert!(ack["seq"].as_u64() > Some(1), "{ack}");
    assert!(kero.get("/metrics").await.text().contains("kero_pruned_jobs_total"));
}

/// The newest of each instance are kept, and what has not ended is never counted among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_jobs_is_kept_of_each_instance() {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let options = Options::default().env("KERO_RETENTION__MAX_JOBS", "3").env("KERO_RETENTION__EVERY", "300ms");
    let kero = Kero::start_with(&simulator, options).await;
    for (id, phone) in [("a", "491524000041"), ("b", "491524000042")] {
        kero.post("/instances", json!({ "instance_id": id, "webhook_url": sink.url })).await.expect(201);
        kero.pair(&simulator, id, phone).await;
    }
    person(&simulator, "491524000043", Script::Silent);
    let far = kero_domain::Timestamp::now().after(Duration::from_secs(3_600)).rfc3339();
    for n in 0..4 {
        let later = json!({ "phone": "491524000043", "message": n.to_string(), "send_at": far });
        kero.post("/instances/a/messages/text", later).await.expect(202);
    }
    let mut ids = Vec::new();
    for n in 0..8 {
        let sent = kero.send_text("a", "491524000043", &n.to_string()).await.expect(200);
        ids.push(sent["message_id"].clone());
    }
    for n in 0..2 {
        kero.send_text("b", "491524000043", &n.to_string()).await.expect(200);
    }
    let jobs = async |id: &str| -> Vec<Value> {
        kero.get(&format!("/instances/{id}/jobs")).await.expect(200)["data"].as_array().unwrap().clone()
    };
    eventually("three that ended, and four that wait", || async { (jobs("a").await.len() == 7).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left: Vec<Value> = jobs("a").await;
    let kept: Vec<Value> =
        left.iter().filter(|job| job["state"] != "held").map(|job| job["message_id"].clone()).collect();
    let newest: Vec<Value> = ids[5..].iter().rev().cloned().collect();
    assert_eq!((left.len(), kept), (7, newest));
    assert_eq!(jobs("b").await.len(), 2, "another instance has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_has_room_again() {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let options = Options::default().env("KERO_QUEUE__MAX_JOBS", "5").env("KERO_QUEUE__MAX_JOBS_TOTAL", "7");
    let mut kero = Kero::start_with(&simulator, options).await;
    for (id, phone) in [("a", "491524000011"), ("b", "491524000012")] {
        kero.post("/instances", json!({ "instance_id": id, "webhook_url": sink.url })).await.expect(201);
        kero.pair(&simulator, id, phone).await;
        kero.post_empty(&format!("/instances/{id}/disconnect")).await.expect(200);
    }
    person(&simulator, "491524000013", Script::Silent);
    let body = json!({ "phone": "491524000013", "message": "0" });
    let headers = [("x-async", "1"), ("idempotency-key", "k")];
    let first = kero.post_with("/instances/a/messages/text", &headers, body.clone()).await.expect(202);
    for n in 1..5 {
        kero.send_async("a", "491524000013", &n.to_string()).await;
    }
    let refused = async |id: &str| {
        let body = json!({ "phone": "491524000013", "message": "refused" });
        let answer = kero.post_with(&format!("/instances/{id}/messages/text"), &[("x-async", "1")], body).await;
        answer.problem(503, "queue-full");
        assert!(answer.header("retry-after").is_some());
    };
    refused("a").await;
    let again = kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202);
    assert_eq!(again["message_id"], first["message_id"], "a repeated request is answered");
    kero.send_async("b", "491524000013", "b0").await;
    kero.send_async("b", "491524000013", "b1").await;
    refused("b").await;
    // a cancelled one makes room, and a restart counts the rows
    let job = format!("/instances/a/jobs/{}/cancel", first["correlation_id"].as_str().unwrap());
    kero.post_empty(&job).await.expect(200);
    kero.send_async("a", "491524000013", "5").await;
    kero.restart().await;
    let body = json!({ "phone": "491524000013", "message": "refused" });
    kero.post_with("/instances/a/messages/text", &[("x-async", "1")], body).await.problem(503, "queue-full");
    for id in ["a", "b"] {
        kero.post_empty(&format!("/instances/{id}/connect")).await.expect(200);
        kero.wait_status(id, "connected").await;
    }
    eventually("everything to be sent", || async {
        (simulator.received_texts("491524000013").await.len() == 7).then_some(())
    })
    .await;
    eventually("room", || async { (kero.get("/queue").await.json()["total"] == 0).then_some(()) }).await;
    kero.send_async("a", "491524000013", "6").await;
    let texts = simulator.received_texts("491524000013").await;
    assert!(texts.iter().all(|text| text.text != "refused"));
}

/// What the two tests of a full database share: it is filled, and later everything that was accepted is sent.
struct Full {
    simulator: kero_simulator::Simulator,
    sink: Sink,
    kero: Kero,
    phone: String,
    accepted: HashMap<String, String>,
}

impl Full {
    async fn setup(own: &str, phone: &str, options: Options) -> Self {
        let (simulator, sink) = (simulator().await, Sink::start().await);
        let kero = Kero::start_with(&simulator, options).await;
        kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
        kero.pair(&simulator, "a", own).await;
        person(&simulator, phone, Script::Silent);
        kero.send_text("a", phone, "first").await.expect(200);
        kero.post_empty("/queue/pause").await.expect(200);
        Self { simulator, sink, kero, phone: phone.to_owned(), accepted: HashMap::new() }
    }

    /// Sends until three in a row are refused.
    async fn fill(&mut self) {
        let padding = "x".repeat(8_000);
        let (mut in_a_row, mut full) = (0, 0);
        for n in 0..10_000 {
            let body = json!({ "phone": self.phone, "message": format!("{} {padding}", self.accepted.len()) });
            let answer = self.kero.post_with("/instances/a/messages/text", &[("x-async", "1")], body).await;
            if answer.status == 202 {
                in_a_row = 0;
                let correlation = answer.json()["correlation_id"].as_str().unwrap().to_owned();
                self.accepted.insert(correlation, n.to_string());
                continue;
            }
            // a file system may also refuse the database's own bookkeeping
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            assert!(
                matches!((answer.status, code.as_str()), (507, "storage-full") | (503, "storage-unavailable")),
                "{code}"
            );
            full += usize::from(answer.status == 507);
            in_a_row += 1;
            if in_a_row == 3 {
                break;
            }
        }
        assert!(full > 0 && self.accepted.len() > 5, "{} accepted, {full} refused", self.accepted.len());
        assert_eq!(self.kero.get("/health").await.status, 200, "reading goes on");
        // what was accepted before runs into the full database as well, and waits there
        self.kero.post_empty("/queue/resume").await.expect(200);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn all_sent(&self) {
        eventually_within(Duration::from_secs(90), "an end for everything that was accepted", || async {
            let acks = self.sink.events("message_ack");
            let ended: BTreeSet<&str> =
                acks.iter().map(|ack| ack["data"]["correlation_id"].as_str().unwrap()).collect();
            self.accepted.keys().all(|correlation| ended.contains(correlation.as_str())).then_some(())
        })
        .await;
        let mut seen = BTreeSet::new();
        let texts: Vec<String> = self
            .simulator
            .received_texts(&self.phone)
            .await
            .into_iter()
            .filter(|text| seen.insert(text.id.clone()))
            .map(|text| text.text.chars().take_while(|c| *c != ' ').collect())
            .collect();
        let expected: Vec<String> =
            std::iter::once("first".to_owned()).chain((0..self.accepted.len()).map(|n| n.to_string())).collect();
        assert_eq!(texts, expected, "each once, in order");
        assert!(self.sink.events("message_ack").iter().all(|ack| ack["data"]["status"] == "sent"));
    }
}

/// A database that may not grow: sends are refused with 507; with room again everything that was accepted is sent, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_refuses_and_loses_nothing() {
    let options = Options::default().env("KERO_DATABASE__MAX_SIZE", "1500000");
    let mut full = Full::setup("491524000021", "491524000022", options).await;
    full.fill().await;
    full.kero.kill().await;
    full.kero.set_env("KERO_DATABASE__MAX_SIZE", "0");
    full.kero.launch().await;
    full.all_sent().await;
}

/// The same with a file system that is really full, and that grows while the gateway runs. Only root may mount one; the
/// test above is for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_heals_by_itself() {
    let disk = tempfile::TempDir::new().unwrap();
    let name = format!("kero-test-{}", std::process::id());
    let mount = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("mount");
        command.args(arguments).arg(disk.path()).stderr(std::process::Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=6m", &name]).await {
        println!("no file system may be mounted here; a_full_database_refuses_and_loses_nothing stands in");
        return;
    }
    let database = format!("sqlite://{}/kero.db?mode=rwc", disk.path().display());
    let mut full = Full::setup("491524000031", "491524000032", Options::default().database(database)).await;
    full.fill().await;
    assert!(mount(&["-o", "remount,size=64m"]).await, "the disk grows");
    full.all_sent().await;
    full.kero.kill().await;
    let _ = tokio::process::Command::new("umount").arg("--lazy").arg(disk.path()).status().await;
}
