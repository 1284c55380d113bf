//! The lane of an instance: first in, first out per (chat, class); parallel over chats; classes served 8 : 2 : 1.

use super::LaneKey;
use super::acks::Acks;
use super::attempt::{self, TurnEnd};
use super::known::Known;
use super::limits::Limits;
use super::marks;
use super::ready::Ready;
use super::settling::Settling;
use crate::Gateway;
use crate::instances::View;
use futures_util::FutureExt;
use kero_domain::{InstanceId, Timestamp};
use kero_store::{Instance, Job};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a chat rests after a panic in its turn.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// A cheap handle on an instance's lane.
#[derive(Clone)]
pub(crate) struct Lane {
    inbox: mpsc::UnboundedSender<Input>,
    acks: Arc<Acks>,
    known: Arc<Known>,
    busy: Arc<Mutex<HashSet<LaneKey>>>,
    view: watch::Receiver<View>,
    stopping: CancellationToken,
}

enum Input {
    Wake(LaneKey),
    WakeAt(LaneKey, Timestamp),
    WakeAll,
    FailAll,
}

impl Lane {
    pub(crate) fn wake(&self, key: LaneKey) {
        self.wakes(key);
    }

    /// The same. `false`: the lane has ended, and nothing will come of it.
    pub(crate) fn wakes(&self, key: LaneKey) -> bool {
        self.inbox.send(Input::Wake(key)).is_ok()
    }

    pub(crate) fn wake_at(&self, key: LaneKey, at: Timestamp) {
        let _ = self.inbox.send(Input::WakeAt(key, at));
    }

    /// A job was accepted, and committed. Told before its wake, it saves the lane a look-up.
    pub(crate) fn accepted(&self, job: &Job) {
        self.known.accepted(job);
    }

    /// Rows of a chat changed in another way than by accepting a job.
    pub(crate) fn forget(&self, key: &LaneKey) {
        self.known.forget(key);
    }

    /// Wakes a key that is not at work already. `false`: nothing would begin by this call.
    pub(crate) fn offer(&self, key: LaneKey) -> bool {
        let free = !self.is_busy(&key) && self.view.borrow().link.is_some();
        self.wake(key);
        free
    }

    /// Whether a turn for `key` runs or waits for its place.
    pub(crate) fn is_busy(&self, key: &LaneKey) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Every chat with unfinished jobs; after the queue was resumed.
    pub(crate) fn wake_all(&self) {
        let _ = self.inbox.send(Input::WakeAll);
    }

    /// The instance was logged out: its unfinished jobs end as failed.
    pub(crate) fn fail_all(&self) {
        let _ = self.inbox.send(Input::FailAll);
    }

    pub(crate) fn acks(&self) -> &Acks {
        &self.acks
    }

    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}

/// What a turn needs.
#[derive(Clone)]
pub(super) struct LaneContext {
    pub gateway: Gateway,
    pub pk: i64,
    pub id: InstanceId,
    pub view: watch::Receiver<View>,
    pub acks: Arc<Acks>,
    pub known: Arc<Known>,
    pub limits: Arc<Limits>,
    pub settling: Arc<Settling>,
}

pub(crate) fn spawn_lane(gateway: &Gateway, instance: &Instance, view: watch::Receiver<View>) -> Lane {
    let (inbox, outbox) = mpsc::unbounded_channel();
    let busy: Arc<Mutex<HashSet<LaneKey>>> = Arc::default();
    let stopping = gateway.inner.stopping.child_token();
    let (acks, known) = (Arc::default(), Arc::default());
    let lane = Lane { inbox, acks, known, busy: busy.clone(), view: view.clone(), stopping };
    let context = LaneContext {
        gateway: gateway.clone(),
        pk: instance.pk,
        id: instance.id.clone(),
        view,
        acks: lane.acks.clone(),
        known: lane.known.clone(),
        limits: Limits::new(gateway.config(), Timestamp::now()),
        settling: Arc::default(),
    };
    gateway.inner.tasks.spawn(run(context, outbox, busy, lane.stopping.clone()));
    lane
}

async fn run(
    context: LaneContext,
    mut inbox: mpsc::UnboundedReceiver<Input>,
    busy: Arc<Mutex<HashSet<LaneKey>>>,
    stopping: CancellationToken,
) {
    let mut ready = Ready::new(busy);
    serve(&context, &mut inbox, &mut ready, stopping).await;
    // whatever is kept for this lane in the queue is in its rows
    inbox.close();
    while let Some(input) = inbox.recv().await {
        if let Input::Wake(key) = input {
            ready.add(key);
        }
    }
    let busy = ready.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
    busy.iter().for_each(|key| context.gateway.inner.queue.release(context.pk, key));
}

