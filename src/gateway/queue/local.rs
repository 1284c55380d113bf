//! The queue without Redis: a list in memory, rebuilt from the rows after a restart.

use super::{Queue, Wake};
use crate::RedisHealth;
use crate::worker::LaneKey;
use async_trait::async_trait;
use kero_store::Job;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Local {
    waiting: Mutex<VecDeque<Wake>>,
    pushed: Notify,
}

#[async_trait]
impl Queue for Local {
    async fn push(&self, job: &Job) {
        let wake = Wake { instance_pk: job.instance_pk, key: LaneKey::of(job) };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(wake);
        self.pushed.notify_one();
    }

    async fn next(&self) -> Vec<Wake> {
        loop {
            let wakes: Vec<Wake> = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
            if !wakes.is_empty() {
                return wakes;
            }
            self.pushed.notified().await;
        }
    }

    async fn health(&self) -> RedisHealth {
        RedisHealth::Disabled
    }
}
