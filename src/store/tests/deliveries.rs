//! Deliveries: lines by order, urgent ones first, tries recorded together, replays, what was missed.

use super::{Fixture, event, hold_writer, on_both};
use crate::{
    Attempt, Claimed, DeliveryFilter, DeliveryOutcome, Endpoint, EndpointChange, Event, FanOut, Instance, Line,
    NewDelivery, Replay, Store, StoreError, Trigger, Verdict, Wanting,
};
use kero_domain::endpoint::{DisabledReason, EventFilter, Order};
use kero_domain::{DeliveryId, DeliveryState, EventKind, NewEvent, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

on_both!(
    chats_stand_in_line,
    orders_make_lines,
    urgent_ones_go_first,
    a_group_costs_as_many_statements_as_one,
    replays_keep_the_order,
    what_was_missed_comes_at_last,
    the_log_is_searched,
    endpoints_are_changed_and_limited,
    secrets_rotate,
    disabling_tells_and_keeps,
);

fn message(chat: &str, n: usize) -> NewEvent {
    NewEvent {
        dedupe_key: Some(format!("m|{chat}|{n}")),
        message_id: Some(format!("id{n}")),
        at: Timestamp(1_000 + n as i64),
        ..event(EventKind::Message, chat, &n.to_string())
    }
}

fn change(url: &str) -> EndpointChange {
    EndpointChange { url: Some(url.to_owned()), events: Some(EventFilter::All), ..EndpointChange::default() }
}

async fn endpoint(store: &Store, pk: i64, order: Order) -> Arc<Endpoint> {
    let change = EndpointChange { order: Some(order), ..change("https://example.org/") };
    Arc::new(store.create_endpoint(Some(pk), change, 100).await.unwrap())
}

/// Appends events and fans them out to the endpoint, due at 10; the rows.
async fn fan_out(
    store: &Store,
    instance: &Instance,
    epoch: i64,
    to: &[&Endpoint],
    events: Vec<NewEvent>,
) -> Vec<Event> {
    store.append_events(instance.pk, epoch, events).await.unwrap();
    let pending = store.pending_events(instance.pk, 1000).await.unwrap();
    let items = pending.iter().map(|event| FanOut {
        event_row: event.row,
        verdict: Verdict::Pass,
        data: None,
        deliveries: to
            .iter()
            .map(|to| NewDelivery { id: DeliveryId::new(), endpoint: to.id, next_at: Timestamp(10) })
            .collect(),
        hooked: None,
    });
    store.fan_out(instance.pk, epoch, items.collect()).await.unwrap();
    pending
}

async fn due(store: &Store, to: &Arc<Endpoint>, at: i64) -> Vec<Claimed> {
    claim(store, to, at, (100, 100), &HashSet::new()).await
}

async fn claim(store: &Store, to: &Arc<Endpoint>, at: i64, most: (u64, u64), busy: &HashSet<Line>) -> Vec<Claimed> {
    let to = [Wanting { endpoint: Arc::clone(to), room: 100 }];
    store.claim_deliveries(&to, Timestamp(at), most.0, most.1, busy).await.unwrap()
}

/// The texts of each line that is due.
fn texts(claimed: &[Claimed]) -> Vec<Vec<String>> {
    let text = |delivery: &crate::Delivery| delivery.event.read().unwrap().data["text"].as_str().unwrap().to_owned();
    claimed.iter().map(|claimed| claimed.run.iter().map(text).collect()).collect()
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
        response_head: Some("ok".to_owned()),
        next_at: None,
    }
}

async fn record(store: &Store, pk: i64, delivery: &crate::Delivery, outcome: DeliveryOutcome) -> bool {
    store.record_attempt(pk, delivery.id, attempt(delivery.attempts + 1), outcome, None).await.unwrap()
}

const RETRY: DeliveryOutcome = DeliveryOutcome::Retry { next_at: Timestamp(50), counts: true };

