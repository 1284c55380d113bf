//! The table of misbehaviour in both languages: guests built from source, in Rust by the SDK, in JavaScript by the
//! runner. Each is stopped with the right word, leaves nothing, and the next call works.

use crate::support::*;
use kero_domain::EventKind;
use kero_hooks::capabilities::{KvRead, Scope};
use kero_hooks::{Capabilities, Compiled, ErrorKind, Hook, Host, HostConfig, Setting, Verdict};
use serde_json::json;
use std::sync::Arc;

const SCRIPT: &str = r#"
function deep(n) { return deep(n + 1) + 1; }
export default async function handle(event) {
  const text = event.message.text;
  if (text !== 'fine' && text !== 'denied') { kero.kv.set('left', text); kero.send.text('+15557654321', 'left'); }
  if (text === 'loop') for (;;);
  if (text === 'memory') { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }
  if (text === 'panic') throw new Error('a panic on purpose');
  if (text === 'recursion') return { drop: String(deep(1)) };
  if (text === 'output') return { drop: 'x'.repeat(32 << 20) };
  if (text === 'flood') for (let n = 0; n < 1e6; n++) console.log('line', n, 'x'.repeat(100));
  if (text === 'hang') await fetch('https://api.example/slow');
  if (text === 'denied') kero.kv.get('key');
  if (text === 'text') return 'no verdict';
}"#;

use ErrorKind::{BadAnswer, Cpu, HostCalls, Memory, Output, Reject, Stack, Trap, Wall};

/// What the message says, and the words for it in Rust and in JavaScript: QuickJS notices some of it itself.
const TABLE: [(&str, &[ErrorKind], &[ErrorKind]); 8] = [
    ("loop", &[Cpu], &[Cpu]),
    ("memory", &[Memory], &[Memory, Reject]),
    ("panic", &[Trap], &[Reject]),
    ("recursion", &[Stack, Trap], &[Reject, Stack]),
    ("output", &[Output], &[Output]),
    ("flood", &[HostCalls], &[HostCalls]),
    ("hang", &[Wall], &[Wall]),
    ("text", &[BadAnswer], &[Reject]),
];

fn seat(host: &Host, compiled: &Compiled, grants: bool, more: serde_json::Value) -> Arc<Hook> {
    let manifest = manifest(more);
    let given = if grants { manifest.grants.clone() } else { Default::default() };
    Hook::new(host, manifest, compiled.clone(), &given, json!({})).unwrap()
}

async fn misbehaves(host: &Host, compiled: &Compiled, language: usize) {
    for (text, in_rust, in_script) in TABLE {
        let words = [in_rust, in_script][language];
        // making 32 MiB, or as many lines as are too many, takes QuickJS its time, and the former more than the usual memory
        let (cpu, wall, memory) = match text {
            "output" => (1000, 10_000, "128MiB"),
            // touching so many pages takes a busy machine its time, too
            "flood" | "memory" => (1000, 10_000, "64MiB"),
            _ => (100, 500, "64MiB"),
        };
        let more = json!({"grants": everything(), "limits": {"cpu_ms": cpu, "wall_ms": wall, "memory": memory}});
        for reuse in [false, true] {
            let mut more = more.clone();
            if reuse {
                more["reuse"] = json!({"calls": 100, "age": "1h"});
            }
            let bad = seat(host, compiled, true, more);
            let asked = event(EventKind::Message, &json!({"text": text}));
            let ran = host.transform(&bad, &asked, "{}", &never_answering()).await;
            let error = ran.answer.unwrap_err();
            assert!(words.contains(&error.kind), "{text}: {error}");
            assert!(error.to_string().starts_with("tried 1: "), "{error}");
            assert!(ran.effects.is_empty(), "{text} left {:?}", ran.effects);
            let kept: usize = ran.logs.iter().map(|line| line.text.len()).sum();
            assert!(kept <= 64 << 10, "{text}: {kept}");
            if text == "panic" {
                let told = format!("{error}\n{:?}", ran.logs);
                assert!(told.contains("a panic on purpose"), "{told}");
            }
            if text == "flood" {
                assert!(ran.cost.log_dropped > 0);
            }
            let fine = event(EventKind::Message, &json!({"text": "fine"}));
            let ran = host.transform(&bad, &fine, "{}", &setting()).await;
            assert_eq!(ran.answer, Ok(Verdict::Pass), "after {text}");
        }
    }
    let denied = event(EventKind::Message, &json!({"text": "denied"}));
    let bare = seat(host, compiled, false, json!({"grants": everything()}));
    let ran = host.transform(&bare, &denied, "{}", &setting()).await;
    assert_eq!(ran.cost.denied, vec!["kv"]);
    let error = ran.answer.unwrap_err();
    assert_eq!(error.kind, Reject, "{error}");
    assert!(error.detail.contains("the grant `kv` is missing") && error.detail.contains("[grants]"), "{error}");
}

/// A database that does not answer.
struct Away;

#[async_trait::async_trait]
impl KvRead for Away {
    async fn get(&self, _: &Scope, _: &str) -> Result<Option<Vec<u8>>, String> {
        Err("the storage does not answer".to_owned())
    }

    async fn used(&self, _: &Scope) -> Result<u64, String> {
        Err("the storage does not answer".to_owned())
    }
}

/// What is away now is no reason to give an event up.
async fn asks_for_another_try(host: &Host, compiled: &Compiled) {
    let capabilities = Capabilities { kv: Arc::new(Away), ..setting().capabilities };
    let away = Setting { capabilities, dry_run: false };
    let hook = seat(host, compiled, true, json!({"grants": everything()}));
    let asked = event(EventKind::Message, &json!({"text": "denied"}));
    let error = host.transform(&hook, &asked, "{}", &away).await.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
    assert!(error.detail.contains("the storage does not answer"), "{error}");
}

fn host() -> Host {
    assert!(dist().join(kero_hooks::RUNNER).exists(), "plugins/dist is empty: run plugins/build first");
    Host::start(HostConfig { dist_dir: dist(), cache: cache(), ..HostConfig::default() }).unwrap()
}

#[tokio::test]
async fn guests_in_rust_are_stopped_and_leave_nothing() {
    let host = host();
    let compiled = host.compile(std::fs::read(dist().join("misbehaving.wasm")).unwrap()).await.unwrap();
    misbehaves(&host, &compiled, 0).await;
    asks_for_another_try(&host, &compiled).await;
}

#[tokio::test]
async fn guests_in_javascript_are_stopped_and_leave_nothing() {
    let host = host();
    let compiled = host.compile_script("hook.js", SCRIPT.as_bytes().to_vec()).await.unwrap();
    misbehaves(&host, &compiled, 1).await;
    asks_for_another_try(&host, &compiled).await;
}
