//! The fan-out of an instance that has transforms: chains run outside of any transaction, then everything that they
//! came to is one.
//!
//! In order per chat; chats do not wait for each other. One whose chain is slow goes on while others are committed, one
//! whose chain has to wait is held, in memory. With a backlog the next chains run while the last ones are committed.

use super::chains::{Chains, HELD, Hold, Planned, message_ids};
use super::{fresh, setting};
use crate::instances::Handle;
use crate::{Gateway, crash};
use futures_util::FutureExt;
use kero_domain::{EndpointId, Timestamp};
use kero_hooks::Host;
use kero_store::{Event, FanOut, StoreError};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Events of one round.
const BATCH: usize = 128;
/// Rows of one look for events that may run, when those of some chats may not, and looks of one round.
const LOOK: u64 = 2_000;
const LOOKS: usize = 5;
/// A round waits so long for the chats that it started.
const ROUND: Duration = Duration::from_millis(30);
/// From the begin of a round that left nothing to that of the next, at least: what comes meanwhile is read together and
/// shares a commit. An event that comes alone does not wait.
const SHARE: Duration = Duration::from_millis(5);
/// Chats of an instance whose chains run at once.
const CHATS: usize = 8;

/// What the fan-out of an instance knows beside the rows. Lost without harm: chains that run are stopped with it.
pub(super) struct Lines {
    generation: u64,
    held: HashMap<String, Hold>,
    /// Chats whose chains run, or wait for their turn to.
    busy: HashSet<String>,
    turns: Turns,
    /// All pending events up to this row are of held chats.
    cursor: i64,
    /// When it is woken for a held chat.
    wake_at: Option<Timestamp>,
    /// When the last round began; nothing when it left something that can go on.
    began: Option<Instant>,
}

/// What came of a chat's events, as [`Chains::chat`] says; nothing when the chains panicked.
type Ended = (String, Option<(Vec<(i64, Planned)>, bool)>);

/// The chats whose chains run.
struct Turns {
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    /// No round waits for those that run: their end has to wake the fan-out.
    late: Arc<AtomicBool>,
}

impl Default for Lines {
    fn default() -> Self {
        let turns = Turns {
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(CHATS)),
            ended: mpsc::unbounded_channel(),
            late: Arc::default(),
        };
        Self { generation: 0, held: HashMap::new(), busy: HashSet::new(), turns, cursor: 0, wake_at: None, began: None }
    }
}

impl Lines {
    pub(super) fn has_begun(&self) -> bool {
        !self.busy.is_empty()
    }
}

impl Turns {
    fn start(
        &mut self,
        host: Option<&Host>,
        chains: &Arc<Chains>,
        key: String,
        events: Vec<Event>,
        hold: Option<Hold>,
    ) {
        let (chains, places) = (Arc::clone(chains), Arc::clone(&self.places));
        let (ended, late) = (self.ended.0.clone(), Arc::clone(&self.late));
        let turn = async move {
            // never closed
            let place = places.acquire().await;
            let planned = AssertUnwindSafe(chains.chat(events, hold)).catch_unwind().await;
            drop(place);
            let _ = ended.send((key, planned.ok()));
            if late.load(Ordering::SeqCst) {
                chains.gateway.inner.fanout.dirty(chains.handle.pk);
            }
        };
        match host {
            Some(host) => host.spawn_among(&mut self.tasks, turn),
            None => drop(self.tasks.spawn(turn)),
        }
    }

    /// Those that have ended, these among them if they do within a round's time; the others wake the fan-out.
    async fn end(&mut self, mut awaited: HashSet<String>) -> Vec<Ended> {
        let until = Instant::now() + ROUND;
        let mut all = Vec::new();
        while !awaited.is_empty()
            && let Ok(Some(ended)) = tokio::time::timeout_at(until, self.ended.1.recv()).await
        {
            awaited.remove(&ended.0);
            all.push(ended);
        }
        self.late.store(true, Ordering::SeqCst);
        while let Ok(ended) = self.ended.1.try_recv() {
            all.push(ended);
        }
        while self.tasks.try_join_next().is_some() {}
        all
    }
}

