//! What is told of deliveries to those who run the gateway: the metrics, after real deliveries, and the log.

use crate::support::{Behaviour, Kero, Options, Sink, eventually, eventually_within, own_name, person, simulator};
use kero_simulator::{Script, Simulator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PHONE: &str = "491529100001";
const PEER: &str = "491529100002";
/// The gauges are set now and then.
const SOON: Duration = Duration::from_secs(60);

/// One more try an hour later, and a breaker that stays open once it is.
async fn started() -> (Simulator, Kero) {
    let simulator = simulator().await;
    let options = Options::default()
        .env("KERO_DELIVERY__SCHEDULE", "[\"1h\"]")
        .env("KERO_DELIVERY__BREAKER_LEAST", "3")
        .env("KERO_DELIVERY__BREAKER_OPEN", "1h")
        .env("KERO_DELIVERY__BREAKER_CEILING", "1h");
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", PHONE).await;
    person(&simulator, PEER, Script::Silent);
    (simulator, kero)
}

/// Makes an endpoint of `a`; its id.
async fn endpoint(kero: &Kero, url: &str, settings: Value) -> String {
    let mut body = json!({ "url": url, "events": ["message"] });
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let made = kero.post("/instances/a/endpoints", body).await.expect(201);
    made["data"]["id"].as_str().unwrap().to_owned()
}

/// The value of a series by its name and all of its labels.
fn value(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, "}"));
        let rest = rest.strip_suffix('}')?;
        let mut given: Vec<&str> = rest.split(',').filter(|label| !label.is_empty()).collect();
        let mut wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        given.sort_unstable();
        wanted.sort_unstable();
        (found == name && given == wanted).then(|| value.parse().ok())?
    })
}

async fn metrics(kero: &Kero) -> String {
    kero.get("/metrics").await.text()
}

/// Waits until a series of the endpoint has this value.
async fn wait(kero: &Kero, name: &str, labels: &[(&str, &str)], expected: f64) {
    let what = format!("{name} {labels:?} to be {expected}");
    eventually_within(SOON, &what, || async {
        (value(&metrics(kero).await, name, labels) == Some(expected)).then_some(())
    })
    .await;
}

