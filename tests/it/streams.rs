//! Events as they come: server-sent events and Kero-Kero's WebSocket.

use crate::support::{KEY, Kero, Options, Socket, Sse, eventually, person, simulator};
use kero_simulator::{Script, Simulator};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn quick() -> Options {
    Options::default().env("KERO_HTTP__HEARTBEAT", "1s")
}

async fn say(simulator: &Simulator, from: &str, to: &str, texts: &[&str]) {
    person(simulator, from, Script::Silent);
    for text in texts {
        simulator.send_text(from, to, text).await.unwrap();
    }
}

async fn token(kero: &Kero, id: &str) -> String {
    let answer = kero.post_empty(&format!("/instances/{id}/events/token")).await.expect(201);
    answer["data"]["token"].as_str().unwrap().to_owned()
}

/// A key that sees one instance only, and its id.
async fn key_of(kero: &Kero, id: &str) -> (String, String) {
    let made = kero.command().args(["key", "new", "--instance", id]).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let told = String::from_utf8(made.stderr).unwrap();
    let id = told.split_whitespace().find(|word| uuid::Uuid::parse_str(word).is_ok()).expect("its id").to_owned();
    (key, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_where_it_was_left_over_disconnects_and_kill() {
    let simulator = simulator().await;
    let mut kero = Kero::start_with(&simulator, quick()).await;
    let (phone, peer) = ("491517000001", "491517000002");
    kero.paired(&simulator, "a", phone).await;
    let path = "/instances/a/events/stream?events=message";

    let mut stream = Sse::open(&kero, path, &[]).await;
    let first = stream.block().await.unwrap();
    assert!(first.id.is_some() && first.data.is_none(), "a place to come back to, before anything happens");
    assert!(stream.block().await.unwrap().data.is_none(), "a sign of life");
    say(&simulator, peer, phone, &["one", "two"]).await;
    let one = stream.event().await.unwrap();
    let data = one.data.clone().unwrap();
    assert_eq!((one.event.as_deref(), &data["data"]["text"]), (Some("message"), &"one".into()));
    assert_eq!(one.id, data["seq"].as_i64());
    let read = kero.get(&format!("/instances/a/events/{}", data["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(read["data"], data, "the same event as everywhere");
    let two = stream.event().await.unwrap();
    assert_eq!(two.data.unwrap()["data"]["text"], "two");
    drop(stream);

    // what came meanwhile first, each once and in order, then what comes
    say(&simulator, peer, phone, &["three", "four", "five"]).await;
    let place = two.id.unwrap().to_string();
    let mut stream = Sse::open(&kero, path, &[("last-event-id", &place)]).await;
    assert_eq!(stream.texts(3).await, ["three", "four", "five"]);
    say(&simulator, peer, phone, &["six"]).await;
    assert_eq!(stream.texts(1).await, ["six"]);
    // the header wins over the place that the URL began with
    let mut old = Sse::open(&kero, &format!("{path}&after=0"), &[("last-event-id", &place)]).await;
    assert_eq!(old.texts(2).await, ["three", "four"]);
    let mut whole = Sse::open(&kero, &format!("{path}&after=0&include=raw"), &[]).await;
    let one = whole.event().await.unwrap().data.unwrap();
    assert_eq!(one["data"]["raw"]["conversation"], "one");

    kero.restart().await;
    kero.wait_status("a", "connected").await;
    say(&simulator, peer, phone, &["seven"]).await;
    let mut stream = Sse::open(&kero, path, &[("last-event-id", &place)]).await;
    assert_eq!(stream.texts(5).await, ["three", "four", "five", "six", "seven"]);

    for wrong in ["x", "-1", "1.5"] {
        let headers = [("last-event-id", wrong)];
        let problem = kero.request(reqwest::Method::GET, path, &headers, None).await;
        assert_eq!(problem.problem(400, "validation-failed")["parameter"], "Last-Event-ID");
    }
    kero.get("/instances/a/events/stream?after=1000000").await.problem(400, "validation-failed");
    kero.get("/instances/a/events/stream?events=nonsense").await.problem(400, "validation-failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_moves_on_past_what_was_not_asked_for() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    kero.paired(&simulator, "a", "491517000011").await;
    let mut stream = Sse::open(&kero, "/instances/a/events/stream?events=label", &[]).await;
    let begin = stream.block().await.unwrap().id.unwrap();
    say(&simulator, "491517000012", "491517000011", &["x"]).await;
    loop {
        let block = stream.block().await.unwrap();
        assert_eq!(block.data, None);
        if block.id.is_some_and(|id| id > begin) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_want_a_key_or_a_token_that_is_used_once() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    kero.paired(&simulator, "a", "491517000021").await;
    kero.create("b").await;
    let (key, key_id) = key_of(&kero, "a").await;
    for path in ["/instances/a/events/stream", "/instances/a/ws"] {
        for headers in [&[("x-api-key", "wrong")][..], &[("authorization", "")]] {
            kero.request(reqwest::Method::GET, path, headers, None).await.problem(401, "unauthorized");
        }
        let with = format!("{path}?token=kst_unknown");
        kero.request(reqwest::Method::GET, &with, &[("x-api-key", KEY)], None).await.problem(401, "unauthorized");
        let other = path.replace("/a/", "/b/");
        kero.request(reqwest::Method::GET, &other, &[("x-api-key", &key)], None).await.problem(403, "forbidden");
        let foreign = format!("{other}?token={}", token(&kero, "a").await);
        kero.request(reqwest::Method::GET, &foreign, &[("authorization", "")], None).await.problem(403, "forbidden");
    }
    let token_path = "/instances/b/events/token";
    kero.request(reqwest::Method::POST, token_path, &[("x-api-key", &key)], None).await.problem(403, "forbidden");
    kero.post_empty("/instances/none/events/token").await.problem(404, "instance-not-found");

    let once = format!("/instances/a/events/stream?after=0&token={}", token(&kero, "a").await);
    let mut stream = Sse::open(&kero, &once, &[]).await;
    assert!(stream.event().await.is_some());
    kero.request(reqwest::Method::GET, &once, &[("authorization", "")], None).await.problem(401, "unauthorized");
    let once = format!("/instances/a/ws?token={}", token(&kero, "a").await);
    let mut socket = Socket::open(&kero, &once, None).await.unwrap();
    assert_eq!(socket.frame().await.unwrap()["type"], "status");
    assert!(Socket::open(&kero, &once, None).await.is_err());
    assert!(!kero.log().contains("kst_"), "no token in the log");

    // a key that is revoked while its streams are open
    let mut stream = Sse::open(&kero, "/instances/a/events/stream", &[("x-api-key", &key)]).await;
    let mut socket = Socket::open(&kero, "/instances/a/ws", Some(&key)).await.unwrap();
    let revoked = kero.command().args(["key", "revoke", &key_id]).output().await.unwrap();
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    while stream.block().await.is_some() {}
    assert_eq!(socket.closed().await, 4001);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_instance_and_with_the_gateway() {
    let simulator = simulator().await;
    let mut kero = Kero::start(&simulator).await;
    kero.paired(&simulator, "a", "491517000031").await;
    kero.create("b").await;
    let mut stream = Sse::open(&kero, "/instances/b/events/stream", &[]).await;
    let mut socket = Socket::with_key(&kero, "/instances/b/ws").await;
    socket.frame().await.unwrap();
    kero.delete("/instances/b").await.expect(200);
    while stream.block().await.is_some() {}
    assert_eq!(socket.closed().await, 4004);
    kero.get("/instances/b/events/stream").await.problem(404, "instance-not-found");

    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(Sse::open(&kero, "/instances/a/events/stream", &[]).await);
    }
    let mut socket = Socket::with_key(&kero, "/instances/a/ws").await;
    socket.frame().await.unwrap();
    let (took, code) = kero.terminate().await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(8), "open streams held the stop up for {took:?}");
    for mut stream in streams {
        while stream.block().await.is_some() {}
    }
    assert_eq!(socket.closed().await, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_kero_keros_for_every_client() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    let (phone, peer) = ("491517000041", "491517000042");
    kero.create("a").await;
    kero.get("/instances/a/ws").await.problem(400, "bad-request");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Socket::with_key(&kero, "/instances/a/ws").await);
    }
    for client in &mut clients {
        let now = client.frame().await.unwrap();
        assert_eq!((&now["type"], &now["payload"]["instance_id"]), (&"status".into(), &"a".into()));
    }
    let qr = kero.get("/instances/a/qr").await.expect(200);
    // one who comes while a code is shown gets it, too
    clients.push(Socket::with_key(&kero, "/instances/a/ws").await);
    for client in &mut clients {
        let frame = client.until("the code", |frame| frame["type"] == "qr").await;
        assert_eq!(frame["payload"]["qr"], qr["code"]);
        assert_eq!(frame["payload"]["instance_id"], "a");
    }
    simulator.scan_qr(qr["code"].as_str().unwrap(), Some(phone)).await.unwrap();
    for client in &mut clients {
        client.until("connected", |frame| frame["type"] == "status" && frame["payload"]["status"] == "connected").await;
    }
    // longer than Kero-Kero's connections lived, in heartbeats: each reads, and so answers the pings
    let reading: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let frame = client.until("the message", |frame| frame["type"] == "message").await;
                (client, frame)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    say(&simulator, peer, phone, &["hello"]).await;
    let mut seqs = std::collections::HashSet::new();
    let mut last = None;
    for reading in reading {
        let (client, frame) = reading.await.unwrap();
        let data = &frame["payload"]["data"];
        assert_eq!((&data["text"], &data["from"]), (&"hello".into(), &json!(format!("{peer}@s.whatsapp.net"))));
        seqs.insert(frame["payload"]["seq"].as_i64().unwrap());
        last = Some((client, frame));
    }
    assert_eq!(seqs.len(), 1);
    drop(last);

    // one who comes back with a place misses nothing, and may ask for more kinds
    say(&simulator, peer, phone, &["while away"]).await;
    let place = seqs.into_iter().next().unwrap();
    let mut back = Socket::with_key(&kero, &format!("/instances/a/ws?after={place}&events=all")).await;
    let frame = back.until("the message", |frame| frame["type"] == "message").await;
    assert_eq!(frame["payload"]["data"]["text"], "while away");
    kero.send_text("a", peer, "out").await.expect(200);
    let receipt = back.until("a receipt", |frame| frame["type"] == "receipt").await;
    assert_eq!(receipt["payload"]["data"]["type"], "delivered");
    kero.get("/instances/a/ws?events=nonsense").await.problem(400, "validation-failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_ping_is_dropped() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, quick()).await;
    kero.create("a").await;
    let mut silent = Socket::with_key(&kero, "/instances/a/ws").await;
    silent.sleep(Duration::from_millis(4500)).await;
    assert_eq!(silent.closed().await, 4008);
}

/// A client that opens a stream and reads nothing of it: it costs one part of memory, loses the connection, and its place
/// is free again; nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_costs_little_and_loses_its_place() {
    let simulator = simulator().await;
    let options = quick().env("KERO_HTTP__WRITE_TIMEOUT", "8s").env("KERO_HTTP__MAX_STREAMS", "3");
    let kero = Kero::start_with(&simulator, options).await;
    let (phone, peer) = ("491517000051", "491517000052");
    kero.paired(&simulator, "a", phone).await;
    // more than the sockets between the two hold
    const MESSAGES: usize = 110;
    person(&simulator, peer, Script::Silent);
    let text = "x".repeat(60_000);
    for _ in 0..MESSAGES {
        simulator.send_text(peer, phone, &text).await.unwrap();
    }
    let mut reader = Sse::open(&kero, "/instances/a/events/stream?after=0&events=message", &[]).await;
    reader.texts(MESSAGES).await;

    let before = resident(kero.pid());
    let address = kero.url.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        let request = format!(
            "GET /instances/a/events/stream?after=0&events=message HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        slow.push(socket);
    }
    kero.get("/instances/a/events/stream").await.problem(429, "too-many-requests");
    let grown = resident(kero.pid()).saturating_sub(before);
    println!("two clients that do not read, {} MB behind: {grown} kB more", MESSAGES * 60_000 / 1_000_000);
    assert!(grown < 40_000, "{grown} kB for two slow clients");

    // both places are free again, and the one who reads still gets what comes
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(
            eventually("a free place", || async { Socket::open(&kero, "/instances/a/ws", Some(KEY)).await.ok() }).await,
        );
    }
    simulator.send_text(peer, phone, "after all").await.unwrap();
    assert_eq!(reader.texts(1).await, ["after all"]);
    // what was on its way, then the end
    for mut socket in slow {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection was not ended");
        assert!(rest.len() < MESSAGES * 60_000, "it got all of it");
    }
}

/// Memory of a process in kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("kB")
}
