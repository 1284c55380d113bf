//! For the integration tests of the workspace, which must not name sea-orm.

use crate::StoreError;
use sea_orm::{ConnectionTrait, Database, Statement};

/// Creates an empty database on a Postgres server.
pub async fn create_database(server: &str, name: &str) -> Result<(), StoreError> {
    let connection = Database::connect(server).await?;
    connection.execute_unprepared(&format!("CREATE DATABASE \"{name}\"")).await?;
    connection.close().await?;
    Ok(())
}

/// The texts that a query gives, read behind the gateway's back.
pub async fn texts(url: &str, sql: &str) -> Result<Vec<String>, StoreError> {
    let connection = Database::connect(url).await?;
    let backend = connection.get_database_backend();
    let rows = connection.query_all_raw(Statement::from_string(backend, sql)).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}

/// Runs statements on a database behind the gateway's back.
pub async fn execute(url: &str, sql: &str) -> Result<(), StoreError> {
    let connection = Database::connect(url).await?;
    connection.execute_unprepared(sql).await?;
    connection.close().await?;
    Ok(())
}
