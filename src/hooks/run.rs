//! Chains, executed: calls in order on the guests' threads, with retries, the breaker and each plugin's policy.

use crate::ack;
use crate::breaker::{Gate, PROBE_AFTER_MS};
use crate::call::{self, Cost, Delivery, Ran, Setting};
use crate::capabilities::Capabilities;
use crate::chain::{End, LONGEST, Outcome, Tries};
use crate::effects::Effects;
use crate::engine::{Host, Inner};
use crate::error::{Class, HookError, Kind};
use crate::event::Event;
use crate::hook::Hook;
use crate::host::log::LogLine;
use crate::policy::{Policy, Step, step};
use crate::verdict::{Judgement, Request, Response, Verdict};
use crate::work::{About, Answer, Question, Work};
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A chain that was run.
#[derive(Debug, Clone)]
pub struct Chained<T> {
    pub end: End<T>,
    /// Of the hooks that answered; empty when the chain is run again: for [`End::Later`] and [`End::Held`], and, after a
    /// replay, for [`End::Dead`] and dropped deliveries.
    pub effects: Effects,
    /// One for each call, in order.
    pub records: Vec<Record>,
}

/// What is kept of a call: with the event or delivery, in the plugin's call list, in metrics.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub plugin: String,
    pub version: String,
    /// A verdict's or judgement's word, `shaped`, an error's kind, `suspended`, or [`UNDONE`].
    pub outcome: &'static str,
    /// What was refused of a verdict, or the error's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub cost: Cost,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogLine>,
}

/// A request as the chain shaped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaped {
    pub request: Request,
    /// As [`Outcome::failures`].
    pub failures: Vec<String>,
}

/// The outcome of a hook that answered in a chain of which nothing counts, since one behind it failed: it is called
/// again for the same.
pub const UNDONE: &str = "undone";

/// One hook's part in a chain.
enum Part {
    Answered(Answer),
    /// Failed or suspended, and `on_error` is `raw`: as if it were not there.
    PassedBy(String),
    Dropped(String),
    Dead(String),
    Later(Duration, String),
    Held(i64, String),
}

/// What a hook gets at least when those before it used up the chain's time: enough for any that does not wait.
const LAST: Duration = Duration::from_millis(100);

struct Walk {
    host: Arc<Inner>,
    event: Arc<Event>,
    about: Arc<About>,
    capabilities: Arc<Capabilities>,
    dry_run: bool,
    outside: tokio::runtime::Handle,
    started: Instant,
    tries: Tries,
    effects: Effects,
    records: Vec<Record>,
}

impl Host {
    /// Runs an event's transforms ([`crate::chain::for_event`]). What they ask for is done on the runtime that this is
    /// called on, wherever the future is awaited.
    pub fn run_transforms<'a>(
        &'a self,
        hooks: Vec<Arc<Hook>>,
        event: &Arc<Event>,
        tries: Tries,
        setting: &Setting,
    ) -> impl Future<Output = Chained<Outcome>> + Send + use<'a> {
        let walk = self.walk(event, About::event(event), tries, setting);
        async move {
            if hooks.is_empty() {
                return Chained { end: End::Go(Outcome::default()), effects: Effects::default(), records: Vec::new() };
            }
            let chain = Box::pin(walk.transforms(hooks));
            if self.is_worker() { chain.await } else { self.on_workers(chain).await.unwrap_or_else(stopping) }
        }
    }

    /// Runs the hooks of a delivery ([`crate::chain::for_delivery`]) over the request that the gateway would send.
    pub async fn run_shapes(
        &self,
        hooks: Vec<Arc<Hook>>,
        delivery: Delivery<'_>,
        request: Request,
        tries: Tries,
        setting: &Setting,
    ) -> Chained<Shaped> {
        if hooks.is_empty() {
            let end = End::Go(Shaped { request, failures: Vec::new() });
            return Chained { end, effects: Effects::default(), records: Vec::new() };
        }
        let walk = self.walk(delivery.event, delivery.about(), tries, setting);
        let data: Arc<str> = delivery.data.into();
        self.on_workers(walk.shapes(hooks, data, request)).await.unwrap_or_else(stopping)
    }

    /// Asks the hooks of a delivery what an answer means, each told what the one before it said. A hook that fails has
    /// no say: an attempt was made, and it must end.
    pub async fn run_judges(
        &self,
        hooks: Vec<Arc<Hook>>,
        delivery: Delivery<'_>,
        request: Request,
        response: Response,
        usual: Judgement,
        setting: &Setting,
    ) -> Chained<Judgement> {
        if hooks.is_empty() {
            return Chained { end: End::Go(usual), effects: Effects::default(), records: Vec::new() };
        }
        let walk = self.walk(delivery.event, delivery.about(), Tries::new(), setting);
        self.on_workers(walk.judges(hooks, request, response, usual)).await.unwrap_or_else(stopping)
    }

    fn walk(&self, event: &Arc<Event>, about: About, tries: Tries, setting: &Setting) -> Walk {
        Walk {
            host: Arc::clone(&self.inner),
            event: Arc::clone(event),
            about: Arc::new(about),
            capabilities: Arc::new(setting.capabilities.clone()),
            dry_run: setting.dry_run,
            outside: tokio::runtime::Handle::current(),
            started: Instant::now(),
            tries,
            effects: Effects::default(),
            records: Vec::new(),
        }
    }
}

