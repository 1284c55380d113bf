//! `kero demo`: the main job from end to end on one machine, without a phone, over the same HTTP that clients use.
//!
//! Every step prints what was really sent and answered, and its time. A step that fails ends the demo with an error
//! that names it.

mod client;
mod qr;
mod sink;
mod stage;
mod verify;

use crate::cli;
use crate::config::Config;
use crate::shutdown::Signals;
use anyhow::{Context, bail, ensure};
use client::Client;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sink::Received;
use stage::Stage;
use std::time::Duration;

/// The account that Kero links to, and the contact that answers.
const OWN_PHONE: &str = "4915112345678";
const CONTACT: &str = "4915787654321";
/// How long anything on loopback may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the demo; with `--keep` it serves until a signal comes.
pub async fn run(config: Config, flags: &cli::Demo) -> anyhow::Result<()> {
    let signals = Signals::catch()?;
    let stage = stage::build(config).await?;
    let result = tokio::time::timeout(PATIENCE * 4, play(&stage)).await;
    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("the demo took longer than {:?}", PATIENCE * 4)));
    match (result, flags.keep) {
        (Ok(()), true) => keep(stage, signals).await,
        (result, _) => {
            let stopped = stage.tear_down().await;
            result?;
            stopped?;
            println!("\nDone. The same with your own phone: kero serve, then open http://127.0.0.1:8080/docs");
            Ok(())
        }
    }
}

/// The steps, in order.
async fn play(stage: &Stage) -> anyhow::Result<()> {
    let client = Client::new(stage.running.address(), stage.key.expose_secret(), stage.started)?;
    let id = stage.instance_id.as_str();
    let steps = Steps { client: &client, stage, id };

    client.step("Create an instance: one WhatsApp account");
    steps.create().await.context("step 1, create an instance, failed")?;
    client.step("Set its webhook, with a secret for the signatures");
    steps.webhook().await.context("step 2, set the webhook, failed")?;
    client.step("Connect it and show the QR code");
    let code = steps.show_qr().await.context("step 3, connect and show the QR code, failed")?;
    client.step("Scan the code with the (simulated) phone");
    steps.scan(&code).await.context("step 4, scan the code, failed")?;
    client.step("Send a text; the answer comes when WhatsApp has acknowledged it");
    let text = "Hello from Kero";
    let message_id = steps.send(text).await.context("step 5, send a text, failed")?;
    client.step("The contact decrypts it and answers; the answer arrives as a signed webhook");
    steps.receive(text, &message_id).await.context("step 6, receive the contact's answer, failed")?;
    client.step("Send asynchronously: 202 at once, the end is reported by exactly one message_ack");
    steps.send_async().await.context("step 7, send asynchronously, failed")
}

struct Steps<'a> {
    client: &'a Client,
    stage: &'a Stage,
    id: &'a str,
}

