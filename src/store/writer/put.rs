//! Rows into device tables: one multi-row upsert per table and group.

use super::{Answer, Tx};
use crate::StoreError;
use crate::sql::{FILLED, MAX_BINDS, few_shapes, tuples};
use sea_orm::{EntityName, EntityTrait, IdenStatic, Iterable, ModelTrait, PrimaryKeyToColumn, Value};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What happens to a row whose key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConflict {
    /// The new values replace the old ones.
    Replace,
    /// This `SET` clause, and `WHERE` if any; `excluded` is the new row. Setting the same row twice must be setting it once.
    Set(&'static str),
}

/// Rows for one table.
pub(crate) struct Put {
    table: &'static str,
    columns: Vec<&'static str>,
    /// Which of the columns are the key.
    keys: Vec<usize>,
    conflict: OnConflict,
    rows: Vec<Vec<Value>>,
    pub answer: Answer<()>,
}

impl Put {
    pub(crate) fn new<M: ModelTrait>(models: &[M], conflict: OnConflict, answer: Answer<()>) -> Self {
        let columns: Vec<_> = <M::Entity as EntityTrait>::Column::iter().collect();
        let keys: Vec<&str> =
            <M::Entity as EntityTrait>::PrimaryKey::iter().map(|key| key.into_column().as_str()).collect();
        Self {
            table: M::Entity::default().table_name(),
            keys: (0..columns.len()).filter(|n| keys.contains(&columns[*n].as_str())).collect(),
            conflict,
            rows: models.iter().map(|model| columns.iter().map(|column| model.get(*column)).collect()).collect(),
            columns: columns.iter().map(|column| column.as_str()).collect(),
            answer,
        }
    }

    pub(crate) fn table(&self) -> &'static str {
        self.table
    }

    /// Puts of one kind may share a statement.
    pub(crate) fn kind(&self) -> (&'static str, OnConflict) {
        (self.table, self.conflict)
    }

    fn key(&self, row: &[Value]) -> String {
        let mut text = String::new();
        for n in &self.keys {
            text.push_str(&format!("{:?}\u{1}", row[*n]));
        }
        text
    }

    fn insert(&self, rows: usize) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|n| self.columns[*n]).collect();
        let set = match self.conflict {
            OnConflict::Set(clause) => clause.to_owned(),
            OnConflict::Replace => {
                let others = self.columns.iter().filter(|column| !keys.contains(column));
                others.map(|column| format!("{column} = excluded.{column}")).collect::<Vec<_>>().join(", ")
            }
        };
        format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT ({}) DO UPDATE SET {set}",
            self.table,
            self.columns.join(", "),
            tuples(0, rows, self.columns.len()),
            keys.join(", "),
        )
    }
}

/// Runs puts of one kind, in order. No statement has a key twice (Postgres refuses that): of replacing rows the last
/// one counts, others are split.
pub(super) async fn run(tx: &Tx, puts: &mut [&mut Put]) -> Result<(), StoreError> {
    let Some(first) = puts.first() else { return Ok(()) };
    let width = first.columns.len();
    let most = MAX_BINDS / width.max(1);
    let mut chunk: Vec<Vec<Value>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for put in puts.iter() {
        for row in &put.rows {
            match places.entry(put.key(row)) {
                Entry::Occupied(place) if put.conflict == OnConflict::Replace => chunk[*place.get()] = row.clone(),
                Entry::Occupied(_) => {
                    flush(tx, first, &mut chunk).await?;
                    places.clear();
                    places.insert(put.key(row), 0);
                    chunk.push(row.clone());
                }
                Entry::Vacant(place) => {
                    place.insert(chunk.len());
                    chunk.push(row.clone());
                }
            }
            if chunk.len() >= most {
                flush(tx, first, &mut chunk).await?;
                places.clear();
            }
        }
    }
    flush(tx, first, &mut chunk).await?;
    puts.iter_mut().for_each(|put| put.answer.set(()));
    Ok(())
}

async fn flush(tx: &Tx, put: &Put, chunk: &mut Vec<Vec<Value>>) -> Result<(), StoreError> {
    if chunk.is_empty() {
        return Ok(());
    }
    if !tx.db.is_postgres() {
        let rows = chunk.len();
        let mut values = chunk.drain(..).flatten().collect();
        let rows = few_shapes(&mut values, rows, put.columns.len());
        return tx.db.run(put.insert(rows), values).await.map(drop);
    }
    let mut rows = chunk.drain(..);
    // no row may be there twice, so in powers of two: few texts of statements, which the connection has prepared
    while rows.len() > 0 {
        let count = if rows.len() > FILLED { rows.len() } else { 1 << rows.len().ilog2() };
        tx.db.run(put.insert(count), rows.by_ref().take(count).flatten().collect()).await?;
    }
    Ok(())
}
