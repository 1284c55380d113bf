//! For the integration tests of the workspace, which must not name sea-orm.

use crate::StoreError;
use sea_orm::{ConnectionTrait, Database};

/// Creates an empty database on a Postgres server.
pub async fn create_database(server: &str, name: &str) -> Result<(), StoreError> {
    let connection = Database::connect(server).await?;
    connection.execute_unprepared(&format!("CREATE DATABASE \"{name}\"")).await?;
    connection.close().await?;
    Ok(())
}

/// Runs statements on a database behind the gateway's back.
pub async fn execute(url: &str, sql: &str) -> Result<(), StoreError> {
    let connection = Database::connect(url).await?;
    connection.execute_unprepared(sql).await?;
    connection.close().await?;
    Ok(())
}