async fn chats_stand_in_line(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let to = endpoint(store, pk, Order::Chat).await;
    let chats = ["x", "x", "y", "x", "y"];
    let events: Vec<_> = chats.iter().enumerate().map(|(n, chat)| message(chat, n)).collect();
    // two transactions: what is fanned out later stands behind what is there
    fan_out(store, &instance, epoch, &[&to], events[..2].to_vec()).await;
    fan_out(store, &instance, epoch, &[&to], events[2..].to_vec()).await;
    assert_eq!(store.due_endpoints().await.unwrap(), [(to.id, Timestamp(10))]);
    assert!(due(store, &to, 9).await.is_empty());
    let now = due(store, &to, 10).await;
    assert_eq!(texts(&now), [vec!["0", "1", "3"], vec!["2", "4"]]);
    assert_eq!((now[0].run[0].endpoint.id, now[0].run[0].event.seq), (to.id, Some(1)));
    let few = claim(store, &to, 10, (1, 2), &HashSet::new()).await;
    assert_eq!(texts(&few), [["0", "1"]]);
    let busy = HashSet::from([now[0].line.clone()]);
    let rest = claim(store, &to, 10, (9, 9), &busy).await;
    assert_eq!(texts(&rest), [vec![], vec!["2".to_owned(), "4".to_owned()]], "a busy line is named without its run");
    let narrow = [Wanting { endpoint: Arc::clone(&to), room: 1 }];
    let first = store.claim_deliveries(&narrow, Timestamp(10), 9, 9, &HashSet::new()).await.unwrap();
    assert_eq!(texts(&first), [vec!["0".to_owned(), "1".to_owned(), "3".to_owned()], vec![]], "and so is one too many");

    assert!(record(store, pk, &now[0].run[0], RETRY).await);
    assert!(record(store, pk, &now[1].run[0], DeliveryOutcome::Delivered).await);
    assert_eq!(texts(&due(store, &to, 10).await), [["4"]], "a retry holds its own line only");
    assert_eq!(texts(&due(store, &to, 50).await), [vec!["4"], vec!["0", "1", "3"]]);
    let again = due(store, &to, 50).await.remove(1).run.remove(0);
    assert_eq!((again.attempts, again.uncounted), (1, 0));
    let probe = DeliveryOutcome::Retry { next_at: Timestamp(50), counts: false };
    assert!(record(store, pk, &again, probe).await);
    let again = due(store, &to, 50).await.remove(1).run.remove(0);
    assert_eq!((again.attempts, again.uncounted), (2, 1), "a probe does not count");
    assert!(record(store, pk, &again, DeliveryOutcome::Dead).await);
    assert_eq!(texts(&due(store, &to, 10).await), [vec!["1", "3"], vec!["4"]], "after a dead one its line goes on");
    // what has ended stays so
    assert!(!record(store, pk, &again, DeliveryOutcome::Delivered).await);
    assert_eq!(store.attempts(again.id).await.unwrap().len(), 3);
    assert!(!store.record_attempt(pk, DeliveryId::new(), attempt(1), DeliveryOutcome::Dead, None).await.unwrap());

    let off = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    store.update_endpoint(Some(pk), to.id, off).await.unwrap();
    assert!(store.due_endpoints().await.unwrap().is_empty(), "disabled: they wait");
    assert_eq!(store.pending_deliveries().await.unwrap()[0].count, 3);
    assert!(store.delete_endpoint(Some(pk), to.id).await.unwrap());
    assert!(due(store, &to, 100).await.is_empty());
    // planned before it was deleted: left out, and the event is fanned out all the same
    fan_out(store, &instance, epoch, &[&to], vec![message("x", 9)]).await;
    assert!(store.pending_events(pk, 10).await.unwrap().is_empty());
    assert!(store.pending_deliveries().await.unwrap().is_empty());
}

