//! Dead letters: listed, retried, discarded; the list in Redis says the same. And jobs that are moved in time.

use crate::support::{Kero, Options, Redis, Sink, eventually, person, simulator};
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

struct Setup {
    simulator: Simulator,
    kero: Kero,
    redis: Redis,
    sink: Sink,
}

async fn setup(own: &str, options: Options) -> Setup {
    let (simulator, redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options = options.redis(redis.url()).env("KERO_QUEUE__RECONCILE_EVERY", "400ms");
    let kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", own).await;
    Setup { simulator, kero, redis, sink }
}

fn acks(sink: &Sink, correlation: &str) -> Vec<Value> {
    let mut seen = HashSet::new();
    let of = |event: &Value| event["data"]["correlation_id"] == correlation;
    sink.events("message_ack").into_iter().filter(|e| of(e) && seen.insert(e["id"].to_string())).collect()
}

async fn ended(sink: &Sink, correlation: &str, times: usize) -> Vec<Value> {
    eventually(&format!("{times} ends of {correlation}"), || async {
        Some(acks(sink, correlation)).filter(|acks| acks.len() == times)
    })
    .await
}

async fn letters(kero: &Kero, query: &str) -> Vec<String> {
    let page = kero.get(&format!("/instances/a/dead-letters{query}")).await.expect(200);
    let name = |letter: &Value| letter["correlation_id"].as_str().unwrap().to_owned();
    page["data"].as_array().unwrap().iter().map(name).collect()
}

/// What the list in Redis names, the oldest letter last.
async fn listed(redis: &Redis) -> Vec<String> {
    let name = |letter: &Value| letter["correlation_id"].as_str().unwrap_or("junk").to_owned();
    redis.list("kero_dead_letter_queue").await.iter().map(name).collect()
}

async fn send(kero: &Kero, phone: &str, correlation: &str) -> Value {
    let headers = [("x-async", "true"), ("x-correlation-id", correlation)];
    let body = json!({ "phone": phone, "message": correlation });
    kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202)
}

