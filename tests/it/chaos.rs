//! Kill -9 at random moments of a send loop, with faults around it: every send has the end that is due to it, once;
//! nothing accepted is lost or doubled, order holds, no message counter is used twice, and every conversation still
//! decrypts. `KERO_CHAOS_KILLS` and `KERO_CHAOS_SEED` steer it (`tests/chaos/run --kills N --seed S`).

mod check;
mod client;

use crate::support::{Kero, Options, Redis, Sink, eventually_within, person, simulator};
use check::{Limits, check};
use client::{Accepted, CHATS, Client, INSTANCES, account, chat};
use kero_simulator::{Fault, FaultRule, LedgerLine, Script, Simulator};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RETRIES: u64 = 50;

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What was done to it beside the kills.
#[derive(Debug, Default)]
struct Suffered {
    /// It died at a named point.
    crashes: usize,
    flushes: usize,
    pauses: usize,
    redis_kills: usize,
    dropped_sockets: usize,
    /// Acknowledgements that were missing, doubled or late.
    acks: usize,
    /// Refusals that are retried, and those that are final.
    nacks: usize,
    refusals: usize,
    lookups: usize,
}

impl Suffered {
    /// One fault, of which the running process has yet to see the consequences.
    async fn another(&mut self, random: &mut StdRng, simulator: &Simulator, redis: &mut Redis) {
        let account = account(random.random_range(0..INSTANCES.len()));
        let inject = |fault: Fault, count: u32, code: u16, delay: u64| {
            let rule = FaultRule::new(fault).phone(&account).count(count).delay(Duration::from_millis(delay));
            // a code and a delay mean nothing to the faults that have none
            simulator.inject(if code > 0 { rule.code(code) } else { rule });
        };
        match random.random_range(0..12) {
            0 => {
                simulator.inject(FaultRule::new(Fault::DropSocket).phone(&account));
                self.dropped_sockets += 1;
            }
            kind @ 1..=3 => {
                match kind {
                    1 => inject(Fault::AckMissing, 1, 0, 0),
                    2 => inject(Fault::AckDouble, 3, 0, 0),
                    _ => inject(Fault::AckLate, 2, 0, 300),
                }
                self.acks += 1;
            }
            4 => {
                inject(Fault::Nack, 2, 503, 0);
                self.nacks += 2;
            }
            5 => {
                inject(Fault::Nack, 1, 479, 0);
                self.refusals += 1;
            }
            6 => {
                inject(Fault::LookupError, 2, 500, 0);
                self.lookups += 2;
            }
            7 => {
                redis.command(&["FLUSHALL"]).await;
                self.flushes += 1;
            }
            8 => {
                redis.command(&["CLIENT", "PAUSE", "500", "ALL"]).await;
                self.pauses += 1;
            }
            9 => {
                redis.kill().await;
                self.redis_kills += 1;
            }
            _ => {}
        }
    }
}

