//! `kero plugin test`: a plugin's cases in the real host; again on every change with `--watch`.

use crate::config::Config;
use crate::run::print;
use anyhow::Context;
use kero_hooks::dry::{Bench, Report, TestError};
use kero_hooks::{Host, HostConfig};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Between looks for changed files.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(config: &Config, folder: &Path, watch: bool, update: bool) -> anyhow::Result<()> {
    let settings = HostConfig {
        dist_dir: crate::boot::dist_dir(config),
        cache: cache(),
        artefact: config.hooks.max_artefact,
        ..HostConfig::dry()
    };
    let host = Host::start(settings).context("the host of hooks cannot start")?;
    if !watch {
        return once(&host, folder, update).await;
    }
    let mut seen = Vec::new();
    loop {
        let now = files(folder);
        if now != seen {
            seen = now;
            if let Err(error) = once(&host, folder, update).await {
                print(&format!("{error:#}\n"))?;
            }
            print("\nwatching; press Ctrl-C to end\n")?;
            if update {
                // what was just written is no change
                seen = files(folder);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Compiled code of earlier runs, so that the runner of scripts is compiled once. Sealed with a key in the same folder:
/// it keeps broken files out; whoever can write there can change the author's files, too.
fn cache() -> Option<kero_hooks::CacheConfig> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let dir = home.join("kero").join("compiled-hooks");
    std::fs::create_dir_all(&dir).ok()?;
    let file = dir.join("key");
    let key = match std::fs::read(&file).ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(key) => key,
        None => {
            let key: [u8; 32] = rand::random();
            std::fs::write(&file, key).ok()?;
            key
        }
    };
    Some(kero_hooks::CacheConfig { dir, key })
}

async fn once(host: &Host, folder: &Path, update: bool) -> anyhow::Result<()> {
    let manifest = super::manifest(folder)?;
    let entry = folder.join(&manifest.entry);
    let bench = match Bench::open(host, folder).await {
        Err(TestError::Read { path, .. }) if !entry.exists() && !manifest.is_script() => {
            anyhow::bail!("{path} is not there: run `kero plugin build {}` first", folder.display())
        }
        Err(error) => anyhow::bail!("{}: {error}", manifest.name),
        Ok(bench) => bench,
    };
    let reports = bench.run(host, folder, update).await.with_context(|| manifest.name.to_string())?;
    anyhow::ensure!(
        !reports.is_empty(),
        "{}: no test cases; put one into cases/NAME/event.json and run this with --update",
        manifest.name
    );
    let failed = reports.iter().filter(|report| !report.failures.is_empty()).count();
    print(&reports.iter().map(line).collect::<String>())?;
    let total = reports.len();
    anyhow::ensure!(failed == 0, "{} {}: {failed} of {total} cases failed", manifest.name, manifest.version);
    print(&format!("{} {}: {total} cases passed\n", manifest.name, manifest.version))
}

fn line(report: &Report) -> String {
    let fuel = report.cost.fuel.map(|fuel| format!("  fuel {fuel}")).unwrap_or_default();
    let word = if report.failures.is_empty() { "ok  " } else { "FAIL" };
    let mut text = format!("{word}  {}{fuel}\n", report.case);
    for failure in &report.failures {
        for line in failure.lines() {
            text.push_str(&format!("        {line}\n"));
        }
    }
    if !report.failures.is_empty() {
        for line in &report.logs {
            text.push_str(&format!("        log {}: {}\n", format!("{:?}", line.level).to_lowercase(), line.text));
        }
    }
    text
}

/// Every file of a plugin with its time of change.
fn files(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("target" | "node_modules" | ".git")) {
                found.extend(files(&path));
            }
        } else if let Ok(changed) = entry.metadata().and_then(|data| data.modified()) {
            found.push((path, changed));
        }
    }
    found.sort();
    found
}
