//! Events that were appended a moment ago: their fan-out need not read them back. Which events wait, and in which order,
//! the rows say; this only saves opening and parsing them, and is lost without harm.

use crate::Gateway;
use crate::instances::Handle;
use kero_domain::EventId;
use kero_store::{Event, StoreError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events of one instance; with more, it has a backlog, of which others are next.
const MOST: usize = 256;
/// One that nobody took in this time goes with the next fan-out: it was in the journal before, or could not be appended.
const KEPT: Duration = Duration::from_secs(1);

/// One instance's, with the time at which each came.
#[derive(Default)]
pub(crate) struct Fresh(Mutex<HashMap<EventId, (Instant, Event)>>);

impl Fresh {
    /// Keeps an event that is about to be appended, and may have to wait.
    pub(crate) fn put(&self, event: Event) {
        let mut events = self.events();
        if events.len() >= MOST {
            events.clear();
        }
        events.insert(event.id, (Instant::now(), event));
    }

    /// Forgets those that came before a moment.
    fn forget(&self, before: Instant) {
        self.events().retain(|_, (came, _)| *came >= before);
    }

    /// Forgets those that nobody waits for any more.
    pub(super) fn forget_old(&self) {
        if let Some(before) = Instant::now().checked_sub(KEPT) {
            self.forget(before);
        }
    }

    /// Forgets all: no hook has a say any more.
    pub(crate) fn clear(&self) {
        self.events().clear();
    }

    /// Those of these that are here, with their rows; the rows of the others.
    fn take(&self, ids: Vec<(i64, EventId)>) -> (Vec<Event>, Vec<i64>) {
        let mut known = self.events();
        let (mut events, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for (row, id) in ids {
            match known.remove(&id) {
                Some((_, event)) => events.push(Event { row, ..event }),
                None => missing.push(row),
            }
        }
        (events, missing)
    }

    fn events(&self) -> MutexGuard<'_, HashMap<EventId, (Instant, Event)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that wait for their fan-out, in order, behind a row.
pub(super) async fn pending(
    gateway: &Gateway,
    handle: &Handle,
    after: i64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let ids = gateway.store().pending_ids(handle.pk, after, limit as u64).await?;
    let (mut events, missing) = handle.fresh.take(ids);
    if !missing.is_empty() {
        events.extend(gateway.store().pending_events_of(handle.pk, &missing).await?);
        events.sort_by_key(|event| event.row);
    }
    Ok(events)
}

/// Those of these that wait for their fan-out, in order.
pub(super) async fn pending_of(gateway: &Gateway, handle: &Handle, rows: &[i64]) -> Result<Vec<Event>, StoreError> {
    let events = gateway.store().pending_events_of(handle.pk, rows).await?;
    let mut known = handle.fresh.events();
    events.iter().for_each(|event| drop(known.remove(&event.id)));
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kero_domain::{EventKind, NewEvent, Timestamp};

    fn event(n: usize) -> Event {
        let new = NewEvent::new(EventKind::Message, "x", Timestamp(0), serde_json::json!({ "n": n }));
        Event::coming(1, &"a".parse().unwrap(), &new)
    }

    #[test]
    fn each_is_taken_once_with_its_row() {
        let fresh = Fresh::default();
        let (here, other) = (event(1), event(2));
        fresh.put(here.clone());
        let ids = vec![(7, other.id), (8, here.id)];
        let (events, missing) = fresh.take(ids.clone());
        assert_eq!((events.len(), events[0].row, &events[0].data, missing), (1, 8, &here.data, vec![7]));
        assert_eq!(fresh.take(ids).1, [7, 8]);
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let fresh = Fresh::default();
        (0..3 * MOST + 1).for_each(|n| fresh.put(event(n)));
        assert_eq!(fresh.events().len(), 1);
        let between = Instant::now();
        fresh.put(event(0));
        fresh.forget(between);
        assert_eq!(fresh.events().values().map(|(_, event)| event.data["n"].clone()).collect::<Vec<_>>(), [0]);
        fresh.forget_old();
        assert_eq!(fresh.events().len(), 1);
        fresh.clear();
        assert!(fresh.events().is_empty());
    }
}
