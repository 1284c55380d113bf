//! `kero plugin`: what an author does, from an empty folder to an uploaded plugin.

mod build;
mod push;
mod test;

use crate::cli::{Plugin, PluginKind};
use crate::config::Config;
use crate::run::print;
use anyhow::Context;
use kero_hooks::Kind;
use kero_hooks::manifest::Name;
use kero_hooks::template::{self, Language};
use std::path::Path;

pub(crate) async fn run(config: &Config, command: &Plugin) -> anyhow::Result<()> {
    match command {
        Plugin::New { name, lang, kind } => new(name, lang, *kind),
        Plugin::Build { folder } => build::run(folder),
        Plugin::Test { folder, watch, update } => test::run(config, folder, *watch, *update).await,
        Plugin::Push(flags) => push::run(flags).await,
    }
}

fn new(name: &str, lang: &str, kind: PluginKind) -> anyhow::Result<()> {
    let name = Name::try_from(name.to_owned()).map_err(anyhow::Error::msg)?;
    let language: Language = lang.parse().map_err(anyhow::Error::msg)?;
    let kind = match kind {
        PluginKind::Transform => Kind::Transform,
        PluginKind::Delivery => Kind::Delivery,
    };
    let folder = Path::new(name.as_str());
    anyhow::ensure!(!folder.exists(), "{name} is there already; choose another name");
    let files = template::files(&name, language, kind);
    for (path, text) in &files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let mut told = format!("{name}/\n");
    for (path, _) in &files {
        told.push_str(&format!("  {path}\n"));
    }
    told.push_str("\nNext:\n");
    if language == Language::Rust {
        told.push_str(&format!("  kero plugin build {name}\n"));
    }
    told.push_str(&format!("  kero plugin test {name}\n"));
    print(&told)
}

/// A plugin's manifest, with what to do where there is none.
fn manifest(folder: &Path) -> anyhow::Result<kero_hooks::Manifest> {
    let path = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("{} cannot be read; `kero plugin new NAME` writes a plugin to begin with", path.display())
    })?;
    kero_hooks::Manifest::from_toml(&text).map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.0))
}
