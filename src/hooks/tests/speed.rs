//! What a call costs. Printed, with a ceiling that only a mistake reaches; run alone and optimised for figures:
//! `cargo test --release … speed -- --nocapture --test-threads 1`.

use crate::support::{PASS, cache, dist, guest, manifest, setting};
use kero_domain::EventKind;
use kero_hooks::chain::{Tries, for_event};
use kero_hooks::{Compiled, Event, Hook, Host, HostConfig, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// About 1 KiB of `data`, as messages have it.
fn data() -> Value {
    let mut data = json!({
        "message_id": "3EB0C767D097B7C7C530", "from": "15557654321@s.whatsapp.net", "to": "15557654321@s.whatsapp.net",
        "is_group": false, "message_type": "text", "text": "Is order 4711 shipped? Call +15557654321", "timestamp": 1_767_268_800,
        "is_from_me": false, "sender_name": "Jane", "chat": "15557654321@s.whatsapp.net",
        "sender": {"phone": "+15557654321", "lid": "118822334455667@lid", "jid": "15557654321@s.whatsapp.net"},
    });
    let rest = 1024 - data.to_string().len() - 10;
    data["pad"] = "p".repeat(rest).into();
    data
}

fn event() -> Arc<Event> {
    Arc::new(Event::new("e1", EventKind::Message, "shop", 1_767_268_800_000, &data()))
}

fn seat(host: &Host, compiled: &Compiled, more: Value) -> Arc<Hook> {
    let manifest = manifest(more);
    Hook::new(host, manifest, compiled.clone(), &Default::default(), json!({})).unwrap()
}

fn median(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

async fn calls(host: &Host, hook: &Arc<Hook>, n: usize) -> (Duration, Duration) {
    let (event, setting) = (event(), setting());
    let mut took = Vec::with_capacity(n);
    for round in 0..n + n / 10 {
        let started = Instant::now();
        let ran = host.transform(hook, &event, &event.data, &setting).await;
        if round >= n / 10 {
            took.push(started.elapsed());
        }
        assert!(matches!(ran.answer, Ok(Verdict::Replace { .. } | Verdict::Pass)), "{:?}", ran.answer);
    }
    median(took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_stay_cheap() {
    assert!(dist().join(kero_hooks::RUNNER).exists(), "plugins/dist is empty: run plugins/build first");
    let host = Host::start(HostConfig { dist_dir: dist(), cache: cache(), ..HostConfig::default() }).unwrap();
    let native = {
        let text = data().to_string();
        let mut took = Vec::new();
        for _ in 0..2000 {
            let started = Instant::now();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            value["text"] = "x".into();
            std::hint::black_box(value.to_string());
            took.push(started.elapsed());
        }
        median(took).0
    };
    println!("native closure, parse and print 1 KiB: {native:?}");
    let read = |name: &str| std::fs::read(dist().join(name)).unwrap();
    let nothing = host.compile(guest("", PASS)).await.unwrap();
    let rust = host.compile(read("new-transform.wasm")).await.unwrap();
    let redact = host.compile(read("redact.wasm")).await.unwrap();
    let script = host
        .compile_script(
            "hook.js",
            b"export default (e) => { e.data.text = e.data.text.toLowerCase(); return e; }".to_vec(),
        )
        .await
        .unwrap();
    for (name, compiled, n) in
        [("nothing", &nothing, 3000), ("rust", &rust, 3000), ("redact", &redact, 3000), ("js", &script, 500)]
    {
        let info = compiled.info();
        println!("{name}: {} bytes, compiled in {:?} (from the cache: {})", info.bytes, info.took, info.from_cache);
        let reuse = json!({"reuse": {"calls": 1_000_000, "age": "1h"}});
        let fresh = calls(&host, &seat(&host, compiled, json!({})), n).await;
        let reused = calls(&host, &seat(&host, compiled, reuse), n).await;
        println!("{name}: fresh p50 {:?} p99 {:?}; reused p50 {:?} p99 {:?}", fresh.0, fresh.1, reused.0, reused.1);
        assert!(fresh.0 < Duration::from_millis(50) && reused.0 < Duration::from_millis(50));
    }
    let ten: Vec<Arc<Hook>> = (0..10)
        .map(|n| seat(&host, &rust, json!({"name": format!("h{n}"), "reuse": {"calls": 1_000_000, "age": "1h"}})))
        .collect();
    for length in [1, 10] {
        let (event, setting) = (event(), setting());
        let chain = for_event(&ten[..length], &event);
        let mut took = Vec::new();
        for _ in 0..500 {
            let started = Instant::now();
            host.run_transforms(chain.clone(), &event, Tries::new(), &setting).await;
            took.push(started.elapsed());
        }
        println!("chain of {length}, reused rust: p50 {:?}", median(took).0);
    }
}
