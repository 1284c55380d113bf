//! Shorthands for what every table here needs.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

/// The owner of a row: deleting the instance deletes the row.
pub const OWNER: &str = "instance_pk";

/// A table whose rows belong to an instance; its key is the owner and `key`.
pub fn owned(name: &'static str, key: &[ColumnDef], columns: &[ColumnDef]) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name).col(big_integer(OWNER));
    let mut primary = Index::create();
    primary.col(OWNER);
    for column in key {
        table.col(column.clone());
        primary.col(Alias::new(column.get_column_name()));
    }
    for column in columns {
        table.col(column.clone());
    }
    table.primary_key(&mut primary).foreign_key(&mut references(name, OWNER, "instances", "pk"));
    table.take()
}

/// `table.column` names a row of `target`, and goes with it.
pub fn references(
    table: &'static str,
    column: &'static str,
    target: &'static str,
    key: &'static str,
) -> ForeignKeyCreateStatement {
    ForeignKey::create().from(table, column).to(target, key).on_delete(ForeignKeyAction::Cascade).take()
}

/// Runs plain SQL that both databases read alike: partial indices, which the builder writes for one of them only.
pub async fn each(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
