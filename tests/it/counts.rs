//! What a send costs, counted: SQL statements, commits, fsyncs and round trips to Redis; and that another instance's
//! backlog adds nothing to it. Counts do not move with a busy machine, so they are held to limits.

use crate::support::{Kero, Options, Redis, eventually_within, person, simulator};
use futures_util::StreamExt;
use kero_simulator::{Fault, FaultRule, Script, Simulator};
use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// What was counted so far.
#[derive(Debug, Clone, Copy)]
struct Counts {
    statements: f64,
    commits: f64,
    redis_requests: f64,
    redis_commands: f64,
}

impl Counts {
    async fn read(kero: &Kero, redis: &Redis) -> Self {
        let metrics = kero.get("/metrics").await.text();
        let value = |name: &str| value(&metrics, name);
        Self {
            statements: value("kero_database_statements_total"),
            commits: value("kero_database_commits_total"),
            redis_requests: value("kero_redis_requests_total"),
            redis_commands: redis.commands().await as f64,
        }
    }

    /// Per send, since `before`.
    fn per_send(self, before: Self, sends: usize) -> Self {
        let each = |now: f64, then: f64| (now - then) / sends as f64;
        Self {
            statements: each(self.statements, before.statements),
            commits: each(self.commits, before.commits),
            redis_requests: each(self.redis_requests, before.redis_requests),
            redis_commands: each(self.redis_commands, before.redis_commands),
        }
    }
}

fn chats(from: usize) -> Vec<String> {
    (0..64).map(|n| format!("49152700{:03}9", from + n)).collect()
}

/// Sends to the chats in turn, `in_flight` of them under way at once; until WhatsApp has them all and their rows rest.
async fn send(
    kero: &Kero,
    simulator: &Simulator,
    id: &str,
    chats: &[String],
    in_flight: usize,
    sends: usize,
) -> Duration {
    let latencies: Vec<Duration> = futures_util::stream::iter(0..sends)
        .map(|n| async move {
            let began = Instant::now();
            let answer = kero.send_async(id, &chats[n % chats.len()], "counted").await;
            let message = answer["message_id"].as_str().unwrap().to_owned();
            let line = simulator.wait_for(|line| line.id == message, Duration::from_secs(60)).await;
            assert!(line.is_some(), "not sent");
            began.elapsed()
        })
        .buffer_unordered(in_flight)
        .collect()
        .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut latencies = latencies;
    latencies.sort();
    latencies[latencies.len() / 2]
}

/// Counts the process's fsyncs from outside, where that is allowed.
struct Syncs {
    strace: Child,
    log: std::path::PathBuf,
}

impl Syncs {
    async fn watch(kero: &Kero) -> Self {
        let log = kero.data.path().join("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-p", &kero.pid().to_string(), "-o"]).arg(&log);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut strace =
            strace.unwrap_or_else(|error| panic!("strace does not start ({error}); install the package strace"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Ok(Some(status)) = strace.try_wait() {
            panic!(
                "strace may not watch this process ({status}): run as root, or allow it with kernel.yama.ptrace_scope=0"
            );
        }
        Self { strace, log }
    }

    /// So far; a call that another thread's call interrupts is two lines, of which one says `resumed`.
    fn count(&self) -> f64 {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains("sync(") && !line.contains("resumed")).count() as f64
    }

