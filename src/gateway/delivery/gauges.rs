//! What waits for each endpoint, and whether it is left alone, as the metrics show it.

use kero_domain::{EndpointId, Timestamp};
use kero_store::Pending;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

#[derive(Default)]
struct Gauges {
    pending: u64,
    oldest: Duration,
    breaker: f64,
}

/// Shows what waits, and the `levels` of the breakers. Endpoints that were `shown` before and have neither any more show
/// nothing: deleted and disabled ones do not stay as they were.
pub(super) fn show(
    shown: &mut HashSet<EndpointId>,
    pending: &[Pending],
    levels: impl Iterator<Item = (EndpointId, f64)>,
) {
    let now = Timestamp::now();
    let mut gauges: HashMap<EndpointId, Gauges> = shown.drain().map(|id| (id, Gauges::default())).collect();
    for found in pending {
        let gauges = gauges.entry(found.endpoint).or_default();
        (gauges.pending, gauges.oldest) = (found.count, found.oldest.until(now));
        shown.insert(found.endpoint);
    }
    for (id, level) in levels {
        gauges.entry(id).or_default().breaker = level;
        shown.insert(id);
    }
    for (id, Gauges { pending, oldest, breaker }) in gauges {
        let id = id.to_string();
        metrics::gauge!("kero_delivery_pending", "endpoint" => id.clone()).set(pending as f64);
        metrics::gauge!("kero_delivery_oldest_pending_seconds", "endpoint" => id.clone()).set(oldest.as_secs_f64());
        metrics::gauge!("kero_delivery_breaker_state", "endpoint" => id).set(breaker);
    }
}
