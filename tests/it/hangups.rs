//! Connections that end at the wrong moment. The HTTP library keeps connections open and knows ways of sending a request
//! once more by itself; here every request on the wire is a try in the log, under the same `webhook-id`.

use crate::support::hostile::{Counts, Hostile};
use crate::support::{Kero, Options, eventually, person, simulator};
use kero_simulator::Script;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the second request to a receiver meets, on a connection that worked before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// It is read, and the connection closed without an answer: the receiver may have done its work.
    Unanswered,
    /// Its head is read, and the connection reset.
    Halfway,
    /// It is answered, and the connection closed without a word of warning.
    Answered,
}

/// The `webhook-id` of every request that arrived, in order.
type Seen = Arc<Mutex<Vec<String>>>;

async fn receiver(ending: Ending) -> (Hostile, Seen) {
    let seen = Seen::default();
    let noting = seen.clone();
    let server = Hostile::start(move |stream, counts| Box::pin(serve(stream, counts, noting.clone(), ending))).await;
    (server, seen)
}

async fn serve(mut stream: TcpStream, counts: Arc<Counts>, seen: Seen, ending: Ending) {
    loop {
        let (mut bytes, mut part) = (Vec::new(), [0; 512]);
        let end = loop {
            match stream.read(&mut part).await {
                Ok(count) if count > 0 => bytes.extend_from_slice(&part[..count]),
                _ => return,
            }
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let length: usize = header("content-length:").parse().unwrap_or_default();
        seen.lock().unwrap().push(header("webhook-id:").to_owned());
        let strikes = counts.requests.fetch_add(1, Ordering::SeqCst) == 1;
        if strikes && ending == Ending::Halfway {
            // what was not read makes the close a reset
            return;
        }
        let mut missing = length.saturating_sub(bytes.len() - end);
        while missing > 0 {
            match stream.read(&mut part).await {
                Ok(count) if count > 0 => missing = missing.saturating_sub(count),
                _ => return,
            }
        }
        if strikes && ending == Ending::Unanswered {
            return;
        }
        let answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        if answered.is_err() || (strikes && ending == Ending::Answered) {
            return;
        }
    }
}

/// The tries of each delivery to an endpoint: (webhook-id, attempts), in the order of the events.
async fn log(kero: &Kero, endpoint: &str) -> Vec<(String, Vec<Value>)> {
    let page = kero.get(&format!("/instances/a/deliveries?endpoint_id={endpoint}")).await.expect(200);
    let mut log = Vec::new();
    for delivery in page["data"].as_array().unwrap().iter().rev() {
        let path = format!("/instances/a/deliveries/{}", delivery["id"].as_str().unwrap());
        let detail = kero.get(&path).await.expect(200)["data"].clone();
        log.push((delivery["event_id"].as_str().unwrap().to_owned(), detail["attempts"].as_array().unwrap().clone()));
    }
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_on_the_wire_as_often_as_the_log_says() {
    let simulator = simulator().await;
    let options = Options::default().env("KERO_DELIVERY__SCHEDULE", "[\"50ms\",\"50ms\"]");
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", "491526000001").await;
    person(&simulator, "491526000002", Script::Silent);
    let mut receivers = Vec::new();
    for ending in [Ending::Unanswered, Ending::Halfway, Ending::Answered] {
        let (server, seen) = receiver(ending).await;
        let body = json!({ "url": server.url, "events": ["message"] });
        let made = kero.post("/instances/a/endpoints", body).await.expect(201);
        receivers.push((ending, server, seen, made["data"]["id"].as_str().unwrap().to_owned()));
    }
    // longer than one read, so that half a request is one
    let text = "x".repeat(40_000);
    for n in 0..3 {
        simulator.send_text("491526000002", "491526000001", &format!("{n}{text}")).await.unwrap();
        eventually("all of them to have it", || async {
            let page = kero.get("/instances/a/deliveries?state=delivered").await.expect(200);
            (page["data"].as_array().unwrap().len() == 3 * (n + 1)).then_some(())
        })
        .await;
        // the close has arrived before the next one begins
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for (ending, server, seen, endpoint) in &receivers {
        let log = log(&kero, endpoint).await;
        let ids: Vec<&String> = log.iter().map(|(id, _)| id).collect();
        let tries = |n: usize| log[n].1.iter().map(|attempt| attempt["status"].as_u64()).collect::<Vec<_>>();
        let second = if *ending == Ending::Answered { vec![Some(200)] } else { vec![None, Some(200)] };
        assert_eq!((tries(0), tries(1), tries(2)), (vec![Some(200)], second, vec![Some(200)]), "{ending:?}: {log:?}");
        if *ending != Ending::Answered {
            let error = log[1].1[0]["error"].as_str().unwrap();
            assert!(error.starts_with("the exchange failed: "), "{ending:?}: {error}");
            // the second try is the first one's connection's successor: nothing was sent between the two
            assert!(log[1].1[0].get("connect_ms").is_none() && log[1].1[1]["connect_ms"].is_u64(), "{log:?}");
        }
        let mut counted: HashMap<String, usize> = HashMap::new();
        for id in seen.lock().unwrap().iter() {
            *counted.entry(id.clone()).or_default() += 1;
        }
        for (id, attempts) in &log {
            assert_eq!(counted[id], attempts.len(), "{ending:?}: requests on the wire and tries in the log");
        }
        let mut order = seen.lock().unwrap().clone();
        order.dedup();
        assert_eq!(order.iter().collect::<Vec<_>>(), ids, "{ending:?}: in order");
        assert_eq!(server.counts.most.load(Ordering::SeqCst), 1, "{ending:?}: one connection at a time");
    }
}
