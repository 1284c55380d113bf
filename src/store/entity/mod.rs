//! The tables as SeaORM sees them. A test compares them with what the migrations make.
#![allow(dead_code, reason = "an entity has a row type and columns whether or not a query builds them")]

/// One table: its module has `Entity`, `Column`, `Model` and `ActiveModel`.
macro_rules! entity {
    ($(#[$doc:meta])* $table:tt, $module:ident { $( $(#[$attr:meta])* $field:ident : $ty:ty ),* $(,)? }) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model {
                $( $(#[$attr])* pub $field: $ty, )*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

mod client;
mod gateway;
mod hooks;

pub(crate) use client::*;
pub(crate) use gateway::*;
#[cfg(test)]
pub(crate) use hooks::*;
