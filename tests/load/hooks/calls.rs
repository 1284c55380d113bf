//! One call, in process, in turns with the closure: Rust and JavaScript, fresh and reused; chains of one and ten.

use super::{artefact, dist, percentiles, work};
use kero_hooks::chain::Tries;
use kero_hooks::fixture::Fixture;
use kero_hooks::{Compiled, Event, Hook, Host, HostConfig, Manifest, Setting, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The same work as plugins/tests/bench/src/work.rs.
pub const SCRIPT: &str = "export default (event) => {
  const data = event.data;
  data.text = data.text.toUpperCase();
  delete data.sender;
  data.seen = true;
  return event;
}";

/// About 1 KiB of `data`, as messages have it.
fn data(text: &str) -> Value {
    let mut data = json!({
        "message_id": "3EB0C767D097B7C7C530", "from": "15557654321@s.whatsapp.net", "to": "15557654321@s.whatsapp.net",
        "is_group": false, "message_type": "text", "text": text,
        "timestamp": 1_767_268_800, "is_from_me": false, "sender_name": "Jane", "chat": "15557654321@s.whatsapp.net",
        "sender": {"phone": "+15557654321", "lid": "118822334455667@lid", "jid": "15557654321@s.whatsapp.net"},
    });
    let rest = 1024 - data.to_string().len() - 9;
    data["pad"] = "p".repeat(rest).into();
    data
}

pub fn event() -> Arc<Event> {
    event_with("Is order 4711 shipped? Call +15557654321")
}

fn event_with(text: &str) -> Arc<Event> {
    Arc::new(Event::new("e1", kero_domain::EventKind::Message, "shop", 1_767_268_800_000, &data(text)))
}

pub fn setting() -> Setting {
    Setting { capabilities: Fixture::default().capabilities(), dry_run: false }
}

pub fn seat(host: &Host, compiled: &Compiled, name: &str, reuse: bool) -> Arc<Hook> {
    let mut manifest = json!({
        "name": name, "version": "1", "api": "kero:plugin@0.1", "entry": "hook.wasm", "kind": "transform", "on": ["all"],
        "on_error": "raw",
    });
    if reuse {
        manifest["reuse"] = json!({"calls": 1_000_000, "age": "1h"});
    }
    let manifest = Manifest::from_json(manifest).unwrap();
    Hook::new(host, manifest, compiled.clone(), &Default::default(), json!({})).unwrap()
}

/// What is measured.
enum Subject {
    Native,
    Hook(Arc<Hook>),
    Chain(Vec<Arc<Hook>>),
    /// The same, of hooks that let the event pass.
    Filters(Vec<Arc<Hook>>),
}

pub async fn run(rounds: usize) {
    let host = Host::start(HostConfig { dist_dir: dist().into(), ..HostConfig::default() }).unwrap();
    let rust = host.compile(artefact("bench.wasm")).await.unwrap();
    let script = host.compile_script("hook.js", SCRIPT.into()).await.unwrap();
    for (name, compiled) in [("Rust", &rust), ("QuickJS", &script)] {
        let info = compiled.info();
        println!("{name}: {} bytes, compiled in {:.0?}", info.bytes, info.took);
    }
    let ten: Vec<Arc<Hook>> = (0..10).map(|n| seat(&host, &rust, &format!("h{n}"), true)).collect();
    let subjects = [
        ("native closure", Subject::Native, 4000),
        ("Rust, fresh", Subject::Hook(seat(&host, &rust, "rust-fresh", false)), 2000),
        ("Rust, reused", Subject::Hook(seat(&host, &rust, "rust-reused", true)), 2000),
        ("QuickJS, fresh", Subject::Hook(seat(&host, &script, "js-fresh", false)), 400),
        ("QuickJS, reused", Subject::Hook(seat(&host, &script, "js-reused", true)), 400),
        ("chain of 1, reused Rust", Subject::Chain(ten[..1].to_vec()), 1000),
        ("chain of 10, reused Rust", Subject::Chain(ten.clone()), 400),
        ("chain of 10 that pass, reused Rust", Subject::Filters(ten), 1000),
    ];
    let mut took: Vec<Took> = subjects.iter().map(|_| Took::default()).collect();
    for round in 0..=rounds {
        for (took, (_, subject, calls)) in took.iter_mut().zip(&subjects) {
            // the first round is for the caches
            let mut warm = Took::default();
            measure(&host, subject, *calls, if round > 0 { took } else { &mut warm }).await;
        }
    }
    let mut native = None;
    for ((name, ..), took) in subjects.iter().zip(took) {
        let calls = took.asked.len();
        let (half, most) = percentiles(took.asked);
        let (called, most_called) = percentiles(took.called);
        let native = *native.get_or_insert(half);
        let ratio = called.as_secs_f64() / native.as_secs_f64();
        println!(
            "{name}: p50 {called:.1?}, p99 {most_called:.1?} in the host; with the way to its threads and back p50 {half:.1?}, \
             p99 {most:.1?}; {calls} calls; {ratio:.1} times the closure"
        );
    }
}

/// How long calls took.
#[derive(Default)]
struct Took {
    /// From the question to the answer, as the gateway sees it.
    asked: Vec<Duration>,
    /// On the host's own threads, which the call is handed to: what a closure in their place would take.
    called: Vec<Duration>,
}

/// Calls one after the other.
async fn measure(host: &Host, subject: &Subject, calls: usize, took: &mut Took) {
    let (event, passes, setting) = (event(), event_with("pass: is order 4711 shipped?"), setting());
    for _ in 0..calls {
        let started = Instant::now();
        let called = match subject {
            Subject::Native => {
                std::hint::black_box(work::transform(&event.data).unwrap());
                started.elapsed()
            }
            Subject::Hook(hook) => {
                let ran = host.transform(hook, &event, &event.data, &setting).await;
                assert!(matches!(ran.answer, Ok(Verdict::Replace { .. })), "{:?}", ran.answer);
                ran.cost.wall
            }
            Subject::Chain(hooks) => chain(host, hooks, &event, &setting, "replace").await,
            Subject::Filters(hooks) => chain(host, hooks, &passes, &setting, "pass").await,
        };
        took.asked.push(started.elapsed());
        took.called.push(called);
    }
}

async fn chain(host: &Host, hooks: &[Arc<Hook>], event: &Arc<Event>, setting: &Setting, word: &str) -> Duration {
    let ran = host.run_transforms(hooks.to_vec(), event, Tries::new(), setting).await;
    assert!(ran.records.iter().all(|record| record.outcome == word), "{:?}", ran.records);
    ran.records.iter().map(|record| record.cost.wall).sum()
}
