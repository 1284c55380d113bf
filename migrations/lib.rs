//! The schema, one for SQLite and Postgres. A migration is never edited after landing; the next one changes it.
//!
//! Times are `i64` Unix milliseconds (a database's own time types sort or round differently); a column whose
//! name ends in `_secs` keeps the protocol's Unix seconds. Columns that hold sealed bytes are blobs.

use sea_orm_migration::prelude::*;

mod m20261124_000001_gateway;
mod m20261124_000002_device_store;
mod m20261125_000003_delivery;
mod m20261125_000004_sending;
mod m20261125_000005_hooks;
mod m20261125_000006_reading;
mod m20261128_000007_raw_in_webhooks;
mod m20261128_000008_receipts_before_results;
mod table;

/// All migrations, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_gateway::Migration),
            Box::new(m20261124_000002_device_store::Migration),
            Box::new(m20261125_000003_delivery::Migration),
            Box::new(m20261125_000004_sending::Migration),
            Box::new(m20261125_000005_hooks::Migration),
            Box::new(m20261125_000006_reading::Migration),
            Box::new(m20261128_000007_raw_in_webhooks::Migration),
            Box::new(m20261128_000008_receipts_before_results::Migration),
        ]
    }
}
