//! Jobs: accept, order, intent, settlement, receipts.

use super::{Fixture, accept, event, hold_writer, new_job, on_both};
use crate::{
    Accepted, AttemptCount, Idempotency, IntentOutcome, Job, NewJob, NextJob, Report, Settlement, Store, StoreError,
};
use kero_domain::{ApiKeyId, EventKind, HeldReason, JobId, JobState, NewEvent, Priority, Timestamp};
use std::collections::HashSet;
use std::time::Duration;

on_both!(
    accept_intend_settle,
    duplicates_make_one_job,
    correlation_ids_are_unique,
    lanes_are_first_in_first_out,
    the_polling_pass,
    holding_and_cancelling,
    receipts_move_forward,
    synchronous_jobs_outlive_their_request,
    one_send_costs_few_commits,
);

const CHAT: &str = "491701234567@s.whatsapp.net";
const OTHER: &str = "491700000000@s.whatsapp.net";

async fn begin(store: &Store, job: &Job, epoch: i64) -> IntentOutcome {
    store.intend_job(job.id, job.instance_pk, epoch, b"proto".to_vec(), Timestamp::now()).await.unwrap()
}

fn ack() -> Option<NewEvent> {
    Some(event(EventKind::MessageAck, CHAT, "ack"))
}

fn report() -> Option<Report> {
    ack().map(Report::from)
}

async fn accept_intend_settle(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let job = accept(store, new_job(&instance, CHAT, "hello")).await;
    assert_eq!((job.state, job.attempts, job.instance_id.as_str()), (JobState::Queued, 0, "a"));
    let read = store.job(instance.pk, &job.correlation_id).await.unwrap().unwrap();
    assert_eq!((read.id, &read.content, read.due_at), (job.id, &job.content, job.created_at));

    assert_eq!(begin(store, &job, epoch).await, IntentOutcome::Started { attempt: 1, proto: b"proto".to_vec() });
    assert_eq!(store.in_doubt_jobs(instance.pk).await.unwrap().len(), 1);
    // again after a crash: the same bytes, whatever is handed in
    let again = store.intend_job(job.id, instance.pk, epoch, b"other".to_vec(), Timestamp::now()).await.unwrap();
    assert_eq!(again, IntentOutcome::Started { attempt: 2, proto: b"proto".to_vec() });

    let at = Timestamp::now();
    assert!(store.settle_job(job.id, instance.pk, epoch, Settlement::Sent { at }, report()).await.unwrap().applied);
    let failed = Settlement::Failed {
        code: "late".to_owned(),
        error: "too late".to_owned(),
        count: AttemptCount::Kept,
        at: Timestamp(at.0 + 1),
    };
    assert!(!store.settle_job(job.id, instance.pk, epoch, failed, report()).await.unwrap().applied);
    let read = store.job_by_id(job.id).await.unwrap().unwrap();
    assert_eq!((read.state, read.ended_at, read.error_code), (JobState::Sent, Some(at), None));
    assert_eq!(store.pending_events(instance.pk, 10).await.unwrap().len(), 1, "one ack, not two");
    assert_eq!(begin(store, &job, epoch).await, IntentOutcome::NotRunnable(JobState::Sent));
    let found = store.job_by_message_id(instance.pk, job.message_id.as_str()).await.unwrap();
    assert_eq!(found.map(|found| found.id), Some(job.id));
    let unknown = Job { id: JobId::new(), ..job.clone() };
    assert_eq!(begin(store, &unknown, epoch).await, IntentOutcome::NotRunnable(JobState::Cancelled));
}

