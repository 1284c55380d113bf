//! Events: append once, fan out densely, deliver in line.

use super::{Fixture, event, on_both};
use crate::{Attempt, DeliveryOutcome, FanOut, NewDelivery, NewEndpoint, Store, Trigger, Verdict};
use kero_domain::endpoint::EventFilter;
use kero_domain::{DeliveryId, EndpointId, EventKind, NewEvent, Timestamp};
use serde_json::json;

on_both!(appends_once, numbers_are_dense, deliveries_stand_in_line, text_that_databases_refuse);

fn message(chat: &str, n: usize) -> NewEvent {
    NewEvent { dedupe_key: Some(format!("m|{chat}|{n}")), ..event(EventKind::Message, chat, &n.to_string()) }
}

async fn appends_once(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (other, other_epoch) = fixture.instance("b").await;
    assert_eq!(store.append_events(instance.pk, epoch, vec![message("x", 1), message("x", 2)]).await.unwrap(), 2);
    assert_eq!(store.append_events(instance.pk, epoch, vec![message("x", 2), message("x", 3)]).await.unwrap(), 1);
    assert_eq!(store.append_events(other.pk, other_epoch, vec![message("x", 1)]).await.unwrap(), 1);
    assert_eq!(store.append_events(instance.pk, epoch, vec![]).await.unwrap(), 0);
    // without a key each is its own; the same event twice is one
    let bare = event(EventKind::Presence, "x", "on");
    assert_eq!(store.append_events(instance.pk, epoch, vec![bare.clone(), bare.clone()]).await.unwrap(), 1);
    assert_eq!(store.append_events(instance.pk, epoch, vec![event(EventKind::Presence, "x", "on")]).await.unwrap(), 1);

    let pending = store.pending_events(instance.pk, 10).await.unwrap();
    let texts: Vec<_> = pending.iter().map(|event| event.data["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["1", "2", "3", "on", "on"]);
    assert!(pending.is_sorted_by_key(|event| event.row) && pending.iter().all(|event| event.seq.is_none()));
    assert_eq!(store.instances_with_pending_events().await.unwrap(), [instance.pk, other.pk]);
    assert_eq!(store.event_by_id(bare.id).await.unwrap().unwrap().kind, EventKind::Presence);
}

async fn numbers_are_dense(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    store.append_events(instance.pk, epoch, (0..6).map(|n| message("x", n)).collect()).await.unwrap();
    let rows: Vec<i64> = store.pending_events(instance.pk, 10).await.unwrap().iter().map(|event| event.row).collect();
    let item = |row: i64, verdict, data| FanOut { event_row: row, verdict, data, deliveries: vec![], hooked: None };
    let first = vec![
        item(rows[0], Verdict::Pass, None),
        item(rows[1], Verdict::Drop, None),
        item(rows[2], Verdict::Replace, Some(json!({"text": "changed"}))),
    ];
    let numbers = store.fan_out(instance.pk, epoch, first.clone()).await.unwrap().numbers;
    assert_eq!(numbers, [(rows[0], 1), (rows[2], 2)]);
    // once more changes nothing
    assert_eq!(store.fan_out(instance.pk, epoch, first).await.unwrap().numbers, numbers);
    let rest = rows[3..].iter().map(|row| item(*row, Verdict::Pass, None)).collect();
    let rest = store.fan_out(instance.pk, epoch, rest).await.unwrap().numbers;
    assert_eq!(rest, [(rows[3], 3), (rows[4], 4), (rows[5], 5)]);

    let shown = store.events_after(instance.pk, 0, 10).await.unwrap();
    assert_eq!(shown.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=5).map(Some).collect::<Vec<_>>());
    assert_eq!(shown[1].data, json!({"text": "changed"}));
    assert_eq!(store.events_after(instance.pk, 3, 1).await.unwrap()[0].seq, Some(4));
    assert!(store.pending_events(instance.pk, 10).await.unwrap().is_empty());
    assert!(store.instances_with_pending_events().await.unwrap().is_empty());
    assert!(store.fan_out(instance.pk, epoch, vec![]).await.unwrap().numbers.is_empty());
}

async fn endpoint(store: &Store, pk: i64, enabled: bool) -> EndpointId {
    let webhook =
        NewEndpoint { url: "https://example.org/".to_owned(), events: EventFilter::All, secret: None, enabled };
    store.put_webhook(pk, webhook).await.unwrap().id
}

pub(super) fn attempt(n: u32) -> Attempt {
    Attempt {
        n,
        at: Timestamp::now(),
        trigger: Trigger::Event,
        http_status: Some(200),
        error: None,
        dns_ms: None,
        connect_ms: Some(3),
        first_byte_ms: Some(4),
        total_ms: 5,
        response_head: None,
        next_at: None,
    }
}

async fn deliveries_stand_in_line(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let to = endpoint(store, instance.pk, true).await;
    assert_eq!(store.endpoints_for(instance.pk).await.unwrap().len(), 1);
    let chats = ["x", "x", "y", "x", "y"];
    let events = chats.iter().enumerate().map(|(n, chat)| message(chat, n)).collect();
    store.append_events(instance.pk, epoch, events).await.unwrap();
    // two transactions: what is fanned out later stands behind what is there
    let pending = store.pending_events(instance.pk, 10).await.unwrap();
    for part in [&pending[..2], &pending[2..]] {
        let delivery = || NewDelivery { id: DeliveryId::new(), endpoint: to, next_at: Timestamp(10) };
        let item = |event: &crate::Event| FanOut {
            event_row: event.row,
            verdict: Verdict::Pass,
            data: None,
            deliveries: vec![delivery()],
            hooked: None,
        };
        store.fan_out(instance.pk, epoch, part.iter().map(item).collect()).await.unwrap();
    }
    let due = async |at| {
        let due = store.due_deliveries(Timestamp(at), 10).await.unwrap();
        due.into_iter()
            .map(|delivery| (delivery.event.data["text"].as_str().unwrap().to_owned(), delivery))
            .collect::<Vec<_>>()
    };
    let names = |due: &[(String, crate::Delivery)]| due.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(store.next_due_delivery().await.unwrap(), Some(Timestamp(10)));
    assert!(due(9).await.is_empty());
    let now = due(10).await;
    assert_eq!(names(&now), ["0", "2"], "the heads of the lines");
    assert_eq!((now[0].1.endpoint.id, now[0].1.event.seq), (to, Some(1)));

    let retry = DeliveryOutcome::Retry { next_at: Timestamp(50) };
    store.record_attempt(now[0].1.id, attempt(1), retry).await.unwrap();
    store.record_attempt(now[1].1.id, attempt(1), DeliveryOutcome::Delivered).await.unwrap();
    assert_eq!(names(&due(10).await), ["4"], "a retry holds its own line only");
    assert_eq!(names(&due(50).await), ["4", "0"]);
    store.record_attempt(now[0].1.id, attempt(2), DeliveryOutcome::Dead).await.unwrap();
    assert_eq!(names(&due(10).await), ["1", "4"], "after a dead one its line goes on");
    // what has ended stays so
    store.record_attempt(now[0].1.id, attempt(3), DeliveryOutcome::Delivered).await.unwrap();
    assert_eq!(store.attempts(now[0].1.id).await.unwrap().len(), 2);
    store.record_attempt(DeliveryId::new(), attempt(1), DeliveryOutcome::Dead).await.unwrap();
    for (_, delivery) in due(10).await {
        store.record_attempt(delivery.id, attempt(1), DeliveryOutcome::Delivered).await.unwrap();
    }
    assert_eq!(names(&due(10).await), ["3"]);

    endpoint(store, instance.pk, false).await;
    assert!(due(100).await.is_empty(), "disabled: they wait");
    assert_eq!(store.next_due_delivery().await.unwrap(), None);
    endpoint(store, instance.pk, true).await;
    assert_eq!(names(&due(100).await), ["3"]);
    store.delete_webhook(instance.pk).await.unwrap();
    assert!(due(100).await.is_empty());
}

async fn text_that_databases_refuse(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let nul = NewEvent {
        message_id: Some("id\0".to_owned()),
        dedupe_key: Some("m|\0".to_owned()),
        ..event(EventKind::Message, "x\0", "a\0b 😀 \u{202e}")
    };
    assert_eq!(store.append_events(instance.pk, epoch, vec![nul]).await.unwrap(), 1);
    let read = store.pending_events(instance.pk, 1).await.unwrap().remove(0);
    assert_eq!((read.order_key.as_str(), read.message_id.as_deref()), ("x\u{fffd}", Some("id\u{fffd}")));
    assert_eq!(read.data, json!({"text": "a\u{fffd}b 😀 \u{202e}"}));
}
