//! Deliveries: how many a second against a raw keep-alive POST loop to the same sink, and how long from an incoming
//! message to the sink against a bare client that POSTs in its callback; alone, and beside an endpoint that never
//! answers.

use crate::stage::{self, Kero, Simulator};
use crate::{Common, bare};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;

const PEOPLE: usize = 20;
/// Connections of the raw loop: as many as the gateway has exchanges with one endpoint.
const CONNECTIONS: usize = 8;
/// Messages a second for the latencies.
const RATE: u64 = 40;

type Arrivals = Arc<Mutex<Vec<(Instant, Bytes)>>>;

/// A receiver that takes everything.
struct Sink {
    url: String,
    arrivals: Arrivals,
}

impl Sink {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let arrivals = Arrivals::default();
        let recorded = arrivals.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let arrivals = recorded.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let arrivals = arrivals.clone();
                        async move {
                            let body =
                                request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            arrivals.lock().unwrap().push((Instant::now(), body));
                            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, arrivals }
    }

    async fn wait(&self, count: usize) {
        for _ in 0..60_000 {
            if self.arrivals.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("only {} of {count} arrived", self.arrivals.lock().unwrap().len());
    }

    fn take(&self) -> Vec<(Instant, Bytes)> {
        std::mem::take(&mut self.arrivals.lock().unwrap())
    }
}

/// Arrivals a second, from the first to the last.
fn rate(arrivals: &[(Instant, Bytes)]) -> f64 {
    let (first, last) = (arrivals.first().unwrap().0, arrivals.last().unwrap().0);
    (arrivals.len() - 1) as f64 / (last - first).as_secs_f64()
}

/// As many loops as `connections`, each one POST after the other.
async fn raw_loop(http: &reqwest::Client, sink: &Sink, body: Bytes, sends: usize, connections: usize) -> f64 {
    let loops = (0..connections).map(|_| {
        let (http, url, body) = (http.clone(), sink.url.clone(), body.clone());
        tokio::spawn(async move {
            for _ in 0..sends / connections {
                let request = http.post(&url).header("content-type", "application/json").body(body.clone());
                request.send().await.unwrap().bytes().await.unwrap();
            }
        })
    });
    for running in loops.collect::<Vec<_>>() {
        running.await.unwrap();
    }
    rate(&sink.take())
}

async fn message(http: &reqwest::Client, simulator: &Simulator, from: &str, to: &str, text: &str) {
    let path = format!("{}/admin/people/{from}/messages", simulator.url);
    let body = json!({ "to": to, "text": text });
    http.post(path).json(&body).send().await.unwrap().error_for_status().unwrap();
}

fn person(n: usize) -> String {
    format!("4915830{:05}", n + 1)
}

/// Milliseconds from the request to the simulator until the sink has the message; sorted.
async fn latencies(http: &reqwest::Client, simulator: &Simulator, sink: &Sink, to: &str, count: usize) -> Vec<f64> {
    sink.take();
    let mut begun = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / RATE));
    for n in 0..count {
        tick.tick().await;
        let text = format!("latency {n}");
        begun.insert(text.clone(), Instant::now());
        message(http, simulator, &person(n % PEOPLE), to, &text).await;
    }
    sink.wait(count).await;
    let took = |(at, body): &(Instant, Bytes)| {
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(event) => event["data"]["text"].as_str()?.to_owned(),
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        };
        Some((*at - *begun.get(&text)?).as_secs_f64() * 1e3)
    };
    let mut found: Vec<f64> = sink.take().iter().filter_map(took).collect();
    found.sort_by(f64::total_cmp);
    found
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn endpoint(kero: &Kero, http: &reqwest::Client, path: &str, url: &str) -> String {
    let body = json!({ "url": url, "events": ["message"] });
    let made = kero.call(http, Method::POST, path, &[], Some(body)).await;
    format!("{path}/{}", made["data"]["id"].as_str().unwrap())
}

