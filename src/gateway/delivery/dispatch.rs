//! The dispatcher: knows when which endpoint has something due, claims it, and gives every line its turn.
//!
//! It looks only at endpoints for which something may be due and that have a place free. Everything here can be
//! rebuilt from the rows; a sweep finds what a lost wake left behind.

use super::gate::Gate;
use super::gauges;
use super::places::{Kind, Places, SLOW};
use super::turn::{self, Shared, TurnEnd};
use super::{DeliveryConfig, Input};
use crate::Gateway;
use futures_util::FutureExt;
use kero_domain::endpoint::Order;
use kero_domain::{EndpointId, Timestamp};
use kero_store::{Claimed, Endpoint, Line, Wanting};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Endpoints in one look-up.
const ENDPOINTS: usize = 16;
/// Deliveries of a line in one turn.
const LENGTH: u64 = 32;
/// The pass over all endpoints: the fallback when a wake was lost.
const SWEEP: Duration = Duration::from_secs(30);
/// How often what waits is counted for the metrics: as often as they are read, more or less.
const MEASURE: Duration = Duration::from_secs(10);
/// How often turns are looked at that take long.
const WATCH: Duration = Duration::from_millis(250);
/// How long an endpoint rests after a panic or a failed look-up.
const REST: Duration = Duration::from_secs(2);

/// What is known of an endpoint with something to do.
struct Lane {
    /// `None`: to be read anew.
    endpoint: Option<Arc<Endpoint>>,
    gate: Arc<Mutex<Gate>>,
    turns: HashMap<Line, Turn>,
    /// When something may be due.
    looks: BTreeSet<Timestamp>,
    /// A look-up found more than there was room for.
    more: bool,
    /// It answers slowly, or not at all.
    slow: bool,
}

struct Turn {
    shared: Shared,
    kind: Kind,
}

impl Lane {
    fn new(config: &DeliveryConfig) -> Self {
        Self {
            endpoint: None,
            gate: Arc::new(Mutex::new(Gate::new(config.breaker, config.disable_after))),
            turns: HashMap::new(),
            looks: BTreeSet::new(),
            more: false,
            slow: false,
        }
    }

    fn kind(&self) -> Kind {
        if self.slow { Kind::Slow } else { Kind::Fast }
    }

    fn room(&self, config: &DeliveryConfig) -> usize {
        let most = match self.endpoint.as_ref().map(|endpoint| endpoint.order) {
            Some(Order::Strict) => 1,
            _ => config.per_endpoint,
        };
        most.saturating_sub(self.turns.len())
    }
}

struct Dispatcher {
    gateway: Gateway,
    config: Arc<DeliveryConfig>,
    lanes: HashMap<EndpointId, Lane>,
    places: Places,
    turns: JoinSet<(EndpointId, Line, TurnEnd)>,
    /// Endpoints that the metrics name.
    shown: HashSet<EndpointId>,
}

pub(super) async fn run(gateway: Gateway, mut inbox: mpsc::UnboundedReceiver<Input>) {
    let config = gateway.inner.delivery.config.clone();
    let stopping = gateway.inner.stopping.clone();
    let places = Places::new(config.concurrency);
    let (lanes, turns, shown) = (HashMap::new(), JoinSet::new(), HashSet::new());
    let mut dispatcher = Dispatcher { gateway, config, lanes, places, turns, shown };
    let mut sweep = tokio::time::interval(SWEEP);
    let mut measure = tokio::time::interval(MEASURE);
    measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if !stopping.is_cancelled() {
            dispatcher.serve().await;
        }
        let sleep = dispatcher.next_look().map_or(SWEEP, |at| Timestamp::now().until(at));
        tokio::select! {
            Some(input) = inbox.recv() => dispatcher.take(input).await,
            Some(ended) = dispatcher.turns.join_next() => dispatcher.ended(ended.ok()),
            _ = sweep.tick(), if !stopping.is_cancelled() => dispatcher.sweep().await,
            _ = measure.tick(), if !stopping.is_cancelled() => dispatcher.measure().await,
            _ = watch.tick(), if !dispatcher.turns.is_empty() => dispatcher.demote(),
            () = tokio::time::sleep(sleep), if !stopping.is_cancelled() => {}
            () = stopping.cancelled(), if dispatcher.turns.is_empty() => return,
        }
        while let Ok(input) = inbox.try_recv() {
            dispatcher.take(input).await;
        }
        while let Some(ended) = dispatcher.turns.try_join_next() {
            dispatcher.ended(ended.ok());
        }
    }
}

