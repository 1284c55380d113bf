//! What is accepted as a plugin, what is not and why, and the cache of compiled code.

use crate::support::*;
use kero_hooks::fixture::Fixture;
use kero_hooks::{
    CacheConfig, CompileError, ErrorKind, Hook, Host, HostConfig, Kind, ManifestError, Maxima, Setting, Verdict,
};
use serde_json::json;
use std::time::Duration;

/// Compiling a large module takes a second or two; two hundred of them take longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

async fn refused(wasm: Vec<u8>) -> CompileError {
    host().compile(wasm).await.unwrap_err()
}

#[tokio::test]
async fn a_core_module_becomes_a_component() {
    let compiled = host().compile(guest("", PASS)).await.unwrap();
    let info = compiled.info();
    assert_eq!((info.kinds.as_slice(), info.wit.as_str()), ([Kind::Transform].as_slice(), "0.1.0"));
    assert!(info.bytes > 0 && info.hash.len() == 64);
    assert!(info.wants().is_empty());
    let wants = guest(r#"(import "kero:plugin/kv@0.1.0" "delete" (func $delete (param i32 i32 i32)))"#, PASS);
    assert_eq!(host().compile(wants).await.unwrap().info().wants(), vec!["kv"]);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    assert_eq!(refused(b"#!/bin/sh\necho".to_vec()).await, CompileError::NotWasm);
    assert_eq!(refused(Vec::new()).await, CompileError::NotWasm);
    assert_eq!(refused(wat::parse_str("(module)").unwrap()).await, CompileError::NoWitSection);
    assert!(matches!(refused(vec![0; (4 << 20) + 1]).await, CompileError::TooLarge { limit, .. } if limit == 4 << 20));
    let mut broken = guest("", PASS);
    let length = broken.len();
    broken.truncate(length - 40);
    assert!(matches!(refused(broken).await, CompileError::Componentize(_) | CompileError::NoWitSection));
    let garbage = [b"\0asm\x0d\0\x01\0".as_slice(), &[0xff; 64]].concat();
    assert!(matches!(refused(garbage).await, CompileError::Invalid(_)));
    assert_eq!(refused(wat::parse_str("(component)").unwrap()).await, CompileError::NoExport);
}

#[tokio::test]
async fn an_unknown_import_is_named() {
    for import in ["wasi:http/outgoing-handler@0.2.0", "acme:bank/vault@1.0.0"] {
        let component = wat::parse_str(format!(
            r#"(component
                 (import "{import}" (instance $i (export "open" (func))))
                 (core module $m (func (export "f")))
                 (core instance $c (instantiate $m))
                 (func $f (canon lift (core func $c "f")))
                 (instance $e (export "handle" (func $f)))
                 (export "kero:plugin/on-event@0.1.0" (instance $e)))"#
        ))
        .unwrap();
        let error = refused(component).await;
        assert!(matches!(&error, CompileError::UnknownImport { import: named, .. } if named == import), "{error}");
    }
}

#[tokio::test]
async fn a_version_that_this_host_does_not_know_is_named() {
    let component = |version: &str| {
        wat::parse_str(format!(
            r#"(component
                 (core module $m (func (export "f")))
                 (core instance $c (instantiate $m))
                 (func $f (canon lift (core func $c "f")))
                 (instance $e (export "handle" (func $f)))
                 (export "kero:plugin/on-event@{version}" (instance $e)))"#
        ))
        .unwrap()
    };
    let error = refused(component("0.2.0")).await.to_string();
    assert!(error.contains("kero:plugin/on-event@0.2.0") && error.contains("kero:plugin/on-event@0.1.x"), "{error}");
    // the right name with the wrong type
    let host = host();
    let error = host.check(&hook(&host, component("0.1.0"), json!({})).await).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Link);
    assert!(error.detail.contains("type mismatch"), "{error}");
    assert_eq!(host.check(&hook(&host, guest("", PASS), json!({})).await).await, Ok(()));
}

