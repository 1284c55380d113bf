//! One call of one hook: an instance, the limits around it, and an account of what it used.

use crate::capabilities::Capabilities;
use crate::effects::Effects;
use crate::engine::{Host, Inner};
use crate::error::{HookError, Kind};
use crate::event::Event;
use crate::hook::Hook;
use crate::host::log::LogLine;
use crate::host::{State, Task};
use crate::instances::{FUEL, Live};
use crate::verdict::{Judgement, Request, Response, Verdict, shorten};
use crate::work::{About, Answer, Question, Work};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{Store, Trap, WasmBacktrace};

/// A call that ended, well or not.
#[derive(Debug, Clone)]
pub struct Ran<T> {
    pub answer: Result<T, HookError>,
    /// Empty when the call failed.
    pub effects: Effects,
    pub logs: Vec<LogLine>,
    pub cost: Cost,
}

/// What a call used.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Ticks of the engine's clock in which guest code ran.
    pub ticks: u32,
    /// From the begin of the call, without waiting for a place.
    pub wall: Duration,
    /// The most linear memory at once, in bytes.
    pub memory_peak: usize,
    pub host_calls: u32,
    /// The same by import and result.
    #[serde(skip)]
    pub imports: Vec<HostCalls>,
    /// Bytes of log that were over the limit.
    pub log_dropped: u64,
    /// The same for the same work; only when the host counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Grants that were missing when the hook asked for something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<&'static str>,
}

/// Calls of one import that ended in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCalls {
    /// As the WIT has it, e.g. `kv.get`; `wasi` for all of those.
    pub import: &'static str,
    /// `ok`, `denied`, `quota`, `failed`, or `unanswered` when the guest was stopped meanwhile.
    pub result: &'static str,
    pub count: u32,
}

/// The surroundings of a call.
#[derive(Clone)]
pub struct Setting {
    pub capabilities: Capabilities,
    /// Told to the hook; the caller then throws the effects away.
    pub dry_run: bool,
}

/// A delivery that hooks are asked about.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    pub event: &'a Arc<Event>,
    /// The event's `data` as it is delivered.
    pub data: &'a str,
    /// The endpoint's id.
    pub endpoint: &'a str,
    /// The delivery's own id: what is asked for in one delivery is not what is asked for in another of the same event.
    pub id: &'a str,
    /// Which attempt is judged; nothing while the request is shaped.
    pub attempt: Option<u32>,
}

impl Delivery<'_> {
    pub(crate) fn about(&self) -> About {
        let step = self.attempt.map_or_else(|| "shape".to_owned(), |attempt| format!("judge-{attempt}"));
        About { endpoint: Some(self.endpoint.to_owned()), id: self.id.to_owned(), step: Some(step) }
    }
}

impl<T> Ran<T> {
    fn map<U>(self, f: impl FnOnce(T) -> Option<U>) -> Ran<U> {
        let Self { answer, effects, logs, cost } = self;
        let answer = answer.and_then(|answer| {
            f(answer).ok_or_else(|| HookError {
                plugin: String::new(),
                version: String::new(),
                kind: Kind::Link,
                detail: "an answer to another question".to_owned(),
            })
        });
        Ran { answer, effects, logs, cost }
    }
}

impl Host {
    /// One hook, one event. Chains, retries and policies are [`crate::run`]'s.
    pub async fn transform(&self, hook: &Arc<Hook>, event: &Arc<Event>, data: &str, setting: &Setting) -> Ran<Verdict> {
        let question = Question::Handle { data: Some(data.into()) };
        let ran = self.ask(hook, event, About::event(event), question, setting).await;
        ran.map(|answer| if let Answer::Verdict(it) = answer { Some(it) } else { None })
    }

    /// The request that a delivery is made with.
    pub async fn shape(
        &self,
        hook: &Arc<Hook>,
        delivery: Delivery<'_>,
        request: &Request,
        setting: &Setting,
    ) -> Ran<Request> {
        let question = Question::Shape { data: delivery.data.into(), request: request.clone() };
        let ran = self.ask(hook, delivery.event, delivery.about(), question, setting).await;
        ran.map(|answer| if let Answer::Request(it) = answer { Some(it) } else { None })
    }

