//! One story, told to both databases.

mod append;
mod database;
mod dead;
mod deliveries;
mod faults;
mod hook_calls;
mod hooks;
mod journal;
mod levels;
mod plans;
mod reading;
mod receipts;
mod retention;
mod sending;
mod story;

use crate::writer::{Op, work};
use crate::{Accepted, Durability, Instance, Job, MasterKey, NewJob, Store, StoreConfig};
use kero_domain::{
    Content, CorrelationId, EventKind, InstanceId, JobId, JobState, MessageId, NewEvent, Priority, Timestamp,
};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A store in a database of its own.
pub(crate) struct Fixture {
    pub store: Store,
    pub config: StoreConfig,
    pub folder: Option<tempfile::TempDir>,
}

impl Fixture {
    pub async fn sqlite() -> Self {
        let (url, folder) = database::sqlite();
        Self::open(url, Some(folder)).await
    }

    pub async fn postgres() -> Self {
        let url = tokio::task::spawn_blocking(database::postgres).await.unwrap();
        Self::open(url, None).await
    }

    async fn open(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let master_key = MasterKey::generate();
        let config =
            StoreConfig { url, durability: Durability::Power, master_key, readers: 3, writers: 4, max_size: 0 };
        Self { store: Store::open(config.clone()).await.unwrap(), config, folder }
    }

    /// A connection past the store, to look and to break things.
    pub async fn raw(&self) -> DatabaseConnection {
        sea_orm::Database::connect(self.config.url.as_str()).await.unwrap()
    }

    /// Makes the database refuse inserts into `table`; for real, not by a hook.
    pub async fn refuse_inserts(&self, table: &str, on: bool) {
        let raw = self.raw().await;
        let sqlite = self.store.backend() == crate::Database::Sqlite;
        let statements = match (sqlite, on) {
            (true, true) => vec![format!(
                "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
            )],
            (true, false) => vec![format!("DROP TRIGGER refuse_{table}")],
            (false, true) => vec![
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$".to_owned(),
                format!("CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"),
            ],
            (false, false) => vec![format!("DROP TRIGGER refuse_{table} ON {table}")],
        };
        for statement in statements {
            raw.execute_unprepared(&statement).await.unwrap();
        }
        raw.close().await.unwrap();
    }

    /// An instance that this test owns, and the epoch.
    pub async fn instance(&self, id: &str) -> (Instance, i64) {
        let id: InstanceId = id.parse().unwrap();
        let instance = self.store.create_instance(&id, None, false, None).await.unwrap();
        let epoch = self.store.take_ownership(instance.pk).await.unwrap();
        (instance, epoch)
    }
}

pub(crate) fn new_job(instance: &Instance, chat: &str, text: &str) -> NewJob {
    NewJob {
        id: JobId::new(),
        instance_pk: instance.pk,
        correlation_id: CorrelationId::mint(),
        message_id: MessageId::mint(),
        chat: chat.to_owned(),
        priority: Priority::Interactive,
        content: Content::text(text),
        asynchronous: true,
        send_at: None,
        state: JobState::Queued,
        held: None,
        request_id: None,
        created_at: Timestamp::now(),
        idempotency: None,
    }
}

pub(crate) async fn accept(store: &Store, job: NewJob) -> Job {
    match store.accept_job(job).await.unwrap() {
        Accepted::New(job) => job,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Holds the writer of an instance: what is submitted until `let_go` becomes groups as large as they can be.
pub(crate) struct HeldWriter {
    gate: Arc<Semaphore>,
    command: JoinHandle<()>,
}

pub(crate) async fn hold_writer(store: &Store, pk: i64) -> HeldWriter {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let command = tokio::spawn({
        let (store, gate, begun) = (store.clone(), Arc::clone(&gate), Arc::clone(&begun));
        async move {
            let held = store.submit(pk, None, Durability::Process, |answer| {
                Op::Run(work(answer, move |_| {
                    let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
                    Box::pin(async move {
                        begun.add_permits(1);
                        // it is closed, never given
                        let _ = gate.acquire().await;
                        Ok(())
                    })
                }))
            });
            held.await.unwrap();
        }
    });
    begun.acquire().await.unwrap().forget();
    HeldWriter { gate, command }
}

impl HeldWriter {
    /// After whoever is ready to submit has done so.
    pub async fn let_go(self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.gate.close();
        self.command.await.unwrap();
    }
}

pub(crate) fn event(kind: EventKind, chat: &str, text: &str) -> NewEvent {
    NewEvent::new(kind, chat, Timestamp::now(), serde_json::json!({ "text": text }))
}

/// Each function as a test on SQLite and one on Postgres.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::tests::Fixture::sqlite().await).await })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::tests::Fixture::postgres().await).await })+
        }
    };
}
pub(crate) use on_both;
