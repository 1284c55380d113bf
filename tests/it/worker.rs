//! What the worker does when WhatsApp refuses: it retries by the schedule, holds, or gives up, and stops nobody else.

use crate::support::{Options, Redis, Sink, eventually, paired_with_sink, person};
use kero_simulator::{Fault, FaultRule, Script};
use serde_json::{Value, json};
use std::time::Duration;

async fn end_of(sink: &Sink, accepted: &Value) -> Value {
    let of = |event: &Value| {
        event["event"] == "message_ack" && event["data"]["correlation_id"] == accepted["correlation_id"]
    };
    sink.wait_for("a message_ack", of).await.1["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrying_job_blocks_only_its_chat() {
    let (simulator, kero, sink) = paired_with_sink("491529000001", Options::default()).await;
    for phone in ["491529000002", "491529000003"] {
        person(&simulator, phone, Script::Silent);
    }
    simulator.inject(FaultRule::new(Fault::Nack).code(503).count(1));
    let first = kero.send_async("a", "491529000002", "first").await;
    let job = format!("/instances/a/jobs/{}", first["correlation_id"].as_str().unwrap());
    let held = eventually("the retry", || async {
        let job = kero.get(&job).await.expect(200);
        (job["data"]["held_reason"] == "retry").then(|| job["data"].clone())
    })
    .await;
    assert_eq!((&held["attempts"], &held["error_code"]), (&json!(1), &json!("503")), "{held}");
    let second = kero.send_async("a", "491529000002", "second").await;
    let other = kero.send_async("a", "491529000003", "other").await;
    assert_eq!(end_of(&sink, &other).await["status"], "sent");
    assert!(simulator.received_texts("491529000002").await.is_empty(), "its own chat waits");
    assert_eq!(end_of(&sink, &second).await["status"], "sent");
    assert_eq!(end_of(&sink, &first).await["attempts"], 2);
    let texts: Vec<_> = simulator.received_texts("491529000002").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_follow_the_schedule_and_end() {
    let options = Options::default()
        .env("KERO_QUEUE__MAX_RETRIES", "3")
        .env("KERO_QUEUE__RETRY_BASE", "500ms")
        .env("KERO_QUEUE__RETRY_CEILING", "1s");
    let (simulator, kero, sink) = paired_with_sink("491529000011", options).await;
    // a linked device that is away gives no receipt
    kero.paired(&simulator, "b", "491529000012").await;
    kero.post_empty("/instances/b/disconnect").await.expect(200);
    simulator.inject(FaultRule::new(Fault::Nack).code(503).count(4));
    let accepted = kero.send_async("a", "491529000012", "never").await;
    let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
    for (attempts, delay) in [(1, 500), (2, 1_000), (3, 1_000)] {
        let job = eventually(&format!("the hold after attempt {attempts}"), || async {
            let job = kero.get(&path).await.expect(200)["data"].clone();
            (job["attempts"] == attempts && job["held_reason"] == "retry").then_some(job)
        })
        .await;
        let moment = |name: &str| kero_domain::Timestamp::parse_rfc3339(job[name].as_str().unwrap()).unwrap();
        let wait = moment("due_at").0 - moment("updated_at").0;
        // spread by a fifth, and computed a moment before it is stored
        assert!((delay * 8 / 10 - 50..=delay * 12 / 10).contains(&wait), "{wait} ms after attempt {attempts}");
    }
    let end = end_of(&sink, &accepted).await;
    assert_eq!((&end["status"], &end["code"], &end["attempts"]), (&json!("failed"), &json!("503"), &json!(4)));
    let id = accepted["message_id"].as_str().unwrap();
    let jobs = kero.get("/instances/a/jobs?state=failed").await.expect(200);
    assert_eq!(jobs["data"][0]["message_id"], id);
    assert_eq!(kero.send_text("a", "491529000012", "next").await.status, 200, "the chat goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_succeed_fails_at_once() {
    let (simulator, kero, sink) = paired_with_sink("491529000021", Options::default()).await;
    person(&simulator, "491529000022", Script::Silent);
    for code in [400, 404, 479] {
        simulator.inject(FaultRule::new(Fault::Nack).code(code).count(1));
        let accepted = kero.send_async("a", "491529000022", "x").await;
        let end = end_of(&sink, &accepted).await;
        let found = (&end["status"], &end["code"], &end["attempts"]);
        assert_eq!(found, (&json!("failed"), &json!(code.to_string()), &json!(1)), "{end}");
    }
    let nobody = kero.send_async("a", "491529000000", "x").await;
    let end = end_of(&sink, &nobody).await;
    assert_eq!(end["error"], "The phone number is not registered on WhatsApp");
    assert_eq!((&end["code"], &end["attempts"]), (&json!("recipient-not-on-whatsapp"), &json!(0)));
    let letters = kero.get("/instances/a/dead-letters").await.expect(200);
    assert_eq!(letters["data"].as_array().unwrap().len(), 4);
}

/// WhatsApp does not say whether it has the number: an attempt like any other, by the schedule and with an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_fails_is_an_attempt() {
    let options = Options::default()
        .env("KERO_QUEUE__MAX_RETRIES", "2")
        .env("KERO_QUEUE__RETRY_BASE", "700ms")
        .env("KERO_QUEUE__RETRY_CEILING", "10s");
    let (simulator, kero, sink) = paired_with_sink("491529000051", options).await;
    for phone in ["491529000052", "491529000053"] {
        person(&simulator, phone, Script::Silent);
    }
    simulator.inject(FaultRule::new(Fault::LookupError).phone("491529000051").code(500).count(3));
    let accepted = kero.send_async("a", "491529000052", "never").await;
    let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
    let mut due = Vec::new();
    for (attempts, delay) in [(1, 700), (2, 1_400)] {
        let job = eventually(&format!("the hold after attempt {attempts}"), || async {
            let job = kero.get(&path).await.expect(200)["data"].clone();
            (job["attempts"] == attempts && job["held_reason"] == "retry").then_some(job)
        })
        .await;
        assert_eq!(job["error_code"], "lookup-failed", "{job}");
        let moment = |name: &str| kero_domain::Timestamp::parse_rfc3339(job[name].as_str().unwrap()).unwrap();
        let wait = moment("due_at").0 - moment("updated_at").0;
        assert!((delay * 8 / 10 - 50..=delay * 12 / 10).contains(&wait), "{wait} ms after attempt {attempts}");
        due.push(moment("due_at"));
    }
    assert!(due[0] < due[1], "{due:?}");
    let end = end_of(&sink, &accepted).await;
    let found = (&end["status"], &end["code"], &end["attempts"]);
    assert_eq!(found, (&json!("failed"), &json!("lookup-failed"), &json!(3)), "{end}");
    let job = kero.get(&path).await.expect(200)["data"].clone();
    assert_eq!((&job["state"], &job["attempts"]), (&json!("failed"), &json!(3)), "{job}");
    // an answer that no repetition changes
    simulator.inject(FaultRule::new(Fault::LookupError).phone("491529000051").code(404).count(1));
    let refused = kero.send_async("a", "491529000053", "never").await;
    let end = end_of(&sink, &refused).await;
    let found = (&end["status"], &end["code"], &end["attempts"]);
    assert_eq!(found, (&json!("failed"), &json!("lookup-failed"), &json!(1)), "{end}");
    // both chats go on, and each send had one end
    for phone in ["491529000052", "491529000053"] {
        let accepted = kero.send_async("a", phone, "after").await;
        assert_eq!(end_of(&sink, &accepted).await["status"], "sent");
    }
    let ends: Vec<Value> = sink.events("message_ack");
    let ids: std::collections::HashSet<String> = ends.iter().map(|end| end["id"].to_string()).collect();
    assert_eq!(ids.len(), 4, "{ends:#?}");
    assert!(simulator.ledger().iter().all(|line| accepted["message_id"] != line.id.as_str()));
}

/// One message of a chat is in flight, whatever classes its sends have.
#[tokio::test(flavor = "multi_thread")]
async fn a_chat_has_one_message_in_flight_over_its_classes() {
    const LATE: i64 = 2_000;
    let (simulator, kero, sink) = paired_with_sink("491529000061", Options::default()).await;
    // its device is away, so that no receipt stands for the acknowledgement
    kero.paired(&simulator, "b", "491529000062").await;
    kero.post_empty("/instances/b/disconnect").await.expect(200);
    assert_eq!(kero.send_text("a", "491529000062", "known").await.status, 200);
    let send = async |priority: &str| -> Value {
        let body = json!({ "phone": "491529000062", "message": priority, "priority": priority });
        kero.post_with("/instances/a/messages/text", &[("x-async", "true")], body).await.expect(202)
    };
    for (first, second) in [("interactive", "bulk"), ("background", "interactive")] {
        let late = FaultRule::new(Fault::AckLate).phone("491529000061").delay(Duration::from_millis(LATE as u64));
        simulator.inject(late.count(1));
        let mut at = Vec::new();
        let mut sent = Vec::new();
        for priority in [first, second] {
            let accepted = send(priority).await;
            let id = accepted["message_id"].as_str().unwrap().to_owned();
            let line = simulator.wait_for(|line| line.id == id, Duration::from_secs(20)).await.unwrap();
            at.push(line.at as i64);
            sent.push(accepted);
        }
        assert!(at[1] - at[0] >= LATE, "{second} followed {first} after {} ms", at[1] - at[0]);
        for accepted in &sent {
            let end = end_of(&sink, accepted).await;
            assert_eq!((&end["status"], &end["attempts"]), (&json!("sent"), &json!(1)), "{end}");
        }
    }
}

/// What a chat waited for is gone: it does not wait for its retry, nor for the pass over due rows, which comes every five
/// seconds. Twice, because that pass may come at the right moment once.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_retry_lets_its_chat_go_on() {
    const AT_ONCE: Duration = Duration::from_secs(3);
    let options = Options::default()
        .env("KERO_QUEUE__RETRY_BASE", "10m")
        .env("KERO_QUEUE__RETRY_CEILING", "10m")
        .env("KERO_SENDING__SYNC_TIMEOUT", "1s");
    let (simulator, kero, sink) = paired_with_sink("491529000071", options).await;
    person(&simulator, "491529000072", Script::Silent);
    let goes_out = async |accepted: &Value| {
        let line = simulator.wait_for(|line| accepted["message_id"] == line.id.as_str(), AT_ONCE).await;
        assert!(line.is_some(), "it still waits");
        assert_eq!(end_of(&sink, accepted).await["status"], "sent");
    };
    for _ in 0..2 {
        simulator.inject(FaultRule::new(Fault::Nack).code(503).count(1));
        let first = kero.send_async("a", "491529000072", "cancelled").await;
        let path = format!("/instances/a/jobs/{}", first["correlation_id"].as_str().unwrap());
        eventually("the retry", || async {
            (kero.get(&path).await.expect(200)["data"]["held_reason"] == "retry").then_some(())
        })
        .await;
        let second = kero.send_async("a", "491529000072", "next").await;
        kero.post_empty(&format!("{path}/cancel")).await.expect(200);
        goes_out(&second).await;
        assert_eq!(end_of(&sink, &first).await["status"], "cancelled");
    }
    // a synchronous one that is given up while it waits for its retry is no different
    for _ in 0..2 {
        simulator.inject(FaultRule::new(Fault::Nack).code(503).count(1));
        let (given_up, behind) = tokio::join!(kero.send_text("a", "491529000072", "given up"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            kero.send_async("a", "491529000072", "last").await
        });
        given_up.problem(503, "send-not-started");
        goes_out(&behind).await;
    }
    let texts: Vec<_> = simulator.received_texts("491529000072").await.into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["next", "next", "last", "last"]);
}

