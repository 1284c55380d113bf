//! Chains over real guests: order, folding, retries, policies, the breaker, and the rule for `message_ack`.

use crate::abuse::fetches;
use crate::support::*;
use kero_domain::EventKind;
use kero_hooks::chain::{End, Outcome, Tries, for_delivery, for_event};
use kero_hooks::fixture::Fixture;
use kero_hooks::run::Chained;
use kero_hooks::{Event, Hook, Host, HostConfig, Setting, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const DELIVERY: &str = r#"(func (export "kero:plugin/on-delivery@0.1.0#shape") (param i32) (result i32) unreachable)
    (func (export "kero:plugin/on-delivery@0.1.0#judge") (param i32) (result i32) unreachable)"#;
const TRAP: &str = "unreachable";
const REJECT: &str =
    "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 1)) i32.const 2048";
const RETRY: &str = "(i32.store8 (i32.const 2048) (i32.const 1)) i32.const 2048";

async fn run(host: &Host, hooks: &[Arc<Hook>], event: &Arc<Event>, setting: &Setting) -> Chained<Outcome> {
    host.run_transforms(for_event(hooks, event), event, Tries::new(), setting).await
}

fn words<T>(chained: &Chained<T>) -> Vec<String> {
    chained.records.iter().map(|record| format!("{}:{}", record.plugin, record.outcome)).collect()
}

fn at(ms: u64) -> Setting {
    Setting { capabilities: Fixture { now: ms, ..Fixture::default() }.capabilities(), dry_run: false }
}

#[tokio::test]
async fn hooks_run_in_order_and_feed_each_other() {
    let host = host();
    let last = hook(&host, saying(2, "{\"last\":1}"), json!({"name": "a-last", "order": 90})).await;
    let drop_ = hook(&host, saying(1, "spam"), json!({"name": "never", "order": 95, "on": ["call"]})).await;
    let first = hook(&host, saying(2, "{\"first\":1}"), json!({"name": "z-first", "order": 10})).await;
    let hooks = [last, drop_, first];
    let chained = run(&host, &hooks, &message(), &setting()).await;
    assert_eq!(words(&chained), vec!["z-first:replace", "a-last:replace"]);
    let End::Go(outcome) = chained.end else { panic!() };
    assert_eq!(outcome.data.as_deref(), Some("{\"last\":1}"));

    let call = event(EventKind::Call, &json!({}));
    let chained = run(&host, &hooks, &call, &setting()).await;
    assert_eq!(chained.end, End::Dropped { by: "never".into(), reason: "spam".into() });
}

#[tokio::test]
async fn a_plugin_does_not_meet_what_it_caused() {
    let host = host();
    let hooks = [
        hook(&host, guest("", PASS), json!({"name": "bot"})).await,
        hook(&host, guest("", PASS), json!({"name": "other"})).await,
    ];
    let own = Event::new("e", EventKind::MessageAck, "i", 0, &json!({})).caused_by(Some("bot".into()));
    let names: Vec<String> = for_event(&hooks, &own).iter().map(|hook| hook.name().to_string()).collect();
    assert_eq!(names, vec!["other"]);
    assert!(for_delivery(&hooks, &own, "e").is_empty(), "the other kind");
    // a receipt for messages of both
    let both = Event::new("e", EventKind::Receipt, "i", 0, &json!({})).caused_by(["other".into(), "bot".into()]);
    assert!(for_event(&hooks, &both).is_empty());
    let deliveries = [
        hook(&host, guest_for("delivery", "", DELIVERY), json!({"name": "bot", "kind": "delivery"})).await,
        hook(&host, guest_for("delivery", "", DELIVERY), json!({"name": "other", "kind": "delivery"})).await,
    ];
    let names: Vec<String> = for_delivery(&deliveries, &own, "e").iter().map(|hook| hook.name().to_string()).collect();
    assert_eq!(names, vec!["other"]);
}

/// A redaction at the end of a long chain must not be left out.
#[tokio::test]
async fn the_seventeenth_hook_is_not_skipped_in_silence() {
    let host = host();
    let mut hooks = Vec::new();
    for n in 0..16 {
        hooks.push(hook(&host, guest("", PASS), json!({"name": format!("h{n:02}")})).await);
    }
    for (policy, held) in [("raw", false), ("dead", true), ("drop", true)] {
        let last = hook(&host, saying(2, "{\"hidden\":1}"), json!({"name": "z-last", "on_error": policy})).await;
        let mut all = hooks.clone();
        all.push(last);
        let chained = run(&host, &all, &message(), &setting()).await;
        assert_eq!(words(&chained)[16], "z-last:suspended");
        match chained.end {
            End::Held { by, reason, .. } => {
                assert!(held && by == "z-last" && reason.contains("more than 16"), "{reason}")
            }
            End::Go(outcome) => assert!(!held && outcome.failures == ["z-last/suspended"]),
            other => panic!("{other:?}"),
        }
    }
}

/// A hook that uses up the chain's time is no fault of those behind it.
#[tokio::test]
async fn a_slow_hook_takes_no_time_from_those_behind_it() {
    let host = Host::start(HostConfig { chain: Duration::from_millis(300), ..HostConfig::default() }).unwrap();
    let slow = json!({"name": "a-slow", "grants": everything(), "limits": {"wall_ms": 300}});
    let hanging = hook(&host, fetches("https://api.example/slow"), slow).await;
    let good = hook(&host, saying(2, "{\"good\":1}"), json!({"name": "b-good", "on_error": "dead"})).await;
    let chained = run(&host, &[Arc::clone(&hanging), good], &message(), &never_answering()).await;
    assert_eq!(words(&chained), ["a-slow:wall", "a-slow:wall", "b-good:replace"]);
    assert!(matches!(chained.end, End::Go(_)), "{:?}", chained.end);

    // one that waits itself is not suspended for time that others used up: it is called again later
    let waits = json!({"name": "b-waits", "grants": everything(), "on_error": "dead"});
    let waiting = hook(&host, fetches("https://api.example/slow"), waits).await;
    for _ in 0..6 {
        // a breaker of its own each time, so that the slow one is called
        let slow = json!({"name": "a-slow", "grants": everything(), "limits": {"wall_ms": 300}});
        let hanging = hook(&host, fetches("https://api.example/slow"), slow).await;
        let chained = run(&host, &[hanging, Arc::clone(&waiting)], &message(), &never_answering()).await;
        assert!(matches!(&chained.end, End::Later { by, .. } if by == "b-waits"), "{:?}", chained.end);
    }
    assert!(!waiting.breaker().is_open());
    // alone it is its own fault
    for _ in 0..3 {
        run(&host, &[Arc::clone(&waiting)], &message(), &never_answering()).await;
    }
    assert!(waiting.breaker().is_open());
}

/// One that traps on every event: bounded by its own breaker, and nothing of it is seen by the other, neither in the
/// number of its calls nor in the instance that it keeps.
#[tokio::test]
async fn a_trapping_hook_costs_another_nothing_but_its_own_calls() {
    let host = host();
    let trapping = failing(&host, TRAP, "raw", json!({"reuse": {"calls": 1000, "age": "1h"}})).await;
    let counting = crate::effects::counting_to(1000);
    let other = hook(&host, counting, json!({"name": "other", "reuse": {"calls": 1000, "age": "1h"}})).await;
    let mut called = 0;
    for n in 1..=100u64 {
        let chained = run(&host, &[Arc::clone(&trapping), Arc::clone(&other)], &message(), &at(1000 + n)).await;
        called += chained.records.iter().filter(|it| it.plugin == "failing" && it.outcome == "trap").count();
        let mine: Vec<_> = chained.records.iter().filter(|it| it.plugin == "other").collect();
        assert_eq!(mine.len(), 1, "called once, whatever the other does");
        // its one instance counts on: it was not thrown away with the other's
        assert_eq!(mine[0].note.as_deref(), Some(char::from(48 + (n % 10) as u8).to_string().as_str()), "{n}");
    }
    assert!(called <= 6, "then the breaker keeps it away: {called}");
    assert!(!other.breaker().is_open());
    assert_eq!(host.waiting_instances(), 1);
}

/// The places of one plugin are its own: when all of them hang, another finds the host free.
#[tokio::test]
async fn a_plugin_whose_calls_all_hang_holds_no_place_of_another() {
    let host = Host::start(HostConfig { calls: 6, calls_per_plugin: 4, ..HostConfig::default() }).unwrap();
    let more = json!({"name": "hanging", "grants": everything(), "limits": {"wall_ms": 10000}});
    let hanging = hook(&host, fetches("https://api.example/slow"), more).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (host, hanging) = (host.clone(), Arc::clone(&hanging));
        calls.push(tokio::spawn(async move { host.transform(&hanging, &message(), "{}", &never_answering()).await }));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let good = hook(&host, guest("", PASS), json!({"name": "good"})).await;
    for _ in 0..50 {
        assert_eq!(host.transform(&good, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
    }
    assert!(calls.iter().all(|call| !call.is_finished()), "the hanging ones still hang");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn failing(host: &Host, body: &str, policy: &str, more: Value) -> Arc<Hook> {
    let mut members = json!({"name": "failing", "on_error": policy, "order": 10});
    members.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hook(host, guest("", body), members).await
}

#[tokio::test]
async fn the_policy_decides_after_one_more_try() {
    let host = host();
    let good = hook(&host, saying(2, "{\"good\":1}"), json!({"name": "good"})).await;
    let raw = [failing(&host, TRAP, "raw", json!({})).await, Arc::clone(&good)];
    let chained = run(&host, &raw, &message(), &setting()).await;
    assert_eq!(words(&chained), vec!["failing:trap", "failing:trap", "good:replace"], "twice, then passed by");
    let End::Go(outcome) = chained.end else { panic!() };
    assert_eq!(outcome.failures, vec!["failing/trap"]);

    let dead = [failing(&host, TRAP, "dead", json!({})).await, Arc::clone(&good)];
    let chained = run(&host, &dead, &message(), &setting()).await;
    assert!(
        matches!(&chained.end, End::Dead { by, reason } if by == "failing" && reason.contains("trap")),
        "{:?}",
        chained.end
    );
    assert_eq!(chained.records.len(), 2, "the rest of the chain is not run");

    let drop_ = [failing(&host, REJECT, "drop", json!({})).await];
    let chained = run(&host, &drop_, &message(), &setting()).await;
    assert!(matches!(&chained.end, End::Dropped { by, .. } if by == "failing"));
    assert_eq!(words(&chained), vec!["failing:reject"], "a rejected event is not tried again");
}

#[tokio::test]
async fn a_hook_that_asks_for_time_gets_it_until_its_tries_are_over() {
    let host = host();
    let hooks = [failing(&host, RETRY, "dead", json!({})).await];
    let event = message();
    let mut tries = Tries::new();
    let mut waits = Vec::new();
    loop {
        let chained = host.run_transforms(for_event(&hooks, &event), &event, tries, &setting()).await;
        assert!(chained.effects.is_empty());
        match chained.end {
            End::Later { after, tries: so_far, .. } => {
                waits.push(after);
                tries = so_far;
            }
            End::Dead { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [1, 5, 30].map(Duration::from_secs));
}

/// What a chain comes to is one: hooks that answered in one of which nothing counts have no verdict in it.
#[tokio::test]
async fn a_chain_that_fails_undoes_the_hooks_before_it() {
    let host = host();
    let set = r#"(import "kero:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
    let write = "(call $set (i32.const 4096) (i32.const 3) (i32.const 4096) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 3072)) i32.const 0";
    let more = json!({"name": "writes", "order": 1, "grants": everything()});
    let writes = hook(&host, guest(&format!("{set} (data (i32.const 4096) \"key\")"), write), more).await;
    for (body, policy, counts, expected) in [
        (PASS, "dead", true, vec!["writes:pass", "failing:pass"]),
        (RETRY, "dead", false, vec!["writes:undone", "failing:retry"]),
        (REJECT, "dead", false, vec!["writes:undone", "failing:reject"]),
        (REJECT, "raw", true, vec!["writes:pass", "failing:reject"]),
        (REJECT, "drop", true, vec!["writes:pass", "failing:reject"]),
    ] {
        let hooks = [Arc::clone(&writes), failing(&host, body, policy, json!({})).await];
        let chained = run(&host, &hooks, &message(), &setting()).await;
        assert_eq!(words(&chained), expected, "{policy}");
        assert_eq!(chained.effects.kv.len(), usize::from(counts), "{policy}: {:?}", chained.end);
    }
}

#[tokio::test]
async fn an_open_breaker_holds_events_and_passes_raw_ones() {
    let host = host();
    for (policy, holds) in [("dead", true), ("drop", true), ("raw", false)] {
        let hooks = [failing(&host, TRAP, policy, json!({})).await];
        for _ in 0..3 {
            run(&host, &hooks, &message(), &at(1000)).await;
        }
        assert!(hooks[0].breaker().is_open());
        let chained = run(&host, &hooks, &message(), &at(2000)).await;
        assert_eq!(words(&chained), vec!["failing:suspended"], "not called");
        match chained.end {
            End::Held { until, .. } => assert!(holds && until > 2000),
            End::Go(outcome) => assert!(!holds && outcome.failures == ["failing/suspended"]),
            other => panic!("{other:?}"),
        }
        let probe = run(&host, &hooks, &message(), &at(40_000)).await;
        assert_eq!(probe.records[0].outcome, "trap", "probed after half a minute");
    }
}

#[tokio::test]
async fn an_ack_reaches_the_client_whatever_a_hook_does() {
    let host = host();
    let ack = event(EventKind::MessageAck, &json!({"status": "failed", "correlation_id": "c", "error": "no"}));
    let lie = saying(2, r#"{"status":"sent","correlation_id":"c","note":"kept"}"#);
    let hooks = [
        hook(&host, saying(1, "noise"), json!({"name": "dropper", "order": 1})).await,
        hook(&host, lie, json!({"name": "liar", "order": 2})).await,
        failing(&host, TRAP, "drop", json!({"order": 3})).await,
    ];
    let chained = run(&host, &hooks, &ack, &setting()).await;
    let End::Go(outcome) = &chained.end else { panic!("{:?}", chained.end) };
    let data: Value = serde_json::from_str(outcome.data.as_deref().unwrap()).unwrap();
    assert_eq!(data, json!({"status": "failed", "correlation_id": "c", "error": "no", "note": "kept"}));
    assert!(chained.records[0].note.as_deref().unwrap().contains("drop-ack"));

    // what one with the grant changed is not changed back on account of one without it
    let said = r#"{"status":"failed","correlation_id":"c","error":"changed"}"#;
    let may = json!({"name": "may", "order": 1, "grants": {"drop-ack": true}});
    let lie = saying(2, r#"{"status":"sent","correlation_id":"c","error":"changed","note":"kept"}"#);
    let hooks = [hook(&host, saying(2, said), may).await, hook(&host, lie, json!({"name": "liar", "order": 2})).await];
    let chained = run(&host, &hooks, &ack, &setting()).await;
    let End::Go(outcome) = &chained.end else { panic!("{:?}", chained.end) };
    let data: Value = serde_json::from_str(outcome.data.as_deref().unwrap()).unwrap();
    assert_eq!(data, json!({"status": "failed", "correlation_id": "c", "error": "changed", "note": "kept"}));

    let granted = hook(&host, saying(1, "noise"), json!({"name": "dropper", "grants": {"drop-ack": true}})).await;
    let chained = run(&host, &[granted], &ack, &setting()).await;
    assert!(matches!(chained.end, End::Dropped { .. }));
}