    /// What an endpoint's answer means. `usual` is the gateway's own judgement.
    pub async fn judge(
        &self,
        hook: &Arc<Hook>,
        delivery: Delivery<'_>,
        request: &Request,
        response: &Response,
        usual: &Judgement,
        setting: &Setting,
    ) -> Ran<Judgement> {
        let question = Question::Judge { request: request.clone(), response: response.clone(), usual: usual.clone() };
        let ran = self.ask(hook, delivery.event, delivery.about(), question, setting).await;
        ran.map(|answer| if let Answer::Judgement(it) = answer { Some(it) } else { None })
    }

    async fn ask(
        &self,
        hook: &Arc<Hook>,
        event: &Arc<Event>,
        about: About,
        question: Question,
        setting: &Setting,
    ) -> Ran<Answer> {
        let outside = tokio::runtime::Handle::current();
        let (host, mine) = (Arc::clone(&self.inner), Arc::clone(hook));
        let capabilities = Arc::new(setting.capabilities.clone());
        let (event, about) = (Arc::clone(event), Arc::new(about));
        let work = Work { event, about, dry_run: setting.dry_run, wall: hook.limits.wall, question };
        let ran = self.on_workers(async move { run(&host, &mine, &capabilities, outside, &work).await }).await;
        ran.unwrap_or_else(|| Ran {
            answer: Err(error(hook, Kind::Link, "the gateway is stopping")),
            effects: Effects::default(),
            logs: Vec::new(),
            cost: Cost::default(),
        })
    }
}

pub(crate) fn error(hook: &Hook, kind: Kind, detail: impl Into<String>) -> HookError {
    let manifest = &hook.manifest;
    HookError { plugin: manifest.name.to_string(), version: manifest.version.clone(), kind, detail: detail.into() }
}

/// Runs on the guests' threads.
pub(crate) async fn run(
    host: &Arc<Inner>,
    hook: &Arc<Hook>,
    capabilities: &Arc<Capabilities>,
    outside: tokio::runtime::Handle,
    work: &Work,
) -> Ran<Answer> {
    // neither semaphore is ever closed; a plugin's own comes first, so that its queue holds no places of others
    let queued = hook.queued();
    let _mine = hook.places.acquire().await.ok();
    let _place = host.calls.acquire().await.ok();
    drop(queued);
    let _running = host.pulse.running();
    let started = Instant::now();
    let task = Task::new(hook.seat(), &work.event, &work.about, capabilities, outside);
    let mut live = match Live::waiting(host, hook, &work.event.instance) {
        Some(mut live) => {
            live.store.data_mut().task = task;
            live
        }
        None => Live::fresh(host, hook, &work.event.instance, task),
    };
    live.calls += 1;
    // A guest's own start may wait, too. Boxed: else it would be a part of each future above, and be copied with them.
    let called = tokio::time::timeout(work.wall, Box::pin(live.call(host, hook, work))).await;
    let answer = match called {
        Err(_) => {
            let waited = work.wall.as_millis();
            Err(error(hook, Kind::Wall, format!("no answer within {waited} ms")))
        }
        Ok(Err(failed)) if live.guest.is_none() => Err(instantiation(hook, &live.store, &failed)),
        Ok(Err(trapped)) => Err(classify(hook, &live.store, &trapped)),
        Ok(Ok(Err((kind, why)))) => Err(answered(hook, &live.store, kind, why)),
        Ok(Ok(Ok(answer))) => {
            work.question.check(answer, hook.limits.data).map_err(|why| error(hook, Kind::BadAnswer, why))
        }
    };
    // a guest that answered in good order is intact, whatever it answered
    let intact = !matches!(&answer, Err(failed) if failed.kind.class() == crate::error::Class::Fault);
    let ran = settle(hook, &mut live.store, started, answer);
    if intact {
        live.put_back(host, hook);
    }
    ran
}

