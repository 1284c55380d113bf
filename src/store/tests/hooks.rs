//! Hooks: plugins, storage, calls, sends, and what a fan-out commits with them.

use super::{Fixture, event, new_job, on_both};
use crate::{
    Delivery, DeliveryOutcome, Endpoint, EndpointChange, FanOut, HookSend, Hooked, KvChange, KvWrite, NewDelivery,
    NewHookCall, NewHookChain, NewPluginVersion, PluginChange, Verdict, Wanting,
};
use kero_domain::endpoint::EventFilter;
use kero_domain::{CorrelationId, DeliveryId, EventKind, JobId, MessageId, Timestamp};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

on_both!(
    plugins_are_kept,
    storage_is_written_with_a_verdict,
    sends_are_made_once_and_within_their_quota,
    dead_events_come_back,
    requests_are_shaped_once,
    without_hooks_a_fan_out_costs_what_it_did
);

pub(super) fn version(name: &str, version: &str) -> NewPluginVersion {
    NewPluginVersion {
        plugin: name.to_owned(),
        version: version.to_owned(),
        hash: "aa".to_owned(),
        manifest: json!({ "name": name, "version": version }),
        report: json!({ "compile_ms": 1.5 }),
        artefact: b"\0asm".to_vec(),
    }
}

async fn plugins_are_kept(fixture: Fixture) {
    let store = &fixture.store;
    assert!(store.add_plugin_version(version("b", "1")).await.unwrap());
    assert!(!store.add_plugin_version(version("b", "1")).await.unwrap(), "a version never changes");
    assert!(store.add_plugin_version(version("b", "2")).await.unwrap());
    assert!(store.add_plugin_version(version("a", "1")).await.unwrap());
    let names: Vec<String> = store.plugins().await.unwrap().into_iter().map(|plugin| plugin.name).collect();
    assert_eq!(names, ["a", "b"]);
    let versions = store.plugin_versions("b").await.unwrap();
    assert_eq!(versions.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    assert_eq!(versions[0].bytes, 4);
    assert_eq!(store.plugin_version("b", "1").await.unwrap().unwrap().manifest["version"], "1");
    assert_eq!(store.plugin_artefact("b", "2").await.unwrap().unwrap(), b"\0asm");
    assert!(store.plugin_artefact("b", "3").await.unwrap().is_none());

    let fresh = store.plugin("b").await.unwrap().unwrap();
    assert!(fresh.active.is_none() && fresh.grants.is_none() && fresh.config.is_none() && !fresh.suspended);
    let change = PluginChange {
        active: Some(Some("2".to_owned())),
        previous: Some(Some("1".to_owned())),
        suspended: Some(true),
        grants: Some(json!({ "kv": 1024 })),
        config: Some(json!({ "token": "s3cret-token" })),
    };
    assert!(store.update_plugin("b", change).await.unwrap());
    assert!(!store.update_plugin("c", PluginChange::default()).await.unwrap());
    let plugin = store.plugin("b").await.unwrap().unwrap();
    assert_eq!((plugin.active.as_deref(), plugin.previous.as_deref()), (Some("2"), Some("1")));
    assert!(plugin.suspended);
    assert_eq!(plugin.grants, Some(json!({ "kv": 1024 })));
    assert_eq!(plugin.config, Some(json!({ "token": "s3cret-token" })));
    // settings are sealed
    let raw = fixture.raw().await;
    let sql = sea_orm::Statement::from_string(
        sea_orm::ConnectionTrait::get_database_backend(&raw),
        "SELECT config FROM plugins WHERE name = 'b'",
    );
    let row = sea_orm::ConnectionTrait::query_one_raw(&raw, sql).await.unwrap().unwrap();
    let sealed: Vec<u8> = row.try_get("", "config").unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("s3cret"));
    raw.close().await.unwrap();

    assert!(store.delete_plugin("b").await.unwrap() && !store.delete_plugin("b").await.unwrap());
    assert!(store.plugin_versions("b").await.unwrap().is_empty());
}

pub(super) fn call(plugin: &str, outcome: &'static str) -> NewHookCall {
    NewHookCall {
        plugin: plugin.to_owned(),
        version: "1".to_owned(),
        outcome,
        ticks: 1,
        wall: Duration::from_micros(1500),
        memory_peak: 65_536,
        detail: Some(json!({ "note": "why\0" })),
    }
}