async fn duplicates_make_one_job(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, _) = fixture.instance("a").await;
    let soon = Timestamp::now().after(Duration::from_secs(60));
    let idempotency =
        Idempotency { api_key: ApiKeyId::new(), key: "order-1".to_owned(), body_hash: [1; 32], expires_at: soon };
    let send = |idempotency: &Idempotency| {
        let job = NewJob { idempotency: Some(idempotency.clone()), ..new_job(&instance, CHAT, "once") };
        let store = store.clone();
        tokio::spawn(async move { store.accept_job(job).await.unwrap() })
    };
    let mut new = 0;
    let mut ids = HashSet::new();
    let sends: Vec<_> = (0..100).map(|_| send(&idempotency)).collect();
    for send in sends {
        match send.await.unwrap() {
            Accepted::New(job) => {
                new += 1;
                ids.insert(job.id);
            }
            Accepted::Duplicate(job) => {
                ids.insert(job.id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((new, ids.len()), (1, 1));
    assert_eq!(store.jobs_page(instance.pk, &[], None, 10).await.unwrap().len(), 1);

    let other_body = Idempotency { body_hash: [2; 32], ..idempotency.clone() };
    assert!(matches!(send(&other_body).await.unwrap(), Accepted::IdempotencyMismatch));
    let other_key = Idempotency { api_key: ApiKeyId::new(), ..other_body };
    assert!(matches!(send(&other_key).await.unwrap(), Accepted::New(_)));
    // an expired key is free
    let expired = Idempotency { key: "old".to_owned(), expires_at: Timestamp(1), ..idempotency };
    assert!(matches!(send(&expired).await.unwrap(), Accepted::New(_)));
    assert!(matches!(send(&expired).await.unwrap(), Accepted::New(_)));
    assert_eq!(store.prune_idempotency(Timestamp::now()).await.unwrap(), 1);
}

async fn correlation_ids_are_unique(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, _) = fixture.instance("a").await;
    let (other, _) = fixture.instance("b").await;
    let job = NewJob { correlation_id: "order:1".parse().unwrap(), ..new_job(&instance, CHAT, "x") };
    accept(store, job.clone()).await;
    let soon = Timestamp::now().after(Duration::from_secs(60));
    let idempotency =
        Idempotency { api_key: ApiKeyId::new(), key: "k".to_owned(), body_hash: [1; 32], expires_at: soon };
    let twice = NewJob { id: JobId::new(), idempotency: Some(idempotency.clone()), ..job.clone() };
    assert!(matches!(store.accept_job(twice).await.unwrap(), Accepted::CorrelationTaken));
    // what was not accepted does not use up its key
    let fresh = NewJob { idempotency: Some(idempotency), ..new_job(&instance, CHAT, "y") };
    assert!(matches!(store.accept_job(fresh).await.unwrap(), Accepted::New(_)));
    // per instance
    accept(store, NewJob { id: JobId::new(), instance_pk: other.pk, ..job.clone() }).await;
    // the same job again, as after a lost commit answer
    assert!(matches!(store.accept_job(job).await.unwrap(), Accepted::New(_)));
    store.delete_instance(other.pk).await.unwrap();
    assert!(matches!(store.accept_job(new_job(&other, CHAT, "z")).await.unwrap(), Accepted::InstanceGone));
}

async fn lanes_are_first_in_first_out(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let now = Timestamp::now();
    let next = |at: Timestamp| store.next_job(instance.pk, CHAT, Priority::Interactive, at);
    assert!(matches!(next(now).await.unwrap(), NextJob::Empty));
    let mut jobs = Vec::new();
    for n in 0..3 {
        jobs.push(
            accept(store, NewJob { created_at: Timestamp(now.0 - 10), ..new_job(&instance, CHAT, &n.to_string()) })
                .await,
        );
    }
    accept(store, new_job(&instance, OTHER, "elsewhere")).await;
    accept(store, NewJob { priority: Priority::Bulk, ..new_job(&instance, CHAT, "bulk") }).await;
    let later = now.after(Duration::from_secs(60));
    let scheduled = NewJob {
        send_at: Some(later),
        state: JobState::Held,
        held: Some(HeldReason::Scheduled),
        created_at: Timestamp(now.0 - 20),
        ..new_job(&instance, CHAT, "scheduled")
    };
    let scheduled = accept(store, scheduled).await;
    let mut lanes = store.lane_keys(instance.pk).await.unwrap();
    lanes.sort();
    assert_eq!(lanes.len(), 3, "{lanes:?}");

    for job in &jobs {
        let NextJob::Run(head) = next(now).await.unwrap() else { panic!("nothing to run") };
        assert_eq!(head.id, job.id);
        begin(store, job, epoch).await;
        assert!(matches!(next(now).await.unwrap(), NextJob::InFlight(head) if head.id == job.id));
        store.settle_job(job.id, instance.pk, epoch, Settlement::Sent { at: now }, None).await.unwrap();
    }
    assert!(matches!(next(now).await.unwrap(), NextJob::Wait(at) if at == later));
    assert_eq!(store.next_due_job(Timestamp(later.0 - 1)).await.unwrap(), Some(later));
    let early = store.intend_job(scheduled.id, instance.pk, epoch, vec![1], now).await.unwrap();
    assert_eq!(early, IntentOutcome::NotRunnable(JobState::Held));
    assert!(matches!(next(later).await.unwrap(), NextJob::Run(head) if head.id == scheduled.id));
    let due = store.intend_job(scheduled.id, instance.pk, epoch, vec![1], later).await.unwrap();
    assert!(matches!(due, IntentOutcome::Started { attempt: 1, .. }));

    let page = store.jobs_page(instance.pk, &[JobState::Sent], None, 2).await.unwrap();
    assert_eq!(page.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[2].id, jobs[1].id]);
    let page = store.jobs_page(instance.pk, &[JobState::Sent], Some(jobs[1].id), 2).await.unwrap();
    assert_eq!(page.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id]);
}