#[tokio::test]
async fn a_guest_of_another_toolchain_gets_a_closed_wasi() {
    let host = host();
    let body = r#"(call $environ (i32.const 64)) (if (i32.load (i32.const 68)) (then unreachable))
        (call $now (i32.const 80)) (if (i64.ne (i64.load (i32.const 80)) (i64.const 1767268800)) (then unreachable))
        (if (i64.eq (call $random) (call $random)) (then unreachable))
        (call $write (call $stdout) (i32.const 4096) (i32.const 6) (i32.const 96))
        i32.const 0"#;
    let plugin = hook(&host, wasi_guest(body), json!({})).await;
    let capabilities = Fixture { now: 1_767_268_800_000, ..Fixture::default() }.capabilities();
    let ran = host.transform(&plugin, &message(), "{}", &Setting { capabilities, dry_run: false }).await;
    assert_eq!(ran.answer, Ok(Verdict::Pass));
    assert_eq!(ran.logs.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), vec!["hello"]);

    let leaving = hook(&host, wasi_guest("(call $exit (i32.const 0)) i32.const 0"), json!({})).await;
    let error = host.transform(&leaving, &message(), "{}", &setting()).await.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Trap);
    assert!(error.detail.contains("wasi:cli/exit#exit is closed to hooks"), "{error}");
}

#[tokio::test]
async fn the_kind_must_fit_the_exports() {
    let host = host();
    let compiled = host.compile(guest("", PASS)).await.unwrap();
    let delivery = manifest(json!({"kind": "delivery"}));
    let error = Hook::new(&host, delivery, compiled, &Default::default(), json!({})).unwrap_err();
    assert!(matches!(&error, ManifestError(text) if text.contains("on-event@0.1.0")), "{error}");
}

fn cached(dir: &std::path::Path, key: u8) -> Host {
    let cache = Some(CacheConfig { dir: dir.to_owned(), key: [key; 32] });
    Host::start(HostConfig { cache, ..HostConfig::default() }).unwrap()
}

#[tokio::test]
async fn compiled_code_is_kept_and_never_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let wasm = guest("", PASS);
    assert!(!cached(&dir, 1).compile(wasm.clone()).await.unwrap().info().from_cache);
    let again = cached(&dir, 1);
    let compiled = again.compile(wasm.clone()).await.unwrap();
    assert!(compiled.info().from_cache);
    let hook = Hook::new(&again, manifest(json!({})), compiled, &Default::default(), json!({})).unwrap();
    assert_eq!(again.transform(&hook, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));

    assert!(!cached(&dir, 2).compile(wasm.clone()).await.unwrap().info().from_cache, "another installation's key");
    assert!(cached(&dir, 2).compile(wasm.clone()).await.unwrap().info().from_cache);

    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let written = std::fs::read(&file).unwrap();
    for at in [0, 40, written.len() / 2, written.len() - 1] {
        let mut changed = written.clone();
        changed[at] ^= 1;
        std::fs::write(&file, changed).unwrap();
        assert!(!cached(&dir, 2).compile(wasm.clone()).await.unwrap().info().from_cache, "byte {at} changed");
    }
    assert!(cached(&dir, 2).compile(wasm.clone()).await.unwrap().info().from_cache, "written anew");
    // machine code is no artefact
    assert_eq!(refused(std::fs::read(&file).unwrap()[32..].to_vec()).await, CompileError::Precompiled);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&dir).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }
}

/// What is sealed is this code under this name: a file in another's place is not run either.
#[tokio::test]
async fn compiled_code_of_another_artefact_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let artefacts = [guest("", PASS), saying(1, "dropped")];
    let mut files = Vec::new();
    for wasm in &artefacts {
        cached(&dir, 1).compile(wasm.clone()).await.unwrap();
        let mut all = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
        let new = all.find(|file| !files.contains(file)).unwrap();
        files.push(new);
    }
    let aside = folder.path().join("aside");
    for (from, to) in [(&files[0], &aside), (&files[1], &files[0]), (&aside, &files[1])] {
        std::fs::rename(from, to).unwrap();
    }
    let host = cached(&dir, 1);
    for (wasm, says) in artefacts.iter().zip([Verdict::Pass, Verdict::Drop { reason: "dropped".into() }]) {
        let compiled = host.compile(wasm.clone()).await.unwrap();
        assert!(!compiled.info().from_cache);
        let hook = Hook::new(&host, manifest(json!({})), compiled, &Default::default(), json!({})).unwrap();
        assert_eq!(host.transform(&hook, &message(), "{}", &setting()).await.answer, Ok(says));
    }
}