fn stopping<T>() -> Chained<T> {
    let reason = "the gateway is stopping".to_owned();
    let end = End::Held { by: String::new(), until: 0, reason };
    Chained { end, effects: Effects::default(), records: Vec::new() }
}

impl Walk {
    async fn transforms(mut self, hooks: Vec<Arc<Hook>>) -> Chained<Outcome> {
        let mut outcome = Outcome::default();
        let mut data: Option<Arc<str>> = None;
        for (place, hook) in hooks.into_iter().enumerate() {
            let question = Question::Handle { data: data.clone() };
            match self.part(&hook, place, question).await {
                Part::Answered(Answer::Verdict(verdict)) => {
                    let seen = data.as_deref().unwrap_or(&self.event.data);
                    let (verdict, refused) = ack::guard(&self.event, seen, verdict, hook.grants.drop_ack);
                    self.note(refused.map(str::to_owned));
                    if let Some(new) = verdict.data() {
                        data = Some(new.into());
                    }
                    if let ControlFlow::Break(reason) = outcome.take(verdict) {
                        return self.end(End::Dropped { by: hook.name().to_string(), reason });
                    }
                }
                Part::Answered(_) => {}
                Part::PassedBy(failure) => outcome.failures.push(failure),
                other => {
                    let end = Self::stopped(&hook, other, &self.tries);
                    return self.end(end);
                }
            }
        }
        self.end(End::Go(outcome))
    }

    async fn shapes(mut self, hooks: Vec<Arc<Hook>>, data: Arc<str>, request: Request) -> Chained<Shaped> {
        let mut shaped = Shaped { request, failures: Vec::new() };
        for (place, hook) in hooks.into_iter().enumerate() {
            let question = Question::Shape { data: Arc::clone(&data), request: shaped.request.clone() };
            match self.part(&hook, place, question).await {
                Part::Answered(Answer::Request(request)) => shaped.request = request,
                Part::Answered(_) => {}
                Part::PassedBy(failure) => shaped.failures.push(failure),
                other => {
                    let end = Self::stopped(&hook, other, &self.tries);
                    return self.end(end);
                }
            }
        }
        self.end(End::Go(shaped))
    }

    async fn judges(
        mut self,
        hooks: Vec<Arc<Hook>>,
        request: Request,
        response: Response,
        usual: Judgement,
    ) -> Chained<Judgement> {
        let mut said = usual;
        for (place, hook) in hooks.into_iter().enumerate() {
            let (request, response) = (request.clone(), response.clone());
            let question = Question::Judge { request, response, usual: said.clone() };
            if let Part::Answered(Answer::Judgement(judgement)) = self.part(&hook, place, question).await {
                said = judgement;
            }
        }
        self.end(End::Go(said))
    }

    /// The end that a part means, when the chain does not go on.
    fn stopped<T>(hook: &Hook, part: Part, tries: &Tries) -> End<T> {
        let by = hook.name().to_string();
        match part {
            Part::Dropped(reason) => End::Dropped { by, reason },
            Part::Later(after, reason) => End::Later { by, after, reason, tries: tries.clone() },
            Part::Held(until, reason) => End::Held { by, until, reason },
            Part::Dead(reason) | Part::PassedBy(reason) => End::Dead { by, reason },
            Part::Answered(_) => End::Dead { by, reason: "an answer to another question".to_owned() },
        }
    }

    /// What counts of a chain with this end. A dropped event is settled; a dropped delivery can be replayed, as a dead
    /// one, and then its hooks are called again.
    fn end<T>(mut self, end: End<T>) -> Chained<T> {
        let counts = match end {
            End::Go(_) => true,
            End::Dropped { .. } => self.about.endpoint.is_none(),
            End::Dead { .. } | End::Later { .. } | End::Held { .. } => false,
        };
        if !counts {
            self.effects = Effects::default();
            self.records.iter_mut().filter(|it| VERDICTS.contains(&it.outcome)).for_each(|it| it.outcome = UNDONE);
        }
        Chained { end, effects: self.effects, records: self.records }
    }

