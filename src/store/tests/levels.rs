//! Durability levels, read off the database itself; and the disk that is full.

use super::{Fixture, accept, new_job, on_both};
use crate::{Durability, Store, StoreConfig, StoreError};
use sea_orm::{ConnectionTrait, Statement};

on_both!(each_write_has_its_level);

/// The level of the transaction that wrote last into `table`.
async fn level(store: &Store, table: &str) -> Durability {
    let writing = &store.inner.pools[0];
    let backend = writing.get_database_backend();
    let sql = match backend {
        sea_orm::DbBackend::Postgres => {
            format!("SELECT level FROM levels WHERE name = '{table}' ORDER BY n DESC LIMIT 1")
        }
        // the one writing connection stays as the last transaction had it
        _ => "SELECT CASE synchronous WHEN 2 THEN 'on' ELSE 'off' END AS level FROM pragma_synchronous".to_owned(),
    };
    let row = writing.query_one_raw(Statement::from_string(backend, sql)).await.unwrap().unwrap();
    match row.try_get::<String>("", "level").unwrap().as_str() {
        "on" => Durability::Power,
        _ => Durability::Process,
    }
}

async fn each_write_has_its_level(fixture: Fixture) {
    if fixture.store.backend() == crate::Database::Postgres {
        // the database notes the level of each transaction
        let raw = fixture.raw().await;
        raw.execute_unprepared(
            "CREATE TABLE levels (n BIGSERIAL, name TEXT, level TEXT);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO levels (name, level) VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
               RETURN NULL; END $$",
        )
        .await
        .unwrap();
        for table in ["sessions", "tc_tokens", "jobs", "pending_inbound"] {
            let sql = format!("CREATE TRIGGER note AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION note()");
            raw.execute_unprepared(&sql).await.unwrap();
        }
    }
    let (instance, epoch) = fixture.instance("a").await;
    for configured in [Durability::Power, Durability::Process] {
        let config = StoreConfig { durability: configured, ..fixture.config.clone() };
        let store = &Store::open(config).await.unwrap();
        let device = store.device(instance.pk, epoch);
        for _ in 0..2 {
            device.touch_token_sender("1@lid", 5).await.unwrap();
            assert_eq!(level(store, "tc_tokens").await, Durability::Process);
            device.put_sessions([("1@lid", b"x".as_slice())]).await.unwrap();
            assert_eq!(level(store, "sessions").await, Durability::Power, "whatever is configured");
            accept(store, new_job(&instance, "chat", "x")).await;
            assert_eq!(level(store, "jobs").await, configured);
            let message = crate::device::PendingMessage { chat: "c", sender: "s", id: "m", message: b"x" };
            device.put_pending_inbound(&[message]).await.unwrap();
            assert_eq!(level(store, "pending_inbound").await, configured);
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_such() {
    let fixture = Fixture::sqlite().await;
    let (instance, _) = fixture.instance("a").await;
    let pages = Statement::from_string(sea_orm::DbBackend::Sqlite, "PRAGMA page_count");
    let pages = fixture.store.inner.pools[0].query_one_raw(pages).await.unwrap().unwrap();
    let pages: i64 = pages.try_get("", "page_count").unwrap();
    fixture.store.close().await;
    // the file may not grow much more: what SQLite says then is what it says when the disk is full
    let max_size = (pages as u64 + 5) * 4_096;
    let store = Store::open(StoreConfig { max_size, ..fixture.config.clone() }).await.unwrap();
    let mut accepted = 0;
    let error = loop {
        match store.accept_job(new_job(&instance, "chat", &"x".repeat(2_000))).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert_eq!(error.class(), kero_domain::Class::Permanent);
    // what was answered is there; with space again the store goes on
    let jobs = store.jobs_page(instance.pk, &[], None, 1_000).await.unwrap();
    assert_eq!(jobs.len(), accepted);
    store.close().await;
    let store = Store::open(fixture.config.clone()).await.unwrap();
    accept(&store, new_job(&instance, "chat", "x")).await;
}
