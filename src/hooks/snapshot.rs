//! The runner of `.js` hooks, started once and frozen: QuickJS and the prelude are ready in every fresh instance.
//!
//! Only the runner, whose bytes are ours, is treated so: a hook's own start may depend on the call.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasmtime::{Config, Engine, Instance, Linker, Module, OptLevel, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, Wizer};

/// The export that gets the runner ready. It may look at the clock, and ask whether its time is up: it never is.
const START: &str = "wizer-initialize";
const CLOCK: &str = "kero:plugin/clock@";
const SCRIPT: &str = "kero:plugin/script@";

/// The same core module with its memory as it is after the start; nothing when it has no such export.
pub(crate) fn started(module: &[u8]) -> wasmtime::Result<Option<Vec<u8>>> {
    let mut wizer = Wizer::new();
    wizer.init_func(START);
    let (context, instrumented) = wizer.instrument(module)?;
    // its code runs once and is thrown away: compiling it fast is what counts
    let engine = Engine::new(Config::new().cranelift_opt_level(OptLevel::None))?;
    let compiled = Module::new(&engine, &instrumented)?;
    if compiled.get_export(START).is_none() {
        return Ok(None);
    }
    let mut linker: Linker<()> = Linker::new(&engine);
    linker.allow_shadowing(true);
    linker.define_unknown_imports_as_traps(&compiled)?;
    for import in compiled.imports().filter(|import| import.module().starts_with(CLOCK)) {
        linker.func_wrap(import.module(), import.name(), || 0i64)?;
    }
    let of_script = |import: &wasmtime::ImportType<'_>| import.module().starts_with(SCRIPT);
    for import in compiled.imports().filter(|import| of_script(import) && import.name() == "out-of-time") {
        linker.func_wrap(import.module(), import.name(), || 0i32)?;
    }
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &compiled)?;
    instance.get_typed_func::<(), ()>(&mut store, START)?.call(&mut store, ())?;
    // nothing in it waits: the instance's state is read at once
    let mut state = Started { store, instance };
    let mut snapshot = pin!(wizer.snapshot(&context, &mut state));
    match snapshot.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(module) => module.map(Some),
        Poll::Pending => Err(wasmtime::Error::msg("the snapshot waits for something")),
    }
}

struct Started {
    store: Store<()>,
    instance: Instance,
}

impl InstanceState for Started {
    async fn global_get(&mut self, name: &str, _: wasmtime_wizer::ValType) -> SnapshotVal {
        let value = self.instance.get_global(&mut self.store, name).map(|global| global.get(&mut self.store));
        match value {
            Some(Val::I64(it)) => SnapshotVal::I64(it),
            Some(Val::F32(it)) => SnapshotVal::F32(it),
            Some(Val::F64(it)) => SnapshotVal::F64(it),
            Some(Val::V128(it)) => SnapshotVal::V128(it.as_u128()),
            Some(Val::I32(it)) => SnapshotVal::I32(it),
            // wizer asks only for the globals of numbers that it exported itself
            _ => SnapshotVal::I32(0),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        match self.instance.get_memory(&mut self.store, name) {
            Some(memory) => contents(memory.data(&self.store)),
            None => contents(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_runner_is_ready_before_its_first_call() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/runner-js.wasm");
        let runner = std::fs::read(file).expect("run plugins/build first");
        let started = super::started(&runner).unwrap().expect("the runner has a start to run beforehand");
        assert!(started.len() > runner.len());
    }
}
