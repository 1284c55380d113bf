//! Redis misbehaves: accepts go on, health says so, and it heals by itself. And Redis behind TLS and a password.

use crate::support::{Kero, Options, Redis, Sink, eventually, eventually_within, person, simulator};
use kero_simulator::{Script, Simulator};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

struct Setup {
    simulator: Simulator,
    kero: Kero,
    redis: Redis,
    sink: Sink,
    accepted: Vec<String>,
}

async fn setup(own: &str, redis: Redis, options: Options) -> Setup {
    let (simulator, sink) = (simulator().await, Sink::start().await);
    let options = options.redis(redis.url()).env("KERO_QUEUE__RECONCILE_EVERY", "400ms");
    let kero = Kero::start_with(&simulator, options).await;
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", own).await;
    Setup { simulator, kero, redis, sink, accepted: Vec::new() }
}

impl Setup {
    async fn send(&mut self, phone: &str, count: usize) {
        for _ in 0..count {
            let text = format!("n{}", self.accepted.len());
            let answer = self.kero.send_async("a", phone, &text).await;
            self.accepted.push(answer["correlation_id"].as_str().unwrap().to_owned());
        }
    }

    async fn health(&self, status: &str, redis: &str) {
        eventually(&format!("health {status}, redis {redis}"), || async {
            let health = self.kero.get("/health").await.expect(200);
            (health["status"] == status && health["redis"] == redis).then_some(())
        })
        .await;
    }

    /// Every accepted send has one end, `sent`, and came once, in order.
    async fn all_sent(&self, phone: &str) {
        eventually_within(Duration::from_secs(60), "an end for each send", || async {
            let ends = self.ends();
            self.accepted.iter().all(|correlation| ends.contains_key(correlation)).then_some(())
        })
        .await;
        let ends = self.ends();
        for correlation in &self.accepted {
            assert_eq!(ends[correlation].len(), 1, "{correlation}");
            assert!(ends[correlation].values().all(|end| end["data"]["status"] == "sent"));
        }
        let texts: Vec<String> = self.simulator.received_texts(phone).await.into_iter().map(|text| text.text).collect();
        assert_eq!(texts, (0..self.accepted.len()).map(|n| format!("n{n}")).collect::<Vec<_>>());
        eventually("the lists to be empty", || async {
            let lists = (self.redis.len("kero_message_queue").await, self.redis.len("kero_processing").await);
            (lists == (0, 0)).then_some(())
        })
        .await;
    }

