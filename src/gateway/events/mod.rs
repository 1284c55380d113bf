//! Events: the journal (append before WhatsApp is answered), the fan-out (sequence and delivery rows), and reading.

mod feed;
mod journal;
mod read;

pub(crate) use feed::Feed;
pub(crate) use journal::Journal;
pub use read::{Ended, EventPage, Follow, Follower};

use crate::{Gateway, crash};
use futures_util::FutureExt;
use kero_domain::{DeliveryId, EndpointId, EventKind, NewEvent, Timestamp};
use kero_store::{Appended, Endpoint, Entry, Event, FanOut, FannedOut, NewDelivery, StoreError, Verdict};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events fanned out in one transaction.
const BATCH: u64 = 128;
/// The pass over instances with pending events: the fallback when a wake was lost.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Tells the fan-out that an instance has pending events.
#[derive(Clone)]
pub(crate) struct FanOutHandle {
    dirty: mpsc::UnboundedSender<i64>,
    endpoints: Arc<Mutex<Cache>>,
}

/// The endpoints by instance.
#[derive(Default)]
struct Cache {
    /// Grows with every change, so that what was read before one is not kept after it.
    generation: u64,
    known: HashMap<i64, Arc<Vec<Endpoint>>>,
}

impl FanOutHandle {
    pub(crate) fn dirty(&self, instance_pk: i64) {
        let _ = self.dirty.send(instance_pk);
    }

    /// The cached endpoints of an instance are stale.
    pub(crate) fn endpoints_changed(&self, instance_pk: i64) {
        let mut cache = self.cache();
        cache.generation += 1;
        cache.known.remove(&instance_pk);
    }

    /// Those of all instances are: a global one changed.
    pub(crate) fn all_endpoints_changed(&self) {
        let mut cache = self.cache();
        cache.generation += 1;
        cache.known.clear();
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn channel() -> (FanOutHandle, mpsc::UnboundedReceiver<i64>) {
    let (dirty, inbox) = mpsc::unbounded_channel();
    (FanOutHandle { dirty, endpoints: Arc::default() }, inbox)
}

/// Fans out in order per instance, in parallel over instances.
pub(crate) async fn run(gateway: Gateway, mut inbox: mpsc::UnboundedReceiver<i64>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut running: HashSet<i64> = HashSet::new();
    let mut again: HashSet<i64> = HashSet::new();
    // tasks of their own: a turn that is not polled would keep its database connection from the rest of this loop
    let mut turns: JoinSet<(i64, bool)> = JoinSet::new();
    let stopping = gateway.inner.stopping.clone();
    loop {
        let mut dirty: Vec<i64> = Vec::new();
        tokio::select! {
            Some(pk) = inbox.recv() => dirty.push(pk),
            Some(Ok((pk, retry))) = turns.join_next() => {
                running.remove(&pk);
                if again.remove(&pk) && !retry {
                    dirty.push(pk);
                }
            },
            _ = sweep.tick(), if !stopping.is_cancelled() => match gateway.store().instances_with_pending_events().await {
                Ok(pks) => dirty = pks,
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "pending events could not be read"),
            },
            () = stopping.cancelled(), if turns.is_empty() => return,
        }
        while let Ok(pk) = inbox.try_recv() {
            dirty.push(pk);
        }
        for pk in dirty {
            if running.insert(pk) {
                let gateway = gateway.clone();
                // after a panic the sweep tries again
                turns.spawn(async move {
                    let drained = AssertUnwindSafe(drain(&gateway, pk)).catch_unwind().await;
                    (pk, !matches!(drained, Ok(Ok(()))))
                });
            } else {
                again.insert(pk);
            }
        }
    }
}

/// Fans out everything that is pending for one instance.
async fn drain(gateway: &Gateway, pk: i64) -> Result<(), ()> {
    loop {
        let done = async {
            // calls that have begun count, also when their plugin was taken out of place meanwhile
            let begun = gateway.inner.hooks.has_begun(pk);
            let handle = gateway.inner.instances.by_pk(pk);
            if begun || gateway.inner.hooks.any() {
                // an instance that is going, or not there yet: its events must not go by their hooks
                let handle = handle.as_ref().ok_or(StoreError::EpochLost)?;
                if begun || gateway.inner.hooks.transform(&handle.id) {
                    return crate::hooks::fan_out(gateway, handle).await;
                }
            }
            if let Some(handle) = &handle {
                handle.fresh.clear();
            }
            let pending = gateway.store().pending_events(pk, BATCH).await?;
            if pending.is_empty() {
                return Ok(true);
            }
            let endpoints = endpoints(gateway, pk).await?;
            let now = Timestamp::now();
            let items: Vec<FanOut> = pending.iter().map(|event| plan(event, &endpoints, now)).collect();
            let due: BTreeSet<_> = items.iter().flat_map(|item| item.deliveries.iter().map(|to| to.endpoint)).collect();
            let epoch = handle.map_or(0, |handle| handle.view().epoch);
            crash::point("before_fanout");
            let done = gateway.store().fan_out(pk, epoch, items).await?;
            crash::point("after_fanout");
            tell_readers(gateway, pk, &done);
            gateway.inner.delivery.due(due.into_iter().collect());
            Ok::<_, StoreError>(pending.len() < usize::try_from(BATCH).unwrap_or(usize::MAX))
        };
        match done.await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(StoreError::EpochLost | StoreError::NotFound) => return Err(()),
            Err(error) => {
                tracing::warn!(instance = pk, error = &error as &dyn std::error::Error, "events wait for the database");
                return Err(());
            }
        }
    }
}