/// Runs what may run now, and commits what comes of it. True when nothing is left that may.
pub(crate) async fn fan_out(gateway: &Gateway, handle: &Handle) -> Result<bool, StoreError> {
    let hooks = &gateway.inner.hooks;
    let mut lines = hooks.lines().remove(&handle.pk).unwrap_or_default();
    if let Some(began) = lines.began {
        tokio::time::sleep_until(began + SHARE).await;
    }
    let began = Instant::now();
    let round = round(gateway, handle, &mut lines).await;
    lines.began = matches!(round, Ok(true)).then_some(began);
    lines.turns.late.store(true, Ordering::SeqCst);
    handle.fresh.forget_old();
    // chains that were run behind events that could not be committed count for nothing
    if round.is_ok() {
        wake_for(gateway, handle.pk, &mut lines);
        hooks.lines().insert(handle.pk, lines);
    }
    round
}

/// Has the fan-out woken when the first held chat is due.
fn wake_for(gateway: &Gateway, pk: i64, lines: &mut Lines) {
    let Some(due) = lines.held.values().map(|hold| hold.until).min() else { return };
    if lines.wake_at.is_some_and(|at| at <= due && at > Timestamp::now()) {
        return;
    }
    lines.wake_at = Some(due);
    let (fanout, stopping) = (gateway.inner.fanout.clone(), gateway.inner.stopping.clone());
    gateway.inner.tasks.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(Timestamp::now().until(due)) => fanout.dirty(pk),
        }
    });
}

async fn round(gateway: &Gateway, handle: &Handle, lines: &mut Lines) -> Result<bool, StoreError> {
    let generation = gateway.inner.hooks.table().generation;
    let now = Timestamp::now();
    if lines.generation != generation {
        // what held them may be another now
        lines.held.values_mut().for_each(|hold| hold.until = now);
        lines.generation = generation;
    }
    if lines.held.values().any(|hold| hold.until <= now) {
        lines.cursor = 0;
    }
    let from = lines.cursor;
    let (mut events, mut looked_at_all) = runnable(gateway, handle, lines, now).await?;
    let mut committed = None;
    loop {
        lines.turns.late.store(false, Ordering::SeqCst);
        let last = events.last().map(|event| event.row);
        let started = start(gateway, handle, lines, events).await?;
        let goes_on = !looked_at_all && (!started.is_empty() || lines.cursor != from);
        // the chains of these while those before are committed; when that fails, these count for nothing
        let commits = async {
            match committed.take() {
                Some(items) => commit(gateway, handle, items).await,
                None => Ok(()),
            }
        };
        let (ended, before) = tokio::join!(lines.turns.end(started), commits);
        let has_ended = !ended.is_empty();
        let straight = ended.iter().all(|(_, planned)| planned.as_ref().is_some_and(|(_, straight)| *straight));
        let items = take(gateway, handle.pk, lines, ended).await;
        before?;
        let straight = straight && lines.held.is_empty() && lines.busy.is_empty();
        match last {
            Some(last) if straight && !looked_at_all => {
                committed = Some(items);
                events = fresh::pending(gateway, handle, last, BATCH).await?;
                looked_at_all = events.len() < BATCH;
            }
            _ => {
                commit(gateway, handle, items).await?;
                return Ok(!goes_on && !has_ended);
            }
        }
    }
}

/// Starts the chains of events, a task for each chat; these chats.
async fn start(
    gateway: &Gateway,
    handle: &Handle,
    lines: &mut Lines,
    events: Vec<Event>,
) -> Result<HashSet<String>, StoreError> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let sends = gateway.inner.hooks.table().sends();
    let senders = if sends { senders(gateway, handle.pk, &events).await? } else { HashMap::new() };
    let mut chats: Vec<(String, Vec<Event>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for event in events {
        let place = *places.entry(event.order_key.clone()).or_insert_with(|| {
            chats.push((event.order_key.clone(), Vec::new()));
            chats.len() - 1
        });
        chats[place].1.push(event);
    }
    let chains = Arc::new(Chains {
        gateway: gateway.clone(),
        handle: handle.clone(),
        endpoints: crate::events::endpoints(gateway, handle.pk).await?,
        setting: setting(gateway),
        outside: tokio::runtime::Handle::current(),
        senders,
    });
    let host = gateway.inner.hooks.host.get();
    for (key, events) in chats {
        let hold = lines.held.remove(&key);
        lines.busy.insert(key.clone());
        lines.turns.start(host, &chains, key, events, hold);
    }
    Ok(places.into_keys().collect())
}