async fn orders_make_lines(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let none = endpoint(store, pk, Order::None).await;
    let strict = endpoint(store, pk, Order::Strict).await;
    let events = ["x", "y", "x"].iter().enumerate().map(|(n, chat)| message(chat, n)).collect();
    fan_out(store, &instance, epoch, &[&none, &strict], events).await;
    assert_eq!(texts(&due(store, &none, 10).await), [["0"], ["1"], ["2"]], "nobody waits");
    assert_eq!(texts(&due(store, &strict, 10).await), [["0", "1", "2"]], "everybody waits");
    for (order, expected) in [
        (Order::Chat, vec![vec!["0", "2"], vec!["1"]]),
        (Order::None, vec![vec!["0"], vec!["1"], vec!["2"]]),
        (Order::Strict, vec![vec!["0", "1", "2"]]),
    ] {
        let change = EndpointChange { order: Some(order), ..EndpointChange::default() };
        store.update_endpoint(Some(pk), none.id, change).await.unwrap();
        assert_eq!(store.instances_waiting_for(none.id).await.unwrap(), [pk]);
        store.reline_deliveries(none.id, pk).await.unwrap();
        assert_eq!(texts(&due(store, &none, 10).await), expected, "{order}");
    }
    // a line by id is the same however it came about
    let change = EndpointChange { order: Some(Order::None), ..EndpointChange::default() };
    store.update_endpoint(Some(pk), none.id, change).await.unwrap();
    store.reline_deliveries(none.id, pk).await.unwrap();
    for claimed in due(store, &none, 10).await {
        assert_eq!(claimed.line.order_key, claimed.run[0].id.to_string());
        record(store, pk, &claimed.run[0], DeliveryOutcome::Delivered).await;
    }
    assert!(due(store, &none, 10).await.is_empty());
}

async fn urgent_ones_go_first(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let to = endpoint(store, instance.pk, Order::Chat).await;
    let mut events: Vec<_> = (0..20).map(|n| message(&format!("chat{n}"), n)).collect();
    events.push(NewEvent { message_id: None, ..event(EventKind::MessageAck, "other", "ack") });
    fan_out(store, &instance, epoch, &[&to], events).await;
    let first = claim(store, &to, 10, (2, 1), &HashSet::new()).await;
    assert_eq!(texts(&first), [["ack"], ["0"]]);
}

async fn a_group_costs_as_many_statements_as_one(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let to = endpoint(store, instance.pk, Order::Chat).await;
    let events = (0..60).map(|n| message(&format!("chat{}", n % 20), n)).collect();
    fan_out(store, &instance, epoch, &[&to], events).await;
    let before = store.stats();
    let claimed = due(store, &to, 10).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.run.len()).sum::<usize>(), 60);
    assert_eq!(store.stats().statements - before.statements, 2, "one look for heads, one for lines");
    let before = store.stats();
    let runs: Vec<crate::Delivery> = claimed.into_iter().flat_map(|claimed| claimed.run).collect();
    let spawn = |delivery: &crate::Delivery| {
        let store = store.clone();
        let (pk, delivery) = (instance.pk, delivery.clone());
        tokio::spawn(async move { record(&store, pk, &delivery, DeliveryOutcome::Delivered).await })
    };
    let writer = hold_writer(store, instance.pk).await;
    let records = runs.iter().map(spawn).collect::<Vec<_>>();
    writer.let_go().await;
    for recorded in records {
        assert!(recorded.await.unwrap());
    }
    let (commits, statements) = (store.stats().commits - before.commits, store.stats().statements - before.statements);
    assert!(commits <= 8, "{commits} commits for 60 tries");
    // begin and settings aside: three for each group, whatever its size
    assert!(statements <= 4 * commits, "{statements} statements in {commits} commits");
    assert!(due(store, &to, 10).await.is_empty());
    // a group in which some had ended already, and one is not there: each is answered for itself
    fan_out(store, &instance, epoch, &[&to], (60..70).map(|n| message("chat0", n)).collect()).await;
    let fresh = due(store, &to, 10).await.remove(0).run;
    let missing = crate::Delivery { id: DeliveryId::new(), ..runs[0].clone() };
    // in turns, so that whatever meets in a group is of both sorts
    let ended = runs[..5].iter().chain([&missing]);
    let mixed = ended.zip(&fresh).flat_map(|(ended, fresh)| [(ended, false), (fresh, true)]);
    let mixed: Vec<_> =
        mixed.chain(fresh[6..].iter().map(|fresh| (fresh, true))).map(|(it, is)| (spawn(it), is)).collect();
    for (recorded, expected) in mixed {
        assert_eq!(recorded.await.unwrap(), expected);
    }
    assert_eq!(store.attempts(runs[0].id).await.unwrap().len(), 1);
    assert!(due(store, &to, 10).await.is_empty());
}

