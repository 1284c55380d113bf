//! Endpoints that misbehave: bounded time, bounded memory, the right conclusion; and nobody else notices.

use crate::support::hostile::{Hostile, request};
use crate::support::{Kero, Options, Sink, eventually, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// An endpoint of instance `a` with a deadline of one second; its path.
pub async fn endpoint(kero: &Kero, url: &str) -> String {
    let body = json!({ "url": url, "timeout_seconds": 1, "events": ["message"] });
    let made = kero.post("/instances/a/endpoints", body).await.expect(201);
    format!("/instances/a/endpoints/{}", made["data"]["id"].as_str().unwrap())
}

/// What one exchange with `url` comes to.
pub async fn test(kero: &Kero, url: &str) -> Value {
    let path = endpoint(kero, url).await;
    let result = kero.post_empty(&format!("{path}/test")).await.expect(200)["data"].clone();
    kero.delete(&path).await.expect(200);
    // one second, and what a busy machine adds
    assert!(result["total_ms"].as_u64().unwrap() < 5_000, "{result}");
    assert!(result["response_head"].as_str().unwrap_or_default().len() <= 3 * 16_384, "{}", result["response_head"]);
    result
}

/// The most that the process ever had.
fn memory_kib(kero: &Kero) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", kero.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Listens, and takes no connection: its backlog is full.
struct Deaf {
    url: String,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<tokio::task::JoinHandle<()>>,
}

impl Deaf {
    async fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = (0..4).map(|_| {
            tokio::spawn(async move {
                let _connected = tokio::net::TcpStream::connect(address).await;
                std::future::pending().await
            })
        });
        let waiting = waiting.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self { url: format!("http://{address}/hook"), _listener: listener, _waiting: waiting }
    }
}

