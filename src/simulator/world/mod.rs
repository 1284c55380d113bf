//! The simulated world: accounts with their devices, groups, newsletters, tokens. Plain data behind short locks;
//! no lock is held across an await, and at most one account's state is locked at a time.

pub(crate) mod account;
pub(crate) mod device;
pub(crate) mod directory;
pub(crate) mod group;
pub(crate) mod newsletter;
pub(crate) mod scenario;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use crate::Config;
use crate::faults::{Fault, Faults};
use crate::ledger::Ledger;
use crate::media::MediaStore;
use crate::node::{node, now, random};
use crate::noise::ServerKeys;
use crate::pairing::Pairings;
use crate::stats::{Counters, Stats};
use account::Account;
use directory::Directory;
use group::Groups;
use newsletter::Newsletters;

/// Locks; a thread that panicked with the lock does not take the others with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that one server knows.
pub(crate) struct World {
    pub config: Config,
    pub addr: SocketAddr,
    pub keys: ServerKeys,
    pub counters: Counters,
    pub ledger: Ledger,
    pub faults: Faults,
    pub media: MediaStore,
    pub directory: Directory,
    pub pairings: Pairings,
    pub groups: Mutex<Groups>,
    pub newsletters: Mutex<Newsletters>,
    /// Privacy tokens by (issuer, addressee).
    tokens: Mutex<HashMap<(String, String), Vec<u8>>>,
    next: AtomicU64,
    pub runtime: Handle,
    pub stop: CancellationToken,
    /// All tasks of the world, so that a shutdown can wait for their end.
    pub tasks: TaskTracker,
}

impl World {
    pub fn new(config: Config, addr: SocketAddr, keys: ServerKeys, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            config,
            addr,
            keys,
            counters: Counters::default(),
            ledger: Ledger::default(),
            faults: Faults::default(),
            media: MediaStore::default(),
            directory: Directory::default(),
            pairings: Pairings::default(),
            groups: Mutex::default(),
            newsletters: Mutex::default(),
            tokens: Mutex::default(),
            next: AtomicU64::new(1),
            runtime,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// A number that no other call of this world got.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Runs work of the world; it ends with the world.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = work => {}
                }
            },
            &self.runtime,
        );
    }

    /// Host and port under which clients reach media.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Starts a notification with an id of its own and the time of now.
    pub fn notification(&self, kind: &'static str, from: Jid) -> NodeBuilder {
        node("notification")
            .attr("type", kind)
            .attr("from", from)
            .attr("id", format!("{}", self.next()))
            .attr("t", now())
    }

    /// The token by which `issuer` lets `addressee` write, made on first use.
    pub fn token(&self, issuer: &Account, addressee: &Account) -> Vec<u8> {
        lock(&self.tokens)
            .entry((issuer.phone.clone(), addressee.phone.clone()))
            .or_insert_with(|| random::<24>().to_vec())
            .clone()
    }

    /// The token if it was issued.
    pub fn issued_token(&self, issuer: &Account, addressee: &Account) -> Option<Vec<u8>> {
        lock(&self.tokens).get(&(issuer.phone.clone(), addressee.phone.clone())).cloned()
    }

    /// Delivers a message stanza to a device, with the inbound faults that are in force.
    pub fn deliver_message(&self, account: &Account, device: u16, mut message: Node) {
        if self.faults.take(Fault::Undecryptable, &account.phone).is_some() {
            crate::relay::damage(&mut message);
        }
        if self.faults.take(Fault::DuplicateInbound, &account.phone).is_some() {
            account.deliver(device, message.clone());
        }
        account.deliver(device, message);
    }

    /// Sends to every linked device that is connected now, of all accounts that `wanted` accepts.
    pub fn broadcast(&self, notification: &Node, wanted: impl Fn(&Account) -> bool) {
        for account in self.directory.linked() {
            if wanted(&account) {
                account.send_to_connected(notification);
            }
        }
    }

    pub fn stats(&self) -> Stats {
        let (mut devices, mut connected) = (0, 0);
        for account in self.directory.linked() {
            let state = lock(&account.state);
            devices += state.devices.len();
            connected += state.devices.values().filter(|d| d.is_connected()).count();
        }
        let c = &self.counters;
        Stats {
            accounts: self.directory.len(),
            devices,
            connected,
            groups: lock(&self.groups).len(),
            media: self.media.len(),
            messages: c.messages.load(Relaxed),
            receipts: c.receipts.load(Relaxed),
            iqs: c.iqs(),
            logins: c.logins.load(Relaxed),
            xx: c.xx.load(Relaxed),
            ik: c.ik.load(Relaxed),
            fallback: c.fallback.load(Relaxed),
        }
    }
}
