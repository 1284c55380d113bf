//! What goes wrong: lost epochs, refused writes, and that one command's error is its own.

use super::{Fixture, event, new_job, on_both};
use crate::device::PendingMessage;
use crate::{IntentOutcome, Job, Settlement, Store, StoreError};
use kero_domain::{EventKind, InstanceStatus, JobState, Timestamp};
use std::time::Duration;

on_both!(
    an_old_epoch_writes_nothing,
    an_error_is_one_commands_own,
    a_refused_pending_message_poisons_its_owner,
    writes_keep_their_order,
    a_dropped_caller_leaves_the_writer_alone,
    instances_go_while_they_are_written,
    a_job_ends_with_its_event_or_not_at_all,
);

const CHAT: &str = "491701234567@s.whatsapp.net";

fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::EpochLost)), "{result:?}");
}

async fn an_old_epoch_writes_nothing(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, old) = fixture.instance("a").await;
    let (other, other_epoch) = fixture.instance("b").await;
    let pk = instance.pk;
    let job = super::accept(store, new_job(&instance, CHAT, "x")).await;
    let epoch = store.take_ownership(pk).await.unwrap();
    assert_eq!(epoch, old + 1);
    let note = || event(EventKind::Status, "", "x");

    lost(store.intend_job(job.id, pk, old, vec![1], Timestamp::now()).await);
    lost(store.settle_job(job.id, pk, old, Settlement::Sent { at: Timestamp::now() }, Some(note().into())).await);
    lost(store.append_events(pk, old, vec![note()]).await);
    lost(store.fan_out(pk, old, vec![]).await);
    lost(store.set_status(pk, old, InstanceStatus::Connected, None, Timestamp::now(), Some(note())).await);
    lost(store.set_identity(pk, old, None, None, None, None).await);
    lost(store.record_receipt(pk, old, &[], CHAT, Some(JobState::Read), note()).await);
    lost(store.forget_device(pk, old).await);
    let stale = store.device(pk, old);
    lost(stale.put_sessions([("a", b"x".as_slice())]).await);
    lost(stale.save_device(b"x").await);
    lost(stale.take_sent_message(CHAT, "m").await);
    lost(stale.delete_session("a").await);
    lost(store.append_events(9_999, 1, vec![note()]).await);

    // of a group with both kinds, only the stale ones are left out
    let fresh = store.device(pk, epoch);
    let foreign = store.device(other.pk, other_epoch);
    let record = || [("a", b"fresh".as_slice())];
    let (stale_put, fresh_put, foreign_put) = tokio::join!(
        stale.put_sessions([("a", b"stale".as_slice())]),
        fresh.put_sessions(record()),
        foreign.put_sessions(record())
    );
    lost(stale_put);
    fresh_put.and(foreign_put).unwrap();
    assert_eq!(fresh.session("a").await.unwrap().as_deref(), Some(b"fresh".as_slice()));
    assert!(store.pending_events(pk, 10).await.unwrap().is_empty());
    assert_eq!(store.job_by_id(job.id).await.unwrap().unwrap().state, JobState::Queued);

    if store.backend() == crate::Database::Postgres {
        // another process takes over
        let second = Store::open(fixture.config.clone()).await.unwrap();
        let theirs = second.take_ownership(pk).await.unwrap();
        lost(fresh.put_sessions(record()).await);
        second.device(pk, theirs).put_sessions(record()).await.unwrap();
        second.close().await;
    }
}

/// Keeps the writers busy, so that what is submitted meanwhile becomes one group.
async fn in_one_group<T: Send + 'static>(commands: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = commands.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn an_error_is_one_commands_own(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    fixture.refuse_inserts("sender_keys", true).await;
    let commands = (0..60)
        .map(|n| {
            let device = store.device(instance.pk, epoch);
            async move {
                let address = format!("address-{n}");
                if n % 10 == 3 {
                    device.put_sender_keys([(address.as_str(), b"x".as_slice())]).await
                } else {
                    device.put_sessions([(address.as_str(), b"x".as_slice())]).await
                }
            }
        })
        .collect();
    for (n, result) in in_one_group(commands).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n % 10 == 3, "{n}: {result:?}");
        if n % 10 != 3 {
            let session = store.device(instance.pk, epoch).session(&format!("address-{n}")).await.unwrap();
            assert!(session.is_some(), "{n} was answered and is not there");
        } else {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::Bug(_)) && error.chain().contains("refused by the test"), "{error:?}");
        }
    }
    fixture.refuse_inserts("sender_keys", false).await;
    store.device(instance.pk, epoch).put_sender_keys([("a", b"x".as_slice())]).await.unwrap();
}

