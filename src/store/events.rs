//! The events of the journal: those that wait for their fan-out, and those that are shown.

use crate::append::data_place;
use crate::entity::events::{Column, Entity, Model};
use crate::hooked::Hooked;
use crate::jobs::word;
use crate::sql::values;
use crate::{Job, Store, StoreError};
use kero_domain::{DeliveryId, EndpointId, EventId, EventKind, InstanceId, NewEvent, Timestamp, text};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Select};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use uuid::Uuid;

/// An event in the journal, its data read or (see [`RawEvent`]) as it is stored.
#[derive(Debug, Clone)]
pub struct Event<D = Json> {
    /// Increasing; the order within an instance before it is fanned out.
    pub row: i64,
    pub id: EventId,
    pub instance_pk: i64,
    pub instance_id: InstanceId,
    pub kind: EventKind,
    /// Events of one key are delivered in order.
    pub order_key: String,
    /// Per instance and dense; `None` until fanned out, and for dropped ones.
    pub seq: Option<i64>,
    pub at: Timestamp,
    pub message_id: Option<String>,
    pub data: D,
    pub request_id: Option<String>,
    /// `None` where no hook was called.
    pub verdict: Option<Verdict>,
    /// `plugin/kind` of hooks that failed and were passed by.
    pub hook_errors: Option<String>,
}

impl Event {
    /// An event as it will be read when it is in the journal; only its row is not known yet.
    pub fn coming(instance_pk: i64, instance_id: &InstanceId, event: &NewEvent) -> Self {
        let storable = |text: &str| text::storable(text).into_owned();
        let mut data = event.data.clone();
        text::storable_json(&mut data);
        Self {
            row: 0,
            id: event.id,
            instance_pk,
            instance_id: instance_id.clone(),
            kind: event.kind,
            order_key: storable(&event.order_key),
            seq: None,
            at: event.at,
            message_id: event.message_id.as_deref().map(storable),
            data,
            request_id: event.request_id.clone(),
            verdict: None,
            hook_errors: None,
        }
    }
}

/// An event whose data goes out as it is stored, without being read in between.
pub type RawEvent = Event<Box<RawValue>>;

impl RawEvent {
    /// With its data read.
    pub fn read(&self) -> Result<Event, StoreError> {
        let data = serde_json::from_str(self.data.get()).map_err(|_| StoreError::Corrupt("event's data"))?;
        let head = self.clone();
        Ok(Event {
            row: head.row,
            id: head.id,
            instance_pk: head.instance_pk,
            instance_id: head.instance_id,
            kind: head.kind,
            order_key: head.order_key,
            seq: head.seq,
            at: head.at,
            message_id: head.message_id,
            data,
            request_id: head.request_id,
            verdict: head.verdict,
            hook_errors: head.hook_errors,
        })
    }
}

/// What the transform hooks said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// It takes no number and is never shown.
    Drop,
    /// With other data.
    Replace,
    /// To some of the endpoints that asked for it.
    Route,
    /// A hook failed on it: it takes no number and is not shown, its deliveries are dead, and
    /// [`Store::replay_delivery`] has its hooks called again.
    Dead,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Replace => "replace",
            Self::Route => "route",
            Self::Dead => "dead",
        }
    }

    fn of(text: &str) -> Result<Self, StoreError> {
        [Self::Pass, Self::Drop, Self::Replace, Self::Route, Self::Dead]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or(StoreError::Corrupt("verdict"))
    }
}

/// The end of an event's fan-out.
#[derive(Debug, Clone)]
pub struct FanOut {
    pub event_row: i64,
    pub verdict: Verdict,
    /// Replaces the event's data.
    pub data: Option<Json>,
    pub deliveries: Vec<NewDelivery>,
    /// `None` when no hook was called.
    pub hooked: Option<Box<Hooked>>,
}

/// What a fan-out made.
#[derive(Debug, Clone, Default)]
pub struct FannedOut {
    /// The (row, number) of each event that has one, in order.
    pub numbers: Vec<(i64, i64)>,
    /// The sends of hooks that were accepted with it.
    pub jobs: Vec<Job>,
    /// Plugins that had used up their quota, once for each message that was left out.
    pub over_quota: Vec<String>,
}

/// A delivery to write with the fan-out.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub next_at: Timestamp,
}

