//! Guests that misbehave. Each test fails when its guard is taken away; after each a well-behaved call works.

use crate::support::*;
use kero_hooks::capabilities::Clock;
use kero_hooks::{Capabilities, ErrorKind, HookError, Host, HostConfig, Level, Limits, Maxima, Setting, Verdict};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SPIN: &str = "(loop $on (br $on)) unreachable";

async fn fails(host: &Host, wasm: Vec<u8>, more: serde_json::Value) -> HookError {
    let bad = hook(host, wasm, more).await;
    let ran = host.transform(&bad, &message(), "{}", &setting()).await;
    assert!(ran.effects.is_empty());
    still_works(host).await;
    ran.answer.unwrap_err()
}

async fn still_works(host: &Host) {
    let good = hook(host, guest("", PASS), json!({"name": "good"})).await;
    assert_eq!(host.transform(&good, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
}

#[tokio::test]
async fn an_endless_loop_is_stopped_by_its_cpu_budget() {
    let host = host();
    let error = fails(&host, guest("", SPIN), json!({"limits": {"cpu_ms": 50, "wall_ms": 10000}})).await;
    assert_eq!(error.kind, ErrorKind::Cpu, "{error}");
    assert!(error.to_string().contains("50 ms of CPU"), "{error}");
}

#[tokio::test]
async fn a_loop_is_stopped_by_the_wall_clock_too() {
    let host = host();
    let error = fails(&host, guest("", SPIN), json!({"limits": {"cpu_ms": 1000, "wall_ms": 60}})).await;
    assert_eq!(error.kind, ErrorKind::Wall, "{error}");
}

#[tokio::test]
async fn a_memory_bomb_is_refused() {
    let bomb = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let error = fails(&host(), guest("", bomb), json!({"limits": {"memory": "8MiB"}})).await;
    assert_eq!(error.kind, ErrorKind::Memory, "{error}");
}

#[tokio::test]
async fn endless_recursion_ends_in_the_guests_stack() {
    let recursion = "(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))";
    let wasm = guest_for(
        "transform",
        "",
        &format!(
            r#"{recursion} (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) (call $deep (i32.const 1)))"#
        ),
    );
    let error = fails(&host(), wasm, json!({})).await;
    assert_eq!(error.kind, ErrorKind::Stack, "{error}");
    assert!(error.detail.contains("in "), "frames: {error}");
}

#[tokio::test]
async fn a_trap_is_told_with_its_frames() {
    let wasm = guest_for(
        "transform",
        "",
        r#"(func $checkout unreachable)
           (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) (call $checkout) i32.const 0)"#,
    );
    let error = fails(&host(), wasm, json!({})).await;
    assert_eq!(error.kind, ErrorKind::Trap);
    assert!(error.detail.contains("unreachable") && error.detail.contains("in checkout"), "{error}");
    assert!(error.to_string().starts_with("tried 1: trap: "), "{error}");
}

#[tokio::test]
async fn a_huge_answer_is_not_copied() {
    // the length that the answer claims is real memory: 32 MiB
    let huge = format!("(drop (memory.grow (i32.const 512))) {}", answer(1, 0, 32 << 20));
    let error = fails(&host(), guest("", &huge), json!({})).await;
    assert_eq!(error.kind, ErrorKind::Output, "{error}");
}

#[tokio::test]
async fn answers_are_checked() {
    let host = host();
    for (data, complaint) in [
        ("{\"a\":".to_owned(), "data is not JSON"),
        ("[]".to_owned(), "not an object"),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(300_000)), "at most 262144"),
    ] {
        // a megabyte of data segment needs no more than the limits give
        let wasm = if data.len() < 50_000 { saying(2, &data) } else { large(&data) };
        let error = fails(&host, wasm, json!({})).await;
        assert_eq!(error.kind, ErrorKind::BadAnswer, "{error}");
        assert!(error.detail.contains(complaint), "{error}");
    }
    let error = fails(&host, guest(r#""#, &answer(2, 0xffff_0000, 16)), json!({})).await;
    assert_eq!(error.kind, ErrorKind::Trap, "a pointer outside of the memory: {error}");
}

/// A `replace` with data that does not fit the two first pages.
fn large(data: &str) -> Vec<u8> {
    let (open, close) = data.split_at(6);
    let filling = data.len() - 6 - 2;
    let _ = close;
    let escaped: String = open.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let body = format!(
        r#"(drop (memory.grow (i32.const 8)))
           (memory.fill (i32.const {from}) (i32.const 120) (i32.const {filling}))
           (i32.store8 (i32.const {quote}) (i32.const 34)) (i32.store8 (i32.const {brace}) (i32.const 125)) {answer}"#,
        from = 131_072 + 6,
        quote = 131_072 + 6 + filling,
        brace = 131_072 + 6 + filling + 1,
        answer = answer(2, 131_072, u32::try_from(data.len()).unwrap()),
    );
    let start = format!(
        r#"(data $open "{escaped}")
           (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32)
             (call $fill))
           (func $fill (result i32)
             {body_with_init})"#,
        body_with_init = body.replacen(
            "(memory.fill",
            "(memory.init $open (i32.const 131072) (i32.const 0) (i32.const 6)) (memory.fill",
            1
        ),
    );
    guest_for("transform", "", &start)
}

