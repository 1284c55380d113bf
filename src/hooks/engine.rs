//! The engine: wasmtime's configuration, the guests' own threads, and the clock that counts CPU ticks.

use crate::cache::{Cache, CacheConfig};
use crate::compile::Compiled;
use crate::instances::Idle;
use crate::limits::{self, Limits, Maxima};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// How to start a [`Host`].
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Threads for guest code. At least 2: one is always left for calls shorter than a tick.
    pub workers: usize,
    /// One CPU tick.
    pub tick: Duration,
    pub limits: Limits,
    pub maxima: Maxima,
    /// Largest artefact that is accepted, in bytes.
    pub artefact: usize,
    /// Calls at once: of one plugin, of all.
    pub calls_per_plugin: usize,
    pub calls: usize,
    /// For all hooks of one event together; the last ones get what is left.
    pub chain: Duration,
    /// Where compiled code is kept; without it every start compiles again.
    pub cache: Option<CacheConfig>,
    /// Where `plugins/build` puts the runner of `.js` hooks.
    pub dist_dir: PathBuf,
    /// Count fuel too: a cost that is the same in every run. A third slower; for `kero plugin test`.
    pub fuel: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            workers: cores.max(2),
            tick: Duration::from_millis(5),
            limits: Limits::default(),
            maxima: Maxima::default(),
            artefact: 4 << 20,
            calls_per_plugin: 4,
            calls: 64,
            chain: Duration::from_secs(2),
            cache: None,
            dist_dir: PathBuf::from("plugins/dist"),
            fuel: false,
        }
    }
}

