//! Receipts before the result of the message that they are about: remembered on the row, whatever comes first.

use super::{Fixture, accept, event, new_job, on_both};
use crate::{AttemptCount, IntentOutcome, Job, NewJob, NextJob, Settlement, Store};
use kero_domain::{EventKind, HeldReason, JobState, Priority, Timestamp};

on_both!(
    a_result_starts_from_the_receipt_before_it,
    the_furthest_receipt_counts_in_any_order,
    a_receipt_is_not_for_what_was_never_sent_or_for_another_chat,
    a_job_in_doubt_tells_of_its_receipt,
    receipts_and_results_of_one_group,
);

const CHAT: &str = "491701234567@s.whatsapp.net";

async fn begin(store: &Store, job: &Job, epoch: i64) {
    let begun = store.intend_job(job.id, job.instance_pk, epoch, b"proto".to_vec(), Timestamp::now()).await.unwrap();
    assert!(matches!(begun, IntentOutcome::Started { .. }), "{begun:?}");
}

async fn receipt(store: &Store, job: &Job, epoch: i64, chat: &str, state: JobState) {
    let (ids, event) = ([job.message_id.as_str().to_owned()], event(EventKind::Receipt, CHAT, "receipt"));
    store.record_receipt(job.instance_pk, epoch, &ids, chat, Some(state), event).await.unwrap();
}

async fn sent(store: &Store, job: &Job, epoch: i64) {
    let ack = event(EventKind::MessageAck, CHAT, "ack");
    let settlement = Settlement::Sent { at: Timestamp::now() };
    let settled = store.settle_job(job.id, job.instance_pk, epoch, settlement, Some(ack.into())).await.unwrap();
    assert!(settled.applied);
}

async fn row(store: &Store, job: &Job) -> Job {
    store.job_by_id(job.id).await.unwrap().unwrap()
}

async fn a_result_starts_from_the_receipt_before_it(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    for state in [JobState::Delivered, JobState::Read, JobState::Played] {
        // receipt, result
        let before = accept(store, new_job(&instance, CHAT, "x")).await;
        begin(store, &before, epoch).await;
        receipt(store, &before, epoch, CHAT, state).await;
        let found = row(store, &before).await;
        assert_eq!((found.state, found.receipt, found.ended_at), (JobState::Sending, Some(state), None));
        sent(store, &before, epoch).await;
        // result, receipt
        let after = accept(store, new_job(&instance, CHAT, "x")).await;
        begin(store, &after, epoch).await;
        sent(store, &after, epoch).await;
        receipt(store, &after, epoch, CHAT, state).await;
        for job in [&before, &after] {
            let found = row(store, job).await;
            assert_eq!((found.state, found.attempts), (state, 1));
            assert!(found.ended_at.is_some() && found.held.is_none());
        }
        // what comes afterwards moves on from there
        receipt(store, &before, epoch, CHAT, JobState::Played).await;
        assert_eq!(row(store, &before).await.state, JobState::Played);
    }
    assert_eq!(store.pending_events(instance.pk, 100).await.unwrap().len(), 15, "an event for each");
}

async fn the_furthest_receipt_counts_in_any_order(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let orders = [
        [JobState::Delivered, JobState::Read, JobState::Played],
        [JobState::Played, JobState::Delivered, JobState::Read],
        [JobState::Read, JobState::Played, JobState::Delivered],
    ];
    for order in orders {
        for before in 0..=order.len() {
            let job = accept(store, new_job(&instance, CHAT, "x")).await;
            begin(store, &job, epoch).await;
            for state in &order[..before] {
                receipt(store, &job, epoch, "100000011111111@lid", *state).await;
            }
            sent(store, &job, epoch).await;
            for state in &order[before..] {
                receipt(store, &job, epoch, "100000011111111@lid", *state).await;
            }
            assert_eq!(row(store, &job).await.state, JobState::Played, "{order:?}, {before} before the result");
        }
    }
}