/// Pending events in order. The literal lets both databases see that the partial index holds them.
pub(crate) fn pending(instance_pk: i64) -> Select<Entity> {
    Entity::find().filter(Column::InstancePk.eq(instance_pk)).filter(Expr::cust("fanout = 0")).order_by_asc(Column::Pk)
}

impl Store {
    /// Events that wait for their fan-out, in order.
    pub async fn pending_events(&self, instance_pk: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        self.read_events(self.reader().first(pending(instance_pk), limit).all(self.reader()).await?).await
    }

    /// The rows and ids of events that wait for their fan-out, in order, behind a row.
    pub async fn pending_ids(
        &self,
        instance_pk: i64,
        after: i64,
        limit: u64,
    ) -> Result<Vec<(i64, EventId)>, StoreError> {
        let sql = "SELECT pk, id FROM events WHERE instance_pk = $1 AND fanout = 0 AND pk > $2 ORDER BY pk LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.reader().all(sql, values![instance_pk, after, limit]).await?;
        rows.iter().map(|row| Ok((row.try_get("", "pk")?, EventId(row.try_get::<Uuid>("", "id")?)))).collect()
    }

    /// Instances with events that wait for their fan-out.
    pub async fn instances_with_pending_events(&self) -> Result<Vec<i64>, StoreError> {
        let sql = "SELECT pk FROM instances i WHERE EXISTS
                   (SELECT 1 FROM events e WHERE e.instance_pk = i.pk AND e.fanout = 0) ORDER BY pk";
        let rows = self.reader().all(sql, Vec::new()).await?;
        rows.iter().map(|row| Ok(row.try_get("", "pk")?)).collect()
    }

    /// Fanned-out events with a number above `seq`, in order.
    pub async fn events_after(&self, instance_pk: i64, seq: i64, limit: u64) -> Result<Vec<Event>, StoreError> {
        let find = Entity::find()
            .filter(Column::InstancePk.eq(instance_pk))
            .filter(Column::Seq.gt(seq))
            .order_by_asc(Column::Seq);
        self.read_events(self.reader().first(find, limit).all(self.reader()).await?).await
    }

    pub async fn event_by_id(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let row = Entity::find().filter(Column::Id.eq(id.0)).one(self.reader()).await?;
        Ok(self.read_events(row.into_iter().collect()).await?.pop())
    }

    /// (row, order key) of events that wait for their fan-out, in order, behind a row.
    pub async fn pending_lines(
        &self,
        instance_pk: i64,
        after: i64,
        limit: u64,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        let sql = "SELECT pk, order_key FROM events WHERE instance_pk = $1 AND fanout = 0 AND pk > $2
                   ORDER BY pk LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.reader().all(sql, values![instance_pk, after, limit]).await?;
        rows.iter().map(|row| Ok((row.try_get("", "pk")?, row.try_get("", "order_key")?))).collect()
    }

    /// Those of these events that wait for their fan-out, in order.
    pub async fn pending_events_of(&self, instance_pk: i64, rows: &[i64]) -> Result<Vec<Event>, StoreError> {
        let find = pending(instance_pk).filter(Column::Pk.is_in(rows.iter().copied()));
        self.read_events(find.all(self.reader()).await?).await
    }

    pub(crate) async fn read_events(&self, rows: Vec<Model>) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            // an event whose instance is gone is going, too
            let Some(instance_id) = self.id_of(row.instance_pk).await? else { continue };
            events.push(self.open_event(row, instance_id)?);
        }
        Ok(events)
    }

    /// An event from its row, its data read as far as `D` says.
    pub(crate) fn open_event<D: DeserializeOwned>(
        &self,
        row: Model,
        instance_id: InstanceId,
    ) -> Result<Event<D>, StoreError> {
        let data = self.sealer().open("event's data", &data_place(row.instance_pk, row.id), &row.data)?;
        Ok(Event {
            row: row.pk,
            id: EventId(row.id),
            instance_pk: row.instance_pk,
            instance_id,
            kind: word("event kind", &row.kind)?,
            order_key: row.order_key,
            seq: row.seq,
            at: Timestamp(row.occurred_at),
            message_id: row.message_id,
            data: serde_json::from_slice(&data).map_err(|_| StoreError::Corrupt("event's data"))?,
            request_id: row.request_id,
            verdict: row.verdict.as_deref().map(Verdict::of).transpose()?,
            hook_errors: row.hook_errors,
        })
    }
}
