//! `kero plugin build`: the artefact of a plugin in Rust.

use crate::run::print;
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let manifest = super::manifest(folder)?;
    if manifest.is_script() {
        return print(&format!("{}: {} needs no build\n", manifest.name, manifest.entry));
    }
    let cargo = folder.join("Cargo.toml");
    anyhow::ensure!(
        cargo.exists(),
        "{}: {} is built by your own toolchain; there is no Cargo.toml beside plugin.toml",
        manifest.name,
        manifest.entry
    );
    check_target()?;
    let output = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&cargo)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started; install Rust (https://rustup.rs)")?;
    anyhow::ensure!(output.status.success(), "{}: cargo build failed; see above", manifest.name);
    let built = module(&cargo, &output.stdout).with_context(|| {
        format!("{}: no WebAssembly was built: is `crate-type = [\"cdylib\"]` in Cargo.toml?", manifest.name)
    })?;
    let artefact = folder.join(&manifest.entry);
    std::fs::copy(&built, &artefact).with_context(|| artefact.display().to_string())?;
    let bytes = std::fs::metadata(&artefact).map_or(0, |file| file.len());
    print(&format!("{}: {bytes} bytes\n", artefact.display()))
}

/// Says what to do before cargo says much that nobody understands. The same compiler is asked that cargo will use.
fn check_target() -> anyhow::Result<()> {
    if std::env::var_os("CARGO_UNSTABLE_BUILD_STD").is_some() {
        // it is built from the library's source
        return Ok(());
    }
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()
        .context("rustc cannot be started; install Rust (https://rustup.rs)")?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    anyhow::ensure!(
        Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir(),
        "the Rust target {TARGET} is missing: run `rustup target add {TARGET}`, or use `plugins/build FOLDER` of a checkout \
         of Kero, which does without it on Debian"
    );
    Ok(())
}

/// The module that cargo made of this package, by its own account: workspaces, settings and names of libraries have a say
/// in where that is.
fn module(cargo: &Path, messages: &[u8]) -> Option<PathBuf> {
    let cargo = cargo.canonicalize().ok()?;
    let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut made = messages.filter(|message| {
        let manifest = message["manifest_path"].as_str().and_then(|path| Path::new(path).canonicalize().ok());
        message["reason"] == "compiler-artifact" && manifest.as_ref() == Some(&cargo)
    });
    made.find_map(|message| {
        let files = message["filenames"].as_array()?;
        files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
    })
}
