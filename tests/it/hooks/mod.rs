//! Plugins in the running gateway: real process, real guests, simulated WhatsApp, a webhook receiver.

mod abuse;
mod admin;
mod attacks;
mod author;
mod bundled;
mod capabilities;
mod chains;
mod crash;
mod delivery;
mod ledger;
mod loops;
mod metrics;
mod patience;
mod shaped;
mod suspended;
mod tools;
mod transform;

use crate::support::{Answer, Kero, Options, Sink, person, simulator};
use kero_simulator::{Script, Simulator};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

pub const ACCOUNT: &str = "491551000500";
pub const JANE: &str = "491551000501";
pub const JOHN: &str = "491551000502";

/// Where `plugins/build` puts its work.
pub fn dist() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("plugins/dist")
}

pub fn options() -> Options {
    assert!(dist().join("runner-js.wasm").exists(), "plugins/dist is empty: run plugins/build first");
    Options::default()
        .env("KERO_HOOKS__DIST_DIR", dist().display().to_string())
        // an unoptimised build on a busy machine takes its time to compile the runner of scripts
        .env("KERO_HTTP__REQUEST_TIMEOUT", "300s")
        .env("KERO_HOOKS__COMPILE_TIMEOUT", "240s")
        .env("KERO_DELIVERY__SCHEDULE", "[\"100ms\",\"200ms\",\"500ms\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\"]")
}

/// A gateway with one connected instance, `a`, whose events all go to the sink.
pub struct Stage {
    pub simulator: Simulator,
    pub sink: Sink,
    pub kero: Kero,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(options()).await
    }

    pub async fn with(options: Options) -> Self {
        let (simulator, sink) = (simulator().await, Sink::start().await);
        let kero = Kero::start_with(&simulator, options).await;
        let stage = Self { simulator, sink, kero };
        stage.instance("a", ACCOUNT).await;
        person(&stage.simulator, JANE, Script::Silent);
        person(&stage.simulator, JOHN, Script::Silent);
        stage
    }

    pub async fn instance(&self, id: &str, phone: &str) {
        self.kero.create(id).await;
        let webhook = json!({ "url": self.sink.url, "events": ["all"] });
        self.kero.post(&format!("/instances/{id}/webhook"), webhook).await.expect(200);
        self.kero.pair(&self.simulator, id, phone).await;
    }

    /// A person writes to the account.
    pub async fn receive(&self, from: &str, text: &str) {
        self.simulator.send_text(from, ACCOUNT, text).await.expect("the simulator sends");
    }

    /// The text of message events that the sink got, each event once.
    pub fn texts(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let events = self.sink.events("message");
        events
            .iter()
            .filter(|event| seen.insert(event["id"].to_string()))
            .map(|event| event["data"]["text"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub async fn wait_text(&self, text: &str) -> Value {
        let found = |event: &Value| event["event"] == "message" && event["data"]["text"] == text;
        self.sink.wait_for(text, found).await.1
    }

    /// The instance's deliveries in this state.
    pub async fn deliveries(&self, state: &str) -> Vec<Value> {
        let page = self.kero.get(&format!("/instances/a/deliveries?state={state}&limit=1000")).await.expect(200);
        page["data"].as_array().unwrap().clone()
    }

    /// The texts that a person got, each message once.
    pub async fn got(&self, person: &str) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let texts = self.simulator.received_texts(person).await;
        texts.into_iter().filter(|it| seen.insert(it.id.clone())).map(|it| it.text).collect()
    }

    /// The plugin's calls, newest first.
    pub async fn calls(&self, name: &str) -> Vec<Value> {
        let page = self.kero.get(&format!("/plugins/{name}/calls?limit=1000")).await.expect(200);
        page["data"].as_array().unwrap().clone()
    }
}

/// `plugin.toml` of a script; `more` begins with members and may go on with tables.
pub fn manifest(name: &str, version: &str, kind: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\napi = \"kero:plugin@0.1\"\nentry = \"hook.js\"\nkind = \"{kind}\"\n{more}\n"
    )
}

/// The same for a component or a core module.
pub fn wasm_manifest(name: &str, more: &str) -> String {
    manifest(name, "1", "transform", more).replace("hook.js", "hook.wasm")
}

pub async fn upload(kero: &Kero, manifest: &str, artefact: &[u8]) -> Answer {
    upload_form(kero, &[("manifest", manifest.as_bytes()), ("artefact", artefact)], &[]).await
}

pub async fn upload_form(kero: &Kero, fields: &[(&str, &[u8])], headers: &[(&str, &str)]) -> Answer {
    let mut body = Vec::new();
    for (name, bytes) in fields {
        body.extend_from_slice(
            format!("--kero\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--kero--\r\n");
    let mut all = vec![("content-type", "multipart/form-data; boundary=kero")];
    all.extend_from_slice(headers);
    kero.request(Method::POST, "/plugins", &all, Some(body)).await
}

/// Uploads and activates, giving what is asked for.
pub async fn install(kero: &Kero, manifest: &str, artefact: &[u8]) -> Value {
    let uploaded = upload(kero, manifest, artefact).await.expect(201);
    activate(kero, &uploaded["data"]).await
}

pub async fn activate(kero: &Kero, uploaded: &Value) -> Value {
    let path = format!(
        "/plugins/{}/versions/{}/activate",
        uploaded["name"].as_str().unwrap(),
        uploaded["version"].as_str().unwrap()
    );
    kero.post(&path, json!({ "grants": uploaded["grants_asked"] })).await.expect(200)
}

/// A core module for world `transform`, as a compiler would make it; `handle` is the body, `more` further definitions.
pub fn module(more: &str, handle: &str) -> Vec<u8> {
    let export = "kero:plugin/on-event@0.1.0#handle";
    module_for("transform", more, &format!(r#"(func (export "{export}") (param i32) (result i32) {handle})"#))
}

pub fn module_for(world: &str, more: &str, exports: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          {more}
          (memory (export "memory") 2)
          (global $top (mut i32) (i32.const 65536))
          (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (block $fits (loop $more
              (br_if $fits (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
              (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
              (br $more)))
            (local.get $at))
          {exports})"#
    );
    let mut resolve = wit_parser::Resolve::default();
    let wit = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("plugins/wit/0.1.0");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    module
}
