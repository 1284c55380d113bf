//! Events that are fanned out by the commit that appends them.

use super::{Fixture, accept, event, new_job, on_both};
use crate::{
    DeliveryFilter, Endpoint, EndpointChange, Entry, FanOut, IntentOutcome, NewDelivery, Report, Settlement, Store,
    Verdict,
};
use kero_domain::endpoint::EventFilter;
use kero_domain::{DeliveryId, EventKind, JobState, NewEvent, Timestamp};

on_both!(
    numbered_at_once_and_densely,
    nothing_overtakes_what_waits,
    only_endpoints_that_are_there_get_deliveries,
    what_one_source_reports_keeps_its_order,
    a_group_of_sends_is_told_apart,
);

fn message(n: usize) -> NewEvent {
    NewEvent { dedupe_key: Some(format!("m|{n}")), ..event(EventKind::Message, "x", &n.to_string()) }
}

async fn endpoint(store: &Store, pk: i64) -> Endpoint {
    let (url, events) = (Some("https://example.org/".to_owned()), Some(EventFilter::All));
    store.create_endpoint(Some(pk), EndpointChange { url, events, ..EndpointChange::default() }, 100).await.unwrap()
}

/// An event that only `to` get.
fn to(event: NewEvent, to: &[&Endpoint]) -> Entry {
    let next_at = Timestamp(10);
    let deliveries = to.iter().map(|to| NewDelivery { id: DeliveryId::new(), endpoint: to.id, next_at });
    Entry { event, deliveries: Some(deliveries.collect()) }
}

async fn shown(store: &Store, pk: i64) -> Vec<(i64, String)> {
    let events = store.events_after(pk, 0, 100).await.unwrap();
    events.into_iter().map(|event| (event.seq.unwrap(), event.data["text"].as_str().unwrap().to_owned())).collect()
}

async fn delivered(store: &Store, pk: i64) -> usize {
    store.deliveries_page(pk, &DeliveryFilter::default(), None, 100).await.unwrap().len()
}

async fn numbered_at_once_and_densely(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let (b, epoch_b) = fixture.instance("b").await;
    let sink = endpoint(store, a.pk).await;
    let first = store.append_events(a.pk, epoch, vec![to(message(1), &[&sink]), to(message(2), &[])]).await.unwrap();
    assert_eq!((first.new, first.newest, first.wait), (2, Some(2), false));
    // one in the middle is known by its key, one by its id, and the numbers of the others close up
    let twice = message(5);
    let again: Vec<Entry> = [message(3), message(1), message(4), twice.clone(), twice, message(6)]
        .into_iter()
        .map(|event| to(event, &[&sink]))
        .collect();
    let more = store.append_events(a.pk, epoch, again).await.unwrap();
    assert_eq!((more.new, more.newest, more.wait), (4, Some(6), false));
    let last = store.append_events(a.pk, epoch, vec![to(message(7), &[])]).await.unwrap();
    assert_eq!((last.new, last.newest), (1, Some(7)));
    let expected: Vec<_> = (1..=7).map(|n| (n, n.to_string())).collect();
    assert_eq!(shown(store, a.pk).await, expected);
    assert_eq!(delivered(store, a.pk).await, 5, "one each of those that were new");
    let other = store.append_events(b.pk, epoch_b, vec![to(message(1), &[])]).await.unwrap();
    assert_eq!(other.newest, Some(1), "each instance counts for itself");
    assert!(store.instances_with_pending_events().await.unwrap().is_empty());
}

