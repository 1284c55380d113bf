//! Instances, keys, jobs, events and their deliveries.

use crate::table::{OWNER, each, references};
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [settings(), instances(), api_keys(), jobs(), idempotency(), events(), endpoints()] {
            manager.create_table(table).await?;
        }
        for mut table in [deliveries(), attempts()] {
            // rows that are only ever found by their key lie in its index: SQLite writes one tree instead of two
            if manager.get_database_backend() == DbBackend::Sqlite {
                table.extra("WITHOUT ROWID");
            }
            manager.create_table(table).await?;
        }
        each(manager, INDICES).await
    }
}

const INDICES: &[&str] = &[
    "CREATE INDEX api_keys_instance ON api_keys (instance_pk)",
    "CREATE UNIQUE INDEX jobs_correlation ON jobs (instance_pk, correlation_id)",
    "CREATE INDEX jobs_message ON jobs (instance_pk, message_id)",
    "CREATE INDEX jobs_page ON jobs (instance_pk, id)",
    // the head of a lane, whatever waits behind it
    "CREATE INDEX jobs_lane ON jobs (instance_pk, chat, priority, order_at, id) WHERE ended_at IS NULL",
    // the polling pass; an offline instance's jobs are not in it, however many there are
    "CREATE INDEX jobs_due ON jobs (instance_pk, due_at, id) WHERE ended_at IS NULL AND state <> 'sending' AND (held IS NULL OR held <> 'offline')",
    "CREATE INDEX jobs_sending ON jobs (instance_pk, id) WHERE state = 'sending'",
    "CREATE INDEX idempotency_instance ON idempotency (instance_pk)",
    "CREATE INDEX idempotency_expiry ON idempotency (expires_at)",
    "CREATE INDEX idempotency_job ON idempotency (job_id)",
    "CREATE UNIQUE INDEX events_dedupe ON events (instance_pk, dedupe_key)",
    "CREATE UNIQUE INDEX events_seq ON events (instance_pk, seq)",
    "CREATE INDEX events_pending ON events (instance_pk, pk) WHERE fanout = 0",
    "CREATE INDEX endpoints_instance ON endpoints (instance_pk)",
    "CREATE INDEX deliveries_event ON deliveries (event_pk)",
    "CREATE INDEX deliveries_instance ON deliveries (instance_pk)",
    // the successor of a head, and what the due pass may take at all
    "CREATE INDEX deliveries_line ON deliveries (endpoint_id, instance_pk, order_key, event_pk) WHERE state = 'pending'",
    "CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'pending' AND head",
];

fn settings() -> TableCreateStatement {
    Table::create().table("settings").col(string("name").primary_key()).col(blob("value")).take()
}

fn instances() -> TableCreateStatement {
    Table::create()
        .table("instances")
        // never given twice, so that nothing of a deleted instance can be taken for a new one's
        .col(big_pk_auto("pk"))
        .col(text_uniq("id"))
        .col(text_null("name"))
        .col(boolean("wanted"))
        .col(text("status"))
        .col(text_null("cause"))
        .col(big_integer("since"))
        .col(text_null("phone"))
        .col(text_null("lid"))
        .col(text_null("jid"))
        .col(text_null("push_name"))
        .col(boolean("sync_history"))
        .col(big_integer("owner_epoch"))
        .col(big_integer("next_seq"))
        .col(big_integer_null("last_connected_at"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .take()
}

fn api_keys() -> TableCreateStatement {
    Table::create()
        .table("api_keys")
        .col(pk_uuid("id"))
        .col(blob("hash").unique_key())
        .col(text_null("name"))
        .col(big_integer_null(OWNER))
        .col(big_integer("created_at"))
        .col(big_integer_null("revoked_at"))
        .foreign_key(&mut references("api_keys", OWNER, "instances", "pk"))
        .take()
}

fn jobs() -> TableCreateStatement {
    Table::create()
        .table("jobs")
        .col(pk_uuid("id"))
        .col(big_integer(OWNER))
        .col(text("correlation_id"))
        .col(text("message_id"))
        .col(text("chat"))
        .col(text("priority"))
        .col(blob("content"))
        .col(blob_null("proto"))
        .col(text("state"))
        .col(text_null("held"))
        .col(big_integer("due_at"))
        .col(big_integer_null("send_at"))
        // coalesce(send_at, created_at): the order within a lane
        .col(big_integer("order_at"))
        .col(integer("attempts"))
        .col(boolean("asynchronous"))
        .col(text_null("error_code"))
        .col(text_null("error"))
        .col(text_null("request_id"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .col(big_integer_null("ended_at"))
        .foreign_key(&mut references("jobs", OWNER, "instances", "pk"))
        .take()
}

fn idempotency() -> TableCreateStatement {
    Table::create()
        .table("idempotency")
        .col(uuid("api_key_id"))
        .col(text("idem_key"))
        .col(big_integer(OWNER))
        .col(uuid("job_id"))
        .col(blob("body_hash"))
        .col(big_integer("expires_at"))
        .primary_key(Index::create().col("api_key_id").col("idem_key"))
        .foreign_key(&mut references("idempotency", OWNER, "instances", "pk"))
        .take()
}

fn events() -> TableCreateStatement {
    Table::create()
        .table("events")
        .col(big_pk_auto("pk"))
        .col(uuid_uniq("id"))
        .col(big_integer(OWNER))
        .col(text("kind"))
        .col(text("order_key"))
        .col(text_null("dedupe_key"))
        .col(big_integer_null("seq"))
        // 0 pending, 1 fanned out, 2 dropped by a hook
        .col(small_integer("fanout"))
        .col(big_integer("occurred_at"))
        .col(text_null("message_id"))
        .col(blob("data"))
        .col(text_null("request_id"))
        .foreign_key(&mut references("events", OWNER, "instances", "pk"))
        .take()
}

fn endpoints() -> TableCreateStatement {
    Table::create()
        .table("endpoints")
        .col(pk_uuid("id"))
        // NULL: receives the events of every instance
        .col(big_integer_null(OWNER))
        .col(text("url"))
        .col(text("events"))
        .col(blob_null("secret"))
        .col(boolean("enabled"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(&mut references("endpoints", OWNER, "instances", "pk"))
        .take()
}

fn deliveries() -> TableCreateStatement {
    Table::create()
        .table("deliveries")
        .col(pk_uuid("id"))
        .col(uuid("endpoint_id"))
        .col(big_integer("event_pk"))
        .col(big_integer(OWNER))
        .col(text("order_key"))
        .col(text("state"))
        // the oldest pending one of its (endpoint, instance, order key); only heads are ever due
        .col(boolean("head"))
        .col(integer("attempts"))
        .col(big_integer("next_at"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(&mut references("deliveries", "endpoint_id", "endpoints", "id"))
        .foreign_key(&mut references("deliveries", "event_pk", "events", "pk"))
        .foreign_key(&mut references("deliveries", OWNER, "instances", "pk"))
        .take()
}

fn attempts() -> TableCreateStatement {
    Table::create()
        .table("attempts")
        .col(uuid("delivery_id"))
        .col(integer("n"))
        .col(big_integer("started_at"))
        .col(integer_null("http_status"))
        .col(text_null("error"))
        .col(big_integer("total_ms"))
        .col(blob_null("response_head"))
        .primary_key(Index::create().col("delivery_id").col("n"))
        .foreign_key(&mut references("attempts", "delivery_id", "deliveries", "id"))
        .take()
}
