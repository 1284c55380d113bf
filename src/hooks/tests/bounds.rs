//! Bounds that a well-behaved hook may use to the last, and no further.

use crate::support::*;
use kero_hooks::capabilities::{HttpAnswer, HttpCall, HttpFailure, HttpFetch, Scope};
use kero_hooks::fixture::Fixture;
use kero_hooks::{Capabilities, Delivery, ErrorKind, Host, HostConfig, Request, Setting, Verdict};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Until then a call that is to be stopped is stopped, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Before a guest is asked anything it may call imports: a wait there is within its time, too, and its places come back.
#[tokio::test]
async fn a_start_that_waits_ends_with_the_wall_clock() {
    let host = Host::start(HostConfig { calls: 3, calls_per_plugin: 2, ..HostConfig::default() }).unwrap();
    for begin in ["(start $wait)", r#"(export "_initialize" (func $wait))"#] {
        let late = hook(&host, guest_that_starts_late(begin), json!({"limits": {"wall_ms": 80}})).await;
        for n in 0..8 {
            let (event, setting) = (message(), setting());
            let call = host.transform(&late, &event, "{}", &setting);
            let ran = tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("{begin}: call {n} hangs"));
            let error = ran.answer.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Wall, "{begin}: {error}");
            assert!(ran.cost.ticks <= 2, "waiting is no CPU time: {}", ran.cost.ticks);
        }
        assert_eq!(late.queue_depth(), 0);
    }
    let good = hook(&host, guest("", PASS), json!({"name": "good"})).await;
    assert_eq!(host.transform(&good, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
}

/// Names of functions and texts of errors are the guest's, as long as it likes; what is stored of them is not.
#[tokio::test]
async fn what_an_error_says_is_cut() {
    let host = host();
    let name = "n".repeat(90_000);
    let deep = format!("(func ${name} (param i32) (result i32) (i32.add (call ${name} (local.get 0)) (i32.const 1)))");
    let recursing = guest_for(
        "transform",
        "",
        &format!(
            r#"{deep} (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) (call ${name} (i32.const 1)))"#
        ),
    );
    // err(reject(90 KB)), behind what the host wrote
    let refusing = "(drop (memory.grow (i32.const 4))) (i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 1))
        (i32.store (i32.const 2056) (i32.const 131072)) (i32.store (i32.const 2060) (i32.const 90000)) i32.const 2048";
    for (wasm, kind) in [(recursing, ErrorKind::Stack), (guest("", refusing), ErrorKind::Reject)] {
        let bad = hook(&host, wasm, json!({})).await;
        let error = host.transform(&bad, &message(), "{}", &setting()).await.answer.unwrap_err();
        assert_eq!(error.kind, kind, "{}", &error.detail[..error.detail.len().min(200)]);
        assert_eq!(error.detail.len(), 4096, "{kind}: to the last byte");
    }
}

/// The budget is counted, not timed: the guest is stopped in the tick behind its last.
#[tokio::test]
async fn the_cpu_budget_is_kept_to_the_tick() {
    let host = host();
    for (budget, ticks) in [(50, 11), (52, 12), (100, 21)] {
        let more = json!({"limits": {"cpu_ms": budget, "wall_ms": 10000}});
        let spinning = hook(&host, guest("", "(loop $on (br $on)) unreachable"), more).await;
        let ran = host.transform(&spinning, &message(), "{}", &setting()).await;
        assert_eq!(ran.answer.unwrap_err().kind, ErrorKind::Cpu);
        assert_eq!(ran.cost.ticks, ticks, "{budget} ms in ticks of 5 ms");
    }
}

/// A guest whose frames have some 4 KiB each: values that are read before the inner call and used after it.
fn recursing(depth: u32) -> Vec<u8> {
    const VALUES: usize = 512;
    let locals = "(local i64)".repeat(VALUES);
    let read: String =
        (0..VALUES).map(|n| format!("(local.set {} (i64.load (i32.const {})))", n + 1, 4096 + 8 * n)).collect();
    let used: String = (0..VALUES)
        .map(|n| format!("(i64.store (i32.const {}) (i64.add (local.get {}) (i64.const 1)))", 4096 + 8 * n, n + 1))
        .collect();
    let deep = format!(
        "(func $deep (param i32) {locals} {read}
           (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))))
           {used})"
    );
    guest_for(
        "transform",
        "",
        &format!(
            r#"{deep} (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32)
                 (call $deep (i32.const {depth})) i32.const 0)"#
        ),
    )
}

