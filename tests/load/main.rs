//! Sequential synchronous sends over one keep-alive connection, against a bare client loop that waits for each ack: the
//! same client crate, the same kind of transport, the same store, in the same run, in turns.
//!
//! `tests/load/run [--sends N] [--rounds N] [--database URL] [--durability power|process]` prints the ratio and the
//! CPU per send of both. Nothing here asserts a time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod bare;

use clap::Parser;
use kero_store::{Durability, MasterKey, Store, StoreConfig};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

#[derive(Parser)]
struct Arguments {
    /// Sends in each round.
    #[arg(long, default_value_t = 200)]
    sends: u32,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A Postgres server URL; SQLite files in a temporary folder without it.
    #[arg(long)]
    database: Option<String>,
    #[arg(long, default_value = "power")]
    durability: String,
}

const KEY: &str = "load-test-key-0123456789abcdef0123456789";
const RECIPIENT: &str = "491581000009";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn binary() -> PathBuf {
    let example = std::env::current_exe().unwrap();
    example.parent().and_then(|examples| examples.parent()).unwrap().join("kero")
}

fn spawn(arguments: &[&str], environment: &[(&str, String)]) -> Child {
    Command::new(binary())
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the kero binary; build it first")
}

async fn until_ready(http: &reqwest::Client, url: &str) {
    for _ in 0..500 {
        if http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{url} does not answer");
}

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn database(arguments: &Arguments, folder: &TempDir, name: &str) -> String {
    match &arguments.database {
        Some(server) => {
            let name = format!("load_{name}_{}", uuid::Uuid::now_v7().simple());
            kero_store::testing::create_database(server, &name).await.expect("a database");
            format!("{}/{name}", server.trim_end_matches('/').rsplit_once('/').unwrap().0)
        }
        None => format!("sqlite://{}/{name}.db?mode=rwc", folder.path().display()),
    }
}

#[tokio::main]
async fn main() {
    kero::boot::prepare_process();
    let arguments = Arguments::parse();
    let folder = TempDir::new().unwrap();
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().unwrap();
    let simulator_port = free_port();
    let simulator = format!("http://127.0.0.1:{simulator_port}");
    let _simulator = spawn(&["simulator", "--listen", &format!("127.0.0.1:{simulator_port}")], &[]);
    until_ready(&http, &simulator).await;
    let person = json!({ "phone": RECIPIENT, "script": "silent" });
    http.post(format!("{simulator}/admin/people")).json(&person).send().await.unwrap().error_for_status().unwrap();

    let durability = if arguments.durability == "process" { Durability::Process } else { Durability::Power };
    let store = Store::open(StoreConfig {
        url: database(&arguments, &folder, "bare").await,
        durability,
        master_key: MasterKey::generate(),
        readers: 4,
        writers: 4,
    })
    .await
    .expect("the store opens");
    let bare = bare::paired(&http, &simulator, &store).await;

    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let kero = spawn(
        &["serve"],
        &[
            ("KERO_LISTEN", format!("127.0.0.1:{port}")),
            ("KERO_DATA_DIR", folder.path().display().to_string()),
            ("KERO_DATABASE_URL", database(&arguments, &folder, "kero").await),
            ("KERO_API_KEY", KEY.to_owned()),
            ("KERO_DURABILITY", arguments.durability.clone()),
            ("KERO_WHATSAPP__URL", format!("ws://127.0.0.1:{simulator_port}/ws/chat")),
            ("KERO_LOG__FILTER", "warn".to_owned()),
        ],
    );
    until_ready(&http, &format!("{url}/readyz")).await;
    pair(&http, &url, &simulator).await;

    bare.send(20).await;
    send(&http, &url, 20).await;
    let (mut bare_rates, mut kero_rates, mut bare_cpu, mut kero_cpu, mut ratios) =
        (vec![], vec![], vec![], vec![], vec![]);
    let pid = kero.id().unwrap();
    for round in 1..=arguments.rounds {
        let (cpu_before, started) = (cpu(std::process::id()), Instant::now());
        bare.send(arguments.sends).await;
        let bare_rate = f64::from(arguments.sends) / started.elapsed().as_secs_f64();
        bare_cpu.push((cpu(std::process::id()) - cpu_before).as_secs_f64() * 1e3 / f64::from(arguments.sends));
        let (cpu_before, started) = (cpu(pid), Instant::now());
        send(&http, &url, arguments.sends).await;
        let kero_rate = f64::from(arguments.sends) / started.elapsed().as_secs_f64();
        kero_cpu.push((cpu(pid) - cpu_before).as_secs_f64() * 1e3 / f64::from(arguments.sends));
        println!(
            "round {round}: bare client {bare_rate:.0}/s, kero {kero_rate:.0}/s, ratio {:.2}",
            kero_rate / bare_rate
        );
        bare_rates.push(bare_rate);
        kero_rates.push(kero_rate);
        ratios.push(kero_rate / bare_rate);
    }
    println!(
        "median of {} rounds of {} sends, {}, durability {}: bare client {:.0}/s at {:.2} ms CPU, kero {:.0}/s at {:.2} ms CPU, ratio {:.2}",
        arguments.rounds,
        arguments.sends,
        if arguments.database.is_some() { "Postgres" } else { "SQLite" },
        arguments.durability,
        median(bare_rates),
        median(bare_cpu),
        median(kero_rates),
        median(kero_cpu),
        median(ratios)
    );
    store.close().await;
}

async fn call(http: &reqwest::Client, method: reqwest::Method, url: String, body: Option<Value>) -> Value {
    let mut request = http.request(method, &url).header("x-api-key", KEY);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{url}: {body}");
    body
}

async fn pair(http: &reqwest::Client, url: &str, simulator: &str) {
    use reqwest::Method;
    call(http, Method::POST, format!("{url}/instances"), Some(json!({ "instance_id": "load" }))).await;
    let qr = call(http, Method::GET, format!("{url}/instances/load/qr"), None).await;
    let code = qr["code"].as_str().unwrap().to_owned();
    let scan = format!("{simulator}/admin/mock-phone/scan-qr?phone=491581000002");
    http.post(scan).body(code).send().await.unwrap().error_for_status().unwrap();
    while call(http, Method::GET, format!("{url}/instances/load/status"), None).await["status"] != "connected" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn send(http: &reqwest::Client, url: &str, sends: u32) {
    for n in 0..sends {
        let body = json!({ "phone": RECIPIENT, "message": format!("load {n}") });
        call(http, reqwest::Method::POST, format!("{url}/instances/load/messages/text"), Some(body)).await;
    }
}
