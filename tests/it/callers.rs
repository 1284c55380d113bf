//! Callers of synchronous sends: those who ask twice, and those who are gone before the answer.

use crate::support::{KEY, Kero, Options, Sink, eventually, paired_with_sink, person};
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A device that is away, so that no receipt stands for an acknowledgement.
const AWAY: &str = "491531000099";
const TEXT: &str = "/instances/a/messages/text";

async fn setup(own: &str, options: Options) -> (Simulator, Kero, Sink) {
    let (simulator, kero, sink) = paired_with_sink(own, options).await;
    kero.paired(&simulator, "away", AWAY).await;
    kero.post_empty("/instances/away/disconnect").await.expect(200);
    kero.send_text("a", AWAY, "known").await.expect(200);
    (simulator, kero, sink)
}

fn ends(sink: &Sink, correlation: &str) -> Vec<Value> {
    let mut seen = HashSet::new();
    let of = |event: &Value| event["data"]["correlation_id"] == correlation;
    sink.events("message_ack").into_iter().filter(|event| of(event) && seen.insert(event["id"].to_string())).collect()
}

/// Exactly one, also some time later.
async fn one_end(sink: &Sink, correlation: &str) -> Value {
    sink.wait_for(correlation, |event| {
        event["event"] == "message_ack" && event["data"]["correlation_id"] == correlation
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut ends = ends(sink, correlation);
    assert_eq!(ends.len(), 1, "{ends:#?}");
    ends.remove(0)["data"].clone()
}

/// A request of its own connection, which may be given up.
async fn request(url: String, correlation: &str, phone: &str, patience: Duration) -> reqwest::Result<u16> {
    let http = reqwest::Client::builder().no_proxy().timeout(patience).build()?;
    let request = http.post(format!("{url}{TEXT}")).header("x-api-key", KEY).header("x-correlation-id", correlation);
    let answer = request.json(&json!({ "phone": phone, "message": correlation })).send().await?;
    Ok(answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_a_running_send_waits_and_is_told_that_it_runs() {
    let options = Options::default().env("KERO_SENDING__SYNC_TIMEOUT", "3s");
    let (simulator, kero, sink) = setup("491531000001", options).await;
    let late = FaultRule::new(Fault::AckLate).phone("491531000001").delay(Duration::from_secs(8));
    simulator.inject(late.count(1));
    let body = json!({ "phone": AWAY, "message": "once" });
    let headers = [("idempotency-key", "k")];
    let (first, (waited, second)) = tokio::join!(kero.post_with(TEXT, &headers, body.clone()), async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let began = Instant::now();
        let answer = kero.post_with(TEXT, &headers, body.clone()).await;
        (began.elapsed(), answer)
    });
    let unknown = first.problem(504, "send-outcome-unknown");
    second.problem(409, "send-in-progress");
    assert!(second.header("retry-after").is_some());
    assert!(waited >= Duration::from_millis(2_900), "it waited {waited:?} for the other's end");
    let correlation = unknown["correlation_id"].as_str().unwrap();
    assert_eq!(one_end(&sink, correlation).await["status"], "sent");
    let third = kero.post_with(TEXT, &headers, body).await;
    assert!(matches!(third.status, 200 | 202), "{}", third.text());
    assert_eq!(third.json()["message_id"], unknown["message_id"]);
    let lines = simulator.ledger().iter().filter(|line| unknown["message_id"] == line.id.as_str()).count();
    assert_eq!(lines, 1, "one send for the three of them");
}

/// Nobody hears the answers: both sends tell their end by `message_ack`, the one under way and the one behind it.
#[tokio::test(flavor = "multi_thread")]
async fn sends_whose_caller_is_gone_tell_their_end() {
    let (simulator, kero, sink) = setup("491531000011", Options::default()).await;
    let late = FaultRule::new(Fault::AckLate).phone("491531000011").delay(Duration::from_secs(3));
    simulator.inject(late.count(1));
    let patience = Duration::from_millis(1_500);
    let under_way = request(kero.url.clone(), "under-way", AWAY, patience);
    let behind = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        request(kero.url.clone(), "behind", AWAY, Duration::from_secs(1)).await
    };
    let (under_way, behind) = tokio::join!(under_way, behind);
    assert!(under_way.unwrap_err().is_timeout() && behind.unwrap_err().is_timeout());
    for correlation in ["under-way", "behind"] {
        let end = one_end(&sink, correlation).await;
        assert_eq!((&end["status"], &end["attempts"]), (&json!("sent"), &json!(1)), "{end}");
    }
    // who closes only its sending side still hears the answer
    let late = FaultRule::new(Fault::AckLate).phone("491531000011").delay(Duration::from_secs(2));
    simulator.inject(late.count(1));
    let mut half = tokio::net::TcpStream::connect(kero.url.strip_prefix("http://").unwrap()).await.unwrap();
    let body = json!({ "phone": AWAY, "message": "half" }).to_string();
    let length = body.len();
    let request_text = format!(
        "POST {TEXT} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    half.write_all(request_text.as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // who hears the answer needs no event
    let recipient = person(&simulator, "491531000012", Script::Silent);
    let answer = request(kero.url.clone(), "heard", &recipient, Duration::from_secs(20)).await;
    assert_eq!(answer.unwrap(), 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ends(&sink, "heard").is_empty());
}

/// The process is killed between the stanza and its acknowledgement: its caller was never told, so the event tells it.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_is_killed_tells_its_end_once() {
    let options = Options::default().env("KERO_SENDING__DOUBT_WAIT", "500ms");
    let (simulator, mut kero, sink) = setup("491531000021", options).await;
    simulator.inject(FaultRule::new(Fault::AckMissing).phone("491531000021").count(1));
    let known = simulator.ledger().len();
    let caller = tokio::spawn(request(kero.url.clone(), "killed", AWAY, Duration::from_secs(20)));
    eventually("the stanza", || async { (simulator.ledger().len() > known).then_some(()) }).await;
    kero.restart().await;
    assert!(caller.await.unwrap().is_err(), "nobody answered");
    let end = one_end(&sink, "killed").await;
    assert_eq!((&end["status"], &end["attempts"]), (&json!("sent"), &json!(2)), "{end}");
    let ids: HashSet<String> = simulator.ledger()[known..].iter().map(|line| line.id.clone()).collect();
    assert_eq!(ids, HashSet::from([end["message_id"].as_str().unwrap().to_owned()]), "one id, however often");
}
