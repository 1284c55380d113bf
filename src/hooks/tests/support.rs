//! Guests in WebAssembly text: exact, and no toolchain is needed. A core module with the WIT section of `plugins/wit`,
//! as a compiler would make it.

use kero_domain::EventKind;
use kero_hooks::capabilities::{HttpAnswer, HttpCall, HttpFailure, HttpFetch, Scope};
use kero_hooks::fixture::Fixture;
use kero_hooks::{CacheConfig, Capabilities, Event, Hook, Host, HostConfig, Manifest, Setting};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Bodies of `handle` return a pointer to the result. At address 0 there are zeroes: ok(pass).
pub const PASS: &str = "i32.const 0";

/// A core module for world `transform`: `more` holds imports first, then other definitions; `handle` is the body.
pub fn guest(more: &str, handle: &str) -> Vec<u8> {
    guest_for(
        "transform",
        more,
        &format!(r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {handle})"#),
    )
}

pub fn guest_for(world: &str, more: &str, exports: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          {more}
          (memory (export "memory") 2)
          (global $top (mut i32) (i32.const 65536))
          ;; a bump allocator that grows the memory
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
    let (resolve, package) = ours();
    with_wit(&text, &resolve, resolve.select_world(&[package], Some(world)).unwrap())
}

fn ours() -> (wit_parser::Resolve, wit_parser::PackageId) {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/wit/0.1.0")).unwrap();
    (resolve, package)
}

fn with_wit(text: &str, resolve: &wit_parser::Resolve, world: wit_parser::WorldId) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    wit_component::embed_component_metadata(&mut module, resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    module
}

/// The part of WASI that the tests import, as other toolchains' guests do.
const WASI: &str = "package t:t;
world guest {
  import wasi:cli/environment@0.2.6;
  import wasi:cli/exit@0.2.6;
  import wasi:cli/stdout@0.2.6;
  import wasi:clocks/wall-clock@0.2.6;
  import wasi:random/random@0.2.6;
  export kero:plugin/on-event@0.1.0;
}
world waiting {
  import wasi:clocks/monotonic-clock@0.2.6;
  import wasi:io/poll@0.2.6;
  export kero:plugin/on-event@0.1.0;
}
package wasi:io@0.2.6 {
  interface poll { resource pollable { block: func(); } }
  interface error { resource error { to-debug-string: func() -> string; } }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream {
      blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
    }
  }
}
package wasi:cli@0.2.6 {
  interface environment { get-environment: func() -> list<tuple<string, string>>; }
  interface exit { exit: func(status: result); }
  interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
}
package wasi:clocks@0.2.6 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.6.{pollable};
    subscribe-duration: func(when: u64) -> pollable;
  }
  interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
}
package wasi:random@0.2.6 { interface random { get-random-u64: func() -> u64; } }
";

/// A transform of another toolchain: `body` may call $environ, $exit, $stdout, $write, $now and $random.
pub fn wasi_guest(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi:cli/environment@0.2.6" "get-environment" (func $environ (param i32)))
          (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
          (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
          (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush"
            (func $write (param i32 i32 i32 i32)))
          (import "wasi:clocks/wall-clock@0.2.6" "now" (func $now (param i32)))
          (import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
          (memory (export "memory") 2)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)
          (data (i32.const 4096) "hello\n")
          (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {body}))"#
    );
    let (mut resolve, _) = ours();
    let package = resolve.push_str("wasi.wit", WASI).unwrap();
    with_wit(&text, &resolve, resolve.select_world(&[package], Some("guest")).unwrap())
}

/// A transform that waits for an hour in $wait, which `begin` has called before anything is asked.
pub fn guest_that_starts_late(begin: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $timer (param i64) (result i32)))
          (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
          (memory (export "memory") 1)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
          (func $wait (call $block (call $timer (i64.const 3600000000000))))
          {begin}
          (func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {PASS}))"#
    );
    let (mut resolve, _) = ours();
    let package = resolve.push_str("wasi.wit", WASI).unwrap();
    with_wit(&text, &resolve, resolve.select_world(&[package], Some("waiting")).unwrap())
}

/// The same plugin as a component, as other toolchains upload it.
pub fn component(module: &[u8]) -> Vec<u8> {
    wit_component::ComponentEncoder::default().module(module).unwrap().encode().unwrap()
}

/// The body of a `handle` that answers ok with this case of `verdict` and the text at the address.
pub fn answer(case: u8, at: u32, length: u32) -> String {
    format!(
        "(i32.store8 (i32.const 2048) (i32.const 0)) (i32.store8 (i32.const 2052) (i32.const {case}))
         (i32.store (i32.const 2056) (i32.const {at})) (i32.store (i32.const 2060) (i32.const {length})) (i32.const 2048)"
    )
}

/// A guest that always answers this verdict: 1 drop, 2 replace.
pub fn saying(case: u8, text: &str) -> Vec<u8> {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let data = format!(r#"(data (i32.const 4096) "{escaped}")"#);
    guest_for(
        "transform",
        "",
        &format!(
            r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {}) {data}"#,
            answer(case, 4096, u32::try_from(text.len()).unwrap())
        ),
    )
}

pub fn host() -> Host {
    Host::start(HostConfig { dist_dir: dist(), ..HostConfig::default() }).unwrap()
}

pub fn dist() -> std::path::PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist").into()
}

/// Compiled guests are kept from one run of the tests to the next.
pub fn cache() -> Option<CacheConfig> {
    Some(CacheConfig { dir: concat!(env!("CARGO_TARGET_TMPDIR"), "/hooks-compiled").into(), key: [7; 32] })
}

pub fn manifest(more: Value) -> Manifest {
    let mut manifest = json!({
        "name": "tried", "version": "1", "api": "kero:plugin@0.1", "entry": "tried.wasm", "kind": "transform",
        "on": ["all"], "on_error": "raw",
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Manifest::from_json(manifest).unwrap()
}

/// A plugin whose every wish is granted.
pub async fn hook(host: &Host, wasm: Vec<u8>, more: Value) -> Arc<Hook> {
    let manifest = manifest(more);
    let given = manifest.grants.clone();
    let compiled = host.compile(wasm).await.unwrap();
    Hook::new(host, manifest, compiled, &given, json!({})).unwrap()
}

pub fn everything() -> Value {
    json!({"kv": "1MiB", "http": ["https://api.example/*"], "send": {}})
}

pub fn event(kind: EventKind, data: &Value) -> Arc<Event> {
    Arc::new(Event::new("e1", kind, "shop", 1_767_268_800_000, data))
}

pub fn message() -> Arc<Event> {
    event(EventKind::Message, &json!({"text": "hello", "from": "1@s.whatsapp.net"}))
}

pub fn setting() -> Setting {
    Setting { capabilities: Fixture::default().capabilities(), dry_run: false }
}

/// An endpoint that never answers, however long it is allowed.
pub struct Never;

#[async_trait::async_trait]
impl HttpFetch for Never {
    async fn fetch(&self, _: &Scope, _: HttpCall) -> Result<HttpAnswer, HttpFailure> {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Err(HttpFailure::Timeout)
    }
}

pub fn never_answering() -> Setting {
    let quiet = Fixture::default().capabilities();
    Setting { capabilities: Capabilities { http: Arc::new(Never), ..quiet }, dry_run: false }
}
