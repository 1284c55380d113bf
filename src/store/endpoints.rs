//! Endpoints: URLs that receive events.

use crate::entity::endpoints::{Column, Entity, Model};
use crate::seal::{Sealer, place};
use crate::sql::values;
use crate::writer::{Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::endpoint::EventFilter;
use kero_domain::{EndpointId, Timestamp};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use uuid::Uuid;

/// A URL that receives events.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub id: EndpointId,
    /// `None`: the events of every instance.
    pub instance_pk: Option<i64>,
    pub url: String,
    pub events: EventFilter,
    pub secret: Option<SecretString>,
    /// Nothing is delivered while it is false; deliveries wait.
    pub enabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What an endpoint shall be.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    pub url: String,
    pub events: EventFilter,
    /// `None` keeps the one there is; `Some(None)` clears it.
    pub secret: Option<Option<String>>,
    pub enabled: bool,
}

fn secret_place(id: Uuid) -> String {
    place("endpoints.secret", 0, id)
}

pub(crate) fn endpoint(sealer: &Sealer, row: Model) -> Result<Endpoint, StoreError> {
    let secret = match row.secret {
        None => None,
        Some(sealed) => {
            let bytes = sealer.open("endpoint's secret", &secret_place(row.id), &sealed)?;
            let text = String::from_utf8(bytes).map_err(|_| StoreError::Corrupt("endpoint's secret"))?;
            Some(SecretString::from(text))
        }
    };
    Ok(Endpoint {
        id: EndpointId(row.id),
        instance_pk: row.instance_pk,
        url: row.url,
        events: serde_json::from_str(&row.events).map_err(|_| StoreError::Corrupt("endpoint's events"))?,
        secret,
        enabled: row.enabled,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

/// Writes an endpoint: over `old`, or as a new one.
pub(crate) async fn write(
    tx: &Tx,
    instance_pk: Option<i64>,
    old: Option<Model>,
    new: &NewEndpoint,
) -> Result<Endpoint, StoreError> {
    let now = Timestamp::now().0;
    let id = old.as_ref().map_or_else(|| EndpointId::new().0, |old| old.id);
    let secret = match &new.secret {
        None => old.as_ref().and_then(|old| old.secret.clone()),
        Some(None) => None,
        Some(Some(secret)) => Some(tx.sealer.seal(&secret_place(id), secret.as_bytes())?),
    };
    let row = Model {
        id,
        instance_pk,
        url: new.url.clone(),
        events: serde_json::to_string(&new.events).map_err(|_| StoreError::bug("a filter does not serialise"))?,
        secret,
        enabled: new.enabled,
        created_at: old.map_or(now, |old| old.created_at),
        updated_at: now,
    };
    tx.db
        .run(
            "INSERT INTO endpoints (id, instance_pk, url, events, secret, enabled, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET url = excluded.url,
             events = excluded.events, secret = excluded.secret, enabled = excluded.enabled, updated_at = excluded.updated_at",
            values![
                row.id,
                row.instance_pk,
                row.url.clone(),
                row.events.clone(),
                row.secret.clone(),
                row.enabled,
                row.created_at,
                row.updated_at
            ],
        )
        .await?;
    endpoint(&tx.sealer, row)
}

async fn first(tx: &Tx, instance_pk: i64) -> Result<Option<Model>, StoreError> {
    let find = Entity::find().filter(Column::InstancePk.eq(instance_pk)).order_by_asc(Column::Id);
    Ok(find.one(&tx.db).await?)
}

impl Store {
    /// Makes or changes the instance's webhook (its first endpoint). [`StoreError::NotFound`] when the instance was
    /// deleted.
    pub async fn put_webhook(&self, instance_pk: i64, webhook: NewEndpoint) -> Result<Endpoint, StoreError> {
        let webhook = Arc::new(webhook);
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let webhook = Arc::clone(&webhook);
                Box::pin(async move {
                    let there = tx.db.one("SELECT 1 FROM instances WHERE pk = $1", values![instance_pk]).await?;
                    there.ok_or(StoreError::NotFound)?;
                    let old = first(tx, instance_pk).await?;
                    write(tx, Some(instance_pk), old, &webhook).await
                })
            }))
        })
        .await
    }

    /// The instance's webhook.
    pub async fn webhook(&self, instance_pk: i64) -> Result<Option<Endpoint>, StoreError> {
        let row = self.own_endpoints(instance_pk).await?.into_iter().next();
        row.map(|row| endpoint(self.sealer(), row)).transpose()
    }

    /// Deletes the instance's webhook with its deliveries; whether there was one.
    pub async fn delete_webhook(&self, instance_pk: i64) -> Result<bool, StoreError> {
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    let Some(row) = first(tx, instance_pk).await? else { return Ok(false) };
                    Ok(tx.db.run("DELETE FROM endpoints WHERE id = $1", values![row.id]).await? > 0)
                })
            }))
        })
        .await
    }

    /// The endpoints that receive the instance's events: its own, and those of every instance.
    pub async fn endpoints_for(&self, instance_pk: i64) -> Result<Vec<Endpoint>, StoreError> {
        let mine = Condition::any().add(Column::InstancePk.eq(instance_pk)).add(Column::InstancePk.is_null());
        let rows = Entity::find().filter(mine).order_by_asc(Column::Id).all(self.reader()).await?;
        rows.into_iter().map(|row| endpoint(self.sealer(), row)).collect()
    }
}

impl Endpoint {
    /// The secret's text, for the signature.
    pub fn secret_text(&self) -> Option<&str> {
        self.secret.as_ref().map(ExposeSecret::expose_secret)
    }
}
