//! The process dies at every named point of a send, of its result and of its webhook, and at a job that kills it each
//! time: nothing accepted is lost or doubled, the order holds, one end each. (`src/gateway/crash.rs` has the points.)

use crate::chaos::counters_are_unique;
use crate::support::{KEY, Kero, Options, Redis, Sink, eventually, eventually_within, person, simulator};
use kero_domain::Timestamp;
use kero_simulator::{Script, Simulator};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Each point with the pass at which it kills.
pub const POINTS: [&str; 14] = [
    "before_accept:3",
    "after_accept:3",
    "after_push:3",
    "before_intent:3",
    "after_intent:3",
    "before_write:3",
    "after_write:3",
    "after_ack:3",
    "after_result:3",
    "before_dead_letter:1",
    "after_retry:1",
    "before_post:2",
    "after_post:2",
    "after_attempt:2",
];
const CHATS: [&str; 2] = ["491525000002", "491525000003"];
/// Not on WhatsApp.
const NOBODY: &str = "491525000000";

/// One request, repeated until it is answered, whatever happens to the gateway meanwhile.
async fn insist(kero: &mut Kero, path: &str, headers: &[(&str, &str)], body: Value) -> Value {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    for _ in 0..200 {
        kero.revive().await;
        let mut request = http.post(format!("{}{path}", kero.url)).header("x-api-key", KEY).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                if let Ok(body) = answer.json().await {
                    return body;
                }
            }
            Ok(answer) if answer.status().as_u16() == 404 => return answer.json().await.unwrap(),
            Ok(answer) => assert!(answer.status().is_server_error(), "{}", answer.text().await.unwrap_or_default()),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is never answered; log:\n{}", kero.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_named_point_loses_and_doubles_nothing() {
    let (simulator, redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\"]")
        .env("KERO_SENDING__ACK_TIMEOUT", "3s")
        .env("KERO_SENDING__DOUBT_WAIT", "300ms")
        .env("KERO_QUEUE__RETRY_BASE", "300ms")
        .env("KERO_QUEUE__RECONCILE_EVERY", "300ms");
    let mut kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491525000001").await;
    for chat in CHATS {
        person(&simulator, chat, Script::Silent);
    }
    let mut accepted: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut ends: HashMap<String, usize> = HashMap::new();
    for (round, point) in POINTS.iter().enumerate() {
        kero.set_env("KERO_CRASH_AT", point);
        kero.restart().await;
        let before = kero.crashes;
        for n in 0..8 {
            let (correlation, phone) = (format!("r{round:02}n{n}"), CHATS[n % 2]);
            let body = json!({ "phone": phone, "message": correlation });
            let headers = [("x-async", "true"), ("x-correlation-id", &correlation), ("idempotency-key", &correlation)];
            let answer = insist(&mut kero, "/instances/a/messages/text", &headers, body).await;
            accepted.insert(correlation, (phone.to_owned(), answer["message_id"].as_str().unwrap().to_owned()));
        }
        let hopeless = format!("r{round:02}x");
        let headers = [("x-async", "true"), ("x-correlation-id", hopeless.as_str()), ("idempotency-key", &hopeless)];
        insist(&mut kero, "/instances/a/messages/text", &headers, json!({ "phone": NOBODY, "message": "x" })).await;
        wait_for_ends(&mut kero, &sink, &hopeless, 1).await;
        let retry = format!("/instances/a/dead-letters/{hopeless}/retry");
        if point.starts_with("after_retry") {
            // its answer is lost, and asking again could retry it once more
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = http.post(format!("{}{retry}", kero.url)).header("x-api-key", KEY).send().await;
            assert!(answer.is_err(), "{answer:?}");
        } else {
            insist(&mut kero, &retry, &[], json!({})).await;
        }
        wait_for_ends(&mut kero, &sink, &hopeless, 2).await;
        ends.insert(hopeless, 2);
        for correlation in accepted.keys().filter(|name| name.starts_with(&format!("r{round:02}"))) {
            wait_for_ends(&mut kero, &sink, correlation, 1).await;
        }
        assert_eq!(kero.crashes - before, 1, "{point} did not kill it");
    }
    check(&accepted, &sink, &simulator).await;
    for (correlation, count) in &ends {
        assert_eq!(distinct_ends(&sink, correlation), *count, "{correlation}");
    }
    eventually("every dead letter in Redis, once", || async {
        let letters = redis.list("kero_dead_letter_queue").await;
        let names: HashSet<String> = letters.iter().map(|letter| letter["correlation_id"].to_string()).collect();
        (letters.len() == POINTS.len() && names.len() == POINTS.len()).then_some(())
    })
    .await;
    eventually("the other lists to be empty", || async {
        (redis.len("kero_message_queue").await == 0 && redis.len("kero_processing").await == 0).then_some(())
    })
    .await;
    println!("crash points: {} points, {} accepted: lost 0, doubled 0, out of order 0", POINTS.len(), accepted.len());
}

