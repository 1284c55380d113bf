//! Hooks: plugins and their versions, what their calls came to, what they store and send.

use crate::table::{OWNER, each, references};
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
        for table in [plugins(), plugin_versions(), hook_sets(), hook_chains(), hook_kv(), hook_sends()] {
            manager.create_table(table).await?;
        }
        each(manager, STATEMENTS).await
    }
}

const STATEMENTS: &[&str] = &[
    // what the chain of transforms said; NULL where none was called
    "ALTER TABLE events ADD COLUMN verdict TEXT",
    // `plugin/kind` of hooks that failed and were passed by, for the receivers
    "ALTER TABLE events ADD COLUMN hook_errors TEXT",
    // the newest chains of a set
    "CREATE INDEX hook_chains_set ON hook_chains (set_pk, pk)",
    "CREATE INDEX hook_chains_event ON hook_chains (event_pk)",
    "CREATE INDEX hook_kv_instance ON hook_kv (instance_pk)",
    "CREATE INDEX hook_kv_expiry ON hook_kv (expires_at) WHERE expires_at IS NOT NULL",
    // causality, and the quota of a chat
    "CREATE INDEX hook_sends_message ON hook_sends (instance_pk, message_id)",
    "CREATE INDEX hook_sends_chat ON hook_sends (instance_pk, plugin, chat, created_at)",
];

fn plugins() -> TableCreateStatement {
    Table::create()
        .table("plugins")
        .col(string("name").primary_key())
        .col(text_null("active"))
        // what a roll-back goes to
        .col(text_null("previous"))
        .col(boolean("suspended"))
        // what the operator gave; NULL before anybody decided
        .col(text_null("grants"))
        // sealed: holds secrets
        .col(blob_null("config"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .take()
}

fn plugin_versions() -> TableCreateStatement {
    Table::create()
        .table("plugin_versions")
        .col(string("plugin"))
        .col(string("version"))
        .col(text("hash"))
        .col(text("manifest"))
        // what the upload was answered
        .col(text("report"))
        .col(big_integer("bytes"))
        .col(blob("artefact"))
        .col(big_integer("created_at"))
        .primary_key(Index::create().col("plugin").col("version"))
        .foreign_key(&mut references("plugin_versions", "plugin", "plugins", "name"))
        .take()
}

/// How the calls of a chain ended: `plugin=outcome` for each, with spaces between. Few differ, so they are kept for good.
fn hook_sets() -> TableCreateStatement {
    Table::create()
        .table("hook_sets")
        .col(big_pk_auto("pk"))
        // SHA-256 of the text, which may be too long for an index
        .col(blob("hash").unique_key())
        .col(text("calls"))
        .take()
}

/// A row for each run of a chain. Its instance is the event's, which takes it along.
fn hook_chains() -> TableCreateStatement {
    Table::create()
        .table("hook_chains")
        .col(big_pk_auto("pk"))
        .col(big_integer("event_pk"))
        .col(uuid_null("delivery_id"))
        .col(big_integer("ran_at"))
        // no foreign key: a lock on each set for each chain would be in everybody's way
        .col(big_integer("set_pk"))
        // sealed JSON: what each call used, its note and its log, which may repeat what the event says
        .col(blob("calls"))
        .foreign_key(&mut references("hook_chains", "event_pk", "events", "pk"))
        .take()
}

fn hook_kv() -> TableCreateStatement {
    Table::create()
        .table("hook_kv")
        .col(string("plugin"))
        .col(big_integer(OWNER))
        // bytes: a guest's text may hold what a database's text may not
        .col(blob("entry"))
        .col(blob("value"))
        // of the key and the plain value
        .col(big_integer("bytes"))
        .col(big_integer_null("expires_at"))
        .col(big_integer("updated_at"))
        .primary_key(Index::create().col("plugin").col(OWNER).col("entry"))
        .foreign_key(&mut references("hook_kv", OWNER, "instances", "pk"))
        .take()
}

fn hook_sends() -> TableCreateStatement {
    Table::create()
        .table("hook_sends")
        .col(pk_uuid("job_id"))
        .col(text("plugin"))
        .col(big_integer(OWNER))
        .col(text("chat"))
        .col(text("message_id"))
        .col(big_integer("created_at"))
        .foreign_key(&mut references("hook_sends", "job_id", "jobs", "id"))
        .foreign_key(&mut references("hook_sends", OWNER, "instances", "pk"))
        .take()
}
