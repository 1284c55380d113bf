//! Attacks on the administration and at its worst moments: changed files, secrets, races, floods.

use super::{ACCOUNT, JANE, JOHN, Stage, install, manifest, module, options, upload, upload_form, wasm_manifest};
use crate::support::{Kero, eventually, simulator};
use reqwest::Method;
use serde_json::{Value, json};

const RAW: &str = "on = [\"message\"]\non_error = \"raw\"";
const DEAD: &str = "on = [\"message\"]\non_error = \"dead\"";
const MARK: &str =
    "export default (event) => { event.data.by = context(); return event; }; const context = () => 'hook';";

fn compiled(kero: &Kero) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(kero.data.path().join("compiled-hooks")).unwrap().flatten();
    files.map(|file| file.path()).filter(|path| path.is_file()).collect()
}

/// Compiled code is native code: a file that anybody changed is never run, and is no artefact either.
#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_that_was_changed_is_compiled_again() {
    let mut stage = Stage::new().await;
    let pass = module("", "i32.const 0");
    install(&stage.kero, &wasm_manifest("kept", DEAD), &pass).await;
    let files = compiled(&stage.kero);
    assert_eq!(files.len(), 1);
    let written = std::fs::read(&files[0]).unwrap();
    let problem =
        upload(&stage.kero, &wasm_manifest("native", RAW), &written[32..]).await.problem(422, "plugin-invalid");
    assert!(problem["detail"].as_str().unwrap().contains("machine code"), "{problem}");

    stage.kero.restart().await;
    assert!(!stage.kero.log().contains("compiled again"), "the file as it was written is taken");
    let mut changed = written.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x55;
    std::fs::write(&files[0], &changed).unwrap();
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    assert!(stage.kero.log().contains("compiled again"), "{}", stage.kero.log());
    stage.receive(JANE, "hello").await;
    stage.wait_text("hello").await;
    assert_eq!(stage.calls("kept").await[0]["outcome"], "pass");
    assert_eq!(std::fs::read(&files[0]).unwrap(), written, "written anew, the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artefact_over_the_highest_limit_is_refused() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options().env("KERO_HOOKS__MAX_ARTEFACT", (32 << 20).to_string())).await;
    // the form as a whole may be 33 MiB: what announces more is not read to its end, so the answer may get lost
    let body = format!(
        "--k\r\nContent-Disposition: form-data; name=\"artefact\"\r\n\r\n{}\r\n--k--\r\n",
        "x".repeat(33 << 20)
    );
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/plugins", kero.url)).header("x-api-key", crate::support::KEY);
    let answer = request.header("content-type", "multipart/form-data; boundary=k").body(body).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 413));
    let problem = upload(&kero, &wasm_manifest("large", RAW), &vec![0; (33 << 20) - 8192]).await;
    let problem = problem.problem(413, "payload-too-large");
    assert!(problem["detail"].as_str().unwrap().contains("at most 33554432"), "{problem}");
    upload(&kero, &wasm_manifest("large", RAW), &vec![0; 32 << 20]).await.problem(422, "plugin-invalid");
    kero.get("/plugins/large").await.problem(404, "plugin-not-found");
}

/// What was stored as a secret stays one, whatever a later version calls it.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_out_by_no_version() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    let with = |version: &str, token: &str| {
        let schema = format!("[config.schema]\ntype = \"object\"\nproperties.token = {token}");
        manifest("shop", version, "transform", &format!("{RAW}\n{schema}"))
    };
    upload(&kero, &with("1", "{ type = \"string\", writeOnly = true }"), MARK.as_bytes()).await.expect(201);
    let secret = "token-that-must-not-come-out";
    let body = json!({ "config": { "token": secret } }).to_string().into_bytes();
    kero.request(Method::PUT, "/plugins/shop/config", &[], Some(body)).await.expect(200);
    install(&kero, &with("2", "{ type = \"string\" }"), MARK.as_bytes()).await;
    // a schema that fails on it does not repeat it
    upload(&kero, &with("3", "{ const = 7 }"), MARK.as_bytes()).await.expect(201);
    let refused = kero.post("/plugins/shop/versions/3/activate", json!({})).await;
    assert!(!refused.text().contains(secret), "{}", refused.text());
    refused.problem(409, "plugin-config-invalid");
    let event = json!({ "event": { "event": "message", "data": { "text": "hi" } } });
    for answer in [
        kero.get("/plugins").await,
        kero.get("/plugins/shop").await,
        kero.get("/plugins/shop/config").await,
        kero.get("/plugins/shop/versions").await,
        kero.post("/plugins/shop/test", event).await,
    ] {
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    assert_eq!(kero.get("/plugins/shop/config").await.expect(200)["data"]["secrets"], json!(["token"]));
    assert!(!kero.log().contains(secret));
    // where it would not be hidden it cannot be asked for
    let nested = "{ type = \"object\", properties.key = { type = \"string\", writeOnly = true } }";
    let problem = upload(&kero, &with("4", nested), MARK.as_bytes()).await.problem(422, "plugin-invalid");
    assert!(problem["detail"].as_str().unwrap().contains("/properties/token/properties/key"), "{problem}");
}

