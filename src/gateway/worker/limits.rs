//! Rate limits of an instance and of its recipients: token buckets in memory, empty after a start.

use crate::GatewayConfig;
use kero_domain::Timestamp;
use kero_domain::rate::{Bucket, Rate};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Buckets of recipients that are kept before the full ones are thrown away.
const SWEEP_AT: usize = 4_096;

/// The limits of one instance.
pub(super) struct Limits {
    instance: Option<(Rate, Mutex<Bucket>)>,
    recipient: Option<Rate>,
    chats: Mutex<Chats>,
    started: Timestamp,
}

#[derive(Default)]
struct Chats {
    buckets: HashMap<String, Bucket>,
    sweep_at: usize,
}

/// The leave to send one message; unspent, it goes back.
pub(super) struct Token {
    from: Option<Arc<Limits>>,
}

impl Token {
    pub(super) fn spend(mut self) {
        self.from = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some((rate, bucket)) = self.from.as_ref().and_then(|limits| limits.instance.as_ref()) {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).give_back(rate);
        }
    }
}

impl Limits {
    pub(super) fn new(config: &GatewayConfig, now: Timestamp) -> Arc<Self> {
        let rate = |per_minute| Rate::per_minute(per_minute, config.rate_burst);
        Arc::new(Self {
            instance: rate(config.rate_per_instance).map(|rate| (rate, Mutex::new(Bucket::empty(&rate, now)))),
            recipient: rate(config.rate_per_recipient),
            chats: Mutex::default(),
            started: now,
        })
    }

    /// Leave for a turn, or when there will be one.
    pub(super) fn leave(self: &Arc<Self>, now: Timestamp) -> Result<Token, Timestamp> {
        if let Some((rate, bucket)) = &self.instance {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)?;
        }
        Ok(Token { from: Some(Arc::clone(self)) })
    }

    /// The time from one message of the instance to the next.
    pub(super) fn interval(&self) -> Duration {
        self.instance.as_ref().map_or(Duration::ZERO, |(rate, _)| rate.interval())
    }

    /// Takes leave to write to a chat, or says when there will be some.
    pub(super) fn write_to(&self, chat: &str, now: Timestamp) -> Result<(), Timestamp> {
        let Some(rate) = &self.recipient else { return Ok(()) };
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        if chats.buckets.len() >= chats.sweep_at.max(SWEEP_AT) {
            chats.buckets.retain(|_, bucket| !bucket.is_full(now));
            chats.sweep_at = chats.buckets.len() * 2;
        }
        let started = self.started;
        chats.buckets.entry(chat.to_owned()).or_insert_with(|| Bucket::empty(rate, started)).take(rate, now)
    }
}
