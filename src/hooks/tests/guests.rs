//! The hooks of `plugins/`, built from source, and scripts: each with its folder of cases, and the author's mistakes.

use crate::support::{cache, dist};
use kero_hooks::cases;
use kero_hooks::dry::Bench;
use kero_hooks::manifest::Name;
use kero_hooks::template::{self, Language};
use kero_hooks::{Host, HostConfig, Kind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn plugins() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins").into()
}

/// One for all tests: the runner is compiled once.
fn host() -> Host {
    static HOST: LazyLock<Host> = LazyLock::new(|| {
        assert!(dist().join(kero_hooks::RUNNER).exists(), "plugins/dist is empty: run plugins/build first");
        Host::start(HostConfig { dist_dir: dist(), cache: cache(), ..HostConfig::dry() }).unwrap()
    });
    HOST.clone()
}

/// Runs a plugin's cases. `UPDATE=1` writes expectations that are missing or differ.
async fn passes(host: &Host, dir: &Path) -> usize {
    let bench = Bench::open(host, dir).await.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let reports = bench.run(host, dir, std::env::var_os("UPDATE").is_some()).await.unwrap();
    let failures: Vec<String> = reports
        .iter()
        .filter(|it| !it.failures.is_empty())
        .map(|it| format!("{}: {}", it.case, it.failures.join("\n  ")))
        .collect();
    assert!(failures.is_empty(), "{}\n{}", dir.display(), failures.join("\n"));
    reports.len()
}

#[tokio::test]
async fn bundled_hooks_pass_their_cases() {
    let host = host();
    for (plugin, least) in [("redact", 5), ("keyword-reply", 8), ("evolution", 16)] {
        assert!(passes(&host, &plugins().join(plugin)).await >= least, "{plugin}");
    }
}

#[tokio::test]
async fn example_scripts_pass_their_cases() {
    let host = host();
    for entry in std::fs::read_dir(plugins().join("examples")).unwrap() {
        let dir = entry.unwrap().path();
        assert!(passes(&host, &dir).await > 0, "{}", dir.display());
    }
}

