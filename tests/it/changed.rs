//! Endpoints that are changed, or recover, while deliveries wait for them or are on their way.

use crate::support::{Behaviour, Kero, Options, Sink, eventually, person, simulator};
use kero_simulator::{Script, Simulator};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PHONE: &str = "491527000001";
const PEERS: [&str; 2] = ["491527000002", "491527000003"];
/// How long the slow receivers take.
const LATE: Duration = Duration::from_millis(300);

async fn started(options: Options) -> (Simulator, Kero) {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", PHONE).await;
    for peer in PEERS {
        person(&simulator, peer, Script::Silent);
    }
    (simulator, kero)
}

/// An endpoint of `a` that gets messages; its path and its secret.
async fn endpoint(kero: &Kero, sink: &Sink, settings: Value) -> (String, String) {
    let mut body = json!({ "url": sink.url, "events": ["message"] });
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let made = kero.post("/instances/a/endpoints", body).await.expect(201)["data"].clone();
    (format!("/instances/a/endpoints/{}", made["id"].as_str().unwrap()), made["secret"].as_str().unwrap().to_owned())
}

async fn patch(kero: &Kero, path: &str, body: Value) {
    kero.request(Method::PATCH, path, &[], Some(body.to_string().into_bytes())).await.expect(200);
}

async fn say(simulator: &Simulator, peer: &str, texts: std::ops::Range<usize>) {
    for n in texts {
        simulator.send_text(peer, PHONE, &format!("n{n}")).await.unwrap();
    }
}

fn texts(sink: &Sink) -> Vec<String> {
    sink.events("message").iter().map(|event| event["data"]["text"].as_str().unwrap().to_owned()).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("n{n}")).collect()
}

