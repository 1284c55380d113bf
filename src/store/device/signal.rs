//! Identities, sessions, prekeys, sender keys: the state that must not be rewound.

use super::DeviceRows;
use crate::entity::{identities, prekeys, sender_keys, sessions, signed_prekeys};
use crate::sql::{MAX_BINDS, placeholders};
use crate::{Durability, StoreError};
use sea_orm::Value;

const LEVEL: Durability = Durability::Power;

/// Get, put and delete of a table with one sealed record per address.
macro_rules! by_address {
    ($table:ident, $get:ident, $put:ident, $delete:ident) => {
        impl DeviceRows {
            pub async fn $get(&self, address: &str) -> Result<Option<Vec<u8>>, StoreError> {
                self.sealed(stringify!($table), "record", &[("address", address.into())], address).await
            }

            /// Stores records, all in one transaction.
            pub async fn $put<'a>(
                &self,
                records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
            ) -> Result<(), StoreError> {
                let mut rows = Vec::new();
                for (address, record) in records {
                    rows.push($table::Model {
                        instance_pk: self.pk,
                        address: address.to_owned(),
                        record: self.seal(stringify!($table), address, record)?,
                    });
                }
                self.put(LEVEL, &rows).await
            }

            pub async fn $delete(&self, address: &str) -> Result<(), StoreError> {
                self.remove(LEVEL, stringify!($table), &[("address", address.into())]).await.map(drop)
            }
        }
    };
}

by_address!(identities, identity, put_identities, delete_identity);
by_address!(sessions, session, put_sessions, delete_session);
by_address!(sender_keys, sender_key, put_sender_keys, delete_sender_key);

impl DeviceRows {
    pub async fn has_session(&self, address: &str) -> Result<bool, StoreError> {
        Ok(!self.select("sessions", "1", &[("address", address.into())]).await?.is_empty())
    }

    /// Whether there is a session or identity of any device of `user` (addresses are `user@…` and `user:device@…`).
    pub async fn has_signal_state_for_user(&self, user: &str) -> Result<bool, StoreError> {
        let reader = self.store.reader();
        let (begins, ranges) = if reader.is_postgres() {
            ("(starts_with(address, $2) OR starts_with(address, $3))", vec!["@", ":"])
        } else {
            // the index is in byte order: `@` is followed by `A`, `:` by `;`
            ("(address >= $2 AND address < $3 OR address >= $4 AND address < $5)", vec!["@", "A", ":", ";"])
        };
        let mut values = vec![Value::from(self.pk)];
        values.extend(ranges.into_iter().map(|end| Value::from(format!("{user}{end}"))));
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE instance_pk = $1 AND {begins})
             OR EXISTS (SELECT 1 FROM identities WHERE instance_pk = $1 AND {begins}) AS found"
        );
        let row = reader.one(sql, values).await?.ok_or(StoreError::NotFound)?;
        Ok(row.try_get("", "found")?)
    }

    /// Stores prekeys, all in one transaction.
    pub async fn put_prekeys<'a>(
        &self,
        records: impl IntoIterator<Item = (u32, &'a [u8])>,
        uploaded: bool,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (id, record) in records {
            let record = self.seal("prekeys", &id.to_string(), record)?;
            rows.push(prekeys::Model { instance_pk: self.pk, id: i64::from(id), record, uploaded });
        }
        self.put(LEVEL, &rows).await
    }

    pub async fn prekey(&self, id: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("prekeys", "record", &[("id", i64::from(id).into())], &id.to_string()).await
    }

    /// Those of the prekeys that exist.
    pub async fn prekeys(&self, ids: &[u32]) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let wanted = ids.iter().map(|id| i64::from(*id).into()).collect();
        let rows = self.select_in("prekeys", "id, record", &[], "id", wanted).await?;
        rows.iter().map(|row| self.numbered("prekeys", row)).collect()
    }

    /// Marks prekeys that are still there; one that was used up meanwhile stays gone.
    pub async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<(), StoreError> {
        let mut statements = Vec::new();
        for ids in ids.chunks(MAX_BINDS) {
            let mut values = vec![true.into(), self.pk.into()];
            values.extend(ids.iter().map(|id| Value::from(i64::from(*id))));
            let list = placeholders(2, ids.len());
            statements
                .push((format!("UPDATE prekeys SET uploaded = $1 WHERE instance_pk = $2 AND id IN ({list})"), values));
        }
        self.run(LEVEL, statements).await.map(drop)
    }

    pub async fn delete_prekey(&self, id: u32) -> Result<(), StoreError> {
        self.remove(LEVEL, "prekeys", &[("id", i64::from(id).into())]).await.map(drop)
    }

    /// The highest prekey id there is, 0 without any.
    pub async fn max_prekey_id(&self) -> Result<u32, StoreError> {
        let rows = self.select("prekeys", "COALESCE(MAX(id), 0) AS id", &[]).await?;
        let id: i64 = rows.first().map_or(Ok(0), |row| row.try_get("", "id"))?;
        u32::try_from(id).map_err(|_| StoreError::Corrupt("prekey"))
    }

    pub async fn put_signed_prekey(&self, id: u32, record: &[u8]) -> Result<(), StoreError> {
        let record = self.seal("signed_prekeys", &id.to_string(), record)?;
        self.put(LEVEL, &[signed_prekeys::Model { instance_pk: self.pk, id: i64::from(id), record }]).await
    }

    pub async fn signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed("signed_prekeys", "record", &[("id", i64::from(id).into())], &id.to_string()).await
    }

    pub async fn signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let rows = self.select("signed_prekeys", "id, record", &[]).await?;
        rows.iter().map(|row| self.numbered("signed_prekeys", row)).collect()
    }

    pub async fn delete_signed_prekey(&self, id: u32) -> Result<(), StoreError> {
        self.remove(LEVEL, "signed_prekeys", &[("id", i64::from(id).into())]).await.map(drop)
    }

    fn numbered(&self, table: &'static str, row: &sea_orm::QueryResult) -> Result<(u32, Vec<u8>), StoreError> {
        let id = u32::try_from(row.try_get::<i64>("", "id")?).map_err(|_| StoreError::Corrupt("prekey"))?;
        Ok((id, self.open(table, &id.to_string(), &row.try_get::<Vec<u8>>("", "record")?)?))
    }
}
