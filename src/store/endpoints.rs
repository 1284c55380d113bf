//! Endpoints: URLs that receive events.

use crate::append::{self, EventRow};
use crate::entity::endpoints::{Column, Entity, Model};
use crate::jobs::word;
use crate::seal::{Sealer, place};
use crate::sql::values;
use crate::writer::{Op, Tx, work};
use crate::{Store, StoreError};
use kero_domain::endpoint::{DisabledReason, EventFilter, Narrow, Order};
use kero_domain::{EndpointId, NewEvent, Timestamp};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, Value};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A URL that receives events.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub id: EndpointId,
    /// `None`: the events of every instance.
    pub instance_pk: Option<i64>,
    pub url: String,
    pub events: EventFilter,
    pub narrow: Narrow,
    /// Further headers of every request.
    pub headers: Vec<(String, SecretString)>,
    pub secret: Option<SecretString>,
    /// Secrets before that one, which sign beside it until their time ends.
    pub old_secrets: Vec<OldSecret>,
    /// `whsk_…`, for the ed25519 signature.
    pub signing_key: Option<SecretString>,
    pub order: Order,
    /// Deliveries a second at most.
    pub rate_limit: Option<u32>,
    /// Instead of the configured one.
    pub timeout: Option<Duration>,
    /// Instead of the configured one: waits after failed attempts.
    pub schedule: Option<Vec<Duration>>,
    /// Events come with the message as WhatsApp sent it, where it was kept.
    pub include_raw: bool,
    /// Nothing is delivered while it is false; deliveries wait.
    pub enabled: bool,
    /// The gateway disabled it, and when.
    pub disabled: Option<(DisabledReason, Timestamp)>,
    /// The first failure since the last success; only failures that last are stored.
    pub failing_since: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A secret that was replaced.
#[derive(Debug, Clone)]
pub struct OldSecret {
    pub secret: SecretString,
    pub until: Timestamp,
}

/// What the instance's webhook shall be.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    pub url: String,
    pub events: EventFilter,
    /// `None` keeps the one there is; `Some(None)` clears it.
    pub secret: Option<Option<String>>,
    pub enabled: bool,
}

/// What changes about an endpoint; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    pub url: Option<String>,
    pub events: Option<EventFilter>,
    pub narrow: Option<Narrow>,
    pub headers: Option<Vec<(String, SecretString)>>,
    /// Replaces the secret at once; the old ones end. `Some(None)` clears it.
    pub secret: Option<Option<SecretString>>,
    pub signing_key: Option<Option<SecretString>>,
    pub order: Option<Order>,
    pub rate_limit: Option<Option<u32>>,
    pub timeout: Option<Option<Duration>>,
    pub schedule: Option<Option<Vec<Duration>>>,
    pub include_raw: Option<bool>,
    pub enabled: Option<bool>,
}

impl From<NewEndpoint> for EndpointChange {
    fn from(new: NewEndpoint) -> Self {
        Self {
            url: Some(new.url),
            events: Some(new.events),
            secret: new.secret.map(|secret| secret.map(SecretString::from)),
            enabled: Some(new.enabled),
            ..Self::default()
        }
    }
}

/// The sealed form of [`OldSecret`].
#[derive(Serialize, Deserialize)]
struct StoredOldSecret {
    secret: String,
    until: i64,
}

fn sealed_place(column: &str, id: Uuid) -> String {
    place(&format!("endpoints.{column}"), 0, id)
}

fn open<T: serde::de::DeserializeOwned>(
    sealer: &Sealer,
    what: &'static str,
    column: &str,
    id: Uuid,
    sealed: Option<Vec<u8>>,
) -> Result<Option<T>, StoreError> {
    let Some(sealed) = sealed else { return Ok(None) };
    let bytes = sealer.open(what, &sealed_place(column, id), &sealed)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|_| StoreError::Corrupt(what))
}

fn text(
    sealer: &Sealer,
    what: &'static str,
    column: &str,
    row: Uuid,
    sealed: Option<Vec<u8>>,
) -> Result<Option<SecretString>, StoreError> {
    let Some(sealed) = sealed else { return Ok(None) };
    let bytes = sealer.open(what, &sealed_place(column, row), &sealed)?;
    String::from_utf8(bytes).map(|text| Some(SecretString::from(text))).map_err(|_| StoreError::Corrupt(what))
}