async fn nothing_overtakes_what_waits(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let sink = endpoint(store, instance.pk).await;
    let mixed = vec![to(message(1), &[&sink]), message(2).into()];
    let mixed = store.append_events(instance.pk, epoch, mixed).await.unwrap();
    assert_eq!((mixed.new, mixed.newest, mixed.wait), (2, None, true));
    let behind = store.append_events(instance.pk, epoch, vec![to(message(3), &[&sink])]).await.unwrap();
    assert_eq!((behind.new, behind.newest, behind.wait), (1, None, true));
    assert_eq!(delivered(store, instance.pk).await, 0, "their fan-out decides");
    let pending = store.pending_events(instance.pk, 10).await.unwrap();
    let pass = |row| FanOut { event_row: row, verdict: Verdict::Pass, data: None, deliveries: vec![], hooked: None };
    let items = pending.iter().map(|event| pass(event.row)).collect();
    store.fan_out(instance.pk, epoch, items).await.unwrap();
    let free = store.append_events(instance.pk, epoch, vec![to(message(4), &[&sink])]).await.unwrap();
    assert_eq!((free.newest, free.wait), (Some(4), false));
    assert_eq!(shown(store, instance.pk).await.len(), 4);
}

async fn only_endpoints_that_are_there_get_deliveries(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (stays, goes) = (endpoint(store, instance.pk).await, endpoint(store, instance.pk).await);
    store.delete_endpoint(Some(instance.pk), goes.id).await.unwrap();
    store.append_events(instance.pk, epoch, vec![to(message(1), &[&stays, &goes])]).await.unwrap();
    assert_eq!(delivered(store, instance.pk).await, 1);
}

/// Receipts and other events that were submitted one after the other, without waiting, and so meet in groups.
async fn what_one_source_reports_keeps_its_order(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let report = async |n: usize| {
        let (ids, entry) = (["none".to_owned()], to(message(n), &[]));
        let appended = match n % 3 {
            0 => store.append_events(instance.pk, epoch, vec![entry]).await,
            _ => store.record_receipt(instance.pk, epoch, &ids, "x", Some(JobState::Read), entry).await,
        };
        assert_eq!(appended.unwrap().new, 1);
    };
    for n in (0..60).step_by(6) {
        tokio::join!(
            biased;
            report(n), report(n + 1), report(n + 2), report(n + 3), report(n + 4), report(n + 5)
        );
    }
    let expected: Vec<_> = (0..60).map(|n| (n as i64 + 1, n.to_string())).collect();
    assert_eq!(shown(store, instance.pk).await, expected);
}

/// Intents and results that meet in one group, of jobs in all sorts of states.
async fn a_group_of_sends_is_told_apart(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let mut jobs = Vec::new();
    for n in 0u8..48 {
        let job = accept(store, new_job(&instance, &format!("{n}@s.whatsapp.net"), "x")).await;
        match n % 4 {
            // began before, with another protobuf
            1 => drop(store.intend_job(job.id, instance.pk, epoch, vec![n, 9], Timestamp::now()).await.unwrap()),
            2 => drop(store.cancel_job(job.id, "c", "e", None, Timestamp::now()).await.unwrap()),
            _ => {}
        }
        jobs.push((n, job));
    }
    let mut sends = tokio::task::JoinSet::new();
    for (n, job) in jobs {
        let store = store.clone();
        sends.spawn(async move {
            let intent = store.intend_job(job.id, instance.pk, epoch, vec![n, 0], Timestamp::now()).await.unwrap();
            let report = Report {
                entry: Entry { event: event(EventKind::MessageAck, "x", &n.to_string()), deliveries: Some(vec![]) },
                surely: n % 8 < 4,
            };
            let sent = Settlement::Sent { at: Timestamp::now() };
            let settled = store.settle_job(job.id, instance.pk, epoch, sent, Some(report)).await.unwrap();
            match n % 4 {
                1 => assert_eq!(intent, IntentOutcome::Started { attempt: 2, proto: vec![n, 9] }),
                2 => assert_eq!(intent, IntentOutcome::NotRunnable(JobState::Cancelled)),
                _ => assert_eq!(intent, IntentOutcome::Started { attempt: 1, proto: vec![n, 0] }),
            }
            assert_eq!(settled.applied, n % 4 != 2, "{n}");
            assert_eq!(settled.event.newest.is_some(), n % 4 != 2, "{n}");
        });
    }
    assert_eq!(sends.join_all().await.len(), 48);
    let numbers: Vec<i64> = shown(store, instance.pk).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(numbers, (1..=36).collect::<Vec<_>>());
}
