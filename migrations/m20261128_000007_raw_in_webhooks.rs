//! Endpoints that want messages as WhatsApp sent them, beside the event's own words.

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
        let mut wanted = boolean("include_raw");
        wanted.default(false);
        manager.alter_table(Table::alter().table("endpoints").add_column(wanted).take()).await
    }
}
