//! The queue without Redis: a list in memory, rebuilt from the rows after a restart.

use super::{DeadLetter, List, Queue, QueueLengths, Taken};
use crate::RedisHealth;
use crate::worker::LaneKey;
use async_trait::async_trait;
use kero_store::Job;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Local {
    waiting: Mutex<VecDeque<(i64, LaneKey)>>,
    pushed: Notify,
}

#[async_trait]
impl Queue for Local {
    fn push(&self, job: &Job) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((job.instance_pk, LaneKey::of(job)));
        self.pushed.notify_one();
    }

    async fn next(&self, wait: Duration) -> Vec<Taken> {
        let is_empty = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_empty() {
            let _ = tokio::time::timeout(wait, self.pushed.notified()).await;
        }
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().map(|(instance_pk, key)| Taken::Wake { instance_pk, key }).collect()
    }

    fn keep(&self, _instance_pk: i64, _key: LaneKey, _element: Vec<u8>) {}

    fn finish(&self, _element: Vec<u8>) {}

    fn release(&self, _instance_pk: i64, _key: &LaneKey) {}

    fn reject(&self, _element: Vec<u8>) {}

    fn dead(&self, _letter: DeadLetter<'_>) {}

    async fn health(&self) -> RedisHealth {
        RedisHealth::Disabled
    }

    async fn lengths(&self) -> Option<QueueLengths> {
        None
    }

    fn undead(&self, _letter: DeadLetter<'_>) {}

    fn remove(&self, _list: List, _element: Vec<u8>) {}

    fn kept(&self) -> HashSet<Vec<u8>> {
        HashSet::new()
    }

    async fn scan(&self, _list: List, _from: u64, _count: u64) -> Option<Vec<Vec<u8>>> {
        None
    }

    async fn clear_wrong_types(&self) -> Option<u64> {
        None
    }

    async fn recover(&self) {}
}
