//! Uploads and administration: what is refused, what an answer says, reload under load.

use super::{JANE, Stage, activate, install, manifest, module, options, upload, upload_form, wasm_manifest};
use crate::support::{Kero, simulator};
use reqwest::Method;
use serde_json::{Value, json};

const PASS: &str = "export default (event) => event;";
const RAW: &str = "on = [\"message\"]\non_error = \"raw\"";

async fn put(kero: &Kero, path: &str, body: Value) -> crate::support::Answer {
    kero.request(Method::PUT, path, &[], Some(body.to_string().into_bytes())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_answer_what_they_are_and_refuse_the_rest() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    // with its cases
    let event = br#"{"event": "message", "data": {"text": "hi", "from": "1@lid"}}"#;
    let fields = |expect: &'static [u8]| {
        vec![
            ("artefact", PASS.as_bytes().to_vec()),
            ("cases/first/event.json", event.to_vec()),
            ("cases/first/verdict.json", expect.to_vec()),
        ]
    };
    let send = async |manifest: &str, expect: &'static [u8]| {
        let mut all = vec![("manifest", manifest.as_bytes().to_vec())];
        all.extend(fields(expect));
        let all: Vec<(&str, &[u8])> = all.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        upload_form(&kero, &all, &[]).await
    };
    let asked = manifest("pass", "1", "transform", &format!("{RAW}\n[grants]\nkv = \"1KiB\""));
    let failed = send(&asked, br#"{"verdict": "drop"}"#).await.problem(422, "plugin-tests-failed");
    assert!(failed["cases"][0]["failures"][0].as_str().unwrap().contains("drop"), "{failed}");
    kero.get("/plugins/pass").await.problem(404, "plugin-not-found");
    let uploaded = send(&asked, br#"{"verdict": "pass"}"#).await;
    assert_eq!(uploaded.header("location").as_deref(), Some("/plugins/pass"));
    let data = uploaded.expect(201)["data"].clone();
    assert_eq!(data["cases"], json!([{ "case": "first", "failures": [] }]));
    assert_eq!(data["grants_asked"], json!({ "kv": 1024 }));
    assert_eq!(data["bytes"], PASS.len());
    assert_eq!(data["sha256"].as_str().unwrap().len(), 64);
    assert!(data["compile_ms"].as_f64().unwrap() > 0.0 && !data["imports"].as_array().unwrap().is_empty());
    // the same again is the same; another artefact of the version is not
    assert_eq!(send(&asked, br#"{"verdict": "pass"}"#).await.expect(201)["data"], data);
    upload(&kero, &asked, b"export default () => null;").await.problem(409, "plugin-version-exists");

    let refused = async |manifest: &str, artefact: &[u8], says: &str| {
        let problem = upload(&kero, manifest, artefact).await.problem(422, "plugin-invalid");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{says}: {problem}");
    };
    let script = |more: &str| manifest("x", "1", "transform", more);
    refused(&script("on = [\"message\"]"), PASS.as_bytes(), "on_error").await;
    refused(&script("on = [\"nonsense\"]\non_error = \"raw\""), PASS.as_bytes(), "nonsense").await;
    refused(&script(RAW), b"export default (event => ;", "hook.js:1").await;
    refused(&script(RAW), b"export const other = 1;", "export default function").await;
    refused(&wasm_manifest("x", RAW), b"MZ garbage", "not WebAssembly").await;
    refused(&wasm_manifest("x", RAW), &wat::parse_str("(module)").unwrap(), "WIT section").await;
    let component = wat::parse_str(
        r#"(component
             (import "wasi:sockets/tcp@0.2.6" (instance (export "f" (func))))
             (core module $m (func (export "f") (param i32) (result i32) unreachable)))"#,
    );
    refused(&wasm_manifest("x", RAW), &component.unwrap(), "exports neither").await;
    let alien = module(r#"(import "env" "secret" (func $secret))"#, "unreachable");
    refused(&wasm_manifest("x", RAW), &alien, "secret").await;
    // machine code is never taken
    let mut native = b"\x7fELF".to_vec();
    native.resize(4096, 0);
    refused(&wasm_manifest("x", RAW), &native, "").await;
    upload(&kero, &wasm_manifest("x", RAW), &vec![0; (4 << 20) + 1]).await.problem(413, "payload-too-large");
    upload(&kero, &wasm_manifest("x", RAW), &vec![0; 12 << 20]).await.problem(413, "payload-too-large");
    kero.get("/plugins/x").await.problem(404, "plugin-not-found");
    let names: Vec<Value> = kero.get("/plugins").await.expect(200)["data"].as_array().unwrap().clone();
    assert_eq!(names.len(), 1);

    upload_form(&kero, &[("manifest", asked.as_bytes())], &[]).await.problem(400, "validation-failed");
    upload_form(&kero, &[("nonsense", b"x")], &[]).await.problem(400, "validation-failed");
    kero.post("/plugins", json!({})).await.problem(415, "unsupported-media-type");
    upload_form(&kero, &[("bundled", b"nobody")], &[]).await.problem(404, "plugin-not-found");
}

/// What a gateway needs and does not find, it names, with the command that makes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_runner_is_named_with_its_command() {
    let simulator = simulator().await;
    let empty = tempfile::TempDir::new().unwrap();
    let options = options().env("KERO_HOOKS__DIST_DIR", empty.path().display().to_string());
    let kero = Kero::start_with(&simulator, options).await;
    for answer in [
        upload(&kero, &manifest("x", "1", "transform", RAW), PASS.as_bytes()).await,
        upload_form(&kero, &[("bundled", b"redact")], &[]).await,
    ] {
        let problem = answer.problem(409, "plugin-file-missing");
        assert!(problem["detail"].as_str().unwrap().contains("plugins/build"), "{problem}");
    }
    // what needs no runner works
    install(&kero, &wasm_manifest("x", RAW), &module("", "i32.const 0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_instance_may_do_nothing_with_plugins() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    kero.create("a").await;
    let output = kero.command().args(["key", "new", "--instance", "a"]).output().await.unwrap();
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let expected = (403, "forbidden");
    for (method, path) in [
        (Method::GET, "/plugins"),
        (Method::GET, "/plugins/x"),
        (Method::DELETE, "/plugins/x"),
        (Method::GET, "/plugins/x/versions"),
        (Method::POST, "/plugins/x/rollback"),
        (Method::POST, "/plugins/x/suspend"),
        (Method::POST, "/plugins/x/resume"),
        (Method::POST, "/plugins/x/deactivate"),
        (Method::GET, "/plugins/x/config"),
        (Method::GET, "/plugins/x/calls"),
    ] {
        let answer = kero.request(method, path, &[("x-api-key", &key)], None).await;
        answer.problem(expected.0, expected.1);
    }
    for (method, path, body) in [
        (Method::POST, "/plugins/x/versions/1/activate", json!({})),
        (Method::POST, "/plugins/x/test", json!({ "event": {} })),
        (Method::PUT, "/plugins/x/grants", json!({ "grants": {} })),
        (Method::PUT, "/plugins/x/config", json!({ "config": {} })),
    ] {
        let body = Some(body.to_string().into_bytes());
        kero.request(method, path, &[("x-api-key", &key)], body).await.problem(expected.0, expected.1);
    }
    let fields = [("manifest", &b"x"[..]), ("artefact", b"x")];
    upload_form(&kero, &fields, &[("x-api-key", &key)]).await.problem(expected.0, expected.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_settings_and_grants() {
    let stage = Stage::new().await;
    let kero = &stage.kero;
    let schema = "[config.schema]\ntype = \"object\"\nrequired = [\"mark\"]\nadditionalProperties = false\n\
                  [config.schema.properties]\nmark = { type = \"string\" }\ntoken = { type = \"string\", writeOnly = true }";
    let script = |version: &str| {
        format!(
            "export default (e) => {{ e.data.by = '{version} ' + kero.config.mark + ' ' + (kero.config.token ?? '-').length; return e; }}"
        )
    };
    let asked = |version: &str| manifest("shop", version, "transform", &format!("{RAW}\n{schema}"));
    let one = upload(kero, &asked("1"), script("1").as_bytes()).await.expect(201);
    let refused = kero.post("/plugins/shop/versions/1/activate", json!({})).await.problem(409, "plugin-config-invalid");
    assert!(refused.to_string().contains("mark"), "{refused}");
    kero.post("/plugins/shop/versions/9/activate", json!({})).await.problem(404, "plugin-version-not-found");
    kero.post_empty("/plugins/shop/suspend").await.problem(409, "plugin-not-active");
    kero.post_empty("/plugins/shop/rollback").await.problem(409, "plugin-not-active");

    put(kero, "/plugins/shop/config", json!({ "config": { "mark": 7 } })).await.problem(400, "validation-failed");
    let secret = "token-that-must-not-come-out";
    let set =
        put(kero, "/plugins/shop/config", json!({ "config": { "mark": "m", "token": secret } })).await.expect(200);
    assert_eq!(set["data"], json!({ "config": { "mark": "m" }, "secrets": ["token"] }));
    activate(kero, &one["data"]).await;
    stage.receive(JANE, "first").await;
    assert_eq!(stage.wait_text("first").await["data"]["by"], format!("1 m {}", secret.len()));
    // a secret stays when it is not given, and goes with null
    put(kero, "/plugins/shop/config", json!({ "config": { "mark": "n" } })).await.expect(200);
    stage.receive(JANE, "second").await;
    assert_eq!(stage.wait_text("second").await["data"]["by"], format!("1 n {}", secret.len()));
    let gone = put(kero, "/plugins/shop/config", json!({ "config": { "mark": "n", "token": null } })).await.expect(200);
    assert_eq!(gone["data"]["secrets"], json!([]));

    let two = upload(kero, &asked("2"), script("2").as_bytes()).await.expect(201);
    let view = activate(kero, &two["data"]).await;
    assert_eq!((&view["data"]["active_version"], &view["data"]["previous_version"]), (&"2".into(), &"1".into()));
    let versions = kero.get("/plugins/shop/versions").await.expect(200);
    assert_eq!(versions["data"][0]["version"], "2");
    assert_eq!((&versions["data"][0]["active"], &versions["data"][1]["active"]), (&true.into(), &false.into()));
    stage.receive(JANE, "third").await;
    assert_eq!(stage.wait_text("third").await["data"]["by"], "2 n 1");
    let back = kero.post_empty("/plugins/shop/rollback").await.expect(200);
    assert_eq!(back["data"]["active_version"], "1");
    stage.receive(JANE, "fourth").await;
    assert_eq!(stage.wait_text("fourth").await["data"]["by"], "1 n 1");

    // it is all there after a restart
    let mut stage = stage;
    put(&stage.kero, "/plugins/shop/config", json!({ "config": { "mark": "r", "token": secret } })).await.expect(200);
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    stage.receive(JANE, "fifth").await;
    assert_eq!(stage.wait_text("fifth").await["data"]["by"], format!("1 r {}", secret.len()));
    let kero = &stage.kero;
    for path in ["/plugins", "/plugins/shop", "/plugins/shop/config", "/plugins/shop/versions", "/plugins/shop/calls"] {
        assert!(!kero.get(path).await.text().contains(secret), "{path}");
    }
    assert!(!kero.log().contains(secret));
    kero.post_empty("/plugins/shop/deactivate").await.expect(200);
    stage.receive(JANE, "sixth").await;
    assert!(stage.wait_text("sixth").await["data"].get("by").is_none());
    kero.delete("/plugins/shop").await.expect(200);
    kero.delete("/plugins/shop").await.problem(404, "plugin-not-found");
    put(kero, "/plugins/shop/grants", json!({ "grants": {} })).await.problem(404, "plugin-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_does_nothing() {
    let stage = Stage::new().await;
    let kero = &stage.kero;
    let script = r#"
export default async function handle(event) {
  kero.kv.set('k', 'v');
  kero.send.text(event.message.chat, 'hello');
  const answer = await fetch('https://api.example.com/x');
  console.info('asked');
  event.data.status = answer.status;
  return event;
}"#;
    let more = format!("{RAW}\n[grants]\nkv = \"1KiB\"\nhttp = [\"https://api.example.com/*\"]\nsend = {{}}");
    upload(kero, &manifest("trial", "1", "transform", &more), script.as_bytes()).await.expect(201);
    let event = json!({ "event": "message", "data": { "text": "hi", "chat": "491701234567@s.whatsapp.net" } });
    let grants = json!({ "kv": 1024, "http": ["https://api.example.com/*"], "send": {} });
    let body =
        json!({ "event": event, "grants": grants, "http": [{ "url": "https://api.example.com/x", "status": 204 }] });
    let tried = kero.post("/plugins/trial/test", body).await.expect(200)["data"].clone();
    assert_eq!(tried["outcome"]["data"]["status"], 204, "{tried}");
    assert_eq!(tried["diff"], json!([{ "op": "add", "path": "/status", "value": 204 }]));
    assert_eq!(tried["outcome"]["effects"]["kv"][0]["key"], "k");
    assert_eq!(tried["outcome"]["effects"]["sends"][0]["text"], "hello");
    assert_eq!(tried["requests"][0]["url"], "https://api.example.com/x");
    assert_eq!(tried["logs"][0]["text"], "asked");
    // without grants the same call is denied, and the answer names what is missing
    let tried = kero.post("/plugins/trial/test", json!({ "event": event })).await.expect(200)["data"].clone();
    assert!(tried["error"].as_str().unwrap().contains("grant `kv` is missing"), "{tried}");
    assert_eq!((&tried["denied"], &tried["diff"]), (&json!(["kv"]), &json!([])));
    // an event of the journal
    stage.receive(JANE, "stored").await;
    let stored = stage.wait_text("stored").await;
    let body = json!({ "event_id": stored["id"], "grants": grants, "http": [{ "url": "https://api.example.com/x" }] });
    let tried = kero.post("/plugins/trial/test", body).await.expect(200)["data"].clone();
    assert_eq!(tried["outcome"]["data"]["text"], "stored", "{tried}");
    let unknown = json!({ "event_id": "00000000-0000-7000-8000-000000000000" });
    kero.post("/plugins/trial/test", unknown).await.problem(404, "event-not-found");
    kero.post("/plugins/trial/test", json!({})).await.problem(400, "validation-failed");
    assert!(stage.calls("trial").await.is_empty(), "a trial is no call");
    let jobs = kero.get("/instances/a/jobs").await.expect(200);
    assert_eq!(jobs["data"].as_array().unwrap().len(), 0, "and sends nothing");
}

/// What is withdrawn is denied from the next call on, over a restart, too, until it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn grants_are_withdrawn_and_given_back() {
    let mut stage = Stage::new().await;
    let script = "export default (event) => {
        try { event.data.n = kero.kv.increment('n'); } catch (error) { event.data.denied = String(error); }
        return event; }";
    let asked = manifest("counts", "1", "transform", &format!("{RAW}\n[grants]\nkv = \"1KiB\""));
    install(&stage.kero, &asked, script.as_bytes()).await;
    let said = async |stage: &Stage, text: &str| {
        stage.receive(JANE, text).await;
        stage.wait_text(text).await["data"].clone()
    };
    assert_eq!(said(&stage, "first").await["n"], 1);
    let path = "/plugins/counts/grants";
    let view = put(&stage.kero, path, json!({ "grants": {} })).await.expect(200);
    assert_eq!((&view["data"]["grants"], &view["data"]["grants_asked"]), (&json!({}), &json!({ "kv": 1024 })));
    let denied = said(&stage, "withdrawn").await["denied"].as_str().unwrap().to_owned();
    assert!(denied.contains("the grant `kv` is missing"), "{denied}");
    assert_eq!(stage.calls("counts").await[0]["denied"], json!(["kv"]));
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    assert!(said(&stage, "still withdrawn").await["denied"].is_string());
    put(&stage.kero, path, json!({ "grants": { "kv": "1MiB" } })).await.expect(200);
    assert_eq!(said(&stage, "given back").await["n"], 2, "what was stored is there");
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    assert_eq!(said(&stage, "still given").await["n"], 3);
    put(&stage.kero, path, json!({ "grants": { "nonsense": true } })).await.problem(400, "validation-failed");
}

/// What another toolchain made a component of is uploaded as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_uploaded_and_called() {
    let stage = Stage::new().await;
    let core = module("", "i32.const 0");
    let component = wit_component::ComponentEncoder::default().module(&core).unwrap().encode().unwrap();
    assert_ne!(component[..8], core[..8], "another kind of WebAssembly");
    let uploaded = upload(&stage.kero, &wasm_manifest("component", RAW), &component).await.expect(201);
    assert_eq!((&uploaded["data"]["wit"], &uploaded["data"]["bytes"]), (&json!("0.1.0"), &json!(component.len())));
    activate(&stage.kero, &uploaded["data"]).await;
    stage.receive(JANE, "hello").await;
    stage.wait_text("hello").await;
    assert_eq!(stage.calls("component").await[0]["outcome"], "pass");
}

/// New versions while events come in: each event has one verdict, of one of the versions; none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn reloading_loses_no_event() {
    let stage = Stage::new().await;
    let version = |n: usize| {
        let script = format!("export default (e) => {{ e.data.by = '{n}'; return e; }}");
        (manifest("reload", &n.to_string(), "transform", RAW), script)
    };
    let (asked, script) = version(0);
    install(&stage.kero, &asked, script.as_bytes()).await;
    let texts: Vec<String> = (0..120).map(|n| format!("m{n}")).collect();
    let sending = async {
        for text in &texts {
            stage.receive(JANE, text).await;
        }
    };
    let reloading = async {
        for n in 1..12 {
            let (asked, script) = version(n);
            install(&stage.kero, &asked, script.as_bytes()).await;
        }
    };
    tokio::join!(sending, reloading);
    stage.wait_text("m119").await;
    assert_eq!(stage.texts(), texts);
    let calls = stage.calls("reload").await;
    assert_eq!(calls.len(), texts.len(), "one verdict each");
    for event in stage.sink.events("message") {
        let call = calls.iter().find(|call| call["event_id"] == event["id"]).expect("its call");
        assert_eq!(call["version"], event["data"]["by"], "the version that is recorded is the one that was called");
    }
    let metrics = stage.kero.get("/metrics").await.text();
    assert!(metrics.contains("kero_hooks_calls_total{plugin=\"reload\""), "{metrics}");
    assert!(metrics.contains("kero_hooks_call_seconds_bucket{plugin=\"reload\",le=\"0.00001\"}"));
}
