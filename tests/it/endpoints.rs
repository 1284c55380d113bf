//! Endpoints and the log: several of an instance and global ones, filters, rotation, breaker, disabling, replays, thin
//! events.

use crate::support::{Behaviour, Kero, Options, Sink, eventually, person, simulator};
use base64::prelude::*;
use kero_simulator::{Script, Simulator};
use reqwest::Method;
use serde_json::{Value, json};

async fn patch(kero: &Kero, path: &str, body: Value) -> crate::support::Answer {
    kero.request(Method::PATCH, path, &[], Some(body.to_string().into_bytes())).await
}

/// Creates an endpoint of the instance; its path and what was answered.
async fn endpoint(kero: &Kero, instance: &str, body: Value) -> (String, Value) {
    let answer = kero.post(&format!("/instances/{instance}/endpoints"), body).await;
    let made = answer.expect(201)["data"].clone();
    let path = format!("/instances/{instance}/endpoints/{}", made["id"].as_str().unwrap());
    assert_eq!(answer.header("location").as_deref(), Some(path.as_str()));
    (path, made)
}

/// A paired instance and a person who writes to it.
async fn paired(kero: &Kero, simulator: &Simulator, id: &str, phone: &str, from: &str) {
    kero.paired(simulator, id, phone).await;
    person(simulator, from, Script::Silent);
}

fn texts(sink: &Sink) -> Vec<String> {
    sink.events("message").iter().map(|event| event["data"]["text"].as_str().unwrap_or("?").to_owned()).collect()
}

async fn wait_texts(sink: &Sink, expected: &[&str]) {
    eventually(&format!("{expected:?}"), || async { (texts(sink).len() >= expected.len()).then_some(()) }).await;
    assert_eq!(texts(sink), expected);
}

fn verify(secret: &str, received: &crate::support::Received) -> Result<(), standardwebhooks::WebhookError> {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.headers[name].parse().unwrap());
    }
    standardwebhooks::Webhook::new(secret).unwrap().verify(&received.body, &headers)
}

