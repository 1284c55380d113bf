//! The metrics recorder, and the one place where every metric is described.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::{Mutex, PoisonError};

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric: its name, kind and meaning. A metric that is recorded elsewhere and missing here has no help text.
pub const DESCRIPTIONS: &[(&str, Kind, &str)] = &[
    ("kero_build_info", Kind::Gauge, "Always 1; the label tells the version."),
    ("kero_delivery_attempts_total", Kind::Counter, "Tries to deliver an event, by endpoint and outcome."),
    ("kero_delivery_blocked_total", Kind::Counter, "Requests that the guard refused to make, by reason."),
    ("kero_delivery_breaker_state", Kind::Gauge, "An endpoint's breaker: 0 closed, 1 half open, 2 open."),
    ("kero_delivery_lag_seconds", Kind::Histogram, "From an event to its delivery; replays by hand are not in it."),
    ("kero_delivery_oldest_pending_seconds", Kind::Gauge, "How long the oldest delivery waits, by endpoint."),
    ("kero_delivery_pending", Kind::Gauge, "Deliveries that wait, by endpoint."),
    (
        "kero_delivery_seconds",
        Kind::Histogram,
        "Parts of an exchange with an endpoint: dns, connect, first_byte, total.",
    ),
    (
        "kero_delivery_unrecorded_total",
        Kind::Counter,
        "Tries whose outcome could not be stored; they are repeated under the same webhook-id.",
    ),
    ("kero_database_commands_total", Kind::Counter, "Writes that were handed to the database's writers."),
    ("kero_database_commits_total", Kind::Counter, "Transactions that were committed."),
    ("kero_database_statements_total", Kind::Counter, "Statements that were run, those that read included."),
    ("kero_redis_dropped_total", Kind::Counter, "Writes to Redis that found too many waiting; the rows keep the jobs."),
    ("kero_redis_requests_total", Kind::Counter, "Round trips to Redis that the work queue made."),
    ("kero_hooks_breaker_open", Kind::Gauge, "1 while a plugin is suspended after too many faults."),
    ("kero_hooks_call_seconds", Kind::Histogram, "How long a hook's call took, by plugin."),
    ("kero_hooks_calls_total", Kind::Counter, "Calls of hooks by plugin, version and outcome."),
    ("kero_hooks_compile_seconds", Kind::Histogram, "How long plugins took to compile or to load."),
    ("kero_hooks_host_calls_total", Kind::Counter, "Calls of plugins to the host by plugin, import and result."),
    ("kero_hooks_instances", Kind::Gauge, "Instances of a plugin that wait for their next call."),
    ("kero_hooks_memory_peak_bytes", Kind::Gauge, "The most memory that a plugin's last call had in use."),
    ("kero_hooks_queue_depth", Kind::Gauge, "Calls of a plugin that wait for a place."),
    ("kero_hooks_ticks_total", Kind::Counter, "Ticks of 5 ms in which a plugin's code ran."),
    ("kero_jobs_dead_total", Kind::Counter, "Sends that ended as failed."),
    (
        "kero_queue_polled_total",
        Kind::Counter,
        "Lanes that the pass over due rows woke; few compared with all sends while the queue is healthy.",
    ),
    ("kero_pruned_events_total", Kind::Counter, "Events that were kept long enough and deleted."),
    ("kero_pruned_jobs_total", Kind::Counter, "Jobs that were kept long enough and deleted."),
    ("kero_queue_claims_total", Kind::Counter, "Attempts that lanes began."),
    ("kero_queue_depth", Kind::Gauge, "Sends that have not ended, by state and reason."),
    ("kero_queue_oldest_seconds", Kind::Gauge, "Age of the oldest send that has not ended."),
    (
        "kero_queue_drift",
        Kind::Gauge,
        "Elements of the Redis lists that the last comparison with the database added or removed.",
    ),
    (
        "kero_queue_repairs_total",
        Kind::Counter,
        "Elements of the Redis lists that were added or removed to agree with the database.",
    ),
];

/// Upper bounds of the histograms in seconds: from a local commit to a slow endpoint.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Those of a hook's call: from ten microseconds.
const CALL_SECONDS: [f64; 13] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0];

/// The recorder cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder cannot be installed")]
pub struct MetricsError(#[from] BuildError);

/// Renders what was recorded.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

/// Installs the process's recorder; a second call, as in tests that boot several gateways, gives the same.
pub fn install(version: &'static str) -> Result<Metrics, MetricsError> {
    static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = installed.as_ref() {
        return Ok(metrics.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("kero_hooks_call_seconds".to_owned()), &CALL_SECONDS)?
        .install_recorder()?;
    for (name, kind, text) in DESCRIPTIONS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *text),
            Kind::Gauge => metrics::describe_gauge!(*name, *text),
            Kind::Histogram => metrics::describe_histogram!(*name, *text),
        }
    }
    metrics::gauge!("kero_build_info", "version" => version).set(1.0);
    let metrics = Metrics { handle };
    *installed = Some(metrics.clone());
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_once_and_renders() {
        let first = install("0.0.0").unwrap();
        let second = install("0.0.0").unwrap();
        metrics::counter!("kero_delivery_attempts_total", "outcome" => "delivered").increment(1);
        let text = second.render();
        assert!(text.contains("kero_build_info{version=\"0.0.0\"} 1"), "{text}");
        assert!(text.contains("# HELP kero_delivery_attempts_total"), "{text}");
        assert_eq!(first.render(), text);
    }

    #[test]
    fn names_follow_the_rule() {
        let mut names: Vec<_> = DESCRIPTIONS.iter().map(|(name, ..)| *name).collect();
        for (name, kind, text) in DESCRIPTIONS {
            assert!(name.starts_with("kero_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(text.ends_with('.'), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DESCRIPTIONS.len());
    }

    #[test]
    fn every_recorded_metric_is_described() {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for part in text.split("metrics::").skip(1) {
                        let Some(name) = recorded(part) else { continue };
                        found += 1;
                        let described = DESCRIPTIONS.iter().any(|(known, ..)| *known == name);
                        assert!(described, "{}: {name} is not described in DESCRIPTIONS", path.display());
                    }
                }
            }
        }
        assert!(found > 0, "the search finds nothing; mend this test");
    }

    /// The name in `counter!("name", …`.
    fn recorded(call: &str) -> Option<&str> {
        let rest = ["counter!(", "gauge!(", "histogram!("].iter().find_map(|kind| call.strip_prefix(kind))?;
        rest.trim_start().strip_prefix('"')?.split('"').next()
    }
}
