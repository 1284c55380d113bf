//! Hooks: what a call costs beside a native closure that does the same work, what deliveries lose by them, and what a
//! plugin that misbehaves does to the API and to another plugin.

mod beside;
mod calls;
mod deliveries;
#[path = "../../../plugins/tests/bench/src/work.rs"]
mod work;

use crate::Common;
use std::time::Duration;

pub async fn run(common: &Common) {
    calls::run(common.rounds).await;
    beside::plugins().await;
    deliveries::run(common).await;
}

/// The place of `plugins/build`'s work.
fn dist() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/dist").to_owned()
}

fn artefact(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/{name}", dist())).expect("run plugins/build first")
}

/// Median and 99th percentile.
fn percentiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