async fn wait_tries(kero: &Kero, endpoint: &str, outcome: &str, count: u32) {
    let labels = [("endpoint", endpoint), ("outcome", outcome)];
    wait(kero, "kero_delivery_attempts_total", &labels, f64::from(count)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_deliveries_came_to() {
    let (simulator, kero) = started().await;
    let (good, bad) = (Sink::start().await, Sink::start().await);
    bad.behave(Behaviour::Status(500));
    // by a name, so that there is one to look up
    let taking = endpoint(&kero, &good.url.replace("127.0.0.1", "localhost"), json!({})).await;
    let refusing = endpoint(&kero, &bad.url, json!({ "order": "none" })).await;
    let hopeless = endpoint(&kero, &bad.url, json!({ "order": "none", "retry_schedule": [] })).await;
    const HELD: Duration = Duration::from_millis(1_500);
    let began = Instant::now();
    for n in 1..=4 {
        if n == 1 {
            good.behave(Behaviour::Held);
        }
        simulator.send_text(PEER, PHONE, &format!("n{n}")).await.unwrap();
        if n == 1 {
            eventually("the first one to be held", || async { (!good.received().is_empty()).then_some(()) }).await;
            tokio::time::sleep(HELD).await;
            good.behave(Behaviour::Status(200));
        }
        wait_tries(&kero, &taking, "delivered", n).await;
        // the fourth one finds the breakers open
        wait_tries(&kero, &refusing, "retry", n.min(3)).await;
        wait_tries(&kero, &hopeless, "dead", n.min(3)).await;
    }
    for (endpoint, pending, breaker) in [(&taking, 0.0, 0.0), (&refusing, 4.0, 2.0), (&hopeless, 1.0, 2.0)] {
        wait(&kero, "kero_delivery_pending", &[("endpoint", endpoint)], pending).await;
        wait(&kero, "kero_delivery_breaker_state", &[("endpoint", endpoint)], breaker).await;
    }
    let text = metrics(&kero).await;
    let oldest = |endpoint: &str| value(&text, "kero_delivery_oldest_pending_seconds", &[("endpoint", endpoint)]);
    // the first message has waited since before the first one was let go
    let waited = oldest(&refusing).unwrap();
    assert!(waited >= HELD.as_secs_f64() && waited <= began.elapsed().as_secs_f64() + 1.0, "{waited}");
    assert_eq!(oldest(&taking), Some(0.0));
    // from the event to its 2xx, and nothing else
    let lag = |text: &str, what: &str| value(text, &format!("kero_delivery_lag_seconds_{what}"), &[]);
    assert_eq!(lag(&text, "count"), Some(4.0));
    let sum = lag(&text, "sum").unwrap();
    assert!(sum >= HELD.as_secs_f64() && sum <= 4.0 * began.elapsed().as_secs_f64() + 4.0, "{sum}");
    let phase = |phase| value(&text, "kero_delivery_seconds_count", &[("phase", phase)]);
    assert_eq!((phase("total"), phase("first_byte")), (Some(10.0), Some(10.0)));
    assert!(phase("connect") >= Some(3.0) && phase("dns") >= Some(1.0), "{text}");

    // what a hand replays, and what waited behind it: the second one's lag counts
    bad.behave(Behaviour::Status(200));
    let page = kero.get(&format!("/instances/a/deliveries?endpoint_id={hopeless}&state=dead")).await.expect(200);
    let dead = page["data"][0]["id"].as_str().unwrap().to_owned();
    kero.post_empty(&format!("/instances/a/deliveries/{dead}/replay")).await.expect(200);
    wait_tries(&kero, &hopeless, "delivered", 2).await;
    assert_eq!(lag(&metrics(&kero).await, "count"), Some(5.0));
    wait(&kero, "kero_delivery_breaker_state", &[("endpoint", &hopeless)], 0.0).await;
    // what is gone does not stay as it was
    kero.delete(&format!("/instances/a/endpoints/{refusing}")).await.expect(200);
    wait(&kero, "kero_delivery_pending", &[("endpoint", &refusing)], 0.0).await;
    wait(&kero, "kero_delivery_oldest_pending_seconds", &[("endpoint", &refusing)], 0.0).await;
    wait(&kero, "kero_delivery_breaker_state", &[("endpoint", &refusing)], 0.0).await;
}

/// Endpoints that were let through once and are not any more, one by its address and one by its name.
#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_the_guard_refused() {
    let (simulator, mut kero) = started().await;
    let sink = Sink::start().await;
    let named = sink.url.replace("127.0.0.1", &own_name());
    let endpoints = [endpoint(&kero, &sink.url, json!({})).await, endpoint(&kero, &named, json!({})).await];
    kero.set_env("KERO_DELIVERY__ALLOW_NETWORKS", "");
    kero.restart().await;
    kero.wait_status("a", "connected").await;
    simulator.send_text(PEER, PHONE, "nowhere").await.unwrap();
    for endpoint in &endpoints {
        wait_tries(&kero, endpoint, "retry", 1).await;
    }
    let text = metrics(&kero).await;
    for reason in ["literal", "resolved"] {
        assert_eq!(value(&text, "kero_delivery_blocked_total", &[("reason", reason)]), Some(1.0), "{reason}: {text}");
    }
    assert!(sink.received().is_empty());
}

/// One line for each end of a delivery, which names the event, the request and the send that it is about.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_one_line_for_each_end() {
    let (_simulator, kero) = started().await;
    let (good, bad) = (Sink::start().await, Sink::start().await);
    bad.behave(Behaviour::Status(500));
    let acks = json!({ "events": ["message_ack"], "retry_schedule": [] });
    let taking = endpoint(&kero, &good.url, acks.clone()).await;
    let hopeless = endpoint(&kero, &bad.url, acks).await;
    let headers = [("x-async", "true"), ("x-request-id", "request-7"), ("x-correlation-id", "order-7")];
    let body = json!({ "phone": PEER, "message": "hello" });
    kero.post_with("/instances/a/messages/text", &headers, body).await.expect(202);
    let event = good.wait_for("the end", |event| event["event"] == "message_ack").await.1["id"].clone();
    let event = event.as_str().unwrap();
    for (endpoint, words) in [(taking, "delivered"), (hopeless, "a delivery is dead; it can be replayed")] {
        let line = eventually(words, || async {
            let log = kero.log();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(&endpoint)).collect();
            assert!(lines.len() <= 1, "{lines:?}");
            lines.first().map(|line| (*line).to_owned())
        })
        .await;
        for part in [words, event, "order-7", "request-7"] {
            assert!(line.contains(part), "{part} is not in: {line}");
        }
    }
}