/// One MiB, which scripts need: wasmtime's own limit is half of it.
#[tokio::test]
async fn the_stack_is_as_large_as_it_is_said_to_be() {
    let host = host();
    let more = json!({"limits": {"cpu_ms": 1000, "wall_ms": 10000}});
    let deep = hook(&host, recursing(180), more.clone()).await;
    assert_eq!(host.transform(&deep, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass), "740 KiB");
    let deeper = hook(&host, recursing(260), more).await;
    let error = host.transform(&deeper, &message(), "{}", &setting()).await.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Stack, "1060 KiB: {error}");
}

#[tokio::test]
async fn a_table_ends_at_its_limit() {
    let host = host();
    let grows = |elements: u32| {
        let body = format!(
            "(if (i32.eq (table.grow $t (ref.null func) (i32.const {elements})) (i32.const -1)) (then unreachable)) {PASS}"
        );
        guest_for(
            "transform",
            "",
            &format!(
                r#"(table $t 0 funcref) (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body})"#
            ),
        )
    };
    let full = hook(&host, grows(60_000), json!({})).await;
    assert_eq!(host.transform(&full, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
    let over = hook(&host, grows(60_001), json!({})).await;
    let error = host.transform(&over, &message(), "{}", &setting()).await.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Memory, "{error}");
    assert!(error.detail.contains("table limit of 60000 elements"), "{error}");
}

/// Keeps what it is asked, and answers with so many bytes.
struct Answering {
    bytes: usize,
    asked: Mutex<Vec<HttpCall>>,
}

#[async_trait::async_trait]
impl HttpFetch for Answering {
    async fn fetch(&self, _: &Scope, call: HttpCall) -> Result<HttpAnswer, HttpFailure> {
        self.asked.lock().unwrap().push(call);
        Ok(HttpAnswer { status: 200, headers: Vec::new(), body: vec![b'x'; self.bytes] })
    }
}

const FETCH: &str = r#"(import "kero:plugin/http@0.1.0" "fetch"
    (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// Fetches as often as there are times to wait in milliseconds (0: says none), and traps unless the last answer is an
/// error of this case, or none.
fn fetching(waits: &[u32], error: Option<u8>) -> Vec<u8> {
    let url = "https://api.example/a";
    let calls: String = waits
        .iter()
        .map(|wait| {
            format!(
                "(call $fetch (i32.const 4096) (i32.const 3) (i32.const 4112) (i32.const {}) (i32.const 0) (i32.const 0)
                   (i32.const 0) (i32.const 0) (i32.const {}) (i32.const {wait}) (i32.const 3072))",
                url.len(),
                u8::from(*wait > 0)
            )
        })
        .collect();
    let check = match error {
        None => "(i32.load8_u (i32.const 3072))".to_owned(),
        Some(case) => format!(
            "(i32.or (i32.ne (i32.load8_u (i32.const 3072)) (i32.const 1))
                     (i32.ne (i32.load8_u (i32.const 3076)) (i32.const {case})))"
        ),
    };
    guest_for(
        "transform",
        FETCH,
        &format!(
            r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32)
                 {calls} (if {check} (then unreachable)) {PASS})
               (data (i32.const 4096) "GET") (data (i32.const 4112) "{url}")"#
        ),
    )
}

const DENIED: u8 = 0;
const TOO_LARGE: u8 = 2;

