//! A real `redis-server` of the test's own, on a loopback port; plain, or with TLS and a password.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub struct Redis {
    child: Option<Child>,
    port: u16,
    data: TempDir,
    /// The certificate that made the server's.
    ca: Option<String>,
}

const PASSWORD: &str = "a-password-of-the-test";

impl Redis {
    pub async fn start() -> Self {
        Self::of(None, TempDir::new().expect("a temporary folder")).await
    }

    /// With TLS, under a certificate of our own, and a password.
    pub async fn start_secure() -> Self {
        let data = TempDir::new().expect("a temporary folder");
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_certificate = ca.self_signed(&ca_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = own.signed_by(&key, &issuer).expect("a certificate");
        for (name, text) in [
            ("ca.pem", issuer_certificate.pem()),
            ("server.pem", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            std::fs::write(data.path().join(name), text).expect("a file");
        }
        Self::of(Some(issuer_certificate.pem()), data).await
    }

    async fn of(ca: Option<String>, data: TempDir) -> Self {
        let mut redis = Self { child: None, port: super::gateway::free_port(), data, ca };
        redis.launch().await;
        redis
    }

    pub fn url(&self) -> String {
        match self.ca {
            Some(_) => format!("rediss://:{PASSWORD}@localhost:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// The same server, with another password.
    pub fn wrong_url(&self) -> String {
        self.url().replace(PASSWORD, "another")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.data.path().join("ca.pem")
    }

    /// Starts the server (again); it remembers nothing.
    pub async fn launch(&mut self) {
        let server = std::env::var("KERO_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let port = self.port.to_string();
        let mut command = Command::new(&server);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(self.data.path());
        if self.ca.is_some() {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", PASSWORD]);
            for (option, file) in
                [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")]
            {
                command.arg(option).arg(self.data.path().join(file));
            }
        } else {
            command.args(["--port", &port]);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{server} does not start ({error}); install the package redis-server"));
        self.child = Some(child);
        super::eventually("redis to answer", || async { self.try_command(&["PING"]).await.map(|_| ()) }).await;
    }

    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    fn client(&self) -> redis::RedisResult<redis::Client> {
        match &self.ca {
            Some(ca) => {
                let root_cert = Some(ca.clone().into_bytes());
                redis::Client::build_with_tls(self.url(), redis::TlsCertificates { client_tls: None, root_cert })
            }
            None => redis::Client::open(self.url()),
        }
    }

    async fn try_command(&self, words: &[&str]) -> Option<redis::Value> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        let client = self.client().ok()?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await.ok()
    }

    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).await.unwrap_or_else(|| panic!("redis refused {words:?}"))
    }

    pub async fn len(&self, key: &str) -> i64 {
        match self.command(&["LLEN", key]).await {
            redis::Value::Int(length) => length,
            other => panic!("{other:?}"),
        }
    }

    /// Commands that the server ran so far, without those that ask for this.
    pub async fn commands(&self) -> u64 {
        let redis::Value::BulkString(bytes) = self.command(&["INFO", "commandstats"]).await else {
            panic!("no statistics")
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        let ours = ["info", "hello", "client", "ping", "auth", "set", "llen"];
        text.lines()
            .filter(|line| !ours.iter().any(|name| line.starts_with(&format!("cmdstat_{name}"))))
            .filter_map(calls)
            .sum()
    }

    /// The elements of a list as JSON, head first.
    pub async fn list(&self, key: &str) -> Vec<serde_json::Value> {
        let redis::Value::Array(items) = self.command(&["LRANGE", key, "0", "-1"]).await else { return Vec::new() };
        items
            .into_iter()
            .filter_map(|item| match item {
                redis::Value::BulkString(bytes) => Some(serde_json::from_slice(&bytes).expect("JSON")),
                _ => None,
            })
            .collect()
    }
}
