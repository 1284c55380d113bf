//! `kero plugin build`, `test` and `push`, as far as they stand on what surrounds them: toolchains, cargo's settings,
//! variables of the environment; and runs that repeat to the last byte.

use super::author::{Given, build_guest, fails, fails_with, fine, fine_with, guest_dir, has_target};
use super::options;
use crate::support::{KEY, Kero, simulator};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A compiler by another name: `rustc` with these words before its own.
fn rustc(here: &Path, begin: &str) -> String {
    let script = here.join("rustc-of-mine");
    std::fs::write(&script, format!("#!/bin/sh\n{begin} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    script.display().to_string()
}

/// What makes `kero plugin build` work here: nothing with rustup's target; else Debian's compiler, with its library from
/// source, by cargo's own variables.
fn toolchain(here: &Path) -> Vec<(&'static str, String)> {
    let mut given = vec![("CARGO_TARGET_DIR", format!("{}/guest", guest_dir()))];
    if has_target() {
        return given;
    }
    let tools = PathBuf::from(guest_dir()).join("toolchain");
    if !tools.join("done").exists() {
        let output = build_guest(here, ".");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let libraries = std::fs::read_dir(tools.join("usr/lib")).unwrap().flatten().map(|it| it.path());
    let libraries = libraries.into_iter().find(|path| holds(path, "libLLVM")).expect("the library of its compiler");
    let compiler = tools.join("usr/bin/rustc");
    let begin = format!("LD_LIBRARY_PATH={} exec {}", libraries.display(), compiler.display());
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let rustlib = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib/rustlib");
    let linker = std::fs::read_dir(rustlib).unwrap().flatten().map(|it| it.path().join("bin/rust-lld"));
    let linker = linker.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("wasm-ld-22"));
    given.extend([
        ("RUSTC", rustc(here, &begin)),
        ("RUSTC_BOOTSTRAP", "1".to_owned()),
        ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort".to_owned()),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.display().to_string()),
    ]);
    given
}

fn holds(folder: &Path, begin: &str) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with(begin))
}

/// Looks at the clock and throws the dice.
const DICE: &str = r#"use kero_plugin::{Body, Context, Event, Failure, Verdict, clock, random};
kero_plugin::transform!(handle);
fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    let Body::Message(_) = &event.body else { return Ok(Verdict::Pass) };
    let mut data = kero_plugin::data(&event)?;
    data["now"] = clock().into();
    data["dice"] = vec![random().to_string(), random().to_string()].into();
    Ok(Verdict::data(&data))
}
"#;

/// What a run writes as the expectation, with nothing to go by, and what it says of the cost.
fn written(here: &Path, plugin: &str) -> (Vec<u8>, String) {
    let verdict = here.join(plugin).join("cases/first/verdict.json");
    std::fs::remove_file(&verdict).unwrap();
    let said = fine(here, &format!("kero plugin test {plugin} --update"));
    (std::fs::read(verdict).unwrap(), cost(&said))
}

fn cost(said: &str) -> String {
    said.split("fuel ")
        .nth(1)
        .unwrap_or_else(|| panic!("no cost: {said}"))
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned()
}

/// In a workspace, under a name of its own: cargo puts the module elsewhere, and says where.
#[test]
fn a_plugin_in_rust_is_built_wherever_cargo_puts_it() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new dice --lang rust");
    let mine = here.join("dice");
    let given = toolchain(&mine);
    let build = |plugin: &str| fine_with(here, &format!("kero plugin build {plugin}"), &given);
    let artefact = mine.join("dice.wasm");
    let _ = std::fs::remove_file(&artefact);
    let said = build("dice");
    let made = std::fs::read(&artefact).unwrap();
    assert!(made.starts_with(b"\0asm") && said.contains(&format!("dice.wasm: {} bytes", made.len())), "{said}");
    assert!(fine(here, "kero plugin test dice").contains("dice 0.1.0: 1 cases passed"));

    let cargo = std::fs::read_to_string(mine.join("Cargo.toml")).unwrap();
    let renamed = cargo.replace("[lib]", "[lib]\nname = \"another_name\"").replace("[workspace]", "");
    std::fs::write(mine.join("Cargo.toml"), &renamed).unwrap();
    let (_, profile) = renamed.split_once("[profile.release]").unwrap();
    let workspace = "[workspace]\nmembers = [\"dice\"]\nexclude = [\"dice/kero\"]\nresolver = \"3\"\n";
    std::fs::write(here.join("Cargo.toml"), format!("{workspace}[profile.release]{profile}")).unwrap();
    std::fs::write(mine.join("src/lib.rs"), DICE).unwrap();
    build("dice");
    assert_ne!(std::fs::read(&artefact).unwrap(), made, "what was just built");
    // the clock stands, the dice fall the same, and the work costs the same, in every process
    let (first, second) = (written(here, "dice"), written(here, "dice"));
    assert_eq!(first, second);
    let verdict: serde_json::Value = serde_json::from_slice(&first.0).unwrap();
    assert_eq!(verdict["data"]["now"], 1_767_268_800_000_u64, "the event's time");
    assert_ne!(verdict["data"]["dice"][0], verdict["data"]["dice"][1], "but they fall");

    // what goes wrong is told with what to do, and the artefact of the last build stays
    let made = std::fs::read(&artefact).unwrap();
    std::fs::write(mine.join("Cargo.toml"), renamed.replace("\"cdylib\"", "\"rlib\"")).unwrap();
    let said = fails_with(here, "kero plugin build dice", &given);
    assert!(said.contains("dice: no WebAssembly was built") && said.contains("crate-type = [\"cdylib\"]"), "{said}");
    std::fs::write(mine.join("Cargo.toml"), &renamed).unwrap();
    std::fs::write(mine.join("src/lib.rs"), DICE.replace("clock()", "clok()")).unwrap();
    let said = fails_with(here, "kero plugin build dice", &given);
    assert!(said.contains("src/lib.rs:6") && said.contains("dice: cargo build failed; see above"), "{said}");
    assert_eq!(std::fs::read(&artefact).unwrap(), made);
}

