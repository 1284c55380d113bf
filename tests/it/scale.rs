//! Two hundred instances in one process pair, connect and exchange a message each.

use crate::support::{Kero, Options, Sink, eventually_within, person, simulator};
use futures_util::StreamExt;
use kero_simulator::Script;
use serde_json::json;
use std::time::{Duration, Instant};

const INSTANCES: usize = 200;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_instances_pair_connect_and_exchange_a_message() {
    let simulator = simulator().await;
    let sink = Sink::start().await;
    let kero = Kero::start_with(&simulator, Options::default()).await;
    person(&simulator, "491571999999", Script::Echo);
    let before = resident_kib(kero.pid());
    let started = Instant::now();
    futures_util::stream::iter(0..INSTANCES)
        .for_each_concurrent(16, |n| {
            let (kero, simulator, sink) = (&kero, &simulator, &sink);
            async move {
                let id = format!("i{n}");
                kero.post("/instances", json!({ "instance_id": id, "webhook_url": sink.url })).await.expect(201);
                kero.pair(simulator, &id, &format!("49157100{n:04}1")).await;
            }
        })
        .await;
    let connected = started.elapsed();
    futures_util::stream::iter(0..INSTANCES)
        .for_each_concurrent(16, |n| {
            let kero = &kero;
            async move {
                kero.send_text(&format!("i{n}"), "491571999999", &format!("m{n}")).await.expect(200);
            }
        })
        .await;
    eventually_within(Duration::from_secs(60), "an answer for every instance", || async {
        let answered: std::collections::HashSet<_> = sink
            .events("message")
            .iter()
            .filter(|event| event["data"]["text"].as_str().is_some_and(|text| text.starts_with("echo: m")))
            .map(|event| event["instance_id"].to_string())
            .collect();
        (answered.len() == INSTANCES).then_some(())
    })
    .await;
    assert_eq!(simulator.stats().connected, INSTANCES);
    let each = (resident_kib(kero.pid()) - before) / INSTANCES as u64;
    println!(
        "scale: {INSTANCES} instances paired and connected in {connected:.1?}, all exchanged a message after {:.1?}, {each} KiB each",
        started.elapsed()
    );
}
