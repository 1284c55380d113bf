//! Transforms in the fan-out: verdicts, order, effects, failure policies, holding.

use super::{ACCOUNT, JANE, JOHN, Stage, install, manifest};
use crate::support::{eventually, person};
use kero_simulator::Script;
use serde_json::{Value, json};

/// Speaks every verdict, as the message says.
const VERDICTS: &str = r#"
export default function handle(event) {
  const text = event.message?.text ?? '';
  if (text.startsWith('drop')) return { drop: 'asked to' };
  if (text.startsWith('route ')) return { to: [text.slice(6)] };
  if (text.startsWith('loud')) event.data.text = text.toUpperCase();
  event.data.seen = (event.data.seen ?? 0) + 1;
  return event;
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_hold_and_are_recorded_once() {
    let stage = Stage::new().await;
    let kero = &stage.kero;
    let asked = manifest("verdicts", "1", "transform", "on = [\"message\"]\non_error = \"raw\"");
    install(kero, &asked, VERDICTS.as_bytes()).await;
    // a second one behind it sees what the first left
    let second = manifest("after", "1", "transform", "on = [\"message\"]\non_error = \"raw\"\norder = 60");
    install(kero, &second, VERDICTS.as_bytes()).await;

    for text in ["plain", "drop me", "loud", "route nowhere", "last"] {
        stage.receive(JANE, text).await;
    }
    let last = stage.wait_text("last").await;
    assert_eq!(last["data"]["seen"], 2, "both, in order: {last}");
    assert_eq!(stage.texts(), ["plain", "LOUD", "last"]);
    // the journal has what was routed to nobody, and not what was dropped; numbers stay dense
    let events = kero.get("/instances/a/events?limit=1000").await.expect(200);
    let events = events["data"].as_array().unwrap();
    let messages: Vec<&str> =
        events.iter().filter(|it| it["event"] == "message").map(|it| it["data"]["text"].as_str().unwrap()).collect();
    assert_eq!(messages, ["plain", "LOUD", "route nowhere", "last"]);
    assert!(events.iter().enumerate().all(|(n, event)| event["seq"] == n + 1), "dense: {events:?}");
    let mut outcomes: Vec<String> =
        stage.calls("verdicts").await.iter().map(|call| call["outcome"].as_str().unwrap().to_owned()).collect();
    outcomes.reverse();
    assert_eq!(outcomes, ["replace", "drop", "replace", "route", "replace"]);
    let dropped = kero.get("/plugins/verdicts/calls?outcome=drop").await.expect(200);
    assert_eq!(dropped["data"].as_array().unwrap().len(), 1);
    assert_eq!(dropped["data"][0]["note"], "asked to");
    assert_eq!(dropped["data"][0]["version"], "1");
    assert_eq!(stage.calls("after").await.len(), 4, "a drop ends the chain");
    // events that it does not name never meet it
    assert!(events.iter().any(|event| event["event"] != "message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_chooses_among_the_endpoints() {
    let stage = Stage::new().await;
    let asked = manifest("router", "1", "transform", "on = [\"message\"]\non_error = \"raw\"");
    // the endpoint's id is a setting
    let config = "\n[config.schema]\ntype = \"object\"\nproperties.to = { type = \"string\" }";
    let script = "export default (event) => kero.config.to ? { to: [kero.config.to] } : event;";
    install(&stage.kero, &format!("{asked}{config}"), script.as_bytes()).await;
    stage.receive(JANE, "to all").await;
    stage.wait_text("to all").await;
    let set = |to: &str| json!({ "config": { "to": to } });
    let path = "/plugins/router/config";
    let put = |body: Value| stage.kero.request(reqwest::Method::PUT, path, &[], Some(body.to_string().into_bytes()));
    put(set("00000000-0000-7000-8000-000000000000")).await.expect(200);
    stage.receive(JANE, "to another").await;
    eventually("the routed event to be fanned out", || async {
        let events = stage.kero.get("/instances/a/events?limit=1000").await.expect(200);
        events.to_string().contains("to another").then_some(())
    })
    .await;
    put(json!({ "config": {} })).await.expect(200);
    stage.receive(JANE, "to all again").await;
    stage.wait_text("to all again").await;
    assert_eq!(stage.texts(), ["to all", "to all again"]);
}

/// The n-th message of a chat, counted in storage: the next message must see the commit of the one before.
const COUNT: &str = r#"
export default function handle(event) {
  event.data.n = kero.kv.increment('n ' + event.message.sender, 1);
  event.data.all = kero.kv.increment('all', 1);
  return event;
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn storage_commits_with_the_verdict_in_the_order_of_the_chat() {
    counted_in_order(Stage::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_commits_with_the_verdict_on_postgres() {
    let options = super::options().database(crate::support::database_url().await);
    counted_in_order(Stage::with(options).await).await;
}

async fn counted_in_order(stage: Stage) {
    let asked = manifest("count", "1", "transform", "on = [\"message\"]\non_error = \"dead\"\n[grants]\nkv = \"1MiB\"");
    install(&stage.kero, &asked, COUNT.as_bytes()).await;
    let texts: Vec<String> = (0..30).map(|n| format!("message {n}")).collect();
    for text in &texts {
        stage.receive(JANE, text).await;
        stage.receive(JOHN, text).await;
    }
    eventually("60 messages", || async { (stage.texts().len() == 60).then_some(()) }).await;
    let mut counts: std::collections::HashMap<String, Vec<(String, i64)>> = std::collections::HashMap::new();
    for event in stage.sink.events("message") {
        let data = &event["data"];
        let from = data["from"].as_str().unwrap().to_owned();
        let seen = (data["text"].as_str().unwrap().to_owned(), data["n"].as_i64().unwrap());
        let list = counts.entry(from).or_default();
        if !list.contains(&seen) {
            list.push(seen);
        }
    }
    for list in counts.values() {
        let expected: Vec<(String, i64)> = texts.iter().cloned().zip(1..).collect();
        assert_eq!(*list, expected);
    }
    // concurrent chats lose no addition
    stage.receive(JANE, "the last").await;
    assert_eq!(stage.wait_text("the last").await["data"]["all"], 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_policies_do_what_they_say() {
    let stage = Stage::new().await;
    let script =
        "export default (event) => { if (event.message.text.startsWith('bad')) throw new Error('no'); return event; }";
    let install_with = async |policy: &str| {
        let asked = manifest("policy", policy, "transform", &format!("on = [\"message\"]\non_error = \"{policy}\""));
        install(&stage.kero, &asked, script.as_bytes()).await;
    };
    install_with("raw").await;
    stage.receive(JANE, "bad raw").await;
    let found = |event: &Value| event["data"]["text"] == "bad raw";
    let (received, _) = stage.sink.wait_for("bad raw", found).await;
    assert_eq!(received.headers.get("x-kero-hook-error").map(String::as_str), Some("policy/reject"));

    install_with("drop").await;
    stage.receive(JANE, "bad drop").await;
    stage.receive(JANE, "good 1").await;
    let (received, _) = stage.sink.wait_for("good 1", |event| event["data"]["text"] == "good 1").await;
    assert!(!received.headers.contains_key("x-kero-hook-error"));

    install_with("dead").await;
    stage.receive(JANE, "bad dead").await;
    stage.receive(JANE, "good 2").await;
    stage.wait_text("good 2").await;
    assert_eq!(stage.texts(), ["bad raw", "good 1", "good 2"]);
    let events = stage.kero.get("/instances/a/events?limit=1000").await.expect(200).to_string();
    assert!(!events.contains("bad drop") && !events.contains("bad dead"), "what was to be hidden is not shown");
    // the dead delivery can be replayed: the hook is called again, and a version that works lets it through
    let dead = stage.kero.get("/instances/a/deliveries?state=dead").await.expect(200);
    let dead = dead["data"].as_array().unwrap().clone();
    assert_eq!(dead.len(), 1, "{dead:?}");
    let replay = format!("/instances/a/deliveries/{}/replay", dead[0]["id"].as_str().unwrap());
    stage.kero.post_empty(&replay).await.expect(200);
    eventually("the second failure", || async {
        let calls = stage.calls("policy").await;
        (calls.iter().filter(|call| call["outcome"] == "reject").count() == 4).then_some(())
    })
    .await;
    assert!(!stage.texts().contains(&"bad dead".to_owned()));
    let mended = script.replace("throw new Error('no')", "return { data: { text: 'mended' } }");
    let asked = manifest("policy", "mended", "transform", "on = [\"message\"]\non_error = \"dead\"");
    install(&stage.kero, &asked, mended.as_bytes()).await;
    stage.kero.post_empty(&replay).await.expect(200);
    stage.wait_text("mended").await;
    let delivered = stage.kero.get(replay.trim_end_matches("/replay")).await.expect(200);
    assert_eq!(delivered["data"]["delivery"]["id"], dead[0]["id"], "under its id");
    let calls = stage.calls("policy").await;
    assert!(calls.iter().filter(|call| call["outcome"] == "reject").count() == 4, "{calls:?}");
    assert!(calls.iter().any(|call| call["note"].as_str().is_some_and(|note| note.contains("hook.js:1"))), "{calls:?}");
}

/// A suspended plugin that must not fail open holds its events, in order; nothing else is held.
#[tokio::test(flavor = "multi_thread")]
async fn suspended_plugins_hold_or_are_passed_by() {
    let stage = Stage::new().await;
    stage.instance("b", "491551000510").await;
    let held = "on = [\"message\"]\non_error = \"dead\"\ninstances = [\"a\"]";
    let mark = "export default (event) => { event.data.by = (event.data.by ?? '') + kero.config.name; return event; }";
    let config =
        |name: &str| format!("\n[config.schema]\ntype = \"object\"\nproperties.name = {{ const = \"{name}\" }}");
    for (name, more) in [("held", held), ("open", "on = [\"message\"]\non_error = \"raw\"")] {
        install(&stage.kero, &(manifest(name, "1", "transform", more) + &config(name)), mark.as_bytes()).await;
        let body = json!({ "config": { "name": name } }).to_string().into_bytes();
        let path = format!("/plugins/{name}/config");
        stage.kero.request(reqwest::Method::PUT, &path, &[], Some(body)).await.expect(200);
    }
    let suspend = |name: &str| format!("/plugins/{name}/suspend");
    stage.kero.post_empty(&suspend("open")).await.expect(200);
    stage.receive(JANE, "one").await;
    let (received, event) = stage.sink.wait_for("one", |event| event["data"]["text"] == "one").await;
    assert_eq!(event["data"]["by"], "held");
    assert_eq!(received.headers.get("x-kero-hook-error").map(String::as_str), Some("open/suspended"));

    let view = stage.kero.post_empty(&suspend("held")).await.expect(200);
    assert_eq!(view["data"]["state"], "suspended");
    stage.receive(JANE, "two").await;
    stage.receive(JANE, "three").await;
    // another instance's events go on meanwhile
    stage.simulator.send_text(JANE, "491551000510", "elsewhere").await.unwrap();
    stage.wait_text("elsewhere").await;
    // and so do the events of this one that the plugin does not want
    stage.kero.send_async("a", JOHN, "hello").await;
    stage.sink.wait_for("the acknowledgement", |event| event["event"] == "message_ack").await;
    assert_eq!(stage.texts(), ["one", "elsewhere"]);
    stage.kero.post_empty("/plugins/held/resume").await.expect(200);
    stage.wait_text("three").await;
    assert_eq!(stage.texts(), ["one", "elsewhere", "two", "three"], "held, in order, not lost");
    // no attempt was burnt: nothing was called while suspended
    assert_eq!(stage.calls("held").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_holds_its_chat_only_and_is_made_again() {
    let stage = Stage::new().await;
    let script = r#"
export default function handle(event) {
  const text = event.message.text;
  if (text === 'wait' && !kero.kv.get('open')) throw new kero.Retry('not yet');
  if (text === 'open') kero.kv.set('open', 'yes');
  return event;
}"#;
    let asked = manifest("retry", "1", "transform", "on = [\"message\"]\non_error = \"dead\"\n[grants]\nkv = \"1KiB\"");
    install(&stage.kero, &asked, script.as_bytes()).await;
    stage.receive(JANE, "wait").await;
    stage.receive(JANE, "behind").await;
    eventually("the first try", || async {
        stage.calls("retry").await.iter().any(|call| call["outcome"] == "retry").then_some(())
    })
    .await;
    stage.receive(JOHN, "open").await;
    stage.wait_text("open").await;
    stage.wait_text("behind").await;
    assert_eq!(stage.texts(), ["open", "wait", "behind"]);
}

/// `drop-ack`: the result of a send is not taken from the client that waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_are_kept_from_hooks_without_the_grant() {
    let stage = Stage::new().await;
    let script = "export default (event) => ({ drop: 'no acknowledgements' })";
    let more = "on = [\"message_ack\"]\non_error = \"drop\"\n[grants]\ndrop-ack = true";
    let asked = manifest("acks", "1", "transform", more);
    let uploaded = super::upload(&stage.kero, &asked, script.as_bytes()).await.expect(201);
    assert_eq!(uploaded["data"]["grants_asked"], json!({ "drop-ack": true }));
    let path = "/plugins/acks/versions/1/activate";
    let refused = stage.kero.post(path, json!({})).await.problem(409, "plugin-grants-missing");
    assert_eq!(refused["asked"], json!({ "drop-ack": true }));
    stage.kero.post(path, json!({ "with_fewer_grants": true })).await.expect(200);
    let sent = stage.kero.send_async("a", JANE, "hello").await;
    let acknowledged = |event: &Value| event["data"]["correlation_id"] == sent["correlation_id"];
    stage.sink.wait_for("the acknowledgement", acknowledged).await;
    assert!(stage.calls("acks").await[0]["note"].as_str().unwrap().contains("drop-ack"));

    stage.kero.post(path, json!({ "grants": { "drop-ack": true } })).await.expect(200);
    let dropped = stage.kero.send_async("a", JANE, "hello").await;
    eventually("the drop", || async { (stage.calls("acks").await.len() == 2).then_some(()) }).await;
    let came =
        stage.sink.events("message_ack").iter().any(|it| it["data"]["correlation_id"] == dropped["correlation_id"]);
    assert!(!came);
}

/// One instance's slow hook does not hold up another instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_hook_of_one_instance_holds_up_no_other() {
    let stage = Stage::new().await;
    stage.instance("b", "491551000520").await;
    let slow = "export default (event) => { const until = Date.now() + 400; for (;;) { for (let n = 0; n < 20000; n++); if (Date.now() >= until) break; } event.data.slow = true; return event; }";
    let more = "on = [\"message\"]\non_error = \"raw\"\ninstances = [\"a\"]\n[limits]\ncpu_ms = 900\nwall_ms = 2000";
    install(&stage.kero, &manifest("slow", "1", "transform", more), slow.as_bytes()).await;
    let quick = "export default (event) => { event.data.quick = true; return event; }";
    let more = "on = [\"message\"]\non_error = \"raw\"\ninstances = [\"b\"]";
    install(&stage.kero, &manifest("quick", "1", "transform", more), quick.as_bytes()).await;
    let people: Vec<String> =
        (0..12).map(|n| person(&stage.simulator, &format!("4915510006{n:02}"), Script::Silent)).collect();
    for from in &people {
        stage.simulator.send_text(from, ACCOUNT, "slow").await.unwrap();
    }
    stage.simulator.send_text(JANE, "491551000520", "through").await.unwrap();
    stage.wait_text("through").await;
    let before = stage.texts().iter().filter(|text| *text == "slow").count();
    assert!(before < people.len(), "it did not wait for all of them");
    // it was slow, not stopped
    let (_, one) = stage.sink.wait_for("a slow one", |event| event["data"]["text"] == "slow").await;
    assert_eq!(one["data"]["slow"], true, "{one}");
    eventually("the slow ones", || async {
        (stage.texts().iter().filter(|text| *text == "slow").count() == people.len()).then_some(())
    })
    .await;
}

/// A chat whose hook waits holds no other up, and keeps its own order.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_of_one_chat_holds_no_other_up() {
    const WAITS: &str = r#"
export default async function handle(event) {
  if (event.message.text === 'slow') await fetch(kero.config.hole, { timeout: 1500 }).catch(() => {});
  return event;
}"#;
    let stage = Stage::new().await;
    // takes connections and never answers
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hole = format!("http://{}/", listener.local_addr().unwrap());
    let more = format!(
        "on = [\"message\"]\non_error = \"raw\"\n[limits]\nwall_ms = 2000\n[grants]\nhttp = [\"{hole}*\"]\n\
         [config.schema]\ntype = \"object\""
    );
    install(&stage.kero, &manifest("waits", "1", "transform", &more), WAITS.as_bytes()).await;
    let config = json!({ "config": { "hole": hole } }).to_string().into_bytes();
    stage.kero.request(reqwest::Method::PUT, "/plugins/waits/config", &[], Some(config)).await.expect(200);
    // the instance of the plugin is there
    stage.receive(JOHN, "first").await;
    stage.wait_text("first").await;
    stage.receive(JANE, "slow").await;
    stage.receive(JANE, "behind").await;
    let _kept = listener.accept().unwrap();
    for n in 0..5 {
        stage.receive(JOHN, &format!("quick {n}")).await;
    }
    stage.wait_text("quick 4").await;
    assert_eq!(stage.texts().len(), 6, "the slow one is still called: {:?}", stage.texts());
    stage.wait_text("behind").await;
    let texts = stage.texts();
    assert_eq!(texts[6..], ["slow", "behind"], "{texts:?}");
}

/// More events than one transaction takes, of two chats, whose chains run while those before are committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_out_in_order_and_once() {
    const EACH: usize = 300;
    let stage = Stage::new().await;
    let asked = |name: &str| manifest(name, "1", "transform", "on = [\"message\"]\non_error = \"dead\"");
    install(&stage.kero, &asked("gate"), b"export default (event) => event;").await;
    install(&stage.kero, &asked("mark"), b"export default (event) => { event.data.marked = true; return event; }")
        .await;
    stage.kero.post("/plugins/gate/suspend", json!({})).await.expect(200);
    for n in 0..EACH {
        stage.receive(JANE, &format!("{n} of jane")).await;
        stage.receive(JOHN, &format!("{n} of john")).await;
    }
    stage.kero.post("/plugins/gate/deactivate", json!({})).await.expect(200);
    let all = || async { (stage.texts().len() >= 2 * EACH).then_some(()) };
    crate::support::eventually_within(std::time::Duration::from_secs(120), "all of them", all).await;
    let texts = stage.texts();
    for name in ["jane", "john"] {
        let mine: Vec<&String> = texts.iter().filter(|text| text.ends_with(name)).collect();
        let expected: Vec<String> = (0..EACH).map(|n| format!("{n} of {name}")).collect();
        assert_eq!(mine, expected.iter().collect::<Vec<_>>());
    }
    let calls = stage.calls("mark").await;
    let events: std::collections::HashSet<&str> = calls.iter().map(|it| it["event_id"].as_str().unwrap()).collect();
    assert_eq!((calls.len(), events.len()), (2 * EACH, 2 * EACH), "one verdict for each");
}
