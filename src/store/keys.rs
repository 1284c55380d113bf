//! API keys: only the hash of a secret is stored.

use crate::entity::api_keys::{Column, Entity, Model};
use crate::sql::values;
use crate::writer::{Op, work};
use crate::{Durability, Store, StoreError};
use kero_domain::{ApiKeyId, InstanceId, Timestamp};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

/// An API credential without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: Option<String>,
    /// The only instance that it may touch; `None`: all.
    pub instance_pk: Option<i64>,
    pub instance_id: Option<InstanceId>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    /// Stores a key by the hash of its random secret. [`StoreError::Conflict`] when the hash exists,
    /// [`StoreError::NotFound`] when the instance does not.
    pub async fn create_key(
        &self,
        hash: [u8; 32],
        name: Option<&str>,
        instance_pk: Option<i64>,
    ) -> Result<ApiKey, StoreError> {
        let id = ApiKeyId::new();
        let name = name.map(str::to_owned);
        let row = self
            .submit(0, None, Durability::Power, |answer| {
                Op::Run(work(answer, move |tx| {
                    let name = name.clone();
                    Box::pin(async move {
                        if let Some(pk) = instance_pk {
                            let there = tx.db.one("SELECT 1 FROM instances WHERE pk = $1", values![pk]).await?;
                            there.ok_or(StoreError::NotFound)?;
                        }
                        let sql = "INSERT INTO api_keys (id, hash, name, instance_pk, created_at)
                                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
                        let values = values![id.0, hash.to_vec(), name, instance_pk, Timestamp::now().0];
                        if tx.db.run(sql, values).await? == 0 {
                            return Err(StoreError::Conflict("key"));
                        }
                        Entity::find_by_id(id.0).one(&tx.db).await?.ok_or(StoreError::NotFound)
                    })
                }))
            })
            .await?;
        self.read_key(row).await
    }

    /// The key with this hash, unless it was revoked.
    pub async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        let find = Entity::find().filter(Column::Hash.eq(hash.to_vec())).filter(Column::RevokedAt.is_null());
        match find.one(self.reader()).await? {
            Some(row) => self.read_key(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether a key exists and was not revoked.
    pub async fn key_counts(&self, id: ApiKeyId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM api_keys WHERE id = $1 AND revoked_at IS NULL";
        Ok(self.reader().one(sql, values![id.0]).await?.is_some())
    }

    /// All keys, revoked ones included, oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let mut keys = Vec::new();
        for row in Entity::find().order_by_asc(Column::Id).all(self.reader()).await? {
            keys.push(self.read_key(row).await?);
        }
        Ok(keys)
    }

    /// Revokes a key; `false` when there is none, or it was revoked before.
    pub async fn revoke_key(&self, id: ApiKeyId) -> Result<bool, StoreError> {
        self.submit(0, None, Durability::Power, |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
                    Ok(tx.db.run(sql, values![Timestamp::now().0, id.0]).await? > 0)
                })
            }))
        })
        .await
    }

    async fn read_key(&self, row: Model) -> Result<ApiKey, StoreError> {
        let instance_id = match row.instance_pk {
            Some(pk) => self.id_of(pk).await?,
            None => None,
        };
        Ok(ApiKey {
            id: ApiKeyId(row.id),
            name: row.name,
            instance_pk: row.instance_pk,
            instance_id,
            created_at: Timestamp(row.created_at),
            revoked_at: row.revoked_at.map(Timestamp),
        })
    }
}
