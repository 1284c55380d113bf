//! The clients of the kill loop: each sends to one chat, one send after the other, and insists on every answer.

use kero_domain::Timestamp;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const INSTANCES: [&str; 2] = ["a", "c"];
/// Chats of each instance with sends of all classes. The first one's device is away and gives no receipts.
pub const CHATS: usize = 3;
pub const CLASSES: [&str; 3] = ["interactive", "bulk", "background"];
/// Not on WhatsApp.
const NOBODY: &str = "491551990000";

/// How a send is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Sent,
    /// Its number is not on WhatsApp.
    Hopeless,
    Cancelled,
}

/// What the client was told, and what it asked for.
#[derive(Debug, Clone)]
pub struct Send {
    pub number: usize,
    pub phone: String,
    pub text: String,
    pub class: &'static str,
    pub id: String,
    pub expected: Expected,
    /// Not before.
    pub due: Option<Timestamp>,
}

/// By correlation id.
pub type Accepted = Arc<Mutex<BTreeMap<String, Send>>>;

pub fn account(instance: usize) -> String {
    format!("49155100009{instance}")
}

/// The chat after the last takes sends at set times.
pub fn chat(instance: usize, n: usize) -> String {
    format!("4915510{instance}01{n:02}")
}

#[derive(Clone)]
pub struct Client {
    pub url: Arc<Mutex<String>>,
    pub accepted: Accepted,
    pub stop: Arc<AtomicBool>,
    pub number: Arc<AtomicUsize>,
    pub seed: u64,
}

impl Client {
    /// Sends until it is stopped.
    pub async fn run(self, instance: usize, chat_number: usize) {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        let seed = self.seed * 64 + (instance * (CHATS + 1) + chat_number) as u64;
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let mut send = Send {
                number,
                phone: chat(instance, chat_number),
                text: format!("t{number}"),
                class: CLASSES[random.random_range(0..CLASSES.len())],
                id: String::new(),
                expected: Expected::Sent,
                due: None,
            };
            if chat_number == CHATS {
                let now = Timestamp::now();
                match random.random_range(0..3) {
                    0 => (send.phone, send.expected) = (NOBODY.to_owned(), Expected::Hopeless),
                    1 => (send.due, send.expected) = (Some(now.after(Duration::from_secs(3_600))), Expected::Cancelled),
                    _ => send.due = Some(now.after(Duration::from_millis(random.random_range(0..2_000)))),
                }
            }
            self.send(&http, INSTANCES[instance], send).await;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    async fn send(&self, http: &reqwest::Client, instance: &str, mut send: Send) {
        let correlation = format!("c{}", send.number);
        let mut body = json!({ "phone": send.phone, "message": send.text, "priority": send.class });
        if let Some(due) = send.due {
            body["send_at"] = json!(due.rfc3339());
        }
        let told = self.insist(http, &format!("/instances/{instance}/messages/text"), &correlation, &body).await;
        send.id = told["message_id"].as_str().unwrap().to_owned();
        let cancelled = send.expected == Expected::Cancelled;
        self.accepted.lock().unwrap().insert(correlation.clone(), send);
        if cancelled {
            let path = format!("/instances/{instance}/jobs/{correlation}/cancel");
            self.insist(http, &path, &correlation, &json!({})).await;
        }
    }

    /// Repeats one request, whatever happens to the gateway, until it is answered.
    async fn insist(&self, http: &reqwest::Client, path: &str, correlation: &str, body: &Value) -> Value {
        loop {
            let url = self.url.lock().unwrap().clone();
            let request = http
                .post(format!("{url}{path}"))
                .header("x-api-key", crate::support::KEY)
                .header("x-async", "true")
                .header("x-correlation-id", correlation)
                .header("idempotency-key", correlation)
                .json(body);
            if let Ok(answer) = request.send().await {
                let status = answer.status();
                // a cancelled job cannot be cancelled again: the answer before was lost
                let again = status == 409 && path.ends_with("/cancel");
                if status.is_success() || again {
                    if let Ok(body) = answer.json::<Value>().await {
                        return body;
                    }
                } else {
                    assert!(status.is_server_error(), "{status}: {}", answer.text().await.unwrap_or_default());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