/// Code 463: WhatsApp forbids the account to write to people who have not written first.
#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_account_holds_its_sends_and_burns_no_attempt() {
    let options = Options::default().env("KERO_QUEUE__RETRY_CEILING", "2s").env("KERO_SENDING__REACH_OUT_LIMIT", "5s");
    let (simulator, kero, sink) = paired_with_sink("491529000031", options).await;
    person(&simulator, "491529000032", Script::Silent);
    simulator.inject(FaultRule::new(Fault::Nack).code(463).count(1));
    let accepted = kero.send_async("a", "491529000032", "later").await;
    let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
    let held = eventually("the hold", || async {
        let job = kero.get(&path).await.expect(200);
        (job["data"]["held_reason"] == "reach_out_lock").then(|| job["data"].clone())
    })
    .await;
    assert_eq!(held["attempts"], 0, "{held}");
    let end = end_of(&sink, &accepted).await;
    assert_eq!((&end["status"], &end["attempts"]), (&json!("sent"), &json!(1)));
    // a restriction that stays: it fails after the limit
    simulator.inject(FaultRule::new(Fault::Nack).code(463).count(50));
    let accepted = kero.send_async("a", "491529000032", "never").await;
    let end = end_of(&sink, &accepted).await;
    assert_eq!((&end["status"], &end["code"]), (&json!("failed"), &json!("463")), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_start_paused() {
    let redis = Redis::start().await;
    let options = Options::default().redis(redis.url()).env("KERO_QUEUE__PAUSED", "true");
    let (simulator, mut kero, sink) = paired_with_sink("491529000041", options).await;
    for phone in ["491529000042", "491529000043"] {
        person(&simulator, phone, Script::Silent);
    }
    assert_eq!(kero.get("/queue").await.expect(200)["paused"], true);
    let accepted = kero.send_async("a", "491529000042", "waits").await;
    kero.send_text("a", "491529000043", "synchronous sends go on").await.expect(200);
    kero.restart().await;
    kero.wait_status("a", "connected").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(redis.len("kero_message_queue").await, 1, "nothing leaves the list");
    assert!(simulator.received_texts("491529000042").await.is_empty());
    kero.post_empty("/queue/resume").await.expect(200);
    assert_eq!(end_of(&sink, &accepted).await["status"], "sent");
}
