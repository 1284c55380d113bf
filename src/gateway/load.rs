//! What waits and how fast it goes, per instance, in memory. The rows correct the counts again and again.

use crate::Gateway;
use kero_domain::Timestamp;
use kero_store::QueueCount;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds that a rate looks back.
const WINDOW: usize = 60;

/// Sends of an instance over the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub accepted: u32,
    pub sent: u32,
    pub failed: u32,
}

#[derive(Default)]
pub(crate) struct Load {
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    instances: HashMap<i64, Instance>,
    /// The sum of `open`.
    open: u64,
}

struct Instance {
    /// Jobs that have not ended.
    open: u64,
    /// The last minute, a second each.
    seconds: [Rates; WINDOW],
    /// The second that was counted last.
    at: i64,
}

impl Default for Instance {
    fn default() -> Self {
        Self { open: 0, seconds: [Rates::default(); WINDOW], at: 0 }
    }
}

impl Instance {
    /// The present second; those since the last count are empty.
    fn second(&mut self, now: Timestamp) -> &mut Rates {
        let now = now.secs();
        let passed = now.saturating_sub(self.at);
        for n in 1..=passed.clamp(0, WINDOW as i64) {
            self.seconds[place(now - passed + n)] = Rates::default();
        }
        self.at = self.at.max(now);
        &mut self.seconds[place(self.at)]
    }
}

fn place(second: i64) -> usize {
    usize::try_from(second.rem_euclid(WINDOW as i64)).unwrap_or(0)
}

impl Load {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, pk: i64, change: impl FnOnce(&mut Instance)) {
        let mut all = self.lock();
        let instance = all.instances.entry(pk).or_default();
        let before = instance.open;
        change(instance);
        let after = instance.open;
        all.open = (all.open + after).saturating_sub(before);
    }

    pub(crate) fn accepted(&self, pk: i64) {
        self.with(pk, |instance| {
            instance.open += 1;
            instance.second(Timestamp::now()).accepted += 1;
        });
    }

    /// A dead letter became a job again.
    pub(crate) fn reopened(&self, pk: i64, jobs: u64) {
        self.with(pk, |instance| instance.open += jobs);
    }

    pub(crate) fn ended(&self, pk: i64, sent: bool) {
        self.with(pk, |instance| {
            instance.open = instance.open.saturating_sub(1);
            let second = instance.second(Timestamp::now());
            if sent {
                second.sent += 1;
            } else {
                second.failed += 1;
            }
        });
    }

    pub(crate) fn cancelled(&self, pk: i64) {
        self.with(pk, |instance| instance.open = instance.open.saturating_sub(1));
    }

    pub(crate) fn forget(&self, pk: i64) {
        self.with(pk, |instance| instance.open = 0);
        self.lock().instances.remove(&pk);
    }

    /// Jobs of an instance that have not ended, and those of all.
    pub(crate) fn open(&self, pk: i64) -> (u64, u64) {
        let all = self.lock();
        (all.instances.get(&pk).map_or(0, |instance| instance.open), all.open)
    }

    /// Rates of the instances that have any.
    pub(crate) fn rates(&self) -> HashMap<i64, Rates> {
        let now = Timestamp::now();
        let mut all = self.lock();
        let rates = all.instances.iter_mut().map(|(pk, instance)| {
            instance.second(now);
            let sum = |pick: fn(&Rates) -> u32| instance.seconds.iter().map(pick).sum();
            let rates = Rates { accepted: sum(|s| s.accepted), sent: sum(|s| s.sent), failed: sum(|s| s.failed) };
            (*pk, rates)
        });
        rates.filter(|(_, rates)| *rates != Rates::default()).collect()
    }

    fn correct(&self, counts: &[QueueCount]) {
        let mut open: HashMap<i64, u64> = HashMap::new();
        for count in counts {
            *open.entry(count.instance_pk).or_default() += count.count;
        }
        let mut all = self.lock();
        all.open = open.values().sum();
        for (pk, instance) in all.instances.iter_mut() {
            instance.open = open.remove(pk).unwrap_or(0);
        }
        for (pk, count) in open {
            all.instances.insert(pk, Instance { open: count, ..Instance::default() });
        }
    }
}

/// Counts the rows, corrects the counts in memory by them, and tells the metrics.
pub(crate) async fn count(gateway: &Gateway) -> Result<(), kero_store::StoreError> {
    let counts = gateway.store().queue_counts().await?;
    gateway.inner.load.correct(&counts);
    let mut waiting: HashMap<(&str, &str), u64> = HashMap::new();
    for count in &counts {
        let reason = count.held.map_or("none", |held| held.as_str());
        *waiting.entry((count.state.as_str(), reason)).or_default() += count.count;
    }
    let reasons = kero_domain::HeldReason::ALL.iter().map(|reason| ("held", reason.as_str()));
    for (state, reason) in reasons.chain([("queued", "none"), ("sending", "none")]) {
        let depth = waiting.get(&(state, reason)).copied().unwrap_or(0);
        metrics::gauge!("kero_queue_depth", "state" => state, "reason" => reason).set(depth as f64);
    }
    let oldest = counts.iter().map(|count| count.oldest).min();
    let age = oldest.map_or(std::time::Duration::ZERO, |oldest| oldest.until(Timestamp::now()));
    metrics::gauge!("kero_queue_oldest_seconds").set(age.as_secs_f64());
    Ok(())
}

impl Gateway {
    /// Tells the metrics what the store counts by itself; before they are read.
    pub fn observe(&self) {
        let stats = self.store().stats();
        metrics::counter!("kero_database_commits_total").absolute(stats.commits);
        metrics::counter!("kero_database_statements_total").absolute(stats.statements);
        metrics::counter!("kero_database_commands_total").absolute(stats.commands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_forgotten_second_by_second() {
        let mut instance = Instance::default();
        let sum = |instance: &Instance| instance.seconds.iter().map(|second| second.accepted).sum::<u32>();
        for second in 100..110 {
            instance.second(Timestamp::from_secs(second)).accepted += 1;
        }
        assert_eq!(sum(&instance), 10);
        instance.second(Timestamp::from_secs(164));
        assert_eq!(sum(&instance), 5);
        // a clock that was put back counts into the last second
        instance.second(Timestamp::from_secs(1)).accepted += 1;
        assert_eq!(sum(&instance), 6);
        instance.second(Timestamp::from_secs(10_000));
        assert_eq!(sum(&instance), 0);
    }

    #[test]
    fn rows_correct_the_counts() {
        let load = Load::default();
        load.accepted(1);
        load.accepted(2);
        load.ended(2, true);
        load.ended(2, true);
        assert_eq!((load.open(1), load.open(2)), ((1, 1), (0, 1)));
        let count = |pk, count| QueueCount {
            instance_pk: pk,
            instance_id: "x".parse().unwrap(),
            state: kero_domain::JobState::Queued,
            held: None,
            count,
            oldest: Timestamp(0),
        };
        load.correct(&[count(1, 4), count(1, 2), count(3, 5)]);
        assert_eq!((load.open(1), load.open(2), load.open(3)), ((6, 11), (0, 11), (5, 11)));
        assert_eq!(load.rates()[&2], Rates { accepted: 1, sent: 2, failed: 0 });
    }
}
