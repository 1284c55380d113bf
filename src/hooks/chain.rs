//! Chains: which hooks an event meets, in which order, and how their verdicts add up. Pure.

use crate::event::Event;
use crate::hook::Hook;
use crate::manifest::{Kind, Manifest};
use crate::verdict::Verdict;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Hooks that one event meets at most. Those behind are not skipped in silence: their policy decides, as when they are
/// suspended.
pub const LONGEST: usize = 16;

/// The transforms of an event, in the order in which they are called. A plugin does not meet events that its own
/// messages cause.
pub fn for_event(hooks: &[Arc<Hook>], event: &Event) -> Vec<Arc<Hook>> {
    ordered(hooks, |manifest| {
        manifest.kind == Kind::Transform && manifest.wants(event.kind, &event.instance) && !event.is_caused_by(manifest)
    })
}

/// The delivery hooks of an event on its way to an endpoint. The same holds for them: one that answers acknowledgements
/// would answer that of its own answer.
pub fn for_delivery(hooks: &[Arc<Hook>], event: &Event, endpoint: &str) -> Vec<Arc<Hook>> {
    ordered(hooks, |manifest| {
        manifest.kind == Kind::Delivery
            && manifest.wants(event.kind, &event.instance)
            && manifest.endpoints.iter().any(|pattern| pattern.matches(endpoint))
            && !event.is_caused_by(manifest)
    })
}

fn ordered(hooks: &[Arc<Hook>], wanted: impl Fn(&Manifest) -> bool) -> Vec<Arc<Hook>> {
    let mut chain: Vec<Arc<Hook>> = hooks.iter().filter(|hook| wanted(&hook.manifest)).cloned().collect();
    chain.sort_by(|a, b| (a.manifest.order, &a.manifest.name).cmp(&(b.manifest.order, &b.manifest.name)));
    chain
}

/// What the verdicts so far come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The new `data`; nothing when no hook replaced it.
    pub data: Option<String>,
    /// Only these endpoints, of those that would have got the event; nothing when no hook routed it.
    pub endpoints: Option<Vec<String>>,
    /// `plugin/kind` of hooks that failed and were passed by (`raw`), for [`crate::policy::ERROR_HEADER`].
    pub failures: Vec<String>,
}

impl Outcome {
    /// The `data` that the next hook sees.
    pub fn data<'a>(&'a self, event: &'a Event) -> &'a str {
        self.data.as_deref().unwrap_or(&event.data)
    }

    /// Adds a verdict. A drop ends the chain; routes can only narrow.
    pub fn take(&mut self, verdict: Verdict) -> ControlFlow<String> {
        match verdict {
            Verdict::Pass => {}
            Verdict::Drop { reason } => return ControlFlow::Break(reason),
            Verdict::Replace { data } => self.data = Some(data),
            Verdict::Route { endpoints, data } => {
                if data.is_some() {
                    self.data = data;
                }
                self.endpoints = Some(match self.endpoints.take() {
                    None => endpoints,
                    Some(before) => before.into_iter().filter(|endpoint| endpoints.contains(endpoint)).collect(),
                });
            }
        }
        ControlFlow::Continue(())
    }
}

/// Failed tries of one event so far, by plugin. Given back with [`End::Later`] and handed in again; in memory is enough,
/// since a lost count only means more tries.
pub type Tries = BTreeMap<String, u32>;

/// How a chain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<T> {
    /// Commit this, with the effects.
    Go(T),
    /// Commit that nobody gets it, with the effects.
    Dropped { by: String, reason: String },
    /// Commit deliveries in state dead (a transform), or this delivery as dead; replayable.
    Dead { by: String, reason: String },
    /// Commit nothing; run the chain again after this time with these tries.
    Later { by: String, after: std::time::Duration, reason: String, tries: Tries },
    /// Commit nothing; the plugin's breaker is open, or the host cannot run it, until this moment (Unix milliseconds).
    Held { by: String, until: i64, reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use kero_domain::EventKind;
    use serde_json::json;

    fn route(endpoints: &[&str], data: Option<&str>) -> Verdict {
        Verdict::Route {
            endpoints: endpoints.iter().map(|it| (*it).to_owned()).collect(),
            data: data.map(str::to_owned),
        }
    }

    #[test]
    fn verdicts_fold() {
        let event = Event::new("e", EventKind::Message, "i", 0, &json!({"a": 1}));
        let mut outcome = Outcome::default();
        assert_eq!(outcome.data(&event), "{\"a\":1}");
        assert!(outcome.take(Verdict::Pass).is_continue());
        assert!(outcome.take(Verdict::Replace { data: "{\"a\":2}".into() }).is_continue());
        assert_eq!(outcome.data(&event), "{\"a\":2}");
        assert!(outcome.take(route(&["x", "y"], None)).is_continue());
        assert_eq!(outcome.data(&event), "{\"a\":2}", "a route without data keeps it");
        assert!(outcome.take(route(&["y", "z"], Some("{}"))).is_continue());
        assert_eq!(outcome.endpoints, Some(vec!["y".to_owned()]), "routes narrow");
        assert_eq!(outcome.data(&event), "{}");
        assert_eq!(outcome.take(Verdict::Drop { reason: "spam".into() }), ControlFlow::Break("spam".to_owned()));
    }
}