/// What would be taken for a change, and change nothing, is refused and named.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_an_endpoint_does_not_take_are_refused() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    let (path, made) = endpoint(&kero, "a", json!({ "url": sink.url, "secret": "0123456789abcdef0123456789" })).await;
    let refused = |answer: crate::support::Answer, member: &str, why: &str| {
        let problem = answer.problem(400, "validation-failed");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &errors[0]["pointer"]), (1, &json!(format!("/{member}"))), "{problem}");
        assert!(errors[0]["detail"].as_str().unwrap().contains(why), "{problem}");
        assert!(!problem.to_string().contains("another"), "{problem}");
    };
    for (member, value, why) in [
        ("secret", json!("another secret of 24 bytes"), "rotate-secret"),
        ("id", made["id"].clone(), "cannot be changed"),
        ("instance_id", json!("b"), "cannot be changed"),
        ("created_at", made["created_at"].clone(), "cannot be changed"),
        ("public_key", json!("another"), "not known"),
        ("evnets", json!(["*"]), "not known"),
    ] {
        // nothing else of the body is done either
        let body = json!({ "enabled": false, member: value });
        refused(patch(&kero, &path, body).await, member, why);
    }
    assert_eq!(kero.get(&path).await.expect(200)["data"]["enabled"], true);
    for (path, body) in [
        ("/instances/a/endpoints".to_owned(), json!({ "url": sink.url, "evnets": [] })),
        ("/endpoints".to_owned(), json!({ "url": sink.url, "evnets": [] })),
        (format!("{path}/rotate-secret"), json!({ "evnets": 1 })),
        (format!("{path}/replay"), json!({ "evnets": ["message"] })),
    ] {
        refused(kero.post(&path, body).await, "evnets", "not known");
    }
    assert_eq!(kero.get("/instances/a/endpoints").await.expect(200)["data"].as_array().unwrap().len(), 1);
    // Kero-Kero's clients may send more than there is
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "evnets": 1 })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_gets_what_it_wants_as_it_wants_it() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let (all, groups, images, global) =
        (Sink::start().await, Sink::start().await, Sink::start().await, Sink::start().await);
    kero.create("a").await;
    let (path, made) = endpoint(
        &kero,
        "a",
        json!({ "url": all.url, "events": ["*"], "headers": { "Authorization": "Bearer hidden-token" }, "asymmetric": true,
                "order": "strict", "rate_limit": 100, "timeout_seconds": 5, "retry_schedule": [1, 60] }),
    )
    .await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && BASE64_STANDARD.decode(&secret[6..]).unwrap().len() == 32);
    endpoint(&kero, "a", json!({ "url": groups.url, "chat_types": ["group"] })).await;
    let (this, others, sent) = (Sink::start().await, Sink::start().await, Sink::start().await);
    for (sink, narrow) in [
        (&this, json!({ "chats": ["491516000003", "491516000002"] })),
        (&others, json!({ "chats": ["491516000003"] })),
        (&sent, json!({ "direction": "out" })),
    ] {
        let mut body = json!({ "url": sink.url, "events": ["message"] });
        body.as_object_mut().unwrap().extend(narrow.as_object().unwrap().clone());
        endpoint(&kero, "a", body).await;
    }
    endpoint(&kero, "a", json!({ "url": images.url, "message_types": ["image"], "events": ["message"] })).await;
    let made = kero
        .post("/endpoints", json!({ "url": global.url, "direction": "in", "events": ["message"] }))
        .await
        .expect(201);
    assert!(made["data"]["instance_id"].is_null());
    // secrets and header values are never shown again
    for path in [path.as_str(), "/instances/a/endpoints"] {
        let text = kero.get(path).await.text();
        assert!(!text.contains(&secret) && !text.contains("hidden-token") && !text.contains("whsk_"), "{text}");
    }
    let read = kero.get(&path).await.expect(200)["data"].clone();
    assert_eq!((&read["header_names"], &read["has_secret"]), (&json!(["Authorization"]), &json!(true)));
    assert_eq!(
        (&read["order"], &read["rate_limit"], &read["timeout_seconds"], &read["retry_schedule"]),
        (&json!("strict"), &json!(100), &json!(5), &json!([1, 60]))
    );
    // Kero-Kero's webhook is the first of them
    assert_eq!(kero.get("/instances/a/webhook").await.expect(200)["data"]["url"], all.url);

    kero.pair(&simulator, "a", "491516000001").await;
    person(&simulator, "491516000002", Script::Silent);
    simulator.send_text("491516000002", "491516000001", "hi").await.unwrap();
    let (received, _) = all.wait_for("the message", |json| json["event"] == "message").await;
    assert_eq!(received.headers["authorization"], "Bearer hidden-token");
    verify(&secret, &received).expect("the published library accepts the signature");
    let signatures: Vec<&str> = received.headers["webhook-signature"].split(' ').collect();
    assert_eq!(signatures.len(), 2, "{signatures:?}");
    let public = BASE64_STANDARD.decode(read["public_key"].as_str().unwrap().strip_prefix("whpk_").unwrap()).unwrap();
    let signature = BASE64_STANDARD.decode(signatures[1].strip_prefix("v1a,").unwrap()).unwrap();
    let signed = [
        format!("{}.{}.", received.headers["webhook-id"], received.headers["webhook-timestamp"]).as_bytes(),
        &received.body,
    ]
    .concat();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public).verify(&signed, &signature).unwrap();
    wait_texts(&global, &["hi"]).await;
    wait_texts(&this, &["hi"]).await;
    assert!(others.received().is_empty() && sent.received().is_empty(), "of other chats, and its own ones");
    assert!(all.kinds().iter().any(|kind| kind.contains("pairing")), "all means all: {:?}", all.kinds());
    assert!(groups.events("message").is_empty() && images.received().is_empty(), "narrowed");
    assert!(!groups.events("status").is_empty(), "what has no chat is not kept out");

    // what null and absence mean
    patch(&kero, &path, json!({ "rate_limit": null, "enabled": false })).await.expect(200);
    let read = kero.get(&path).await.expect(200)["data"].clone();
    assert_eq!((read.get("rate_limit"), &read["timeout_seconds"], &read["enabled"]), (None, &json!(5), &json!(false)));
    kero.delete(&path).await.expect(200);
    kero.get(&path).await.problem(404, "endpoint-not-found");
    assert_eq!(
        kero.get("/instances/a/webhook").await.expect(200)["data"]["url"],
        groups.url,
        "the next one is first now"
    );
    // an instance's key sees its own, not the global ones
    kero.get(&format!("/endpoints/{}", made["data"]["id"].as_str().unwrap())).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_refused_and_change_nothing() {
    let simulator = simulator().await;
    let kero =
        Kero::start_with(&simulator, Options::default().env("KERO_HTTP__PUBLIC_URL", "http://127.0.0.1:8099")).await;
    kero.create("a").await;
    let (path, _) = endpoint(&kero, "a", json!({ "url": "https://example.org/hook" })).await;
    let before = kero.get("/instances/a/endpoints").await.expect(200);
    let long = format!("https://{}.example.org/", "a".repeat(64));
    for url in [
        "javascript:alert(1)",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "//example.com",
        "",
        "http://user:pw@example.com/",
        "http://example.com:0/",
        "http://example.com:22/",
        "http://example.com:25/",
        "http://example.com:6379/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://[::1%25lo]/",
        "http://[64:ff9b::a00:1]/",
        "http://127.0.0.1:8099/instances",
        &long,
    ] {
        for (method, path) in [(Method::POST, "/instances/a/endpoints"), (Method::PATCH, path.as_str())] {
            let body = json!({ "url": url }).to_string().into_bytes();
            let problem = kero.request(method, path, &[], Some(body)).await.problem(400, "validation-failed");
            assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}");
        }
    }
    let key = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
    for (body, pointer) in [
        (json!({ "events": ["nonsense"] }), "/events/0"),
        (json!({ "chats": ["nobody"] }), "/chats/0"),
        (json!({ "chat_types": ["room"] }), "/chat_types/0"),
        (json!({ "message_types": ["a b"] }), "/message_types"),
        (json!({ "direction": "up" }), "/direction"),
        (json!({ "order": "random" }), "/order"),
        (json!({ "rate_limit": 0 }), "/rate_limit"),
        (json!({ "rate_limit": 1001 }), "/rate_limit"),
        (json!({ "timeout_seconds": 31 }), "/timeout_seconds"),
        (json!({ "retry_schedule": [0] }), "/retry_schedule/0"),
        (json!({ "retry_schedule": vec![1; 21] }), "/retry_schedule"),
        (json!({ "headers": { "Host": "x" } }), "/headers/Host"),
        (json!({ "headers": { "webhook-id": "x" } }), "/headers/webhook-id"),
        (json!({ "headers": { "Content-Length": "1" } }), "/headers/Content-Length"),
        (json!({ "headers": { "User-Agent": "x" } }), "/headers/User-Agent"),
        (json!({ "headers": { "transfer-encoding": "chunked" } }), "/headers/transfer-encoding"),
        (json!({ "headers": { "X-Webhook-Signature": "x" } }), "/headers/X-Webhook-Signature"),
        (json!({ "headers": { "X-A": "1\r\nX-B: 2" } }), "/headers/X-A"),
        (json!({ "headers": { "X A": "1" } }), "/headers/X A"),
        (json!({ "headers": { "X-A": "1", "x-a": "2" } }), "/headers"),
        (json!({ "headers": { "X-A": 1 } }), "/headers"),
        (json!({ "headers": { "X-A": "x".repeat(5000) } }), "/headers/X-A"),
    ] {
        let mut create = body.clone();
        create["url"] = "https://example.org/".into();
        for answer in [kero.post("/instances/a/endpoints", create).await, patch(&kero, &path, body.clone()).await] {
            let problem = answer.problem(400, "validation-failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        }
    }
    for secret in
        [String::new(), "x".repeat(23), "x".repeat(65), key(0), key(23), key(65), key(10_000), "whsec_%".to_owned()]
    {
        let body = json!({ "url": "https://example.org/", "secret": secret });
        kero.post("/instances/a/endpoints", body).await.problem(400, "validation-failed");
        kero.post(&format!("{path}/rotate-secret"), json!({ "secret": secret }))
            .await
            .problem(400, "validation-failed");
    }
    kero.post(&format!("{path}/rotate-secret"), json!({ "overlap_seconds": 604_801 }))
        .await
        .problem(400, "validation-failed");
    kero.post(&format!("{path}/replay"), json!({ "since": "2030-01-01T00:00:00Z" }))
        .await
        .problem(400, "validation-failed");
    kero.get("/instances/a/deliveries?endpoint_id=x").await.problem(400, "validation-failed");
    assert_eq!(kero.get("/instances/a/endpoints").await.expect(200), before, "nothing changed");
    // a bounded number
    for _ in 1..20 {
        endpoint(&kero, "a", json!({ "url": "https://example.org/hook" })).await;
    }
    let problem = kero.post("/instances/a/endpoints", json!({ "url": "https://example.org/" })).await;
    problem.problem(409, "endpoint-limit");
    for path in ["/instances/a/endpoints/x", "/instances/a/endpoints/019ab000-0000-7000-8000-000000000000"] {
        kero.get(path).await.problem(404, "endpoint-not-found");
    }
    kero.get("/instances/a/deliveries/x").await.problem(404, "delivery-not-found");
    kero.get("/instances/a/events/x").await.problem(404, "event-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_signs_until_its_time_ends() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    let (path, made) = endpoint(&kero, "a", json!({ "url": sink.url })).await;
    let first = made["secret"].as_str().unwrap().to_owned();
    let test = async |count: usize| {
        let result = kero.post_empty(&format!("{path}/test?event=status")).await.expect(200);
        assert_eq!((&result["data"]["delivered"], &result["data"]["status"]), (&json!(true), &json!(200)), "{result}");
        let received = sink.received();
        assert_eq!(received.len(), count);
        received.last().unwrap().clone()
    };
    let received = test(1).await;
    assert_eq!(received.json()["data"]["test"], true);
    verify(&first, &received).unwrap();
    let second = kero.post(&format!("{path}/rotate-secret"), json!({})).await.expect(200)["data"]["secret"].clone();
    let second = second.as_str().unwrap().to_owned();
    let received = test(2).await;
    verify(&first, &received).expect("the old one signs, too");
    verify(&second, &received).expect("and so does the new one");
    let body = json!({ "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "overlap_seconds": 0 });
    let shown = kero.post(&format!("{path}/rotate-secret"), body).await.expect(200);
    assert!(shown["data"].get("secret").is_none(), "the caller has it");
    let received = test(3).await;
    assert!(verify(&first, &received).is_err() && verify(&second, &received).is_err(), "ended");
    verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &received).unwrap();
    // what a test says of an endpoint that is not there
    patch(&kero, &path, json!({ "url": "http://127.0.0.1:9/" })).await.problem(400, "validation-failed");
    patch(&kero, &path, json!({ "url": "http://127.0.0.1:39999/" })).await.expect(200);
    let result = kero.post_empty(&format!("{path}/test")).await.expect(200)["data"].clone();
    assert!(result["delivered"] == false && result.get("status").is_none(), "{result}");
    assert!(result["error"].as_str().unwrap().contains("no connection"), "{result}");
    let global = kero.post("/endpoints", json!({ "url": sink.url })).await.expect(201)["data"]["id"].clone();
    let result = kero.post_empty(&format!("/endpoints/{}/test", global.as_str().unwrap())).await.expect(200);
    assert_eq!(result["data"]["delivered"], true);
}

fn quick() -> Options {
    Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"50ms\",\"50ms\"]").env("KERO_DELIVERY__BREAKER_LEAST", "1000")
}

async fn deliveries(kero: &Kero, query: &str) -> Vec<Value> {
    let page = kero.get(&format!("/instances/a/deliveries?{query}")).await.expect(200);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_deliveries_are_in_the_log_and_can_be_replayed() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    let sink = Sink::start().await;
    paired(&kero, &simulator, "a", "491516000011", "491516000012").await;
    let (path, made) = endpoint(&kero, "a", json!({ "url": sink.url, "events": ["message"] })).await;
    sink.behave(Behaviour::Status(500));
    for text in ["one", "two", "three"] {
        simulator.send_text("491516000012", "491516000011", text).await.unwrap();
    }
    eventually("three dead ones", || async { (deliveries(&kero, "state=dead").await.len() == 3).then_some(()) }).await;
    let dead = deliveries(&kero, "state=dead&limit=2").await;
    assert_eq!(dead.len(), 2);
    let first = deliveries(&kero, "state=dead").await.pop().unwrap();
    assert_eq!(
        (&first["attempts"], &first["event"], &first["endpoint_id"]),
        (&json!(3), &json!("message"), &made["id"])
    );
    assert_eq!((&first["last_status"], first.get("last_error")), (&json!(500), None));
    let message = first["message_id"].as_str().unwrap();
    assert_eq!(deliveries(&kero, &format!("message_id={message}")).await, std::slice::from_ref(&first));
    assert!(
        deliveries(&kero, "message_id=other").await.is_empty() && deliveries(&kero, "event=receipt").await.is_empty()
    );
    let detail = kero.get(&format!("/instances/a/deliveries/{}", first["id"].as_str().unwrap())).await.expect(200);
    let attempts = detail["data"]["attempts"].as_array().unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt["number"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
    for attempt in attempts {
        assert_eq!((&attempt["status"], &attempt["trigger"]), (&json!(500), &json!("event")), "{attempt}");
        assert!(attempt["total_ms"].is_u64() && attempt["first_byte_ms"].is_u64(), "{attempt}");
    }
    assert!(
        attempts[0]["connect_ms"].is_u64()
            && attempts[0]["next_attempt_at"].is_string()
            && attempts[2].get("next_attempt_at").is_none()
    );
    let metrics = kero.get("/metrics").await.text();
    assert!(metrics.contains("kero_delivery_attempts_total{") && metrics.contains("outcome=\"dead\""), "{metrics}");
    assert!(!metrics.contains(&sink.url) && !metrics.contains("491516000012"), "no URL and no number in a label");

    // one by its id
    let before = sink.received().len();
    sink.behave(Behaviour::Status(200));
    let replayed =
        kero.post_empty(&format!("/instances/a/deliveries/{}/replay", first["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(replayed["data"]["delivery"]["trigger"], "manual");
    eventually("it again", || async { (sink.received().len() > before).then_some(()) }).await;
    let again = sink.received().pop().unwrap();
    assert_eq!(again.headers["webhook-id"], first["event_id"].as_str().unwrap(), "under the same id");
    let original = sink
        .received()
        .into_iter()
        .find(|received| received.headers["webhook-id"] == again.headers["webhook-id"])
        .unwrap();
    assert_eq!(again.body, original.body, "the same bytes");
    eventually("recorded", || async {
        let detail = kero.get(&format!("/instances/a/deliveries/{}", first["id"].as_str().unwrap())).await.expect(200);
        let last = detail["data"]["attempts"].as_array().unwrap().last().cloned().unwrap();
        (last["number"] == 4 && last["trigger"] == "manual" && detail["data"]["delivery"]["state"] == "delivered")
            .then_some(())
    })
    .await;
    // the rest by range
    let nothing = json!({ "since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z" });
    assert_eq!(
        kero.post(&format!("{path}/replay"), nothing).await.expect(200),
        json!({ "success": true, "replayed": 0, "missed": 0 })
    );
    let done = kero.post(&format!("{path}/replay"), json!({ "events": ["message"] })).await.expect(200);
    assert_eq!((&done["replayed"], &done["missed"]), (&json!(2), &json!(0)));
    eventually("the rest", || async { (sink.received().len() == before + 3).then_some(()) }).await;
    let texts: Vec<String> = texts(&sink).split_off(before);
    assert_eq!(texts, ["one", "two", "three"], "in the journal's order");
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_tells_and_keeps_and_nothing_is_missed_in_the_end() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    let (sink, watcher) = (Sink::start().await, Sink::start().await);
    paired(&kero, &simulator, "a", "491516000021", "491516000022").await;
    let (path, made) = endpoint(&kero, "a", json!({ "url": sink.url, "events": ["message"] })).await;
    endpoint(&kero, "a", json!({ "url": watcher.url, "events": ["endpoint"] })).await;
    sink.behave(Behaviour::Status(410));
    simulator.send_text("491516000022", "491516000021", "kept").await.unwrap();
    let (_, told) = watcher.wait_for("that it was disabled", |json| json["event"] == "endpoint").await;
    assert_eq!(
        (&told["data"]["endpoint_id"], &told["data"]["status"], &told["data"]["reason"]),
        (&made["id"], &json!("disabled"), &json!("gone"))
    );
    let read = kero.get(&path).await.expect(200)["data"].clone();
    assert_eq!((&read["enabled"], &read["disabled_reason"]), (&json!(false), &json!("gone")));
    for text in ["missed 1", "missed 2"] {
        simulator.send_text("491516000022", "491516000021", text).await.unwrap();
    }
    eventually("both in the journal", || async {
        let page = kero.get("/instances/a/events?after=0&limit=100").await.expect(200);
        let count = page["data"].as_array().unwrap().iter().filter(|event| event["event"] == "message").count();
        (count == 3).then_some(())
    })
    .await;
    assert_eq!(sink.received().len(), 1, "a disabled endpoint gets nothing");
    assert_eq!(deliveries(&kero, "state=pending").await.len(), 1, "what waited is kept");
    sink.behave(Behaviour::Status(200));
    patch(&kero, &path, json!({ "enabled": true })).await.expect(200);
    eventually("what was kept", || async { (sink.received().len() == 2).then_some(()) }).await;
    let done = kero.post(&format!("{path}/replay"), json!({})).await.expect(200);
    assert_eq!((&done["replayed"], &done["missed"]), (&json!(0), &json!(2)), "exactly what was missed");
    eventually("all of it", || async { (sink.received().len() == 4).then_some(()) }).await;
    assert_eq!(texts(&sink)[1..], ["kept", "missed 1", "missed 2"]);
    let done = kero.post(&format!("{path}/replay"), json!({})).await.expect(200);
    assert_eq!((&done["replayed"], &done["missed"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_only_fails_is_left_alone_then_probed_then_disabled() {
    let simulator = simulator().await;
    let options = Options::default()
        .env("KERO_DELIVERY__SCHEDULE", "[\"20ms\",\"20ms\",\"20ms\",\"20ms\",\"20ms\",\"20ms\"]")
        .env("KERO_DELIVERY__BREAKER_LEAST", "4")
        .env("KERO_DELIVERY__BREAKER_OPEN", "300ms")
        .env("KERO_DELIVERY__BREAKER_CEILING", "600ms");
    let mut kero = Kero::start_with(&simulator, options.clone()).await;
    let sink = Sink::start().await;
    paired(&kero, &simulator, "a", "491516000031", "491516000032").await;
    let (path, _) = endpoint(&kero, "a", json!({ "url": sink.url, "events": ["message"] })).await;
    sink.behave(Behaviour::Status(503));
    simulator.send_text("491516000032", "491516000031", "patience").await.unwrap();
    // seven tries are all that the schedule has; probes are not among them
    let probed = eventually("probes", || async {
        let delivery = deliveries(&kero, "").await.pop()?;
        let detail =
            kero.get(&format!("/instances/a/deliveries/{}", delivery["id"].as_str().unwrap())).await.expect(200);
        let attempts = detail["data"]["attempts"].as_array().unwrap().clone();
        (attempts.len() >= 9).then_some((delivery, attempts))
    })
    .await;
    assert_eq!(probed.0["state"], "pending", "waiting burns no tries");
    let triggers: Vec<&str> = probed.1.iter().map(|attempt| attempt["trigger"].as_str().unwrap()).collect();
    assert_eq!(triggers[..4], ["event"; 4]);
    assert!(triggers[4..].iter().all(|trigger| *trigger == "probe"), "{triggers:?}");
    sink.behave(Behaviour::Status(200));
    eventually("the delivery", || async { (!deliveries(&kero, "state=delivered").await.is_empty()).then_some(()) })
        .await;
    // failures for longer than disable_after disable it
    kero.kill().await;
    kero.set_env("KERO_DELIVERY__DISABLE_AFTER", "1s");
    kero.launch().await;
    kero.wait_status("a", "connected").await;
    sink.behave(Behaviour::Status(500));
    simulator.send_text("491516000032", "491516000031", "hopeless").await.unwrap();
    let read = eventually("it to be disabled", || async {
        let read = kero.get(&path).await.expect(200)["data"].clone();
        (read["enabled"] == false).then_some(read)
    })
    .await;
    assert_eq!(read["disabled_reason"], "failing");
    assert_eq!(deliveries(&kero, "state=pending").await.len(), 1, "what waits is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_an_event_goes_out_thin_and_is_fetched_whole() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, Options::default().env("KERO_DELIVERY__MAX_PAYLOAD", "4096")).await;
    let sink = Sink::start().await;
    paired(&kero, &simulator, "a", "491516000041", "491516000042").await;
    endpoint(&kero, "a", json!({ "url": sink.url, "events": ["message"] })).await;
    let long = "x".repeat(6000);
    simulator.send_text("491516000042", "491516000041", &long).await.unwrap();
    let (received, json) = sink.wait_for("a thin event", |json| json["event"] == "message").await;
    assert!(received.body.len() <= 4096);
    assert_eq!(json["data"]["truncated"], true);
    let whole = kero.get(json["data"]["fetch_url"].as_str().unwrap()).await.expect(200);
    assert_eq!((&whole["data"]["data"]["text"], &whole["data"]["id"]), (&json!(long), &json["id"]));
    kero.create("b").await;
    let other = json["data"]["fetch_url"].as_str().unwrap().replace("/a/", "/b/");
    kero.get(&other).await.problem(404, "event-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_endpoint_gets_no_more_than_it_bears() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let (slow, free) = (Sink::start().await, Sink::start().await);
    paired(&kero, &simulator, "a", "491516000051", "491516000052").await;
    endpoint(&kero, "a", json!({ "url": slow.url, "events": ["message"], "rate_limit": 2 })).await;
    endpoint(&kero, "a", json!({ "url": free.url, "events": ["message"] })).await;
    for n in 0..8 {
        simulator.send_text("491516000052", "491516000051", &format!("n{n}")).await.unwrap();
    }
    eventually("all without a limit", || async { (texts(&free).len() == 8).then_some(()) }).await;
    eventually("all with one", || async { (texts(&slow).len() == 8).then_some(()) }).await;
    // two of them may be saved up; how much slower it is than the limit is the machine's affair, and a try that begins
    // late may be followed by one in time
    let at: Vec<i64> = slow.received().iter().map(|received| received.at).collect();
    assert!(at[7] - at[0] >= 6 * 500 - 1_000, "{at:?}");
    assert_eq!(texts(&slow), (0..8).map(|n| format!("n{n}")).collect::<Vec<_>>());
}
