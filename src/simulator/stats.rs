//! Counters of what the server has seen, for tests and the control API.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::world::lock;

/// Live counters; [`Stats`] is what the outside sees.
#[derive(Default)]
pub(crate) struct Counters {
    pub messages: AtomicU64,
    pub receipts: AtomicU64,
    pub xx: AtomicU64,
    pub ik: AtomicU64,
    pub fallback: AtomicU64,
    pub logins: AtomicU64,
    iqs: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a query under its namespace.
    pub fn iq(&self, namespace: &str) {
        let mut iqs = lock(&self.iqs);
        match iqs.get_mut(namespace) {
            Some(count) => *count += 1,
            None => {
                iqs.insert(namespace.to_owned(), 1);
            }
        }
    }

    pub fn iqs(&self) -> BTreeMap<String, u64> {
        lock(&self.iqs).clone()
    }
}

/// A snapshot of the server's counters. All but the first five grow only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Simulated people and linked accounts alike.
    pub accounts: usize,
    /// Linked companion devices.
    pub devices: usize,
    /// Devices that are logged in now.
    pub connected: usize,
    pub groups: usize,
    /// Files held in memory.
    pub media: usize,
    /// Message stanzas accepted: ledger lines.
    pub messages: u64,
    /// Receipts that clients sent, of any type.
    pub receipts: u64,
    /// Queries by namespace (`usync`, `encrypt`, `w:g2`, …).
    pub iqs: BTreeMap<String, u64>,
    /// Logins, reconnects included.
    pub logins: u64,
    /// Handshakes by pattern.
    pub xx: u64,
    pub ik: u64,
    pub fallback: u64,
}