/// The guest's own error; that of a script which was told that its time is used up is the place where it was then.
pub(crate) fn answered(hook: &Hook, store: &Store<State>, kind: Kind, mut why: String) -> HookError {
    let task = &store.data().task;
    let kind = if task.told { Kind::Cpu } else { kind };
    if task.told {
        let place = why.find('\n').map_or("", |end| &why[end..]);
        why = format!("{}{place}", task.over());
    }
    shorten(&mut why, DETAIL);
    error(hook, kind, why)
}

/// The account of a call.
fn settle(hook: &Hook, store: &mut Store<State>, started: Instant, answer: Result<Answer, HookError>) -> Ran<Answer> {
    let fuel = hook.host.config.fuel.then(|| FUEL.saturating_sub(store.get_fuel().unwrap_or(FUEL)));
    let state = store.data_mut();
    let mut logs = state.task.log.finish();
    let mut over = 0;
    if !logs.is_empty() {
        let now = i64::try_from(state.task.capabilities.clock.now()).unwrap_or(0);
        (logs, over) = hook.within_the_minute(logs, now);
    }
    let cost = Cost {
        ticks: state.task.ticks,
        wall: started.elapsed(),
        memory_peak: state.meter.peak,
        host_calls: state.task.host_calls,
        imports: state.task.imports(),
        log_dropped: state.task.log.dropped + over,
        fuel,
        denied: state.task.denied.iter().copied().collect(),
    };
    let effects = std::mem::take(&mut state.task.effects);
    state.task.end();
    Ran { effects: if answer.is_ok() { effects } else { Effects::default() }, answer, logs, cost }
}

/// The guest's start failed: by its own code, or because there was no room for it.
pub(crate) fn instantiation(hook: &Hook, store: &Store<State>, failed: &wasmtime::Error) -> HookError {
    if reason(store).is_some()
        || failed.downcast_ref::<Trap>().is_some()
        || failed.downcast_ref::<WasmBacktrace>().is_some()
    {
        return classify(hook, store, failed);
    }
    error(hook, Kind::Link, format!("{failed:#}"))
}

/// Puts the limits of a plugin around a store.
pub(crate) fn fence(host: &Inner, hook: &crate::hook::Seat, store: &mut Store<State>) {
    store.limiter(|state| &mut state.meter);
    store.set_hostcall_fuel(hook.limits.output);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut cx| cx.data_mut().task.tick());
    if host.config.fuel {
        // fails only where fuel is not counted
        let _ = store.set_fuel(FUEL);
    }
}

/// Why wasmtime gave up a call.
pub(crate) fn classify(hook: &Hook, store: &Store<State>, failed: &wasmtime::Error) -> HookError {
    let kind = reason(store).unwrap_or(match failed.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Kind::Stack,
        _ if failed.root_cause().to_string().contains("too much data is being copied") => Kind::Output,
        _ => Kind::Trap,
    });
    error(hook, kind, described(hook, failed))
}

/// The host's own reason, when it was the host that stopped the guest.
fn reason(store: &Store<State>) -> Option<Kind> {
    let state = store.data();
    state.task.stopped.or(state.meter.refused.then_some(Kind::Memory))
}

/// Bytes of a hook's own error text: a message and a stack.
const DETAIL: usize = 4096;
/// Frames of a backtrace that are told.
const FRAMES: usize = 8;

/// The cause, then the innermost functions. Those of a script's engine tell its author nothing: the file is named instead.
fn described(hook: &Hook, failed: &wasmtime::Error) -> String {
    let mut text = failed.root_cause().to_string();
    if let Some(trap) = failed.downcast_ref::<Trap>() {
        text = trap.to_string();
    }
    if let Some(script) = &hook.compiled.script {
        text.push_str("\n  in ");
        text.push_str(&script.name);
        return text;
    }
    let frames = failed.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    for frame in frames.iter().take(FRAMES) {
        let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), |name| name.to_owned());
        text.push_str("\n  in ");
        text.push_str(&name);
    }
    // names are the guest's own, as long as it likes
    shorten(&mut text, DETAIL);
    text
}