#[tokio::test]
async fn requests_of_a_call_are_five_of_two_seconds_and_a_mebibyte() {
    let host = host();
    for (waits, bytes, error, made) in [
        (vec![0; 5], 1 << 20, None, 5),
        (vec![0; 6], 0, Some(DENIED), 5),
        (vec![0], (1 << 20) + 1, Some(TOO_LARGE), 1),
        (vec![0, 150, 9000], 0, None, 3),
    ] {
        let answering = Arc::new(Answering { bytes, asked: Mutex::default() });
        let capabilities = Capabilities { http: Arc::clone(&answering) as _, ..setting().capabilities };
        let caller = hook(&host, fetching(&waits, error), json!({"grants": everything()})).await;
        let ran = host.transform(&caller, &message(), "{}", &Setting { capabilities, dry_run: false }).await;
        assert_eq!(ran.answer, Ok(Verdict::Pass), "{waits:?} {bytes}");
        let asked = answering.asked.lock().unwrap();
        assert_eq!(asked.len(), made, "{waits:?}");
        for (call, wait) in asked.iter().zip(&waits) {
            let expected = if *wait == 150 { 150 } else { 2000 };
            assert_eq!((call.timeout.as_millis(), call.response_limit), (expected, 1 << 20));
        }
    }
}

const SEND: &str = r#"(import "kero:plugin/send@0.1.0" "text" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// What a hook asks for has the same name in every try of a call, and another in every other call.
#[tokio::test]
async fn calls_of_a_delivery_name_what_they_ask_for_by_delivery_and_step() {
    let host = host();
    let send = "(call $send (i32.const 4112) (i32.const 12) (i32.const 4128) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3072))";
    let wasm = guest_for("delivery", &format!("{SEND} {FETCH}"), &sending_delivery(send));
    let hook = hook(&host, wasm, json!({"kind": "delivery", "grants": everything()})).await;
    let event = message();
    let mut names = std::collections::BTreeSet::new();
    let fixture = Arc::new(Fixture::default());
    let setting = Setting { capabilities: fixture.shared(), dry_run: false };
    let request = Request { method: "POST".into(), path: "/".into(), headers: Vec::new(), body: Vec::new() };
    for id in ["d1", "d2"] {
        for attempt in [None, Some(1), Some(2)] {
            let delivery = Delivery { event: &event, data: "{}", endpoint: "x", id, attempt };
            let mut seen = Vec::new();
            for _ in 0..2 {
                let ran = match attempt {
                    None => {
                        let ran = host.shape(&hook, delivery, &request, &setting).await;
                        (ran.answer.map(drop), ran.effects)
                    }
                    Some(_) => {
                        let response = kero_hooks::Response { status: 500, headers: Vec::new(), body: Vec::new() };
                        let usual = kero_hooks::Judgement::Success;
                        let ran = host.judge(&hook, delivery, &request, &response, &usual, &setting).await;
                        (ran.answer.map(drop), ran.effects)
                    }
                };
                assert_eq!(ran.0, Ok(()));
                seen.push(ran.1.sends[0].correlation_id.clone());
            }
            assert_eq!(seen[0], seen[1], "the same in every try");
            assert!(names.insert(seen.remove(0)), "{names:?}");
        }
    }
    let expected = ["d1.tried.judge-1.1", "d1.tried.judge-2.1", "d1.tried.shape.1"];
    assert_eq!(names.iter().take(3).map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Both functions of a delivery hook, which send first; the request stays what it is, and every answer is a success.
fn sending_delivery(send: &str) -> String {
    // shape gets the event and the request in memory, at its parameter, and answers ok(request): PUT /
    format!(
        r#"(func (export "kero:plugin/on-delivery@0.1.0#shape") (param i32) (result i32) {send}
             (i32.store8 (i32.const 2048) (i32.const 0))
             (i32.store (i32.const 2052) (i32.const 4200)) (i32.store (i32.const 2056) (i32.const 3))
             (i32.store (i32.const 2060) (i32.const 4208)) (i32.store (i32.const 2064) (i32.const 1))
             (i32.store (i32.const 2068) (i32.const 0)) (i32.store (i32.const 2072) (i32.const 0))
             (i32.store (i32.const 2076) (i32.const 0)) (i32.store (i32.const 2080) (i32.const 0)) i32.const 2048)
           (func (export "kero:plugin/on-delivery@0.1.0#judge") (param i32) (result i32) {send} i32.const 0)
           (data (i32.const 4112) "+15557654321") (data (i32.const 4128) "hi")
           (data (i32.const 4200) "PUT") (data (i32.const 4208) "/")"#
    )
}
