//! Endpoints that can be told more, deliveries that remember more, and the indices of their lists.

use crate::table::each;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, columns) in [("endpoints", endpoints()), ("deliveries", deliveries()), ("attempts", attempts())] {
            for column in columns {
                // SQLite adds one column at a time
                manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
            }
        }
        each(manager, INDICES).await
    }
}

const INDICES: &[&str] = &[
    "DROP INDEX deliveries_event",
    "DROP INDEX deliveries_instance",
    "DROP INDEX deliveries_due",
    // an event goes to an endpoint once, however often it is planned
    "CREATE UNIQUE INDEX deliveries_once ON deliveries (event_pk, endpoint_id)",
    "CREATE INDEX deliveries_page ON deliveries (instance_pk, id)",
    "CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, id)",
    // by endpoint, so that the backlog of one that is down is not even looked at for the others
    "CREATE INDEX deliveries_due ON deliveries (endpoint_id, priority, next_at) WHERE state = 'pending' AND head",
    "CREATE INDEX events_message ON events (instance_pk, message_id) WHERE message_id IS NOT NULL",
];

fn endpoints() -> Vec<ColumnDef> {
    vec![
        // JSON: chats, kinds of chats, message types, direction
        text("narrow").default("{}").take(),
        // sealed JSON: names and values of further headers
        blob_null("headers"),
        // sealed JSON: earlier secrets and until when they sign, too
        blob_null("old_secrets"),
        // sealed: the seed of the ed25519 key
        blob_null("signing_key"),
        text("ordering").default("chat").take(),
        // deliveries a second
        integer_null("rate_limit"),
        big_integer_null("timeout_ms"),
        // JSON: milliseconds
        text_null("schedule"),
        text_null("disabled_reason"),
        big_integer_null("disabled_at"),
        // the first failure since the last success
        big_integer_null("failing_since"),
    ]
}

fn deliveries() -> Vec<ColumnDef> {
    vec![
        // 0 before 1
        small_integer("priority").default(1).take(),
        // attempts that the retry schedule does not count: probes, and those before a replay
        integer("uncounted").default(0).take(),
        text("triggered_by").default("event").take(),
        // sealed: what every attempt sends, once an attempt failed or a hook shaped it
        blob_null("request"),
    ]
}

fn attempts() -> Vec<ColumnDef> {
    vec![
        text("triggered_by").default("event").take(),
        big_integer_null("dns_ms"),
        big_integer_null("connect_ms"),
        big_integer_null("first_byte_ms"),
        big_integer_null("next_at"),
    ]
}
