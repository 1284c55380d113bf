//! What changes without a call that ends: open breakers, queues, instances that wait. Looked at now and then.

use super::registry::Place;
use crate::Gateway;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// The plugins that were shown.
#[derive(Default)]
pub(super) struct Shown(Mutex<HashSet<String>>);

#[derive(Default)]
struct Gauges {
    is_open: bool,
    queue: usize,
    instances: usize,
}

/// Shows every plugin that is in place. Those that no longer are do not stay as they were.
pub(super) fn show(gateway: &Gateway) {
    let hooks = &gateway.inner.hooks;
    let mut shown = hooks.gauges.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut gauges: HashMap<String, Gauges> = shown.drain().map(|plugin| (plugin, Gauges::default())).collect();
    for seat in &hooks.table().seats {
        let name = seat.manifest.name.to_string();
        let of = match &seat.place {
            Place::Ready(hook) => Gauges {
                is_open: hook.breaker().is_open(),
                queue: hook.queue_depth(),
                instances: hook.waiting_instances(),
            },
            Place::Suspended | Place::Broken(_) => Gauges::default(),
        };
        shown.insert(name.clone());
        gauges.insert(name, of);
    }
    for (plugin, Gauges { is_open, queue, instances }) in gauges {
        metrics::gauge!("kero_hooks_breaker_open", "plugin" => plugin.clone()).set(f64::from(u8::from(is_open)));
        metrics::gauge!("kero_hooks_queue_depth", "plugin" => plugin.clone()).set(queue as f64);
        metrics::gauge!("kero_hooks_instances", "plugin" => plugin).set(instances as f64);
    }
}
