//! Rate limits: honest about what waits and until when, no attempt burnt, order kept; and what `GET /queue` tells.

use crate::support::{Options, Sink, eventually, paired_with_sink, person};
use kero_domain::Timestamp;
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

async fn wait_for_acks(sink: &Sink, count: usize) {
    eventually(&format!("{count} ends"), || async {
        let acks = sink.events("message_ack");
        let ids: HashSet<String> = acks.iter().map(|ack| ack["data"]["correlation_id"].to_string()).collect();
        assert!(acks.iter().all(|ack| ack["data"]["status"] == "sent" && ack["data"]["attempts"] == 1), "{acks:#?}");
        (ids.len() == count).then_some(())
    })
    .await;
}

/// When the messages that begin with `prefix` were on the wire.
async fn moments(simulator: &Simulator, phones: &[&str]) -> Vec<i64> {
    let mut received = HashSet::new();
    for phone in phones {
        received.extend(simulator.received_texts(phone).await.into_iter().map(|text| text.id));
    }
    let mut at: Vec<i64> =
        simulator.ledger().iter().filter(|line| received.contains(&line.id)).map(|line| line.at as i64).collect();
    at.sort_unstable();
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instances_rate_holds_what_is_over_it() {
    let options =
        Options::default().env("KERO_SENDING__RATE_PER_INSTANCE", "120").env("KERO_SENDING__SYNC_TIMEOUT", "1s");
    let (simulator, kero, sink) = paired_with_sink("491523000001", options).await;
    let phones = ["491523000002", "491523000003"];
    for phone in phones {
        person(&simulator, phone, Script::Silent);
    }
    for n in 0..8 {
        kero.send_async("a", phones[n % 2], &format!("n{n}")).await;
    }
    let queue = eventually("sends that wait for their rate", || async {
        let queue = kero.get("/queue").await.expect(200);
        (queue["instances"][0]["held"]["rate"].as_u64() >= Some(1)).then_some(queue)
    })
    .await;
    assert_eq!(queue["instances"][0]["instance_id"], "a");
    assert_eq!(queue["instances"][0]["accepted_per_minute"], 8, "{queue}");
    assert!(queue["instances"][0]["oldest_at"].is_string() && queue["instances"][0]["oldest_age"].is_u64(), "{queue}");
    let jobs = kero.get("/instances/a/jobs?state=held").await.expect(200);
    for job in jobs["data"].as_array().unwrap() {
        assert_eq!((&job["held_reason"], &job["attempts"]), (&json!("rate"), &json!(0)), "{job}");
        let due = Timestamp::parse_rfc3339(job["due_at"].as_str().unwrap()).unwrap();
        let wait = Timestamp::now().until(due);
        assert!(wait < Duration::from_secs(6), "{job}");
    }
    // a synchronous one does not get its turn in its second
    let answer = kero.send_text("a", phones[0], "never").await;
    let problem = answer.problem(503, "send-not-started");
    assert!(problem["held"] == "rate" || problem.get("held").is_none(), "{problem}");
    wait_for_acks(&sink, 8).await;
    let at = moments(&simulator, &phones).await;
    assert_eq!(at.len(), 8, "the cancelled one was not sent");
    // 500 ms each; the clock of the receiver is read after ours
    let fastest = at.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(fastest >= 350, "{at:?}");
    assert!(at[7] - at[0] >= 7 * 500 - 700, "{at:?}");
    for (n, phone) in phones.iter().enumerate() {
        let texts: Vec<String> = simulator.received_texts(phone).await.into_iter().map(|text| text.text).collect();
        assert_eq!(texts, (0..4).map(|i| format!("n{}", 2 * i + n)).collect::<Vec<_>>(), "in order");
    }
    let queue = kero.get("/queue").await.expect(200);
    assert_eq!((&queue["instances"][0]["sent_per_minute"], &queue["instances"][0]["depth"]), (&json!(8), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipients_rate_holds_its_chat_only_and_starts_empty() {
    let options = Options::default().env("KERO_SENDING__RATE_PER_RECIPIENT", "30");
    let (simulator, mut kero, sink) = paired_with_sink("491523000011", options).await;
    person(&simulator, "491523000012", Script::Silent);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for n in 0..3 {
        kero.send_async("a", "491523000012", &format!("n{n}")).await;
    }
    let job = eventually("a held send", || async {
        kero.get("/instances/a/jobs?state=held").await.expect(200)["data"].get(0).cloned()
    })
    .await;
    assert_eq!(job["held_reason"], "rate", "{job}");
    let others: Vec<String> = (0..5).map(|n| format!("4915230001{n:02}")).collect();
    let began = Timestamp::now();
    for other in &others {
        person(&simulator, other, Script::Silent);
        kero.send_async("a", other, "x").await;
    }
    eventually("the other chats", || async {
        for other in &others {
            if simulator.received_texts(other).await.len() != 1 {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(
        simulator.received_texts("491523000012").await.len() < 3,
        "its chat waits, {:?}",
        began.until(Timestamp::now())
    );
    wait_for_acks(&sink, 8).await;
    let at = moments(&simulator, &["491523000012"]).await;
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 1_850), "{at:?}");
    // what was sent before a restart is not known: the rate begins with nothing
    let restarted = Timestamp::now();
    kero.restart().await;
    kero.wait_status("a", "connected").await;
    let id = kero.send_async("a", "491523000012", "after").await["message_id"].as_str().unwrap().to_owned();
    let line = simulator.wait_for(|line| line.id == id, Duration::from_secs(20)).await.unwrap();
    assert!(line.at as i64 - restarted.0 >= 2_000, "{} ms after the start", line.at as i64 - restarted.0);
    eventually("all of them, in order", || async {
        let texts: Vec<_> = simulator.received_texts("491523000012").await.into_iter().map(|text| text.text).collect();
        (texts == ["n0", "n1", "n2", "after"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_says_what_waits_why_and_how_long() {
    let (simulator, kero, sink) = paired_with_sink("491523000021", Options::default()).await;
    person(&simulator, "491523000022", Script::Silent);
    let view = async || -> Value { kero.get("/queue").await.expect(200) };
    assert_eq!(view().await["instances"], json!([]), "nothing was sent yet");
    let far = Timestamp::now().after(Duration::from_secs(3_600)).rfc3339();
    let body = json!({ "phone": "491523000022", "message": "later", "send_at": far });
    kero.post("/instances/a/messages/text", body).await.expect(202);
    kero.send_async("a", "491523000022", "now").await;
    let hopeless = kero.send_async("a", "491523000000", "never").await;
    eventually("the two ends", || async { (sink.events("message_ack").len() == 2).then_some(()) }).await;
    kero.post_empty("/instances/a/disconnect").await.expect(200);
    for n in 0..3 {
        kero.send_async("a", "491523000022", &format!("{n}")).await;
    }
    let queue = view().await;
    let instance = &queue["instances"][0];
    assert_eq!((&instance["depth"], &queue["total"]), (&json!(4), &json!(4)), "{queue}");
    let held = json!({ "offline": 3, "scheduled": 1, "retry": 0, "rate": 0, "reach_out_lock": 0, "in_doubt": 0 });
    assert_eq!(instance["held"], held, "{queue}");
    let rates = ["accepted_per_minute", "sent_per_minute", "failed_per_minute"].map(|name| instance[name].as_u64());
    assert_eq!(rates, [Some(6), Some(1), Some(1)], "{hopeless}");
    let metrics = kero.get("/metrics").await.text();
    for name in ["kero_queue_depth{", "kero_queue_oldest_seconds", "kero_queue_claims_total"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}

/// Accepted while their instance was connected, and not begun when it lost its connection: they say so.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_says_that_its_instance_is_offline() {
    let options = Options::default().env("KERO_SENDING__LANE_CONCURRENCY", "1").env("KERO_SENDING__ACK_TIMEOUT", "10m");
    let (simulator, kero, sink) = paired_with_sink("491523000031", options).await;
    kero.paired(&simulator, "away", "491523000032").await;
    kero.post_empty("/instances/away/disconnect").await.expect(200);
    simulator.inject(FaultRule::new(Fault::AckMissing).phone("491523000031").count(1));
    let stuck = kero.send_async("a", "491523000032", "stuck").await["message_id"].clone();
    simulator.wait_for(|line| stuck == line.id.as_str(), Duration::from_secs(20)).await.unwrap();
    let mut waiting = Vec::new();
    for n in 0..3 {
        let recipient = person(&simulator, &format!("49152300004{n}"), Script::Silent);
        waiting.push(kero.send_async("a", &recipient, "waits").await);
    }
    let job = async |accepted: &Value| -> Value {
        let path = format!("/instances/a/jobs/{}", accepted["correlation_id"].as_str().unwrap());
        kero.get(&path).await.expect(200)["data"].clone()
    };
    assert_eq!(job(&waiting[0]).await["state"], "queued");
    kero.post_empty("/instances/a/disconnect").await.expect(200);
    let held = json!({ "offline": 3, "scheduled": 0, "retry": 0, "rate": 0, "reach_out_lock": 0, "in_doubt": 1 });
    eventually("three that wait for their instance", || async {
        (kero.get("/queue").await.expect(200)["instances"][0]["held"] == held).then_some(())
    })
    .await;
    for accepted in &waiting {
        let job = job(accepted).await;
        assert_eq!((&job["state"], &job["held_reason"]), (&json!("held"), &json!("offline")), "{job}");
    }
    kero.post_empty("/instances/a/connect").await.expect(200);
    wait_for_acks_but(&sink, &stuck, 3).await;
}

/// The first attempts of all but one, which was in doubt.
async fn wait_for_acks_but(sink: &Sink, doubtful: &Value, count: usize) {
    eventually(&format!("{count} ends"), || async {
        let acks = sink.events("message_ack");
        let acks: Vec<&Value> = acks.iter().filter(|ack| ack["data"]["message_id"] != *doubtful).collect();
        assert!(acks.iter().all(|ack| ack["data"]["status"] == "sent" && ack["data"]["attempts"] == 1), "{acks:#?}");
        (acks.len() == count).then_some(())
    })
    .await;
}

/// Classes share what a rate allows eight to one, whoever came first; and a send is interactive unless it says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn interactive_sends_overtake_background_ones_eight_to_one() {
    const EACH: usize = 40;
    let options = Options::default().env("KERO_SENDING__RATE_PER_INSTANCE", "1200");
    let (simulator, kero, _sink) = paired_with_sink("491523000051", options).await;
    kero.post_empty("/queue/pause").await.expect(200);
    let mut background = HashSet::new();
    for n in 0..2 * EACH {
        let recipient = person(&simulator, &format!("4915231{n:04}1"), Script::Silent);
        let mut body = json!({ "phone": recipient, "message": "x" });
        if n < EACH {
            body["priority"] = json!("background");
        }
        let accepted = kero.post_with("/instances/a/messages/text", &[("x-async", "true")], body).await.expect(202);
        if n < EACH {
            background.insert(accepted["message_id"].as_str().unwrap().to_owned());
        }
    }
    kero.post_empty("/queue/resume").await.expect(200);
    let order = eventually("all of them", || async {
        let ledger = simulator.ledger();
        (ledger.len() >= 2 * EACH).then(|| ledger.into_iter().map(|line| line.id).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(order.len(), 2 * EACH, "each once");
    // up to sixteen are under way at once, and may pass each other on the way
    for first in [18, 27, 36] {
        let found = order[..first].iter().filter(|id| background.contains(*id)).count();
        assert!((1..=first / 9 + 3).contains(&found), "{found} background ones among the first {first}");
    }
    let recipient = person(&simulator, "491523199991", Script::Silent);
    kero.send_text("a", &recipient, "synchronous").await.expect(200);
    let jobs = kero.get("/instances/a/jobs?limit=100").await.expect(200)["data"].as_array().unwrap().clone();
    let named = |priority: &str| jobs.iter().filter(|job| job["priority"] == priority).count();
    assert_eq!((named("interactive"), named("background")), (EACH + 1, EACH), "{:#?}", jobs[0]);
}
