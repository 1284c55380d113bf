//! The hot reads use the indices that were made for them, so that a backlog costs nobody else.

use super::{Fixture, accept, new_job};
use crate::{NewJob, deliveries, events, hook_chains, jobs};
use kero_domain::{HeldReason, JobState, Priority, Timestamp};
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, QueryOrder, QueryTrait, Statement, Value};
use std::time::Instant;

async fn plan(fixture: &Fixture, sql: &str) -> String {
    let raw = fixture.raw().await;
    let explain = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = raw.query_all_raw(explain).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
    lines.join("\n")
}

#[tokio::test]
async fn hot_reads_use_their_indices() {
    let fixture = Fixture::sqlite().await;
    let sql = |statement: Statement| statement.sql;
    for (what, sql, index, sorts) in [
        ("lane", jobs::read::lane(16), "jobs_lane", false),
        ("in doubt", sql(jobs::read::sending(1).build(DbBackend::Sqlite)), "jobs_sending", false),
        ("receipts", jobs::receipt::update(2), "jobs_message", false),
        ("due jobs", jobs::read::due(false), "jobs_due", true),
        ("due deliveries", deliveries::heads_sql(false, 2, 16), "deliveries_due", true),
        ("lines", deliveries::lines_sql(false, 2, 32), "deliveries_line", true),
        (
            "dead letters",
            sql(jobs::dead::dead(&crate::DeadFilter { instance_pk: Some(1), ..Default::default() })
                .order_by_desc(crate::entity::jobs::Column::Id)
                .build(DbBackend::Sqlite)),
            "jobs_dead",
            false,
        ),
        ("calls by set", hook_chains::by_set_sql(false, 2, 16), "hook_chains_set", true),
        ("calls by row", hook_chains::by_row_sql(false, 70, 16), "INTEGER PRIMARY KEY (rowid<?)", false),
        ("calls of an event", hook_chains::by_row_sql(true, 2, 16), "hook_chains_event", false),
        ("pending events", sql(events::pending(1).build(DbBackend::Sqlite)), "events_pending", false),
    ] {
        let plan = plan(&fixture, &sql).await;
        assert!(plan.contains(index), "{what}: {plan}");
        assert!(sorts || !plan.contains("TEMP B-TREE"), "{what} sorts: {plan}");
        for table in ["jobs", "deliveries", "events", "c", "x"] {
            assert!(!plan.lines().any(|line| line.starts_with(&format!("SCAN {table}"))), "{what}: {plan}");
        }
    }
}

/// 100,000 jobs of an offline instance and as many of a connected one: the figures of the others stay what they were.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; run it by name"]
async fn a_backlog_costs_nobody_else() {
    for fixture in [Fixture::sqlite().await, Fixture::postgres().await] {
        let store = &fixture.store;
        let (quiet, epoch) = fixture.instance("quiet").await;
        let measure = async |what: &str| {
            let begin = Instant::now();
            for _ in 0..100 {
                let job = accept(store, new_job(&quiet, "chat", "x")).await;
                store.next_job(quiet.pk, "chat", Priority::Interactive, Timestamp::now()).await.unwrap();
                store.intend_job(job.id, quiet.pk, epoch, vec![1], Timestamp::now()).await.unwrap();
                let sent = crate::Settlement::Sent { at: Timestamp::now() };
                store.settle_job(job.id, quiet.pk, epoch, sent, None).await.unwrap();
            }
            let send = begin.elapsed() / 100;
            let begin = Instant::now();
            store.due_jobs(Timestamp::now(), 100).await.unwrap();
            println!("{:?} {what}: send {send:?}, polling pass {:?}", store.backend(), begin.elapsed());
        };
        measure("empty").await;
        let (offline, _) = fixture.instance("offline").await;
        let (busy, _) = fixture.instance("busy").await;
        let raw = fixture.raw().await;
        for (instance, held) in [(&offline, Some(HeldReason::Offline)), (&busy, None)] {
            let state = if held.is_some() { JobState::Held } else { JobState::Queued };
            let template = accept(store, NewJob { state, held, ..new_job(instance, "chat", "x") }).await;
            let numbers = if raw.get_database_backend() == DbBackend::Postgres {
                "SELECT n FROM generate_series(1, 100000) AS n"
            } else {
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c"
            };
            let id =
                if raw.get_database_backend() == DbBackend::Postgres { "gen_random_uuid()" } else { "randomblob(16)" };
            let sql = format!(
                "INSERT INTO jobs (id, instance_pk, correlation_id, message_id, chat, priority, content, state, held, due_at,
                 order_at, attempts, asynchronous, created_at, updated_at)
                 SELECT {id}, instance_pk, correlation_id || n, message_id || n, 'chat' || (n % 1000), priority, content,
                 state, held, due_at, order_at, attempts, asynchronous, created_at, updated_at
                 FROM jobs, ({numbers}) AS numbers WHERE id = $1"
            );
            let values = [Value::from(template.id.0)];
            raw.execute_raw(Statement::from_sql_and_values(raw.get_database_backend(), sql, values)).await.unwrap();
        }
        let all = crate::entity::jobs::Entity::find();
        assert!(sea_orm::PaginatorTrait::count(all, &raw).await.unwrap() > 200_000);
        measure("with 200,000 jobs").await;
    }
}
