//! Reading an instance's journal: in parts, one event, or following it as it grows.

use crate::{Gateway, errors::fault};
use kero_domain::endpoint::EventFilter;
use kero_domain::{EventId, EventKind, Fault, FaultCode, InstanceId};
use kero_store::{Event, Reading, StoreError};
use serde_json::Value;
use std::collections::HashMap;
use tokio::sync::watch;

/// Events that a follower reads at once: what it holds in memory while its client is slow.
const PART: u64 = 16;

/// A part of the journal.
#[derive(Debug)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Where to read on from; `None` at the end.
    pub next: Option<i64>,
}

/// What to follow.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// The number of the last event that is known; `None`: what comes from now on.
    pub after: Option<i64>,
    pub events: EventFilter,
    pub raw: bool,
}

/// Why a journal is not followed any longer.
#[derive(Debug)]
pub enum Ended {
    /// The instance was deleted.
    Deleted,
    /// The gateway stops.
    Stopping,
    /// The reader is so far behind that the next event is no longer kept; the first that is.
    Gone(i64),
    Failed(Fault),
}

/// Reads a journal from a place on and waits for more. It holds one part in memory, however slow its reader is.
pub struct Follower {
    gateway: Gateway,
    pk: i64,
    id: InstanceId,
    kinds: Option<Vec<EventKind>>,
    raw: bool,
    cursor: i64,
    caught_up: bool,
    feed: watch::Receiver<i64>,
}

fn kinds(filter: &EventFilter) -> Option<Vec<EventKind>> {
    match filter {
        EventFilter::All => None,
        EventFilter::Only(kinds) => Some(kinds.clone()),
    }
}

fn gone(oldest: i64, newest: i64) -> Fault {
    Fault::new(FaultCode::Gone)
        .with_detail("Events behind the one that you have are no longer kept.")
        .with("oldest_seq", oldest)
        .with("newest_seq", newest)
}

/// A place that the journal has not reached is another journal's: reading from it would wait for ever.
fn check_place(after: Option<i64>, reading: &Reading) -> Result<(), Fault> {
    if let Some(oldest) = reading.gone {
        return Err(gone(oldest, reading.newest));
    }
    if after.is_some_and(|after| after > reading.newest) {
        return Err(Fault::new(FaultCode::ValidationFailed)
            .with_detail("after is behind the newest event; is it of a deleted instance?")
            .with("parameter", "after")
            .with("newest_seq", reading.newest));
    }
    Ok(())
}

impl Gateway {
    /// Events of an instance behind `after` (`None`: from the first that is kept), at most `limit`. 410 `gone` with the
    /// first one that is kept when the next one is not.
    pub async fn read_events(
        &self,
        id: &InstanceId,
        after: Option<i64>,
        events: &EventFilter,
        limit: u64,
        raw: bool,
    ) -> Result<EventPage, Fault> {
        let pk = self.instance(id).await?.pk;
        let mut reading = self.store().read_journal(pk, after, kinds(events).as_deref(), limit).await.map_err(fault)?;
        check_place(after, &reading)?;
        if raw {
            self.add_raw(pk, &mut reading.events).await?;
        }
        let next = (reading.through < reading.newest).then_some(reading.through);
        Ok(EventPage { events: reading.events, next })
    }

    /// One event that is in the journal.
    pub async fn event(&self, id: &InstanceId, event: EventId, raw: bool) -> Result<Event, Fault> {
        let pk = self.instance(id).await?.pk;
        let found = self.store().event_by_id(event).await.map_err(fault)?;
        let mut events: Vec<Event> =
            found.into_iter().filter(|event| event.instance_pk == pk && event.seq.is_some()).collect();
        if raw {
            self.add_raw(pk, &mut events).await?;
        }
        events.pop().ok_or_else(|| FaultCode::EventNotFound.into())
    }

    /// Puts the messages as WhatsApp sent them into the events' data, as `raw`.
    async fn add_raw(&self, pk: i64, events: &mut [Event]) -> Result<(), Fault> {
        let rows: Vec<i64> = events.iter().map(|event| event.row).collect();
        let mut messages = self.raw_messages(pk, &rows).await.map_err(fault)?;
        for event in events {
            if let (Value::Object(data), Some(raw)) = (&mut event.data, messages.remove(&event.row)) {
                data.insert("raw".to_owned(), raw);
            }
        }
        Ok(())
    }

    /// The messages behind these events as WhatsApp sent them (the protobuf as JSON), by row; see
    /// [`kero_store::Store::raw_messages`] for the events that have none.
    pub(crate) async fn raw_messages(&self, pk: i64, rows: &[i64]) -> Result<HashMap<i64, Value>, StoreError> {
        let messages = self.store().raw_messages(pk, rows).await?;
        Ok(messages.into_iter().filter_map(|(row, bytes)| Some((row, kero_whatsapp::raw_json(&bytes)?))).collect())
    }

    /// Follows an instance's journal. The same faults as [`Gateway::read_events`].
    pub async fn follow_events(&self, id: &InstanceId, follow: Follow) -> Result<Follower, Fault> {
        let pk = self.instance(id).await?.pk;
        // before the look at the journal, so that nothing falls between the two
        let feed = self.inner.feed.follow(pk);
        let place = follow.after.unwrap_or(i64::MAX);
        let reading = self.store().read_journal(pk, Some(place), None, 1).await.map_err(fault)?;
        check_place(follow.after, &reading)?;
        Ok(Follower {
            gateway: self.clone(),
            pk,
            id: id.clone(),
            kinds: kinds(&follow.events),
            raw: follow.raw,
            cursor: follow.after.unwrap_or(reading.newest),
            caught_up: false,
            feed,
        })
    }
}

impl Follower {
    /// The last number that was passed, wanted or not.
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    pub fn instance_id(&self) -> &InstanceId {
        &self.id
    }

    /// The next events; waits until there are some. Nothing is lost when the wait is dropped and begun again.
    pub async fn next(&mut self) -> Result<Vec<Event>, Ended> {
        let stopping = self.gateway.inner.stopping.clone();
        loop {
            if self.caught_up {
                tokio::select! {
                    () = stopping.cancelled() => return Err(Ended::Stopping),
                    changed = self.feed.changed() => changed.map_err(|_| Ended::Deleted)?,
                }
                self.caught_up = false;
            }
            self.feed.borrow_and_update();
            let store = self.gateway.store();
            let reading = store.read_journal(self.pk, Some(self.cursor), self.kinds.as_deref(), PART).await;
            let mut reading = reading.map_err(|error| match error {
                StoreError::NotFound => Ended::Deleted,
                error => Ended::Failed(fault(error)),
            })?;
            if let Some(oldest) = reading.gone {
                return Err(Ended::Gone(oldest));
            }
            if self.raw {
                self.gateway.add_raw(self.pk, &mut reading.events).await.map_err(Ended::Failed)?;
            }
            // from here to the return nothing waits: a dropped wait cannot lose what was read
            self.caught_up = reading.through >= reading.newest;
            self.cursor = reading.through;
            if !reading.events.is_empty() {
                return Ok(reading.events);
            }
        }
    }
}