async fn a_refused_pending_message_poisons_its_owner(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (other, other_epoch) = fixture.instance("b").await;
    let device = store.device(instance.pk, epoch);
    device.put_sessions([("peer", b"before".as_slice())]).await.unwrap();
    let mut poisoned = store.on_poisoned();
    fixture.refuse_inserts("pending_inbound", true).await;

    // the client submits the message and, without an answer yet, the session that moved past it
    let message = [PendingMessage { chat: CHAT, sender: CHAT, id: "m", message: b"x" }];
    let (refused, after, elsewhere) = tokio::join!(
        biased;
        device.put_pending_inbound(&message),
        device.put_sessions([("peer", b"after".as_slice())]),
        async { store.device(other.pk, other_epoch).put_sessions([("peer", b"x".as_slice())]).await },
    );
    assert!(matches!(refused, Err(StoreError::Bug(_))), "{refused:?}");
    lost(after);
    elsewhere.unwrap();
    assert_eq!(poisoned.recv().await.unwrap(), instance.pk);
    lost(device.put_sessions([("peer", b"later".as_slice())]).await);
    lost(device.put_pending_inbound(&message).await);
    lost(store.append_events(instance.pk, epoch, vec![event(EventKind::Message, CHAT, "x")]).await);
    assert_eq!(device.session("peer").await.unwrap().as_deref(), Some(b"before".as_slice()));

    // the database recovers, the client is rebuilt, the redelivery is stored
    fixture.refuse_inserts("pending_inbound", false).await;
    let epoch = store.take_ownership(instance.pk).await.unwrap();
    let device = store.device(instance.pk, epoch);
    device.put_pending_inbound(&message).await.unwrap();
    device.put_sessions([("peer", b"after".as_slice())]).await.unwrap();
    assert_eq!(
        store.append_events(instance.pk, epoch, vec![event(EventKind::Message, CHAT, "x")]).await.unwrap().new,
        1
    );
    assert!(tokio::time::timeout(Duration::from_millis(50), poisoned.recv()).await.is_err(), "heard once");
}

/// Puts and deletes of one key that nobody waits for in between take effect in the order in which they were submitted.
async fn writes_keep_their_order(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let device = store.device(instance.pk, epoch);
    for round in 0..20 {
        let put = |text: &'static str| device.put_sessions([("a", text.as_bytes())]);
        let (a, b, c, d) = tokio::join!(biased; put("1"), device.delete_session("a"), put("2"), put("3"));
        a.and(b).and(c).and(d).unwrap();
        assert_eq!(device.session("a").await.unwrap().as_deref(), Some(b"3".as_slice()), "{round}");
        let (a, b) = tokio::join!(biased; put("4"), device.delete_session("a"));
        a.and(b).unwrap();
        assert!(!device.has_session("a").await.unwrap(), "{round}");
    }
}

async fn a_dropped_caller_leaves_the_writer_alone(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    for n in 0..50 {
        let (store, job) = (store.clone(), new_job(&instance, CHAT, "x"));
        let task = tokio::spawn(async move { store.accept_job(job).await });
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
    }
    let job = super::accept(store, new_job(&instance, CHAT, "last")).await;
    let begun = store.intend_job(job.id, instance.pk, epoch, vec![1], Timestamp::now()).await.unwrap();
    assert!(matches!(begun, IntentOutcome::Started { .. }));
    store.close().await;
    assert!(matches!(store.set_wanted(instance.pk, true).await, Err(StoreError::Closed)));
}

