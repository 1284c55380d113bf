//! What every benchmark needs: processes, ports, CPU clocks, medians, calls.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub const KEY: &str = "load-test-key-0123456789abcdef0123456789";

/// The simulated WhatsApp, in a process of its own.
pub struct Simulator {
    pub url: String,
    pub pid: u32,
    _process: Child,
}

/// A gateway on that simulator.
pub struct Kero {
    pub url: String,
    pub pid: u32,
    _process: Child,
}

pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().unwrap()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(arguments: &[&str], environment: &[(&str, String)]) -> Child {
    let example = std::env::current_exe().unwrap();
    let binary: PathBuf = example.parent().and_then(|examples| examples.parent()).unwrap().join("kero");
    Command::new(binary)
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

pub async fn simulator(http: &reqwest::Client) -> Simulator {
    let address = format!("127.0.0.1:{}", free_port());
    let process = spawn(&["simulator", "--listen", &address], &[]);
    let url = format!("http://{address}");
    until_ready(http, &url).await;
    Simulator { url, pid: process.id().unwrap(), _process: process }
}

impl Simulator {
    /// A person who never answers.
    pub async fn person(&self, http: &reqwest::Client, phone: &str) {
        let person = json!({ "phone": phone, "script": "silent" });
        http.post(format!("{}/admin/people", self.url)).json(&person).send().await.unwrap().error_for_status().unwrap();
    }

    pub async fn scan(&self, http: &reqwest::Client, phone: &str, code: String) {
        let scan = format!("{}/admin/mock-phone/scan-qr?phone={phone}", self.url);
        http.post(scan).body(code).send().await.unwrap().error_for_status().unwrap();
    }

    /// Message stanzas accepted so far.
    pub async fn messages(&self, http: &reqwest::Client) -> u64 {
        let stats: Value = http.get(format!("{}/admin/stats", self.url)).send().await.unwrap().json().await.unwrap();
        stats["messages"].as_u64().unwrap()
    }
}

/// A gateway process; `environment` adds to what every benchmark sets.
pub async fn kero(
    http: &reqwest::Client,
    simulator: &Simulator,
    folder: &TempDir,
    database: String,
    environment: &[(&str, String)],
) -> Kero {
    let port = free_port();
    let mut all = vec![
        ("KERO_LISTEN", format!("127.0.0.1:{port}")),
        ("KERO_DATA_DIR", folder.path().display().to_string()),
        ("KERO_DATABASE_URL", database),
        ("KERO_API_KEY", KEY.to_owned()),
        ("KERO_WHATSAPP__URL", format!("{}/ws/chat", simulator.url.replace("http", "ws"))),
        ("KERO_LOG__FILTER", "warn".to_owned()),
    ];
    all.extend_from_slice(environment);
    let process = spawn(&["serve"], &all);
    let url = format!("http://127.0.0.1:{port}");
    until_ready(http, &format!("{url}/readyz")).await;
    Kero { url, pid: process.id().unwrap(), _process: process }
}

impl Kero {
    pub async fn call(
        &self,
        http: &reqwest::Client,
        method: reqwest::Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Value {
        let mut request = http.request(method, format!("{}{path}", self.url)).header("x-api-key", KEY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    /// Creates an instance and pairs it with the phone of this number.
    pub async fn pair(&self, http: &reqwest::Client, simulator: &Simulator, id: &str, phone: &str) {
        use reqwest::Method;
        self.call(http, Method::POST, "/instances", &[], Some(json!({ "instance_id": id }))).await;
        let qr = self.call(http, Method::GET, &format!("/instances/{id}/qr"), &[], None).await;
        simulator.scan(http, phone, qr["code"].as_str().unwrap().to_owned()).await;
        let status = format!("/instances/{id}/status");
        while self.call(http, Method::GET, &status, &[], None).await["status"] != "connected" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// CPU time of a process so far.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The address of a fresh database: on the Postgres server, or a SQLite file in `folder`.
pub async fn database(server: Option<&str>, folder: &TempDir, name: &str) -> String {
    match server {
        Some(server) => {
            let name = format!("load_{name}_{}", uuid::Uuid::now_v7().simple());
            kero_store::testing::create_database(server, &name).await.expect("a database");
            format!("{}/{name}", server.trim_end_matches('/').rsplit_once('/').unwrap().0)
        }
        None => format!("sqlite://{}/{name}.db?mode=rwc", folder.path().display()),
    }
}