pub async fn run(common: &Common) {
    let http = stage::http();
    let folder = TempDir::new().unwrap();
    let simulator = stage::simulator(&http).await;
    for n in 0..PEOPLE {
        simulator.person(&http, &person(n)).await;
    }
    let database = stage::database(common.database.as_deref(), &folder, "kero").await;
    let environment =
        [("KERO_DURABILITY", common.durability.clone()), ("KERO_DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8".to_owned())];
    let kero = stage::kero(&http, &simulator, &folder, database, &environment).await;
    let phone = "491583100001";
    kero.pair(&http, &simulator, "load", phone).await;
    let sink = Sink::start().await;

    // a backlog of real messages, which each round's endpoint has missed
    let sends = common.sends.max(CONNECTIONS * 4) / CONNECTIONS * CONNECTIONS;
    for n in 0..sends {
        message(&http, &simulator, &person(n % PEOPLE), phone, &format!("load {n}")).await;
    }
    let (mut after, mut messages) = (0, 0);
    while messages < sends {
        let path = format!("/instances/load/events?after={after}&limit=1000");
        let page = kero.call(&http, Method::GET, &path, &[], None).await;
        let events = page["data"].as_array().unwrap();
        messages += events.iter().filter(|event| event["event"] == "message").count();
        match events.last() {
            Some(last) => after = last["seq"].as_i64().unwrap(),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let (mut ratios, mut raws, mut ones, mut keros, mut cpus) = (vec![], vec![], vec![], vec![], vec![]);
    let mut body = Bytes::new();
    for round in 0..=common.rounds {
        let path = endpoint(&kero, &http, "/instances/load/endpoints", &sink.url).await;
        let before = stage::cpu(kero.pid);
        kero.call(&http, Method::POST, &format!("{path}/replay"), &[], Some(json!({}))).await;
        sink.wait(sends).await;
        let cpu = (stage::cpu(kero.pid) - before).as_secs_f64() * 1e3 / sends as f64;
        let arrivals = sink.take();
        body = arrivals[0].1.clone();
        let delivered = rate(&arrivals);
        kero.call(&http, Method::DELETE, &path, &[], None).await;
        let one = raw_loop(&http, &sink, body.clone(), sends, 1).await;
        let raw = raw_loop(&http, &sink, body.clone(), sends, CONNECTIONS).await;
        // the first one warms up
        if round > 0 {
            println!(
                "round {round}: one raw POST loop {one:.0}/s, {CONNECTIONS} at once {raw:.0}/s, kero {delivered:.0}/s, ratios {:.2} and {:.2}",
                delivered / one,
                delivered / raw
            );
            ratios.push(delivered / raw);
            ones.push(delivered / one);
            raws.push(raw);
            keros.push(delivered);
            cpus.push(cpu);
        }
    }
    println!(
        "deliveries of {} bytes, {}, durability {}, median of {} rounds of {sends}: {CONNECTIONS} raw POST loops {:.0}/s, kero {:.0}/s at {:.2} ms CPU, ratio {:.2}; to one raw loop {:.2}",
        body.len(),
        common.database_name(),
        common.durability,
        ratios.len(),
        stage::median(raws),
        stage::median(keros),
        stage::median(cpus),
        stage::median(ratios),
        stage::median(ones),
    );

    // latency
    let count = (RATE * 8) as usize;
    let store = common.store(stage::database(common.database.as_deref(), &folder, "bare").await).await;
    let bare_phone = "491583100002";
    let bare = bare::paired(&http, &simulator, &store, "bare", bare_phone, &[]).await;
    bare.post_messages(http.clone(), sink.url.clone());
    latencies(&http, &simulator, &sink, bare_phone, PEOPLE).await;
    let raw = latencies(&http, &simulator, &sink, bare_phone, count).await;
    endpoint(&kero, &http, "/instances/load/endpoints", &sink.url).await;
    let alone = latencies(&http, &simulator, &sink, phone, count).await;
    // an endpoint that never answers, beside it
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hole = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    endpoint(&kero, &http, "/endpoints", &hole).await;
    let beside = latencies(&http, &simulator, &sink, phone, count).await;
    for (what, found) in [("raw callback", &raw), ("kero", &alone), ("kero beside a black hole", &beside)] {
        println!(
            "message to sink, {what}: p50 {:.1} ms, p99 {:.1} ms ({} at {RATE}/s)",
            percentile(found, 50),
            percentile(found, 99),
            found.len()
        );
    }
    println!(
        "p99 over raw: {:.2}; p99 beside a black hole over alone: {:.2}",
        percentile(&alone, 99) / percentile(&raw, 99),
        percentile(&beside, 99) / percentile(&alone, 99)
    );
    println!(
        "bounds: one CPU's share for signing, sealing and HTTP; for latency two commits (the event, its fan-out) before the POST"
    );
    store.close().await;
}
