//! The tries of a delivery: when the next one is, what each one says of itself, and who goes first.

use crate::support::hostile::Hostile;
use crate::support::{Behaviour, Kero, Options, Received, Sink, eventually, person, simulator};
use kero_domain::Timestamp;
use kero_gateway::{BreakerConfig, DeliveryConfig};
use kero_simulator::{Script, Simulator};
use serde_json::{Value, json};

const PHONE: &str = "491529000001";

async fn started(options: Options) -> (Simulator, Kero) {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", PHONE).await;
    (simulator, kero)
}

/// Makes an endpoint of `a`; its secret.
async fn endpoint(kero: &Kero, url: &str, settings: Value) -> String {
    let mut body = json!({ "url": url, "events": ["message"] });
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let made = kero.post("/instances/a/endpoints", body).await.expect(201);
    made["data"]["secret"].as_str().unwrap().to_owned()
}

/// The tries of all deliveries, once each delivery of `count` has one.
async fn first_tries(kero: &Kero, count: usize) -> Vec<Value> {
    let page = eventually("a try of each", || async {
        let page = kero.get("/instances/a/deliveries?limit=1000").await.expect(200)["data"].clone();
        let tried = page.as_array().unwrap().iter().filter(|delivery| delivery["attempts"] == 1).count();
        (tried == count).then_some(page)
    })
    .await;
    let mut tries = Vec::new();
    for delivery in page.as_array().unwrap() {
        let path = format!("/instances/a/deliveries/{}", delivery["id"].as_str().unwrap());
        let attempts = kero.get(&path).await.expect(200)["data"]["attempts"].as_array().unwrap().clone();
        assert_eq!(attempts.len(), 1);
        tries.extend(attempts);
    }
    tries
}

/// What is promised of deliveries by default is what the configuration says, not only what the code would do without one.
#[test]
fn the_defaults_are_those_of_the_configuration() {
    let (configured, plain) = (kero::config::Config::defaults().unwrap().delivery, DeliveryConfig::default());
    assert_eq!((&configured.schedule, configured.schedule.len()), (&plain.schedule, 9));
    assert_eq!((configured.timeout, configured.disable_after), (plain.timeout, plain.disable_after));
    assert_eq!((configured.max_response, configured.max_payload), (16 * 1024, 256 * 1024));
    assert_eq!((configured.max_response, configured.max_payload), (plain.max_response, plain.max_payload));
    assert_eq!((configured.concurrency, configured.per_endpoint), (plain.concurrency, plain.per_endpoint));
    assert_eq!(configured.max_endpoints, plain.max_endpoints);
    let breaker = BreakerConfig {
        percent: configured.breaker_percent,
        least: configured.breaker_least,
        open: configured.breaker_open,
        ceiling: configured.breaker_ceiling,
    };
    assert_eq!(breaker, plain.breaker);
    assert!(configured.allow_networks.is_empty() && configured.allow_hosts.is_empty(), "the guard lets nobody through");
}

/// What fails together does not come back together: the waits lie within a fifth of what the endpoint's own schedule
/// says, and apart from each other.
#[tokio::test(flavor = "multi_thread")]
async fn waits_are_spread_around_the_endpoints_own_schedule() {
    const HOUR: i64 = 3_600_000;
    let (simulator, kero) = started(Options::default()).await;
    let peer = person(&simulator, "491529000002", Script::Silent);
    let sink = Sink::start().await;
    sink.behave(Behaviour::Status(500));
    endpoint(&kero, &sink.url, json!({ "order": "none", "retry_schedule": [3_600, 60] })).await;
    for n in 0..9 {
        simulator.send_text(&peer, PHONE, &format!("n{n}")).await.unwrap();
    }
    let millis = |at: &Value| Timestamp::parse_rfc3339(at.as_str().unwrap()).unwrap().0;
    let tries = first_tries(&kero, 9).await;
    let mut waits: Vec<i64> = tries
        .iter()
        .map(|attempt| {
            let ended = millis(&attempt["at"]) + attempt["total_ms"].as_i64().unwrap();
            millis(&attempt["next_attempt_at"]) - ended
        })
        .collect();
    waits.sort_unstable();
    // between the answer and the look at the clock a busy machine may let some time pass
    assert!(waits[0] >= HOUR * 4 / 5 && waits[8] <= HOUR * 6 / 5 + 60_000, "{waits:?}");
    assert!(waits[8] - waits[0] > HOUR / 60, "together: {waits:?}");
}