async fn replays_keep_the_order(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let to = endpoint(store, pk, Order::Chat).await;
    fan_out(store, &instance, epoch, &[&to], (0..4).map(|n| message("x", n)).collect()).await;
    let run = due(store, &to, 10).await.remove(0).run;
    for delivery in &run[..3] {
        record(store, pk, delivery, DeliveryOutcome::Dead).await;
    }
    assert_eq!(texts(&due(store, &to, 10).await), [["3"]]);
    let replay = |since: i64, until: i64, events: Vec<EventKind>| Replay {
        endpoint: to.id,
        instance_pk: pk,
        since: Timestamp(since),
        until: Timestamp(until),
        events,
    };
    let later = Timestamp::now().0 + 1000;
    assert_eq!(store.replay_dead(&replay(0, 9_999, vec![EventKind::Receipt])).await.unwrap(), 0);
    assert_eq!(store.replay_dead(&replay(1_001, 1_002, vec![EventKind::Message])).await.unwrap(), 1);
    assert_eq!(texts(&due(store, &to, later).await), [["1", "3"]], "before what stood there, in the journal's order");
    assert_eq!(store.replay_dead(&replay(0, 9_999, vec![])).await.unwrap(), 2, "those that are dead");
    let again = due(store, &to, later).await.remove(0).run;
    assert_eq!(again[0].event.read().unwrap().data["text"], "0");
    assert_eq!((again[0].attempts, again[0].uncounted, again[0].trigger), (1, 1, Trigger::Manual));
    for delivery in &again {
        record(store, pk, delivery, DeliveryOutcome::Delivered).await;
    }
    assert!(due(store, &to, later).await.is_empty());
    // by id, even one that was delivered
    assert!(store.replay_delivery(pk, again[2].id).await.unwrap());
    assert!(!store.replay_delivery(pk, DeliveryId::new()).await.unwrap());
    assert!(!store.replay_delivery(pk + 1, again[2].id).await.unwrap(), "another instance's");
    let once_more = due(store, &to, Timestamp::now().0 + 1000).await;
    assert_eq!(texts(&once_more), [["2"]]);
    assert_eq!(once_more[0].run[0].event.id, again[2].event.id, "the same webhook-id");
}