/// The end of a job and the event that tells it are one: while there is no room for the event, there is no end.
async fn a_job_ends_with_its_event_or_not_at_all(fixture: Fixture) {
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let (begun, waiting) = (
        super::accept(store, new_job(&instance, CHAT, "x")).await,
        super::accept(store, new_job(&instance, CHAT, "y")).await,
    );
    store.intend_job(begun.id, instance.pk, epoch, vec![1], Timestamp::now()).await.unwrap();
    let before = [store.job_by_id(begun.id).await.unwrap(), store.job_by_id(waiting.id).await.unwrap()];
    let ack = |job: &Job| {
        let mut ack = event(EventKind::MessageAck, CHAT, "ack");
        ack.dedupe_key = Some(format!("a|{}", job.id));
        ack
    };
    let at = Timestamp::now();
    let failed =
        || Settlement::Failed { code: "479".to_owned(), error: "no".to_owned(), count: crate::AttemptCount::Kept, at };
    let settle =
        async |settlement| store.settle_job(begun.id, instance.pk, epoch, settlement, Some(ack(&begun).into())).await;
    let cancel = async || store.cancel_job(waiting.id, "c", "e", Some(ack(&waiting)), at).await;
    fixture.refuse_inserts("events", true).await;
    assert!(settle(Settlement::Sent { at }).await.is_err());
    assert!(settle(failed()).await.is_err());
    assert!(cancel().await.is_err());
    let after = [store.job_by_id(begun.id).await.unwrap(), store.job_by_id(waiting.id).await.unwrap()];
    assert_eq!(format!("{after:?}"), format!("{before:?}"), "nothing of it was written");
    assert!(store.pending_events(instance.pk, 10).await.unwrap().is_empty());
    fixture.refuse_inserts("events", false).await;
    assert!(settle(failed()).await.unwrap().applied);
    assert!(cancel().await.unwrap());
    // told again, as after an answer that was lost
    let _ = settle(failed()).await.unwrap();
    assert!(!cancel().await.unwrap());
    let states = [begun.id, waiting.id].map(async |id| store.job_by_id(id).await.unwrap().unwrap().state);
    let [begun_state, waiting_state] = states;
    assert_eq!((begun_state.await, waiting_state.await), (JobState::Failed, JobState::Cancelled));
    assert_eq!(store.pending_events(instance.pk, 10).await.unwrap().len(), 2, "one for each");
}

/// Postgres ends every connection; the next write finds a fresh one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn severed_connections_are_replaced() {
    use sea_orm::ConnectionTrait;
    let fixture = Fixture::postgres().await;
    let store = &fixture.store;
    let (instance, epoch) = fixture.instance("a").await;
    let raw = fixture.raw().await;
    for round in 0..3 {
        let sever = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
        raw.execute_unprepared(sever).await.unwrap();
        let device = store.device(instance.pk, epoch);
        device.put_sessions([("a", format!("{round}").as_bytes())]).await.unwrap();
        // a read on a dead connection fails, and the one after it does not
        let mut read = device.session("a").await;
        for _ in 0..10 {
            if read.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            read = device.session("a").await;
        }
        assert_eq!(read.unwrap(), Some(format!("{round}").into_bytes()));
    }
}

/// Writers of instances that are taken over and deleted meanwhile hear so, and of nothing else.
async fn instances_go_while_they_are_written(fixture: Fixture) {
    let store = &fixture.store;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (instance, epoch) = fixture.instance(&format!("i{n}")).await;
        for _ in 0..3 {
            let (store, instance) = (store.clone(), instance.clone());
            tasks.push(tokio::spawn(async move {
                let device = store.device(instance.pk, epoch);
                for round in 0..40 {
                    let text = format!("{round}");
                    let results = [
                        store.accept_job(new_job(&instance, CHAT, &text)).await.map(drop),
                        store
                            .append_events(instance.pk, epoch, vec![event(EventKind::Message, CHAT, &text)])
                            .await
                            .map(drop),
                        device.put_sessions([("a", text.as_bytes()), ("b", text.as_bytes())]).await,
                        device.put_sender_keys([("b", text.as_bytes()), ("a", text.as_bytes())]).await,
                        store.create_key(rand::random(), None, Some(instance.pk)).await.map(drop),
                        store.set_wanted(instance.pk, true).await,
                    ];
                    for result in results {
                        match result {
                            Ok(()) | Err(StoreError::EpochLost | StoreError::NotFound) => {}
                            Err(error) => panic!("{}", error.chain()),
                        }
                    }
                }
            }));
        }
        let (store, pk) = (store.clone(), instance.pk);
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10 * n)).await;
            store.take_ownership(pk).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            store.delete_instance(pk).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(store.instances().await.unwrap().is_empty());
    assert!(store.queue_counts().await.unwrap().is_empty());
    assert!(store.keys().await.unwrap().is_empty());
}
