//! Hooks that trap, take too long and are reloaded, under kill -9: every event has one stored verdict, no effect is
//! there twice, none is lost.

use super::{ACCOUNT, JANE, JOHN, Stage, install, manifest, module, options, wasm_manifest};
use crate::support::{eventually_within, person};
use kero_simulator::Script;
use rand::RngExt;
use rand::SeedableRng;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Counts in storage, answers each message, and misbehaves now and then: it spins, it hangs in a request, it asks for
/// another try. Fails never for good: with `dead` an event that it failed on twice would be put aside.
const COUNT: &str = r#"
export default async function handle(event) {
  const text = event.message.text;
  event.data.n = kero.kv.increment('n ' + event.message.sender, 1);
  kero.send.text(event.message.chat, 'answer to ' + text);
  const dice = Math.random();
  if (dice < 0.05 || text === 'spin') for (;;);
  if (dice < 0.10) throw new kero.Retry('again');
  if (dice < 0.15 || text === 'hang') await fetch(kero.config.hole);
  return event;
}"#;

/// Traps at one of eight calls, else lets the event pass.
fn trapping() -> Vec<u8> {
    module(
        r#"(import "kero:plugin/random@0.1.0" "number" (func $random (result i64)))"#,
        "(if (i64.eqz (i64.and (call $random) (i64.const 7))) (then unreachable)) i32.const 0",
    )
}

fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_neither_lost_nor_doubled_over_kills() {
    let kills = setting("KERO_CHAOS_KILLS", 20) / 2;
    let mut random = rand::rngs::StdRng::seed_from_u64(setting("KERO_CHAOS_SEED", 11).into());
    let options = options().env("KERO_SENDING__ACK_TIMEOUT", "3s").env("KERO_SENDING__DOUBT_WAIT", "500ms");
    let mut stage = Stage::with(options).await;
    let people: Vec<String> = [JANE, JOHN].map(str::to_owned).to_vec();
    for name in &people {
        person(&stage.simulator, name, Script::Silent);
    }
    // takes connections and never answers
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hole = format!("http://{}/", listener.local_addr().unwrap());
    let more = |version: u32| {
        let more = format!(
            "on = [\"message\"]\non_error = \"raw\"\n[limits]\ncpu_ms = 30\nwall_ms = 200\n[grants]\nkv = \"1MiB\"\n\
             http = [\"{hole}*\"]\nsend = {{ per_chat_per_minute = 100000 }}\n[config.schema]\ntype = \"object\""
        );
        manifest("ledger", &version.to_string(), "transform", &more)
    };
    install(&stage.kero, &more(0), COUNT.as_bytes()).await;
    let config = json!({ "config": { "hole": hole } }).to_string().into_bytes();
    stage.kero.request(reqwest::Method::PUT, "/plugins/ledger/config", &[], Some(config)).await.expect(200);
    let raw = "on = [\"message\"]\non_error = \"raw\"\norder = 10";
    install(&stage.kero, &wasm_manifest("trapper", raw), &trapping()).await;
    let mut sent = Sent::new();
    for kill in 0..kills {
        for n in 0..random.random_range(2..8) {
            let from = &people[random.random_range(0..people.len())];
            let text = format!("k{kill} n{n}");
            stage.simulator.send_text(from, ACCOUNT, &text).await.unwrap();
            sent.entry(from.clone()).or_default().push(text);
        }
        if kill % 3 == 1 {
            install(&stage.kero, &more(kill + 1), COUNT.as_bytes()).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        stage.kero.restart().await;
    }
    // whatever the dice said, there is one of each
    let mut last = ["spin", "well", "hang"].map(str::to_owned).to_vec();
    last.extend((0..60).map(|n| format!("last {n}")));
    for text in last {
        stage.simulator.send_text(JANE, ACCOUNT, &text).await.unwrap();
        sent.entry(JANE.to_owned()).or_default().push(text);
    }
    let calls = check(&stage, "ledger", &sent).await;
    let of = |calls: &[Value], outcome: &str| calls.iter().filter(|call| call["outcome"] == outcome).count();
    let trapped = stage.calls("trapper").await;
    for (what, count) in [("spun", of(&calls, "cpu")), ("hung", of(&calls, "wall")), ("trapped", of(&trapped, "trap"))]
    {
        assert!(count > 0, "nothing {what}: the ledger says nothing of it");
    }
    println!(
        "hooks: {} kills, {} events, {} calls, {} spun, {} hung, {} trapped beside: lost 0, doubled 0",
        kills,
        sent.values().map(Vec::len).sum::<usize>(),
        calls.len(),
        of(&calls, "cpu"),
        of(&calls, "wall"),
        of(&trapped, "trap"),
    );
}

/// What each person wrote, in order.
pub type Sent = HashMap<String, Vec<String>>;

/// Waits for every event, then compares events, stored verdicts, storage and answers of a plugin that counts each
/// sender's messages as `n` and answers each. Gives its calls.
pub async fn check(stage: &Stage, plugin: &str, sent: &Sent) -> Vec<Value> {
    let total: usize = sent.values().map(Vec::len).sum();
    let what = format!("{total} messages");
    eventually_within(Duration::from_secs(120), &what, || async { (events(stage).len() >= total).then_some(()) }).await;

    // one verdict for each event
    let calls = stage.calls(plugin).await;
    let mut verdicts: HashMap<&str, usize> = HashMap::new();
    for call in calls.iter().filter(|call| matches!(call["outcome"].as_str(), Some("replace" | "pass"))) {
        *verdicts.entry(call["event_id"].as_str().unwrap()).or_default() += 1;
    }
    assert!(verdicts.values().all(|count| *count == 1), "two verdicts: {verdicts:?}");
    for (from, texts) in sent {
        // in order; those that it was called well for are counted without a gap and without a double
        let mine: Vec<Value> = events(stage).into_iter().filter(|it| from_of(it) == *from).collect();
        let got: Vec<&str> = mine.iter().map(|it| it["data"]["text"].as_str().unwrap()).collect();
        assert_eq!(got, texts.iter().map(String::as_str).collect::<Vec<_>>());
        let numbers: Vec<i64> = mine.iter().filter_map(|it| it["data"]["n"].as_i64()).collect();
        assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "additions of failed calls are not there");
        for event in &mine {
            let well = verdicts.contains_key(event["id"].as_str().unwrap());
            assert_eq!(well, event["data"]["n"].is_i64(), "{event}");
        }
        // an answer for each of those, once, and no other
        let expected: Vec<String> = mine
            .iter()
            .filter(|it| it["data"]["n"].is_i64())
            .map(|it| format!("answer to {}", it["data"]["text"].as_str().unwrap()))
            .collect();
        let shown = async || {
            let mut seen = HashSet::new();
            let texts = stage.simulator.received_texts(from).await;
            texts.into_iter().filter(|it| seen.insert(it.id.clone())).map(|it| it.text).collect::<Vec<_>>()
        };
        let what = format!("{} answers", expected.len());
        eventually_within(Duration::from_secs(60), &what, || async {
            (shown().await.len() >= expected.len()).then_some(())
        })
        .await;
        assert_eq!(shown().await, expected);
    }
    calls
}

/// The account's message events, each once, in order of the journal.
fn events(stage: &Stage) -> Vec<Value> {
    let mut seen = HashSet::new();
    let mut events: Vec<Value> =
        stage.sink.events("message").into_iter().filter(|it| seen.insert(it["id"].to_string())).collect();
    events.sort_by_key(|event| event["seq"].as_i64());
    events
}

fn from_of(event: &Value) -> String {
    let data = &event["data"];
    let phone = data["sender"]["phone"].as_str().or_else(|| data["from"].as_str()).unwrap_or_default();
    phone.trim_start_matches('+').split('@').next().unwrap_or_default().to_owned()
}