/// Wakes those who follow the instance's events.
pub(crate) fn tell_readers(gateway: &Gateway, pk: i64, done: &FannedOut) {
    if let Some(newest) = done.numbers.iter().map(|(_, seq)| *seq).max() {
        gateway.inner.feed.grew(pk, newest);
    }
}

/// The fan-out of an event of an instance without transforms.
fn plan(event: &Event, endpoints: &[Endpoint], now: Timestamp) -> FanOut {
    let deliveries = deliveries(event.kind, &event.order_key, &event.data, endpoints, now);
    FanOut { event_row: event.row, verdict: Verdict::Pass, data: None, deliveries, hooked: None }
}

/// Which endpoints get an event.
fn deliveries(
    kind: EventKind,
    order_key: &str,
    data: &Value,
    endpoints: &[Endpoint],
    now: Timestamp,
) -> Vec<NewDelivery> {
    endpoints
        .iter()
        .filter(|endpoint| endpoint.enabled && endpoint.events.wants(kind))
        .filter(|endpoint| endpoint.narrow.lets_through(order_key, data))
        .map(|endpoint| NewDelivery { id: DeliveryId::new(), endpoint: endpoint.id, next_at: now })
        .collect()
}

/// An event on its way into the journal. Where no transform has a say, its fan-out goes in the same commit, which saves
/// reading it back and a commit of its own; when the endpoints are not in memory, or events wait, it waits as well.
pub(crate) fn entry(gateway: &Gateway, pk: i64, event: NewEvent) -> Entry {
    let hooks = &gateway.inner.hooks;
    if hooks.any() {
        match gateway.inner.instances.by_pk(pk) {
            Some(handle) if hooks.transform(&handle.id) => {
                handle.fresh.put(Event::coming(pk, &handle.id, &event));
                return event.into();
            }
            Some(_) => {}
            // an instance that is going, or not there yet: its events must not go by their hooks
            None => return event.into(),
        }
    }
    let known = gateway.inner.fanout.cache().known.get(&pk).cloned();
    let deliveries = known.map(|endpoints| {
        crash::point("before_fanout");
        deliveries(event.kind, &event.order_key, &event.data, &endpoints, Timestamp::now())
    });
    Entry { event, deliveries }
}

/// After the commit of entries: wakes the fan-out of those that wait, and whoever waits for the others.
pub(crate) fn appended(gateway: &Gateway, pk: i64, appended: Appended, due: BTreeSet<EndpointId>) {
    if appended.wait {
        gateway.inner.fanout.dirty(pk);
    }
    if let Some(newest) = appended.newest {
        crash::point("after_fanout");
        gateway.inner.feed.grew(pk, newest);
        gateway.inner.delivery.due(due.into_iter().collect());
    }
}

/// Whom entries go to.
pub(crate) fn due<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<EndpointId> {
    entries.into_iter().flat_map(|entry| entry.deliveries.iter().flatten()).map(|to| to.endpoint).collect()
}

/// An instance's endpoints, as they are now.
pub(crate) async fn endpoints(gateway: &Gateway, pk: i64) -> Result<Arc<Vec<Endpoint>>, StoreError> {
    let fanout = &gateway.inner.fanout;
    let generation = {
        let cache = fanout.cache();
        if let Some(found) = cache.known.get(&pk) {
            return Ok(found.clone());
        }
        cache.generation
    };
    let found = Arc::new(gateway.store().endpoints_for(pk).await?);
    let mut cache = fanout.cache();
    if cache.generation == generation {
        cache.known.insert(pk, found.clone());
    }
    Ok(found)
}
