//! An author's way, by the commands of plugins/README.md: from an empty folder to a tested and uploaded hook, and what
//! is told of mistakes.

use super::{JANE, Stage, dist, options};
use crate::support::{KEY, Kero, binary, simulator};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Variables of the environment that a command is given.
pub type Given = [(&'static str, String)];

fn kero(folder: &Path, line: &str, given: &Given) -> Output {
    Command::new(binary())
        .args(line.split_whitespace().skip(1))
        .current_dir(folder)
        .env("KERO_HOOKS__DIST_DIR", dist())
        .env_remove("KERO_API_KEY")
        .envs(given.iter().cloned())
        .output()
        .expect("the kero binary starts")
}

#[track_caller]
pub fn fine(folder: &Path, line: &str) -> String {
    fine_with(folder, line, &[])
}

#[track_caller]
pub fn fine_with(folder: &Path, line: &str, given: &Given) -> String {
    let output = kero(folder, line, given);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
pub fn fails(folder: &Path, line: &str) -> String {
    fails_with(folder, line, &[])
}

#[track_caller]
pub fn fails_with(folder: &Path, line: &str, given: &Given) -> String {
    let output = kero(folder, line, given);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{line}\n{text}");
    text
}

/// The commands of a section of plugins/README.md.
fn commands(section: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/README.md")).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with(section)).expect("the section");
    let lines: Vec<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect();
    assert!(!lines.is_empty());
    lines
}

/// No toolchain at all: the script is the artefact. The README's commands, then the upload to a running gateway.
#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_running_hook_in_javascript() {
    let folder = TempDir::new().unwrap();
    let lines: Vec<String> = commands("From nothing to a tested hook: JavaScript")
        .into_iter()
        .filter(|line| line.starts_with("kero "))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        fine(folder.path(), line);
    }
    assert!(fine(folder.path(), "kero plugin build order-number").contains("needs no build"));
    assert!(fine(folder.path(), "kero plugin test order-number").contains("1 cases passed"));

    let stage = Stage::new().await;
    let push = commands("Upload").remove(0);
    let place = format!(" --url {} --key {KEY}", stage.kero.url);
    let told = fine(folder.path(), &format!("{push}{place}"));
    assert!(told.contains("order-number 0.1.0: uploaded") && told.contains("not active yet"), "{told}");
    assert!(told.contains(", 1 cases passed"), "{told}");
    let told = fine(folder.path(), &format!("{push} --activate{place}"));
    assert!(told.contains("order-number 0.1.0: active"), "{told}");
    stage.receive(JANE, "where is order 4711?").await;
    assert_eq!(stage.wait_text("where is order 4711?").await["data"]["order"], "4711");
    let told = fine(folder.path(), &format!("kero plugin push --bundled redact --activate{place}"));
    assert!(told.contains("redact") && told.contains("active"), "{told}");
    assert!(!told.contains("cases"), "none were run: {told}");
    let told = fails(folder.path(), &format!("{push} --url {} --key wrong-key-0123456789", stage.kero.url));
    assert!(told.contains("401 (unauthorized)"), "{told}");
    let told = fails(folder.path(), &format!("{push} --url http://127.0.0.1:9 --key {KEY}"));
    assert!(told.contains("no gateway answers at http://127.0.0.1:9"), "{told}");
}

/// Where the tests' guests are built, and Debian's compiler is unpacked.
pub fn guest_dir() -> String {
    std::env::var("KERO_GUEST_DIR").unwrap_or_else(|_| {
        format!(
            "{}/kero/guest",
            std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap()))
        )
    })
}

/// `plugins/build`, which the README names for those without rustup's target.
pub fn build_guest(parent: &Path, folder: &str) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/build"))
        .arg(folder)
        .current_dir(parent)
        .env("KERO_GUEST_DIR", guest_dir())
        .output()
        .unwrap()
}

pub fn has_target() -> bool {
    Command::new("rustc").args(["--print", "sysroot"]).output().is_ok_and(|output| {
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib/wasm32-unknown-unknown").is_dir()
    })
}