/// Without a toolchain, or with one that lacks the target, the answer is what to install.
#[test]
fn a_missing_toolchain_is_told_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new shop --lang rust");
    let said = fails_with(here, "kero plugin build shop", &[("PATH", here.display().to_string())]);
    assert!(said.contains("rustc cannot be started; install Rust (https://rustup.rs)"), "{said}");
    // a compiler without the target, which cargo would use
    let bare = here.join("bare");
    std::fs::create_dir(&bare).unwrap();
    let mine = rustc(here, &format!("exec rustc --sysroot {}", bare.display()));
    let said = fails_with(here, "kero plugin build shop", &[("RUSTC", mine.clone())]);
    for part in ["wasm32-unknown-unknown is missing", "rustup target add wasm32-unknown-unknown", "plugins/build"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // no cargo to build the library with
    let without: &Given = &[("PATH", here.display().to_string()), ("CARGO_UNSTABLE_BUILD_STD", "std".to_owned())];
    let said = fails_with(here, "kero plugin build shop", without);
    assert!(said.contains("cargo cannot be started; install Rust (https://rustup.rs)"), "{said}");
    // what is no plugin in Rust is not built by cargo, and a script not at all
    std::fs::remove_file(here.join("shop/Cargo.toml")).unwrap();
    let said = fails(here, "kero plugin build shop");
    assert!(said.contains("shop.wasm is built by your own toolchain"), "{said}");
    fine(here, "kero plugin new script --lang js");
    let script = std::fs::read(here.join("script/hook.js")).unwrap();
    let said = fine_with(here, "kero plugin build script", &[("PATH", here.display().to_string())]);
    assert_eq!(said, "script: hook.js needs no build\n");
    assert_eq!(std::fs::read(here.join("script/hook.js")).unwrap(), script, "it is the artefact as it is");
}

const CASE: &str = "cases/first/verdict.json";

#[test]
fn runs_of_a_script_repeat_to_the_last_byte() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new dice");
    let script = "export default (event) => {
        event.data.now = [Date.now(), new Date().toISOString()];
        event.data.dice = [Math.random(), Math.random()];
        event.data.shuffled = Object.keys(event.data).sort(() => Math.random() - 0.5);
        return event; }";
    std::fs::write(here.join("dice/hook.js"), script).unwrap();
    let (first, second) = (written(here, "dice"), written(here, "dice"));
    assert_eq!(first, second);
    let verdict: serde_json::Value = serde_json::from_slice(&first.0).unwrap();
    assert_eq!(verdict["data"]["now"][1], "2026-01-01T12:00:00.000Z", "the event's time");
    assert_ne!(verdict["data"]["dice"][0], verdict["data"]["dice"][1]);
}

/// `fuel_max`: a change that costs more than the author allowed fails; `--update` allows what it costs now.
#[test]
fn a_test_fails_that_costs_more_than_it_may() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new shop");
    let expect = here.join("shop").join(CASE);
    let script = |turns: u32| {
        format!("export default (event) => {{ let n = 0; while (n < {turns}) n++; return {{ drop: 'x' }}; }}")
    };
    let hook = here.join("shop/hook.js");
    std::fs::write(&hook, script(100)).unwrap();
    let said = fine(here, "kero plugin test shop --update");
    let used: u64 = cost(&said).parse().unwrap();
    let bounds = |most: u64| std::fs::write(&expect, format!(r#"{{"verdict": "drop", "fuel_max": {most}}}"#)).unwrap();
    let bound = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&expect).unwrap()).unwrap();
    bounds(used);
    fine(here, "kero plugin test shop");
    bounds(used - 1);
    let said = fails(here, "kero plugin test shop");
    let told = format!("fuel: {used} used, at most {} expected", used - 1);
    assert!(said.contains("FAIL  first") && said.contains(&told), "{said}");
    // a change that costs more
    bounds(used);
    std::fs::write(&hook, script(1000)).unwrap();
    let said = fails(here, "kero plugin test shop");
    assert!(said.contains(&format!("at most {used} expected")), "{said}");
    assert_eq!(bound()["fuel_max"], used, "nothing is written without being asked for");
    fine(here, "kero plugin test shop --update");
    let now = bound();
    assert!(now["fuel_max"].as_u64().unwrap() > used && now["reason"] == "x", "{now}");
    fine(here, "kero plugin test shop");
    // a bound that is kept stays, whatever else is written
    std::fs::write(&expect, r#"{"verdict": "pass", "fuel_max": 123456789}"#).unwrap();
    fine(here, "kero plugin test shop --update");
    assert_eq!((&bound()["verdict"], &bound()["fuel_max"]), (&"drop".into(), &123_456_789.into()));
}