/// Headers without an end, in as many exchanges at once: each holds no more than 64 KiB for them.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_all_headers_take_little_memory_each() {
    const EXCHANGES: usize = 200;
    const KIB_EACH: usize = 64;
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.create("a").await;
    // an answer comes slowly at its end, so that all of them are held at once
    let dripping = |headers: usize| {
        Hostile::start(move |mut stream, counts| {
            Box::pin(async move {
                request(&mut stream, &counts).await;
                if headers == 0 {
                    return std::future::pending().await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
                let _ = stream.write_all(&vec![b'x'; headers]).await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
    };
    let all = async |url: &str| {
        let body = json!({ "url": url, "timeout_seconds": 4, "events": ["message"] });
        let made = kero.post("/instances/a/endpoints", body).await.expect(201);
        let path = format!("/instances/a/endpoints/{}/test", made["data"]["id"].as_str().unwrap());
        let tests = (0..EXCHANGES).map(async |_| kero.post_empty(&path).await.expect(200)["data"].clone());
        futures_util::future::join_all(tests).await
    };
    // what as many exchanges take without an answer
    all(&dripping(0).await.url).await;
    let before = memory_kib(&kero);
    for (headers, why) in [(30_000, "in time"), (400_000, "the exchange failed")] {
        for result in all(&dripping(headers).await.url).await {
            assert!(result["error"].as_str().unwrap().contains(why), "{result}");
        }
        let grown = memory_kib(&kero) - before;
        println!("{EXCHANGES} answers of {headers} bytes of headers, held at once: {grown} KiB more");
        assert!(grown < EXCHANGES * KIB_EACH, "{grown} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misbehaviour_ends_in_time_and_in_the_right_conclusion() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    kero.create("a").await;
    let other = Sink::start().await;
    let before = memory_kib(&kero);
    let taken =
        |result: &Value, status: u16| assert!(result["delivered"] == true && result["status"] == status, "{result}");
    let refused =
        |result: &Value, status: u16| assert!(result["delivered"] == false && result["status"] == status, "{result}");
    let failed = |result: &Value, why: &str| {
        assert!(result["delivered"] == false && result.get("status").is_none(), "{result}");
        assert!(result["error"].as_str().unwrap().contains(why), "{why}: {result}");
    };

    // what a status says counts, whatever follows it
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", 204),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbroken off", 200),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n\x1f\x7f\x08\x00\x00", 200),
        ("HTTP/1.0 200 OK\r\n\r\nuntil it closes", 200),
    ] {
        taken(&test(&kero, &Hostile::answering(answer).await.url).await, status);
    }
    // and when the connection is reset behind it
    let reset = Hostile::start(|mut stream, counts| {
        Box::pin(async move {
            request(&mut stream, &counts).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nwell, ").await;
            stream.set_zero_linger().unwrap();
        })
    })
    .await;
    taken(&test(&kero, &reset.url).await, 200);
    let redirect: &'static str = Box::leak(
        format!("HTTP/1.1 301 Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", other.url).into_boxed_str(),
    );
    for (answer, status) in [
        (redirect, 301),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n", 101),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410),
        ("HTTP/1.1 429 Slow\r\nretry-after: 1e9\r\ncontent-length: 0\r\n\r\n", 429),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", 500),
    ] {
        let result = test(&kero, &Hostile::answering(answer).await.url).await;
        refused(&result, status);
        assert_eq!(result["error"].is_string(), status == 301, "a redirect is explained: {result}");
    }
    assert!(other.received().is_empty(), "a redirect is not followed");
    for answer in [
        "",
        "hello\n",
        "HTTP/0.9\r\n\r\n",
        "HTTP/1.1 2xx OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "\0\0\0\0\r\n\r\n",
    ] {
        failed(&test(&kero, &Hostile::answering(answer).await.url).await, "the exchange failed");
    }
    let crowd: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000)).into_boxed_str());
    failed(&test(&kero, &Hostile::answering(crowd).await.url).await, "the exchange failed");

    // time
    failed(&test(&kero, &Hostile::black_hole().await.url).await, "in time");
    let drip = |head: &'static str, text: &'static str| {
        Hostile::start(move |mut stream, counts| {
            Box::pin(async move {
                request(&mut stream, &counts).await;
                let _ = stream.write_all(head.as_bytes()).await;
                for byte in text.as_bytes().iter().cycle() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                }
            })
        })
    };
    failed(&test(&kero, &drip("", "HTTP/1.1 200 OK\r\nx-a: b").await.url).await, "in time");
    taken(&test(&kero, &drip("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", "x").await.url).await, 200);
    let late = Hostile::start(|mut stream, counts| {
        Box::pin(async move {
            request(&mut stream, &counts).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        })
    })
    .await;
    failed(&test(&kero, &late.url).await, "in time");
    let gone = Hostile::start(|stream, _| Box::pin(async move { drop(stream) })).await;
    failed(&test(&kero, &gone.url).await, "the exchange failed");

    // always about to answer
    let hints = Hostile::endless("", b"HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n").await;
    failed(&test(&kero, &hints.url).await, "in time");
    let deaf = Deaf::start().await;
    failed(&test(&kero, &deaf.url).await, "in time");

    // memory: nobody takes what does not end
    const PART: &[u8] = &[b'x'; 64 * 1024];
    const CHUNK: &[u8] = b"8\r\n01234567\r\n";
    for (head, part, status) in [
        ("HTTP/1.1 200 OK\r\n\r\n", PART, Some(200)),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", PART, Some(200)),
        ("HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK, Some(500)),
        ("HTTP/1.1 200 OK\r\nx-long: ", PART, None),
        ("HTTP/1.1 200 ", PART, None),
    ] {
        let endless = Hostile::endless(head, part).await;
        let result = test(&kero, &endless.url).await;
        match status {
            Some(200) => taken(&result, 200),
            Some(status) => refused(&result, status),
            None => failed(&result, "the exchange failed"),
        }
        let head = result["response_head"].as_str().unwrap_or_default();
        assert_eq!(head.len(), if status.is_some() { 16_384 } else { 0 }, "{head:?}: as much is kept, and no more");
        eventually("the connection is given up", || async {
            (endless.counts.ended.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        // what lies in the sockets' buffers, no more
        let written = endless.counts.written.load(Ordering::SeqCst);
        assert!(written < 16 * 1024 * 1024, "{head:?}: {written} bytes were taken");
    }
    let after = memory_kib(&kero);
    assert!(after < before + 64 * 1024, "the process grew from {before} to {after} KiB");
    // and it still delivers
    taken(&test(&kero, &other.url).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn flapping_and_hints_lose_nothing_and_keep_the_order() {
    let simulator = simulator().await;
    let kero =
        Kero::start_with(&simulator, Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"30ms\",\"30ms\",\"30ms\"]"))
            .await;
    kero.paired(&simulator, "a", "491517000001").await;
    person(&simulator, "491517000002", Script::Silent);
    // every other request is refused, the first one with a hint
    let flapping = Hostile::start(|mut stream, counts| {
        Box::pin(async move {
            while request(&mut stream, &counts).await {
                let answer = match counts.requests.load(Ordering::SeqCst) {
                    1 => "HTTP/1.1 503 Later\r\nretry-after: 1.5\r\ncontent-length: 0\r\n\r\n",
                    n if n % 2 == 1 => "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    })
    .await;
    endpoint(&kero, &flapping.url).await;
    for n in 0..6 {
        simulator.send_text("491517000002", "491517000001", &format!("n{n}")).await.unwrap();
    }
    let delivered = eventually("all of them", || async {
        let page = kero.get("/instances/a/deliveries?state=delivered").await.expect(200);
        Some(page["data"].as_array().unwrap().clone()).filter(|found| found.len() == 6)
    })
    .await;
    assert_eq!(flapping.counts.requests.load(Ordering::SeqCst), 12, "two tries each");
    // in order: each one's success before the next one's first try
    let mut last = String::new();
    for delivery in delivered.iter().rev() {
        let detail =
            kero.get(&format!("/instances/a/deliveries/{}", delivery["id"].as_str().unwrap())).await.expect(200);
        let attempts = detail["data"]["attempts"].as_array().unwrap().clone();
        assert_eq!(
            attempts.iter().map(|attempt| attempt["status"].as_u64().unwrap() / 100).collect::<Vec<_>>(),
            [5, 2]
        );
        assert!(attempts[0]["at"].as_str().unwrap() >= last.as_str(), "{attempts:?} after {last}");
        last = attempts[1]["at"].as_str().unwrap().to_owned();
        if attempts[0]["status"] == 503 {
            let at = |text: &Value| kero_domain::Timestamp::parse_rfc3339(text.as_str().unwrap()).unwrap();
            assert!(at(&attempts[1]["at"]).0 - at(&attempts[0]["at"]).0 >= 1_500, "the hint counts: {attempts:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn black_holes_hold_no_place_that_others_need() {
    let simulator = simulator().await;
    // four shared places, and far more endpoints that never answer
    let options = Options::default().env("KERO_DELIVERY__CONCURRENCY", "4").env("KERO_DELIVERY__TIMEOUT", "30s");
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", "491517000011").await;
    person(&simulator, "491517000012", Script::Silent);
    let healthy = Sink::start().await;
    let mut holes = Vec::new();
    for _ in 0..12 {
        let hole = Hostile::black_hole().await;
        let body = json!({ "url": hole.url, "events": ["message"], "order": "none" });
        kero.post("/instances/a/endpoints", body).await.expect(201);
        holes.push(hole);
    }
    kero.post("/instances/a/endpoints", json!({ "url": healthy.url, "events": ["message"] })).await.expect(201);
    for n in 0..30 {
        simulator.send_text("491517000012", "491517000011", &format!("n{n}")).await.unwrap();
    }
    eventually("everything at the healthy one", || async { (healthy.received().len() == 30).then_some(()) }).await;
    let ended: usize = holes.iter().map(|hole| hole.counts.ended.load(Ordering::SeqCst)).sum();
    assert_eq!(ended, 0, "the healthy one did not wait for any of them to give up");
    let held: usize = holes.iter().map(|hole| hole.counts.now.load(Ordering::SeqCst)).sum();
    assert!(held > 4, "more are stuck ({held}) than there are shared places");
    for hole in &holes {
        assert!(hole.counts.most.load(Ordering::SeqCst) <= 8, "each within its own limit");
    }
    assert!(healthy.connections() <= 16, "{} connections for 30 deliveries", healthy.connections());
}

/// Statements, commits and connections for each delivery, from the journal to the record of its try.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_costs_what_it_should() {
    const EVENTS: usize = 400;
    let simulator = simulator().await;
    let sink = Sink::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let mut config = kero::config::Config::defaults().unwrap();
    config.listen = ([127, 0, 0, 1], 0).into();
    config.data_dir = folder.path().to_owned();
    config.whatsapp.url = Some(simulator.ws_url());
    config.delivery.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let running = kero::boot::start(&config).await.unwrap();
    let (gateway, store) = (running.gateway(), running.store());
    let instance = gateway
        .create_instance(kero_gateway::CreateInstance {
            id: "a".parse().unwrap(),
            name: None,
            webhook_url: Some(sink.url.clone()),
            sync_history: false,
        })
        .await
        .unwrap();
    let epoch = store.instance_by_pk(instance.pk).await.unwrap().unwrap().owner_epoch;
    let event = |n: usize| {
        let chat = format!("4917000{:04}@s.whatsapp.net", n % 20);
        let at = kero_domain::Timestamp::now();
        kero_domain::NewEvent::new(kero_domain::EventKind::Message, chat, at, json!({ "text": n.to_string() }))
    };
    store.append_events(instance.pk, epoch, (0..EVENTS).map(event).collect()).await.unwrap();
    let before = store.stats();
    eventually("all delivered", || async { (sink.received().len() >= EVENTS).then_some(()) }).await;
    eventually("all recorded", || async { store.pending_deliveries().await.unwrap().is_empty().then_some(()) }).await;
    let (statements, commits) = (store.stats().statements - before.statements, store.stats().commits - before.commits);
    println!("{EVENTS} deliveries: {statements} statements, {commits} commits, {} connections", sink.connections());
    assert_eq!(sink.received().len(), EVENTS, "each once");
    // how many results share a commit is the machine's affair; what a commit takes is not
    assert!(statements <= 6 * commits, "{statements} statements");
    assert!(commits <= EVENTS as u64, "{commits} commits");
    // one for each line that may be on its way, and few that were opened when none was free just then
    assert!(sink.connections() <= 16, "{} connections", sink.connections());
    running.shutdown().await.unwrap();
}
