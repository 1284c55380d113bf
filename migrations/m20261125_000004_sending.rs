//! Dead letters that are retried or discarded, and what retention looks for.

use crate::table::each;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        each(manager, STATEMENTS).await
    }
}

const STATEMENTS: &[&str] = &[
    // how often the dead letter was retried; each retry is a promise of its own, with a message_ack of its own
    "ALTER TABLE jobs ADD COLUMN retries INTEGER NOT NULL DEFAULT 0",
    // attempts of the promises before, which do not count against this one's limit
    "ALTER TABLE jobs ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0",
    // a failed job that is no dead letter any more
    "ALTER TABLE jobs ADD COLUMN discarded_at BIGINT",
    "CREATE INDEX jobs_dead ON jobs (instance_pk, id) WHERE state = 'failed' AND asynchronous AND discarded_at IS NULL",
    "CREATE INDEX jobs_dead_all ON jobs (id) WHERE state = 'failed' AND asynchronous AND discarded_at IS NULL",
    // events that a hook dropped have no number, by which retention finds the others
    "CREATE INDEX events_dropped ON events (instance_pk, pk) WHERE fanout = 2",
];