/// Why a host could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the WebAssembly engine could not start: {0}")]
    Engine(String),
    #[error("the hooks' threads could not start")]
    Threads(#[source] std::io::Error),
    #[error("the cache of compiled hooks cannot be used")]
    Cache(#[source] std::io::Error),
}

/// Runs hooks. Cheap to clone; guests stop when the last clone is gone.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) config: HostConfig,
    pub(crate) cache: Option<Cache>,
    /// Guests that used more than one tick hold one of these, so that one worker stays free for short calls.
    pub(crate) slow: Arc<Semaphore>,
    pub(crate) calls: Semaphore,
    pub(crate) pulse: Arc<Pulse>,
    /// Instances that wait for their next call (plugins with `reuse`).
    pub(crate) idle: Mutex<Idle>,
    pub(crate) runner: OnceCell<Compiled>,
    pub(crate) pooled: bool,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Component instances that the pool holds; those that wait for reuse are at most half of them.
pub(crate) const POOL: u32 = 128;
/// What a 32-bit memory can address.
const ADDRESSES: u64 = 4 << 30;
/// Native stack for wasm frames. QuickJS checks its own stack first at half of this.
const WASM_STACK: usize = 1 << 20;
/// With room for host calls on top.
const ASYNC_STACK: usize = 2 << 20;

impl Host {
    pub fn start(config: HostConfig) -> Result<Self, StartError> {
        let (engine, pooled) = match Engine::new(&settings(&config, true)) {
            Ok(engine) => (engine, true),
            // the pool reserves some 1.6 TiB of addresses, which a container may forbid
            Err(error) => {
                tracing::warn!(error = %error, "hooks run without a pool of instances: calls are slower");
                let engine =
                    Engine::new(&settings(&config, false)).map_err(|error| StartError::Engine(format!("{error:#}")))?;
                (engine, false)
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.workers.max(2))
            .thread_name("kero-hooks")
            // compiling: one at a time, never on a worker
            .max_blocking_threads(1)
            // a guest's turn is as long as a tick: look at new calls and at due timers after each
            .global_queue_interval(1)
            .event_interval(1)
            .enable_time()
            .build()
            .map_err(StartError::Threads)?;
        let cache = config.cache.as_ref().map(|it| Cache::open(it, &engine)).transpose().map_err(StartError::Cache)?;
        let pulse = Pulse::start(&engine, config.tick).map_err(StartError::Threads)?;
        let slow = Arc::new(Semaphore::new(config.workers.max(2) - 1));
        let calls = Semaphore::new(config.calls.clamp(1, POOL as usize / 2));
        let (idle, runner) = (Mutex::default(), OnceCell::new());
        let runtime = Some(runtime);
        Ok(Self { inner: Arc::new(Inner { engine, config, cache, slow, calls, pulse, idle, runner, pooled, runtime }) })
    }

    /// Whether instances come from the pool (false: on demand, four times slower to start).
    pub fn is_pooled(&self) -> bool {
        self.inner.pooled
    }

    pub fn config(&self) -> &HostConfig {
        &self.inner.config
    }

    /// Runs a future on the guests' threads. Dropping the returned future stops it.
    pub(crate) async fn on_workers<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = self.inner.runtime.as_ref()?;
        Aborting(runtime.spawn(work)).join().await
    }

    /// Whether this is one of the guests' threads.
    pub(crate) fn is_worker(&self) -> bool {
        let here = tokio::runtime::Handle::try_current().ok();
        here.zip(self.inner.runtime.as_ref()).is_some_and(|(here, ours)| here.id() == ours.handle().id())
    }

    /// Starts a task that calls hooks on the guests' threads, so that each call needs no way there and back.
    pub fn spawn_among(&self, tasks: &mut JoinSet<()>, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.inner.runtime.as_ref() {
            tasks.spawn_on(work, runtime.handle());
        }
    }

    /// Runs blocking work, one at a time. Dropping the returned future keeps it from being begun, when it is not.
    pub(crate) async fn on_compiler<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        Aborting(self.inner.runtime.as_ref()?.spawn_blocking(work)).join().await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // an ordinary drop would wait, which is a panic inside of a runtime
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with its handle.
pub(crate) struct Aborting<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> Aborting<T> {
    pub(crate) async fn join(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn settings(host: &HostConfig, pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .consume_fuel(host.fuel)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .memory_init_cow(true)
        .memory_reservation(host.maxima.memory as u64);
    if pooled {
        // with room for every address that a guest can name, its accesses need no checks
        config.memory_reservation(ADDRESSES);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(POOL)
            .total_core_instances(POOL * 16)
            // a QuickJS component built with stubs has more than two memories
            .total_memories(POOL * 3)
            .total_tables(POOL * 8)
            .total_stacks(POOL)
            .max_memory_size(host.maxima.memory)
            .max_core_instances_per_component(limits::CORE_INSTANCES as u32)
            .max_memories_per_component(limits::MEMORIES as u32)
            .max_tables_per_component(limits::TABLES as u32)
            .table_elements(limits::TABLE_ELEMENTS)
            .max_component_instance_size(4 << 20)
            .max_core_instance_size(4 << 20)
            // more makes dropping an instance three times dearer
            .linear_memory_keep_resident(0)
            .table_keep_resident(16 << 10)
            .async_stack_keep_resident(16 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// The thread that advances the engine's epoch every tick while calls run, and sleeps when none do.
pub(crate) struct Pulse {
    running: AtomicUsize,
    asleep: AtomicBool,
    thread: OnceLock<std::thread::Thread>,
}

/// Ticks without a call after which the thread goes to sleep.
const QUIET: u32 = 200;

impl Pulse {
    fn start(engine: &Engine, tick: Duration) -> Result<Arc<Self>, std::io::Error> {
        let pulse =
            Arc::new(Self { running: AtomicUsize::new(0), asleep: AtomicBool::new(false), thread: OnceLock::new() });
        let (engine, mine) = (engine.weak(), Arc::clone(&pulse));
        let thread = std::thread::Builder::new().name("kero-hooks-tick".to_owned()).spawn(move || {
            let mut quiet = 0;
            loop {
                std::thread::sleep(tick);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                drop(engine);
                quiet = if mine.running.load(Ordering::SeqCst) == 0 { quiet + 1 } else { 0 };
                if quiet >= QUIET {
                    mine.asleep.store(true, Ordering::SeqCst);
                    // wakes by itself now and then to see whether the engine is gone
                    if mine.running.load(Ordering::SeqCst) == 0 {
                        std::thread::park_timeout(Duration::from_secs(5));
                    }
                    mine.asleep.store(false, Ordering::SeqCst);
                    quiet = 0;
                }
            }
        })?;
        let _ = pulse.thread.set(thread.thread().clone());
        Ok(pulse)
    }

    /// A call begins; it ends when the guard is dropped.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running(Arc::clone(self))
    }
}

pub(crate) struct Running(Arc<Pulse>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
