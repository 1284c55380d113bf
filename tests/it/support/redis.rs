//! A real `redis-server` of the test's own, on a loopback port.

use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub struct Redis {
    child: Option<Child>,
    port: u16,
    data: TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        let port = super::gateway::free_port();
        let mut redis = Self { child: None, port, data: TempDir::new().expect("a temporary folder") };
        redis.launch().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the server (again); it remembers nothing.
    pub async fn launch(&mut self) {
        let server = std::env::var("KERO_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(&server)
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(self.data.path())
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

    async fn try_command(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(self.url()).ok()?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(5)));
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
