//! Effects are staged, instances are kept apart, requests go only where the grant says.

use crate::support::*;
use kero_domain::EventKind;
use kero_hooks::fixture::Fixture;
use kero_hooks::{ErrorKind, Event, Hook, Host, KvChange, Setting, Verdict};
use serde_json::json;
use std::sync::Arc;

const KV_SET: &str = r#"(import "kero:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
const SEND: &str = r#"(import "kero:plugin/send@0.1.0" "text" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// Texts at 4096: a key of 3, a chat of 12 and a message of 2 bytes.
fn with_texts(imports: &str, body: &str) -> Vec<u8> {
    guest_for(
        "transform",
        imports,
        &format!(
            r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body})
               (data (i32.const 4096) "key") (data (i32.const 4112) "+15557654321") (data (i32.const 4128) "hi")"#
        ),
    )
}

const SET: &str = "(call $set (i32.const 4096) (i32.const 3) (i32.const 4128) (i32.const 2) (i32.const 1) (i32.const 60) (i32.const 3072))";
const SEND_HI: &str = "(call $send (i32.const 4112) (i32.const 12) (i32.const 4128) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3072))";

#[tokio::test]
async fn effects_come_with_the_answer_and_the_same_in_every_try() {
    let host = host();
    let wasm = with_texts(&format!("{KV_SET} {SEND}"), &format!("{SET} {SEND_HI} {SEND_HI} i32.const 0"));
    let good = hook(&host, wasm, json!({"grants": everything()})).await;
    let first = host.transform(&good, &message(), "{}", &setting()).await;
    assert_eq!(first.answer, Ok(Verdict::Pass));
    let [write] = first.effects.kv.as_slice() else { panic!("{:?}", first.effects) };
    assert_eq!((write.plugin.as_str(), write.key.as_str()), ("tried", "key"));
    assert_eq!(write.change, KvChange::Set { value: b"hi".to_vec(), ttl_seconds: Some(60) });
    let ids: Vec<&str> = first.effects.sends.iter().map(|send| send.correlation_id.as_str()).collect();
    assert_eq!(ids, vec!["e1.tried.1", "e1.tried.2"]);
    let second = host.transform(&good, &message(), "{}", &setting()).await;
    assert_eq!(first.effects, second.effects, "a repeated call asks for the same, under the same ids");
}

const KV_ADD: &str = r#"(import "kero:plugin/kv@0.1.0" "increment" (func $add (param i32 i32 i64 i32 i32 i32)))"#;

/// Values and counters alike: keys are storage, too.
#[tokio::test]
async fn storage_ends_at_its_quota() {
    let host = host();
    // sixty keys of three bytes, "key" with its last byte counted up; each costs 3 + 20 or 3 + 2
    let each = |call: &str| {
        format!(
            "(local $n i32)
             (loop $on
               (i32.store8 (i32.const 4098) (i32.add (local.get $n) (i32.const 48)))
               {call}
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $on (i32.lt_u (local.get $n) (i32.const 60))))
             i32.const 0"
        )
    };
    let add = "(call $add (i32.const 4096) (i32.const 3) (i64.const 1) (i32.const 0) (i32.const 0) (i32.const 3072))";
    for (call, kept) in [(add, 10), (SET, 46)] {
        let wasm = with_texts(&format!("{KV_SET} {KV_ADD}"), &each(call));
        let hungry = hook(&host, wasm, json!({"grants": {"kv": 230}})).await;
        let ran = host.transform(&hungry, &message(), "{}", &setting()).await;
        assert_eq!(ran.answer, Ok(Verdict::Pass));
        assert_eq!(ran.effects.kv.len(), kept, "what is over is refused");
        let full = Fixture { kv: [("k".to_owned(), "x".repeat(229))].into(), ..Fixture::default() }.capabilities();
        let ran = host.transform(&hungry, &message(), "{}", &Setting { capabilities: full, dry_run: false }).await;
        assert!(ran.effects.is_empty(), "what is stored counts");
    }
}

#[tokio::test]
async fn a_failed_call_leaves_nothing() {
    let host = host();
    let imports = format!("{KV_SET} {SEND}");
    for (end, kind) in [
        ("unreachable".to_owned(), ErrorKind::Trap),
        ("(loop $on (br $on)) unreachable".to_owned(), ErrorKind::Cpu),
        (answer(2, 4128, 2), ErrorKind::BadAnswer),
        // err(retry(""))
        ("(i32.store8 (i32.const 2048) (i32.const 1)) i32.const 2048".to_owned(), ErrorKind::Retry),
    ] {
        let bad =
            hook(&host, with_texts(&imports, &format!("{SET} {SEND_HI} {end}")), json!({"grants": everything()})).await;
        let ran = host.transform(&bad, &message(), "{}", &setting()).await;
        assert_eq!(ran.answer.unwrap_err().kind, kind);
        assert!(ran.effects.is_empty(), "{kind}");
        assert!(ran.cost.host_calls >= 2, "they were asked for");
    }
}

#[tokio::test]
async fn sends_are_limited_per_event_and_per_chat() {
    let host = host();
    let body = format!("{} i32.const 0", SEND_HI.repeat(9));
    let many = hook(&host, with_texts(SEND, &body), json!({"grants": {"send": {"per_chat_per_minute": 100}}})).await;
    assert_eq!(host.transform(&many, &message(), "{}", &setting()).await.effects.sends.len(), 3);
    let few = hook(&host, with_texts(SEND, &body), json!({"grants": {"send": {"per_chat_per_minute": 2}}})).await;
    assert_eq!(host.transform(&few, &message(), "{}", &setting()).await.effects.sends.len(), 2);
    let capabilities = Fixture { send_left: Some(0), ..Fixture::default() }.capabilities();
    let ran = host.transform(&few, &message(), "{}", &Setting { capabilities, dry_run: false }).await;
    assert!(ran.effects.sends.is_empty(), "the minute is used up");
}