async fn refused(s: &Setup, phone: &str, correlation: &str, code: u16) -> Value {
    s.simulator.inject(FaultRule::new(Fault::Nack).code(code).count(1));
    let accepted = send(&s.kero, phone, correlation).await;
    ended(&s.sink, correlation, 1).await;
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_dead_letter_is_a_new_promise_under_the_same_message_id() {
    let s = setup("491522000001", Options::default()).await;
    let later = "491522000002";
    person(&s.simulator, later, Script::Silent);
    s.simulator.inject(FaultRule::new(Fault::Nack).code(479).count(2));
    let accepted = send(&s.kero, later, "one").await;
    assert_eq!(ended(&s.sink, "one", 1).await[0]["data"]["code"], "479");
    let page = s.kero.get("/instances/a/dead-letters").await.expect(200);
    let letter = &page["data"][0];
    assert_eq!((&letter["correlation_id"], &letter["message_id"]), (&json!("one"), &accepted["message_id"]), "{page}");
    assert_eq!((&letter["code"], &letter["in_doubt"]), (&json!("479"), &json!(false)));
    eventually("the letter in Redis", || async { (listed(&s.redis).await == ["one"]).then_some(()) }).await;
    // refused again: a further end, and a letter again
    s.kero.post_empty("/instances/a/dead-letters/one/retry").await.expect(200);
    let ends = ended(&s.sink, "one", 2).await;
    assert!(ends.iter().all(|end| end["data"]["status"] == "failed"));
    eventually("the letter again", || async { (listed(&s.redis).await == ["one"]).then_some(()) }).await;
    let job = s.kero.post_empty("/instances/a/dead-letters/one/retry").await.expect(200);
    assert_eq!((&job["data"]["message_id"], &job["data"]["retries"]), (&accepted["message_id"], &json!(2)));
    let ends = ended(&s.sink, "one", 3).await;
    assert_eq!(ends[2]["data"]["status"], "sent");
    assert_eq!(ends[2]["data"]["message_id"], accepted["message_id"]);
    let texts = s.simulator.received_texts(later).await;
    assert_eq!(texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["one"]);
    eventually("no letter", || async { listed(&s.redis).await.is_empty().then_some(()) }).await;
    assert!(letters(&s.kero, "").await.is_empty());
    s.kero.post_empty("/instances/a/dead-letters/one/retry").await.problem(404, "dead-letter-not-found");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(acks(&s.sink, "one").len(), 3, "one end for each promise");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_outcome_was_in_doubt_is_sent_again_as_it_was() {
    let options = Options::default().env("KERO_QUEUE__MAX_RETRIES", "0").env("KERO_SENDING__ACK_TIMEOUT", "1s");
    let s = setup("491522000011", options).await;
    // its device is away, so that no receipt proves the send
    s.kero.paired(&s.simulator, "b", "491522000012").await;
    s.kero.post_empty("/instances/b/disconnect").await.expect(200);
    s.simulator.inject(FaultRule::new(Fault::AckMissing).phone("491522000011").count(1));
    let accepted = send(&s.kero, "491522000012", "doubt").await;
    assert_eq!(ended(&s.sink, "doubt", 1).await[0]["data"]["code"], "attempts-exhausted");
    let page = s.kero.get("/instances/a/dead-letters").await.expect(200);
    assert_eq!(page["data"][0]["in_doubt"], true, "{page}");
    s.kero.post_empty("/instances/a/dead-letters/doubt/retry").await.expect(200);
    let end = ended(&s.sink, "doubt", 2).await.remove(1);
    assert_eq!((&end["data"]["status"], &end["data"]["attempts"]), (&json!("sent"), &json!(2)), "{end}");
    assert_eq!(end["data"]["message_id"], accepted["message_id"]);
    let ledger = s.simulator.ledger();
    let lines: Vec<_> = ledger.iter().filter(|line| accepted["message_id"] == line.id.as_str()).collect();
    assert_eq!(lines.len(), 2, "sent twice under one id");
    let texts: HashSet<_> =
        s.simulator.received_texts("491522000012").await.into_iter().map(|t| (t.id, t.text)).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_filtered_retried_and_discarded_and_stay_so() {
    let s = setup("491522000021", Options::default()).await;
    for phone in ["491522000022", "491522000023"] {
        person(&s.simulator, phone, Script::Silent);
    }
    for (phone, correlation, code) in [
        ("491522000022", "n1", 479),
        ("491522000023", "n2", 479),
        ("491522000022", "n3", 400),
        ("491522000022", "n4", 400),
    ] {
        refused(&s, phone, correlation, code).await;
    }
    assert_eq!(letters(&s.kero, "").await, ["n4", "n3", "n2", "n1"]);
    assert_eq!(letters(&s.kero, "?code=479").await, ["n2", "n1"]);
    assert_eq!(letters(&s.kero, "?since=2999-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(letters(&s.kero, "?until=2999-01-01T00:00:00Z&limit=3").await.len(), 3);
    let first = s.kero.get("/instances/a/dead-letters?limit=3").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(letters(&s.kero, &format!("?limit=3&cursor={cursor}")).await, ["n1"]);
    let all = s.kero.get("/dead-letters?code=400").await.expect(200);
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    for bad in ["?since=yesterday", "?until=2026-01-01T00:00:00", "?limit=0", "?cursor=x"] {
        s.kero.get(&format!("/instances/a/dead-letters{bad}")).await.problem(400, "validation-failed");
    }
    let retry = "/instances/a/dead-letters/retry";
    for bad in [json!({ "limit": 0 }), json!({ "limit": 10_001 }), json!({ "since": "x" }), json!({ "code": ["x"] })] {
        s.kero.post(retry, bad).await.problem(400, "validation-failed");
    }
    s.kero.post(retry, json!({ "phone": "abc" })).await.problem(400, "invalid-recipient");

    let discard = |name: &'static str| s.kero.delete(name);
    discard("/instances/a/dead-letters/n3").await.expect(200);
    discard("/instances/a/dead-letters/n3").await.problem(404, "dead-letter-not-found");
    discard("/instances/a/dead-letters/never").await.problem(404, "dead-letter-not-found");
    discard("/instances/a/dead-letters/a%20b").await.problem(404, "dead-letter-not-found");
    assert_eq!(s.kero.get("/instances/a/jobs/n3").await.expect(200)["data"]["state"], "failed");
    eventually("n3 to leave the list", || async { (listed(&s.redis).await == ["n4", "n2", "n1"]).then_some(()) }).await;

    // the list is emptied and filled with nonsense: it comes back as the rows have it, junk apart
    let letter = s.redis.list("kero_dead_letter_queue").await[0].to_string();
    s.redis.command(&["FLUSHALL"]).await;
    let finished = send(&s.kero, "491522000022", "fine").await;
    ended(&s.sink, "fine", 1).await;
    let finished =
        json!({ "correlation_id": finished["correlation_id"], "instance_id": "a", "failed_at": 1 }).to_string();
    for element in [letter.as_str(), &letter, &finished, "junk"] {
        s.redis.command(&["LPUSH", "kero_dead_letter_queue", element]).await;
    }
    eventually("the letters as they were", || async {
        let redis::Value::Array(items) = s.redis.command(&["LRANGE", "kero_dead_letter_queue", "0", "-1"]).await else {
            return None;
        };
        let names: HashSet<String> = items
            .iter()
            .map(|item| {
                let redis::Value::BulkString(bytes) = item else { return String::new() };
                let json = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
                json["correlation_id"].as_str().unwrap_or("junk").to_owned()
            })
            .collect();
        let wanted = HashSet::from(["n4", "n2", "n1", "junk"].map(str::to_owned));
        (items.len() == 4 && names == wanted).then_some(())
    })
    .await;

    let done = s.kero.post(retry, json!({ "code": "479", "phone": "491522000023" })).await.expect(200);
    assert_eq!(done["data"], json!({ "retried": 1, "remaining": 0 }));
    let done = s.kero.post(retry, json!({ "limit": 1 })).await.expect(200);
    assert_eq!(done["data"], json!({ "retried": 1, "remaining": 1 }));
    assert_eq!(letters(&s.kero, "").await, ["n1"]);
    s.kero.post(retry, json!({})).await.expect(200);
    for correlation in ["n1", "n2", "n4"] {
        assert_eq!(ended(&s.sink, correlation, 2).await[1]["data"]["status"], "sent");
    }
    assert!(letters(&s.kero, "").await.is_empty());
    assert_eq!(s.simulator.received_texts("491522000022").await.len(), 3, "n1, n4 and fine, once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_is_moved_and_no_other() {
    let s = setup("491522000031", Options::default()).await;
    person(&s.simulator, "491522000032", Script::Silent);
    let patch = async |name: &str, at: Value| {
        let body = json!({ "send_at": at }).to_string().into_bytes();
        s.kero.request(Method::PATCH, &format!("/instances/a/jobs/{name}"), &[], Some(body)).await
    };
    let far = kero_domain::Timestamp::now().after(Duration::from_secs(3600));
    let headers = [("x-async", "true"), ("x-correlation-id", "moved")];
    let body = json!({ "phone": "491522000032", "message": "moved", "send_at": far.rfc3339() });
    s.kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202);
    let soon = kero_domain::Timestamp::now().after(Duration::from_secs(2));
    let job = patch("moved", json!(soon.rfc3339())).await.expect(200);
    assert_eq!((&job["data"]["state"], &job["data"]["held_reason"]), (&json!("held"), &json!("scheduled")));
    assert_eq!(job["data"]["send_at"], soon.rfc3339());
    let end = ended(&s.sink, "moved", 1).await.remove(0);
    let line = s.simulator.ledger().into_iter().find(|line| end["data"]["message_id"] == line.id.as_str()).unwrap();
    let late = i64::try_from(line.at).unwrap() - soon.0;
    assert!((0..1_000).contains(&late), "{late} ms after its time");
    patch("moved", json!(far.rfc3339())).await.problem(409, "job-not-movable");
    patch("never", json!(far.rfc3339())).await.problem(404, "job-not-found");
    // a queued one waits, and one of the past runs now
    s.kero.post_empty("/queue/pause").await.expect(200);
    send(&s.kero, "491522000032", "queued").await;
    for bad in [json!("2026"), json!(""), json!(null), json!("9999-01-01T00:00:00Z"), json!([1])] {
        patch("queued", bad).await.problem(400, "validation-failed");
    }
    assert_eq!(patch("queued", json!(far.rfc3339())).await.expect(200)["data"]["state"], "held");
    s.kero.post_empty("/queue/resume").await.expect(200);
    send(&s.kero, "491522000032", "before").await;
    ended(&s.sink, "before", 1).await;
    let job = patch("queued", json!("1970-01-01T00:00:01Z")).await.expect(200);
    assert_eq!(job["data"]["state"], "queued", "{job}");
    ended(&s.sink, "queued", 1).await;
    let texts: Vec<_> = s.simulator.received_texts("491522000032").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["moved", "before", "queued"]);
    // while it is being sent, it is not
    // (its device is away, so that no receipt ends it early)
    s.kero.paired(&s.simulator, "b", "491522000033").await;
    s.kero.post_empty("/instances/b/disconnect").await.expect(200);
    s.simulator.inject(FaultRule::new(Fault::AckLate).delay(Duration::from_secs(3)).count(1));
    send(&s.kero, "491522000033", "sending").await;
    eventually("the intent", || async {
        (s.kero.get("/instances/a/jobs/sending").await.json()["data"]["state"] == "sending").then_some(())
    })
    .await;
    patch("sending", json!(far.rfc3339())).await.problem(409, "job-not-movable");
    ended(&s.sink, "sending", 1).await;
}
