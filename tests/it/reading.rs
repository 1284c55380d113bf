//! Reading instead of receiving: the journal in parts, by kind, one event, the message as it came, and what is gone.

use crate::support::{Behaviour, Kero, Options, Sink, database_url, eventually, person, simulator};
use kero_simulator::{Script, Simulator};
use serde_json::Value;

/// An instance `a` with the messages `m0`, `m1`, … in its journal, and the number of its newest event.
async fn filled(kero: &Kero, simulator: &Simulator, phone: &str, peer: &str, count: usize) -> i64 {
    kero.paired(simulator, "a", phone).await;
    person(simulator, peer, Script::Silent);
    for n in 0..count {
        simulator.send_text(peer, phone, &format!("m{n}")).await.unwrap();
    }
    eventually("all messages in the journal", || async {
        let all = kero.get("/instances/a/events?limit=1000").await.expect(200);
        let all = all["data"].as_array().unwrap();
        let messages = all.iter().filter(|event| event["event"] == "message").count();
        (messages == count).then(|| all.last().unwrap()["seq"].as_i64().unwrap())
    })
    .await
}

fn texts(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().filter_map(|event| event["data"]["text"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_read_in_parts_by_kind_and_one_by_one() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let newest = filled(&kero, &simulator, "491518000001", "491518000002", 5).await;

    // in parts, from the first to the last, without a hole
    let (mut after, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let page = kero.get(&format!("/instances/a/events?after={after}&limit=2")).await.expect(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        after = next.to_owned();
    }
    assert!(seen.starts_with(&(1..=newest).collect::<Vec<_>>()), "{seen:?}");

    // by kind, also where a part has none of it
    let messages = kero.get("/instances/a/events?events=message").await.expect(200);
    assert_eq!(texts(&messages), ["m0", "m1", "m2", "m3", "m4"]);
    assert!(messages["data"].as_array().unwrap().iter().all(|event| event["event"] == "message"));
    let two = kero.get("/instances/a/events?events=message,call&limit=2").await.expect(200);
    assert_eq!(texts(&two), ["m0", "m1"]);
    let rest = format!("/instances/a/events?events=message&after={}", two["next_cursor"].as_str().unwrap());
    assert_eq!(texts(&kero.get(&rest).await.expect(200)), ["m2", "m3", "m4"]);
    assert_eq!(kero.get("/instances/a/events?events=label").await.expect(200)["data"], serde_json::json!([]));

    // one event, whole, and only where it belongs
    let event = &messages["data"][0];
    let id = event["id"].as_str().unwrap();
    assert_eq!(&kero.get(&format!("/instances/a/events/{id}")).await.expect(200)["data"], event);
    kero.get("/instances/a/events/none").await.problem(404, "event-not-found");
    kero.get(&format!("/instances/a/events/{}", uuid::Uuid::now_v7())).await.problem(404, "event-not-found");
    kero.create("b").await;
    kero.get(&format!("/instances/b/events/{id}")).await.problem(404, "event-not-found");

    for wrong in ["after=-1", "after=x", "limit=0", "limit=1001", "events=nonsense", "include=everything"] {
        let problem = kero.get(&format!("/instances/a/events?{wrong}")).await.problem(400, "validation-failed");
        assert_eq!(problem["parameter"], wrong.split('=').next().unwrap());
    }
    // a place that the journal has not reached belongs to another journal
    for after in [1_000_000, i64::MAX] {
        let problem = kero.get(&format!("/instances/b/events?after={after}")).await.problem(400, "validation-failed");
        assert_eq!((&problem["parameter"], &problem["newest_seq"]), (&"after".into(), &0.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_kept_is_gone_and_says_from_where() {
    let simulator = simulator().await;
    for postgres in [false, true] {
        let options = match postgres {
            true => Options::default().database(database_url().await),
            false => Options::default(),
        };
        let url = options.database_url.clone();
        let kero = Kero::start_with(&simulator, options).await;
        let url = url.unwrap_or_else(|| format!("sqlite://{}", kero.data.path().join("kero.db").display()));
        let (phone, peer) = if postgres { ("491518000013", "491518000014") } else { ("491518000011", "491518000012") };
        let newest = filled(&kero, &simulator, phone, peer, 4).await;
        let oldest = newest - 2;
        kero_store::testing::execute(&url, &format!("DELETE FROM events WHERE seq < {oldest}")).await.unwrap();
        for after in [0, 1, oldest - 2] {
            let problem = kero.get(&format!("/instances/a/events?after={after}")).await.problem(410, "gone");
            assert_eq!((&problem["oldest_seq"], &problem["newest_seq"]), (&oldest.into(), &newest.into()));
            let stream = format!("/instances/a/events/stream?after={after}");
            assert_eq!(kero.get(&stream).await.problem(410, "gone")["oldest_seq"], oldest);
        }
        let kept = kero.get(&format!("/instances/a/events?after={}", oldest - 1)).await.expect(200);
        assert_eq!(kept["data"].as_array().unwrap().len(), 3);
        let kept = kero.get("/instances/a/events").await.expect(200);
        assert_eq!(kept["data"][0]["seq"], oldest, "without a place, from the first that is kept");
        assert_eq!(kept["data"].as_array().unwrap().len(), 3);
        // everything is gone
        kero_store::testing::execute(&url, "DELETE FROM events").await.unwrap();
        let problem = kero.get("/instances/a/events?after=1").await.problem(410, "gone");
        assert_eq!(problem["oldest_seq"], newest + 1);
        assert_eq!(
            kero.get(&format!("/instances/a/events?after={newest}")).await.expect(200)["data"],
            serde_json::json!([])
        );
        assert_eq!(kero.get("/instances/a/events").await.expect(200)["data"], serde_json::json!([]));
    }
}

/// The same by the gateway's own hand: it keeps the newest three, and a reader that is behind is told so.
#[tokio::test(flavor = "multi_thread")]
async fn what_retention_lets_go_is_gone() {
    let simulator = simulator().await;
    let options = Options::default().env("KERO_RETENTION__MAX_EVENTS", "3").env("KERO_RETENTION__EVERY", "200ms");
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", "491518000041").await;
    person(&simulator, "491518000042", Script::Silent);
    for n in 0..6 {
        simulator.send_text("491518000042", "491518000041", &format!("m{n}")).await.unwrap();
    }
    let gone = eventually("what is behind is gone", || async {
        let answer = kero.get("/instances/a/events?after=0").await;
        (answer.status == 410).then_some(answer)
    })
    .await
    .problem(410, "gone");
    assert!(gone["oldest_seq"].as_i64() > Some(1), "{gone}");
    let kept = eventually("the newest three", || async {
        let page = kero.get("/instances/a/events").await.expect(200);
        (texts(&page) == ["m3", "m4", "m5"]).then_some(page)
    })
    .await;
    let oldest = kept["data"][0]["seq"].as_i64().unwrap();
    assert_eq!(
        kero.get(&format!("/instances/a/events?after={}", oldest - 2)).await.problem(410, "gone")["oldest_seq"],
        oldest
    );
    assert_eq!(texts(&kero.get(&format!("/instances/a/events?after={}", oldest - 1)).await.expect(200)).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_raw_when_asked_for() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    filled(&kero, &simulator, "491518000021", "491518000022", 1).await;
    let plain = kero.get("/instances/a/events?events=message").await.expect(200);
    let event = &plain["data"][0];
    assert!(event["data"].get("raw").is_none());
    let raw = kero.get("/instances/a/events?events=message&include=raw").await.expect(200);
    assert_eq!(raw["data"][0]["data"]["raw"]["conversation"], "m0", "{raw}");
    let path = format!("/instances/a/events/{}", event["id"].as_str().unwrap());
    assert!(kero.get(&path).await.expect(200)["data"]["data"].get("raw").is_none());
    let one = kero.get(&format!("{path}?include=raw")).await.expect(200);
    assert_eq!(one["data"]["data"]["raw"]["conversation"], "m0");
    let status = kero.get("/instances/a/events?events=status&include=raw").await.expect(200);
    assert!(status["data"][0]["data"].get("raw").is_none(), "only messages have one");

    // where it is not wanted it is not kept
    kero.kill().await;
    let without = Kero::start_with(&simulator, Options::default().env("KERO_EVENTS__KEEP_RAW", "false")).await;
    filled(&without, &simulator, "491518000023", "491518000024", 1).await;
    let raw = without.get("/instances/a/events?events=message&include=raw").await.expect(200);
    assert_eq!(texts(&raw), ["m0"]);
    assert!(raw["data"][0]["data"].get("raw").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_messages_raw_that_asks_for_it() {
    let simulator = simulator().await;
    let options = Options::default()
        .env("KERO_DELIVERY__SCHEDULE", format!("[{}]", vec!["\"100ms\""; 50].join(",")))
        .env("KERO_DELIVERY__MAX_PAYLOAD", "8192");
    let mut kero = Kero::start_with(&simulator, options.clone()).await;
    let (with, without) = (Sink::start().await, Sink::start().await);
    kero.create("a").await;
    let body = serde_json::json!({ "url": with.url, "events": ["all"], "include": ["raw"] });
    let made = kero.post("/instances/a/endpoints", body).await.expect(201)["data"].clone();
    assert_eq!(made["include"], serde_json::json!(["raw"]));
    let path = format!("/instances/a/endpoints/{}", made["id"].as_str().unwrap());
    let other = kero.post("/instances/a/endpoints", serde_json::json!({ "url": without.url })).await.expect(201);
    assert_eq!(other["data"]["include"], serde_json::json!([]));
    kero.pair(&simulator, "a", "491518000051").await;
    let peer = person(&simulator, "491518000052", Script::Silent);

    // what is read is what was delivered, in every try
    with.behave(Behaviour::Status(500));
    simulator.send_text(&peer, "491518000051", "raw, please").await.unwrap();
    with.wait_for("a first try", |event| event["event"] == "message").await;
    with.behave(Behaviour::Status(200));
    let (_, plain) = without.wait_for("the message", |event| event["event"] == "message").await;
    assert!(plain["data"].get("raw").is_none());
    let tries = eventually("a second try", || async {
        let tries: Vec<_> = with.received().into_iter().filter(|it| it.json()["event"] == "message").collect();
        tries.last().is_some_and(|it| it.status == 200).then_some(tries)
    })
    .await;
    assert!(tries.iter().all(|it| it.body == tries[0].body), "the same bytes in every try");
    let event = tries[0].json();
    assert_eq!(event["data"]["raw"]["conversation"], "raw, please", "{event}");
    let read = kero.get(&format!("/instances/a/events/{}?include=raw", event["id"].as_str().unwrap())).await;
    assert_eq!(read.expect(200)["data"], event);
    let (_, status) = with.wait_for("a status", |event| event["event"] == "status").await;
    assert!(status["data"].get("raw").is_none(), "only messages have one");
    kero.post_empty(&format!("{path}/test")).await.expect(200);
    with.wait_for("a sample", |event| event["data"]["test"] == true && event["data"]["raw"].is_object()).await;

    // the message itself fits, with its protobuf beside it it does not
    simulator.send_text(&peer, "491518000051", &"x".repeat(5000)).await.unwrap();
    let (_, thin) = with.wait_for("a thin event", |event| event["data"]["truncated"] == true).await;
    let whole = kero.get(thin["data"]["fetch_url"].as_str().unwrap()).await.expect(200);
    assert_eq!(whole["data"]["data"]["raw"]["conversation"].as_str().map(str::len), Some(5000));
    without.wait_for("all of it", |event| event["data"]["text"].as_str().is_some_and(|text| text.len() == 5000)).await;

    // over a restart, and not any longer
    kero.restart().await;
    simulator.send_text(&peer, "491518000051", "still").await.unwrap();
    with.wait_for("the next one", |event| event["data"]["raw"]["conversation"] == "still").await;
    let change = |body: Value| kero.request(reqwest::Method::PATCH, &path, &[], Some(body.to_string().into_bytes()));
    let problem = change(serde_json::json!({ "include": ["everything"] })).await.problem(400, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "/include/0");
    assert_eq!(change(serde_json::json!({ "timeout_seconds": 5 })).await.expect(200)["data"]["include"][0], "raw");
    change(serde_json::json!({ "include": [] })).await.expect(200);
    simulator.send_text(&peer, "491518000051", "no more").await.unwrap();
    let (_, event) = with.wait_for("the last one", |event| event["data"]["text"] == "no more").await;
    assert!(event["data"].get("raw").is_none(), "{event}");
}

/// `GET /instances` looks the webhooks of all instances up at once.
#[tokio::test(flavor = "multi_thread")]
async fn listing_instances_costs_the_same_however_many_there_are() {
    let simulator = simulator().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = kero::config::Config::defaults().unwrap();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.data_dir = folder.path().to_owned();
    config.api_key = Some(crate::support::KEY.into());
    config.whatsapp.url = Some(simulator.ws_url());
    config.http.max_streams = 100;
    let running = kero::boot::start(&config).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}", running.address());
    let create = async |id: String| {
        let body = serde_json::json!({ "instance_id": id, "webhook_url": format!("https://example.org/{id}") });
        let request = http.post(format!("{url}/instances")).header("x-api-key", crate::support::KEY);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    };
    let list = async || {
        let before = running.store().stats().statements;
        let answer =
            http.get(format!("{url}/instances")).header("x-api-key", crate::support::KEY).send().await.unwrap();
        let list: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (list, running.store().stats().statements - before)
    };
    create("i0".to_owned()).await;
    let (_, few) = list().await;
    for n in 1..30 {
        create(format!("i{n}")).await;
    }
    let (instances, many) = list().await;
    let instances = instances["data"].as_array().unwrap();
    assert_eq!(instances.len(), 30);
    for instance in instances {
        assert_eq!(
            instance["webhook_url"],
            format!("https://example.org/{}", instance["instance_id"].as_str().unwrap())
        );
    }
    assert!(many <= few + 2, "{few} statements for one instance, {many} for 30");

    streams_cost_nothing_while_nothing_happens(&running, &http, &url, &simulator).await;
    running.shutdown().await.unwrap();
}

/// No polling: fifty open streams ask the database nothing; one event costs each of them one look.
async fn streams_cost_nothing_while_nothing_happens(
    running: &kero::boot::Running,
    http: &reqwest::Client,
    url: &str,
    simulator: &Simulator,
) {
    const STREAMS: u64 = 50;
    let gateway = running.gateway();
    let id = "i0".parse().unwrap();
    let qr = gateway.qr(&id).await.unwrap();
    simulator.scan_qr(&qr.code, Some("491518000031")).await.unwrap();
    gateway.wait_for_status(&id, kero_domain::InstanceStatus::Connected, crate::support::WAIT).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let request = http.get(format!("{url}/instances/i0/events/stream?events=message"));
        let mut stream = request.header("x-api-key", crate::support::KEY).send().await.unwrap();
        assert!(stream.chunk().await.unwrap().unwrap().starts_with(b"retry: "));
        streams.push(stream);
    }
    // the last events of the login
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let statements = || running.store().stats().statements;
    let before = statements();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let idle = statements() - before;
    assert!(idle < STREAMS, "{idle} statements while nothing happened");

    person(simulator, "491518000032", Script::Silent);
    let before = statements();
    simulator.send_text("491518000032", "491518000031", "one").await.unwrap();
    for stream in &mut streams {
        let chunk = stream.chunk().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&chunk).contains("\"one\""));
    }
    let one = statements() - before;
    println!("idle: {idle} statements in 3 s; one message to {STREAMS} streams: {one}");
    // per stream: where the journal ends, what is new, the event itself; and the same once more for the receipt's event
    assert!(one < STREAMS * 7 + 200, "{one} statements for one message");
}
