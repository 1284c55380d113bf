//! Guests that misbehave, in the running gateway: each is stopped, named, and leaves nothing; everybody else goes on.

use super::{JANE, Stage, install, manifest, module, wasm_manifest};
use crate::support::eventually;
use serde_json::json;
use std::time::Duration;

/// The way in which a script misbehaves is the message's text; what it wrote and sent before must not be seen.
const ABUSE: &str = r#"
function deep(n) { return deep(n + 1) + 1; }
export default async function handle(event) {
  const text = event.message.text;
  kero.kv.increment('calls', 1);
  if (text !== 'fine') { kero.kv.set('left', text); kero.send.text(event.message.chat, 'left'); }
  if (text === 'spin') for (;;);
  if (text === 'memory') { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }
  if (text === 'recursion') deep(0);
  if (text === 'output') { event.data.big = 'x'.repeat(2 << 20); return event; }
  if (text === 'calls') for (;;) kero.kv.get('k');
  if (text === 'text') return 'nonsense';
  if (text === 'throw') throw new Error('thrown on purpose');
  if (text === 'flood') { for (let n = 0; n < 5000; n++) console.log('x'.repeat(100)); kero.kv.delete('left'); }
  if (text === 'lone') event.data.odd = '\ud800';
  event.data.calls = kero.kv.get('calls');
  event.data.left = kero.kv.get('left');
  return event;
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_stopped_and_leave_nothing() {
    let stage = Stage::new().await;
    let more = "on = [\"message\"]\non_error = \"raw\"\n[grants]\nkv = \"64KiB\"\nsend = {}";
    for (text, kind) in [
        ("spin", "cpu"),
        ("memory", "reject"),
        ("recursion", "reject"),
        ("output", "output"),
        ("calls", "host_calls"),
        ("text", "bad_answer"),
        ("throw", "reject"),
    ] {
        // a plugin of its own for each, so that one's faults do not suspend it for the next
        let name = format!("abuse-{text}");
        // making as much as is too much takes QuickJS its time
        let longer = if text == "output" { "\n[limits]\ncpu_ms = 1000\nwall_ms = 5000" } else { "" };
        let manifest = manifest(&name, "1", "transform", &format!("{more}{longer}"));
        install(&stage.kero, &manifest, ABUSE.as_bytes()).await;
        stage.receive(JANE, text).await;
        let (received, event) = stage.sink.wait_for(text, |event| event["data"]["text"] == text).await;
        let told = received.headers.get("x-kero-hook-error").cloned().unwrap_or_default();
        let kinds: Vec<String> =
            stage.calls(&name).await.iter().map(|it| it["outcome"].as_str().unwrap().to_owned()).collect();
        assert!(told.starts_with(&format!("{name}/")), "{text}: {told}");
        // QuickJS tells some of its ends itself
        let fits = |found: &str| {
            found == kind
                || (matches!(text, "memory" | "recursion") && matches!(found, "memory" | "stack" | "trap"))
                || (text == "output" && matches!(found, "bad_answer" | "memory" | "reject"))
                || (text == "text" && found == "reject")
                || (text == "calls" && found == "cpu")
        };
        assert!(kinds.iter().all(|found| fits(found)), "{text}: {kinds:?}");
        assert!(event["data"].get("left").is_none());
        // the next event finds a fresh instance, and nothing of the failed call
        stage.receive(JANE, "fine").await;
        let seen = move |event: &serde_json::Value| event["data"]["text"] == "fine" && event["data"]["calls"] == "1";
        let (_, fine) = stage.sink.wait_for("fine after", seen).await;
        assert_eq!(fine["data"]["left"], serde_json::Value::Null, "{text}: {fine}");
        stage.kero.delete(&format!("/plugins/{name}")).await.expect(200);
        forget(&stage);
    }
    assert!(stage.simulator.received_texts(JANE).await.is_empty(), "no failed call sent anything");
}

/// Makes sure that a later wait does not find what came before.
fn forget(stage: &Stage) {
    stage.sink.forget();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_the_log_are_cut_and_counted() {
    let stage = Stage::new().await;
    let more = "on = [\"message\"]\non_error = \"raw\"\n[grants]\nkv = \"64KiB\"\nsend = { per_chat_per_minute = 1 }";
    install(&stage.kero, &manifest("abuse", "1", "transform", more), ABUSE.as_bytes()).await;
    stage.receive(JANE, "flood").await;
    stage.wait_text("flood").await;
    let call = stage.calls("abuse").await.remove(0);
    assert_eq!(call["outcome"], "replace", "a log decides nothing");
    let kept: usize = call["logs"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().len()).sum();
    assert!(kept > 0 && kept <= 64 << 10, "{kept}");
    assert_eq!(call["log_dropped"], 5000 * 100 - kept, "what is not there is told");
    let event = json!({ "event": "message", "data": { "text": "flood", "chat": "491551000501@s.whatsapp.net" } });
    let grants = json!({ "kv": 65536, "send": {} });
    let trial = stage.kero.post("/plugins/abuse/test", json!({ "event": event, "grants": grants })).await.expect(200);
    assert_eq!(trial["data"]["log_dropped"], 5000 * 100 - kept, "{trial}");
    // half a surrogate is text that JSON can say and UTF-8 cannot
    stage.receive(JANE, "lone").await;
    stage.sink.wait_for("lone", |event| event["data"]["text"] == "lone").await;
}

/// Guests below the level of a language: a trap, an endless loop at the start, a bomb, text that is none.
#[tokio::test(flavor = "multi_thread")]
async fn modules_are_stopped_too() {
    let stage = Stage::new().await;
    let raw = "on = [\"message\"]\non_error = \"raw\"";
    let not_utf8 = r#"(i32.store8 (i32.const 2048) (i32.const 0)) (i32.store8 (i32.const 2052) (i32.const 1))
        (i32.store (i32.const 2056) (i32.const 4096)) (i32.store (i32.const 2060) (i32.const 4)) (i32.const 2048)"#;
    for (name, more, body, kind) in [
        ("trap", "", "unreachable", "trap"),
        ("loop", "", "(loop $again (br $again)) unreachable", "cpu"),
        ("bomb", "", "(loop $again (drop (memory.grow (i32.const 100))) (br $again)) unreachable", "memory"),
        ("deep", "(func $deep (call $deep))", "(call $deep) (i32.const 0)", "stack"),
        ("bytes", r#"(data (i32.const 4096) "\ff\fe\fd\fc")"#, not_utf8, "trap"),
    ] {
        install(&stage.kero, &wasm_manifest(name, raw), &module(more, body)).await;
        stage.receive(JANE, name).await;
        let (received, _) = stage.sink.wait_for(name, |event| event["data"]["text"] == name).await;
        let told = received.headers.get("x-kero-hook-error").cloned().unwrap_or_default();
        assert_eq!(told, format!("{name}/{kind}"), "{:?}", stage.calls(name).await);
        let calls = stage.calls(name).await;
        assert_eq!(calls.len(), 2, "one retry on a fresh instance, then the policy: {calls:?}");
        assert!(calls[0]["note"].as_str().is_some_and(|note| !note.is_empty()));
        stage.kero.post_empty(&format!("/plugins/{name}/deactivate")).await.expect(200);
    }
    // a start that does not end is found at the upload
    let start = module("(func $start (loop $again (br $again))) (start $start)", "i32.const 0");
    let answer = super::upload(&stage.kero, &wasm_manifest("start", raw), &start).await;
    let problem = answer.problem(422, "plugin-invalid");
    assert!(problem["detail"].as_str().unwrap().contains("start 1: "), "{problem}");
}

/// A hook that traps on every event of one instance costs another nothing: all of that one's events are delivered, in
/// order, each once, while those of the first wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trapping_hook_of_one_instance_holds_up_no_other() {
    const EACH: usize = 40;
    let stage = Stage::new().await;
    stage.instance("b", "491551000530").await;
    let dead = "on = [\"message\"]\non_error = \"dead\"\ninstances = [\"a\"]";
    install(&stage.kero, &wasm_manifest("trap", dead), &module("", "unreachable")).await;
    let fine = wasm_manifest("fine", "on = [\"message\"]\non_error = \"dead\"\ninstances = [\"b\"]");
    install(&stage.kero, &fine, &module("", "i32.const 0")).await;
    for n in 0..EACH {
        stage.receive(JANE, &format!("a {n}")).await;
        stage.simulator.send_text(JANE, "491551000530", &format!("b {n}")).await.unwrap();
    }
    let last = format!("b {}", EACH - 1);
    stage.wait_text(&last).await;
    let expected: Vec<String> = (0..EACH).map(|n| format!("b {n}")).collect();
    assert_eq!(stage.texts(), expected, "none of the other's, which are dead or held");
    let calls = stage.calls("fine").await;
    assert_eq!((calls.len(), calls.iter().filter(|call| call["outcome"] == "pass").count()), (EACH, EACH));
    let trapped = stage.calls("trap").await;
    assert!((5..=7).contains(&trapped.len()), "then its breaker is open: {}", trapped.len());
    let view = stage.kero.get("/plugins/fine").await.expect(200);
    assert_eq!(view["data"]["breaker_open"], false);
}

/// Five faults in a row suspend a plugin; its events are held, and go on when it works again.
#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_holds_and_lets_go() {
    let stage = Stage::new().await;
    let dead = "on = [\"message\"]\non_error = \"dead\"\ninstances = [\"a\"]";
    install(&stage.kero, &wasm_manifest("trap", dead), &module("", "unreachable")).await;
    for n in 0..6 {
        stage.receive(JANE, &format!("trap {n}")).await;
    }
    eventually("the breaker to open", || async {
        let view = stage.kero.get("/plugins/trap").await.expect(200);
        (view["data"]["breaker_open"] == true).then_some(())
    })
    .await;
    // the third event ends the second fault after the breaker opened
    let faults = 6;
    eventually("the last of them to be stored", || async { (stage.calls("trap").await.len() == faults).then_some(()) })
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.calls("trap").await.len(), faults, "not called while it is suspended");
    assert!(stage.texts().is_empty(), "held or dead, but not sent");
    // a version that works takes up what was held, in order
    let pass = module("", "i32.const 0");
    let two = wasm_manifest("trap", dead).replace("version = \"1\"", "version = \"2\"");
    install(&stage.kero, &two, &pass).await;
    stage.wait_text("trap 5").await;
    let texts = stage.texts();
    assert!(texts.len() >= 3 && texts.is_sorted(), "{texts:?}");
}
