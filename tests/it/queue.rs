//! Asynchronous sends: accepted means accounted for.

use crate::support::{Kero, Options, Redis, Sink, eventually, person, simulator};
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use serde_json::{Value, json};
use std::collections::HashMap;

struct Setup {
    simulator: Simulator,
    kero: Kero,
    redis: Redis,
    sink: Sink,
}

async fn setup(own: &str, options: Options) -> Setup {
    let (simulator, redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options =
        options.redis(redis.url()).env("KERO_DELIVERY__SCHEDULE", "[\"200ms\",\"500ms\",\"1s\",\"2s\",\"2s\",\"2s\"]");
    let kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", own).await;
    Setup { simulator, kero, redis, sink }
}

fn acks(sink: &Sink) -> HashMap<String, Vec<Value>> {
    let mut found: HashMap<String, HashMap<String, Value>> = HashMap::new();
    for event in sink.events("message_ack") {
        let correlation = event["data"]["correlation_id"].as_str().unwrap().to_owned();
        found.entry(correlation).or_default().insert(event["id"].as_str().unwrap().to_owned(), event);
    }
    found.into_iter().map(|(correlation, events)| (correlation, events.into_values().collect())).collect()
}

async fn ack_of(sink: &Sink, correlation: &str) -> Value {
    let (_, event) = sink
        .wait_for("a message_ack", |json| {
            json["event"] == "message_ack" && json["data"]["correlation_id"] == correlation
        })
        .await;
    event
}

/// The seed's §3.2: the 202, both acks with exactly their keys, and the job seen on the lists.
#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_asynchronous_send() {
    let s = setup("491521000001", Options::default()).await;
    person(&s.simulator, "491521000002", Script::Silent);
    s.kero.post_empty("/queue/pause").await.expect(200);
    let answer = s
        .kero
        .post_with("/messages/text", &[("x-async", "true")], json!({ "phone": "491521000002", "message": "Hello" }))
        .await;
    let accepted = answer.expect(202);
    assert_eq!((accepted["success"].as_bool(), accepted["status"].as_str()), (Some(true), Some("queued")));
    let correlation = accepted["correlation_id"].as_str().unwrap().to_owned();
    let elements = eventually("the job on kero_message_queue", || async {
        let elements = s.redis.list("kero_message_queue").await;
        (!elements.is_empty()).then_some(elements)
    })
    .await;
    assert_eq!(elements.len(), 1);
    assert_eq!(elements[0]["correlation_id"], correlation);
    assert_eq!(elements[0]["instance_id"], "a");
    assert_eq!(elements[0]["type"], "text");
    assert_eq!(elements[0]["payload"]["message"], "Hello");
    assert_eq!(elements[0]["message_id"], accepted["message_id"]);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(s.redis.len("kero_message_queue").await, 1, "while paused nothing leaves");
    assert!(s.simulator.received_texts("491521000002").await.is_empty());
    s.kero.post_empty("/queue/resume").await.expect(200);
    let ack = ack_of(&s.sink, &correlation).await;
    let keys: Vec<&str> = ack["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["status", "correlation_id", "message_id", "attempts"]);
    assert_eq!(ack["data"]["status"], "sent");
    assert_eq!(ack["data"]["message_id"], accepted["message_id"]);
    eventually("the lists to be empty", || async {
        (s.redis.len("kero_message_queue").await == 0 && s.redis.len("kero_processing").await == 0).then_some(())
    })
    .await;

    let hopeless = s.kero.send_async("a", "491521000000", "x").await;
    let correlation = hopeless["correlation_id"].as_str().unwrap();
    let ack = ack_of(&s.sink, correlation).await;
    let keys: Vec<&str> = ack["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["status", "correlation_id", "error", "code", "attempts"]);
    assert_eq!(ack["data"]["status"], "failed");
    assert_eq!(ack["data"]["code"], "recipient-not-on-whatsapp");
    let letters = eventually("the dead letter", || async {
        let letters = s.redis.list("kero_dead_letter_queue").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters[0]["correlation_id"], correlation);
    assert_eq!(letters[0]["code"], "recipient-not-on-whatsapp");
    for member in ["reason", "attempts", "failed_at", "instance_id", "type", "payload"] {
        assert!(letters[0].get(member).is_some(), "{member}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_flushed_or_full_of_junk_loses_nothing() {
    let mut s = setup("491521000011", Options::default()).await;
    person(&s.simulator, "491521000012", Script::Silent);
    let mut accepted = Vec::new();
    let mut send = async |kero: &Kero, n: usize| {
        let answer = kero.send_async("a", "491521000012", &format!("n{n}")).await;
        accepted.push(answer["correlation_id"].as_str().unwrap().to_owned());
    };
    for n in 0..5 {
        send(&s.kero, n).await;
    }
    s.redis.kill().await;
    for n in 5..10 {
        send(&s.kero, n).await;
    }
    let health = s.kero.get("/health").await.expect(200);
    assert_eq!((health["status"].as_str(), health["redis"].as_str()), (Some("degraded"), Some("error")), "{health}");
    s.redis.launch().await;
    for junk in [
        "junk",
        "{}",
        "[1,2",
        "{\"correlation_id\":3}",
        "{\"instance_id\":\"nobody\",\"correlation_id\":\"x\",\"payload\":{\"phone\":\"491521000012\"}}",
    ] {
        s.redis.command(&["LPUSH", "kero_message_queue", junk]).await;
    }
    for n in 10..15 {
        send(&s.kero, n).await;
    }
    s.redis.command(&["FLUSHALL"]).await;
    s.redis.command(&["SET", "kero_message_queue", "wrong type"]).await;
    for n in 15..20 {
        send(&s.kero, n).await;
    }
    s.redis.command(&["DEL", "kero_message_queue"]).await;
    eventually("twenty acks", || async { (acks(&s.sink).len() == 20).then_some(()) }).await;
    let acks = acks(&s.sink);
    for correlation in &accepted {
        let events = &acks[correlation];
        assert_eq!(events.len(), 1, "exactly one message_ack");
        assert_eq!(events[0]["data"]["status"], "sent");
    }
    let texts: Vec<String> =
        s.simulator.received_texts("491521000012").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, (0..20).map(|n| format!("n{n}")).collect::<Vec<_>>(), "once each, in order");
    eventually("redis to be well again", || async {
        (s.kero.get("/health").await.json()["redis"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_in_the_queue_goes_to_the_dead_letters() {
    let s = setup("491521000021", Options::default()).await;
    for junk in [
        "junk",
        "{}",
        "\u{0}\u{1}",
        "{\"instance_id\":\"nobody\",\"correlation_id\":\"x\",\"payload\":{\"phone\":\"491521000012\"}}",
    ] {
        s.redis.command(&["LPUSH", "kero_message_queue", junk]).await;
    }
    let letters = eventually("four dead letters", || async {
        let letters = s.redis.list("kero_dead_letter_queue").await;
        (letters.len() == 4).then_some(letters)
    })
    .await;
    assert!(letters.iter().all(|letter| letter["code"] == "unknown_job"), "{letters:?}");
    // an element of a finished job, twice, is harmless
    person(&s.simulator, "491521000022", Script::Silent);
    let sent = s.kero.send_async("a", "491521000022", "once").await;
    ack_of(&s.sink, sent["correlation_id"].as_str().unwrap()).await;
    let element = json!({ "correlation_id": sent["correlation_id"], "instance_id": "a", "type": "text", "payload": { "phone": "491521000022", "message": "once" }, "message_id": sent["message_id"], "created_at": 0 }).to_string();
    for _ in 0..2 {
        s.redis.command(&["LPUSH", "kero_message_queue", &element]).await;
    }
    eventually("the queue to be empty", || async {
        (s.redis.len("kero_message_queue").await == 0 && s.redis.len("kero_processing").await == 0).then_some(())
    })
    .await;
    assert_eq!(s.simulator.received_texts("491521000022").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_duplicates_with_one_idempotency_key_are_one_send() {
    let s = setup("491521000031", Options::default()).await;
    person(&s.simulator, "491521000032", Script::Silent);
    let body = json!({ "phone": "491521000032", "message": "once" });
    for (key, headers) in [("sync", vec![]), ("async", vec![("x-async", "1")])] {
        let mut headers: Vec<(&str, &str)> = headers;
        headers.push(("idempotency-key", key));
        let answers = futures_util::future::join_all(
            (0..100).map(|_| s.kero.post_with("/instances/a/messages/text", &headers, body.clone())),
        )
        .await;
        let first = answers[0].json();
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
            assert_eq!(answer.json()["message_id"], first["message_id"]);
        }
    }
    // the same JSON with other spacing and member order is the same body; another body is refused
    let spaced = b"{ \"message\" : \"once\", \"phone\":\"491521000032\" }".to_vec();
    s.kero
        .request(reqwest::Method::POST, "/instances/a/messages/text", &[("idempotency-key", "sync")], Some(spaced))
        .await
        .expect(200);
    let other = json!({ "phone": "491521000032", "message": "twice" });
    s.kero
        .post_with("/instances/a/messages/text", &[("idempotency-key", "sync")], other)
        .await
        .problem(422, "idempotency-mismatch");
    eventually("both texts", || async { (s.simulator.received_texts("491521000032").await.len() == 2).then_some(()) })
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(s.simulator.received_texts("491521000032").await.len(), 2);
    for key in ["", &"x".repeat(1_000_000), "a\tb"] {
        if key.is_empty() || key.len() > 255 {
            continue; // an empty header is not sent by the client; a huge one is refused by the HTTP parser
        }
        s.kero
            .post_with("/instances/a/messages/text", &[("idempotency-key", key)], body.clone())
            .await
            .problem(400, "invalid-idempotency-key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn correlation_ids_are_the_callers_and_unique() {
    let s = setup("491521000041", Options::default()).await;
    person(&s.simulator, "491521000042", Script::Silent);
    let body = json!({ "phone": "491521000042", "message": "x" });
    let headers = [("x-async", "true"), ("x-correlation-id", "order:1~a")];
    let accepted = s.kero.post_with("/instances/a/messages/text", &headers, body.clone()).await.expect(202);
    assert_eq!(accepted["correlation_id"], "order:1~a");
    s.kero.post_with("/instances/a/messages/text", &headers, body.clone()).await.problem(409, "correlation-id-taken");
    for bad in ["a b", "ä", "a/b", &"x".repeat(129)] {
        s.kero
            .post_with("/instances/a/messages/text", &[("x-async", "true"), ("x-correlation-id", bad)], body.clone())
            .await
            .problem(400, "invalid-correlation-id");
    }
    let ack = ack_of(&s.sink, "order:1~a").await;
    assert_eq!(ack["data"]["status"], "sent");
    let job = s.kero.get("/instances/a/jobs/order:1~a").await.expect(200);
    assert!(matches!(job["data"]["state"].as_str(), Some("sent" | "delivered")), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_ends_a_job_or_is_retried_by_its_code() {
    let s = setup("491521000051", Options::default()).await;
    person(&s.simulator, "491521000052", Script::Silent);
    s.simulator.inject(FaultRule::new(Fault::Nack).code(479).count(1));
    let refused = s.kero.send_async("a", "491521000052", "refused").await;
    let ack = ack_of(&s.sink, refused["correlation_id"].as_str().unwrap()).await;
    assert_eq!((ack["data"]["status"].as_str(), ack["data"]["code"].as_str()), (Some("failed"), Some("479")));
    s.simulator.inject(FaultRule::new(Fault::Nack).code(503).count(1));
    let retried = s.kero.send_async("a", "491521000052", "retried").await;
    let ack = ack_of(&s.sink, retried["correlation_id"].as_str().unwrap()).await;
    assert_eq!((ack["data"]["status"].as_str(), ack["data"]["attempts"].as_u64()), (Some("sent"), Some(2)));
    let lines: Vec<_> =
        s.simulator.ledger().into_iter().filter(|line| line.id == retried["message_id"].as_str().unwrap()).collect();
    assert!(!lines.is_empty());
    // synchronous: the code is named
    s.simulator.inject(FaultRule::new(Fault::Nack).code(400).count(1));
    let problem = s.kero.send_text("a", "491521000052", "x").await.problem(502, "send-refused");
    assert_eq!(problem["reason"], "400");
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_jobs_wait_burn_no_attempt_and_go_in_order() {
    let s = setup("491521000061", Options::default()).await;
    person(&s.simulator, "491521000062", Script::Silent);
    s.kero.post_empty("/instances/a/disconnect").await.expect(200);
    let mut correlations = Vec::new();
    for n in 0..10 {
        let accepted = s.kero.send_async("a", "491521000062", &format!("n{n}")).await;
        correlations.push(accepted["correlation_id"].as_str().unwrap().to_owned());
    }
    let job = s.kero.get(&format!("/instances/a/jobs/{}", correlations[0])).await.expect(200);
    assert_eq!(
        (job["data"]["state"].as_str(), job["data"]["held_reason"].as_str()),
        (Some("held"), Some("offline")),
        "{job}"
    );
    assert_eq!(s.redis.len("kero_message_queue").await, 0, "offline jobs wait in their rows");
    s.kero.post(&format!("/instances/a/jobs/{}/cancel", correlations[9]), json!({})).await.expect(200);
    assert_eq!(ack_of(&s.sink, &correlations[9]).await["data"]["status"], "cancelled");
    s.kero.post_empty("/instances/a/connect").await.expect(200);
    for correlation in &correlations[..9] {
        let ack = ack_of(&s.sink, correlation).await;
        assert_eq!((ack["data"]["status"].as_str(), ack["data"]["attempts"].as_u64()), (Some("sent"), Some(1)));
    }
    let texts: Vec<String> =
        s.simulator.received_texts("491521000062").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, (0..9).map(|n| format!("n{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_send_survives_a_restart_and_runs_within_a_second() {
    let mut s = setup("491521000071", Options::default()).await;
    person(&s.simulator, "491521000072", Script::Silent);
    let at = kero_domain::Timestamp::now().after(std::time::Duration::from_secs(8));
    let body = json!({ "phone": "491521000072", "message": "later", "send_at": at.rfc3339() });
    let accepted = s.kero.post_with("/instances/a/messages/text", &[("x-async", "true")], body).await.expect(202);
    s.kero.restart().await;
    s.kero.wait_status("a", "connected").await;
    assert!(s.simulator.received_texts("491521000072").await.is_empty());
    let line = s
        .simulator
        .wait_for(|line| line.id == accepted["message_id"].as_str().unwrap(), std::time::Duration::from_secs(20))
        .await
        .expect("it is sent");
    let late = i64::try_from(line.at).unwrap() - at.0;
    assert!((0..1_000).contains(&late), "{late} ms after its time");
    for bad in ["2026", "tomorrow", "2026-01-01T00:00:00", "9999-01-01T00:00:00Z"] {
        let body = json!({ "phone": "491521000072", "message": "x", "send_at": bad });
        s.kero
            .post_with("/instances/a/messages/text", &[("x-async", "true")], body)
            .await
            .problem(400, "validation-failed");
    }
}

/// A synchronous send whose acknowledgement does not come: the request is told so, the job settles under the same id.
#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_send_with_an_unknown_outcome_settles_by_itself() {
    let options = Options::default().env("KERO_SENDING__SYNC_TIMEOUT", "1s").env("KERO_SENDING__ACK_TIMEOUT", "2s");
    let s = setup("491521000081", options).await;
    // a linked account whose device is away gives no receipt that could prove the send
    s.kero.paired(&s.simulator, "b", "491521000082").await;
    s.kero.post_empty("/instances/b/disconnect").await.expect(200);
    s.kero.send_text("a", "491521000082", "first").await.expect(200);
    s.simulator.inject(FaultRule::new(Fault::AckMissing).phone("491521000081").count(1));
    let answer = s.kero.send_text("a", "491521000082", "in doubt").await;
    let problem = answer.problem(504, "send-outcome-unknown");
    let correlation = problem["correlation_id"].as_str().unwrap().to_owned();
    let ack = ack_of(&s.sink, &correlation).await;
    assert_eq!((&ack["data"]["status"], &ack["data"]["message_id"]), (&json!("sent"), &problem["message_id"]));
    let texts: HashMap<String, String> =
        s.simulator.received_texts("491521000082").await.into_iter().map(|text| (text.id, text.text)).collect();
    assert_eq!(texts.len(), 2, "one id for it, however often it was sent");
    // no acknowledgement and no receipt came for the first try: only a second one can have made it `sent`
    let tries = s.simulator.ledger().iter().filter(|line| problem["message_id"] == line.id.as_str()).count();
    assert_eq!(tries, 2, "`sent` needs the server's word");
}

/// Connected, but nothing begins: the request ends, its job is cancelled, and nothing is sent later.
#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_send_that_never_began_is_cancelled() {
    let options = Options::default()
        .env("KERO_SENDING__SYNC_TIMEOUT", "1s")
        .env("KERO_WHATSAPP__RECONNECT_BASE", "60s")
        .env("KERO_WHATSAPP__RECONNECT_CEILING", "60s");
    let s = setup("491521000091", options).await;
    person(&s.simulator, "491521000092", Script::Silent);
    s.simulator.inject(FaultRule::new(Fault::DropSocket).phone("491521000091"));
    s.kero.wait_status("a", "connecting").await;
    s.kero.send_text("a", "491521000092", "never").await.problem(409, "instance-not-connected");
    let jobs = s.kero.get("/instances/a/jobs").await.expect(200);
    assert_eq!(jobs["data"][0]["state"], "cancelled", "{jobs}");
    assert!(s.sink.events("message_ack").is_empty(), "its request was told");
    s.kero.post_empty("/instances/a/connect").await.expect(200);
    s.kero.wait_status("a", "connected").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(s.simulator.received_texts("491521000092").await.is_empty());
}