async fn the_polling_pass(fixture: Fixture) {
    let store = &fixture.store;
    let (busy, _) = fixture.instance("busy").await;
    let (quiet, _) = fixture.instance("quiet").await;
    let (offline, _) = fixture.instance("offline").await;
    let now = Timestamp::now();
    for n in 0..20 {
        accept(store, NewJob { created_at: Timestamp(n), ..new_job(&busy, &format!("{}", n % 5), "x") }).await;
    }
    let lone = accept(store, new_job(&quiet, CHAT, "x")).await;
    let held = NewJob { state: JobState::Held, held: Some(HeldReason::Offline), ..new_job(&offline, CHAT, "x") };
    let held = accept(store, held).await;
    let due = store.due_jobs(now.after(Duration::from_secs(1)), 100).await.unwrap();
    assert_eq!(due.len(), 6, "a lane shows once: {due:?}");
    let two = store.due_jobs(now.after(Duration::from_secs(1)), 2).await.unwrap();
    assert!(two.iter().any(|due| due.job == lone.id), "instances take turns: {two:?}");
    assert!(store.due_jobs(Timestamp(-1), 10).await.unwrap().is_empty());
    // whoever asks for an offline job is connected
    let next = store.next_job(offline.pk, CHAT, Priority::Interactive, now).await.unwrap();
    assert!(matches!(next, NextJob::Run(job) if job.id == held.id));
    let counts = store.queue_counts().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.count).sum::<u64>(), 22);
    assert!(counts.iter().any(|count| count.held == Some(HeldReason::Offline) && count.instance_id == offline.id));
    assert!(counts.iter().any(|count| count.instance_id == busy.id && count.oldest == Timestamp(0)));
}

