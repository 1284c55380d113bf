//! `kero plugin build`: the artefact of a plugin in Rust.

use crate::run::print;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let status = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--manifest-path"])
        .arg(&cargo)
        .status()
        .context("cargo cannot be started; install Rust (https://rustup.rs)")?;
    anyhow::ensure!(status.success(), "{}: cargo build failed; see above", manifest.name);
    let crate_name = package(&cargo)?;
    let built =
        target_folder(folder).join(TARGET).join("release").join(format!("{}.wasm", crate_name.replace('-', "_")));
    let artefact = folder.join(&manifest.entry);
    std::fs::copy(&built, &artefact)
        .with_context(|| format!("{} was not built: is `crate-type = [\"cdylib\"]` in Cargo.toml?", built.display()))?;
    let bytes = std::fs::metadata(&artefact).map_or(0, |file| file.len());
    print(&format!("{}: {bytes} bytes\n", artefact.display()))
}

fn check_target() -> anyhow::Result<()> {
    let output = Command::new("rustc")
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

fn package(cargo: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(cargo).with_context(|| cargo.display().to_string())?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("name")?.trim().strip_prefix('='));
    let name = name.map(|name| name.trim().trim_matches('"').to_owned());
    name.with_context(|| format!("{} has no package name", cargo.display()))
}

fn target_folder(folder: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from)
}