    async fn end(mut self) {
        let pid = self.strace.id().expect("strace runs").to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status().await;
        let _ = tokio::time::timeout(Duration::from_secs(10), self.strace.wait()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_costs_few_statements_commits_syncs_and_round_trips() {
    let (simulator, redis) = (simulator().await, Redis::start().await);
    let options = Options::default().redis(redis.url()).env("KERO_SENDING__LANE_CONCURRENCY", "64");
    let kero = Kero::start_with(&simulator, options).await;
    kero.paired(&simulator, "a", "491527000001").await;
    let chats = chats(0);
    for chat in &chats {
        person(&simulator, chat, Script::Silent);
    }
    // sessions are begun before it counts
    send(&kero, &simulator, "a", &chats, 16, 128).await;
    let syncs = Syncs::watch(&kero).await;
    // at one in flight: own commits for accept, intent, result, fan-out, and what the client stores; push, move, length and
    // removal in Redis, and now and then a read that finds nothing
    let limits = [(1, 64, [26.0, 8.0, 8.0, 4.5]), (64, 640, [12.0, 1.0, 1.0, 1.5])];
    for (in_flight, sends, limit) in limits {
        let (before, synced) = (Counts::read(&kero, &redis).await, syncs.count());
        send(&kero, &simulator, "a", &chats, in_flight, sends).await;
        let each = Counts::read(&kero, &redis).await.per_send(before, sends);
        let fsyncs = (syncs.count() - synced) / sends as f64;
        println!(
            "{in_flight} in flight, per send: {:.2} statements, {:.2} commits, {fsyncs:.2} fsyncs, {:.2} round trips to Redis ({:.2} commands)",
            each.statements, each.commits, each.redis_requests, each.redis_commands
        );
        let found = [each.statements, each.commits, fsyncs, each.redis_requests];
        assert!(found.iter().zip(limit).all(|(found, limit)| *found <= limit), "{found:?} over {limit:?}");
        assert!(each.commits > 0.0 && fsyncs > 0.0 && each.redis_requests > 0.0, "nothing was counted: {found:?}");
    }
    syncs.end().await;
    // the pass over due rows is a fallback: nearly every attempt began by a wake
    let metrics = kero.get("/metrics").await.text();
    let (claims, polled) = (value(&metrics, "kero_queue_claims_total"), value(&metrics, "kero_queue_polled_total"));
    println!("{polled} of {claims} attempts were begun by the pass over due rows");
    assert!(claims >= 832.0 && polled <= claims * 0.01 + 2.0, "{polled} of {claims}");
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

/// 100,000 held jobs of an offline instance and 100,000 queued jobs of a connected one.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_others_costs_a_send_nothing() {
    let (simulator, redis) = (simulator().await, Redis::start().await);
    let options = Options::default()
        .redis(redis.url())
        .env("KERO_DURABILITY", "process")
        // the one send of the busy instance that is under way stays so
        .env("KERO_SENDING__ACK_TIMEOUT", "10m");
    let mut kero = Kero::start_with(&simulator, options).await;
    for (id, phone) in
        [("quiet", "491527001001"), ("offline", "491527001002"), ("busy", "491527001003"), ("away", "491527001004")]
    {
        kero.paired(&simulator, id, phone).await;
    }
    for id in ["offline", "away"] {
        kero.post_empty(&format!("/instances/{id}/disconnect")).await.expect(200);
    }
    let chats = chats(200);
    for chat in &chats {
        person(&simulator, chat, Script::Silent);
    }
    send(&kero, &simulator, "quiet", &chats, 16, 128).await;
    let measure = async |kero: &Kero| {
        let before = Counts::read(kero, &redis).await;
        let latency = send(kero, &simulator, "quiet", &chats, 16, 320).await;
        (Counts::read(kero, &redis).await.per_send(before, 320), latency)
    };
    let (alone, alone_latency) = measure(&kero).await;

    // a first job of each kind; the busy one's is sent and never acknowledged, to a device that is away
    simulator.inject(FaultRule::new(Fault::AckMissing).phone("491527001003"));
    kero.send_async("offline", &chats[0], "held").await;
    kero.send_async("busy", "491527001004", "queued").await;
    eventually_within(Duration::from_secs(20), "the busy one's send", || async {
        let jobs = kero.get("/instances/busy/jobs").await.expect(200);
        (jobs["data"][0]["state"] == "sending").then_some(())
    })
    .await;
    let database = format!("sqlite://{}/kero.db?mode=rw", kero.data.path().display());
    for (id, state) in [("offline", "'held', 'offline'"), ("busy", "'queued', NULL")] {
        // later than the first of their chats, so that no lane comes to read one
        let sql = format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000)
             INSERT INTO jobs (id, instance_pk, correlation_id, message_id, chat, priority, content, state, held, due_at,
               order_at, attempts, asynchronous, created_at, updated_at)
             SELECT randomblob(16), j.instance_pk, 'copy' || n, j.message_id || n, j.chat, j.priority, j.content, {state},
               j.due_at, j.order_at + n, 0, j.asynchronous, j.created_at, j.updated_at
             FROM (SELECT * FROM jobs WHERE instance_pk = (SELECT pk FROM instances WHERE id = '{id}') LIMIT 1) j, c"
        );
        kero_store::testing::execute(&database, &sql).await.unwrap();
    }
    let rows = eventually_within(Duration::from_secs(60), "the backlog in the counts", || async {
        let queue = kero.get("/queue").await.expect(200);
        (queue["total"].as_u64() >= Some(200_000)).then_some(queue["total"].clone())
    })
    .await;
    let (crowded, crowded_latency) = measure(&kero).await;
    println!(
        "with {rows} jobs of others: {:.2} statements instead of {:.2}, {:.2} commits instead of {:.2}, {:.2} commands to Redis instead of {:.2}, median {crowded_latency:.1?} instead of {alone_latency:.1?}",
        crowded.statements,
        alone.statements,
        crowded.commits,
        alone.commits,
        crowded.redis_commands,
        alone.redis_commands
    );
    for (what, crowded, alone) in [
        ("statements", crowded.statements, alone.statements),
        ("commits", crowded.commits, alone.commits),
        ("round trips to Redis", crowded.redis_requests, alone.redis_requests),
        ("commands to Redis", crowded.redis_commands, alone.redis_commands),
    ] {
        // how many sends share a commit varies with the moment
        assert!(crowded <= alone * 1.5 + 1.0, "{crowded:.2} {what} a send, instead of {alone:.2}");
    }
    let order = alone_latency * 10 + Duration::from_millis(100);
    assert!(crowded_latency < order, "{crowded_latency:?} instead of {alone_latency:?}");
    // and a start with that many rows is a start
    kero.restart().await;
    kero.wait_status("quiet", "connected").await;
    send(&kero, &simulator, "quiet", &chats, 4, 16).await;
    let ids: HashSet<String> =
        simulator.ledger().into_iter().filter(|line| line.from == "491527001003").map(|line| line.id).collect();
    assert_eq!(ids.len(), 1, "the backlog does not move");
}