/// The variables that are documented, each where it counts.
#[test]
fn the_environment_has_its_say_in_tests() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new shop");
    let with = |name: &'static str, value: String| -> [(&'static str, String); 1] { [(name, value)] };
    let empty = here.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let none = with("KERO_HOOKS__DIST_DIR", empty.display().to_string());
    let said = fails_with(here, "kero plugin test shop", &none);
    assert!(said.contains("plugins/build") && said.contains("empty/runner-js.wasm"), "{said}");
    let script = std::fs::read_to_string(here.join("shop/hook.js")).unwrap();
    std::fs::write(here.join("shop/hook.js"), format!("{script}\n// {}", "x".repeat(4096))).unwrap();
    let said = fails_with(here, "kero plugin test shop", &with("KERO_HOOKS__MAX_ARTEFACT", "4096".to_owned()));
    assert!(said.contains("at most 4096"), "{said}");
    // compiled code is kept below it, with a key of its own
    let cache = with("XDG_CACHE_HOME", here.join("cache").display().to_string());
    fine_with(here, "kero plugin test shop", &cache);
    let kept = here.join("cache/kero/compiled-hooks");
    let files = || -> Vec<PathBuf> { std::fs::read_dir(&kept).unwrap().flatten().map(|it| it.path()).collect() };
    let (key, code): (Vec<PathBuf>, Vec<PathBuf>) = files().into_iter().partition(|path| path.ends_with("key"));
    assert_eq!((key.len(), code.len()), (1, 1));
    // and taken as it is by the next run
    let written = std::fs::metadata(&code[0]).unwrap().modified().unwrap();
    fine_with(here, "kero plugin test shop", &cache);
    assert_eq!(files().len(), 2);
    assert_eq!(std::fs::metadata(&code[0]).unwrap().modified().unwrap(), written, "not compiled again");
}

/// `push` finds gateway and key in the environment, and gives grants only when it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_gives_grants_when_it_is_told_to() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new shop");
    let toml = std::fs::read_to_string(here.join("shop/plugin.toml")).unwrap();
    std::fs::write(here.join("shop/plugin.toml"), toml.replace("# kv = \"1MiB\"", "kv = \"1MiB\"")).unwrap();
    let given: &Given = &[("KERO_URL", kero.url.clone()), ("KERO_API_KEY", KEY.to_owned())];
    let wanted = serde_json::json!({ "kv": 1 << 20 });
    let state = async || kero.get("/plugins/shop").await.expect(200)["data"].clone();

    let told = fails_with(here, "kero plugin push shop --grant", given);
    assert!(told.contains("--activate"), "grants are given to what is called: {told}");
    kero.get("/plugins/shop").await.problem(404, "plugin-not-found");
    let told = fine_with(here, "kero plugin push shop", given);
    assert!(told.contains("asks for kv") && told.contains("not active yet"), "{told}");
    let told = fails_with(here, "kero plugin push shop --activate", given);
    assert!(told.contains("409 (plugin-grants-missing)"), "{told}");
    assert!(told.contains("asked for: kv; give it with --grant"), "{told}");
    assert_eq!(state().await["active_version"], serde_json::Value::Null, "nothing was given in silence");
    let told = fine_with(here, "kero plugin push shop --activate --grant", given);
    assert!(told.contains("shop 0.1.0: active"), "{told}");
    let now = state().await;
    assert_eq!((&now["grants"], &now["active_version"]), (&wanted, &"0.1.0".into()), "{now}");

    // a flag is nearer than the environment
    let elsewhere: &Given =
        &[("KERO_URL", "http://127.0.0.1:9".to_owned()), ("KERO_API_KEY", "wrong-key-0123456789".to_owned())];
    let told = fails_with(here, "kero plugin push shop", elsewhere);
    assert!(told.contains("no gateway answers at http://127.0.0.1:9"), "{told}");
    let flags = format!("kero plugin push shop --url {} --key {KEY}", kero.url);
    fine_with(here, &flags, elsewhere);
    let told = fails_with(here, &format!("kero plugin push shop --url {}", kero.url), elsewhere);
    assert!(told.contains("401 (unauthorized)"), "{told}");
}
