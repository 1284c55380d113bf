//! Makes the lists in Redis agree with the rows. Reads lists and rows in parts, and keeps a small hash of what it saw.

use super::{DeadLetter, List, Queue, element};
use crate::Gateway;
use crate::worker::LaneKey;
use kero_domain::{JobId, Timestamp};
use kero_store::{DeadFilter, JobName, StoreError};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Elements or rows looked at in one step.
const STEP: u64 = 1_000;
/// Elements added to or removed from a list in one pass.
const REFILL: usize = 100_000;
/// Passes after which the dead letters are compared one by one although their number is right.
const DEEP_EVERY: u32 = 60;
/// What was accepted, or failed, just now may still be on its way to a list.
const SETTLED: Duration = Duration::from_secs(2);

/// What a pass remembers for the next one.
#[derive(Default)]
pub(super) struct Reconciler {
    /// Elements that are no job, as counted by the last comparison one by one.
    foreign: Option<u64>,
    passes: u32,
    /// Elements of `kero_processing` that nobody works on.
    orphans: HashSet<u64>,
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Reconciler {
    /// One pass; the number of elements that were added or removed. `None` when Redis does not answer.
    pub(super) async fn pass(&mut self, gateway: &Gateway) -> Result<Option<u64>, StoreError> {
        let queue = gateway.inner.queue.as_ref();
        let Some(mut repairs) = queue.clear_wrong_types().await else { return Ok(None) };
        match self.clear_orphans(queue).await {
            Some(removed) => repairs += removed,
            None => return Ok(None),
        }
        if gateway.queue_paused() {
            // otherwise the reader empties the list at once, and the pass over due rows finds what it did not name
            match refill(gateway).await? {
                Some(refilled) => repairs += refilled,
                None => return Ok(None),
            }
        }
        match self.dead_letters(gateway).await? {
            Some(changed) => Ok(Some(repairs + changed)),
            None => Ok(None),
        }
    }

    /// Takes elements out of `kero_processing` that nobody worked on in this pass nor in the one before: the answer
    /// that carried them, or the write that should have removed them, was lost.
    async fn clear_orphans(&mut self, queue: &dyn Queue) -> Option<u64> {
        let kept = queue.kept();
        let mut orphans = HashSet::new();
        let mut removed = 0;
        let mut from = 0;
        loop {
            let elements = queue.scan(List::Processing, from, STEP).await?;
            for element in &elements {
                let mark = hash(element);
                if kept.contains(element) {
                    continue;
                }
                if self.orphans.contains(&mark) {
                    removed += 1;
                    queue.remove(List::Processing, element.clone());
                } else {
                    orphans.insert(mark);
                }
            }
            from += STEP;
            if (elements.len() as u64) < STEP {
                break;
            }
        }
        self.orphans = orphans;
        Some(removed)
    }

    async fn dead_letters(&mut self, gateway: &Gateway) -> Result<Option<u64>, StoreError> {
        let Some(lengths) = gateway.inner.queue.lengths().await else { return Ok(None) };
        let rows = gateway.store().count_dead_letters(&DeadFilter::default()).await?;
        self.passes += 1;
        let fits = self.foreign.is_some_and(|foreign| lengths.dead_letters == rows + foreign);
        if fits && !self.passes.is_multiple_of(DEEP_EVERY) {
            return Ok(Some(0));
        }
        let Some(letters) = compare_letters(gateway).await? else { return Ok(None) };
        let removed = letters.wrong.len() as u64;
        for element in letters.wrong {
            gateway.inner.queue.remove(List::DeadLetters, element);
        }
        self.foreign = Some(letters.foreign);
        Ok(Some(removed + add_letters(gateway, &letters.seen).await?))
    }
}

/// Puts queued jobs that `kero_message_queue` does not name back into it.
async fn refill(gateway: &Gateway) -> Result<Option<u64>, StoreError> {
    let queue = &gateway.inner.queue;
    let mut known = HashSet::new();
    for list in [List::MessageQueue, List::Processing] {
        let mut from = 0;
        loop {
            let Some(elements) = queue.scan(list, from, STEP).await else { return Ok(None) };
            known.extend(elements.iter().filter_map(|bytes| element::name(bytes)).map(|name| hash(&name)));
            from += STEP;
            if (elements.len() as u64) < STEP {
                break;
            }
        }
    }
    let (mut repairs, settled) = (0, Timestamp::now().before(SETTLED));
    for handle in gateway.inner.instances.all() {
        if handle.view().link.is_none() {
            continue;
        }
        let mut after = (Timestamp(i64::MIN), JobId(uuid::Uuid::nil()));
        loop {
            let rows = gateway.store().queued_jobs(handle.pk, after, STEP).await?;
            for row in &rows {
                let name = JobName { instance_id: handle.id.clone(), correlation_id: row.correlation_id.clone() };
                let key = LaneKey { chat: row.chat.as_str().into(), priority: row.priority };
                // the push of one that was accepted just now may still be on its way
                if row.due_at > settled || !known.insert(hash(&name)) || handle.lane.is_busy(&key) {
                    continue;
                }
                if let Some(job) = gateway.store().job_by_id(row.job).await? {
                    queue.push(&job);
                    repairs += 1;
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() as u64 == STEP && repairs < REFILL) else { break };
            after = (last.due_at, last.job);
        }
    }
    Ok(Some(repairs as u64))
}

/// What the dead letters' list holds.
#[derive(Default)]
struct Letters {
    /// Hashes of the names of those that are right.
    seen: HashSet<u64>,
    /// Elements that are no job.
    foreign: u64,
    /// Elements that are there twice, or whose job is no dead letter (any more), or became one anew since.
    wrong: Vec<Vec<u8>>,
}

async fn compare_letters(gateway: &Gateway) -> Result<Option<Letters>, StoreError> {
    let mut letters = Letters::default();
    let mut from = 0;
    loop {
        let Some(elements) = gateway.inner.queue.scan(List::DeadLetters, from, STEP).await else { return Ok(None) };
        let named: Vec<Option<(JobName, i64)>> = elements.iter().map(|bytes| element::letter(bytes)).collect();
        let asked: Vec<JobName> = named.iter().flatten().map(|(name, _)| name.clone()).collect();
        let dead = gateway.store().dead_among(&asked).await?;
        for (element, named) in elements.iter().zip(&named) {
            let Some((name, failed_at)) = named else {
                letters.foreign += 1;
                continue;
            };
            let right = dead.get(name).is_some_and(|at| at.secs() == *failed_at) && letters.seen.insert(hash(name));
            if !right && letters.wrong.len() < REFILL {
                letters.wrong.push(element.clone());
            }
        }
        from += STEP;
        if (elements.len() as u64) < STEP {
            return Ok(Some(letters));
        }
    }
}

async fn add_letters(gateway: &Gateway, seen: &HashSet<u64>) -> Result<u64, StoreError> {
    let filter = DeadFilter { until: Some(Timestamp::now().before(SETTLED)), ..DeadFilter::default() };
    let (mut before, mut added) = (None, 0);
    loop {
        let jobs = gateway.store().dead_letters(&filter, before, STEP).await?;
        for job in &jobs {
            let name = JobName { instance_id: job.instance_id.clone(), correlation_id: job.correlation_id.clone() };
            if !seen.contains(&hash(&name)) {
                gateway.inner.queue.dead(DeadLetter::of(job));
                added += 1;
            }
        }
        let Some(last) = jobs.last().filter(|_| jobs.len() as u64 == STEP) else { return Ok(added) };
        before = Some(last.id);
    }
}
