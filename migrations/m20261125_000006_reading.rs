//! Events keep the message as WhatsApp sent it, for those who ask for it.

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
        // last in the row and read by name only: whoever does not ask for it does not load it
        manager.alter_table(Table::alter().table("events").add_column(blob_null("raw")).take()).await
    }
}
