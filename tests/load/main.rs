//! Benchmarks, each with its baseline in the same run and in turns: `tests/load/run sync|async|deliver|hooks …`. They print rates,
//! CPU per piece of work and ratios; nothing here asserts a time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod asynchronous;
mod bare;
mod caller;
mod deliveries;
mod hooks;
mod stage;
mod synchronous;

use clap::{Args, Parser, Subcommand};
use kero_store::{Durability, MasterKey, Store, StoreConfig};
use std::time::{Duration, Instant};

/// The bare clients' side has the allocator that the gateway has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Sequential synchronous sends over one connection, against a bare client that waits for each ack.
    Sync(Common),
    /// Calls of hooks beside a native closure, deliveries with no, one and ten hooks, the API and another plugin beside
    /// one that misbehaves.
    Hooks(Common),
    /// Asynchronous sends to 64 chats an instance, against bare clients with as many sends in flight.
    Async {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1)]
        instances: usize,
        /// Sends of one instance under way at once, on both sides; each in another chat.
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
        /// The work queue of the gateway; without it the queue is served in process.
        #[arg(long)]
        redis: Option<String>,
    },
    /// Deliveries to a webhook against a raw POST loop, and from message to webhook against a bare client's callback.
    Deliver(Common),
}

#[derive(Args)]
struct Common {
    /// Sends in each round, over all instances.
    #[arg(long, default_value_t = 200)]
    sends: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A Postgres server URL; SQLite files in a temporary folder without it.
    #[arg(long)]
    database: Option<String>,
    #[arg(long, default_value = "power")]
    durability: String,
}

impl Common {
    /// The bare clients' store, like the gateway's.
    async fn store(&self, url: String) -> Store {
        let durability = if self.durability == "process" { Durability::Process } else { Durability::Power };
        let config =
            StoreConfig { url, durability, master_key: MasterKey::generate(), readers: 4, writers: 4, max_size: 0 };
        Store::open(config).await.expect("the store opens")
    }

    fn database_name(&self) -> &'static str {
        if self.database.is_some() { "Postgres" } else { "SQLite" }
    }
}

/// Rates and CPU of both sides, round by round.
#[derive(Default)]
struct Rounds {
    bare: Vec<f64>,
    kero: Vec<f64>,
    bare_cpu: Vec<f64>,
    kero_cpu: Vec<f64>,
    /// The simulator's, beside the bare clients and beside the gateway.
    simulator_cpu: [Vec<f64>; 2],
    /// Of those who call the gateway.
    callers_cpu: Vec<f64>,
}

impl Rounds {
    /// One round: the same sends by the bare clients, then through the gateway.
    async fn run(
        &mut self,
        sends: usize,
        (simulator, kero): (&stage::Simulator, &stage::Kero),
        bare: impl Future,
        through_kero: impl Future,
    ) {
        let (own, sends) = (std::process::id(), sends as f64);
        let per_send = |before: Duration, pid: u32| (stage::cpu(pid) - before).as_secs_f64() * 1e3 / sends;
        let (client, other, started) = (stage::cpu(own), stage::cpu(simulator.pid), Instant::now());
        bare.await;
        self.bare.push(sends / started.elapsed().as_secs_f64());
        self.bare_cpu.push(per_send(client, own));
        self.simulator_cpu[0].push(per_send(other, simulator.pid));
        let (gateway, callers, other, started) =
            (stage::cpu(kero.pid), stage::cpu(own), stage::cpu(simulator.pid), Instant::now());
        through_kero.await;
        self.kero.push(sends / started.elapsed().as_secs_f64());
        self.kero_cpu.push(per_send(gateway, kero.pid));
        self.callers_cpu.push(per_send(callers, own));
        self.simulator_cpu[1].push(per_send(other, simulator.pid));
    }

    fn print(&self, what: &str) {
        let ratios = self.kero.iter().zip(&self.bare).map(|(kero, bare)| kero / bare).collect();
        println!(
            "{what}, median of {} rounds: bare client {:.0}/s at {:.2} ms CPU, kero {:.0}/s at {:.2} ms CPU, ratio {:.2}",
            self.bare.len(),
            stage::median(self.bare.clone()),
            stage::median(self.bare_cpu.clone()),
            stage::median(self.kero.clone()),
            stage::median(self.kero_cpu.clone()),
            stage::median(ratios),
        );
        let [beside_bare, beside_kero] = self.simulator_cpu.clone().map(stage::median);
        println!(
            "CPU of the others per send: simulator {beside_bare:.2} ms beside the bare client, {beside_kero:.2} ms beside \
             kero; kero's callers {:.2} ms",
            stage::median(self.callers_cpu.clone()),
        );
    }
}

#[tokio::main]
async fn main() {
    kero::boot::prepare_process();
    match Arguments::parse().benchmark {
        Benchmark::Sync(common) => synchronous::run(&common).await,
        Benchmark::Hooks(common) => hooks::run(&common).await,
        Benchmark::Async { common, instances, in_flight, redis } => {
            asynchronous::run(&common, instances, in_flight, redis.as_deref()).await;
        }
        Benchmark::Deliver(common) => deliveries::run(&common).await,
    }
}
