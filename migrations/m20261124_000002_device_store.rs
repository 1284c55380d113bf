//! What the WhatsApp client keeps for an instance: identity, Signal state, app state, caches.

use crate::table::{each, owned};
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
        for table in tables() {
            manager.create_table(table).await?;
        }
        each(manager, INDICES).await
    }
}

const INDICES: &[&str] = &[
    "CREATE INDEX sender_key_devices_device ON sender_key_devices (instance_pk, device_jid)",
    "CREATE INDEX lid_mappings_phone ON lid_mappings (instance_pk, phone)",
    "CREATE INDEX sent_messages_age ON sent_messages (instance_pk, stored_at)",
    "CREATE INDEX pending_inbound_age ON pending_inbound (instance_pk, stored_at)",
    "CREATE INDEX msg_secrets_expiry ON msg_secrets (instance_pk, expires_secs) WHERE expires_secs > 0",
];

fn tables() -> Vec<TableCreateStatement> {
    vec![
        owned("device", &[], &[blob("record"), big_integer("updated_at")]),
        owned("identities", &[text("address")], &[blob("record")]),
        owned("sessions", &[text("address")], &[blob("record")]),
        owned("prekeys", &[big_integer("id")], &[blob("record"), boolean("uploaded")]),
        owned("signed_prekeys", &[big_integer("id")], &[blob("record")]),
        owned("sender_keys", &[text("address")], &[blob("record")]),
        owned("sender_key_devices", &[text("group_jid"), text("device_jid")], &[boolean("has_key")]),
        // position: the order in which keys were stored
        owned("app_state_keys", &[blob("key_id")], &[blob("record"), big_integer("position")]),
        owned("app_state_versions", &[text("name")], &[blob("record")]),
        owned("app_state_macs", &[text("name"), blob("index_mac")], &[blob("value_mac"), big_integer("version")]),
        owned(
            "lid_mappings",
            &[text("lid")],
            &[text("phone"), big_integer("created_secs"), big_integer("updated_secs"), text("source")],
        ),
        owned("base_keys", &[text("address"), text("message_id")], &[blob("record")]),
        owned("device_lists", &[text("account")], &[text("record")]),
        owned("group_metadata", &[text("group_jid")], &[blob("record")]),
        // token: sealed, or empty while only the sender's time is known
        owned(
            "tc_tokens",
            &[text("jid")],
            &[blob("token"), big_integer("token_secs"), big_integer_null("sender_secs")],
        ),
        owned("sent_messages", &[text("chat"), text("message_id")], &[blob("payload"), big_integer("stored_at")]),
        owned(
            "msg_secrets",
            &[text("chat"), text("sender"), text("message_id")],
            &[blob("secret"), big_integer("expires_secs"), big_integer("message_secs")],
        ),
        owned(
            "pending_inbound",
            &[text("chat"), text("sender"), text("message_id")],
            &[blob("message"), big_integer("stored_at")],
        ),
    ]
}