fn distinct_ends(sink: &Sink, correlation: &str) -> usize {
    let of = |event: &Value| event["data"]["correlation_id"] == correlation;
    sink.events("message_ack")
        .iter()
        .filter(|event| of(event))
        .map(|event| event["id"].to_string())
        .collect::<HashSet<_>>()
        .len()
}

async fn wait_for_ends(kero: &mut Kero, sink: &Sink, correlation: &str, count: usize) {
    for _ in 0..600 {
        kero.revive().await;
        if distinct_ends(sink, correlation) >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{count} ends of {correlation}: {}; log:\n{}", distinct_ends(sink, correlation), kero.log());
}

async fn check(accepted: &BTreeMap<String, (String, String)>, sink: &Sink, simulator: &Simulator) {
    for correlation in accepted.keys() {
        assert_eq!(distinct_ends(sink, correlation), 1, "{correlation}");
    }
    assert!(sink.events("message_ack").iter().all(|ack| {
        let sent = ack["data"]["status"] == "sent";
        sent != ack["data"]["correlation_id"].as_str().unwrap().ends_with('x')
    }));
    let ledger = simulator.ledger();
    let mut plaintexts: HashMap<&str, HashSet<&str>> = HashMap::new();
    for line in &ledger {
        plaintexts.entry(&line.id).or_default().extend(line.plaintext_sha256.as_deref());
    }
    assert!(plaintexts.values().all(|hashes| hashes.len() <= 1), "one content for one id");
    for chat in CHATS {
        let mut seen = HashSet::new();
        let texts = simulator.received_texts(chat).await;
        let shown: Vec<(&str, &str)> = texts
            .iter()
            .filter(|text| seen.insert(text.id.clone()))
            .map(|text| (text.id.as_str(), text.text.as_str()))
            .collect();
        let expected: Vec<(&str, &str)> = accepted
            .iter()
            .filter(|(_, (phone, _))| phone == chat)
            .map(|(correlation, (_, id))| (id.as_str(), correlation.as_str()))
            .collect();
        assert_eq!(shown, expected, "lost, doubled or out of order");
    }
    counters_are_unique(&ledger, 0);
}

/// A job that ends the process whenever it is sent is dead after its attempts, and its lane moves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_dies_and_its_lane_moves_on() {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let options = Options::default()
        .env("KERO_QUEUE__MAX_RETRIES", "2")
        .env("KERO_SENDING__DOUBT_WAIT", "300ms")
        .env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\"]");
    let mut kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491525000011").await;
    person(&simulator, "491525000012", Script::Silent);
    kero.post_empty("/queue/pause").await.expect(200);
    for correlation in ["poison", "healthy"] {
        let headers = [("x-async", "true"), ("x-correlation-id", correlation)];
        let body = json!({ "phone": "491525000012", "message": correlation });
        kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202);
    }
    // three times the send of `poison` ends the process; at the fourth start it is the next job's turn
    kero.set_env("KERO_CRASH_AT", "before_write:1");
    for start in 1..=4 {
        kero.restart().await;
        eventually_within(Duration::from_secs(30), &format!("crash {start}"), || {
            let dead = kero.has_exited();
            async move { dead.then_some(()) }
        })
        .await;
        if start == 3 {
            assert!(sink.events("message_ack").is_empty(), "two retries are left to it");
        }
    }
    kero.set_env("KERO_CRASH_AT", "");
    kero.restart().await;
    for (correlation, status, attempts) in [("poison", "failed", 3), ("healthy", "sent", 2)] {
        let (_, ack) = sink.wait_for(correlation, |event| event["data"]["correlation_id"] == correlation).await;
        let found = (&ack["data"]["status"], &ack["data"]["attempts"]);
        assert_eq!(found, (&json!(status), &json!(attempts)), "{ack}");
    }
    let letters = kero.get("/instances/a/dead-letters").await.expect(200);
    assert_eq!(letters["data"][0]["code"], "attempts-exhausted", "{letters}");
    let texts: Vec<_> = simulator.received_texts("491525000012").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["healthy"]);
}

