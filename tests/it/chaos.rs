//! Kill -9 at random moments of a send loop: nothing accepted is lost or doubled, order holds, no message counter is
//! used twice, and every conversation still decrypts. `KERO_CHAOS_KILLS` and `KERO_CHAOS_SEED` steer it
//! (`tests/chaos/run --kills N --seed S`).

use crate::support::{Kero, Options, Redis, Sink, eventually_within, person, simulator};
use kero_simulator::{Fault, FaultRule, LedgerLine, Script, Simulator};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What the client was told: correlation id → (chat, text, message id).
type Accepted = Arc<Mutex<BTreeMap<String, (String, String, String)>>>;

const CHATS: usize = 4;
const ACCOUNT: &str = "491551000099";

/// What was done to it beside the kills.
#[derive(Debug, Default)]
struct Suffered {
    /// It died at a named point.
    crashes: usize,
    flushes: usize,
    pauses: usize,
    redis_kills: usize,
}

fn chat(n: usize) -> String {
    format!("4915510001{n:02}")
}

struct Client {
    url: Arc<Mutex<String>>,
    accepted: Accepted,
    stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Client {
    /// Sends to one chat, one after the other, repeating each request with its own correlation id until it is answered.
    async fn send_to(&self, chat_number: usize) {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.number.fetch_add(1, Ordering::Relaxed);
            let (correlation, text, phone) = (format!("c{n}"), format!("t{n}"), chat(chat_number));
            loop {
                let url = self.url.lock().unwrap().clone();
                let request = http
                    .post(format!("{url}/instances/a/messages/text"))
                    .header("x-api-key", crate::support::KEY)
                    .header("x-async", "true")
                    .header("x-correlation-id", &correlation)
                    .header("idempotency-key", &correlation)
                    .json(&json!({ "phone": phone, "message": text }));
                match request.send().await {
                    Ok(answer) if answer.status() == 202 => {
                        let Ok(body) = answer.json::<Value>().await else { continue };
                        let id = body["message_id"].as_str().unwrap().to_owned();
                        self.accepted.lock().unwrap().insert(correlation, (phone, text, id));
                        break;
                    }
                    Ok(answer) if answer.status().is_server_error() => {
                        tokio::time::sleep(Duration::from_millis(20)).await
                    }
                    Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_over_kills() {
    let kills = setting("KERO_CHAOS_KILLS", 20);
    let seed = setting("KERO_CHAOS_SEED", 7);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let (simulator, mut redis, sink) = (simulator().await, Redis::start().await, Sink::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env(
            "KERO_DELIVERY__SCHEDULE",
            "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\"]",
        )
        .env("KERO_SENDING__ACK_TIMEOUT", "3s")
        .env("KERO_SENDING__DOUBT_WAIT", "500ms")
        .env("KERO_QUEUE__RETRY_BASE", "300ms")
        .env("KERO_QUEUE__MAX_RETRIES", "50");
    let mut kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", ACCOUNT).await;
    for n in 0..CHATS {
        person(&simulator, &chat(n), Script::Silent);
    }
    let accepted = Accepted::default();
    let url = Arc::new(Mutex::new(kero.url.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let number = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..CHATS)
        .map(|n| {
            let client =
                Client { url: url.clone(), accepted: accepted.clone(), stop: stop.clone(), number: number.clone() };
            tokio::spawn(async move { client.send_to(n).await })
        })
        .collect();

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
        let mut killed_redis = false;
        match random.random_range(0..8) {
            0 => simulator.inject(FaultRule::new(Fault::DropSocket).phone(ACCOUNT)),
            1 => simulator.inject(FaultRule::new(Fault::AckMissing).phone(ACCOUNT).count(1)),
            2 => simulator.inject(FaultRule::new(Fault::AckDouble).phone(ACCOUNT).count(3)),
            3 => simulator
                .inject(FaultRule::new(Fault::AckLate).delay(Duration::from_millis(300)).phone(ACCOUNT).count(2)),
            4 => {
                redis.command(&["FLUSHALL"]).await;
                suffered.flushes += 1;
            }
            5 => {
                redis.command(&["CLIENT", "PAUSE", "500", "ALL"]).await;
                suffered.pauses += 1;
            }
            6 => {
                redis.kill().await;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
                killed_redis = true;
                suffered.redis_kills += 1;
            }
            _ => {}
        }
        suffered.crashes += usize::from(kero.has_exited());
        kero.set_env("KERO_CRASH_AT", "");
        kero.restart().await;
        url.lock().unwrap().clone_from(&kero.url);
        if killed_redis {
            redis.launch().await;
        }
        if kill % 5 == 4 {
            kero.wait_status("a", "connected").await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
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
    let resends = check(&accepted, &sink, &simulator, seed);
    println!(
        "chaos: {kills} kills, {} accepted, seed {seed}: lost 0, doubled 0, out of order 0; {resends} resends under the same id; {suffered:?}",
        accepted.len()
    );
}

/// How many stanzas repeated an id that WhatsApp had seen.
fn check(
    accepted: &BTreeMap<String, (String, String, String)>,
    sink: &Sink,
    simulator: &Simulator,
    seed: u64,
) -> usize {
    // exactly one message_ack event for each, and all of them sent
    let mut events: HashMap<String, HashMap<String, Value>> = HashMap::new();
    for event in sink.events("message_ack") {
        events
            .entry(event["data"]["correlation_id"].as_str().unwrap().to_owned())
            .or_default()
            .insert(event["id"].to_string(), event.clone());
    }
    for correlation in accepted.keys() {
        let found: Vec<&Value> = events[correlation].values().collect();
        assert_eq!(found.len(), 1, "seed {seed}: {correlation} has {found:?}");
        assert_eq!(found[0]["data"]["status"], "sent", "seed {seed}: {found:?}");
    }
    // one plaintext for one id, one id for one job
    let ledger = simulator.ledger();
    let mut plaintexts: HashMap<&str, HashSet<&str>> = HashMap::new();
    for line in &ledger {
        if let Some(hash) = &line.plaintext_sha256 {
            plaintexts.entry(&line.id).or_default().insert(hash);
        }
    }
    for (id, hashes) in &plaintexts {
        assert_eq!(hashes.len(), 1, "seed {seed}: {id} was sent with {} contents", hashes.len());
    }
    for n in 0..CHATS {
        let expected: Vec<(&str, &str)> = {
            let mut jobs: Vec<_> = accepted.iter().filter(|(_, (phone, ..))| *phone == chat(n)).collect();
            jobs.sort_by_key(|(correlation, _)| correlation[1..].parse::<usize>().unwrap());
            jobs.into_iter().map(|(_, (_, text, id))| (id.as_str(), text.as_str())).collect()
        };
        // the phone shows one message per id: the first arrival counts
        let mut seen = HashSet::new();
        let texts = simulator.received_texts(&chat(n));
        let shown: Vec<(&str, &str)> = texts
            .iter()
            .filter(|text| seen.insert(text.id.clone()))
            .map(|text| (text.id.as_str(), text.text.as_str()))
            .collect();
        assert_eq!(shown, expected, "seed {seed}: chat {n} lost, doubled or disordered messages");
    }
    counters_are_unique(&ledger, seed);
    let ids: HashSet<&str> = ledger.iter().map(|line| line.id.as_str()).collect();
    ledger.len() - ids.len()
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
