//! The demo's HTTP client: every call is printed as it was made, with its answer and the time since the start.

use super::sink::Received;
use anyhow::{Context, bail};
use serde_json::Value;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
    started: Instant,
    steps: Cell<usize>,
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Reply {
    /// The body of a success.
    pub fn ok(self) -> anyhow::Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("the gateway answered {}", self.status);
        }
        Ok(self.body)
    }
}

impl Client {
    pub fn new(address: SocketAddr, key: &str, started: Instant) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, base: format!("http://{address}"), key: key.to_owned(), started, steps: Cell::new(0) })
    }

    /// Begins a step.
    pub fn step(&self, title: &str) {
        self.steps.set(self.steps.get() + 1);
        println!("\n[{:>7.3} s] {}. {title}", self.started.elapsed().as_secs_f64(), self.steps.get());
    }

    pub fn note(&self, text: &str) {
        println!("    · {text}");
    }

    pub async fn post(&self, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
        self.show_request("POST", path, body, headers);
        let mut request = self.http.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let asked = Instant::now();
        let reply = self.exchange(request).await?;
        println!("    ← {} in {} ms", reply.status, asked.elapsed().as_millis());
        self.show_reply(&reply.body);
        Ok(reply)
    }

    /// A call that is repeated until its answer fits; the caller prints the one that counts.
    pub async fn quiet_get(&self, path: &str) -> anyhow::Result<Reply> {
        self.exchange(self.http.get(format!("{}{path}", self.base))).await
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
        let response = request.header("X-API-Key", &self.key).send().await.context("the gateway does not answer")?;
        let status = response.status().as_u16();
        let text = response.text().await.context("the gateway's answer ended early")?;
        let body =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        Ok(Reply { status, body })
    }

    pub fn show_request(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) {
        let headers: String = headers.iter().map(|(name, value)| format!("  {name}: {value}")).collect();
        println!("    → {method} {path}{headers}");
        if let Some(body) = body {
            println!("      {body}");
        }
    }

    pub fn show_reply(&self, body: &Value) {
        if !body.is_null() {
            println!("      {body}");
        }
    }

    pub fn show_webhook(&self, received: &Received) {
        println!("    ← webhook after {:.3} s: POST {}", self.started.elapsed().as_secs_f64(), received.path);
        for (name, value) in &received.headers {
            if name.starts_with("webhook-") || name == "x-webhook-signature" {
                println!("      {name}: {value}");
            }
        }
        println!("      {}", received.envelope);
    }
}