/// Answers `drop` with the number of its calls as the reason, its last digit; traps at the fifth.
fn counting() -> Vec<u8> {
    counting_to(5)
}

/// The same, trapping at another call.
pub fn counting_to(last: u32) -> Vec<u8> {
    let body = format!(
        "(global.set $n (i32.add (global.get $n) (i32.const 1)))
         (i32.store8 (i32.const 4096) (i32.add (i32.rem_u (global.get $n) (i32.const 10)) (i32.const 48)))
         (if (i32.eq (global.get $n) (i32.const {last})) (then unreachable)) {}",
        answer(1, 4096, 1)
    );
    guest_for(
        "transform",
        "",
        &format!(
            r#"(global $n (mut i32) (i32.const 0))
               (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body})"#
        ),
    )
}

/// The number that the counting guest answers.
async fn counted(hook: &Arc<Hook>, host: &Host, instance: &str) -> String {
    let event = Arc::new(Event::new("e", EventKind::Message, instance, 0, &json!({})));
    match host.transform(hook, &event, "{}", &setting()).await.answer {
        Ok(Verdict::Drop { reason }) => reason,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn instances_are_fresh_unless_reuse_is_asked_for() {
    let host = host();
    let fresh = hook(&host, counting(), json!({})).await;
    assert_eq!((counted(&fresh, &host, "a").await.as_str(), counted(&fresh, &host, "a").await.as_str()), ("1", "1"));

    let kept = hook(&host, counting(), json!({"reuse": {"calls": 100, "age": "1h"}})).await;
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(counted(&kept, &host, "a").await, expected);
    }
    assert_eq!(counted(&kept, &host, "b").await, "1", "no state crosses accounts");
    assert!(counted(&kept, &host, "a").await.contains("unreachable"));
    assert_eq!(counted(&kept, &host, "a").await, "1", "after a trap the instance is gone");
    assert_eq!(counted(&kept, &host, "b").await, "2", "others keep theirs");
    assert_eq!(host.waiting_instances(), 2);
    drop(kept);
    assert_eq!(host.waiting_instances(), 0, "they go with the plugin");

    let worn = hook(&host, counting(), json!({"reuse": {"calls": 2, "age": "1h"}})).await;
    let seen = [counted(&worn, &host, "a").await, counted(&worn, &host, "a").await, counted(&worn, &host, "a").await];
    assert_eq!(seen, ["1", "2", "1"]);
    let old = hook(&host, counting(), json!({"reuse": {"calls": 100, "age": "1ms"}})).await;
    counted(&old, &host, "a").await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(counted(&old, &host, "a").await, "1");
}

#[tokio::test]
async fn requests_go_only_to_granted_urls_and_choose_no_host() {
    let host = host();
    let fixture = Arc::new(Fixture::default());
    let setting = Setting { capabilities: fixture.shared(), dry_run: false };
    let manifest = json!({"grants": everything()});
    for (url, allowed) in [
        ("https://api.example/a", true),
        ("https://api.example:443/a", true),
        ("http://api.example/a", false),
        ("https://api.example.attacker.net/a", false),
        ("https://api.example@attacker.net/a", false),
        ("http://127.0.0.1/a", false),
        ("file:///etc/passwd", false),
    ] {
        // one header: Host: attacker.net
        let body = format!(
            r#"(i32.store (i32.const 4600) (i32.const 4300)) (i32.store (i32.const 4604) (i32.const 4))
               (i32.store (i32.const 4608) (i32.const 4304)) (i32.store (i32.const 4612) (i32.const 12))
               (call $fetch (i32.const 4096) (i32.const 3) (i32.const 4112) (i32.const {}) (i32.const 4600) (i32.const 1)
                 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3072)) i32.const 0"#,
            url.len()
        );
        let wasm = guest_for(
            "transform",
            r#"(import "kero:plugin/http@0.1.0" "fetch" (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#,
            &format!(
                r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body})
                   (data (i32.const 4096) "GET") (data (i32.const 4112) "{url}") (data (i32.const 4300) "Hostattacker.net")"#
            ),
        );
        let caller = hook(&host, wasm, manifest.clone()).await;
        let before = fixture.requests().len();
        let ran = host.transform(&caller, &message(), "{}", &setting).await;
        assert_eq!(ran.answer, Ok(Verdict::Pass), "{url}");
        assert_eq!(fixture.requests().len() > before, allowed, "{url}");
        assert_eq!(ran.cost.denied.is_empty(), allowed, "{url}");
    }
    for request in fixture.requests() {
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, vec!["idempotency-key"], "no Host header, one key");
        assert_eq!(request.headers[0].1, "e1/tried/1");
    }
}

#[tokio::test]
async fn a_waiting_instance_holds_no_place_for_long_calls() {
    let host = host();
    // some ten ticks
    let long = "(local $n i32) (loop $on (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $n) (i32.const 60000000)))) i32.const 0";
    let more = json!({"reuse": {"calls": 9, "age": "1h"}, "limits": {"cpu_ms": 1000, "wall_ms": 5000}});
    let kept = hook(&host, guest("", long), more).await;
    for instance in ["a", "b", "c"] {
        let event = Arc::new(Event::new("e", EventKind::Message, instance, 0, &json!({})));
        let ran = host.transform(&kept, &event, "{}", &setting()).await;
        assert_eq!(ran.answer, Ok(Verdict::Pass));
        assert!(ran.cost.ticks >= 2, "long enough to need a place: {}", ran.cost.ticks);
    }
}