async fn what_was_missed_comes_at_last(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let to = endpoint(store, pk, Order::Chat).await;
    fan_out(store, &instance, epoch, &[], (0..3).map(|n| message("x", n)).collect()).await;
    fan_out(store, &instance, epoch, &[&to], vec![message("x", 3)]).await;
    let replay =
        Replay { endpoint: to.id, instance_pk: pk, since: Timestamp(0), until: Timestamp(1_002), events: vec![] };
    let missed = store.missed_events(&replay, 0, 10).await.unwrap();
    assert_eq!(missed.iter().map(|event| event.data["text"].as_str().unwrap()).collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(store.missed_events(&replay, missed[0].row, 10).await.unwrap().len(), 1);
    assert_eq!(store.deliver_late(to.id, pk, &missed).await.unwrap(), 2);
    assert_eq!(store.deliver_late(to.id, pk, &missed).await.unwrap(), 0, "once");
    assert!(store.missed_events(&replay, 0, 10).await.unwrap().is_empty());
    let later = Timestamp::now().0 + 1000;
    assert_eq!(texts(&due(store, &to, later).await), [["0", "1", "3"]], "in the journal's order");
}

async fn the_log_is_searched(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (other, other_epoch) = fixture.instance("b").await;
    let pk = instance.pk;
    let (one, two) = (endpoint(store, pk, Order::Chat).await, endpoint(store, pk, Order::Chat).await);
    let elsewhere = endpoint(store, other.pk, Order::Chat).await;
    fan_out(store, &other, other_epoch, &[&elsewhere], vec![message("x", 0)]).await;
    let mut events: Vec<_> = (0..3).map(|n| message("x", n)).collect();
    events.push(event(EventKind::Receipt, "x", "r"));
    fan_out(store, &instance, epoch, &[&one, &two], events).await;
    let run = due(store, &one, 10).await.remove(0).run;
    record(store, pk, &run[0], DeliveryOutcome::Delivered).await;
    record(store, pk, &run[1], DeliveryOutcome::Dead).await;
    let find = async |filter: DeliveryFilter| store.deliveries_page(pk, &filter, None, 100).await.unwrap();
    let all = find(DeliveryFilter::default()).await;
    assert_eq!(all.len(), 8);
    assert!(all.windows(2).all(|pair| pair[0].id.0 > pair[1].id.0), "newest first");
    let page = store.deliveries_page(pk, &DeliveryFilter::default(), Some(all[2].id), 3).await.unwrap();
    assert_eq!(page, all[3..6]);
    let of_one = find(DeliveryFilter { endpoint: Some(one.id), ..DeliveryFilter::default() }).await;
    assert_eq!(of_one.len(), 4);
    let states = vec![DeliveryState::Dead, DeliveryState::Delivered];
    let ended = find(DeliveryFilter { states, ..DeliveryFilter::default() }).await;
    assert_eq!(
        ended.iter().map(|line| line.message_id.as_deref().unwrap()).collect::<HashSet<_>>(),
        ["id0", "id1"].into()
    );
    let by_message = DeliveryFilter { message_id: Some("id2".to_owned()), ..DeliveryFilter::default() };
    assert_eq!(find(by_message).await.len(), 2);
    let receipts = DeliveryFilter { event: Some(EventKind::Receipt), ..DeliveryFilter::default() };
    assert!(find(receipts).await.iter().all(|line| line.kind == EventKind::Receipt && line.seq == Some(4)));
    let line = store.delivery_line(pk, run[0].id).await.unwrap().unwrap();
    assert_eq!((line.state, line.attempts, line.event), (DeliveryState::Delivered, 1, run[0].event.id));
    assert!(store.delivery_line(other.pk, run[0].id).await.unwrap().is_none());
}

async fn endpoints_are_changed_and_limited(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, _) = fixture.instance("a").await;
    let pk = Some(instance.pk);
    let full = EndpointChange {
        headers: Some(vec![("X-Token".to_owned(), SecretString::from("hidden"))]),
        secret: Some(Some(SecretString::from("s3cret"))),
        signing_key: Some(Some(SecretString::from("whsk_x"))),
        rate_limit: Some(Some(5)),
        timeout: Some(Some(Duration::from_secs(3))),
        schedule: Some(Some(vec![Duration::from_secs(1), Duration::from_secs(60)])),
        order: Some(Order::Strict),
        include_raw: Some(true),
        ..change("https://example.org/1")
    };
    let made = store.create_endpoint(pk, full, 2).await.unwrap();
    assert_eq!((made.headers[0].0.as_str(), made.headers[0].1.expose_secret()), ("X-Token", "hidden"));
    assert_eq!(made.schedule.as_ref().unwrap().len(), 2);
    let patch = EndpointChange { rate_limit: Some(None), timeout: Some(None), ..EndpointChange::default() };
    let changed = store.update_endpoint(pk, made.id, patch).await.unwrap();
    assert_eq!((changed.rate_limit, changed.timeout, changed.order), (None, None, Order::Strict));
    assert_eq!((changed.secret_text(), changed.url.as_str()), (Some("s3cret"), "https://example.org/1"));
    let read = store.endpoint(pk, made.id).await.unwrap().unwrap();
    assert!(made.include_raw && changed.include_raw && read.include_raw, "it stays as it was");
    assert_eq!((read.signing_key.unwrap().expose_secret(), read.events), ("whsk_x", EventFilter::All));
    store.create_endpoint(pk, change("https://example.org/2"), 2).await.unwrap();
    let third = store.create_endpoint(pk, change("https://example.org/3"), 2).await;
    assert!(matches!(third, Err(StoreError::Conflict("endpoints"))), "{third:?}");
    assert_eq!(store.webhook(instance.pk).await.unwrap().unwrap().id, made.id, "the first one is the webhook");
    let global = store.create_endpoint(None, change("https://example.org/g"), 2).await.unwrap();
    assert_eq!(store.endpoints_of(None).await.unwrap().len(), 1);
    assert_eq!(store.endpoints_for(instance.pk).await.unwrap().len(), 3);
    for (owner, id) in [(None, made.id), (pk, global.id), (Some(instance.pk + 1), made.id)] {
        assert!(store.endpoint(owner, id).await.unwrap().is_none());
        let missing = store.update_endpoint(owner, id, EndpointChange::default()).await;
        assert!(matches!(missing, Err(StoreError::NotFound)));
        assert!(!store.delete_endpoint(owner, id).await.unwrap());
    }
    assert!(matches!(store.create_endpoint(Some(9_999), change("x"), 9).await, Err(StoreError::NotFound)));
    assert!(store.delete_endpoint(None, global.id).await.unwrap());
}

