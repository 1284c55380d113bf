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
}

impl Rounds {
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
