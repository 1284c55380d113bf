//! What the metrics say of plugins.

use super::{JANE, JOHN, Stage, install, manifest, module, wasm_manifest};
use crate::support::eventually;
use serde_json::json;
use std::collections::HashMap;

/// The samples of a name, by labels.
async fn samples(stage: &Stage, name: &str) -> HashMap<String, f64> {
    let text = stage.kero.get("/metrics").await.text();
    let mine = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let labels = sample.strip_prefix(name)?;
        (labels.is_empty() || labels.starts_with('{')).then(|| (labels.to_owned(), value.parse().unwrap()))
    });
    mine.collect()
}

async fn value(stage: &Stage, name: &str, labels: &str) -> Option<f64> {
    samples(stage, name).await.get(labels).copied()
}

/// 1 while the breaker is open, from when it opens until another version is in place or none is.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_is_shown_until_it_is_gone() {
    let stage = Stage::new().await;
    let of = "{plugin=\"trap\"}";
    let is = async |expected: f64| {
        eventually(&format!("a gauge of {expected}"), || async {
            (value(&stage, "kero_hooks_breaker_open", of).await == Some(expected)).then_some(())
        })
        .await;
    };
    let dead = "on = [\"message\"]\non_error = \"dead\"";
    install(&stage.kero, &wasm_manifest("trap", dead), &module("", "unreachable")).await;
    is(0.0).await;
    // the third event's first fault is the fifth: no call is refused
    for n in 0..3 {
        stage.receive(JANE, &format!("trap {n}")).await;
    }
    is(1.0).await;
    assert!(stage.calls("trap").await.iter().all(|call| call["outcome"] == "trap"));
    let two = wasm_manifest("trap", dead).replace("version = \"1\"", "version = \"2\"");
    install(&stage.kero, &two, &module("", "i32.const 0")).await;
    is(0.0).await;
    let three = wasm_manifest("trap", dead).replace("version = \"1\"", "version = \"3\"");
    install(&stage.kero, &three, &module("", "unreachable")).await;
    for n in 0..3 {
        stage.receive(JOHN, &format!("trap {n}")).await;
    }
    is(1.0).await;
    stage.kero.post_empty("/plugins/trap/deactivate").await.expect(200);
    is(0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_hooks_counts() {
    let stage = Stage::new().await;
    // takes connections and never answers
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hole = format!("http://{}/", listener.local_addr().unwrap());
    let script = "export default async function handle(event) {
        const text = event.message.text;
        kero.kv.increment('n');
        try { kero.send.text(event.message.chat, 'x'); } catch {}
        if (text === 'hang') await fetch(kero.config.hole);
        if (text === 'work') for (let n = 0; n < 3000000; n++);
        return event; }";
    let more = format!(
        "on = [\"message\"]\non_error = \"raw\"\nreuse = {{ calls = 1000, age = \"1h\" }}\n\
         [limits]\ncpu_ms = 1000\nwall_ms = 1500\n[grants]\nkv = \"1KiB\"\nhttp = [\"{hole}*\"]\n[config.schema]\ntype = \"object\""
    );
    install(&stage.kero, &manifest("meter", "1", "transform", &more), script.as_bytes()).await;
    let config = json!({ "config": { "hole": hole } }).to_string().into_bytes();
    stage.kero.request(reqwest::Method::PUT, "/plugins/meter/config", &[], Some(config)).await.expect(200);
    for text in ["one", "two", "work"] {
        stage.receive(JANE, text).await;
        stage.wait_text(text).await;
    }
    let of = |more: &str| format!("{{plugin=\"meter\"{more}}}");
    let is = async |name: &str, more: &str| value(&stage, name, &of(more)).await.unwrap_or(-1.0);
    let verdicts: f64 = samples(&stage, "kero_hooks_calls_total").await.values().sum();
    assert_eq!(verdicts, 3.0);
    assert_eq!(is("kero_hooks_call_seconds_count", "").await, 3.0);
    assert!(is("kero_hooks_call_seconds_sum", "").await > 0.0);
    assert!(is("kero_hooks_ticks_total", "").await >= 1.0, "three million turns");
    let peak = is("kero_hooks_memory_peak_bytes", "").await;
    assert!((65_536.0..=67_108_864.0).contains(&peak), "{peak}");
    assert!(samples(&stage, "kero_hooks_compile_seconds_count").await.values().sum::<f64>() >= 1.0);
    assert_eq!(is("kero_hooks_host_calls_total", ",import=\"kv.increment\",result=\"ok\"").await, 3.0);
    assert_eq!(is("kero_hooks_host_calls_total", ",import=\"send.text\",result=\"denied\"").await, 3.0);
    assert_eq!(is("kero_hooks_breaker_open", "").await, 0.0);
    eventually("the instance that waits", || async { (is("kero_hooks_instances", "").await == 1.0).then_some(()) })
        .await;
    assert_eq!(is("kero_hooks_queue_depth", "").await, 0.0);

    // four calls hang, which are all places: the other chats' calls wait
    let people: Vec<String> = (0..7)
        .map(|n| crate::support::person(&stage.simulator, &format!("4915510007{n:02}"), kero_simulator::Script::Silent))
        .collect();
    for from in &people {
        stage.receive(from, "hang").await;
    }
    eventually("calls in the queue", || async { (is("kero_hooks_queue_depth", "").await >= 1.0).then_some(()) }).await;
    stage.kero.post_empty("/plugins/meter/deactivate").await.expect(200);
    eventually("none", || async { (is("kero_hooks_queue_depth", "").await == 0.0).then_some(()) }).await;
    eventually("calls that were stopped", || async {
        (is("kero_hooks_host_calls_total", ",import=\"http.fetch\",result=\"unanswered\"").await >= 1.0).then_some(())
    })
    .await;
    // nothing of this name is left out
    let names: Vec<&str> = include_str!("../../../src/telemetry/metrics.rs")
        .split('"')
        .filter(|word| word.starts_with("kero_hooks_") && !word.contains(' '))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    let text = stage.kero.get("/metrics").await.text();
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(&format!("# HELP {name} "))), "{name}");
        assert!(text.lines().any(|line| line.starts_with(name) && line.contains(['{', ' '])), "{name} has no sample");
    }
}