/// The process dies with the acknowledgement in its hands, and the recipient reads while nobody runs: that the message
/// arrived is known from the receipt, and it is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_came_while_nobody_ran_stands_for_the_lost_result() {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let options = Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\"]");
    let mut kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491525000021").await;
    kero.set_env("KERO_CRASH_AT", "after_ack:1");
    kero.restart().await;
    kero.wait_status("a", "connected").await;
    person(&simulator, "491525000022", Script::Late(Duration::from_secs(1)));
    let accepted = kero.send_async("a", "491525000022", "once").await;
    eventually_within(Duration::from_secs(30), "the crash", || {
        let dead = kero.has_exited();
        async move { dead.then_some(()) }
    })
    .await;
    // the receipts are sent meanwhile
    tokio::time::sleep(Duration::from_secs(2)).await;
    kero.revive().await;
    let correlation = accepted["correlation_id"].as_str().unwrap();
    let of = |event: &Value| event["event"] == "message_ack" && event["data"]["correlation_id"] == correlation;
    let (_, ack) = sink.wait_for("its end", of).await;
    assert_eq!((&ack["data"]["status"], &ack["data"]["attempts"]), (&json!("sent"), &json!(1)), "{ack}");
    eventually("the job to be read", || async {
        let job = kero.get(&format!("/instances/a/jobs/{correlation}")).await.expect(200);
        (job["data"]["state"] == "read" && job["data"]["attempts"] == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lines = simulator.ledger().iter().filter(|line| accepted["message_id"] == line.id.as_str()).count();
    assert_eq!((lines, distinct_ends(&sink, correlation)), (1, 1), "sent once, told once");
}

/// Scheduled sends, and kills at the moments when they are due: each goes out, under one id, and none before its time.
#[tokio::test(flavor = "multi_thread")]
async fn scheduled_sends_survive_kills_at_their_moments() {
    const SENDS: usize = 20;
    const EVERY: i64 = 500;
    let (simulator, redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\"]")
        .env("KERO_SENDING__DOUBT_WAIT", "300ms");
    let mut kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491525000031").await;
    let begin = Timestamp::now().after(Duration::from_secs(5));
    let mut sends = Vec::new();
    for n in 0..SENDS {
        let recipient = person(&simulator, &format!("49152510{n:02}1"), Script::Silent);
        let due = Timestamp(begin.0 + n as i64 * EVERY);
        let body = json!({ "phone": recipient, "message": format!("n{n}"), "send_at": due.rfc3339() });
        let accepted = kero.post_with("/instances/a/messages/text", &[("x-async", "true")], body).await.expect(202);
        sends.push((recipient, due, accepted));
    }
    // 200 ms before one is due, 200 ms after, and between
    for (n, offset) in [(2, -200), (7, 0), (12, 100), (17, 200)] {
        let moment = Timestamp(sends[n].1.0 + offset);
        tokio::time::sleep(Timestamp::now().until(moment)).await;
        kero.restart().await;
    }
    for (recipient, due, accepted) in &sends {
        let correlation = accepted["correlation_id"].as_str().unwrap();
        wait_for_ends(&mut kero, &sink, correlation, 1).await;
        let end = sink.wait_for(correlation, |event| event["data"]["correlation_id"] == correlation).await.1;
        assert_eq!(end["data"]["status"], "sent", "{end}");
        let ledger = simulator.ledger();
        let lines: Vec<_> = ledger.iter().filter(|line| accepted["message_id"] == line.id.as_str()).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.at as i64 >= due.0), "{correlation}: {lines:?}");
        let texts: HashSet<(String, String)> =
            simulator.received_texts(recipient).await.into_iter().map(|text| (text.id, text.text)).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(distinct_ends(&sink, correlation), 1);
    }
    let ids: HashSet<String> = simulator.ledger().into_iter().map(|line| line.id).collect();
    assert_eq!(ids.len(), SENDS, "one id each");
}