async fn holding_and_cancelling(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let job = accept(store, new_job(&instance, CHAT, "x")).await;
    let hold = |reason, count| Settlement::Hold {
        reason,
        due_at: Timestamp(5),
        code: Some("code".to_owned()),
        error: None,
        count,
    };
    let attempts = async || store.job_by_id(job.id).await.unwrap().unwrap().attempts;
    // held before anything was begun: there is no attempt to give back
    store.settle_job(job.id, instance.pk, epoch, hold(HeldReason::Rate, AttemptCount::Undone), None).await.unwrap();
    assert_eq!(attempts().await, 0);
    begin(store, &job, epoch).await;
    store.settle_job(job.id, instance.pk, epoch, hold(HeldReason::Retry, AttemptCount::Kept), None).await.unwrap();
    assert_eq!(attempts().await, 1);
    begin(store, &job, epoch).await;
    store
        .settle_job(job.id, instance.pk, epoch, hold(HeldReason::ReachOutLock, AttemptCount::Undone), None)
        .await
        .unwrap();
    let read = store.job_by_id(job.id).await.unwrap().unwrap();
    assert_eq!((read.attempts, read.held, read.due_at), (1, Some(HeldReason::ReachOutLock), Timestamp(5)));
    assert_eq!(read.error_code.as_deref(), Some("code"));
    begin(store, &job, epoch).await;
    assert!(!store.cancel_job(job.id, "c", "e", ack(), Timestamp::now()).await.unwrap(), "it has begun");
    store.settle_job(job.id, instance.pk, epoch, Settlement::Requeue, None).await.unwrap();
    let read = store.job_by_id(job.id).await.unwrap().unwrap();
    assert_eq!((read.attempts, read.state, read.held, read.error_code), (1, JobState::Queued, None, None));
    begin(store, &job, epoch).await;
    store.settle_job(job.id, instance.pk, epoch, hold(HeldReason::InDoubt, AttemptCount::Kept), None).await.unwrap();
    assert!(!store.cancel_job(job.id, "c", "e", ack(), Timestamp::now()).await.unwrap(), "it may have been sent");

    let job = accept(store, new_job(&instance, CHAT, "y")).await;
    assert!(store.cancel_job(job.id, "send-not-started", "waited", ack(), Timestamp(77)).await.unwrap());
    assert!(!store.cancel_job(job.id, "c", "e", ack(), Timestamp::now()).await.unwrap());
    let read = store.job_by_id(job.id).await.unwrap().unwrap();
    assert_eq!((read.state, read.ended_at), (JobState::Cancelled, Some(Timestamp(77))));
    assert_eq!(store.pending_events(instance.pk, 10).await.unwrap().len(), 1);
    assert!(!store.cancel_job(JobId::new(), "c", "e", None, Timestamp::now()).await.unwrap());
}

async fn receipts_move_forward(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let group = "120363000000000001@g.us";
    let direct = accept(store, new_job(&instance, CHAT, "x")).await;
    let grouped =
        accept(store, NewJob { message_id: direct.message_id.clone(), ..new_job(&instance, group, "x") }).await;
    let unsent = accept(store, new_job(&instance, CHAT, "y")).await;
    for job in [&direct, &grouped] {
        begin(store, job, epoch).await;
        store.settle_job(job.id, instance.pk, epoch, Settlement::Sent { at: Timestamp::now() }, None).await.unwrap();
    }
    let ids = [direct.message_id.as_str().to_owned(), unsent.message_id.as_str().to_owned()];
    let receipt = async |state, chat: &str| {
        let event = event(EventKind::Receipt, CHAT, "receipt");
        store.record_receipt(instance.pk, epoch, &ids, chat, state, event).await.unwrap();
    };
    let state = async |job: &Job| store.job_by_id(job.id).await.unwrap().unwrap().state;
    // the contact's receipts come under its LID
    receipt(Some(JobState::Read), "100000011111111@lid").await;
    assert_eq!(
        (state(&direct).await, state(&grouped).await, state(&unsent).await),
        (JobState::Read, JobState::Sent, JobState::Queued)
    );
    receipt(Some(JobState::Delivered), CHAT).await;
    assert_eq!(state(&direct).await, JobState::Read, "never back");
    receipt(Some(JobState::Delivered), group).await;
    assert_eq!(state(&grouped).await, JobState::Delivered);
    receipt(None, CHAT).await;
    assert_eq!(store.pending_events(instance.pk, 10).await.unwrap().len(), 4);

    // many at once, which come to one statement: of those about one message the furthest counts
    let mut jobs = Vec::new();
    for _ in 0..6 {
        let job = accept(store, new_job(&instance, CHAT, "z")).await;
        begin(store, &job, epoch).await;
        let sent = Settlement::Sent { at: Timestamp::now() };
        store.settle_job(job.id, instance.pk, epoch, sent, None).await.unwrap();
        jobs.push(job);
    }
    let delivered = jobs.iter().map(|job| (job, JobState::Delivered));
    let of_one = [JobState::Read, JobState::Delivered, JobState::Played, JobState::Read].map(|state| (&jobs[0], state));
    let mut receipts = tokio::task::JoinSet::new();
    for (job, state) in delivered.chain(of_one) {
        let (store, ids) = (store.clone(), [job.message_id.as_str().to_owned()]);
        let event = event(EventKind::Receipt, CHAT, "receipt");
        receipts.spawn(async move {
            store.record_receipt(instance.pk, epoch, &ids, CHAT, Some(state), event).await.unwrap();
        });
    }
    assert_eq!(receipts.join_all().await.len(), 10);
    assert_eq!(state(&jobs[0]).await, JobState::Played);
    for job in &jobs[1..] {
        assert_eq!(state(job).await, JobState::Delivered);
    }
    assert_eq!(store.pending_events(instance.pk, 100).await.unwrap().len(), 14);
}