/// The README's commands for Rust, as they stand there; where rustup's target is missing, `plugins/build` takes the place
/// of `kero plugin build`, as the README says.
#[test]
fn from_nothing_to_a_tested_hook_in_rust() {
    let folder = TempDir::new().unwrap();
    let mut here = folder.path().to_owned();
    let mut done = Vec::new();
    for line in commands("From nothing to a tested hook: Rust") {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["rustup", "target", "add", "wasm32-unknown-unknown"] => {}
            ["cd", into] => here = here.join(into),
            ["kero", "plugin", "build"] => {
                let told = fails(&here, "kero plugin test");
                assert!(told.contains("run `kero plugin build .` first"), "{told}");
                if has_target() {
                    fine(&here, &line);
                } else {
                    let told = fails(&here, &line);
                    assert!(told.contains("rustup target add wasm32-unknown-unknown"), "{told}");
                    let output = build_guest(&here, ".");
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
            }
            ["kero", "plugin", "test"] => assert!(fine(&here, &line).contains("my-filter 0.1.0: 1 cases passed")),
            ["kero", "plugin", "new", ..] => drop(fine(&here, &line)),
            _ => panic!("the guide has a command that this test does not know: {line}"),
        }
        done.push(line);
    }
    assert_eq!(done.len(), 5, "{done:?}");
}

/// The four mistakes of an author in Rust.
const MISTAKEN: &str = r#"use kero_plugin::{Body, Context, Event, Failure, Verdict, kv};
kero_plugin::transform!(handle);
fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    let Body::Message(message) = &event.body else { return Ok(Verdict::Pass) };
    match message.text.as_deref() {
        Some("wrong type") => Ok(Verdict::Replace("[1]".to_owned())),
        Some("trap") => panic!("the order has no number"),
        Some("time-out") => loop {
            std::hint::black_box(());
        },
        Some("missing grant") => Ok(kv::set("key", b"value", None).map(|()| Verdict::Pass)?),
        _ => Ok(Verdict::Pass),
    }
}
"#;

#[test]
fn mistakes_in_rust_are_told_with_their_place_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    fine(here, "kero plugin new shop --lang rust");
    // what does not compile is told by the compiler, with its line
    std::fs::write(here.join("shop/src/lib.rs"), MISTAKEN.replace("Verdict::Pass)?", "7u32)?")).unwrap();
    let output = build_guest(here, "shop");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("src/lib.rs:11") && told.contains("expected `Verdict`, found `u32`"),
        "{told}"
    );

    std::fs::write(here.join("shop/src/lib.rs"), MISTAKEN).unwrap();
    let output = build_guest(here, "shop");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let case = here.join("shop/cases/first");
    std::fs::remove_file(case.join("verdict.json")).unwrap();
    std::fs::write(case.join("grants.json"), "{}").unwrap();
    for (mistake, told) in [
        ("wrong type", &["shop 0.1.0: bad_answer: data is JSON, but not an object", "plugins/wit"][..]),
        ("trap", &["shop 0.1.0: trap: ", "in ", "src/lib.rs:7:", "the order has no number", "plugin's log"]),
        ("time-out", &["shop 0.1.0: cpu: more than 100 ms of CPU", "limits.cpu_ms"]),
        ("missing grant", &["shop 0.1.0: reject: kv: the grant `kv` is missing", "kv = \"1MiB\"", "[grants]"]),
    ] {
        let event = format!(r#"{{"event": "message", "data": {{"text": "{mistake}"}}}}"#);
        std::fs::write(case.join("event.json"), event).unwrap();
        let said = fails(here, "kero plugin test shop");
        for part in told {
            assert!(said.contains(part), "{mistake}: {part}\n{said}");
        }
    }
}