/// A try is signed for the moment at which it is made; id, body and the name of who sends it stay.
#[tokio::test(flavor = "multi_thread")]
async fn each_try_says_when_it_was_made_and_who_makes_it() {
    let (simulator, kero) = started(Options::default()).await;
    let peer = person(&simulator, "491529000003", Script::Silent);
    let sink = Sink::start().await;
    sink.behave(Behaviour::Status(500));
    let secret = endpoint(&kero, &sink.url, json!({ "retry_schedule": [5] })).await;
    simulator.send_text(&peer, PHONE, "twice").await.unwrap();
    eventually("the first try", || async { (sink.received().len() == 1).then_some(()) }).await;
    sink.behave(Behaviour::Status(200));
    eventually("the second try", || async { (sink.received().len() == 2).then_some(()) }).await;
    let received = sink.received();
    let stamp = |received: &Received| received.headers["webhook-timestamp"].parse::<i64>().unwrap();
    for received in &received {
        assert_eq!(received.headers["user-agent"], format!("Kero/{}", kero::VERSION));
        assert!(stamp(received) <= received.at / 1000, "signed for the future");
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, received.headers[name].parse().unwrap());
        }
        standardwebhooks::Webhook::new(&secret).unwrap().verify(&received.body, &headers).unwrap();
    }
    // four seconds is the shortest wait that five can become
    assert!(stamp(&received[1]) - stamp(&received[0]) >= 4, "the second is signed for the first one's moment");
    assert_eq!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    assert_eq!(received[0].body, received[1].body);
}

/// What was sent once is what is sent again: neither a restart with another limit nor another wish of the endpoint changes
/// a byte of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_goes_out_again_as_it_was_whatever_is_set_meanwhile() {
    let (simulator, mut kero) = started(Options::default()).await;
    let peer = person(&simulator, "491529000005", Script::Silent);
    let sink = Sink::start().await;
    sink.behave(Behaviour::Status(500));
    endpoint(&kero, &sink.url, json!({ "retry_schedule": [3_600] })).await;
    simulator.send_text(&peer, PHONE, &"x".repeat(6_000)).await.unwrap();
    first_tries(&kero, 1).await;
    kero.set_env("KERO_DELIVERY__MAX_PAYLOAD", "4096");
    kero.restart().await;
    let made = kero.get("/instances/a/endpoints").await.expect(200)["data"][0]["id"].clone();
    let path = format!("/instances/a/endpoints/{}", made.as_str().unwrap());
    let wish = json!({ "include": ["raw"] }).to_string().into_bytes();
    kero.request(reqwest::Method::PATCH, &path, &[], Some(wish)).await.expect(200);
    sink.behave(Behaviour::Status(200));
    let delivery = kero.get("/instances/a/deliveries").await.expect(200)["data"][0]["id"].clone();
    kero.post_empty(&format!("/instances/a/deliveries/{}/replay", delivery.as_str().unwrap())).await.expect(200);
    eventually("the second try", || async { (sink.received().len() == 2).then_some(()) }).await;
    let received = sink.received();
    assert!(received[0].body == received[1].body, "{}", String::from_utf8_lossy(&received[1].body));
}

/// What an endpoint says when it refuses is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_beginning_of_each_answer() {
    let (simulator, kero) = started(Options::default()).await;
    let peer = person(&simulator, "491529000004", Script::Silent);
    let refusing = "HTTP/1.1 422 No\r\ncontent-length: 21\r\n\r\nthe field x is absent";
    endpoint(&kero, &Hostile::answering(refusing).await.url, json!({ "retry_schedule": [3_600] })).await;
    simulator.send_text(&peer, PHONE, "once").await.unwrap();
    let attempt = first_tries(&kero, 1).await.remove(0);
    assert_eq!((&attempt["status"], &attempt["response_head"]), (&json!(422), &json!("the field x is absent")));
}

/// Somebody waits for the end of a send: it is told before what has waited for longer.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_send_is_told_before_what_waits() {
    let (simulator, kero) = started(Options::default().env("KERO_DELIVERY__PER_ENDPOINT", "1")).await;
    let sink = Sink::start().await;
    sink.behave(Behaviour::Held);
    endpoint(&kero, &sink.url, json!({ "events": ["message", "message_ack"] })).await;
    let people: Vec<String> = (10..16).map(|n| person(&simulator, &format!("4915290000{n}"), Script::Silent)).collect();
    for (n, peer) in people.iter().enumerate() {
        simulator.send_text(peer, PHONE, &format!("n{n}")).await.unwrap();
        // each in its turn, so that their order is known; the first one is on its way from then on
        eventually("it to wait", || async {
            let page = kero.get("/instances/a/deliveries?state=pending").await.expect(200);
            (page["data"].as_array().unwrap().len() == n + 1 && !sink.received().is_empty()).then_some(())
        })
        .await;
    }
    let recipient = person(&simulator, "491529000019", Script::Silent);
    kero.send_async("a", &recipient, "somebody waits").await;
    eventually("the end of the send to wait", || async {
        let page = kero.get("/instances/a/deliveries?state=pending").await.expect(200);
        (page["data"].as_array().unwrap().len() == people.len() + 1).then_some(())
    })
    .await;
    sink.behave(Behaviour::Status(200));
    eventually("all of them", || async { (sink.received().len() == people.len() + 1).then_some(()) }).await;
    let kinds = sink.kinds();
    assert_eq!(kinds[1], "\"message_ack\"", "{kinds:?}");
}