const KV_GET: &str = r#"(import "kero:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))"#;

#[tokio::test]
async fn a_capability_without_its_grant_answers_denied() {
    // passes when the host's answer is err(denied): 1 and 0 in the first bytes
    let checks = r#"(call $get (i32.const 4096) (i32.const 3) (i32.const 3072))
        (if (i32.or (i32.ne (i32.load8_u (i32.const 3072)) (i32.const 1)) (i32.load8_u (i32.const 3076))) (then unreachable))
        i32.const 0"#;
    let host = host();
    let bare = hook(&host, guest(KV_GET, checks), json!({})).await;
    let ran = host.transform(&bare, &message(), "{}", &setting()).await;
    assert_eq!(ran.answer, Ok(Verdict::Pass));
    assert_eq!(ran.cost.denied, vec!["kv"]);
    let granted = hook(&host, guest(KV_GET, checks), json!({"grants": everything()})).await;
    let ran = host.transform(&granted, &message(), "{}", &setting()).await;
    assert_eq!(ran.answer.unwrap_err().kind, ErrorKind::Trap, "with the grant it is not denied");
}

#[tokio::test]
async fn host_calls_are_counted() {
    let import = r#"(import "kero:plugin/clock@0.1.0" "now" (func $now (result i64)))"#;
    let error = fails(&host(), guest(import, "(loop $on (drop (call $now)) (br $on)) unreachable"), json!({})).await;
    assert_eq!(error.kind, ErrorKind::HostCalls, "{error}");
}

#[tokio::test]
async fn a_flood_of_log_is_dropped_and_counted() {
    let import = r#"(import "kero:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let flood = r#"(local $n i32)
        (loop $on
          (call $log (i32.const 2) (i32.const 0) (i32.const 1024))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $on (i32.lt_u (local.get $n) (i32.const 1000))))
        i32.const 0"#;
    let host = host();
    let noisy = hook(&host, guest(import, flood), json!({})).await;
    let ran = host.transform(&noisy, &message(), "{}", &setting()).await;
    assert_eq!(ran.answer, Ok(Verdict::Pass), "a log does not decide");
    let kept: usize = ran.logs.iter().map(|line| line.text.len()).sum();
    assert!(kept <= 64 << 10, "{kept}");
    assert_eq!(ran.cost.log_dropped, 1000 * 1024 - kept as u64);
    assert_eq!(ran.logs[0].level, Level::Warn);
}

#[tokio::test]
async fn a_plugin_has_a_share_of_log_in_a_minute() {
    let import = r#"(import "kero:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let line = "(call $log (i32.const 2) (i32.const 0) (i32.const 8192)) i32.const 0";
    let host = host();
    let chatty = hook(&host, guest(import, line), json!({})).await;
    let mut lines = 0;
    for _ in 0..200 {
        lines += host.transform(&chatty, &message(), "{}", &setting()).await.logs.len();
    }
    assert_eq!(lines, 128, "1 MiB of lines of 8 KiB");
}

const FETCH: &str = r#"(import "kero:plugin/http@0.1.0" "fetch"
    (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

pub fn fetches(url: &str) -> Vec<u8> {
    let body = format!(
        r#"(call $fetch (i32.const 4096) (i32.const 3) (i32.const 4112) (i32.const {}) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3072))
           i32.const 0"#,
        url.len()
    );
    guest_for(
        "transform",
        FETCH,
        &format!(
            r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body})
               (data (i32.const 4096) "GET") (data (i32.const 4112) "{url}")"#
        ),
    )
}

#[tokio::test]
async fn a_host_call_that_never_answers_ends_with_the_wall_clock() {
    let host = host();
    let wasm = fetches("https://api.example/slow");
    let more = json!({"grants": everything(), "limits": {"wall_ms": 80}});
    let waiting = hook(&host, wasm, more).await;
    let started = Instant::now();
    let ran = host.transform(&waiting, &message(), "{}", &never_answering()).await;
    let error = ran.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Wall, "{error}");
    assert!(ran.cost.ticks <= 2, "waiting is no CPU time: {}", ran.cost.ticks);
    assert!(started.elapsed() >= Duration::from_millis(80));
    still_works(&host).await;
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_stopped() {
    let minutes = Duration::from_secs(300);
    let limits = Limits { wall: minutes, http_timeout: minutes, ..Limits::default() };
    let host = Host::start(HostConfig { limits, ..HostConfig::default() }).unwrap();
    let waiting = hook(&host, fetches("https://api.example/slow"), json!({"grants": everything()})).await;
    // more than the plugin has places: were they not stopped, the last call would find none for five minutes
    for _ in 0..8 {
        let (event, setting) = (message(), never_answering());
        let call = host.transform(&waiting, &event, "{}", &setting);
        let gone = tokio::time::timeout(Duration::from_millis(20), call).await;
        assert!(gone.is_err());
    }
    let answered =
        tokio::time::timeout(Duration::from_secs(60), host.transform(&waiting, &message(), "{}", &setting())).await;
    assert_eq!(answered.unwrap().answer, Ok(Verdict::Pass));
}