    fn ends(&self) -> HashMap<String, HashMap<String, Value>> {
        let mut ends: HashMap<String, HashMap<String, Value>> = HashMap::new();
        for end in self.sink.events("message_ack") {
            let correlation = end["data"]["correlation_id"].as_str().unwrap().to_owned();
            ends.entry(correlation).or_default().insert(end["id"].to_string(), end);
        }
        ends
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_with_tls_and_a_password() {
    let redis = Redis::start_secure().await;
    let ca = redis.ca_file().display().to_string();
    let wrong = redis.wrong_url();
    let mut s = setup("491526000001", redis, Options::default().env("KERO_REDIS_CA_FILE", ca)).await;
    person(&s.simulator, "491526000002", Script::Silent);
    s.health("healthy", "ok").await;
    s.kero.post_empty("/queue/pause").await.expect(200);
    s.send("491526000002", 3).await;
    eventually("the jobs in Redis", || async { (s.redis.len("kero_message_queue").await == 3).then_some(()) }).await;
    s.kero.post_empty("/queue/resume").await.expect(200);
    s.all_sent("491526000002").await;
    // another password, and a certificate that nobody vouches for: sends go on without Redis, and nothing is told
    for (name, value) in [("KERO_REDIS_URL", wrong.as_str()), ("KERO_REDIS_CA_FILE", "")] {
        s.kero.set_env(name, value);
        s.kero.restart().await;
        s.kero.wait_status("a", "connected").await;
        s.health("degraded", "error").await;
        s.kero.set_env("KERO_REDIS_URL", &s.redis.url());
        s.send("491526000002", 2).await;
        s.all_sent("491526000002").await;
    }
    let log = s.kero.log();
    assert!(!log.contains("a-password-of-the-test") && !log.contains("another@"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_costs_nothing_but_itself() {
    let mut s = setup("491526000011", Redis::start().await, Options::default()).await;
    let other = person(&s.simulator, "491526000012", Script::Silent);
    s.send(&other, 3).await;
    for (fault, end) in [
        (vec!["REPLICAOF", "127.0.0.1", "1"], vec!["REPLICAOF", "NO", "ONE"]),
        (vec!["CONFIG", "SET", "maxmemory", "1"], vec!["CONFIG", "SET", "maxmemory", "0"]),
        (vec!["CONFIG", "SET", "min-replicas-to-write", "1"], vec!["CONFIG", "SET", "min-replicas-to-write", "0"]),
        (vec!["CLIENT", "PAUSE", "3000"], vec!["CLIENT", "UNPAUSE"]),
    ] {
        s.redis.command(&fault).await;
        s.send(&other, 3).await;
        if fault[0] != "CLIENT" {
            s.health("degraded", "error").await;
        }
        s.redis.command(&end).await;
        s.health("healthy", "ok").await;
        s.send(&other, 2).await;
    }
    s.all_sent(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_redis_in_the_place_of_the_old_one_is_filled_again() {
    let mut s = setup("491526000021", Redis::start().await, Options::default()).await;
    let other = person(&s.simulator, "491526000022", Script::Silent);
    s.kero.post_empty("/queue/pause").await.expect(200);
    s.send(&other, 20).await;
    eventually("the jobs in Redis", || async { (s.redis.len("kero_message_queue").await == 20).then_some(()) }).await;
    s.redis.kill().await;
    s.send(&other, 5).await;
    s.redis.launch().await;
    eventually("all jobs in Redis, once", || async { (s.redis.len("kero_message_queue").await == 25).then_some(()) })
        .await;
    // something else in the place of a list, and elements that nobody works on
    s.redis.command(&["DEL", "kero_message_queue"]).await;
    s.redis.command(&["SET", "kero_message_queue", "text"]).await;
    s.redis.command(&["HSET", "kero_dead_letter_queue", "a", "b"]).await;
    s.health("degraded", "error").await;
    eventually("all jobs again", || async {
        let aside = s.redis.command(&["KEYS", "kero_message_queue:was_string:*"]).await;
        let found = matches!(&aside, redis::Value::Array(keys) if keys.len() == 1);
        (found && s.redis.len("kero_message_queue").await == 25).then_some(())
    })
    .await;
    s.health("healthy", "ok").await;
    let orphan = json!({ "instance_id": "a", "correlation_id": s.accepted[0], "payload": { "phone": other } });
    s.redis.command(&["LPUSH", "kero_processing", &orphan.to_string(), "junk"]).await;
    s.kero.post_empty("/queue/resume").await.expect(200);
    s.all_sent(&other).await;
}

/// A letter list that nobody clears: looking at it costs neither memory nor another instance's patience.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_dead_letters_are_never_read_at_once() {
    let mut s = setup("491526000031", Redis::start().await, Options::default()).await;
    let other = person(&s.simulator, "491526000032", Script::Silent);
    let fill = "for n = 1, 1000000 do redis.call('LPUSH', KEYS[1], 'an element that is no job, with some length to it: ' .. n) end";
    let before = s.kero.resident_kib();
    s.redis.command(&["EVAL", fill, "1", "kero_dead_letter_queue"]).await;
    let hopeless = s.kero.send_async("a", "491526000000", "x").await;
    let letter = hopeless["correlation_id"].as_str().unwrap();
    s.sink.wait_for("its end", |event| event["data"]["correlation_id"] == letter).await;
    // the comparison one by one: the number does not fit
    s.redis.command(&["LPOP", "kero_dead_letter_queue"]).await;
    eventually("the letter, put back", || async {
        let redis::Value::BulkString(first) = s.redis.command(&["LINDEX", "kero_dead_letter_queue", "0"]).await else {
            return None;
        };
        String::from_utf8_lossy(&first).contains(letter).then_some(())
    })
    .await;
    s.send(&other, 20).await;
    s.all_sent(&other).await;
    assert_eq!(s.kero.get("/instances/a/dead-letters").await.expect(200)["data"].as_array().unwrap().len(), 1);
    let grown = s.kero.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for a list of 80 MB");
}
