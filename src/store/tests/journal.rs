//! Events: append once, fan out densely.

use super::{Fixture, event, on_both};
use crate::{Event, FanOut, Verdict};
use kero_domain::{EventKind, NewEvent, Timestamp};
use serde_json::json;

on_both!(appends_once, what_comes_is_what_is_read, numbers_are_dense, text_that_databases_refuse);

fn message(chat: &str, n: usize) -> NewEvent {
    NewEvent { dedupe_key: Some(format!("m|{chat}|{n}")), ..event(EventKind::Message, chat, &n.to_string()) }
}

async fn appends_once(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (other, other_epoch) = fixture.instance("b").await;
    assert_eq!(store.append_events(instance.pk, epoch, vec![message("x", 1), message("x", 2)]).await.unwrap().new, 2);
    assert_eq!(store.append_events(instance.pk, epoch, vec![message("x", 2), message("x", 3)]).await.unwrap().new, 1);
    assert_eq!(store.append_events(other.pk, other_epoch, vec![message("x", 1)]).await.unwrap().new, 1);
    assert_eq!(store.append_events(instance.pk, epoch, Vec::<NewEvent>::new()).await.unwrap().new, 0);
    // without a key each is its own; the same event twice is one
    let bare = event(EventKind::Presence, "x", "on");
    assert_eq!(store.append_events(instance.pk, epoch, vec![bare.clone(), bare.clone()]).await.unwrap().new, 1);
    assert_eq!(
        store.append_events(instance.pk, epoch, vec![event(EventKind::Presence, "x", "on")]).await.unwrap().new,
        1
    );

    let pending = store.pending_events(instance.pk, 10).await.unwrap();
    let texts: Vec<_> = pending.iter().map(|event| event.data["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["1", "2", "3", "on", "on"]);
    assert!(pending.is_sorted_by_key(|event| event.row) && pending.iter().all(|event| event.seq.is_none()));
    assert_eq!(store.instances_with_pending_events().await.unwrap(), [instance.pk, other.pk]);
    assert_eq!(store.event_by_id(bare.id).await.unwrap().unwrap().kind, EventKind::Presence);
}

/// Hooks are called for events as they come or as they are read: they see the same.
async fn what_comes_is_what_is_read(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let data = json!({
        "z": "first", "text": "nul \0 \u{1f600} \u{fffe} \\u0000", "a\0": { "deep": ["\0", 0.1, -1e-7, 52.520008, 1.0] },
        "big": u64::MAX, "small": i64::MIN, "none": null, "empty": {}
    });
    let new = NewEvent {
        message_id: Some("3EB0\0".to_owned()),
        request_id: Some("request".to_owned()),
        raw: Some(vec![0, 1]),
        ..NewEvent::new(EventKind::Message, "x\0@g.us", Timestamp(1_700_000_000_123), data)
    };
    let mut coming = Event::coming(instance.pk, &instance.id, &new);
    store.append_events(instance.pk, epoch, vec![new]).await.unwrap();
    let read = store.pending_events(instance.pk, 9).await.unwrap().remove(0);
    coming.row = read.row;
    assert_eq!(format!("{coming:?}"), format!("{read:?}"));
    assert_eq!(serde_json::to_string(&coming.data).unwrap(), serde_json::to_string(&read.data).unwrap());
    assert_eq!(store.pending_ids(instance.pk, 0, 9).await.unwrap(), [(read.row, read.id)]);
    assert!(store.pending_ids(instance.pk, read.row, 9).await.unwrap().is_empty());
    assert!(store.pending_ids(instance.pk, 0, 0).await.unwrap().is_empty());
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

async fn text_that_databases_refuse(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let nul = NewEvent {
        message_id: Some("id\0".to_owned()),
        dedupe_key: Some("m|\0".to_owned()),
        ..event(EventKind::Message, "x\0", "a\0b 😀 \u{202e}")
    };
    assert_eq!(store.append_events(instance.pk, epoch, vec![nul]).await.unwrap().new, 1);
    let read = store.pending_events(instance.pk, 1).await.unwrap().remove(0);
    assert_eq!((read.order_key.as_str(), read.message_id.as_deref()), ("x\u{fffd}", Some("id\u{fffd}")));
    assert_eq!(read.data, json!({"text": "a\u{fffd}b 😀 \u{202e}"}));
}