#[tokio::test]
async fn a_start_function_that_spins_is_stopped() {
    let wasm = guest_for(
        "transform",
        "",
        &format!(
            r#"(func $begin (loop $on (br $on))) (start $begin)
               (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {PASS})"#
        ),
    );
    let error = fails(&host(), wasm, json!({"limits": {"cpu_ms": 30}})).await;
    assert_eq!(error.kind, ErrorKind::Cpu, "{error}");
}

/// A clock that holds the thread of whoever looks at it, and counts how many do at once.
#[derive(Default)]
struct Watching {
    inside: AtomicUsize,
    most: AtomicUsize,
    looks: AtomicUsize,
}

impl Clock for Watching {
    fn now(&self) -> u64 {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.looks.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        0
    }

    fn monotonic(&self) -> u64 {
        0
    }
}

/// With two threads, one guest at a time runs longer than a tick; the other thread stays free for short calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_run_long_do_not_hold_the_last_free_thread() {
    // ticks are the wall's while a guest runs: on a busy machine they are many
    let maxima = Maxima { cpu: Duration::from_secs(60), wall: Duration::from_secs(60), ..Maxima::default() };
    let host = Host::start(HostConfig { workers: 2, maxima, ..HostConfig::default() }).unwrap();
    let import = r#"(import "kero:plugin/clock@0.1.0" "now" (func $now (result i64)))"#;
    // some ten ticks, then thirty looks at the clock
    let long = "(local $n i32)
        (loop $on (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $on (i32.lt_u (local.get $n) (i32.const 60000000))))
        (local.set $n (i32.const 0))
        (loop $look
          (drop (call $now)) (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $look (i32.lt_u (local.get $n) (i32.const 30))))
        i32.const 0";
    let watching = Arc::new(Watching::default());
    let capabilities = Capabilities { clock: Arc::clone(&watching) as _, ..setting().capabilities };
    let setting = Setting { capabilities, dry_run: false };
    let mut calls = Vec::new();
    for n in 0..4 {
        let more = json!({"name": format!("long-{n}"), "limits": {"cpu_ms": 60_000, "wall_ms": 60_000}});
        let long = hook(&host, guest(import, long), more).await;
        let (host, setting) = (host.clone(), setting.clone());
        calls.push(tokio::spawn(async move { host.transform(&long, &message(), "{}", &setting).await }));
    }
    for call in calls {
        let ran = call.await.unwrap();
        assert_eq!(ran.answer, Ok(Verdict::Pass));
        assert!(ran.cost.ticks >= 2, "long enough to need a place: {}", ran.cost.ticks);
    }
    assert!(watching.looks.load(Ordering::SeqCst) >= 4 * 30);
    assert_eq!(watching.most.load(Ordering::SeqCst), 1, "two long guests ran at once");
}

/// Where a guest looks at the clock it runs.
#[derive(Default)]
struct Threads(Mutex<BTreeSet<String>>);

impl Clock for Threads {
    fn now(&self) -> u64 {
        self.0.lock().unwrap().insert(std::thread::current().name().unwrap_or_default().to_owned());
        0
    }

    fn monotonic(&self) -> u64 {
        0
    }
}

/// A guest holds its thread while it runs: those of whoever calls it are none of them, so that its spinning delays
/// neither the API nor the workers.
#[tokio::test]
async fn guests_run_on_threads_of_their_own() {
    let host = host();
    let import = r#"(import "kero:plugin/clock@0.1.0" "now" (func $now (result i64)))"#;
    let looking = hook(&host, guest(import, &format!("(drop (call $now)) {PASS}")), json!({})).await;
    let threads = Arc::new(Threads::default());
    let capabilities = Capabilities { clock: Arc::clone(&threads) as _, ..setting().capabilities };
    let setting = Setting { capabilities, dry_run: false };
    assert_eq!(host.transform(&looking, &message(), "{}", &setting).await.answer, Ok(Verdict::Pass));
    let hooks = vec![Arc::clone(&looking)];
    let chained = host.run_transforms(hooks, &message(), Default::default(), &setting).await;
    assert_eq!(chained.records[0].outcome, "pass");
    assert_eq!(*threads.0.lock().unwrap(), BTreeSet::from(["kero-hooks".to_owned()]));
    // meanwhile the caller's only thread does what else there is to do
    let spinning =
        hook(&host, guest("", SPIN), json!({"name": "spins", "limits": {"cpu_ms": 500, "wall_ms": 10000}})).await;
    let (event, mut turns) = (message(), 0u32);
    let call = host.transform(&spinning, &event, "{}", &setting);
    tokio::pin!(call);
    let ran = loop {
        tokio::select! {
            biased;
            ran = &mut call => break ran,
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    assert_eq!(ran.answer.unwrap_err().kind, ErrorKind::Cpu);
    // a hundred ticks: were it one of them, it would have no more turns than there are
    assert!(turns > 1000, "{turns}");
}
