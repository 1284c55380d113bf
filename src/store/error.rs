//! What can go wrong in the store.

use kero_domain::Class;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use std::error::Error;
use std::sync::Arc;

/// A failed read or write. The source is kept for the log; it is never shown to a client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or is locked by somebody else.
    #[error("the database is unavailable")]
    Unavailable(#[source] Source),
    /// No space is left for the database.
    #[error("the disk is full")]
    Full(#[source] Source),
    /// The instance is owned by a later epoch, was deleted, or its writes are refused since a pending inbound
    /// message could not be stored. Whoever holds the old epoch must stop.
    #[error("the instance's ownership has moved on")]
    EpochLost,
    /// The database was written with another master key.
    #[error("the master key is not the one that this database was written with")]
    WrongMasterKey,
    /// Something with this identity exists; the text names what.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// The row is not there.
    #[error("not found")]
    NotFound,
    /// A row cannot be read: sealed for another place or key, or a word of a newer version.
    #[error("a stored {0} cannot be read")]
    Corrupt(&'static str),
    /// The address names no database that this build can use.
    #[error("the database address is not usable: {0}")]
    Address(String),
    /// [`crate::Store::close`] was called.
    #[error("the store is closed")]
    Closed,
    /// The database refused a statement.
    #[error("the database refused a statement")]
    Bug(#[source] Source),
}

/// The underlying error.
pub type Source = Arc<dyn Error + Send + Sync>;

impl StoreError {
    /// Whose fault it is, and whether trying again helps.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) | Self::EpochLost | Self::Closed => Class::Transient,
            Self::Full(_) | Self::WrongMasterKey | Self::Corrupt(_) | Self::Address(_) => Class::Permanent,
            Self::Conflict(_) | Self::NotFound => Class::Caller,
            Self::Bug(_) => Class::Bug,
        }
    }

    /// The message and those of its sources, for the log. Neither database puts a row's values in there.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// Two transactions met; the loser only has to try again.
    pub(crate) fn lost_a_race(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        let Some(error) = source.downcast_ref::<DbErr>() else { return false };
        matches!(code(error).as_deref(), Some("40001" | "40P01"))
    }

    pub(crate) fn bug(message: &'static str) -> Self {
        Self::Bug(Arc::from(Box::<dyn Error + Send + Sync>::from(message)))
    }
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// SQLSTATE on Postgres, the extended result code on SQLite.
fn code(error: &DbErr) -> Option<String> {
    match sqlx_error(error)? {
        sqlx::Error::Database(error) => error.code().map(|code| code.into_owned()),
        _ => None,
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        if matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) {
            return Self::Unavailable(Arc::new(error));
        }
        let lost = matches!(
            sqlx_error(&error),
            Some(
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::Protocol(_)
            )
        );
        let code = code(&error);
        let source: Source = Arc::new(error);
        match code.as_deref() {
            _ if lost => Self::Unavailable(source),
            // what a row belongs to is gone: foreign_key_violation; SQLITE_CONSTRAINT_FOREIGNKEY
            Some("23503" | "787") => Self::NotFound,
            // unique_violation; SQLITE_CONSTRAINT_UNIQUE, _PRIMARYKEY
            Some("23505" | "2067" | "1555") => Self::Conflict("row"),
            // disk_full; SQLITE_FULL
            Some("53100" | "13") => Self::Full(source),
            Some(state)
                if state.len() == 5 && ["08", "40", "53", "55", "57"].iter().any(|class| state.starts_with(class)) =>
            {
                Self::Unavailable(source)
            }
            // SQLITE_BUSY, LOCKED, READONLY, IOERR, CANTOPEN with their extensions
            Some(number)
                if number.len() < 5 && number.parse::<u32>().is_ok_and(|n| matches!(n & 0xff, 5 | 6 | 8 | 10 | 14)) =>
            {
                Self::Unavailable(source)
            }
            _ => Self::Bug(source),
        }
    }
}