async fn started(simulator: &Simulator, redis: &Redis, sink: &Sink) -> Kero {
    let options = Options::default()
        .redis(redis.url())
        .env(
            "KERO_DELIVERY__SCHEDULE",
            "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\"]",
        )
        .env("KERO_SENDING__ACK_TIMEOUT", "3s")
        .env("KERO_SENDING__DOUBT_WAIT", "500ms")
        .env("KERO_QUEUE__RETRY_BASE", "300ms")
        .env("KERO_QUEUE__RETRY_CEILING", "2s")
        .env("KERO_QUEUE__MAX_RETRIES", RETRIES.to_string());
    let kero = Kero::start_with(simulator, options).await;
    for (instance, id) in INSTANCES.iter().enumerate() {
        kero.post("/instances", json!({ "instance_id": id, "webhook_url": sink.url })).await.expect(201);
        kero.pair(simulator, id, &account(instance)).await;
        let away = format!("away{instance}");
        kero.paired(simulator, &away, &chat(instance, 0)).await;
        kero.post_empty(&format!("/instances/{away}/disconnect")).await.expect(200);
        for n in 1..=CHATS {
            person(simulator, &chat(instance, n), Script::Silent);
        }
    }
    kero
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_over_kills() {
    let kills = setting("KERO_CHAOS_KILLS", 20);
    let seed = setting("KERO_CHAOS_SEED", 7);
    let mut random = StdRng::seed_from_u64(seed);
    let (simulator, mut redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let mut kero = started(&simulator, &redis, &sink).await;
    let accepted = Accepted::default();
    let url = Arc::new(Mutex::new(kero.url.clone()));
    let client = Client {
        url: url.clone(),
        accepted: accepted.clone(),
        stop: Arc::default(),
        number: Arc::new(AtomicUsize::new(0)),
        seed,
    };
    let clients = (0..INSTANCES.len()).flat_map(|instance| (0..=CHATS).map(move |chat| (instance, chat)));
    let clients: Vec<_> = clients.map(|(instance, chat)| tokio::spawn(client.clone().run(instance, chat))).collect();

    let mut suffered = Suffered::default();
    for kill in 0..kills {
        // now and then the next process is told to die at a named point of its work, instead of at any moment
        if random.random_range(0..3) == 0 {
            let point = crate::crash::POINTS[random.random_range(0..crate::crash::POINTS.len())];
            let (name, _) = point.split_once(':').unwrap();
            kero.set_env("KERO_CRASH_AT", &format!("{name}:{}", random.random_range(1..8)));
            kero.restart().await;
            url.lock().unwrap().clone_from(&kero.url);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        let redis_kills = suffered.redis_kills;
        suffered.another(&mut random, &simulator, &mut redis).await;
        // the fault has time to do its harm before the process is gone
        tokio::time::sleep(Duration::from_millis(random.random_range(0..800))).await;
        suffered.crashes += usize::from(kero.has_exited());
        kero.set_env("KERO_CRASH_AT", "");
        kero.restart().await;
        url.lock().unwrap().clone_from(&kero.url);
        if suffered.redis_kills > redis_kills {
            redis.launch().await;
        }
        if kill % 5 == 4 {
            for id in INSTANCES {
                kero.wait_status(id, "connected").await;
            }
        }
    }
    client.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    simulator.clear_faults();
    let accepted = accepted.lock().unwrap().clone();
    assert!(accepted.len() >= kills as usize, "only {} sends were accepted", accepted.len());
    // a backlog grows while the gateway is down more than up
    eventually_within(Duration::from_secs(120 + 2 * kills), "a message_ack for every 202", || async {
        let told: HashSet<String> = sink
            .events("message_ack")
            .iter()
            .map(|event| event["data"]["correlation_id"].as_str().unwrap().to_owned())
            .collect();
        accepted.keys().all(|correlation| told.contains(correlation)).then_some(())
    })
    .await;
    assert_eq!(kero.get("/queue").await.expect(200)["total"], 0, "nothing waits for ever");
    let limits = Limits { refusals: suffered.refusals, retries: RETRIES, seed };
    let counted = check(&accepted, &sink, &simulator, &limits).await;
    println!(
        "chaos: {kills} kills, {} accepted, seed {seed}: lost 0, doubled 0, out of order 0; {counted:?}; {suffered:?}",
        accepted.len()
    );
}

/// (device, recipient device, ratchet key, counter) names one message key: used twice, it breaks the encryption.
pub fn counters_are_unique(ledger: &[LedgerLine], seed: u64) {
    let mut used = HashSet::new();
    for line in ledger {
        for message in &line.messages {
            let key = (
                line.from.clone(),
                line.device,
                message.to_device.clone(),
                message.ratchet_key_b64.clone(),
                message.counter,
            );
            assert!(used.insert(key.clone()), "seed {seed}: a message counter was used twice: {key:?} in {}", line.id);
        }
    }
    assert!(!used.is_empty());
}
