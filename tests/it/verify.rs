//! Webhooks as others verify them: the published Standard Webhooks libraries of two languages, and the two signatures
//! that are older.

use crate::support::{Kero, Received, Sink, person, simulator};
use base64::prelude::*;
use hmac::{Hmac, KeyInit, Mac};
use kero_simulator::Script;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The npm library in a Node process.
struct JavaScript {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl JavaScript {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify");
        assert!(
            folder.join("node_modules/standardwebhooks").exists(),
            "the verifier is not installed: run tests/run, or `npm ci` in tests/verify (Debian packages: nodejs, npm)"
        );
        let mut child = Command::new("node")
            .current_dir(&folder)
            .arg("verify.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts (Debian package: nodejs)");
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, _child: child }
    }

    /// The id of the event, or why it is refused.
    async fn verify(&mut self, secret: &str, received: &Received) -> Result<String, String> {
        let body = BASE64_STANDARD.encode(&received.body);
        let line = json!({ "secret": secret, "headers": received.headers, "body": body });
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let answer: Value = serde_json::from_str(&self.output.next_line().await.unwrap().expect("an answer")).unwrap();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["id"].as_str().expect("an id").to_owned()),
        }
    }
}

/// The crate.
fn rust(secret: &str, received: &Received) -> Result<(), String> {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.headers[name].parse().unwrap());
    }
    let verifier = standardwebhooks::Webhook::new(secret).unwrap();
    verifier.verify(&received.body, &headers).map_err(|error| error.to_string())
}

fn hex_hmac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_of_two_languages_accept_what_is_genuine_and_nothing_else() {
    let simulator = simulator().await;
    let kero = Kero::start(&simulator).await;
    let sink = Sink::start().await;
    kero.create("a").await;
    kero.post("/instances/a/webhook", json!({ "url": sink.url, "events": ["all"], "secret": SECRET }))
        .await
        .expect(200);
    kero.pair(&simulator, "a", "491516000001").await;
    person(&simulator, "491516000002", Script::Silent);
    for text in ["plain", "ümläut 😀 \u{202e}", "</script>\"\\\n\t"] {
        simulator.send_text("491516000002", "491516000001", text).await.unwrap();
        sink.wait_for("the message", |json| json["data"]["text"] == text).await;
    }
    let mut javascript = JavaScript::start();
    let all = sink.received();
    assert!(all.len() > 5, "{:?}", sink.kinds());
    for received in &all {
        let event = received.json();
        rust(SECRET, received).expect("the Rust library accepts it");
        let id = javascript.verify(SECRET, received).await.expect("the JavaScript library accepts it");
        assert_eq!(
            (id.as_str(), received.headers["webhook-id"].as_str()),
            (event["id"].as_str().unwrap(), id.as_str())
        );
        let hex = hex_hmac(SECRET, &received.body);
        assert_eq!(received.headers["x-webhook-signature"], hex);
        assert_eq!(received.headers["x-hub-signature-256"], format!("sha256={hex}"));
    }

    // whatever is changed on the way is refused
    let genuine = &all[all.len() - 1];
    let mut forged = vec![(OTHER, genuine.clone())];
    let mut change = |what: &dyn Fn(&mut Received)| {
        let mut received = genuine.clone();
        what(&mut received);
        forged.push((SECRET, received));
    };
    change(&|received| *received.body.iter_mut().rev().find(|byte| byte.is_ascii_digit()).unwrap() ^= 1);
    change(&|received| drop(received.headers.insert("webhook-id".into(), uuid::Uuid::now_v7().to_string())));
    change(&|received| {
        let timestamp: i64 = received.headers["webhook-timestamp"].parse().unwrap();
        received.headers.insert("webhook-timestamp".into(), (timestamp + 1).to_string());
    });
    change(&|received| drop(received.headers.insert("webhook-timestamp".into(), "1".into())));
    change(&|received| drop(received.headers.insert("webhook-signature".into(), "v1,AAAA".into())));
    for (secret, received) in forged {
        assert!(rust(secret, &received).is_err(), "{received:?}");
        assert!(javascript.verify(secret, &received).await.is_err(), "{received:?}");
    }
}