/// What another toolchain made a component of is taken as it is.
#[tokio::test]
async fn a_component_is_a_plugin() {
    let host = host();
    let wasm = component(&saying(1, "by a component"));
    let plugin = hook(&host, wasm, json!({})).await;
    assert_eq!(host.check(&plugin).await, Ok(()));
    let ran = host.transform(&plugin, &message(), "{}", &setting()).await;
    assert_eq!(ran.answer, Ok(Verdict::Drop { reason: "by a component".into() }));
}

#[tokio::test]
async fn a_missing_runner_names_the_command() {
    let host = Host::start(HostConfig { dist_dir: "nowhere".into(), ..HostConfig::default() }).unwrap();
    let error = host.compile_script("hook.js", b"export default () => null".to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("plugins/build"), "{error}");
    let error = host.compile_script("hook.js", vec![0xff, 0xfe]).await.unwrap_err();
    assert_eq!(error, CompileError::NotText);
}

/// A module that takes long to compile; each number of functions is another.
fn large(functions: usize) -> Vec<u8> {
    let work = "(local.set 0 (i64.add (i64.mul (local.get 0) (i64.const 31)) (i64.rotl (local.get 0) (i64.const 7))))";
    let functions: String = (0..functions)
        .map(|n| format!("(func $f{n} (param i64) (result i64) {} (local.get 0))\n", work.repeat(60)))
        .collect();
    let handle = format!(r#"(func (export "kero:plugin/on-event@0.1.0#handle") (param i32) (result i32) {PASS})"#);
    guest_for("transform", "", &format!("{functions} {handle}"))
}

/// The compiler cannot be stopped. What nobody waits for any more is not kept, and what it has not begun it does not begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_not_compiled_or_not_kept() {
    const GONE: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let host = cached(&dir, 1);
    let first = large(400);
    let others = large(401);
    let gone = tokio::time::timeout(Duration::from_millis(20), host.compile(first)).await;
    assert!(gone.is_err(), "it takes longer than that");
    for _ in 0..GONE {
        // each in the queue behind the first
        let gone = tokio::time::timeout(Duration::ZERO, host.compile(others.clone())).await;
        assert!(gone.is_err());
    }
    let small = tokio::time::timeout(PATIENCE, host.compile(guest("", PASS))).await;
    small.expect("the others were compiled first").unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "the small one's");
}

/// Compiling takes memory and a core: a small artefact waits for the large one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_artefact_is_compiled_at_a_time() {
    let large = large(400);
    let host = host();
    let order = std::sync::Mutex::new(Vec::new());
    let compile = async |name: &'static str, wasm: Vec<u8>| {
        host.compile(wasm).await.unwrap();
        order.lock().unwrap().push(name);
    };
    // looked at in this order when both are done
    tokio::join!(biased; compile("large", large), compile("small", guest("", PASS)));
    assert_eq!(*order.lock().unwrap(), ["large", "small"]);
}

/// A machine that does not give the pool its addresses runs hooks all the same.
#[tokio::test]
async fn without_a_pool_instances_are_made_on_demand() {
    // more than there are addresses
    let maxima = Maxima { memory: 1 << 40, ..Maxima::default() };
    let host = Host::start(HostConfig { maxima, ..HostConfig::default() }).unwrap();
    assert!(!host.is_pooled() && Host::start(HostConfig::default()).unwrap().is_pooled());
    let plugin = hook(&host, guest("", PASS), json!({})).await;
    for _ in 0..3 {
        assert_eq!(host.transform(&plugin, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
    }
    let bomb = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let bomb = hook(&host, guest("", bomb), json!({"limits": {"memory": "8MiB"}})).await;
    let error = host.transform(&bomb, &message(), "{}", &setting()).await.answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Memory, "{error}");
}