/// A module that takes long to compile.
pub fn slow_to_compile() -> Vec<u8> {
    let work = "(local.set 0 (i64.add (i64.mul (local.get 0) (i64.const 31)) (i64.rotl (local.get 0) (i64.const 7))))";
    let functions: String = (0..1500)
        .map(|n| format!("(func $f{n} (param i64) (result i64) {} (local.get 0))\n", work.repeat(60)))
        .collect();
    module(&functions, "i32.const 0")
}

/// Who wants to stop a plugin does not wait for somebody's upload.
#[tokio::test(flavor = "multi_thread")]
async fn suspending_waits_for_no_upload() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    install(&kero, &wasm_manifest("here", DEAD), &module("", "i32.const 0")).await;
    let large = slow_to_compile();
    let asked = wasm_manifest("large", RAW);
    let uploading = async {
        let answer = upload(&kero, &asked, &large).await;
        (answer, std::time::Instant::now())
    };
    let suspending = async {
        // until the upload is under way
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let view = kero.post_empty("/plugins/here/suspend").await.expect(200);
        assert_eq!(view["data"]["state"], "suspended");
        std::time::Instant::now()
    };
    let ((answer, uploaded), suspended) = tokio::join!(uploading, suspending);
    answer.expect(201);
    assert!(suspended < uploaded, "it waited for the compiler");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_of_one_version_one_is_kept() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    let asked = manifest("twice", "1", "transform", RAW);
    let scripts: Vec<String> = (0..4).map(|n| format!("export default () => ({{ drop: '{n}' }});")).collect();
    let all = scripts.iter().map(|script| upload(&kero, &asked, script.as_bytes()));
    let answers = futures_util::future::join_all(all).await;
    let kept: Vec<&crate::support::Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(kept.len(), 1, "{:?}", answers.iter().map(|it| it.status).collect::<Vec<_>>());
    for other in answers.iter().filter(|answer| answer.status != 201) {
        other.problem(409, "plugin-version-exists");
    }
    let versions = kero.get("/plugins/twice/versions").await.expect(200);
    assert_eq!(versions["data"].as_array().unwrap().len(), 1);
    assert_eq!(versions["data"][0]["sha256"], kept[0].json()["data"]["sha256"]);
    // the same one again, at once, is the same answer
    let same = manifest("same", "1", "transform", RAW);
    let answers = futures_util::future::join_all((0..4).map(|_| upload(&kero, &same, MARK.as_bytes()))).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.json() == answers[0].json()));
}

/// Uploads, activations and suspensions of one plugin at once, while events come in: none is lost, and what is stored is
/// what is called.
#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_leave_one_state() {
    let stage = Stage::new().await;
    let kero = &stage.kero;
    for version in ["1", "2", "3"] {
        let script = format!("export default (event) => {{ event.data.by = '{version}'; return event; }}");
        upload(kero, &manifest("busy", version, "transform", DEAD), script.as_bytes()).await.expect(201);
    }
    kero.post("/plugins/busy/versions/1/activate", json!({})).await.expect(200);
    let texts: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    let sending = async {
        for text in &texts {
            stage.receive(JANE, text).await;
        }
    };
    let changing = (0..24).map(|n| async move {
        let path = match n % 4 {
            0 => "/plugins/busy/suspend".to_owned(),
            1 => "/plugins/busy/resume".to_owned(),
            _ => format!("/plugins/busy/versions/{}/activate", n % 3 + 1),
        };
        let body = if path.ends_with("activate") { Some(b"{}".to_vec()) } else { None };
        kero.request(Method::POST, &path, &[], body).await.expect(200);
    });
    tokio::join!(sending, futures_util::future::join_all(changing));
    let active = kero.post_empty("/plugins/busy/resume").await.expect(200)["data"]["active_version"].clone();
    stage.wait_text("m39").await;
    assert_eq!(stage.texts(), texts);
    let calls = stage.calls("busy").await;
    assert_eq!(calls.len(), texts.len(), "one verdict each");
    stage.receive(JANE, "the last").await;
    assert_eq!(stage.wait_text("the last").await["data"]["by"], active);
}

