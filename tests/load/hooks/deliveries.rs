//! Deliveries with no, one and ten hooks that replace the data or let it pass, in turns, in a running gateway: of a
//! backlog, which is hooks and deliveries alone, and of messages as they come, which are received, decrypted and stored
//! as well. Then the API beside a plugin that spins.

use super::beside;
use crate::Common;
use crate::stage::{self, KEY, Kero, Simulator, cpu};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Hooks, and what they do, which is the first word of the messages.
const CASES: [(usize, &str); 5] = [(0, "replace"), (1, "replace"), (10, "replace"), (1, "pass"), (10, "pass")];
const PEOPLE: usize = 64;
const ACCOUNT: &str = "491584000001";

fn sender(n: usize) -> String {
    // numbers that end in six zeroes are not on WhatsApp
    format!("4915850{:05}", n % PEOPLE + 1)
}

pub async fn run(common: &Common) {
    let folder = TempDir::new().unwrap();
    let http = stage::http();
    let simulator = stage::simulator(&http).await;
    for n in 0..PEOPLE {
        simulator.person(&http, &sender(n)).await;
    }
    let (sink, received) = sink().await;
    let database = stage::database(common.database.as_deref(), &folder, "kero").await;
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/dist").to_owned();
    let environment = [
        ("KERO_DURABILITY", common.durability.clone()),
        ("KERO_DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8".to_owned()),
        ("KERO_DELIVERY__PER_ENDPOINT", "64".to_owned()),
        ("KERO_HOOKS__DIST_DIR", dist.clone()),
    ];
    let kero = stage::kero(&http, &simulator, &folder, database, &environment).await;
    kero.pair(&http, &simulator, "load", ACCOUNT).await;
    let webhook = json!({ "url": sink, "events": ["message"] });
    kero.call(&http, Method::POST, "/instances/load/webhook", &[], Some(webhook)).await;

    let rust = std::fs::read(format!("{dist}/bench.wasm")).expect("run plugins/build first");
    upload(&http, &kero, &manifest("gate", "hook.wasm", "dead", ""), rust.clone()).await;
    for n in 0..10 {
        let reuse = "reuse = { calls = 1000000, age = \"1h\" }";
        upload(&http, &kero, &manifest(&format!("h{n}"), "hook.wasm", "raw", reuse), rust.clone()).await;
    }
    let mut measured = CASES.map(|_| <[Measured; 2]>::default());
    for coming in [false, true] {
        for _ in 0..common.rounds {
            for ((hooks, word), measured) in CASES.into_iter().zip(&mut measured) {
                for n in 0..10 {
                    switch(&http, &kero, &format!("h{n}"), n < hooks).await;
                }
                let what = (common.sends, word);
                if coming {
                    let all = say_all(&http, &simulator, what);
                    measured[1].add(&kero, common.sends, &received, all).await;
                } else {
                    pile_up(&http, &kero, &simulator, what).await;
                    let release = switch(&http, &kero, "gate", false);
                    measured[0].add(&kero, common.sends, &received, release).await;
                }
            }
        }
    }
    for n in 0..10 {
        switch(&http, &kero, &format!("h{n}"), false).await;
    }
    for (place, what) in ["of a backlog", "as they come"].into_iter().enumerate() {
        for ((hooks, word), both) in CASES.into_iter().zip(&measured) {
            let it = &both[place];
            // round by round: the machine's speed is not the same in all of them
            let ratios = it.rates.iter().zip(&measured[0][place].rates).map(|(rate, none)| rate / none).collect();
            println!(
                "{what}, {hooks} reused Rust hooks that {word}: {:.0} deliveries/s at {:.3} ms CPU, {:.2} of none",
                stage::median(it.rates.clone()),
                stage::median(it.costs.clone()),
                stage::median(ratios)
            );
        }
    }
    beside::api(&http, &kero, &simulator).await;
}

/// Deliveries a second, and milliseconds of the gateway's CPU for each, round by round.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Measured {
    /// From the begin of what makes the events come to the last delivery.
    async fn add(&mut self, kero: &Kero, events: usize, received: &AtomicUsize, begin: impl Future) {
        // what is still to be done of the case before
        let mut last = cpu(kero.pid);
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = cpu(kero.pid);
            if now - last < Duration::from_millis(20) {
                break;
            }
            last = now;
        }
        let before = received.load(Ordering::Relaxed);
        let (started, used) = (Instant::now(), cpu(kero.pid));
        begin.await;
        let until = Instant::now() + Duration::from_secs(120);
        while received.load(Ordering::Relaxed) < before + events {
            assert!(Instant::now() < until, "{} of {events}", received.load(Ordering::Relaxed) - before);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.rates.push(events as f64 / started.elapsed().as_secs_f64());
        self.costs.push((cpu(kero.pid) - used).as_secs_f64() * 1e3 / events as f64);
    }
}

/// A backlog behind a suspended plugin.
async fn pile_up(http: &reqwest::Client, kero: &Kero, simulator: &Simulator, (events, word): (usize, &str)) {
    switch(http, kero, "gate", true).await;
    kero.call(http, Method::POST, "/plugins/gate/suspend", &[], None).await;
    say_all(http, simulator, (events, word)).await;
    // until the last of them is in the journal
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

/// People write at the same time, each one message after the other.
async fn say_all(http: &reqwest::Client, simulator: &Simulator, (events, word): (usize, &str)) {
    let people = (0..PEOPLE).map(|person| async move {
        for n in (person..events).step_by(PEOPLE) {
            say(http, &simulator.url, word, n).await;
        }
    });
    futures_util::future::join_all(people).await;
}

pub async fn say(http: &reqwest::Client, simulator: &str, word: &str, n: usize) {
    let text = format!("{word} {n} {}", "x".repeat(700));
    let body = json!({ "to": ACCOUNT, "text": text });
    let path = format!("{simulator}/admin/people/{}/messages", sender(n));
    http.post(path).json(&body).send().await.unwrap().error_for_status().unwrap();
}

pub fn manifest(name: &str, entry: &str, policy: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\napi = \"kero:plugin@0.1\"\nentry = \"{entry}\"\nkind = \"transform\"\n\
         on = [\"message\"]\non_error = \"{policy}\"\n{more}\n"
    )
}

pub async fn upload(http: &reqwest::Client, kero: &Kero, manifest: &str, artefact: Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in [("manifest", manifest.as_bytes()), ("artefact", &artefact)] {
        body.extend_from_slice(format!("--k\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--k--\r\n");
    let request = http.post(format!("{}/plugins", kero.url)).header("x-api-key", KEY);
    let answer = request.header("content-type", "multipart/form-data; boundary=k").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

pub async fn switch(http: &reqwest::Client, kero: &Kero, name: &str, on: bool) {
    let view = kero.call(http, Method::GET, &format!("/plugins/{name}"), &[], None).await;
    let active = view["data"]["state"] != "inactive";
    if on && !active {
        kero.call(
            http,
            Method::POST,
            &format!("/plugins/{name}/versions/1/activate"),
            &[],
            Some(Value::Object(Default::default())),
        )
        .await;
    } else if !on && active {
        kero.call(http, Method::POST, &format!("/plugins/{name}/deactivate"), &[], None).await;
    }
}

/// Counts what arrives.
async fn sink() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let received = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let counted = Arc::clone(&counted);
                    async move {
                        let _ = request.into_body().collect().await;
                        counted.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (url, received)
}
