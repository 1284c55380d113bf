//! The host's side of a running guest: its state, and one capability a file. Nothing here knows a WIT version; the
//! adapter files translate.

pub(crate) mod config;
pub(crate) mod http;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod send;
pub(crate) mod wasi;

use crate::call::HostCalls;
use crate::capabilities::{Capabilities, Scope};
use crate::effects::Effects;
use crate::engine::Aborting;
use crate::error::Kind;
use crate::event::Event;
use crate::hook::Seat;
use crate::limits::{Limits, Meter};
use crate::work::About;
use log::Log;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::UpdateDeadline;

/// What wasmtime keeps beside an instance.
pub(crate) struct State {
    pub(crate) meter: Meter,
    pub(crate) wasi: wasi::Handles,
    pub(crate) task: Task,
}

/// One call. A reused instance gets a new one each time.
pub(crate) struct Task {
    pub(crate) hook: Arc<Seat>,
    event: Arc<Event>,
    about: Arc<About>,
    pub(crate) capabilities: Arc<Capabilities>,
    /// The runtime that the call came from.
    outside: tokio::runtime::Handle,
    pub(crate) log: Log,
    pub(crate) effects: Effects,
    /// Imports that were called without a grant.
    pub(crate) denied: BTreeSet<&'static str>,
    /// Why the host stopped the guest, when it did.
    pub(crate) stopped: Option<Kind>,
    pub(crate) host_calls: u32,
    calls: Vec<HostCalls>,
    /// The import that was called and has not answered.
    open: Option<&'static str>,
    pub(crate) http_calls: u32,
    pub(crate) kv_used: Option<u64>,
    pub(crate) ticks: u32,
    budget: u32,
    /// Ticks above the budget before the guest is stopped: its engine is told first, and ends the script with its place.
    grace: u32,
    /// The script's engine was told.
    pub(crate) told: bool,
    slow: Arc<Semaphore>,
    /// Of a long call: its place, once it has one.
    turn: Option<Arc<Mutex<Option<OwnedSemaphorePermit>>>>,
}

/// A script's engine asks after some thousand turns of a loop, which take so many ticks when each turn does something.
const GRACE: u32 = 4;

/// Why a capability was not given, in the words that guests read.
pub(crate) fn missing(grant: &str, toml: &str) -> String {
    format!(
        "the grant `{grant}` is missing: ask for it with `{toml}` under [grants] in plugin.toml, and have the operator give it"
    )
}

/// Why a host call was not answered as the guest wished.
pub(crate) trait Refusal {
    /// For metrics.
    fn word(&self) -> &'static str;
}

impl Task {
    pub(crate) fn new(
        hook: &Arc<Seat>,
        event: &Arc<Event>,
        about: &Arc<About>,
        capabilities: &Arc<Capabilities>,
        outside: tokio::runtime::Handle,
    ) -> Self {
        let tick = hook.host.config.tick.as_nanos().max(1);
        let budget = u32::try_from(hook.limits.cpu.as_nanos().div_ceil(tick)).unwrap_or(u32::MAX);
        Self {
            log: Log::new(&hook.limits),
            slow: Arc::clone(&hook.host.slow),
            hook: Arc::clone(hook),
            event: Arc::clone(event),
            about: Arc::clone(about),
            capabilities: Arc::clone(capabilities),
            outside,
            effects: Effects::default(),
            denied: BTreeSet::new(),
            stopped: None,
            host_calls: 0,
            calls: Vec::new(),
            open: None,
            http_calls: 0,
            kv_used: None,
            ticks: 0,
            budget: budget.max(1),
            grace: if hook.compiled.script.is_some() { GRACE } else { 0 },
            told: false,
            turn: None,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.hook.limits
    }

    /// Whose call it is.
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            plugin: self.hook.manifest.name.to_string(),
            instance: self.event.instance.clone(),
            event: self.event.id.clone(),
            about: self.about.id.clone(),
            step: self.about.step.clone(),
        }
    }

    /// Every host call begins here, or with [`Task::begin`].
    pub(crate) fn enter(&mut self, import: &'static str) -> wasmtime::Result<()> {
        self.begin(import)?;
        self.open = None;
        self.count(import, "ok");
        Ok(())
    }

    /// A host call whose answer is told with [`Task::told`].
    pub(crate) fn begin(&mut self, import: &'static str) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        if self.host_calls > self.limits().host_calls {
            return Err(self.stop(Kind::HostCalls, format!("more than {} host calls", self.limits().host_calls)));
        }
        self.open = Some(import);
        Ok(())
    }

    /// The answer of the host call that was begun, counted.
    pub(crate) fn told<T, E: Refusal>(&mut self, answer: Result<T, E>) -> Result<T, E> {
        if let Some(import) = self.open.take() {
            self.count(import, answer.as_ref().err().map_or("ok", Refusal::word));
        }
        answer
    }

    fn count(&mut self, import: &'static str, result: &'static str) {
        match self.calls.iter_mut().find(|it| it.import == import && it.result == result) {
            Some(calls) => calls.count = calls.count.saturating_add(1),
            None => self.calls.push(HostCalls { import, result, count: 1 }),
        }
    }

    /// The host calls so far; one that the guest was stopped in is without an answer.
    pub(crate) fn imports(&mut self) -> Vec<HostCalls> {
        if let Some(import) = self.open.take() {
            self.count(import, "unanswered");
        }
        std::mem::take(&mut self.calls)
    }

    /// Stops the guest for this reason.
    pub(crate) fn stop(&mut self, kind: Kind, why: String) -> wasmtime::Error {
        self.stopped = Some(kind);
        wasmtime::Error::msg(why)
    }

    /// The engine's epoch moved while guest code ran: one tick of CPU is used.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.ticks += 1;
        if self.ticks > self.budget + self.grace {
            return Err(self.stop(Kind::Cpu, self.over()));
        }
        if self.ticks == 2 {
            // a long call: wait for one of the places for long calls, so that short ones find a free worker
            let (slow, turn) = (Arc::clone(&self.slow), Arc::clone(self.turn.get_or_insert_default()));
            return Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(async move {
                    if let Ok(permit) = slow.acquire_owned().await {
                        *turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                    }
                }),
            ));
        }
        Ok(UpdateDeadline::Yield(1))
    }

    /// Whether the CPU time is used up, for a script's engine.
    pub(crate) fn is_over(&mut self) -> bool {
        self.told |= self.ticks > self.budget;
        self.told
    }

    /// What is told of a guest whose time is used up.
    pub(crate) fn over(&self) -> String {
        format!("more than {} ms of CPU", self.limits().cpu.as_millis())
    }

    /// The call ended: another may be long now.
    pub(crate) fn end(&mut self) {
        if let Some(turn) = self.turn.take() {
            *turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Runs a capability's future where the call came from.
    pub(crate) async fn outside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        Aborting(self.outside.spawn(work)).join().await.ok_or_else(|| "the gateway is stopping".to_owned())
    }
}