#[test]
fn mistakes_are_told_with_their_place_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    assert!(fails(here, "kero plugin new Bad_Name").contains("a-z, 0-9"));
    assert!(fails(here, "kero plugin new x --lang cobol").contains("js or rust"));
    assert!(fails(here, "kero plugin test nowhere").contains("kero plugin new NAME"));
    fine(here, "kero plugin new shop --lang js");
    assert!(fails(here, "kero plugin new shop").contains("is there already"));
    let hook = here.join("shop/hook.js");
    for (script, told) in [
        // a syntax error, with its line
        ("export default function handle(event) {\n  return event\n", &["shop", "hook.js:3"][..]),
        // a wrong type
        ("export default () => 'nonsense';", &["shop 0.1.0", "nonsense"]),
        // a throw, with its line
        ("export default (event) => {\n  return event.nothing.text;\n}", &["shop 0.1.0: reject", "hook.js:2"]),
        // loops without an end, with the line where their function begins: in a function, while the
        // file is read, in a `try`
        (
            "export default (event) => {\n  let n = 0;\n  for (;;) {\n    n = Math.max(n, 1);\n  }\n}",
            &["shop 0.1.0: cpu: more than 100 ms of CPU", "at default (hook.js:1:", "limits.cpu_ms"],
        ),
        (
            "let n = 0;\nwhile (true) n = Math.max(n, 1);\nexport default (event) => event;",
            &["shop 0.1.0: cpu", "hook.js"],
        ),
        (
            "const spin = () => { for (;;); };\nexport default (event) => {\n  try { spin(); } catch {}\n  return event;\n}",
            &["shop 0.1.0: cpu", "hook.js"],
        ),
        // one turn of this takes longer than is waited for
        (
            "const text = '['+'1,'.repeat(200000)+'1]';\nexport default () => { for (;;) JSON.parse(text); }",
            &["shop 0.1.0: cpu", "100 ms", "in hook.js", "limits.cpu_ms"],
        ),
        // a grant that is missing
        (
            "export default (event) => { kero.kv.set('k', 'v'); return event; }",
            &["grant `kv` is missing", "[grants]", "kv = \"1MiB\""],
        ),
        ("export default (event) => { kero.send.text('1@lid', 'v'); return event; }", &["grant `send` is missing"]),
        // no function of the name that its kind needs
        ("export function other() {}", &["export default function", "other"]),
    ] {
        std::fs::write(&hook, script).unwrap();
        let said = fails(here, "kero plugin test shop");
        for part in told {
            assert!(said.contains(part), "{script}\n{part}\n{said}");
        }
    }
    // an expectation that differs is shown, and --update writes what came out
    std::fs::write(&hook, "export default (event) => ({ drop: 'other' });").unwrap();
    let said = fails(here, "kero plugin test shop");
    assert!(said.contains("FAIL  first") && said.contains("expected"), "{said}");
    fine(here, "kero plugin test shop --update");
    let written = std::fs::read_to_string(here.join("shop/cases/first/verdict.json")).unwrap();
    assert!(written.contains("other"), "{written}");
    // the cost is the same number every time
    let cost = |said: &str| said.split("fuel ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(cost(&fine(here, "kero plugin test shop")), cost(&fine(here, "kero plugin test shop")));
}

/// A process that would run for ever, whatever becomes of its test.
struct Watching(std::process::Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `--watch` runs again when a file is saved.
#[test]
fn watching_runs_again_on_a_change() {
    use std::io::BufRead;
    let folder = TempDir::new().unwrap();
    fine(folder.path(), "kero plugin new shop");
    let child = Command::new(binary())
        .args(["plugin", "test", "shop", "--watch"])
        .current_dir(folder.path())
        .env("KERO_HOOKS__DIST_DIR", dist())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Watching(child);
    let (sender, lines) = std::sync::mpsc::channel();
    let out = child.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        std::io::BufReader::new(out).lines().map_while(Result::ok).for_each(|line| {
            let _ = sender.send(line);
        });
    });
    let wait_for = |what: &str| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {what}"));
            if line.contains(what) {
                return;
            }
        }
    };
    wait_for("1 cases passed");
    wait_for("watching");
    std::fs::write(folder.path().join("shop/hook.js"), "export default (event) => { throw new Error('mistake'); }")
        .unwrap();
    wait_for("mistake");
}

/// What `GET /plugins` needs nothing of: a gateway without any plugin writes nothing more per event than before.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_plugins_starts_no_host() {
    let simulator = simulator().await;
    let kero = Kero::start_with(&simulator, options()).await;
    assert!(!kero.data.path().join("compiled-hooks").exists());
    let threads = std::fs::read_dir(format!("/proc/{}/task", kero.pid())).unwrap().flatten();
    let hooks = threads
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("kero-hooks"))
        .count();
    assert_eq!(hooks, 0);
}