/// A call that has begun ends on the version that it began with, though the plugin is taken out of place meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_can_go_during_its_call() {
    let stage = Stage::new().await;
    let kero = &stage.kero;
    let slow = "export default (event) => {
        if (event.message.text === 'slow') { const until = Date.now() + 600; for (;;) { for (let n = 0; n < 20000; n++); if (Date.now() >= until) break; } }
        event.data.by = 'hook'; kero.kv.set('k', 'v'); return event; }";
    let more = format!("{DEAD}\n[limits]\ncpu_ms = 1000\nwall_ms = 3000\n[grants]\nkv = \"1KiB\"");
    for way in ["deactivate", "delete"] {
        install(kero, &manifest("slow", way, "transform", &more), slow.as_bytes()).await;
        stage.receive(JANE, "slow").await;
        eventually("the call to begin", || async {
            let busy = std::fs::read_dir(format!("/proc/{}/task", kero.pid())).unwrap().flatten();
            let running = busy.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            running.into_iter().any(|stat| stat.contains("(kero-hooks)") && stat.contains(") R ")).then_some(())
        })
        .await;
        match way {
            "delete" => kero.delete("/plugins/slow").await.expect(200),
            _ => kero.post_empty("/plugins/slow/deactivate").await.expect(200),
        };
        let first = stage.wait_text("slow").await;
        assert_eq!(first["data"]["by"], "hook", "{way}: {first}");
        stage.receive(JANE, "after").await;
        let after = stage.wait_text("after").await;
        assert!(after["data"].get("by").is_none(), "{way}: {after}");
        assert_eq!(stage.texts().len(), 2, "each once");
        stage.sink.forget();
    }
    // what the call of the deleted plugin wrote is not there for another of its name
    let look = "export default (event) => { event.data.found = kero.kv.get('k'); return event; }";
    install(kero, &manifest("slow", "new", "transform", &more), look.as_bytes()).await;
    stage.receive(JANE, "look").await;
    assert_eq!(stage.wait_text("look").await["data"]["found"], Value::Null);
}

/// Deleting a plugin that holds events lets them go, in order; nothing of it is left for another of its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_plugin_lets_go_what_it_held() {
    let mut stage = Stage::new().await;
    let more = format!("{DEAD}\n[grants]\nkv = \"1KiB\"");
    let count = "export default (event) => { event.data.n = kero.kv.increment('n'); return event; }";
    install(&stage.kero, &manifest("gate", "1", "transform", &more), count.as_bytes()).await;
    stage.receive(JANE, "before").await;
    assert_eq!(stage.wait_text("before").await["data"]["n"], 1);
    stage.kero.post_empty("/plugins/gate/suspend").await.expect(200);
    for n in 0..5 {
        stage.receive(JANE, &format!("held {n}")).await;
    }
    // also over a kill
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    assert_eq!(stage.texts(), ["before"]);
    stage.kero.delete("/plugins/gate").await.expect(200);
    stage.wait_text("held 4").await;
    assert_eq!(stage.texts(), ["before", "held 0", "held 1", "held 2", "held 3", "held 4"]);
    stage.kero.get("/plugins/gate/calls").await.problem(404, "plugin-not-found");
    install(&stage.kero, &manifest("gate", "1", "transform", &more), count.as_bytes()).await;
    assert!(stage.calls("gate").await.is_empty());
    stage.receive(JANE, "anew").await;
    assert_eq!(stage.wait_text("anew").await["data"]["n"], 1);
}

/// What people write is in no line of the log, however a hook fails or chatters about it.
#[tokio::test(flavor = "multi_thread")]
async fn message_texts_stay_out_of_the_log() {
    let stage = Stage::new().await;
    let script = "export default (event) => {
        const text = event.message.text; console.error('I saw ' + text);
        if (text.includes('throw')) throw new Error(text);
        if (text.includes('drop')) return { drop: text };
        if (text.includes('spin')) for (;;);
        return { to: [text] }; }";
    let all = "on = [\"message\"]\non_error = ";
    install(&stage.kero, &manifest("chatty", "1", "transform", &format!("{all}\"dead\"")), script.as_bytes()).await;
    let shape =
        "export function shape(event) { console.log(event.message.text); throw new Error(event.message.text); }";
    install(&stage.kero, &manifest("shaper", "1", "delivery", &format!("{all}\"dead\"")), shape.as_bytes()).await;
    for word in ["throw", "drop", "spin", "spin", "spin", "route"] {
        stage.receive(JANE, &format!("confidential {word}")).await;
    }
    eventually("all of them", || async {
        let calls = stage.calls("chatty").await;
        calls.iter().any(|call| call["outcome"] == "cpu").then_some(())
    })
    .await;
    stage.kero.post_empty("/plugins/chatty/deactivate").await.expect(200);
    stage.receive(JANE, "confidential shape").await;
    eventually("the shape", || async { (!stage.calls("shaper").await.is_empty()).then_some(()) }).await;
    let shown = stage.calls("chatty").await;
    assert!(shown.iter().any(|call| call.to_string().contains("I saw confidential")), "the operator can see it there");
    let log = stage.kero.log();
    assert!(!log.contains("confidential"), "{log}");
    assert!(log.contains("a hook failed on an event"), "the log was looked at");
}