async fn synchronous_jobs_outlive_their_request(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let sync = |text| NewJob { asynchronous: false, ..new_job(&instance, CHAT, text) };
    let ended = accept(store, sync("1")).await;
    begin(store, &ended, epoch).await;
    store.settle_job(ended.id, instance.pk, epoch, Settlement::Sent { at: Timestamp::now() }, None).await.unwrap();
    let gone = accept(store, sync("2")).await;
    let open = accept(store, sync("3")).await;
    store.mark_asynchronous(gone.id).await.unwrap();
    assert_eq!(store.release_orphaned_sync_jobs().await.unwrap(), 1);
    for (job, asynchronous) in [(&ended, false), (&gone, true), (&open, true)] {
        assert_eq!(store.job_by_id(job.id).await.unwrap().unwrap().asynchronous, asynchronous);
    }
}

/// What the store is asked for one asynchronous send, counted.
async fn one_send_costs_few_commits(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let device = store.device(instance.pk, epoch);
    // reads the epoch, which SQLite's writer then knows
    device.put_sender_keys([("warm", b"up".as_slice())]).await.unwrap();
    let before = store.stats();
    let job = accept(store, NewJob { created_at: Timestamp(1), ..new_job(&instance, CHAT, "hello") }).await;
    let accepted = store.stats();
    assert_eq!(accepted.commits - before.commits, 1);
    assert_eq!(accepted.statements - before.statements, 1);
    let NextJob::Run(_) = store.next_job(instance.pk, CHAT, Priority::Interactive, Timestamp::now()).await.unwrap()
    else {
        panic!("nothing to run")
    };
    begin(store, &job, epoch).await;
    device.token("1@lid").await.unwrap();
    // of the message itself the client writes nothing: the job has it
    device.put_sessions([("1:0@lid", b"session".as_slice()), ("1:1@lid", b"session".as_slice())]).await.unwrap();
    store.settle_job(job.id, instance.pk, epoch, Settlement::Sent { at: Timestamp::now() }, report()).await.unwrap();
    let done = store.stats();
    assert!(done.commits - before.commits <= 4, "{} commits", done.commits - before.commits);
    let postgres = store.backend() == crate::Database::Postgres;
    let statements = done.statements - before.statements;
    assert!(statements <= 8 + if postgres { 10 } else { 0 }, "{statements} statements");

    // the rows of one table are one statement, where a row may be in it twice
    let writer = hold_writer(store, instance.pk).await;
    let before = store.stats();
    let puts: Vec<_> = (0..23)
        .map(|n| {
            let device = device.clone();
            tokio::spawn(
                async move { device.put_sessions([(format!("{n}:0@lid").as_str(), b"session".as_slice())]).await },
            )
        })
        .collect();
    writer.let_go().await;
    for put in puts {
        put.await.unwrap().unwrap();
    }
    let statements = store.stats().statements - before.statements;
    assert!(statements <= if postgres { 10 } else { 2 }, "{statements} statements");

    // many at once share commits and statements
    let writer = hold_writer(store, instance.pk).await;
    let before = store.stats();
    let jobs: Vec<_> = (0..200)
        .map(|n| {
            let (store, job) = (store.clone(), new_job(&instance, &format!("{n}"), "x"));
            tokio::spawn(async move { store.accept_job(job).await })
        })
        .collect();
    writer.let_go().await;
    for job in jobs {
        assert!(matches!(job.await.unwrap(), Ok(Accepted::New(_))));
    }
    let done = store.stats();
    assert_eq!(done.commands - before.commands, 200);
    assert!(done.commits - before.commits < 10, "{} commits for 200 accepts", done.commits - before.commits);
    assert!(matches!(store.take_ownership(9_999).await, Err(StoreError::NotFound)));
}