pub(super) fn chain(calls: &[NewHookCall]) -> NewHookChain {
    NewHookChain { delivery: None, at: Timestamp::now(), calls: calls.to_vec() }
}

fn write(key: &str, change: KvChange) -> KvWrite {
    KvWrite { plugin: "p".to_owned(), key: key.to_owned(), change }
}

fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> KvWrite {
    write(key, KvChange::Set { value: value.to_vec(), ttl })
}

/// An event with what hooks left.
pub(super) async fn fan_out(
    fixture: &Fixture,
    pk: i64,
    epoch: i64,
    verdict: Verdict,
    hooked: Hooked,
) -> crate::FannedOut {
    fixture.store.append_events(pk, epoch, vec![event(EventKind::Message, "x", "t")]).await.unwrap();
    let row = fixture.store.pending_events(pk, 1).await.unwrap()[0].row;
    let item = FanOut { event_row: row, verdict, data: None, deliveries: vec![], hooked: Some(Box::new(hooked)) };
    let first = fixture.store.fan_out(pk, epoch, vec![item.clone()]).await.unwrap();
    // a second run, as after a commit whose answer was lost, leaves nothing
    let again = fixture.store.fan_out(pk, epoch, vec![item]).await.unwrap();
    assert!(again.jobs.is_empty() && again.over_quota.is_empty());
    first
}

async fn storage_is_written_with_a_verdict(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (other, _) = fixture.instance("b").await;
    let now = Timestamp::now();
    let get = async |key: &str, at| store.kv_get("p", instance.pk, key, at).await.unwrap();
    let hooked = |kv: Vec<KvWrite>| Hooked { kv, ..Hooked::default() };
    // nothing is stored for a plugin that is gone
    fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked(vec![set("k", b"v", None)])).await;
    assert_eq!(get("k", now).await, None);

    store.add_plugin_version(version("p", "1")).await.unwrap();
    let odd = "a\0|é";
    let writes = vec![
        set("k", b"v\0\xff", None),
        set(odd, b"odd", None),
        set("short", b"x", Some(Duration::from_secs(10))),
        write("n", KvChange::Add { by: 2, ttl: Some(Duration::from_secs(10)) }),
        write("n", KvChange::Add { by: 3, ttl: None }),
        set("gone", b"x", None),
        write("gone", KvChange::Delete),
        set("text", b"word", None),
        write("text", KvChange::Add { by: 1, ttl: None }),
    ];
    fan_out(&fixture, instance.pk, epoch, Verdict::Drop, hooked(writes)).await;
    assert_eq!(get("k", now).await.unwrap(), b"v\0\xff");
    assert_eq!(get(odd, now).await.unwrap(), b"odd");
    assert_eq!(get("n", now).await.unwrap(), b"5", "added once, though the commit was tried twice");
    assert_eq!(get("text", now).await.unwrap(), b"1", "what is no number counts as 0");
    assert_eq!(get("gone", now).await, None);
    let later = now.after(Duration::from_secs(60));
    assert!(get("short", now).await.is_some() && get("short", later).await.is_none());
    assert_eq!(get("n", later).await, None, "an addition without a time keeps the expiry");
    assert_eq!(store.kv_get("p", other.pk, "k", now).await.unwrap(), None, "an instance of its own");
    assert_eq!(store.kv_get("q", instance.pk, "k", now).await.unwrap(), None, "a plugin of its own");
    let used = store.kv_used("p", instance.pk, now).await.unwrap();
    assert_eq!(used, ("k".len() + 3 + odd.len() + 3 + "short".len() + 1 + "n".len() + 1 + "text".len() + 1) as u64);
    assert_eq!(store.prune_kv(later).await.unwrap(), 2);
    assert_eq!(store.kv_used("q", instance.pk, now).await.unwrap(), 0);
    assert!(store.delete_plugin("p").await.unwrap());
    assert_eq!(get("k", now).await, None);
}

fn send(instance: &crate::Instance, correlation: &str, chat: &str) -> HookSend {
    let job = crate::NewJob {
        id: JobId::new(),
        correlation_id: correlation.parse::<CorrelationId>().unwrap(),
        message_id: MessageId::mint(),
        created_at: Timestamp::now(),
        ..new_job(instance, chat, "hello")
    };
    HookSend { plugin: "p".to_owned(), job, per_minute: 2 }
}