/// The third of `count` texts is on its way, in a turn to which all the others behind it belong as well.
async fn in_the_middle_of_a_turn(simulator: &Simulator, kero: &Kero, sink: &Sink, count: usize) {
    sink.behave(Behaviour::Held);
    say(simulator, PEERS[0], 0..1).await;
    eventually("the first one", || async { (texts(sink).len() == 1).then_some(()) }).await;
    say(simulator, PEERS[0], 1..count).await;
    eventually("all of them to wait", || async {
        let page = kero.get("/instances/a/deliveries").await.expect(200);
        (page["data"].as_array().unwrap().len() == count).then_some(())
    })
    .await;
    // the first one makes a turn of its own, since the others were not there; they make the next one
    sink.behave(Behaviour::Late(LATE));
    eventually("the third one", || async { (texts(sink).len() >= 3).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_endpoint_gets_nothing_beyond_what_is_on_its_way() {
    let (simulator, kero) = started(Options::default()).await;
    let sink = Sink::start().await;
    let (path, _) = endpoint(&kero, &sink, json!({})).await;
    in_the_middle_of_a_turn(&simulator, &kero, &sink, 10).await;
    patch(&kero, &path, json!({ "enabled": false })).await;
    let before = texts(&sink).len();
    tokio::time::sleep(6 * LATE).await;
    let after = texts(&sink).len();
    assert!(after <= before + 1, "{before} when it was disabled, {after} later");
    let waiting = kero.get("/instances/a/deliveries?state=pending").await.expect(200);
    assert_eq!(waiting["data"].as_array().unwrap().len(), 10 - after, "the rest is kept");
    sink.behave(Behaviour::Status(200));
    patch(&kero, &path, json!({ "enabled": true })).await;
    eventually("the rest", || async { (texts(&sink).len() >= 10).then_some(()) }).await;
    assert_eq!(texts(&sink), numbers(0..10), "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_where_the_endpoint_leads_now_under_its_new_secret() {
    let (simulator, kero) = started(Options::default()).await;
    let (old, new) = (Sink::start().await, Sink::start().await);
    let (path, first) = endpoint(&kero, &old, json!({})).await;
    in_the_middle_of_a_turn(&simulator, &kero, &old, 8).await;
    let rotated = kero.post(&format!("{path}/rotate-secret"), json!({ "overlap_seconds": 0 })).await.expect(200);
    let second = rotated["data"]["secret"].as_str().unwrap().to_owned();
    patch(&kero, &path, json!({ "url": new.url })).await;
    eventually("all of them", || async { (texts(&old).len() + texts(&new).len() >= 8).then_some(()) }).await;
    let moved = texts(&old).len();
    assert!(moved <= 5, "{moved} went to the old place");
    assert_eq!((texts(&old), texts(&new)), (numbers(0..moved), numbers(moved..8)), "each once, in order");
    for received in new.received() {
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, received.headers[name].parse().unwrap());
        }
        let verifies = |secret: &str| standardwebhooks::Webhook::new(secret).unwrap().verify(&received.body, &headers);
        assert!(verifies(&second).is_ok() && verifies(&first).is_err(), "{headers:?}");
    }
}

/// Every try of every delivery, in the order in which they were made.
async fn attempts(kero: &Kero) -> Vec<Value> {
    let page = kero.get("/instances/a/deliveries?limit=1000").await.expect(200);
    let mut all = Vec::new();
    for delivery in page["data"].as_array().unwrap() {
        let path = format!("/instances/a/deliveries/{}", delivery["id"].as_str().unwrap());
        all.extend(kero.get(&path).await.expect(200)["data"]["attempts"].as_array().unwrap().clone());
    }
    all.sort_by_key(|attempt| millis(&attempt["at"]));
    all
}

fn millis(at: &Value) -> i64 {
    kero_domain::Timestamp::parse_rfc3339(at.as_str().unwrap()).unwrap().0
}

/// Its breaker would stay open for an hour. A replay, a sample that it takes and a change are reasons to ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_left_alone_is_asked_when_there_is_a_reason() {
    let options = Options::default()
        .env("KERO_DELIVERY__SCHEDULE", format!("[{}]", vec!["\"20ms\""; 20].join(",")))
        .env("KERO_DELIVERY__BREAKER_LEAST", "3")
        .env("KERO_DELIVERY__BREAKER_OPEN", "1h")
        .env("KERO_DELIVERY__BREAKER_CEILING", "1h");
    let (simulator, kero) = started(options).await;
    let (down, up) = (Sink::start().await, Sink::start().await);
    down.behave(Behaviour::Status(503));
    let (path, _) = endpoint(&kero, &down, json!({})).await;
    say(&simulator, PEERS[0], 0..1).await;
    let left_alone = async |count: usize| {
        eventually("the tries", || async { (attempts(&kero).await.len() == count).then_some(()) }).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(down.received().len(), count, "it is left alone");
    };
    left_alone(3).await;
    let id = kero.get("/instances/a/deliveries").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
    kero.post_empty(&format!("/instances/a/deliveries/{id}/replay")).await.expect(200);
    left_alone(4).await;
    kero.post(&format!("{path}/replay"), json!({})).await.expect(200);
    left_alone(5).await;
    let refused = kero.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!(refused["data"]["delivered"], false);
    down.forget();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(down.received().is_empty(), "a sample that it refuses says nothing");
    let triggers: Vec<Value> = attempts(&kero).await.iter().map(|attempt| attempt["trigger"].clone()).collect();
    assert_eq!(triggers, ["event", "event", "event", "probe", "probe"]);
    // another place
    patch(&kero, &path, json!({ "url": up.url })).await;
    eventually("the delivery", || async { (texts(&up) == ["n0"]).then_some(()) }).await;
    say(&simulator, PEERS[1], 1..4).await;
    eventually("what comes then", || async { (texts(&up).len() == 4).then_some(()) }).await;
    // and down again, until it takes a sample: seven failures beside three successes open the breaker
    up.behave(Behaviour::Status(503));
    say(&simulator, PEERS[0], 4..5).await;
    eventually("it to be given up again", || async { (up.received().len() >= 4 + 7).then_some(()) }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(up.received().len(), 4 + 7);
    up.forget();
    up.behave(Behaviour::Status(200));
    kero.post_empty(&format!("{path}/test")).await.expect(200);
    eventually("what waited", || async { texts(&up).contains(&"n4".to_owned()).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_recovers_gets_its_backlog_in_order_and_no_faster_than_its_rate() {
    const RATE: i64 = 5;
    let options = Options::default()
        .env("KERO_DELIVERY__SCHEDULE", format!("[{}]", vec!["\"20ms\""; 20].join(",")))
        .env("KERO_DELIVERY__BREAKER_LEAST", "4")
        .env("KERO_DELIVERY__BREAKER_OPEN", "300ms")
        .env("KERO_DELIVERY__BREAKER_CEILING", "300ms");
    let (simulator, kero) = started(options).await;
    let sink = Sink::start().await;
    sink.behave(Behaviour::Status(503));
    endpoint(&kero, &sink, json!({ "rate_limit": RATE })).await;
    for peer in PEERS {
        say(&simulator, peer, 0..10).await;
    }
    let tried = eventually("probes", || async {
        let tried = attempts(&kero).await;
        let probes = tried.iter().filter(|attempt| attempt["trigger"] == "probe").count();
        (probes >= 3).then_some(tried)
    })
    .await;
    // the two that stand first in their chats open it together; from then on there are probes, one at a time
    let opened = tried.iter().position(|attempt| attempt["trigger"] == "probe").unwrap();
    assert!((4..=5).contains(&opened), "{tried:?}");
    assert!(tried[opened..].iter().all(|attempt| attempt["trigger"] == "probe"), "{tried:?}");
    sink.behave(Behaviour::Status(200));
    eventually("all of it", || async {
        let left = kero.get("/instances/a/deliveries?state=pending").await.expect(200);
        left["data"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    for peer in PEERS {
        let taken = sink.received().into_iter().filter(|received| received.status == 200);
        let found = taken.map(|received| received.json()).filter(|event| event["data"]["sender"]["phone"] == peer);
        let found: Vec<String> = found.map(|event| event["data"]["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, numbers(0..10), "{peer}: each once, in order");
    }
    // any stretch of time has at most its share, and what one second saves up
    let times: Vec<i64> = attempts(&kero).await.iter().map(|attempt| millis(&attempt["at"])).collect();
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let (count, span) = (i64::try_from(last - first + 1).unwrap(), to - from);
            assert!(count <= RATE + 1 + RATE * (span + 100) / 1000, "{count} tries in {span} ms: {times:?}");
        }
    }
}

/// A delivery that fails holds up what its endpoint's order says, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_holds_up_as_much_as_the_order_says() {
    let (simulator, kero) = started(Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"1h\",\"1h\"]")).await;
    let mut sinks = Vec::new();
    for order in ["none", "chat", "strict"] {
        let sink = Sink::start().await;
        sink.behave(Behaviour::Refusing("n0"));
        let (path, _) = endpoint(&kero, &sink, json!({ "order": order })).await;
        sinks.push((order, sink, path));
    }
    for (peer, n) in [(PEERS[0], 0), (PEERS[0], 1), (PEERS[1], 2)] {
        say(&simulator, peer, n..n + 1).await;
        let what = format!("n{n} at the one without an order");
        eventually(&what, || async { texts(&sinks[0].1).contains(&format!("n{n}")).then_some(()) }).await;
    }
    eventually("the other chat", || async { (texts(&sinks[1].1) == ["n0", "n2"]).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found: Vec<Vec<String>> = sinks.iter().map(|(_, sink, _)| texts(sink)).collect();
    assert_eq!(found, [&["n0", "n1", "n2"][..], &["n0", "n2"], &["n0"]]);
    for (order, sink, path) in &sinks {
        sink.behave(Behaviour::Status(200));
        let query = format!("endpoint_id={}&state=pending", path.rsplit('/').next().unwrap());
        let waiting = kero.get(&format!("/instances/a/deliveries?{query}")).await.expect(200);
        let waiting = waiting["data"].as_array().unwrap();
        assert_eq!(waiting.len(), ["none", "chat", "strict"].iter().position(|it| it == order).unwrap() + 1);
        // the one that failed, by hand; what stands behind it follows
        let first = waiting.last().unwrap()["id"].as_str().unwrap();
        kero.post_empty(&format!("/instances/a/deliveries/{first}/replay")).await.expect(200);
        eventually("all of it", || async { (sink.received().len() == 4).then_some(()) }).await;
    }
    assert_eq!(texts(&sinks[1].1), ["n0", "n2", "n0", "n1"]);
    assert_eq!(texts(&sinks[2].1), ["n0", "n0", "n1", "n2"]);
}