async fn a_receipt_is_not_for_what_was_never_sent_or_for_another_chat(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let unsent = accept(store, new_job(&instance, CHAT, "x")).await;
    receipt(store, &unsent, epoch, CHAT, JobState::Read).await;
    assert_eq!(row(store, &unsent).await.receipt, None, "nothing of it was sent");
    let group = "120363000000000001@g.us";
    let grouped = accept(store, new_job(&instance, group, "x")).await;
    begin(store, &grouped, epoch).await;
    receipt(store, &grouped, epoch, CHAT, JobState::Read).await;
    receipt(store, &grouped, epoch, "120363000000000002@g.us", JobState::Read).await;
    assert_eq!(row(store, &grouped).await.receipt, None);
    receipt(store, &grouped, epoch, group, JobState::Delivered).await;
    assert_eq!(row(store, &grouped).await.receipt, Some(JobState::Delivered));
    // a failure stays one, and so does what was cancelled
    let failed = Settlement::Failed {
        code: "479".to_owned(),
        error: "no".to_owned(),
        count: AttemptCount::Kept,
        at: Timestamp::now(),
    };
    assert!(store.settle_job(grouped.id, instance.pk, epoch, failed, None).await.unwrap().applied);
    receipt(store, &grouped, epoch, group, JobState::Read).await;
    assert_eq!(row(store, &grouped).await.state, JobState::Failed);
    assert!(store.cancel_job(unsent.id, "c", "e", None, Timestamp::now()).await.unwrap());
    receipt(store, &unsent, epoch, CHAT, JobState::Read).await;
    assert_eq!(row(store, &unsent).await.state, JobState::Cancelled);
}

async fn a_job_in_doubt_tells_of_its_receipt(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let job = accept(store, new_job(&instance, CHAT, "x")).await;
    begin(store, &job, epoch).await;
    let doubt = Settlement::Hold {
        reason: HeldReason::InDoubt,
        due_at: Timestamp(1),
        code: None,
        error: None,
        count: AttemptCount::Kept,
    };
    store.settle_job(job.id, instance.pk, epoch, doubt, None).await.unwrap();
    receipt(store, &job, epoch, CHAT, JobState::Delivered).await;
    let found = store.next_job(instance.pk, CHAT, Priority::Interactive, Timestamp::now()).await.unwrap();
    let NextJob::Run(found) = found else { panic!("{found:?}") };
    assert_eq!((found.held, found.receipt), (Some(HeldReason::InDoubt), Some(JobState::Delivered)));
    let ahead = store.next_jobs(instance.pk, CHAT, Priority::Interactive, Timestamp::now(), 4).await.unwrap();
    assert!(matches!(ahead.next, NextJob::Run(job) if job.receipt == Some(JobState::Delivered)));
    sent(store, &job, epoch).await;
    let found = row(store, &job).await;
    assert_eq!((found.state, found.attempts), (JobState::Delivered, 1));
    // refused when it was sent again: it waits for its retry, and has arrived all the same
    let job = accept(store, new_job(&instance, CHAT, "y")).await;
    begin(store, &job, epoch).await;
    let retry = Settlement::Hold {
        reason: HeldReason::Retry,
        due_at: Timestamp(1),
        code: Some("503".to_owned()),
        error: None,
        count: AttemptCount::Kept,
    };
    store.settle_job(job.id, instance.pk, epoch, retry, None).await.unwrap();
    receipt(store, &job, epoch, CHAT, JobState::Delivered).await;
    assert!(!store.cancel_job(job.id, "c", "e", None, Timestamp::now()).await.unwrap(), "it has arrived");
}

/// Both submitted at once, which may come to one transaction in either order.
async fn receipts_and_results_of_one_group(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let mut jobs = Vec::new();
    for n in 0..60 {
        let job = accept(store, NewJob { chat: format!("4917{n:08}@s.whatsapp.net"), ..new_job(&instance, CHAT, "x") });
        let job = job.await;
        begin(store, &job, epoch).await;
        jobs.push(job);
    }
    let mut both = tokio::task::JoinSet::new();
    for (n, job) in jobs.iter().enumerate() {
        for result in [n % 2 == 0, n % 2 == 1] {
            let (store, job) = (store.clone(), job.clone());
            both.spawn(async move {
                if result {
                    sent(&store, &job, epoch).await
                } else {
                    receipt(&store, &job, epoch, &job.chat, JobState::Read).await
                }
            });
        }
    }
    both.join_all().await;
    for job in &jobs {
        assert_eq!(row(store, job).await.state, JobState::Read);
    }
}
