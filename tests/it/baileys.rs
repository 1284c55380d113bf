//! A foreign client (Baileys, npm) and an instance of Kero write to each other, alone and in a group.

use crate::support::{Kero, Sink, simulator};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

struct Baileys {
    _child: Child,
    _auth: TempDir,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Baileys {
    async fn start(address: &str, phone: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/baileys");
        assert!(
            folder.join("node_modules/baileys").exists(),
            "Baileys is not installed: run tests/run, or `npm ci` in tests/baileys (Debian packages: nodejs, npm)"
        );
        let auth = TempDir::new().unwrap();
        let mut child = Command::new("node")
            .current_dir(&folder)
            .args(["client.mjs", address, phone])
            .arg(auth.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts (Debian package: nodejs)");
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, _child: child, _auth: auth }
    }

    async fn tell(&mut self, command: Value) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    /// The next line that `pick` likes.
    async fn wait<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(found) = pick(&line) {
                    return Some(found);
                }
                seen.push(line);
            }
            None
        });
        found.await.ok().flatten().unwrap_or_else(|| panic!("Baileys did not say: {what}; it said {seen:#?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_and_kero_write_to_each_other_alone_and_in_a_group() {
    let simulator = simulator().await;
    let (kero, sink) = (Kero::start(&simulator).await, Sink::start().await);
    kero.post("/instances", json!({ "instance_id": "a", "webhook_url": sink.url })).await.expect(201);
    kero.pair(&simulator, "a", "491531000001").await;
    let mut baileys = Baileys::start(&simulator.addr().to_string(), "491531000002").await;
    baileys.wait("open", |line| line.get("open").cloned()).await;

    // Kero to Baileys
    let sent = kero.send_text("a", "491531000002", "from Kero").await.expect(200);
    let got = baileys
        .wait("the text", |line| (line["message"]["text"] == "from Kero").then(|| line["message"].clone()))
        .await;
    assert_eq!(got["id"], sent["message_id"]);
    sink.wait_for("Baileys' delivery receipt", |event| {
        event["event"] == "receipt" && event["data"]["message_id"] == sent["message_id"]
    })
    .await;

    // Baileys to Kero
    baileys.tell(json!({ "send": { "to": "491531000001@s.whatsapp.net", "text": "from Baileys" } })).await;
    let id = baileys.wait("sent", |line| line["sent"].as_str().map(str::to_owned)).await;
    let (_, event) = sink
        .wait_for("Baileys' text", |event| event["event"] == "message" && event["data"]["text"] == "from Baileys")
        .await;
    assert_eq!(event["data"]["message_id"], id);
    assert_eq!(event["data"]["sender"]["phone"], "491531000002", "{event}");
    assert!(event["data"]["sender"]["lid"].as_str().is_some_and(|lid| lid.ends_with("@lid")), "{event}");

    // in a group, both ways
    baileys.tell(json!({ "createGroup": { "subject": "both", "members": ["491531000001@s.whatsapp.net"] } })).await;
    let group = baileys.wait("group", |line| line["group"].as_str().map(str::to_owned)).await;
    baileys.tell(json!({ "send": { "to": group, "text": "group from Baileys" } })).await;
    let id = baileys.wait("sent", |line| line["sent"].as_str().map(str::to_owned)).await;
    let (_, event) = sink
        .wait_for("the group text", |event| {
            event["event"] == "message" && event["data"]["text"] == "group from Baileys"
        })
        .await;
    assert_eq!(event["data"]["message_id"], id);
    assert_eq!(event["data"]["is_group"], true);
    assert_eq!(event["data"]["to"], group);
    assert_eq!(event["data"]["sender"]["phone"], "491531000002", "{event}");
    let sent = kero.send_text("a", &group, "group from Kero").await.expect(200);
    let got = baileys
        .wait("the group text", |line| (line["message"]["text"] == "group from Kero").then(|| line["message"].clone()))
        .await;
    assert_eq!(got["id"], sent["message_id"]);
    assert_eq!(got["chat"], group);
}