/// What is to be committed of chats whose turns ended; the others are held.
async fn take(gateway: &Gateway, pk: i64, lines: &mut Lines, ended: Vec<Ended>) -> Vec<FanOut> {
    let mut items = Vec::new();
    for (key, planned) in ended {
        lines.busy.remove(&key);
        let Some((planned, _)) = planned else {
            tracing::error!(instance = pk, "the chains of a chat panicked");
            lines.held.insert(key, Hold { until: Timestamp::now().after(HELD), row: 0, tries: Default::default() });
            continue;
        };
        for (row, planned) in planned {
            match planned {
                Planned::Commit(item) => items.push(*item),
                Planned::Hold { until, tries, chain } => {
                    // a call that was made is shown, though nothing of it counts
                    if let Some(chain) = chain
                        && let Err(error) = gateway.store().record_hook_calls(pk, row, chain).await
                    {
                        tracing::warn!(error = &error as &dyn std::error::Error, "a hook's tries could not be kept");
                    }
                    lines.held.insert(key.clone(), Hold { until, row, tries });
                }
            }
        }
    }
    items.sort_by_key(|item| item.event_row);
    items
}

async fn commit(gateway: &Gateway, handle: &Handle, items: Vec<FanOut>) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let due: BTreeSet<EndpointId> =
        items.iter().flat_map(|item| item.deliveries.iter().map(|to| to.endpoint)).collect();
    let done = gateway.store().fan_out(handle.pk, handle.view().epoch, items).await?;
    crash::point("hook:after_commit");
    crate::events::tell_readers(gateway, handle.pk, &done);
    for job in &done.jobs {
        gateway.took(handle, job);
    }
    for plugin in &done.over_quota {
        tracing::warn!(plugin, instance = %handle.id, "a hook's message is left out: its quota is used up");
    }
    gateway.inner.delivery.due(due.into_iter().collect());
    Ok(())
}

/// The first events whose chats are neither held nor busy, and whether there can be no others.
async fn runnable(
    gateway: &Gateway,
    handle: &Handle,
    lines: &mut Lines,
    now: Timestamp,
) -> Result<(Vec<Event>, bool), StoreError> {
    if lines.held.is_empty() && lines.busy.is_empty() {
        let events = fresh::pending(gateway, handle, 0, BATCH).await?;
        let all = events.len() < BATCH;
        return Ok((events, all));
    }
    let mut rows = Vec::new();
    let mut from = lines.cursor;
    let mut only_held = true;
    let mut all = false;
    'looks: for _ in 0..LOOKS {
        let page = gateway.store().pending_lines(handle.pk, from, LOOK).await?;
        for (row, key) in &page {
            if lines.busy.contains(key) {
                only_held = false;
                continue;
            }
            if lines.held.get(key).is_some_and(|hold| hold.until > now) {
                if only_held {
                    lines.cursor = *row;
                }
                continue;
            }
            only_held = false;
            rows.push(*row);
            if rows.len() == BATCH {
                break 'looks;
            }
        }
        match page.last() {
            Some((row, _)) if page.len() as u64 == LOOK => from = *row,
            _ => {
                all = true;
                break;
            }
        }
    }
    let events = if rows.is_empty() { Vec::new() } else { fresh::pending_of(gateway, handle, &rows).await? };
    Ok((events, all))
}

/// Which plugin's message an event is about, by message id.
pub(super) async fn senders(
    gateway: &Gateway,
    pk: i64,
    events: &[Event],
) -> Result<HashMap<String, String>, StoreError> {
    let ids: HashSet<String> = events.iter().flat_map(message_ids).map(str::to_owned).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    gateway.store().hook_senders(pk, &ids.into_iter().collect::<Vec<_>>()).await
}
