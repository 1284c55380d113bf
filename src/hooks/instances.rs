//! Instances of guests: fresh ones, and those that wait for their next call.

use crate::call;
use crate::engine::{Host, Inner, POOL};
use crate::error::Kind;
use crate::hook::{Hook, Seat};
use crate::host::{State, Task, wasi};
use crate::limits::Meter;
use crate::versions::Guest;
use crate::work::{Answer, Work};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Instant;
use wasmtime::Store;

/// A guest that can be called. Dropped after a failure: wasmtime refuses to enter an instance that trapped.
pub(crate) struct Live {
    pub(crate) store: Store<State>,
    /// Nothing before its first call: it is started within that call's time.
    pub(crate) guest: Option<Guest>,
    pub(crate) calls: u32,
    /// The WhatsApp instance that it is for.
    whose: String,
    born: Instant,
}

/// Instances of plugins with `reuse`, oldest first. One belongs to one plugin version and one WhatsApp instance, so
/// no state crosses accounts.
#[derive(Default)]
pub(crate) struct Idle {
    waiting: VecDeque<(u64, Live)>,
}

/// Fuel of a call when fuel is counted at all: more than any CPU budget burns.
pub(crate) const FUEL: u64 = 1 << 50;

impl Live {
    /// A waiting instance of this plugin for this WhatsApp instance. It still has its last task.
    pub(crate) fn waiting(host: &Inner, hook: &Seat, instance: &str) -> Option<Self> {
        hook.manifest.reuse?;
        let found = {
            let mut idle = host.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // the one that was called last: its memory is still in the processor's caches
            let at = idle.waiting.iter().rposition(|(id, live)| *id == hook.id && live.whose == instance)?;
            idle.waiting.remove(at)
        };
        found.map(|(_, live)| live).filter(|live| !live.worn(hook))
    }

    pub(crate) fn fresh(host: &Inner, hook: &Seat, instance: &str, task: Task) -> Self {
        let mut store = Store::new(
            &host.engine,
            State { meter: Meter::new(hook.limits.memory), wasi: wasi::Handles::default(), task },
        );
        call::fence(host, hook, &mut store);
        Self { store, guest: None, calls: 0, whose: instance.to_owned(), born: Instant::now() }
    }

    /// Starts the guest, if it is not, and calls it.
    pub(crate) async fn call(
        &mut self,
        host: &Inner,
        hook: &Seat,
        work: &Work,
    ) -> wasmtime::Result<Result<Answer, (Kind, String)>> {
        let guest = match &mut self.guest {
            Some(guest) => guest,
            none => {
                let adapter = &hook.compiled.inner.adapter;
                none.insert(adapter.instantiate(&mut self.store, hook.manifest.kind).await?)
            }
        };
        self.store.set_epoch_deadline(1);
        if host.config.fuel {
            let _ = self.store.set_fuel(FUEL);
        }
        guest.call(&mut self.store, work).await
    }

    fn worn(&self, hook: &Seat) -> bool {
        hook.manifest.reuse.is_none_or(|reuse| self.calls >= reuse.calls || self.born.elapsed() >= reuse.age)
    }

    /// After a good call: keeps the instance if the plugin wants that.
    pub(crate) fn put_back(self, host: &Inner, hook: &Seat) {
        if self.worn(hook) {
            return;
        }
        let evicted = {
            let mut idle = host.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.waiting.push_back((hook.id, self));
            (idle.waiting.len() > POOL as usize / 2).then(|| idle.waiting.pop_front())
        };
        drop(evicted);
    }
}

impl Inner {
    /// Drops the waiting instances of a plugin.
    pub(crate) fn forget(&self, hook: u64) {
        let gone: VecDeque<_> = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let (gone, kept) = std::mem::take(&mut idle.waiting).into_iter().partition(|(id, _)| *id == hook);
            idle.waiting = kept;
            gone
        };
        drop(gone);
    }
}

impl Host {
    /// Instances that wait for reuse, for metrics.
    pub fn waiting_instances(&self) -> usize {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
    }
}

impl Hook {
    /// Its instances that wait for their next call (`reuse`), for metrics.
    pub fn waiting_instances(&self) -> usize {
        let idle = self.host.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.waiting.iter().filter(|(id, _)| *id == self.id).count()
    }
}