async fn sends_are_made_once_and_within_their_quota(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let chat = "491701234567@s.whatsapp.net";
    let hooked = |sends: Vec<HookSend>| Hooked { sends, ..Hooked::default() };
    let first = send(&instance, "e1.p.1", chat);
    let done = fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked(vec![first.clone()])).await;
    assert_eq!(done.jobs.len(), 1);
    assert_eq!(done.jobs[0].message_id, first.job.message_id);
    // the same send of a repeated call, under another job id
    let done =
        fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked(vec![send(&instance, "e1.p.1", chat)])).await;
    assert!(done.jobs.is_empty());
    let more =
        vec![send(&instance, "e2.p.1", chat), send(&instance, "e2.p.2", chat), send(&instance, "e2.p.3", "1@lid")];
    let done = fan_out(&fixture, instance.pk, epoch, Verdict::Pass, hooked(more)).await;
    let made: Vec<&str> = done.jobs.iter().map(|job| job.correlation_id.as_str()).collect();
    assert_eq!(made, ["e2.p.1", "e2.p.3"], "two a minute and chat");
    assert_eq!(done.over_quota, ["p"]);
    let minute = Timestamp::now().before(Duration::from_secs(60));
    assert_eq!(store.hook_sends_since("p", instance.pk, chat, minute).await.unwrap(), 2);
    assert_eq!(store.hook_sends_since("q", instance.pk, chat, minute).await.unwrap(), 0);
    let ids = [first.job.message_id.as_str().to_owned(), "3EB0NOBODY".to_owned()];
    let senders = store.hook_senders(instance.pk, &ids).await.unwrap();
    assert_eq!(senders.get(&ids[0]).map(String::as_str), Some("p"));
    assert_eq!(senders.len(), 1);
}

async fn endpoint(fixture: &Fixture, pk: i64) -> Arc<Endpoint> {
    let url = Some("https://example.org/hook".to_owned());
    let change = EndpointChange { url, events: Some(EventFilter::All), ..EndpointChange::default() };
    Arc::new(fixture.store.create_endpoint(Some(pk), change, 100).await.unwrap())
}

/// The heads of the endpoint's lines that are due.
async fn due(fixture: &Fixture, to: &Arc<Endpoint>, at: i64) -> Vec<Delivery> {
    let to = [Wanting { endpoint: Arc::clone(to), room: 100 }];
    let claimed = fixture.store.claim_deliveries(&to, Timestamp(at), 100, 100, &HashSet::new()).await.unwrap();
    claimed.into_iter().flat_map(|claimed| claimed.run).collect()
}

async fn dead_events_come_back(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let to = endpoint(&fixture, instance.pk).await;
    store
        .append_events(
            instance.pk,
            epoch,
            vec![event(EventKind::Message, "x", "1"), event(EventKind::Message, "x", "2")],
        )
        .await
        .unwrap();
    let events = store.pending_events(instance.pk, 2).await.unwrap();
    let lines = store.pending_lines(instance.pk, 0, 10).await.unwrap();
    assert_eq!(lines, [(events[0].row, "x".to_owned()), (events[1].row, "x".to_owned())]);
    assert_eq!(store.pending_lines(instance.pk, events[0].row, 10).await.unwrap().len(), 1);
    assert_eq!(store.pending_events_of(instance.pk, &[events[1].row]).await.unwrap()[0].id, events[1].id);
    let item = |n: usize, verdict, hooked: Hooked| FanOut {
        event_row: events[n].row,
        verdict,
        data: None,
        deliveries: vec![NewDelivery { id: DeliveryId::new(), endpoint: to.id, next_at: Timestamp(5) }],
        hooked: Some(Box::new(hooked)),
    };
    let dead = item(0, Verdict::Dead, Hooked { chain: Some(chain(&[call("p", "trap")])), ..Hooked::default() });
    let known = dead.deliveries[0].id;
    let errors = Some("q/timeout".to_owned());
    let fine = item(1, Verdict::Pass, Hooked { errors: errors.clone(), ..Hooked::default() });
    let done = store.fan_out(instance.pk, epoch, vec![dead, fine]).await.unwrap();
    assert_eq!(done.numbers, [(events[1].row, 1)], "a dead event takes no number");
    let now = due(&fixture, &to, 9).await;
    assert_eq!(now.iter().map(|it| it.event.id).collect::<Vec<_>>(), [events[1].id], "the next in line is not held up");
    assert_eq!(now[0].event.hook_errors, errors);
    assert_eq!(now[0].event.verdict, Some(Verdict::Pass));
    assert_eq!(store.events_after(instance.pk, 0, 10).await.unwrap().len(), 1, "nor is it shown");

    assert!(store.replay_delivery(instance.pk, known).await.unwrap());
    let again = store.pending_events(instance.pk, 10).await.unwrap();
    assert_eq!(again.iter().map(|it| it.id).collect::<Vec<_>>(), [events[0].id]);
    let done = store.fan_out(instance.pk, epoch, vec![item(0, Verdict::Pass, Hooked::default())]).await.unwrap();
    assert_eq!(done.numbers, [(events[0].row, 2)]);
    let now = due(&fixture, &to, 9).await;
    assert!(now.iter().any(|it| it.id == known), "under the id that it was known by");
    assert_eq!(store.event_by_id(events[0].id).await.unwrap().unwrap().verdict, Some(Verdict::Pass));
}

