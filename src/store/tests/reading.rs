//! Reading the journal: in order, by kind, with what was pruned told.

use super::{Fixture, event, on_both};
use crate::{FanOut, NewEndpoint, Verdict};
use kero_domain::endpoint::EventFilter;
use kero_domain::{EventKind, NewEvent};
use sea_orm::ConnectionTrait;
use serde_json::json;

on_both!(reads_in_order_and_tells_of_holes, keeps_the_message_as_it_came, looks_up_many_webhooks_at_once);

async fn numbers(fixture: &Fixture, pk: i64, after: Option<i64>, kinds: Option<&[EventKind]>) -> (Vec<i64>, i64) {
    let reading = fixture.store.read_journal(pk, after, kinds, 3).await.unwrap();
    (reading.events.iter().map(|event| event.seq.unwrap()).collect(), reading.through)
}

async fn fan_out(fixture: &Fixture, pk: i64, epoch: i64, verdict: Verdict, data: Option<serde_json::Value>) {
    let pending = fixture.store.pending_events(pk, 100).await.unwrap();
    let item = |event: &crate::Event| FanOut {
        event_row: event.row,
        verdict,
        data: data.clone(),
        deliveries: Vec::new(),
        hooked: None,
    };
    fixture.store.fan_out(pk, epoch, pending.iter().map(item).collect()).await.unwrap();
}

async fn reads_in_order_and_tells_of_holes(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let empty = store.read_journal(pk, None, None, 10).await.unwrap();
    assert_eq!((empty.events.len(), empty.through, empty.newest, empty.gone), (0, 0, 0, None));
    let kinds = [EventKind::Message, EventKind::Call, EventKind::Message, EventKind::Message, EventKind::Call];
    store.append_events(pk, epoch, kinds.iter().map(|kind| event(*kind, "x", "")).collect()).await.unwrap();
    assert_eq!(store.read_journal(pk, Some(0), None, 10).await.unwrap().newest, 0, "not fanned out yet");
    fan_out(&fixture, pk, epoch, Verdict::Pass, None).await;

    assert_eq!(numbers(&fixture, pk, None, None).await, (vec![1, 2, 3], 3));
    assert_eq!(numbers(&fixture, pk, Some(3), None).await, (vec![4, 5], 5));
    assert_eq!(numbers(&fixture, pk, Some(5), None).await, (vec![], 5));
    assert_eq!(numbers(&fixture, pk, Some(0), Some(&[EventKind::Call])).await, (vec![2, 5], 5));
    assert_eq!(numbers(&fixture, pk, Some(0), Some(&[EventKind::Message])).await, (vec![1, 3, 4], 5));
    assert_eq!(numbers(&fixture, pk, Some(0), Some(&[EventKind::Label])).await, (vec![], 5));
    let one = store.read_journal(pk, Some(0), Some(&[EventKind::Call]), 1).await.unwrap();
    assert_eq!((one.events.len(), one.through), (1, 4), "the next read begins before the next one wanted");

    // the first two are pruned, and then one in the middle
    let raw = fixture.raw().await;
    raw.execute_unprepared("DELETE FROM events WHERE seq IN (1, 2)").await.unwrap();
    for after in [0, 1] {
        let gone = store.read_journal(pk, Some(after), None, 10).await.unwrap();
        assert_eq!((gone.gone, gone.events.len(), gone.through), (Some(3), 0, after));
    }
    assert_eq!(store.read_journal(pk, Some(2), None, 10).await.unwrap().gone, None);
    assert_eq!(numbers(&fixture, pk, None, None).await, (vec![3, 4, 5], 5), "from what is kept");
    raw.execute_unprepared("DELETE FROM events WHERE seq = 4").await.unwrap();
    assert_eq!(numbers(&fixture, pk, Some(2), None).await, (vec![3], 3), "it ends before the hole");
    assert_eq!(store.read_journal(pk, Some(3), Some(&[EventKind::Call]), 10).await.unwrap().gone, Some(5));
    raw.execute_unprepared("DELETE FROM events").await.unwrap();
    assert_eq!(store.read_journal(pk, Some(4), None, 10).await.unwrap().gone, Some(6));
    assert_eq!(store.read_journal(pk, Some(5), None, 10).await.unwrap().gone, None);
    assert_eq!(numbers(&fixture, pk, None, None).await, (vec![], 5));
    raw.close().await.unwrap();
    store.delete_instance(pk).await.unwrap();
    assert!(matches!(store.read_journal(pk, None, None, 1).await, Err(crate::StoreError::NotFound)));
}

async fn keeps_the_message_as_it_came(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let secret = b"the message as it came";
    let with_raw = || NewEvent { raw: Some(secret.to_vec()), ..event(EventKind::Message, "x", "") };
    let append = async |events| store.append_events(instance.pk, epoch, events).await.unwrap();
    append(vec![with_raw(), event(EventKind::Message, "x", "")]).await;
    fan_out(&fixture, instance.pk, epoch, Verdict::Pass, None).await;
    append(vec![with_raw()]).await;
    fan_out(&fixture, instance.pk, epoch, Verdict::Replace, Some(json!({"text": "***"}))).await;
    append(vec![with_raw()]).await;
    fan_out(&fixture, instance.pk, epoch, Verdict::Drop, None).await;

    let events = store.read_journal(instance.pk, None, None, 10).await.unwrap().events;
    let rows: Vec<i64> = events.iter().map(|event| event.row).chain([events[2].row + 1]).collect();
    let messages = store.raw_messages(instance.pk, &rows).await.unwrap();
    assert_eq!(messages.len(), 1, "not of one without, one changed by a hook, or one dropped by it");
    assert_eq!(messages[&events[0].row], secret);
    assert!(store.raw_messages(instance.pk + 1, &rows).await.unwrap().is_empty());
    assert!(store.raw_messages(instance.pk, &[]).await.unwrap().is_empty());
    let raw = fixture.raw().await;
    let sealed: Vec<u8> = raw
        .query_one_raw(sea_orm::Statement::from_string(
            raw.get_database_backend(),
            "SELECT raw FROM events WHERE raw IS NOT NULL",
        ))
        .await
        .unwrap()
        .unwrap()
        .try_get("", "raw")
        .unwrap();
    assert!(!sealed.windows(7).any(|part| part == b"message"), "sealed at rest");
    raw.close().await.unwrap();
}

async fn looks_up_many_webhooks_at_once(fixture: Fixture) {
    let store = &fixture.store;
    let mut pks = Vec::new();
    for n in 0..5 {
        let (instance, _) = fixture.instance(&format!("i{n}")).await;
        pks.push(instance.pk);
        if n != 3 {
            let url = format!("https://example.org/{n}");
            let webhook = NewEndpoint { url, events: EventFilter::All, secret: None, enabled: true };
            store.put_webhook(instance.pk, webhook).await.unwrap();
        }
    }
    let before = store.stats().statements;
    let urls = store.webhook_urls(&pks).await.unwrap();
    assert_eq!(store.stats().statements - before, 1);
    assert_eq!(urls.len(), 4);
    assert_eq!(urls[&pks[4]], "https://example.org/4");
    assert!(store.webhook_urls(&[]).await.unwrap().is_empty());
}
