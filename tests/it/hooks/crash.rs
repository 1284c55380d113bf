//! The process dies at every named point around a hook's call and its commit: after it each event has one stored
//! verdict, each effect is there once, and what an endpoint gets twice is the same. (`src/gateway/crash.rs`.)

use super::ledger::{Sent, check};
use super::{ACCOUNT, JANE, JOHN, Stage, install, manifest, options};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// Each point with the pass at which it kills.
const POINTS: [&str; 5] = [
    "hook:after_call:3",
    "hook:after_commit:3",
    "hook:after_shape:3",
    "hook:after_shape_commit:3",
    "hook:after_judge:3",
];

const COUNT: &str = r#"
export default function handle(event) {
  event.data.n = kero.kv.increment('n ' + event.message.sender, 1);
  kero.send.text(event.message.chat, 'answer to ' + event.message.text);
  return event;
}"#;

/// Every call would shape another body, and counts itself.
const SHAPE: &str = r#"
export function shape(event, request) {
  const body = JSON.parse(request.body);
  body.shaped = kero.kv.increment('shaped ' + event.message.sender, 1);
  body.dice = Math.random();
  request.body = body;
  return request;
}
export function judge(request, response, usual) {
  kero.kv.increment('judged', 1);
  return usual;
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_a_call_leaves_one_verdict_and_each_effect_once() {
    let options = options().env("KERO_SENDING__ACK_TIMEOUT", "3s").env("KERO_SENDING__DOUBT_WAIT", "500ms");
    let mut stage = Stage::with(options).await;
    let more =
        "on = [\"message\"]\non_error = \"dead\"\n[grants]\nkv = \"1MiB\"\nsend = { per_chat_per_minute = 100000 }";
    install(&stage.kero, &manifest("count", "1", "transform", more), COUNT.as_bytes()).await;
    let more = "on = [\"message\"]\non_error = \"dead\"\n[grants]\nkv = \"1KiB\"";
    install(&stage.kero, &manifest("shaper", "1", "delivery", more), SHAPE.as_bytes()).await;
    let mut sent = Sent::new();
    for point in POINTS {
        stage.kero.set_env("KERO_CRASH_AT", point);
        stage.kero.restart().await;
        let before = stage.kero.crashes;
        for n in 0..6 {
            let from = [JANE, JOHN][n % 2];
            let text = format!("{point} n{n}");
            stage.simulator.send_text(from, ACCOUNT, &text).await.unwrap();
            sent.entry(from.to_owned()).or_default().push(text);
        }
        let total: usize = sent.values().map(Vec::len).sum();
        for _ in 0..1200 {
            stage.kero.revive().await;
            if stage.texts().len() >= total && stage.kero.crashes > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(stage.kero.crashes - before, 1, "{point} did not kill it once");
        check(&stage, "count", &sent).await;
    }
    let total: usize = sent.values().map(Vec::len).sum();
    // one shaped request for each delivery, and each try sent that one
    let mut bodies: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for received in stage.sink.received().into_iter().filter(|it| it.json()["shaped"].is_i64()) {
        bodies.entry(received.headers["webhook-id"].clone()).or_default().push(received.body);
    }
    assert_eq!(bodies.len(), total);
    for (id, bodies) in &bodies {
        assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{id} was shaped anew");
    }
    // counted for each sender, whose deliveries go out one after the other
    let mut numbers: HashMap<String, Vec<i64>> = HashMap::new();
    for bodies in bodies.values() {
        let body: Value = serde_json::from_slice(&bodies[0]).unwrap();
        let from = body["data"]["from"].as_str().unwrap().to_owned();
        numbers.entry(from).or_default().push(body["shaped"].as_i64().unwrap());
    }
    for numbers in numbers.values_mut() {
        numbers.sort_unstable();
        assert_eq!(
            *numbers,
            (1..=numbers.len() as i64).collect::<Vec<_>>(),
            "calls that were repeated are not counted"
        );
    }
    let calls = stage.calls("shaper").await;
    assert_eq!(calls.iter().filter(|call| call["outcome"] == "shaped").count(), total);
    println!("hooks: {} crash points, {total} events: one verdict each, lost 0, doubled 0", POINTS.len());
}
