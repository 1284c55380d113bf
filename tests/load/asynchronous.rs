//! Asynchronous sends to many chats: from the first request until WhatsApp has every message and every row is settled.

use crate::bare::Bare;
use crate::caller::Caller;
use crate::stage::{self, Kero, Simulator};
use crate::{Common, Rounds, bare};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const CHATS: usize = 64;
/// Connections with one request each under way.
const CALLERS: usize = 64;

fn chat(n: usize) -> String {
    format!("4915820{:04}5", n % CHATS)
}

pub async fn run(common: &Common, instances: usize, in_flight: usize, redis: Option<&str>) {
    let folder = TempDir::new().unwrap();
    let http = stage::http();
    let simulator = stage::simulator(&http).await;
    let chats: Vec<String> = (0..CHATS).map(chat).collect();
    for phone in &chats {
        simulator.person(&http, phone).await;
    }
    let server = common.database.as_deref();
    let store = common.store(stage::database(server, &folder, "bare").await).await;
    let mut clients = Vec::with_capacity(instances);
    for n in 0..instances {
        let phone = format!("4915830{n:04}5");
        clients.push(bare::paired(&http, &simulator, &store, &format!("bare{n}"), &phone, &chats).await);
    }
    let database = stage::database(server, &folder, "kero").await;
    let environment = [
        ("KERO_DURABILITY", common.durability.clone()),
        ("KERO_SENDING__LANE_CONCURRENCY", in_flight.to_string()),
        ("KERO_REDIS_URL", redis.unwrap_or_default().to_owned()),
    ];
    let kero = stage::kero(&http, &simulator, &folder, database, &environment).await;
    for n in 0..instances {
        kero.pair(&http, &simulator, &format!("load{n}"), &format!("4915840{n:04}5")).await;
    }

    // every session is begun before the clock runs
    accept(&http, &kero, &simulator, instances * CHATS, instances).await;
    let mut rounds = Rounds::default();
    for _ in 0..common.rounds {
        let bare = send(&clients, common.sends, in_flight);
        let through_kero = accept(&http, &kero, &simulator, common.sends, instances);
        rounds.run(common.sends, (&simulator, &kero), bare, through_kero).await;
    }
    let queue = if redis.is_some() { "Redis" } else { "in-process queue" };
    rounds.print(&format!(
        "async, {instances} instances, {CHATS} chats each, {in_flight} in flight each, {} sends a round, {}, {queue}, durability {}",
        common.sends,
        common.database_name(),
        common.durability
    ));
    store.close().await;
}

/// The bare clients: each has at most `in_flight` sends that wait for their ack.
async fn send(clients: &[Bare], sends: usize, in_flight: usize) {
    let share = |n: usize| sends / clients.len() + usize::from(n < sends % clients.len());
    futures_util::future::join_all(clients.iter().enumerate().map(|(n, client)| async move {
        let workers = in_flight.min(CHATS);
        futures_util::future::join_all((0..workers).map(|worker| {
            let own = share(n) / workers + usize::from(worker < share(n) % workers);
            client.send(worker, own)
        }))
        .await;
    }))
    .await;
}

/// The gateway: all accepted, all at WhatsApp, all settled.
async fn accept(http: &reqwest::Client, kero: &Kero, simulator: &Simulator, sends: usize, instances: usize) {
    let before = simulator.messages(http).await;
    let next = AtomicUsize::new(0);
    let callers = (0..CALLERS).map(|_| async {
        let mut caller = Caller::connect(&kero.url).await;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= sends {
                return;
            }
            caller.send(&format!("load{}", n % instances), &chat(n / instances), &format!("load {n}")).await;
        }
    });
    futures_util::future::join_all(callers).await;
    while simulator.messages(http).await < before + sends as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while kero.call(http, reqwest::Method::GET, "/queue", &[], None).await["total"] != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