fn seal(sealer: &Sealer, column: &str, id: Uuid, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    sealer.seal(&sealed_place(column, id), plain)
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::bug("an endpoint's setting does not serialise"))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(crate) fn endpoint(sealer: &Sealer, row: Model) -> Result<Endpoint, StoreError> {
    let id = row.id;
    let headers: Option<Vec<(String, String)>> = open(sealer, "endpoint's headers", "headers", id, row.headers)?;
    let old: Option<Vec<StoredOldSecret>> = open(sealer, "endpoint's old secrets", "old_secrets", id, row.old_secrets)?;
    let schedule = row.schedule.map(|text| serde_json::from_str::<Vec<i64>>(&text)).transpose();
    let schedule = schedule.map_err(|_| StoreError::Corrupt("endpoint's schedule"))?;
    let reason = row.disabled_reason.as_deref().map(|text| word("endpoint's state", text)).transpose()?;
    Ok(Endpoint {
        id: EndpointId(id),
        instance_pk: row.instance_pk,
        url: row.url,
        events: serde_json::from_str(&row.events).map_err(|_| StoreError::Corrupt("endpoint's events"))?,
        narrow: serde_json::from_str(&row.narrow).map_err(|_| StoreError::Corrupt("endpoint's filter"))?,
        headers: headers.unwrap_or_default().into_iter().map(|(name, value)| (name, value.into())).collect(),
        secret: text(sealer, "endpoint's secret", "secret", id, row.secret)?,
        old_secrets: old
            .unwrap_or_default()
            .into_iter()
            .map(|old| OldSecret { secret: old.secret.into(), until: Timestamp(old.until) })
            .collect(),
        signing_key: text(sealer, "endpoint's signing key", "signing_key", id, row.signing_key)?,
        order: word("endpoint's order", &row.ordering)?,
        rate_limit: row.rate_limit.and_then(|limit| u32::try_from(limit).ok()),
        timeout: row.timeout_ms.map(span),
        schedule: schedule.map(|waits| waits.into_iter().map(span).collect()),
        include_raw: row.include_raw,
        enabled: row.enabled,
        disabled: reason.zip(row.disabled_at.map(Timestamp)),
        failing_since: row.failing_since.map(Timestamp),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

/// Writes an endpoint: over `old`, or as a new one.
pub(crate) async fn write(
    tx: &Tx,
    instance_pk: Option<i64>,
    old: Option<Model>,
    change: &EndpointChange,
) -> Result<Endpoint, StoreError> {
    let now = Timestamp::now().0;
    let new = old.is_none();
    let mut row = old.unwrap_or_else(|| Model {
        id: EndpointId::new().0,
        instance_pk,
        url: String::new(),
        events: String::from("[]"),
        narrow: String::from("{}"),
        headers: None,
        secret: None,
        old_secrets: None,
        signing_key: None,
        ordering: Order::Chat.as_str().to_owned(),
        rate_limit: None,
        timeout_ms: None,
        schedule: None,
        enabled: true,
        disabled_reason: None,
        disabled_at: None,
        failing_since: None,
        created_at: now,
        updated_at: now,
        include_raw: false,
    });
    apply(&tx.sealer, &mut row, change, new)?;
    row.updated_at = now;
    put(tx, &row).await?;
    endpoint(&tx.sealer, row)
}

fn apply(sealer: &Sealer, row: &mut Model, change: &EndpointChange, new: bool) -> Result<(), StoreError> {
    let id = row.id;
    if let Some(url) = &change.url {
        row.url.clone_from(url);
    }
    if new || change.events.is_some() {
        row.events = json(&change.events.clone().unwrap_or_default())?;
    }
    if let Some(narrow) = &change.narrow {
        row.narrow = json(narrow)?;
    }
    if let Some(headers) = &change.headers {
        let plain: Vec<_> = headers.iter().map(|(name, value)| (name, value.expose_secret())).collect();
        row.headers =
            if plain.is_empty() { None } else { Some(seal(sealer, "headers", id, json(&plain)?.as_bytes())?) };
    }
    let sealed = |column: &str, secret: &Option<SecretString>| {
        secret.as_ref().map(|secret| seal(sealer, column, id, secret.expose_secret().as_bytes())).transpose()
    };
    if let Some(secret) = &change.secret {
        row.secret = sealed("secret", secret)?;
        row.old_secrets = None;
    }
    if let Some(key) = &change.signing_key {
        row.signing_key = sealed("signing_key", key)?;
    }
    if let Some(order) = change.order {
        order.as_str().clone_into(&mut row.ordering);
    }
    if let Some(limit) = change.rate_limit {
        row.rate_limit = limit.and_then(|limit| i32::try_from(limit).ok());
    }
    if let Some(timeout) = change.timeout {
        row.timeout_ms = timeout.map(millis);
    }
    if let Some(schedule) = &change.schedule {
        let waits = schedule.as_ref().map(|waits| waits.iter().copied().map(millis).collect::<Vec<_>>());
        row.schedule = waits.map(|waits| json(&waits)).transpose()?;
    }
    if let Some(include_raw) = change.include_raw {
        row.include_raw = include_raw;
    }
    if let Some(enabled) = change.enabled {
        if enabled && !row.enabled {
            (row.disabled_reason, row.disabled_at, row.failing_since) = (None, None, None);
        }
        row.enabled = enabled;
    }
    Ok(())
}

async fn put(tx: &Tx, row: &Model) -> Result<(), StoreError> {
    let sql = "INSERT INTO endpoints (id, instance_pk, url, events, narrow, headers, secret, old_secrets, signing_key,
         ordering, rate_limit, timeout_ms, schedule, enabled, disabled_reason, disabled_at, failing_since, created_at,
         updated_at, include_raw) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
         $19, $20)
         ON CONFLICT (id) DO UPDATE SET url = excluded.url, events = excluded.events, narrow = excluded.narrow,
         headers = excluded.headers, secret = excluded.secret, old_secrets = excluded.old_secrets,
         signing_key = excluded.signing_key, ordering = excluded.ordering, rate_limit = excluded.rate_limit,
         timeout_ms = excluded.timeout_ms, schedule = excluded.schedule, enabled = excluded.enabled,
         disabled_reason = excluded.disabled_reason, disabled_at = excluded.disabled_at,
         failing_since = excluded.failing_since, updated_at = excluded.updated_at,
         include_raw = excluded.include_raw";
    let row = row.clone();
    let values = values![
        row.id,
        row.instance_pk,
        row.url,
        row.events,
        row.narrow,
        row.headers,
        row.secret,
        row.old_secrets,
        row.signing_key,
        row.ordering,
        row.rate_limit,
        row.timeout_ms,
        row.schedule,
        row.enabled,
        row.disabled_reason,
        row.disabled_at,
        row.failing_since,
        row.created_at,
        row.updated_at,
        row.include_raw
    ];
    tx.db.run(sql, values).await.map(drop)
}

/// The instance's oldest endpoint: its webhook.
async fn first(tx: &Tx, instance_pk: i64) -> Result<Option<Model>, StoreError> {
    let find = Entity::find().filter(Column::InstancePk.eq(instance_pk)).order_by_asc(Column::Id);
    Ok(find.one(&tx.db).await?)
}

/// The row, kept from other writers until the commit.
async fn locked(tx: &Tx, instance_pk: Option<i64>, id: EndpointId) -> Result<Model, StoreError> {
    let owner = if instance_pk.is_some() { "instance_pk = $2" } else { "instance_pk IS NULL" };
    let lock = if tx.db.is_postgres() { " FOR UPDATE" } else { "" };
    let mut values = values![id.0];
    values.extend(instance_pk.map(Value::from));
    let sql = tx.db.statement(format!("SELECT * FROM endpoints WHERE id = $1 AND {owner}{lock}"), values);
    Entity::find().from_raw_sql(sql).one(&tx.db).await?.ok_or(StoreError::NotFound)
}

fn lane(instance_pk: Option<i64>) -> i64 {
    instance_pk.unwrap_or(0)
}

impl Store {
    /// Makes or changes the instance's webhook (its first endpoint). [`StoreError::NotFound`] when the instance was
    /// deleted.
    pub async fn put_webhook(&self, instance_pk: i64, webhook: NewEndpoint) -> Result<Endpoint, StoreError> {
        let change = Arc::new(EndpointChange::from(webhook));
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let change = Arc::clone(&change);
                Box::pin(async move {
                    let there = tx.db.one("SELECT 1 FROM instances WHERE pk = $1", values![instance_pk]).await?;
                    there.ok_or(StoreError::NotFound)?;
                    let old = first(tx, instance_pk).await?;
                    write(tx, Some(instance_pk), old, &change).await
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

    /// Deletes the instance's webhook with its deliveries; which one it was.
    pub async fn delete_webhook(&self, instance_pk: i64) -> Result<Option<EndpointId>, StoreError> {
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    let Some(row) = first(tx, instance_pk).await? else { return Ok(None) };
                    tx.db.run("DELETE FROM endpoints WHERE id = $1", values![row.id]).await?;
                    Ok(Some(EndpointId(row.id)))
                })
            }))
        })
        .await
    }

    /// Makes an endpoint of an instance, or a global one. [`StoreError::Conflict`] when there are `limit` of them
    /// already, [`StoreError::NotFound`] when the instance was deleted.
    pub async fn create_endpoint(
        &self,
        instance_pk: Option<i64>,
        change: EndpointChange,
        limit: u64,
    ) -> Result<Endpoint, StoreError> {
        let change = Arc::new(change);
        self.submit(lane(instance_pk), None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let change = Arc::clone(&change);
                Box::pin(async move {
                    if let Some(pk) = instance_pk {
                        let there = tx.db.one("SELECT 1 FROM instances WHERE pk = $1", values![pk]).await?;
                        there.ok_or(StoreError::NotFound)?;
                    }
                    let (owner, values) = match instance_pk {
                        Some(pk) => ("= $1", values![pk]),
                        None => ("IS NULL", Vec::new()),
                    };
                    let sql = format!("SELECT COUNT(*) AS n FROM endpoints WHERE instance_pk {owner}");
                    let row = tx.db.one(sql, values).await?.ok_or(StoreError::NotFound)?;
                    if u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0) >= limit {
                        return Err(StoreError::Conflict("endpoints"));
                    }
                    write(tx, instance_pk, None, &change).await
                })
            }))
        })
        .await
    }

    /// Changes what is given. [`StoreError::NotFound`] when the owner has no such endpoint.
    pub async fn update_endpoint(
        &self,
        instance_pk: Option<i64>,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint, StoreError> {
        let change = Arc::new(change);
        self.submit(lane(instance_pk), None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let change = Arc::clone(&change);
                Box::pin(async move {
                    let old = locked(tx, instance_pk, id).await?;
                    write(tx, old.instance_pk, Some(old), &change).await
                })
            }))
        })
        .await
    }

    /// Replaces the secret; those before it sign beside it until `until`, at most `most` of them.
    pub async fn rotate_secret(
        &self,
        instance_pk: Option<i64>,
        id: EndpointId,
        secret: SecretString,
        until: Timestamp,
        most: usize,
    ) -> Result<Endpoint, StoreError> {
        self.submit(lane(instance_pk), None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let secret = secret.clone();
                Box::pin(async move {
                    let mut row = locked(tx, instance_pk, id).await?;
                    let now = Timestamp::now();
                    let known = endpoint(&tx.sealer, row.clone())?;
                    let latest = known.secret.map(|secret| OldSecret { secret, until });
                    let kept: Vec<StoredOldSecret> = latest
                        .into_iter()
                        .chain(known.old_secrets)
                        .filter(|old| old.until > now)
                        .take(most)
                        .map(|old| StoredOldSecret {
                            secret: old.secret.expose_secret().to_owned(),
                            until: old.until.min(until).0,
                        })
                        .collect();
                    let secret = secret.expose_secret().as_bytes();
                    row.secret = Some(seal(&tx.sealer, "secret", row.id, secret)?);
                    row.old_secrets = match kept.is_empty() {
                        true => None,
                        false => Some(seal(&tx.sealer, "old_secrets", row.id, json(&kept)?.as_bytes())?),
                    };
                    row.updated_at = now.0;
                    put(tx, &row).await?;
                    endpoint(&tx.sealer, row)
                })
            }))
        })
        .await
    }

    /// Deletes an endpoint with its deliveries; whether there was one.
    pub async fn delete_endpoint(&self, instance_pk: Option<i64>, id: EndpointId) -> Result<bool, StoreError> {
        self.submit(lane(instance_pk), None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                Box::pin(async move {
                    match locked(tx, instance_pk, id).await {
                        Err(StoreError::NotFound) => Ok(false),
                        Err(error) => Err(error),
                        Ok(row) => Ok(tx.db.run("DELETE FROM endpoints WHERE id = $1", values![row.id]).await? > 0),
                    }
                })
            }))
        })
        .await
    }

    /// Disables an endpoint that is enabled and stores the event that says so, in one transaction; `false`: it was
    /// disabled or is gone. Its deliveries stay.
    pub async fn disable_endpoint(
        &self,
        id: EndpointId,
        reason: DisabledReason,
        at: Timestamp,
        instance_pk: i64,
        event: NewEvent,
    ) -> Result<bool, StoreError> {
        let event = Arc::new(EventRow::new(self.sealer(), instance_pk, event)?);
        self.submit(instance_pk, None, self.configured(), |answer| {
            Op::Run(work(answer, move |tx| {
                let event = Arc::clone(&event);
                Box::pin(async move {
                    let sql =
                        "UPDATE endpoints SET enabled = $1, disabled_reason = $2, disabled_at = $3, updated_at = $3
                               WHERE id = $4 AND enabled";
                    let changed = tx.db.run(sql, values![false, reason.as_str(), at.0, id.0]).await? > 0;
                    if changed {
                        append::insert(tx, &[event.as_ref()]).await?;
                    }
                    Ok(changed)
                })
            }))
        })
        .await
    }

    /// Since when the endpoint has only failed; `None`: it works again.
    pub async fn set_failing_since(
        &self,
        instance_pk: i64,
        id: EndpointId,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.submit(instance_pk, None, crate::Durability::Process, |answer| {
            Op::Run(work(answer, move |tx| {
                let sql = "UPDATE endpoints SET failing_since = $1 WHERE id = $2";
                Box::pin(async move { tx.db.run(sql, values![since.map(|at| at.0), id.0]).await.map(drop) })
            }))
        })
        .await
    }

    /// An instance's endpoint, or a global one; `None` when the owner has no such endpoint.
    pub async fn endpoint(&self, instance_pk: Option<i64>, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = Entity::find_by_id(id.0).filter(owned_by(instance_pk)).one(self.reader()).await?;
        row.map(|row| endpoint(self.sealer(), row)).transpose()
    }

    /// The endpoints of an instance, or the global ones, oldest first.
    pub async fn endpoints_of(&self, instance_pk: Option<i64>) -> Result<Vec<Endpoint>, StoreError> {
        let rows = Entity::find().filter(owned_by(instance_pk)).order_by_asc(Column::Id).all(self.reader()).await?;
        rows.into_iter().map(|row| endpoint(self.sealer(), row)).collect()
    }

    /// The endpoints that receive the instance's events: its own, and those of every instance.
    pub async fn endpoints_for(&self, instance_pk: i64) -> Result<Vec<Endpoint>, StoreError> {
        let mine = Condition::any().add(Column::InstancePk.eq(instance_pk)).add(Column::InstancePk.is_null());
        let rows = Entity::find().filter(mine).order_by_asc(Column::Id).all(self.reader()).await?;
        rows.into_iter().map(|row| endpoint(self.sealer(), row)).collect()
    }
}

fn owned_by(instance_pk: Option<i64>) -> Condition {
    Condition::all().add(match instance_pk {
        Some(pk) => Column::InstancePk.eq(pk),
        None => Column::InstancePk.is_null(),
    })
}

impl Endpoint {
    /// The secret's text, for the signature.
    pub fn secret_text(&self) -> Option<&str> {
        self.secret.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Every secret that signs at `now`, the present one first.
    pub fn secrets(&self, now: Timestamp) -> Vec<&str> {
        let old = self.old_secrets.iter().filter(|old| old.until > now).map(|old| old.secret.expose_secret());
        self.secret_text().into_iter().chain(old).collect()
    }
}
