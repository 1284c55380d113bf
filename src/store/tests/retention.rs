//! What goes, what stays, and that it goes in parts.

use super::{Fixture, accept, event, new_job, on_both};
use crate::{DeliveryOutcome, FanOut, Idempotency, Job, Keep, NewDelivery, NewEndpoint, NewJob, Settlement, Verdict};
use kero_domain::endpoint::EventFilter;
use kero_domain::{ApiKeyId, DeliveryId, EventId, EventKind, HeldReason, JobId, JobState, NewEvent, Timestamp};
use std::time::Duration;
use uuid::{NoContext, Uuid};

on_both!(finished_jobs_go, events_go_when_everything_is_delivered, rates_hold_what_has_not_begun);

const CHAT: &str = "491701234567@s.whatsapp.net";
const DAY: u64 = 24 * 3600;

/// An id that was made `days` ago.
fn id(days: u64) -> Uuid {
    let now = u64::try_from(Timestamp::now().secs()).unwrap();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, now - days * DAY, 0))
}

fn days_ago(days: u64) -> Timestamp {
    Timestamp::now().before(Duration::from_secs(days * DAY))
}

fn older_than(days: u64) -> Keep {
    Keep { since: Some(days_ago(days)), newest: None }
}

async fn finished_jobs_go(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let (b, _) = fixture.instance("b").await;
    let send = async |days: u64, ended: Option<u64>, key: Option<Timestamp>| -> Job {
        let idempotency = key.map(|expires_at| Idempotency {
            api_key: ApiKeyId::new(),
            key: "k".to_owned(),
            body_hash: [1; 32],
            expires_at,
        });
        let job = NewJob { id: JobId(id(days)), idempotency, created_at: days_ago(days), ..new_job(&a, CHAT, "x") };
        let job = accept(store, job).await;
        if let Some(ended) = ended {
            let sent = Settlement::Sent { at: days_ago(ended) };
            store.settle_job(job.id, a.pk, epoch, sent, None).await.unwrap();
        }
        job
    };
    let soon = Timestamp::now().after(Duration::from_secs(60));
    let old = send(40, Some(40), None).await;
    let late = send(40, Some(1), None).await;
    let waiting = send(40, None, None).await;
    let keyed = send(40, Some(40), Some(soon)).await;
    let expired = send(40, Some(40), Some(Timestamp(1))).await;
    let young = send(2, Some(2), None).await;
    let foreign = accept(store, NewJob { id: JobId(id(40)), ..new_job(&b, CHAT, "x") }).await;

    let pruned = store.prune_jobs(a.pk, older_than(30), None).await.unwrap();
    assert_eq!((pruned.deleted, pruned.next), (2, None));
    let there = async |job: &Job| store.job_by_id(job.id).await.unwrap().is_some();
    for (job, stays) in [
        (&old, false),
        (&late, true),
        (&waiting, true),
        (&keyed, true),
        (&expired, false),
        (&young, true),
        (&foreign, true),
    ] {
        assert_eq!(there(job).await, stays, "{}", job.created_at.rfc3339());
    }
    assert_eq!(store.prune_idempotency(Timestamp::now()).await.unwrap(), 0, "its key went with it");
    // by number: the two newest stay, and whatever has not ended or is remembered
    let pruned = store.prune_jobs(a.pk, Keep { since: None, newest: Some(1) }, None).await.unwrap();
    assert_eq!(pruned.deleted, 1);
    assert!(!there(&late).await && there(&waiting).await && there(&keyed).await && there(&young).await);
    // more than one part
    for _ in 0..1_100 {
        send(35, Some(35), None).await;
    }
    let (mut after, mut parts, mut deleted) = (None, 0, 0);
    loop {
        let pruned = store.prune_jobs(a.pk, older_than(30), after).await.unwrap();
        (parts, deleted) = (parts + 1, deleted + pruned.deleted);
        after = pruned.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((parts, deleted), (3, 1_100));
}

async fn events_go_when_everything_is_delivered(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let endpoint = NewEndpoint {
        url: "https://example.org/".to_owned(),
        events: EventFilter::default(),
        secret: None,
        enabled: true,
    };
    let endpoint = store.put_webhook(a.pk, endpoint).await.unwrap();
    let add = async |days: u64, verdict: Option<Verdict>, delivered: Option<bool>| -> EventId {
        let new = NewEvent { id: EventId(id(days)), ..event(EventKind::Message, CHAT, "x") };
        let id = new.id;
        store.append_events(a.pk, epoch, vec![new]).await.unwrap();
        let Some(verdict) = verdict else { return id };
        let row = store.event_by_id(id).await.unwrap().unwrap().row;
        let delivery = DeliveryId::new();
        let deliveries = delivered
            .map(|_| NewDelivery { id: delivery, endpoint: endpoint.id, next_at: Timestamp::now() })
            .into_iter()
            .collect();
        store
            .fan_out(a.pk, epoch, vec![FanOut { event_row: row, verdict, data: None, deliveries, hooked: None }])
            .await
            .unwrap();
        if delivered == Some(true) {
            let attempt = super::deliveries::attempt(1);
            assert!(store.record_attempt(a.pk, delivery, attempt, DeliveryOutcome::Delivered, None).await.unwrap());
        }
        id
    };
    let delivered = add(40, Some(Verdict::Pass), Some(true)).await;
    let undelivered = add(40, Some(Verdict::Pass), Some(false)).await;
    let unwanted = add(40, Some(Verdict::Pass), None).await;
    let dropped = add(40, Some(Verdict::Drop), None).await;
    let young = add(1, Some(Verdict::Pass), None).await;
    let pending = add(40, None, None).await;
    let there = async |id: EventId| store.event_by_id(id).await.unwrap().is_some();
    let pruned = store.prune_events(a.pk, older_than(30), None).await.unwrap();
    assert_eq!((pruned.deleted, pruned.next), (2, None));
    assert!(!there(delivered).await && !there(unwanted).await);
    for id in [undelivered, dropped, young, pending] {
        assert!(there(id).await);
    }
    assert_eq!(store.prune_dropped_events(a.pk, days_ago(30), None).await.unwrap().deleted, 1);
    assert!(!there(dropped).await);
    // by number, of those with a number
    let pruned = store.prune_events(a.pk, Keep { since: None, newest: Some(1) }, None).await.unwrap();
    assert_eq!(pruned.deleted, 0, "one waits for its delivery, the other is the newest");
    let newer = add(0, Some(Verdict::Pass), None).await;
    assert_eq!(store.prune_events(a.pk, Keep { since: None, newest: Some(1) }, None).await.unwrap().deleted, 1);
    assert!(!there(young).await && there(newer).await && there(pending).await && there(undelivered).await);
    // numbers go on
    let shown = store.events_after(a.pk, 0, 10).await.unwrap();
    assert_eq!(shown.last().and_then(|event| event.seq), Some(5));
}

async fn rates_hold_what_has_not_begun(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let waiting = accept(store, new_job(&a, CHAT, "x")).await;
    let sending = accept(store, new_job(&a, CHAT, "y")).await;
    let doubtful = accept(store, new_job(&a, CHAT, "z")).await;
    for job in [&sending, &doubtful] {
        store.intend_job(job.id, a.pk, epoch, vec![1], Timestamp::now()).await.unwrap();
    }
    let doubt = Settlement::Hold {
        reason: HeldReason::InDoubt,
        due_at: Timestamp(1),
        code: None,
        error: None,
        count: crate::AttemptCount::Kept,
    };
    store.settle_job(doubtful.id, a.pk, epoch, doubt, None).await.unwrap();
    let until = Timestamp::now().after(Duration::from_secs(60));
    let all = [&waiting, &sending, &doubtful].map(|job| (job.id, until));
    store.hold_for_rate(a.pk, all.to_vec()).await.unwrap();
    let read = async |job: &Job| store.job_by_id(job.id).await.unwrap().unwrap();
    let held = read(&waiting).await;
    assert_eq!((held.held, held.due_at, held.attempts), (Some(HeldReason::Rate), until, 0));
    assert_eq!(read(&sending).await.state, JobState::Sending);
    assert_eq!(read(&doubtful).await.held, Some(HeldReason::InDoubt));
    // whoever has leave begins before that moment
    let begun = store.intend_job(waiting.id, a.pk, epoch, vec![1], Timestamp::now()).await.unwrap();
    assert!(matches!(begun, crate::IntentOutcome::Started { attempt: 1, .. }));
}