    /// Calls one hook until it answers or its tries for now are over.
    async fn part(&mut self, hook: &Arc<Hook>, place: usize, question: Question) -> Part {
        let now = self.now();
        if place >= LONGEST {
            let why = format!("more than {LONGEST} hooks meet this event");
            self.record(hook, "suspended", Some(why.clone()), Cost::default(), Vec::new());
            return self.policy(hook, "suspended", why, Some(now + PROBE_AFTER_MS));
        }
        if let Gate::Shut { until } = hook.breaker().ask(now) {
            self.record(hook, "suspended", None, Cost::default(), Vec::new());
            return self.policy(hook, "suspended", "suspended after too many faults".to_owned(), Some(until));
        }
        let mut work = Work {
            event: Arc::clone(&self.event),
            about: Arc::clone(&self.about),
            dry_run: self.dry_run,
            wall: hook.limits.wall,
            question,
        };
        let own = hook.limits.wall.min(self.host.config.chain);
        // those before it used up what it needs: then a time-out says nothing about it
        let mut left = self.left();
        let is_cut = left + LAST < own;
        loop {
            work.wall = own.min(left);
            let ran = call::run(&self.host, hook, &self.capabilities, self.outside.clone(), &work).await;
            let Ran { answer, effects, logs, cost } = ran;
            let failed = match answer {
                Ok(answer) => {
                    // when it began will do: the breaker's window is a minute
                    hook.breaker().record(now, false);
                    self.record(hook, word(&answer), reason(&answer), cost, logs);
                    self.effects.append(effects);
                    self.tries.remove(hook.name().as_str());
                    return Part::Answered(answer);
                }
                Err(failed) => failed,
            };
            self.record(hook, failed.kind.as_str(), Some(failed.detail.clone()), cost, logs);
            let class = if is_cut && failed.kind == Kind::Wall { Class::Transient } else { failed.kind.class() };
            if hook.breaker().record(self.now(), class == Class::Fault) {
                tracing::warn!(plugin = %failed.plugin, version = failed.version, kind = %failed.kind, "hook suspended");
            }
            let tries = self.tries.entry(failed.plugin.clone()).or_default();
            *tries += 1;
            match step(class, *tries) {
                Step::Again => left = self.left(),
                Step::Later(after) => return Part::Later(after, failed.to_string()),
                Step::Hold => return Part::Held(self.now() + PROBE_AFTER_MS, failed.to_string()),
                Step::GiveUp => return self.give_up(hook, &failed),
            }
        }
    }

    /// What is left of the chain's time.
    fn left(&self) -> Duration {
        self.host.config.chain.saturating_sub(self.started.elapsed()).max(LAST)
    }

    fn give_up(&self, hook: &Hook, failed: &HookError) -> Part {
        self.policy(hook, failed.kind.as_str(), failed.to_string(), None)
    }

    /// What the plugin's `on_error` says. A suspended plugin's events are held unless it is `raw`.
    fn policy(&self, hook: &Hook, kind: &str, reason: String, suspended: Option<i64>) -> Part {
        match (ack::policy(&self.event, hook.manifest.on_error, hook.grants.drop_ack), suspended) {
            (Policy::Raw, _) => Part::PassedBy(format!("{}/{kind}", hook.name())),
            (_, Some(until)) => Part::Held(until, reason),
            (Policy::Dead, None) => Part::Dead(reason),
            (Policy::Drop, None) => Part::Dropped(reason),
        }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.capabilities.clock.now()).unwrap_or(i64::MAX)
    }

    fn record(&mut self, hook: &Hook, outcome: &'static str, note: Option<String>, cost: Cost, logs: Vec<LogLine>) {
        let (plugin, version) = (hook.name().to_string(), hook.manifest.version.clone());
        self.records.push(Record { plugin, version, outcome, note, cost, logs });
    }

    /// Adds what was refused to the last record.
    fn note(&mut self, refused: Option<String>) {
        if let (Some(refused), Some(record)) = (refused, self.records.last_mut()) {
            record.note = Some(refused);
        }
    }
}

/// Why a hook ended something, in its own words.
fn reason(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Verdict(Verdict::Drop { reason }) | Answer::Judgement(Judgement::Dead { reason }) => {
            (!reason.is_empty()).then(|| reason.clone())
        }
        _ => None,
    }
}

/// The words of answers that can be undone: a judgement never is.
const VERDICTS: [&str; 5] = ["pass", "drop", "replace", "route", SHAPED];
const SHAPED: &str = "shaped";

const fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Verdict(verdict) => verdict.word(),
        Answer::Request(_) => SHAPED,
        Answer::Judgement(judgement) => judgement.word(),
    }
}