fn write(dir: &Path, files: &[(&str, String)]) {
    for (path, text) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

#[tokio::test]
async fn a_new_script_plugin_passes_its_test() {
    let host = host();
    for kind in [Kind::Transform, Kind::Delivery] {
        let folder = tempfile::tempdir().unwrap();
        let name = Name::try_from("my-hook".to_owned()).unwrap();
        write(folder.path(), &template::files(&name, Language::JavaScript, kind));
        assert_eq!(passes(&host, folder.path()).await, 1);
    }
}

#[tokio::test]
async fn the_rust_template_passes_its_test() {
    let host = host();
    for kind in [Kind::Transform, Kind::Delivery] {
        let folder = tempfile::tempdir().unwrap();
        let name = Name::try_from("my-hook".to_owned()).unwrap();
        write(folder.path(), &template::files(&name, Language::Rust, kind));
        let built = dist().join(format!("new-{}.wasm", kind.as_str()));
        std::fs::copy(built, folder.path().join("my-hook.wasm")).unwrap();
        assert_eq!(passes(&host, folder.path()).await, 1);
    }
}

/// What an author reads after a mistake, for a transform in JavaScript.
async fn complaint(host: &Host, source: &str, grants: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let name = Name::try_from("my-hook".to_owned()).unwrap();
    write(folder.path(), &template::files(&name, Language::JavaScript, Kind::Transform));
    std::fs::write(folder.path().join("hook.js"), source).unwrap();
    std::fs::write(folder.path().join("cases/first/grants.json"), grants).unwrap();
    let bench = Bench::open(host, folder.path()).await.unwrap();
    bench.run(host, folder.path(), false).await.unwrap()[0].failures.join("\n")
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let host = host();
    for (source, lines) in [
        ("export default (e) => {\n  return e.;\n}", vec!["my-hook 0.1.0: reject: SyntaxError", "hook.js:2"]),
        ("export default (e) => {\n  return e.data.lines.length;\n}", vec!["TypeError", "hook.js:2:"]),
        ("export const handle = () => null", vec!["export default function", "exports handle"]),
        ("import x from 'lodash'\nexport default () => null", vec!["my-hook", "lodash"]),
        ("export default () => 42", vec!["the hook returned 42", "return the event"]),
        ("export default () => ({data: []})", vec!["data must be an object"]),
        ("export default () => { for (;;) ; }", vec!["my-hook 0.1.0: ", "raise `limits."]),
        ("export default () => { const a = []; for (;;) a.push(new Array(1e5).fill(1)); }", vec!["my-hook 0.1.0: "]),
        ("export default function f() { return f() + 1; }", vec!["RangeError", "stack"]),
        ("export default () => { kero.kv.set('a', 'b'); }", vec!["grant `kv` is missing", "[grants]", "hook.js:1"]),
        ("export default async () => { await fetch('https://a.example/'); }", vec!["grant `http` is missing"]),
        ("export default () => { kero.send.text('1', 'x'); }", vec!["grant `send` is missing"]),
        ("export default () => { throw new kero.Retry('db away'); }", vec!["my-hook 0.1.0: retry: db away"]),
        ("export default () => { throw 'plain'; }", vec!["the script threw \"plain\""]),
        ("export default () => new Promise(() => {})", vec!["promise that nothing will settle"]),
    ] {
        let complaint = complaint(&host, source, "{}").await;
        for line in lines {
            assert!(complaint.contains(line), "{source}\nshould say {line:?}, says:\n{complaint}");
        }
    }
}

/// Runs a transform in JavaScript on one message; every wish is granted.
async fn script(host: &Host, source: &str, kv: &str) -> kero_hooks::dry::Report {
    let folder = tempfile::tempdir().unwrap();
    let name = Name::try_from("my-hook".to_owned()).unwrap();
    write(folder.path(), &template::files(&name, Language::JavaScript, Kind::Transform));
    let toml = std::fs::read_to_string(folder.path().join("plugin.toml")).unwrap();
    let toml = toml.replace("# kv = \"1MiB\"", "kv = \"1KiB\"").replace("# http", "http").replace("# send", "send");
    std::fs::write(folder.path().join("plugin.toml"), toml).unwrap();
    std::fs::write(folder.path().join("hook.js"), source).unwrap();
    std::fs::write(folder.path().join("cases/first/kv.json"), kv).unwrap();
    let answer =
        r#"[{"url": "https://api.example.com/x", "status": 201, "headers": {"X-Y": "z"}, "body": "{\"a\":1}"}]"#;
    std::fs::write(folder.path().join("cases/first/http.json"), answer).unwrap();
    let bench = Bench::open(host, folder.path()).await.unwrap();
    bench.run(host, folder.path(), false).await.unwrap().remove(0)
}

#[tokio::test]
async fn scripts_reach_the_capabilities() {
    let host = host();
    let source = "export default async (event, context) => {
        const { kv } = kero, seen = [];
        seen.push(kv.get('stored'), kv.get('none'), kv.increment('n', 5), kv.increment('n'), kv.get('n'));
        kv.set('stored', { a: 1 }, 60); seen.push(kv.get('stored'), kv.increment('stored', 2));
        kv.delete('stored'); seen.push(kv.get('stored'));
        try { kv.set('large', 'x'.repeat(2000)); } catch (error) { seen.push(error.message); }
        try { kv.set('k'.repeat(300), ''); } catch (error) { seen.push(error.message); }
        const answer = await fetch('https://api.example.com/x', { method: 'put', headers: { 'X-A': 'b' }, body: 'hi' });
        seen.push(answer.status, answer.headers.get('x-y'), (await answer.json()).a);
        seen.push(Date.now(), new Date().toISOString(), Math.random() === Math.random());
        seen.push(new TextDecoder().decode(new TextEncoder().encode('grüß 👋')), context.dryRun, context.plugin);
        seen.push(kero.send.text('+15557654321', 'hi', event.message.id));
        console.log('seen', seen.length, { of: 'them' });
        return { data: { seen } };
    }";
    let report = script(&host, source, r#"{"stored": "before", "n": "10"}"#).await;
    let outcome = report.outcome.unwrap_or_else(|| panic!("{:?}", report.error));
    let expected = serde_json::json!([
        "before",
        null,
        15,
        16,
        "16",
        "{\"a\":1}",
        2,
        null,
        "kv.set: the storage that was granted is used up",
        "kv.set: the key or the value is too long",
        201,
        "z",
        1,
        1_767_268_800_000_u64,
        "2026-01-01T12:00:00.000Z",
        false,
        "grüß 👋",
        true,
        "my-hook",
        "00000000-0000-7000-8000-000000000001.my-hook.1",
    ]);
    assert_eq!(outcome["data"]["seen"], expected);
    let changes: Vec<&str> =
        outcome["effects"]["kv"].as_array().unwrap().iter().map(|it| it["change"].as_str().unwrap()).collect();
    assert_eq!(changes, vec!["add", "add", "set", "add", "delete"]);
    assert_eq!(outcome["effects"]["sends"][0]["chat"], "+15557654321");
    assert_eq!(report.logs[0].text, "seen 20 {\"of\":\"them\"}");
    let request = &report.requests[0];
    assert_eq!((request.method.as_str(), request.body.as_str()), ("PUT", "hi"));
    assert_eq!(request.headers[0], ("x-a".to_owned(), "b".to_owned()));
}

#[tokio::test]
async fn runs_repeat_to_the_last_number() {
    let host = host();
    let dir = plugins().join("keyword-reply");
    let bench = Bench::open(&host, &dir).await.unwrap();
    let case = cases::load(&dir.join("cases")).unwrap().into_iter().find(|case| case.name == "answers").unwrap();
    let (first, second) = (bench.case(&host, &case).await.unwrap(), bench.case(&host, &case).await.unwrap());
    assert!(first.cost.fuel.unwrap() > 1000);
    assert_eq!((first.cost.fuel, &first.outcome), (second.cost.fuel, &second.outcome));
}
