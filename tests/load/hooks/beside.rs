//! Beside a plugin that misbehaves: the API, and another plugin.

use super::calls::{event, seat, setting};
use super::deliveries::{manifest, say, switch, upload};
use super::{artefact, percentiles};
use crate::stage::{Kero, Simulator};
use kero_hooks::{Host, HostConfig};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(5);

fn tell(what: &str, took: Vec<Duration>) {
    let calls = took.len();
    let (half, most) = percentiles(took);
    println!("{what}: p50 {half:.1?}, p99 {most:.1?} over {calls}");
}

/// The API while a plugin spins for 80 ms at each of many events.
pub async fn api(http: &reqwest::Client, kero: &Kero, simulator: &Simulator) {
    let alone = requests(http, kero).await;
    // few looks at the clock: those are counted
    let spin = "export default (event) => { const until = Date.now() + 80; for (;;) { for (let n = 0; n < 20000; n++); if (Date.now() >= until) break; } return event; }";
    upload(http, kero, &manifest("spin", "hook.js", "raw", ""), spin.into()).await;
    switch(http, kero, "spin", true).await;
    let flood = tokio::spawn({
        let (http, url) = (http.clone(), simulator.url.clone());
        async move {
            for n in 0..400 {
                say(&http, &url, "spin", n).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = requests(http, kero).await;
    flood.abort();
    tell("API alone", alone);
    tell("API beside a plugin that spins 80 ms for each event", beside);
}

/// Requests one after the other.
async fn requests(http: &reqwest::Client, kero: &Kero) -> Vec<Duration> {
    let until = Instant::now() + SPAN;
    let mut took = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        kero.call(http, Method::GET, "/instances/load/status", &[], None).await;
        took.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took
}

/// Plugin B beside a plugin A of which every call traps, without the breaker that would end that after five.
pub async fn plugins() {
    let host = Host::start(HostConfig::default()).unwrap();
    let good = host.compile(artefact("bench.wasm")).await.unwrap();
    let bad = host.compile(artefact("misbehaving.wasm")).await.unwrap();
    let b = seat(&host, &good, "b", false);
    let a = seat(&host, &bad, "a", false);
    let alone = calls(&host, &b).await;
    let traps = tokio::spawn({
        let host = host.clone();
        async move {
            let data = json!({ "text": "panic" });
            let event = kero_hooks::Event::new("e2", kero_domain::EventKind::Message, "shop", 0, &data);
            let (event, setting) = (Arc::new(event), setting());
            let mut count = 0u64;
            loop {
                let ran = host.transform(&a, &event, &event.data, &setting).await;
                assert!(ran.answer.is_err());
                count += 1;
                if count.is_multiple_of(10_000) {
                    println!("plugin A trapped {count} times");
                }
            }
        }
    });
    let beside = calls(&host, &b).await;
    traps.abort();
    tell("plugin B alone", alone);
    tell("plugin B beside a plugin A that traps without end", beside);
}

async fn calls(host: &Host, hook: &Arc<kero_hooks::Hook>) -> Vec<Duration> {
    let (event, setting) = (event(), setting());
    let until = Instant::now() + SPAN;
    let mut took = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        let ran = host.transform(hook, &event, &event.data, &setting).await;
        took.push(started.elapsed());
        assert!(ran.answer.is_ok(), "{:?}", ran.answer);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took
}
