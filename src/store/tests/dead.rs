//! Dead letters and moved jobs.

use super::{Fixture, accept, event, new_job, on_both};
use crate::{DeadFilter, Job, JobName, NewJob, NextJob, Settlement};
use kero_domain::{EventKind, HeldReason, JobId, JobState, Priority, Timestamp};
use std::time::Duration;

on_both!(letters_are_retried_and_discarded, jobs_move_in_time, queued_jobs_come_in_parts);

const CHAT: &str = "491701234567@s.whatsapp.net";

async fn fail(fixture: &Fixture, job: &Job, epoch: i64, code: &str, at: i64) {
    let store = &fixture.store;
    store.intend_job(job.id, job.instance_pk, epoch, b"proto".to_vec(), Timestamp(at)).await.unwrap();
    let failed = Settlement::Failed {
        code: code.to_owned(),
        error: "no".to_owned(),
        count: crate::AttemptCount::Kept,
        at: Timestamp(at),
    };
    let ack = event(EventKind::MessageAck, CHAT, "ack");
    assert!(store.settle_job(job.id, job.instance_pk, epoch, failed, Some(ack.into())).await.unwrap().applied);
}

async fn letters_are_retried_and_discarded(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let (b, _) = fixture.instance("b").await;
    let mut jobs = Vec::new();
    for (n, code) in ["x", "y", "y"].into_iter().enumerate() {
        let job = accept(store, new_job(&a, CHAT, "x")).await;
        fail(&fixture, &job, epoch, code, 1_000 * (n as i64 + 1)).await;
        jobs.push(job);
    }
    let sync = accept(store, NewJob { asynchronous: false, ..new_job(&a, CHAT, "sync") }).await;
    fail(&fixture, &sync, epoch, "y", 9_000).await;
    let all = DeadFilter { instance_pk: Some(a.pk), ..DeadFilter::default() };
    let ids = async |filter: &DeadFilter, before| -> Vec<JobId> {
        store.dead_letters(filter, before, 10).await.unwrap().iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(&all, None).await, [jobs[2].id, jobs[1].id, jobs[0].id], "synchronous ones are none");
    assert_eq!(ids(&all, Some(jobs[1].id)).await, [jobs[0].id]);
    assert_eq!(ids(&DeadFilter { code: Some("x".to_owned()), ..all.clone() }, None).await, [jobs[0].id]);
    let between = DeadFilter { since: Some(Timestamp(2_000)), until: Some(Timestamp(3_000)), ..all.clone() };
    assert_eq!(ids(&between, None).await, [jobs[1].id]);
    assert_eq!(ids(&DeadFilter { chat: Some("other".to_owned()), ..all.clone() }, None).await, []);
    assert_eq!(ids(&DeadFilter { instance_pk: Some(b.pk), ..all.clone() }, None).await, []);
    assert_eq!(store.count_dead_letters(&DeadFilter::default()).await.unwrap(), 3);
    let name = |job: &Job| JobName { instance_id: a.id.clone(), correlation_id: job.correlation_id.clone() };
    let foreign = JobName { instance_id: b.id.clone(), correlation_id: jobs[0].correlation_id.clone() };
    let known = store.jobs_among(&[name(&jobs[1]), name(&sync), foreign.clone()]).await.unwrap();
    assert_eq!(known, [name(&jobs[1]), name(&sync)].into());
    let found = store.dead_among(&[name(&jobs[1]), name(&sync), foreign]).await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(name(&jobs[1]), Timestamp(2_000))]);

    assert!(store.discard_dead_letter(a.pk, jobs[0].id, Timestamp(5)).await.unwrap());
    assert!(!store.discard_dead_letter(a.pk, jobs[0].id, Timestamp(6)).await.unwrap());
    let at = Timestamp::now();
    let ids_of = [jobs[0].id, jobs[1].id, sync.id];
    assert_eq!(store.retry_dead_letters(a.pk, &ids_of, None, at).await.unwrap(), [jobs[1].id]);
    assert_eq!(store.retry_dead_letters(a.pk, &[jobs[1].id], None, at).await.unwrap(), []);
    let again = store.job_by_id(jobs[1].id).await.unwrap().unwrap();
    assert_eq!((again.state, again.retries, again.attempts, again.attempts_now()), (JobState::Queued, 1, 1, 0));
    assert_eq!((again.proto.as_deref(), again.message_id), (Some(b"proto".as_slice()), jobs[1].message_id.clone()));
    assert_eq!((again.error_code, again.ended_at, again.order_at), (None, None, at));
    let offline = store.retry_dead_letters(a.pk, &[jobs[2].id], Some(HeldReason::Offline), at).await.unwrap();
    assert_eq!(offline, [jobs[2].id]);
    let held = store.job_by_id(jobs[2].id).await.unwrap().unwrap();
    assert_eq!((held.state, held.held), (JobState::Held, Some(HeldReason::Offline)));
    assert_eq!(store.count_dead_letters(&DeadFilter::default()).await.unwrap(), 0);
}