impl Dispatcher {
    fn lane(&mut self, id: EndpointId) -> &mut Lane {
        let config = &self.config;
        self.lanes.entry(id).or_insert_with(|| Lane::new(config))
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Due(ids) => {
                let now = Timestamp::now();
                for id in ids {
                    self.lane(id).looks.insert(now);
                }
            }
            Input::Changed(id) => {
                let lane = self.lane(id);
                lane.endpoint = None;
                lane.turns.values().for_each(|turn| turn.shared.stale.store(true, Ordering::Relaxed));
                // whoever changed it may have mended it
                self.ask(id);
            }
            Input::Asked(id) => self.ask(id),
            Input::Anything => self.sweep().await,
        }
    }

    /// Looks at an endpoint, also at one whose breaker is open.
    fn ask(&mut self, id: EndpointId) {
        let now = Timestamp::now();
        let lane = self.lane(id);
        lane.gate.lock().unwrap_or_else(PoisonError::into_inner).ask_again(now);
        lane.looks.insert(now);
    }

    /// Looks at every endpoint with something pending.
    async fn sweep(&mut self) {
        match self.gateway.store().due_endpoints().await {
            Ok(due) => {
                for (id, at) in due {
                    self.lane(id).looks.insert(at);
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "due deliveries could not be read");
            }
        }
    }

    /// What waits for whom, for the metrics.
    async fn measure(&mut self) {
        let Ok(pending) = self.gateway.store().pending_deliveries().await else { return };
        let level = |lane: &Lane| lane.gate.lock().unwrap_or_else(PoisonError::into_inner).level();
        let levels = self.lanes.iter().map(|(id, lane)| (*id, level(lane)));
        gauges::show(&mut self.shown, &pending, levels);
    }

    /// The next moment at which a lane with room wants to be looked at.
    fn next_look(&self) -> Option<Timestamp> {
        let fit = |lane: &&Lane| lane.room(&self.config) > 0 && self.places.has(lane.kind());
        self.lanes.values().filter(fit).filter_map(|lane| lane.looks.first().copied()).min()
    }

    /// Looks up what is due where there is room, and starts turns.
    async fn serve(&mut self) {
        let now = Timestamp::now();
        let wanted: Vec<EndpointId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.looks.first().is_some_and(|at| *at <= now))
            .filter(|(_, lane)| lane.room(&self.config) > 0 && self.places.has(lane.kind()))
            .map(|(id, _)| *id)
            .collect();
        let wanted: Vec<EndpointId> = wanted.into_iter().filter(|id| !self.is_blocked(*id, now)).collect();
        if wanted.is_empty() {
            return;
        }
        self.read_endpoints(&wanted, now).await;
        for ids in wanted.chunks(ENDPOINTS) {
            let mut endpoints = Vec::with_capacity(ids.len());
            let mut busy = HashSet::new();
            for id in ids {
                let Some(lane) = self.lanes.get_mut(id) else { continue };
                let Some(endpoint) = lane.endpoint.clone() else { continue };
                // what comes up from here on is a reason to look again
                lane.looks.retain(|at| *at > now);
                lane.more = false;
                busy.extend(lane.turns.keys().cloned());
                endpoints.push(Wanting { endpoint, room: lane.room(&self.config) });
            }
            let lines = 2 * self.config.per_endpoint.max(1) as u64;
            match self.gateway.store().claim_deliveries(&endpoints, now, lines, LENGTH, &busy).await {
                Ok(claimed) => {
                    let mut found: HashMap<EndpointId, u64> = HashMap::new();
                    for claimed in claimed {
                        *found.entry(claimed.line.endpoint).or_default() += 1;
                        self.start(claimed);
                    }
                    for (id, count) in found {
                        // there may be more than was asked for
                        self.lane(id).more |= count >= lines;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "due deliveries could not be read");
                    for wanting in endpoints {
                        self.lane(wanting.endpoint.id).looks.insert(now.after(REST));
                    }
                }
            }
        }
        let full: Vec<EndpointId> =
            self.lanes.iter().filter(|(_, lane)| lane.more && lane.turns.is_empty()).map(|(id, _)| *id).collect();
        for id in full {
            // nothing of its own will end and wake it: it waits for a shared place
            self.lane(id).looks.insert(now);
        }
    }

    /// An endpoint that nothing may go to yet is looked at when it may.
    fn is_blocked(&mut self, id: EndpointId, now: Timestamp) -> bool {
        let lane = self.lane(id);
        let blocked = lane.gate.lock().unwrap_or_else(PoisonError::into_inner).blocked_until(now);
        if let Some(until) = blocked {
            lane.looks.retain(|at| *at > now);
            lane.looks.insert(until);
        }
        blocked.is_some()
    }

    async fn read_endpoints(&mut self, wanted: &[EndpointId], now: Timestamp) {
        let missing = |id: &&EndpointId| self.lanes.get(id).is_some_and(|lane| lane.endpoint.is_none());
        let ids: Vec<EndpointId> = wanted.iter().filter(missing).copied().collect();
        if ids.is_empty() {
            return;
        }
        let mut found = Vec::new();
        for ids in ids.chunks(500) {
            match self.gateway.store().endpoints_by_id(ids).await {
                Ok(endpoints) => found.extend(endpoints),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "endpoints could not be read");
                    for id in ids {
                        self.rest(*id, now);
                    }
                    return;
                }
            }
        }
        let mut gone: HashSet<EndpointId> = ids.into_iter().collect();
        for endpoint in found.into_iter().filter(|endpoint| endpoint.enabled) {
            gone.remove(&endpoint.id);
            let lane = self.lane(endpoint.id);
            let mut gate = lane.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.configure(endpoint.rate_limit, endpoint.failing_since, now);
            drop(gate);
            lane.endpoint = Some(Arc::new(endpoint));
        }
        for id in gone {
            // deleted or disabled: forgotten, once its turns have ended
            let lane = self.lane(id);
            lane.looks.clear();
            if lane.turns.is_empty() {
                self.lanes.remove(&id);
            }
        }
    }

    fn rest(&mut self, id: EndpointId, now: Timestamp) {
        let lane = self.lane(id);
        lane.looks.retain(|at| *at > now);
        lane.looks.insert(now.after(REST));
    }

    fn start(&mut self, claimed: Claimed) {
        let Claimed { line, run } = claimed;
        let config = Arc::clone(&self.config);
        let (id, gateway) = (line.endpoint, self.gateway.clone());
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let kind = lane.kind();
        if run.is_empty() || lane.turns.contains_key(&line) || lane.room(&config) == 0 || !self.places.has(kind) {
            lane.more = true;
            return;
        }
        self.places.take(kind);
        let shared = Shared::new(Arc::clone(&lane.gate));
        lane.turns.insert(line.clone(), Turn { shared: shared.clone(), kind });
        self.turns.spawn(async move {
            // after a panic the line rests; its rows say what is left to do
            let turn = AssertUnwindSafe(turn::run(&gateway, run, &shared)).catch_unwind().await;
            (id, line, turn.unwrap_or_else(|_| TurnEnd::At(Timestamp::now().after(REST))))
        });
    }

    fn ended(&mut self, ended: Option<(EndpointId, Line, TurnEnd)>) {
        let Some((id, line, end)) = ended else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(turn) = lane.turns.remove(&line) {
            self.places.free(turn.kind);
            let took = turn.shared.took.load(Ordering::Relaxed);
            if took >= 0 {
                lane.slow = took >= i64::try_from(SLOW.as_millis()).unwrap_or(i64::MAX);
            }
        }
        let now = Timestamp::now();
        match end {
            // more may have come into the line meanwhile
            TurnEnd::Done => {
                lane.looks.insert(now);
            }
            TurnEnd::At(at) => {
                lane.looks.insert(at.max(now));
                if lane.more {
                    lane.looks.insert(now);
                }
            }
            TurnEnd::Stopped => {}
        }
    }

    /// Takes shared places away from exchanges that turn out to be slow.
    fn demote(&mut self) {
        let limit = Timestamp::now().before(SLOW).0;
        for lane in self.lanes.values_mut() {
            for turn in lane.turns.values_mut() {
                let since = turn.shared.since.load(Ordering::Relaxed);
                if turn.kind == Kind::Fast && since > 0 && since < limit {
                    turn.kind = Kind::Slow;
                    lane.slow = true;
                    self.places.demote();
                }
            }
        }
    }
}
