//! One way to run SQL: a counted connection or transaction, and the few shorthands that both databases share.
//!
//! Plain statements are written with `$1` placeholders, which both databases read.

use crate::StoreError;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, EntityTrait, ExecResult, QueryResult,
    QueryTrait, Select, SelectModel, SelectorRaw, Statement, Value,
};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bind parameters in one statement: SQLite takes 32,766, Postgres 65,535.
pub(crate) const MAX_BINDS: usize = 30_000;

/// SQLite takes `$1` for a name and looks each one up among all: with many of them that costs more than the rows.
const FEW_BINDS: usize = 32;

/// The same statement with `?` for its placeholders, where they stand in order and each but once.
fn positional(sql: String) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql.as_str();
    let mut expected = 1;
    while let Some(place) = rest.find('$') {
        let digits = rest[place + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if rest[place + 1..place + 1 + digits].parse() != Ok(expected) {
            return sql;
        }
        expected += 1;
        text.push_str(&rest[..place]);
        text.push('?');
        rest = &rest[place + 1 + digits..];
    }
    text.push_str(rest);
    text
}

/// How much the store did since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub statements: AtomicU64,
    pub commands: AtomicU64,
}

/// A pool or a transaction whose statements are counted.
pub(crate) struct Db {
    on: On,
    counters: Arc<Counters>,
}

enum On {
    Pool(DatabaseConnection),
    Transaction(DatabaseTransaction),
}

impl Db {
    pub(crate) fn pool(pool: DatabaseConnection, counters: Arc<Counters>) -> Self {
        Self { on: On::Pool(pool), counters }
    }

    pub(crate) fn transaction(transaction: DatabaseTransaction, counters: Arc<Counters>) -> Self {
        Self { on: On::Transaction(transaction), counters }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        if let On::Transaction(transaction) = self.on {
            transaction.commit().await?;
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        if let On::Transaction(transaction) = self.on {
            transaction.rollback().await?;
        }
        Ok(())
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.get_database_backend() == DbBackend::Postgres
    }

    pub(crate) fn statement(&self, sql: impl Into<String>, values: Vec<Value>) -> Statement {
        let mut sql = sql.into();
        if !self.is_postgres() && values.len() > FEW_BINDS {
            sql = positional(sql);
        }
        Statement::from_sql_and_values(self.get_database_backend(), sql, values)
    }

    /// The first rows of a query. The limit stands in the text: SQLite prepares a statement with it as a parameter anew
    /// each time that it is run.
    pub(crate) fn first<E: EntityTrait>(&self, find: Select<E>, limit: u64) -> SelectorRaw<SelectModel<E::Model>> {
        let mut statement = find.build(self.get_database_backend());
        let _ = write!(statement.sql, " LIMIT {limit}");
        E::find().from_raw_sql(statement)
    }

    /// Runs a statement; the number of rows it touched.
    pub(crate) async fn run(&self, sql: impl Into<String>, values: Vec<Value>) -> Result<u64, StoreError> {
        Ok(self.execute_raw(self.statement(sql, values)).await?.rows_affected())
    }

    pub(crate) async fn all(&self, sql: impl Into<String>, values: Vec<Value>) -> Result<Vec<QueryResult>, StoreError> {
        Ok(self.query_all_raw(self.statement(sql, values)).await?)
    }

    pub(crate) async fn one(
        &self,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(self.query_one_raw(self.statement(sql, values)).await?)
    }

    fn count(&self) {
        self.counters.statements.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Db {
    fn get_database_backend(&self) -> DbBackend {
        match &self.on {
            On::Pool(pool) => pool.get_database_backend(),
            On::Transaction(transaction) => transaction.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.count();
        match &self.on {
            On::Pool(pool) => pool.execute_raw(statement).await,
            On::Transaction(transaction) => transaction.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.count();
        match &self.on {
            On::Pool(pool) => pool.execute_unprepared(sql).await,
            On::Transaction(transaction) => transaction.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.count();
        match &self.on {
            On::Pool(pool) => pool.query_one_raw(statement).await,
            On::Transaction(transaction) => transaction.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.count();
        match &self.on {
            On::Pool(pool) => pool.query_all_raw(statement).await,
            On::Transaction(transaction) => transaction.query_all_raw(statement).await,
        }
    }
}

/// The values of a statement: `values![pk, name, at]`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(sea_orm::Value::from($value)),*] };
}
pub(crate) use values;

/// `$4, $5, $6`: `count` placeholders after the first `taken`.
pub(crate) fn placeholders(taken: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for n in taken + 1..=taken + count {
        let comma = if n == taken + 1 { "" } else { ", " };
        let _ = write!(text, "{comma}${n}");
    }
    text
}

/// Rows up to which a statement comes in few shapes: [`few_shapes`] fills as far.
pub(crate) const FILLED: usize = 256;

/// Repeats the last row of a list until there are 2^n or 3·2^n of them; how many there are then. So a statement over
/// whatever number of rows has few texts, and is found among those that the connection has prepared, which costs more
/// than to run it. Only for statements to which a row that is there twice is there once.
pub(crate) fn few_shapes<T: Clone>(values: &mut Vec<T>, rows: usize, width: usize) -> usize {
    if rows == 0 || rows > FILLED {
        return rows;
    }
    let power = rows.next_power_of_two();
    let filled = if rows > 2 && rows <= power / 4 * 3 { power / 4 * 3 } else { power };
    let last = values.len() - width;
    for _ in rows..filled {
        values.extend_from_within(last..last + width);
    }
    filled
}

/// `($1, $2), ($3, $4)`: the rows of a VALUES list of `width` columns.
pub(crate) fn tuples(taken: usize, rows: usize, width: usize) -> String {
    let mut text = String::with_capacity(rows * width * 6);
    for row in 0..rows {
        let comma = if row == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}({})", placeholders(taken + row * width, width));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Value, few_shapes};

    #[test]
    fn placeholders_in_order_need_no_numbers() {
        let same = |sql: &str| assert_eq!(super::positional(sql.to_owned()), sql);
        assert_eq!(super::positional("a = $1 AND b IN ($2, $3)".to_owned()), "a = ? AND b IN (?, ?)");
        same("a = $2 AND b = $1");
        same("a = $1 OR b = $1");
        same("a = '$'");
        same("a = 1");
    }

    #[test]
    fn lists_are_filled_to_few_lengths() {
        let filled = |count: i32| {
            let mut values: Vec<Value> = (0..count * 2 + 1).map(Value::from).collect();
            let rows = few_shapes(&mut values, count as usize, 2);
            assert_eq!(values.len(), rows * 2 + 1);
            assert!(values.ends_with(&[Value::from(count * 2 - 1), Value::from(count * 2)]) || count == 0);
            rows
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 7, 64, 65, 97, 256].map(filled), [0, 1, 2, 3, 4, 6, 8, 64, 96, 128, 256]);
        assert_eq!(filled(257), 257);
    }

    #[test]
    fn numbers_placeholders() {
        assert_eq!(super::placeholders(2, 3), "$3, $4, $5");
        assert_eq!(super::tuples(1, 2, 2), "($2, $3), ($4, $5)");
        assert_eq!(super::placeholders(0, 0), "");
    }
}