/// Forms that no client makes.
#[tokio::test(flavor = "multi_thread")]
async fn odd_forms_are_refused_and_change_nothing() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    let asked = manifest("odd", "1", "transform", RAW);
    let script = MARK.as_bytes();
    let base: [(&str, &[u8]); 2] = [("manifest", asked.as_bytes()), ("artefact", script)];
    let with = |name: &'static str, bytes: &'static [u8]| [base[0], base[1], (name, bytes)];
    for (name, bytes, status) in [
        ("cases/../../etc/event.json", &b"{}"[..], 400),
        ("cases/x", b"{}", 400),
        ("cases//", b"{}", 422),
        ("cases/x/event.json", b"not JSON", 422),
        ("cases/x/event.json", b"{\"event\":\"nonsense\",\"data\":{}}", 422),
        ("cases/\u{1f980}/event.json", b"[]", 422),
        ("bundled", b"redact", 400),
        ("nonsense", b"", 400),
    ] {
        let answer = upload_form(&kero, &with(name, bytes), &[]).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    // a manifest that is none
    let deep = format!("{}{}", "{\"a\":".repeat(200), "1");
    let long = format!("{asked}\n# {}", "x".repeat(70_000));
    let reversed = asked.replace("odd", "o\u{202e}dd");
    for manifest in
        ["", "\u{feff}", "{}", "[]", "{\"name\":", "name = ", deep.as_str(), long.as_str(), reversed.as_str()]
    {
        let answer = upload(&kero, manifest, script).await;
        answer.problem(422, "plugin-invalid");
    }
    upload_form(&kero, &[("manifest", b"\xff\xfe"), ("artefact", script)], &[]).await.problem(400, "validation-failed");
    // more cases than are run
    let names: Vec<String> = (0..201).map(|n| format!("cases/{n}/event.json")).collect();
    let other = manifest("many", "1", "transform", RAW);
    let mut many: Vec<(&str, &[u8])> = vec![("manifest", other.as_bytes()), base[1]];
    many.extend(names.iter().map(|name| (name.as_str(), &b"{\"event\":\"message\",\"data\":{}}"[..])));
    let problem = upload_form(&kero, &many, &[]).await;
    assert_eq!(problem.status, 422, "{}", problem.text());
    assert!(problem.text().contains("at most 200"), "{}", problem.text());
    // it still works
    upload(&kero, &manifest("fine", "1", "transform", RAW), script).await.expect(201);
}

/// A broken plugin, and the gateway starts all the same: its events are held, not sent past it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_runner_is_gone_starts_and_holds() {
    let dist = tempfile::TempDir::new().unwrap();
    let runner = dist.path().join("runner-js.wasm");
    std::fs::copy(super::dist().join("runner-js.wasm"), &runner).unwrap();
    let mut stage = Stage::with(options().env("KERO_HOOKS__DIST_DIR", dist.path().display().to_string())).await;
    install(&stage.kero, &manifest("script", "1", "transform", DEAD), MARK.as_bytes()).await;
    std::fs::rename(&runner, dist.path().join("away")).unwrap();
    stage.kero.restart().await;
    stage.kero.wait_status("a", "connected").await;
    let view = stage.kero.get("/plugins/script").await.expect(200);
    assert_eq!(view["data"]["state"], "broken", "{view}");
    assert!(view["data"]["error"].as_str().unwrap().contains("plugins/build"), "{view}");
    stage.simulator.send_text(JANE, ACCOUNT, "held").await.unwrap();
    stage.kero.send_async("a", JOHN, "goes on").await;
    stage.sink.wait_for("the acknowledgement", |event| event["event"] == "message_ack").await;
    assert!(stage.texts().is_empty());
    std::fs::rename(dist.path().join("away"), &runner).unwrap();
    let view = stage.kero.post_empty("/plugins/script/resume").await.expect(200);
    assert_eq!(view["data"]["state"], "active", "{view}");
    assert_eq!(stage.wait_text("held").await["data"]["by"], "hook");
}