async fn jobs_move_in_time(fixture: Fixture) {
    let store = &fixture.store;
    let (a, epoch) = fixture.instance("a").await;
    let first = accept(store, new_job(&a, CHAT, "first")).await;
    let second = accept(store, new_job(&a, CHAT, "second")).await;
    let now = Timestamp::now();
    let later = now.after(Duration::from_secs(60));
    let next = || store.next_job(a.pk, CHAT, Priority::Interactive, now.after(Duration::from_secs(1)));
    assert!(store.move_job(a.pk, first.id, later, None, now).await.unwrap());
    assert!(matches!(next().await.unwrap(), NextJob::Run(job) if job.id == second.id), "it lost its place");
    assert!(store.move_job(a.pk, first.id, Timestamp(0), Some(HeldReason::Offline), now).await.unwrap());
    let moved = store.job_by_id(first.id).await.unwrap().unwrap();
    assert_eq!((moved.held, moved.due_at, moved.send_at), (Some(HeldReason::Offline), now, Some(Timestamp(0))));
    store.intend_job(second.id, a.pk, epoch, vec![1], now).await.unwrap();
    assert!(!store.move_job(a.pk, second.id, later, None, now).await.unwrap(), "it is being sent");
    store.settle_job(second.id, a.pk, epoch, Settlement::Sent { at: now }, None).await.unwrap();
    assert!(!store.move_job(a.pk, second.id, later, None, now).await.unwrap(), "it ended");
    let sync = accept(store, NewJob { asynchronous: false, ..new_job(&a, CHAT, "sync") }).await;
    assert!(!store.move_job(a.pk, sync.id, later, None, now).await.unwrap(), "a request waits for it");
    assert!(!store.move_job(a.pk, JobId::new(), later, None, now).await.unwrap());
}

async fn queued_jobs_come_in_parts(fixture: Fixture) {
    let store = &fixture.store;
    let (a, _) = fixture.instance("a").await;
    let mut jobs = Vec::new();
    for n in 0..5 {
        jobs.push(accept(store, NewJob { created_at: Timestamp(n / 2), ..new_job(&a, CHAT, "x") }).await.id);
    }
    accept(store, NewJob { asynchronous: false, ..new_job(&a, CHAT, "sync") }).await;
    let held = NewJob { state: JobState::Held, held: Some(HeldReason::Offline), ..new_job(&a, CHAT, "x") };
    accept(store, held).await;
    let (mut after, mut found) = ((Timestamp(i64::MIN), JobId(uuid::Uuid::nil())), Vec::new());
    loop {
        let part = store.queued_jobs(a.pk, after, 2).await.unwrap();
        let Some(last) = part.last() else { break };
        after = (last.due_at, last.job);
        found.extend(part.iter().map(|row| row.job));
    }
    assert_eq!(found, jobs);
}
