//! Opening a database: pools, pragmas, migrations, the master key's check value.

use crate::entity::settings;
use crate::seal::{Sealer, place};
use crate::sql::{Db, values};
use crate::{Database, Durability, StoreConfig, StoreError};
use kero_migrations::Migrator;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, EntityTrait};
use sea_orm_migration::MigratorTrait;
use std::time::Duration;

/// How long to wait for a connection, or for a lock that another process holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the writing connection of SQLite keeps of the file, in KiB when negative: the pages of the present work, so that
/// they are not read again for each group.
const CACHE: &str = "-16384";
/// Pages in the write-ahead log of SQLite before they are put into their places, each once however often it changed:
/// 32 MiB.
const CHECKPOINT: &str = "8000";
/// Prepared statements that a connection keeps: those of every kind in each of their shapes.
const PREPARED: usize = 400;
/// Rows of an answer that the driver's thread may be ahead of its reader: an ordinary answer, whole.
const ROWS: usize = 512;
/// SQLite's page, unless an older file has another one.
const SQLITE_PAGE: u64 = 4_096;
/// Any number: whoever migrates a Postgres database holds this advisory lock.
const MIGRATION_LOCK: i64 = 0x6b65_726f;

pub(crate) fn kind(url: &str) -> Result<Database, StoreError> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" if url.contains(":memory:") || url.contains("mode=memory") => {
            Err(StoreError::Address("an in-memory database has no readers; give a file".to_owned()))
        }
        "sqlite" => Ok(Database::Sqlite),
        "postgres" | "postgresql" => Ok(Database::Postgres),
        // the rest of the address may hold a password
        other => Err(StoreError::Address(format!("unknown scheme {other:?}; use sqlite:// or postgres://"))),
    }
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections.max(1))
        .min_connections(1)
        .acquire_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
        .idle_timeout(None::<Duration>)
        .max_lifetime(None::<Duration>)
        // a round trip before every transaction; a dead connection shows in its first statement just as well
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_opts(|options| options.statement_cache_capacity(PREPARED));
    options
}

/// The connections that write. SQLite has one, and only its task uses it.
pub(crate) async fn writer(url: &str, config: &StoreConfig) -> Result<DatabaseConnection, StoreError> {
    let connection = match kind(url)? {
        Database::Sqlite => {
            let mut options = options(url, 1);
            options.map_sqlx_sqlite_opts(|options| {
                options
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(PATIENCE)
                    .statement_cache_capacity(PREPARED)
                    .row_buffer_size(ROWS)
                    .pragma("cache_size", CACHE)
                    .pragma("wal_autocheckpoint", CHECKPOINT)
                    // what a statement may have to take back is kept in memory, not in a file
                    .pragma("temp_store", "MEMORY")
            });
            if config.max_size > 0 {
                let pages = (config.max_size / SQLITE_PAGE).max(1).to_string();
                options.map_sqlx_sqlite_opts(move |options| options.pragma("max_page_count", pages.clone()));
            }
            sea_orm::Database::connect(options).await?
        }
        Database::Postgres => sea_orm::Database::connect(options(url, config.writers)).await?,
    };
    Ok(connection)
}

/// The connections that only read.
pub(crate) async fn reader(url: &str, config: &StoreConfig) -> Result<DatabaseConnection, StoreError> {
    let mut options = options(url, config.readers);
    if kind(url)? == Database::Sqlite {
        options.map_sqlx_sqlite_opts(|options| {
            options
                .read_only(true)
                .create_if_missing(false)
                .busy_timeout(PATIENCE)
                .statement_cache_capacity(PREPARED)
                .row_buffer_size(ROWS)
        });
    }
    Ok(sea_orm::Database::connect(options).await?)
}

/// Applies what is missing; the names of what was applied. Processes that start together take turns.
pub(crate) async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    let config = StoreConfig {
        url: url.to_owned(),
        durability: Durability::Power,
        master_key: crate::MasterKey::from_bytes([0; 32]),
        readers: 1,
        writers: 1,
        max_size: 0,
    };
    let connection = writer(url, &config).await?;
    let postgres = kind(url)? == Database::Postgres;
    if postgres {
        connection.execute_unprepared(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).await?;
    }
    let applied = apply(&connection).await;
    // the lock goes with the connection
    connection.close().await?;
    applied
}

async fn apply(connection: &DatabaseConnection) -> Result<Vec<String>, StoreError> {
    let pending = Migrator::get_pending_migrations(connection).await?;
    let names = pending.iter().map(|migration| migration.name().to_owned()).collect();
    Migrator::up(connection, None).await?;
    Ok(names)
}

const CHECK: &str = "master_key_check";
const CHECK_VALUE: &[u8] = b"kero";

/// Refuses a key that did not write this database: the first open seals a value, every later one opens it.
pub(crate) async fn verify_key(db: &Db, sealer: &Sealer) -> Result<(), StoreError> {
    let place = place("settings", 0, CHECK);
    let fresh = sealer.seal(&place, CHECK_VALUE)?;
    db.run("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", values![CHECK, fresh])
        .await?;
    let stored = settings::Entity::find_by_id(CHECK).one(db).await?.ok_or(StoreError::Corrupt("master key check"))?;
    match sealer.open("master key check", &place, &stored.value) {
        Ok(value) if value == CHECK_VALUE => Ok(()),
        _ => Err(StoreError::WrongMasterKey),
    }
}
