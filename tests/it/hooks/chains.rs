//! Chains of several hooks: what counts of those that answered when one behind them fails.

use super::{JANE, JOHN, Stage, install, manifest};
use crate::support::eventually;
use serde_json::Value;

/// What a chain that failed would have stored is not there when the chain is run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_ended_dead_leaves_nothing_for_its_replay() {
    let stage = Stage::new().await;
    let counting = "export default (event) => { event.data.n = kero.kv.increment('n'); return event; }";
    let more = "on = [\"message\"]\non_error = \"dead\"\norder = 1\n[grants]\nkv = \"1KiB\"";
    install(&stage.kero, &manifest("counting", "1", "transform", more), counting.as_bytes()).await;
    let asked = |version: &str| manifest("broken", version, "transform", "on = [\"message\"]\non_error = \"dead\"");
    install(&stage.kero, &asked("1"), b"export default () => { throw new Error('no'); }").await;
    stage.receive(JANE, "hello").await;
    let dead = eventually("it to be dead", || async { stage.deliveries("dead").await.into_iter().next() }).await;
    install(&stage.kero, &asked("2"), b"export default (event) => { event.data.mended = true; return event; }").await;
    let path = format!("/instances/a/deliveries/{}/replay", dead["id"].as_str().unwrap());
    stage.kero.post_empty(&path).await.expect(200);
    let event = stage.wait_text("hello").await;
    assert_eq!((&event["data"]["n"], &event["data"]["mended"]), (&1.into(), &true.into()), "{event}");
    let mut outcomes: Vec<Value> = stage.calls("counting").await.iter().map(|call| call["outcome"].clone()).collect();
    outcomes.reverse();
    assert_eq!(outcomes, ["undone", "replace"], "one verdict");
}

/// However often a chain is run because of one hook, each of the others has one verdict.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_before_one_that_asks_for_time_have_one_verdict() {
    let stage = Stage::new().await;
    let open = "on = [\"message\"]\non_error = \"raw\"\norder = 1";
    install(&stage.kero, &manifest("first", "1", "transform", open), b"export default (event) => undefined;").await;
    let retrying = "export default (event) => {
        if (event.message.text === 'wait' && !kero.kv.get('open')) throw new kero.Retry('not yet');
        if (event.message.text === 'open') kero.kv.set('open', 'yes');
        return event; }";
    let more = "on = [\"message\"]\non_error = \"dead\"\n[grants]\nkv = \"1KiB\"";
    install(&stage.kero, &manifest("second", "1", "transform", more), retrying.as_bytes()).await;
    stage.receive(JANE, "wait").await;
    eventually("the first try", || async { (!stage.calls("second").await.is_empty()).then_some(()) }).await;
    stage.receive(JOHN, "open").await;
    let event = stage.wait_text("wait").await;
    let calls = stage.calls("first").await;
    let mine: Vec<&Value> =
        calls.iter().filter(|call| call["event_id"] == event["id"]).map(|it| &it["outcome"]).collect();
    assert_eq!(mine.iter().filter(|outcome| ***outcome == "pass").count(), 1, "{mine:?}");
    assert!(mine.len() >= 2 && mine.iter().all(|outcome| **outcome == "pass" || **outcome == "undone"), "{mine:?}");
}