impl Steps<'_> {
    async fn create(&self) -> anyhow::Result<()> {
        let body = json!({"instance_id": self.id, "name": "Demo"});
        let created = self.client.post("/instances", Some(&body), &[]).await?;
        ensure!(created.status == 201 || created.status == 200, "expected 201, got {}", created.status);
        Ok(())
    }

    async fn webhook(&self) -> anyhow::Result<()> {
        let body = json!({
            "url": self.stage.sink.url(), "events": ["message", "message_ack"],
            "secret": self.stage.secret, "enabled": true,
        });
        self.client.post(&format!("/instances/{}/webhook", self.id), Some(&body), &[]).await?.ok().map(drop)
    }

    async fn show_qr(&self) -> anyhow::Result<String> {
        self.client.post(&format!("/instances/{}/connect", self.id), None, &[]).await?.ok()?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let path = format!("/instances/{}/qr", self.id);
        loop {
            let reply = self.client.quiet_get(&path).await?;
            if let (200, Some(code)) = (reply.status, text_at(&reply.body, &["/code", "/data/code"])) {
                self.client.show_reply(&shortened(&reply.body));
                println!("{}", qr::render(code)?);
                return Ok(code.to_owned());
            }
            ensure!(tokio::time::Instant::now() < deadline, "no QR code came: {}", reply.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn scan(&self, code: &str) -> anyhow::Result<()> {
        let paired = self.stage.simulator.scan_qr(code, Some(OWN_PHONE)).await?;
        self.client.note(&format!("the phone {} linked device {}", paired.phone, paired.device));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let path = format!("/instances/{}/status", self.id);
        loop {
            let reply = self.client.quiet_get(&path).await?;
            if text_at(&reply.body, &["/status"]) == Some("connected") {
                self.client.show_request("GET", &path, None, &[]);
                self.client.show_reply(&reply.body);
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "it did not become connected: {}", reply.body);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&self, text: &str) -> anyhow::Result<String> {
        let body = json!({"phone": CONTACT, "message": text});
        let sent = self.client.post("/messages/text", Some(&body), &[("X-Instance-Id", self.id)]).await?.ok()?;
        ensure!(sent["success"] == true && sent["status"] == "sent", "the answer does not say sent");
        text_at(&sent, &["/message_id"]).map(str::to_owned).context("the answer has no message_id")
    }

    async fn receive(&self, text: &str, message_id: &str) -> anyhow::Result<()> {
        let received = self.wait_for("the contact's answer", |envelope| {
            envelope["event"] == "message" && envelope["data"].to_string().contains(text)
        });
        let received = received.await?;
        let decrypted = self.stage.simulator.received_texts(CONTACT).await;
        let arrived = decrypted.iter().find(|seen| seen.id == message_id).context("the contact never decrypted it")?;
        ensure!(arrived.text == text, "the contact decrypted another text: {:?}", arrived.text);
        self.client.note(&format!("the contact's phone decrypted {:?}, id {}", arrived.text, arrived.id));
        self.show(&received)
    }

    async fn send_async(&self) -> anyhow::Result<()> {
        let body = json!({"phone": CONTACT, "message": "And one through the queue"});
        let headers = [("X-Instance-Id", self.id), ("X-Async", "true")];
        let reply = self.client.post("/messages/text", Some(&body), &headers).await?;
        ensure!(reply.status == 202, "expected 202, got {}", reply.status);
        let correlation = reply.body["correlation_id"].clone();
        ensure!(correlation.is_string(), "the answer has no correlation_id");
        let received = self.wait_for("message_ack", |envelope| {
            envelope["event"] == "message_ack" && envelope["data"]["correlation_id"] == correlation
        });
        let received = received.await?;
        self.show(&received)?;
        let data = &received.envelope["data"];
        ensure!(data["status"] == "sent", "message_ack says {}", data["status"]);
        ensure!(data["message_id"] == reply.body["message_id"], "message_ack names another message");
        Ok(())
    }

    /// The first webhook that fits. Earlier ones that do not are part of the story and only counted.
    async fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Received> {
        let wait = async {
            loop {
                let received = self.stage.sink.next().await?;
                if fits(&received.envelope) {
                    return Ok(received);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(received) => received,
            Err(_) => bail!("{what} did not arrive as a webhook within {PATIENCE:?}"),
        }
    }

    /// Prints a webhook with the check of its signatures, which must hold.
    fn show(&self, received: &Received) -> anyhow::Result<()> {
        self.client.show_webhook(received);
        verify::check(received, self.stage.secret.as_bytes())?;
        self.client.note("X-Webhook-Signature: HMAC-SHA256 of the body verifies");
        self.client.note("webhook-signature: Standard Webhooks (id.timestamp.body) verifies");
        Ok(())
    }
}

/// The first text at one of these JSON pointers.
fn text_at<'a>(value: &'a Value, pointers: &[&str]) -> Option<&'a str> {
    pointers.iter().find_map(|pointer| value.pointer(pointer)?.as_str())
}

/// The same JSON with long texts (a PNG in base64) cut, for the eye.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > 200 => {
            Value::String(format!("{}… ({} characters)", text.chars().take(60).collect::<String>(), text.len()))
        }
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shortened(value))).collect(),
        other => other.clone(),
    }
}

/// `--keep`: tells where everything is, and serves until a signal comes.
async fn keep(mut stage: Stage, mut signals: Signals) -> anyhow::Result<()> {
    let base = format!("http://{}", stage.running.address());
    println!("\nStill running; Ctrl-C ends it.");
    println!("  Swagger UI    {base}/docs");
    println!("  API key       {}", stage.key.expose_secret());
    println!("  instance      {}", stage.instance_id);
    println!("  simulator     {}/admin", stage.simulator.http_url());
    println!(
        "  send again    curl -X POST {base}/messages/text -H 'X-API-Key: {}' -H 'X-Instance-Id: {}' \\",
        stage.key.expose_secret(),
        stage.instance_id
    );
    println!(
        "                  -H 'Content-Type: application/json' -d '{{\"phone\":\"{CONTACT}\",\"message\":\"hi\"}}'"
    );
    let ended = tokio::select! {
        _ = signals.next() => Ok(()),
        ended = stage.running.http_ended() => ended,
    };
    let stopped = stage.tear_down().await;
    ended.and(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        let cut = shortened(&json!({"code": "short", "image": "x".repeat(500), "n": 1}));
        assert_eq!(cut["code"], "short");
        assert!(cut["image"].as_str().unwrap().ends_with("… (500 characters)"));
        assert_eq!(cut["n"], 1);
    }
}