async fn secrets_rotate(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, _) = fixture.instance("a").await;
    let pk = Some(instance.pk);
    let first = EndpointChange { secret: Some(Some(SecretString::from("one"))), ..change("https://example.org/") };
    let id = store.create_endpoint(pk, first, 9).await.unwrap().id;
    let now = Timestamp::now();
    let rotate = async |secret: &str, until: Timestamp| {
        store.rotate_secret(pk, id, SecretString::from(secret), until, 2).await.unwrap()
    };
    let hour = now.after(Duration::from_secs(3600));
    let day = now.after(Duration::from_secs(86_400));
    let endpoint = rotate("two", hour).await;
    assert_eq!(endpoint.secrets(now), ["two", "one"]);
    let endpoint = rotate("three", day).await;
    assert_eq!(endpoint.secrets(now), ["three", "two", "one"]);
    assert_eq!(endpoint.secrets(hour), ["three", "two"], "each has its own end");
    assert_eq!(endpoint.secrets(day), ["three"]);
    assert_eq!(rotate("four", day).await.secrets(now), ["four", "three", "two"], "not more than allowed");
    assert_eq!(rotate("five", now).await.secrets(now), ["five"], "no overlap ends all others");
}

async fn disabling_tells_and_keeps(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let pk = instance.pk;
    let to = endpoint(store, pk, Order::Chat).await;
    fan_out(store, &instance, epoch, &[&to], vec![message("x", 0)]).await;
    let at = Timestamp(77);
    store.set_failing_since(pk, to.id, Some(Timestamp(5))).await.unwrap();
    assert_eq!(store.endpoint(Some(pk), to.id).await.unwrap().unwrap().failing_since, Some(Timestamp(5)));
    let told = || event(EventKind::Endpoint, "", "disabled");
    assert!(store.disable_endpoint(to.id, DisabledReason::Gone, at, pk, told()).await.unwrap());
    assert!(!store.disable_endpoint(to.id, DisabledReason::Failing, at, pk, told()).await.unwrap(), "once");
    let events = store.pending_events(pk, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Endpoint]);
    let found = store.endpoint(Some(pk), to.id).await.unwrap().unwrap();
    assert_eq!((found.enabled, found.disabled), (false, Some((DisabledReason::Gone, at))));
    assert_eq!(store.pending_deliveries().await.unwrap()[0].count, 1, "the backlog is kept");
    let on = EndpointChange { enabled: Some(true), ..EndpointChange::default() };
    let found = store.update_endpoint(Some(pk), to.id, on).await.unwrap();
    assert_eq!((found.enabled, found.disabled, found.failing_since), (true, None, None));
    assert_eq!(texts(&due(store, &to, 10).await), [["0"]]);
    let _: &Line = &due(store, &to, 10).await[0].line;
}
