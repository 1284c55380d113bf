//! A `kero serve` child process and the calls a client makes.

use kero_simulator::Simulator;
use reqwest::Method;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub const KEY: &str = "test-admin-key-0123456789abcdef0123456789";

#[derive(Default, Clone)]
pub struct Options {
    pub database_url: Option<String>,
    pub redis_url: Option<String>,
    pub env: Vec<(String, String)>,
}

impl Options {
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis_url = Some(url.into());
        self
    }

    pub fn database(mut self, url: impl Into<String>) -> Self {
        self.database_url = Some(url.into());
        self
    }
}

/// A running gateway; killed when dropped.
pub struct Kero {
    child: Option<Child>,
    pub url: String,
    /// Ends of the process that nobody asked for, seen by [`Kero::revive`].
    pub crashes: usize,
    pub data: TempDir,
    simulator_url: String,
    options: Options,
    http: reqwest::Client,
    port: u16,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON ({}): {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// Asserts the status and gives the JSON.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts a problem+json with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(self.header("content-type").as_deref(), Some("application/problem+json"), "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["success"], false, "{body}");
        body
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kero"))
}

impl Kero {
    pub async fn start(simulator: &Simulator) -> Self {
        Self::start_with(simulator, Options::default()).await
    }

    pub async fn start_with(simulator: &Simulator, options: Options) -> Self {
        let mut kero = Self {
            child: None,
            url: String::new(),
            crashes: 0,
            data: TempDir::new().expect("a temporary folder"),
            simulator_url: simulator.ws_url(),
            options,
            http: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
            port: 0,
        };
        kero.launch().await;
        kero
    }

    /// The command line and environment of this gateway.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", self.data.path())
            .env("KERO_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("KERO_DATA_DIR", self.data.path())
            .env("KERO_API_KEY", KEY)
            .env("KERO_WHATSAPP__URL", &self.simulator_url)
            .env("KERO_DELIVERY__ALLOW_NETWORKS", "127.0.0.0/8")
            .env("KERO_LOG__FILTER", std::env::var("KERO_TEST_LOG").unwrap_or_else(|_| "info".to_owned()));
        if let Some(url) = &self.options.database_url {
            command.env("KERO_DATABASE_URL", url);
        }
        if let Some(url) = &self.options.redis_url {
            command.env("KERO_REDIS_URL", url);
        }
        for (key, value) in &self.options.env {
            command.env(key, value);
        }
        command
    }

    /// Starts the process (again, on the same data) and waits until it is ready.
    pub async fn launch(&mut self) {
        // between the choice of a free port and its use another process may have taken it
        while !self.try_launch().await {}
    }

    async fn try_launch(&mut self) -> bool {
        let logged = self.log().len();
        self.port = free_port();
        self.url = format!("http://127.0.0.1:{}", self.port);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = self.command();
        command.arg("serve").stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().expect("the kero binary starts"));
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(answer) = self.http.get(format!("{}/readyz", self.url)).send().await
                && answer.status() == 200
            {
                return true;
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                let log = self.log();
                if log.get(logged..).is_some_and(|log| log.contains("cannot be listened on")) {
                    return false;
                }
                let told_to_crash =
                    self.options.env.iter().any(|(name, value)| name == "KERO_CRASH_AT" && !value.is_empty());
                assert!(told_to_crash, "kero ended with {status}:\n{log}");
                return true;
            }
            assert!(Instant::now() < until, "kero did not become ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the process ended by itself.
    pub fn has_exited(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// Starts the process again when it ended by itself, this time without a crash point.
    pub async fn revive(&mut self) {
        if self.has_exited() {
            self.crashes += 1;
            self.set_env("KERO_CRASH_AT", "");
            self.launch().await;
        }
    }

    /// From the next launch on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.options.env.retain(|(name, _)| name != key);
        self.options.env.push((key.to_owned(), value.to_owned()));
    }

    pub fn log_path(&self) -> PathBuf {
        self.data.path().join("kero.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("a running process")
    }

    /// Memory that the process holds.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// SIGTERM; gives how long the process took to end, and its exit code.
    pub async fn terminate(&mut self) -> (Duration, Option<i32>) {
        let mut child = self.child.take().expect("a running process");
        let started = Instant::now();
        let pid = child.id().expect("a process id").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
        let status = tokio::time::timeout(Duration::from_secs(30), child.wait())
            .await
            .expect("kero ends after SIGTERM")
            .expect("status");
        (started.elapsed(), status.code())
    }

    /// kill -9, then the same data again.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.launch().await;
    }

    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("x-api-key") || name.eq_ignore_ascii_case("authorization"))
        {
            request = request.header("x-api-key", KEY);
        }
        for (name, value) in headers {
            // an empty value means: do not send it
            if !value.is_empty() {
                request = request.header(*name, *value);
            }
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                request = request.header("content-type", "application/json");
            }
            request = request.body(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, bytes: response.bytes().await.expect("a body").to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, path, &[], Some(body.to_string().into_bytes())).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.request(Method::POST, path, headers, Some(body.to_string().into_bytes())).await
    }

    pub async fn post_empty(&self, path: &str) -> Answer {
        self.request(Method::POST, path, &[], None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], None).await
    }

    pub async fn create(&self, id: &str) {
        self.post("/instances", json!({ "instance_id": id })).await.expect(201);
    }

    pub async fn status(&self, id: &str) -> Value {
        self.get(&format!("/instances/{id}/status")).await.expect(200)
    }

    pub async fn wait_status(&self, id: &str, status: &str) -> Value {
        super::eventually(&format!("{id} to be {status}; log:\n{}", self.log()), || async {
            let found = self.status(id).await;
            (found["status"] == status).then_some(found)
        })
        .await
    }

    /// Creates an instance, shows its QR code to the simulated phone and waits until it is connected.
    pub async fn paired(&self, simulator: &Simulator, id: &str, phone: &str) {
        self.create(id).await;
        self.pair(simulator, id, phone).await;
    }

    pub async fn pair(&self, simulator: &Simulator, id: &str, phone: &str) {
        let qr = self.get(&format!("/instances/{id}/qr")).await.expect(200);
        let code = qr["code"].as_str().expect("the raw code");
        simulator.scan_qr(code, Some(phone)).await.expect("the phone takes the code");
        self.wait_status(id, "connected").await;
    }

    pub async fn send_async(&self, id: &str, phone: &str, message: &str) -> Value {
        let path = format!("/instances/{id}/messages/text");
        self.post_with(&path, &[("x-async", "true")], json!({ "phone": phone, "message": message })).await.expect(202)
    }

    pub async fn send_text(&self, id: &str, phone: &str, message: &str) -> Answer {
        self.post(&format!("/instances/{id}/messages/text"), json!({ "phone": phone, "message": message })).await
    }
}

impl Drop for Kero {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of kero's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}