async fn requests_are_shaped_once(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    store.add_plugin_version(version("p", "1")).await.unwrap();
    let to = endpoint(&fixture, instance.pk).await;
    store.append_events(instance.pk, epoch, vec![event(EventKind::Message, "x", "1")]).await.unwrap();
    let row = store.pending_events(instance.pk, 1).await.unwrap()[0].row;
    let delivery = NewDelivery { id: DeliveryId::new(), endpoint: to.id, next_at: Timestamp(5) };
    let item =
        FanOut { event_row: row, verdict: Verdict::Pass, data: None, deliveries: vec![delivery.clone()], hooked: None };
    store.fan_out(instance.pk, epoch, vec![item]).await.unwrap();
    let left = || Hooked {
        kv: vec![write("n", KvChange::Add { by: 1, ttl: None })],
        chain: Some(NewHookChain { delivery: Some(delivery.id), ..chain(&[call("p", "shaped")]) }),
        ..Hooked::default()
    };
    let shape = async |bytes: &[u8]| {
        store.shape_delivery(instance.pk, delivery.id, row, bytes.to_vec(), left()).await.unwrap().request
    };
    assert_eq!(shape(b"one").await, b"one");
    assert_eq!(shape(b"two").await, b"one", "all attempts send the same");
    let counted = async || store.kv_get("p", instance.pk, "n", Timestamp::now()).await.unwrap();
    assert_eq!(counted().await.unwrap(), b"1", "and the effects of shaping are there once");
    store.hold_delivery(instance.pk, delivery.id, Timestamp(50)).await.unwrap();
    assert!(due(&fixture, &to, 49).await.is_empty());
    let now = due(&fixture, &to, 50).await.remove(0);
    assert_eq!((now.attempts, now.request.as_deref()), (0, Some(&b"one"[..])), "held, without a try");

    let attempt = super::deliveries::attempt(1);
    let record = async || {
        store.record_judged_attempt(&now, attempt.clone(), DeliveryOutcome::Delivered, None, left()).await.unwrap()
    };
    record().await;
    record().await;
    assert_eq!(counted().await.unwrap(), b"2", "a judgement's effects are there once, too");
    let calls = store.hook_calls("p", &["shaped".to_owned()], None, None, 10).await.unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].delivery, Some(delivery.id));
}

/// The statements of a fan-out: the events, their numbers, the update, the deliveries and their heads; no more.
async fn without_hooks_a_fan_out_costs_what_it_did(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let to = endpoint(&fixture, instance.pk).await;
    let events = (0..10).map(|n| event(EventKind::Message, "x", &n.to_string())).collect();
    store.append_events(instance.pk, epoch, events).await.unwrap();
    let item = |event: &crate::Event| FanOut {
        event_row: event.row,
        verdict: Verdict::Pass,
        data: None,
        deliveries: vec![NewDelivery { id: DeliveryId::new(), endpoint: to.id, next_at: Timestamp(5) }],
        hooked: None,
    };
    let items = store.pending_events(instance.pk, 10).await.unwrap().iter().map(item).collect();
    let before = store.stats();
    store.fan_out(instance.pk, epoch, items).await.unwrap();
    let after = store.stats();
    // Postgres asks for the epoch each time
    let fence = u64::from(store.backend() == crate::Database::Postgres);
    assert_eq!(after.statements - before.statements, 5 + fence);
    assert_eq!((after.commits - before.commits, after.commands - before.commands), (1, 1));
}
