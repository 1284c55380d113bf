//! Guests of 0.1 and of the tests' next version in one host.

use crate::chain::{End, Tries};
use crate::fixture::Fixture;
use crate::{Event, Hook, Host, HostConfig, Manifest, Setting, Verdict};
use kero_domain::EventKind;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// A core module for world `transform` of a version, with one import of it.
fn guest(version: &str, handle: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
             (import "kero:plugin/clock@{version}" "now" (func $now (result i64)))
             (memory (export "memory") 2)
             (data (i32.const 4096) "{{\"by\":\"{version}\"}}")
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)
             (func (export "kero:plugin/on-event@{version}#handle") {handle}))"#
    );
    let wit = match version {
        "0.2.0" => "tests/next/0.2.0".to_owned(),
        _ => "../../plugins/wit/0.1.0".to_owned(),
    };
    let mut resolve = wit_parser::Resolve::default();
    let text_of = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(wit).join("plugin.wit")).unwrap();
    // a later release of 0.1 is the same folder under another number
    let text_of =
        if version.starts_with("0.1.") { text_of.replace("@0.1.0;", &format!("@{version};")) } else { text_of };
    let package = resolve.push_str("plugin.wit", &text_of).unwrap();
    let world = resolve.select_world(&[package], Some("transform")).unwrap();
    let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    module
}

/// Zeroes: `pass` in 0.1, `hide` in 0.2. The event is one pointer in 0.1, nine values in 0.2.
const ZEROES: &str = "(drop (call $now)) i32.const 0";
const ONE: &str = "(param i32) (result i32)";
const FLAT: &str = "(param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)";
/// The case `replace` of each with the 14 bytes at 4096.
fn replace(case: u8) -> String {
    format!(
        "(i32.store8 (i32.const 2048) (i32.const 0)) (i32.store8 (i32.const 2052) (i32.const {case}))
         (i32.store (i32.const 2056) (i32.const 4096)) (i32.store (i32.const 2060) (i32.const 14)) (i32.const 2048)"
    )
}

fn manifest(name: &str, api: &str) -> Manifest {
    Manifest::from_json(json!({
        "name": name, "version": "1", "api": api, "entry": "a.wasm", "kind": "transform", "on": ["all"], "on_error": "dead",
    }))
    .unwrap()
}

async fn hook(host: &Host, name: &str, api: &str, wasm: Vec<u8>) -> Arc<Hook> {
    let compiled = host.compile(wasm).await.unwrap();
    Hook::new(host, manifest(name, api), compiled, &Default::default(), json!({})).unwrap()
}

fn message() -> Arc<Event> {
    Arc::new(Event::new("e", EventKind::Message, "i", 0, &json!({"text": "hi"})))
}

fn setting() -> Setting {
    Setting { capabilities: Fixture::default().capabilities(), dry_run: false }
}

#[tokio::test]
async fn a_guest_of_0_1_means_the_same_on_a_host_of_0_2() {
    let host = Host::start(HostConfig::default()).unwrap();
    let old = hook(&host, "old", "kero:plugin@0.1", guest("0.1.0", &format!("{ONE} {ZEROES}"))).await;
    let new = hook(&host, "new", "kero:plugin@0.2", guest("0.2.0", &format!("{FLAT} {ZEROES}"))).await;
    assert_eq!((old.compiled.info().wit.as_str(), new.compiled.info().wit.as_str()), ("0.1.0", "0.2.0"));
    for plugin in [&old, &new] {
        assert_eq!(host.check(plugin).await, Ok(()));
    }
    assert_eq!(host.transform(&old, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
    let hidden = Verdict::Drop { reason: "hidden".to_owned() };
    assert_eq!(host.transform(&new, &message(), "{}", &setting()).await.answer, Ok(hidden), "the same bytes");

    // in one chain, each in its own words
    let old = hook(&host, "old", "kero:plugin@0.1", guest("0.1.0", &format!("{ONE} {}", replace(2)))).await;
    let new = hook(&host, "new", "kero:plugin@0.2", guest("0.2.0", &format!("{FLAT} {}", replace(2)))).await;
    let chained = host.run_transforms(vec![new, old], &message(), Tries::new(), &setting()).await;
    assert_eq!(chained.records.iter().map(|it| it.outcome).collect::<Vec<_>>(), ["replace", "replace"]);
    let End::Go(outcome) = chained.end else { panic!("{:?}", chained.end) };
    assert_eq!(outcome.data.as_deref(), Some("{\"by\":\"0.1.0\"}"));
}

#[tokio::test]
async fn a_later_release_of_a_version_is_spoken_too() {
    let host = Host::start(HostConfig::default()).unwrap();
    let patched = hook(&host, "patched", "kero:plugin@0.1", guest("0.1.7", &format!("{ONE} {ZEROES}"))).await;
    assert_eq!(patched.compiled.info().wit, "0.1.7");
    assert_eq!(host.transform(&patched, &message(), "{}", &setting()).await.answer, Ok(Verdict::Pass));
}

#[tokio::test]
async fn the_manifest_names_the_version_that_the_artefact_has() {
    let host = Host::start(HostConfig::default()).unwrap();
    for (api, version, parameters) in [("kero:plugin@0.1", "0.2.0", FLAT), ("kero:plugin@0.2", "0.1.0", ONE)] {
        let compiled = host.compile(guest(version, &format!("{parameters} {ZEROES}"))).await.unwrap();
        let error = Hook::new(&host, manifest("x", api), compiled, &Default::default(), json!({})).unwrap_err();
        assert_eq!(error.0, format!("api = {api:?}, but the artefact was built against version {version}"));
    }
}

/// Every published folder has an adapter, and every adapter of this build a folder.
#[test]
fn every_published_folder_has_its_adapter() {
    let folders = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/wit")).unwrap();
    let mut published: Vec<String> = folders
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .map(|it| super::minor(&it).to_owned())
        .collect();
    published.push("0.2".to_owned());
    published.sort();
    published.dedup();
    assert_eq!(published, super::VERSIONS);
}