async fn serve(
    context: &LaneContext,
    inbox: &mut mpsc::UnboundedReceiver<Input>,
    ready: &mut Ready,
    stopping: CancellationToken,
) {
    let queue = context.gateway.inner.queue.clone();
    let limit = context.gateway.config().lane_concurrency.max(1);
    let mut view = context.view.clone();
    let mut running: HashMap<LaneKey, bool> = HashMap::new();
    let mut timers: BTreeMap<Timestamp, HashSet<LaneKey>> = BTreeMap::new();
    let mut turns: JoinSet<(LaneKey, TurnEnd)> = JoinSet::new();
    let (mut generation, mut was_online) = (0, false);
    if !view.borrow().paired {
        // the process may have ended between the logout and its consequence
        attempt::fail_all(context).await;
    }
    loop {
        let current = view.borrow_and_update().clone();
        let online = current.link.is_some() && !stopping.is_cancelled();
        if online && current.generation != generation {
            generation = current.generation;
            context.known.forget_all();
            attempt::take_up(context, current.epoch).await;
            add_all(context, ready).await;
        }
        if std::mem::replace(&mut was_online, online) && !online {
            // they cannot run now: their rows keep them
            ready.known.iter().for_each(|key| queue.release(context.pk, key));
            context.gateway.inner.tasks.spawn(marks::mark_offline(context.clone()));
        }
        let mut limited = None;
        while online && running.len() < limit && !ready.is_empty() {
            let leave = match context.limits.leave(Timestamp::now()) {
                Ok(leave) => leave,
                Err(at) => {
                    limited = Some(at);
                    break;
                }
            };
            let Some(key) = ready.take() else { break };
            running.insert(key.clone(), false);
            let context = context.clone();
            turns.spawn(async move {
                // a turn that panics must not keep its chat: the row says what is left to do
                let turn = AssertUnwindSafe(attempt::turn(&context, &key, leave)).catch_unwind().await;
                let end = turn.unwrap_or_else(|_| {
                    context.known.forget(&key);
                    TurnEnd::At(Timestamp::now().after(AFTER_PANIC))
                });
                (key, end)
            });
        }
        if stopping.is_cancelled() && turns.is_empty() {
            return;
        }
        if let Some(at) = limited {
            let keys = ready.mark();
            if !keys.is_empty() {
                context.gateway.inner.tasks.spawn(marks::mark_limited(context.clone(), keys, at));
            }
        }
        let next_timer = timers.keys().next().copied().into_iter().chain(limited).min();
        let timer = async {
            match next_timer {
                Some(at) => tokio::time::sleep(Timestamp::now().until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            input = inbox.recv() => match input {
                Some(Input::Wake(key)) => match running.get_mut(&key) {
                    Some(again) => *again = true,
                    None => {
                        if !online {
                            queue.release(context.pk, &key);
                        }
                        ready.add(key);
                    }
                },
                Some(Input::WakeAt(key, at)) => { timers.entry(at).or_default().insert(key); }
                Some(Input::WakeAll) => add_all(context, ready).await,
                Some(Input::FailAll) => attempt::fail_all(context).await,
                None => return,
            },
            Some(joined) = turns.join_next() => {
                let Ok((key, end)) = joined else { continue };
                let again = running.remove(&key).unwrap_or(false);
                ready.ended(&key);
                if end != TurnEnd::Settling {
                    queue.release(context.pk, &key);
                }
                if let TurnEnd::At(at) = end {
                    timers.entry(at).or_default().insert(key.clone());
                }
                if again || matches!(end, TurnEnd::More | TurnEnd::Settling) {
                    ready.add(key.clone());
                }
                ready.rest(&key);
            },
            () = timer => {
                let now = Timestamp::now();
                while let Some(entry) = timers.first_entry() {
                    if *entry.key() > now { break }
                    for key in entry.remove() {
                        match running.get_mut(&key) {
                            Some(again) => *again = true,
                            None => ready.add(key),
                        }
                    }
                }
            },
            changed = view.changed() => if changed.is_err() { return },
            () = stopping.cancelled(), if !stopping.is_cancelled() => {},
        }
    }
}

async fn add_all(context: &LaneContext, ready: &mut Ready) {
    match context.gateway.store().lane_keys(context.pk).await {
        Ok(keys) => {
            for (chat, priority) in keys {
                ready.add(LaneKey { chat: chat.into(), priority });
            }
        }
        Err(error) => {
            tracing::warn!(instance = %context.id, error = &error as &dyn std::error::Error, "chats with work could not be read")
        }
    }
}

/// Whether asynchronous jobs may run.
pub(super) fn paused(gateway: &Gateway) -> bool {
    gateway.inner.paused.load(Ordering::Acquire)
}
