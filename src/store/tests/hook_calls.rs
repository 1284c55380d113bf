//! The calls of hooks: listed in parts, pruned, deleted with their plugin.

use super::hooks::{call, chain, fan_out, version};
use super::{Fixture, event, on_both};
use crate::{FanOut, Hooked, NewHookCall, Verdict};
use kero_domain::{EventKind, Timestamp};
use sea_orm::EntityTrait;
use serde_json::json;
use std::time::Duration;

on_both!(
    calls_are_listed_and_pruned,
    parts_of_the_list_have_each_call_once,
    calls_go_with_their_plugin,
    chains_cost_one_statement
);

async fn calls_are_listed_and_pruned(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    for outcome in ["pass", "trap", "pass"] {
        let hooked = Hooked { chain: Some(chain(&[call("p", outcome), call("q", "drop")])), ..Hooked::default() };
        fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked).await;
    }
    let all = store.hook_calls("p", &[], None, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|it| it.outcome.as_str()).collect::<Vec<_>>(), ["pass", "trap", "pass"]);
    assert_eq!(all[0].detail.as_ref().unwrap()["note"], "why\u{fffd}");
    assert_eq!((all[0].ticks, all[0].wall, all[0].memory_peak), (1, Duration::from_micros(1500), 65_536));
    assert_eq!(all[0].instance_id, instance.id);
    let trapped = store.hook_calls("p", &["trap".to_owned(), "cpu".to_owned()], None, None, 10).await.unwrap();
    assert_eq!(trapped.len(), 1);
    assert_eq!(store.hook_calls("p", &[], Some(trapped[0].event), None, 10).await.unwrap().len(), 1);
    let rest = store.hook_calls("p", &[], None, Some(all[0].id), 1).await.unwrap();
    assert_eq!(rest[0].id, all[1].id);
    assert!(store.hook_calls("q", &["pass".to_owned()], None, None, 10).await.unwrap().is_empty(), "of another plugin");
    assert!(store.hook_calls("", &[], None, None, 10).await.unwrap().is_empty());
    let row = store.event_by_id(all[0].event).await.unwrap().unwrap().row;
    store.record_hook_calls(instance.pk, row, chain(&[call("p", "retry")])).await.unwrap();
    assert_eq!(store.hook_calls("p", &[], None, None, 1).await.unwrap()[0].outcome, "retry");
    assert_eq!(store.prune_hook_calls(Timestamp::now().before(Duration::from_secs(60))).await.unwrap(), 0);
    assert_eq!(store.prune_hook_calls(Timestamp::now().after(Duration::from_secs(60))).await.unwrap(), 4);
    assert!(store.hook_calls("p", &[], None, None, 10).await.unwrap().is_empty());
}

/// Read in parts that end in the middle of chains, with few sets and with more than are looked at one by one.
async fn parts_of_the_list_have_each_call_once(fixture: Fixture) {
    const WORDS: [&str; 8] = ["pass", "drop", "replace", "route", "trap", "cpu", "wall", "memory"];
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    store.append_events(instance.pk, epoch, vec![event(EventKind::Message, "x", "1")]).await.unwrap();
    let pending = store.pending_events(instance.pk, 1).await.unwrap();
    let (row, id) = (pending[0].row, pending[0].id);
    let mut expected = Vec::new();
    for n in 0..200 {
        let words = [WORDS[n % 3], WORDS[n % if n < 100 { 3 } else { 8 }], WORDS[n / 8 % 8]];
        let calls = [call("p", "trap"), call("q", words[0]), call("p", words[1]), call("p", words[2])];
        store.record_hook_calls(instance.pk, row, chain(&calls)).await.unwrap();
        expected.extend(["trap", words[1], words[2]]);
        if n == 99 || n == 199 {
            let newest_first: Vec<&str> = expected.iter().rev().copied().collect();
            for event in [None, Some(id)] {
                assert_eq!(outcomes(store, &[], event).await, newest_first);
                let some = ["cpu".to_owned(), "trap".to_owned()];
                let wanted: Vec<&str> =
                    newest_first.iter().filter(|it| some.iter().any(|w| w == *it)).copied().collect();
                assert_eq!(outcomes(store, &some, event).await, wanted);
            }
        }
    }
}

/// What the calls of `p` came to, read seven at a time.
async fn outcomes(store: &crate::Store, wanted: &[String], event: Option<kero_domain::EventId>) -> Vec<String> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let part = store.hook_calls("p", wanted, event, before, 7).await.unwrap();
        let Some(last) = part.last() else { return found };
        before = Some(last.id);
        found.extend(part.into_iter().map(|call| call.outcome));
    }
}

/// Others' calls of the same chains stay, and what they said.
async fn calls_go_with_their_plugin(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    store.add_plugin_version(version("p", "1")).await.unwrap();
    let said =
        |outcome: &'static str, note: &str| NewHookCall { detail: Some(json!({ "note": note })), ..call("q", outcome) };
    let chains = [
        vec![call("p", "trap"), call("p", "pass"), said("pass", "one"), call("pp", "pass")],
        vec![call("p", "drop")],
        vec![said("drop", "two"), call("p", "pass")],
        vec![said("pass", "three")],
    ];
    for calls in chains {
        let hooked = Hooked { chain: Some(chain(&calls)), ..Hooked::default() };
        fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked).await;
    }
    assert_eq!(store.hook_calls("p", &[], None, None, 10).await.unwrap().len(), 4);
    store.delete_plugin("p").await.unwrap();
    assert!(store.hook_calls("p", &[], None, None, 10).await.unwrap().is_empty());
    let rest = store.hook_calls("q", &[], None, None, 10).await.unwrap();
    let notes: Vec<&str> = rest.iter().map(|it| it.detail.as_ref().unwrap()["note"].as_str().unwrap()).collect();
    assert_eq!(notes, ["three", "two", "one"]);
    assert_eq!(store.hook_calls("pp", &[], None, None, 10).await.unwrap().len(), 1);
    let raw = fixture.raw().await;
    let chains = crate::entity::hook_chains::Entity::find();
    assert_eq!(sea_orm::PaginatorTrait::count(chains, &raw).await.unwrap(), 3, "a chain without calls is gone");
    raw.close().await.unwrap();
}

/// Ten hooks of ten events: one statement more than without hooks, once their set was seen.
async fn chains_cost_one_statement(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let calls: Vec<NewHookCall> = (0..10).map(|n| call(&format!("p{n}"), "pass")).collect();
    let fence = u64::from(store.backend() == crate::Database::Postgres);
    for seen in [false, true] {
        let events = (0..10).map(|n| event(EventKind::Message, "x", &n.to_string())).collect();
        store.append_events(instance.pk, epoch, events).await.unwrap();
        let item = |event: &crate::Event| FanOut {
            event_row: event.row,
            verdict: Verdict::Pass,
            data: None,
            deliveries: vec![],
            hooked: Some(Box::new(Hooked { chain: Some(chain(&calls)), ..Hooked::default() })),
        };
        let items = store.pending_events(instance.pk, 10).await.unwrap().iter().map(item).collect();
        let before = store.stats();
        store.fan_out(instance.pk, epoch, items).await.unwrap();
        let after = store.stats();
        if seen {
            // the events, their numbers, the update, the chains
            assert_eq!(after.statements - before.statements, 4 + fence);
            assert_eq!(after.commits - before.commits, 1);
        }
    }
    assert_eq!(store.hook_calls("p7", &[], None, None, 100).await.unwrap().len(), 20);
}
