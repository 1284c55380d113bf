//! Uploads: an artefact and its manifest are compiled, started once and tried on their own cases before they are kept.

use super::registry;
use crate::{Gateway, errors::fault};
use kero_domain::{Fault, FaultCode};
use kero_hooks::cases::Case;
use kero_hooks::dry::Bench;
use kero_hooks::manifest::{LARGEST, ManifestError};
use kero_hooks::{CompileError, Compiled, Hook, Host, Manifest};
use kero_store::NewPluginVersion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What is uploaded.
#[derive(Debug, Clone, Default)]
pub struct PluginUpload {
    /// `plugin.toml`, or the same members in JSON.
    pub manifest: String,
    /// A component, a core module with a WIT section, or a script.
    pub artefact: Vec<u8>,
    /// Test cases: by the case's name, its files by name.
    pub cases: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// What an upload came to; kept with the version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Uploaded {
    pub name: String,
    pub version: String,
    pub kind: String,
    /// SHA-256 of the artefact in hex.
    pub hash: String,
    pub bytes: u64,
    pub compile_ms: f64,
    /// The code came from the cache of compiled code.
    pub from_cache: bool,
    /// The version of the WIT package that it was built against.
    pub wit: String,
    pub imports: Vec<String>,
    /// What the manifest asks for.
    pub grants: Value,
    pub cases: Vec<CaseResult>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaseResult {
    pub case: String,
    /// Empty: it passed.
    pub failures: Vec<String>,
}

/// Plugins that come with the gateway: their manifests. `plugins/build` makes the artefacts.
pub const BUNDLED: &[(&str, &str)] = &[
    ("evolution", include_str!("../../../plugins/evolution/plugin.toml")),
    ("keyword-reply", include_str!("../../../plugins/keyword-reply/plugin.toml")),
    ("redact", include_str!("../../../plugins/redact/plugin.toml")),
];

/// Cases of one upload.
const CASES: usize = 200;

impl Gateway {
    /// Keeps a version; nothing calls it before it is activated. The same upload again is answered the same.
    pub async fn upload_plugin(&self, upload: PluginUpload) -> Result<Uploaded, Fault> {
        let manifest = read_manifest(&upload.manifest).map_err(|error| invalid(error.0))?;
        self.keep_plugin(manifest, upload.artefact, upload.cases).await
    }

    /// Keeps a plugin that comes with the gateway.
    pub async fn upload_bundled_plugin(&self, name: &str) -> Result<Uploaded, Fault> {
        let Some((_, manifest)) = BUNDLED.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
            let detail = format!("There is no bundled plugin of this name; there are {}.", known.join(", "));
            return Err(Fault::new(FaultCode::PluginNotFound).with_detail(detail));
        };
        let manifest = read_manifest(manifest).map_err(|error| invalid(error.0))?;
        let path = self.inner.hooks.config.dist_dir.join(&manifest.entry);
        let artefact = tokio::fs::read(&path).await.map_err(|_| missing(&path.display().to_string()))?;
        self.keep_plugin(manifest, artefact, BTreeMap::new()).await
    }

    async fn keep_plugin(
        &self,
        manifest: Manifest,
        artefact: Vec<u8>,
        cases: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    ) -> Result<Uploaded, Fault> {
        let _turn = self.inner.hooks.uploads.lock().await;
        let (name, version) = (manifest.name.to_string(), manifest.version.clone());
        let hash = Sha256::digest(&artefact).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let stored = serde_json::to_value(&manifest).unwrap_or_default();
        if let Some(known) = self.store().plugin_version(&name, &version).await.map_err(fault)? {
            if known.hash == hash && known.manifest == stored {
                return serde_json::from_value(known.report).map_err(|_| FaultCode::Internal.into());
            }
            return Err(taken(&name, &version));
        }
        let host = self.inner.hooks.host().await.map_err(no_host)?;
        let bytes = artefact.len() as u64;
        let compiled = compile(self, &manifest, artefact.clone()).await.map_err(refused)?;
        start(host, &manifest, &compiled).await?;
        let cases = try_cases(host, &manifest, &compiled, cases).await?;
        let info = compiled.info();
        let uploaded = Uploaded {
            name: name.clone(),
            version: version.clone(),
            kind: manifest.kind.as_str().to_owned(),
            hash: hash.clone(),
            bytes,
            compile_ms: info.took.as_secs_f64() * 1000.0,
            from_cache: info.from_cache,
            wit: info.wit.clone(),
            imports: info.imports.clone(),
            grants: serde_json::to_value(&manifest.grants).unwrap_or_default(),
            cases,
        };
        let report = serde_json::to_value(&uploaded).unwrap_or_default();
        let new = NewPluginVersion { plugin: name, version, hash, manifest: stored, report, artefact };
        let (plugin, version) = (new.plugin.clone(), new.version.clone());
        if !self.store().add_plugin_version(new).await.map_err(fault)? {
            return Err(taken(&plugin, &version));
        }
        tracing::info!(plugin, version, hash = uploaded.hash, bytes, "a plugin was uploaded");
        Ok(uploaded)
    }
}

fn taken(name: &str, version: &str) -> Fault {
    let detail = format!("Version {version} of {name} is another artefact or manifest; give this one another version.");
    Fault::new(FaultCode::PluginVersionExists).with_detail(detail)
}

/// TOML, or JSON when it begins like an object.
fn read_manifest(text: &str) -> Result<Manifest, ManifestError> {
    if text.trim_start().starts_with('{') {
        if text.len() > LARGEST {
            return Err(ManifestError(format!("it has {} bytes; at most {LARGEST} are accepted", text.len())));
        }
        let value = serde_json::from_str(text).map_err(|error| ManifestError(error.to_string()))?;
        return Manifest::from_json(value);
    }
    Manifest::from_toml(text)
}

/// Compiles within the time that is allowed.
pub(super) async fn compile(
    gateway: &Gateway,
    manifest: &Manifest,
    artefact: Vec<u8>,
) -> Result<Compiled, CompileError> {
    let hooks = &gateway.inner.hooks;
    let host = hooks.host().await.map_err(|error| CompileError::Stopped(error.to_string()))?;
    let wait = hooks.config.compile_timeout;
    let compiling = async {
        if manifest.is_script() {
            host.compile_script(&manifest.entry, artefact).await
        } else {
            host.compile(artefact).await
        }
    };
    let compiled = tokio::time::timeout(wait, compiling).await.unwrap_or_else(|_| {
        Err(CompileError::Stopped(format!("it was not done within {wait:?} (hooks.compile_timeout)")))
    })?;
    metrics::histogram!("kero_hooks_compile_seconds").record(compiled.info().took.as_secs_f64());
    Ok(compiled)
}

/// Starts it once, whatever settings it will need.
async fn start(host: &Host, manifest: &Manifest, compiled: &Compiled) -> Result<(), Fault> {
    let mut without_schema = manifest.clone();
    without_schema.config.schema = None;
    let config = Value::Object(Map::new());
    let hook = Hook::new(host, without_schema, compiled.clone(), &manifest.grants, config)
        .map_err(|error| invalid(error.to_string()))?;
    host.check(&hook).await.map_err(|error| invalid(format!("{error}\n{}", error.kind.advice())))
}

async fn try_cases(
    host: &Host,
    manifest: &Manifest,
    compiled: &Compiled,
    cases: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
) -> Result<Vec<CaseResult>, Fault> {
    if cases.len() > CASES {
        return Err(invalid(format!("cases: at most {CASES}")));
    }
    let bench = Bench::new(manifest.clone(), compiled.clone());
    let mut results = Vec::with_capacity(cases.len());
    for (name, files) in cases {
        let case = Case::of(&name, |file| Ok(files.get(file).cloned()))
            .map_err(|error| invalid(format!("cases/{name}/{}: {}", error.file, error.why)))?;
        let report = bench.case(host, &case).await.map_err(|error| invalid(error.to_string()))?;
        results.push(CaseResult { case: name, failures: report.failures });
    }
    if results.iter().any(|case| !case.failures.is_empty()) {
        let failed: Vec<&CaseResult> = results.iter().filter(|case| !case.failures.is_empty()).collect();
        return Err(Fault::new(FaultCode::PluginTestsFailed).with("cases", json!(failed)));
    }
    Ok(results)
}

pub(super) fn invalid(detail: impl Into<String>) -> Fault {
    Fault::new(FaultCode::PluginInvalid).with_detail(detail)
}

pub(super) fn no_host(error: kero_hooks::StartError) -> Fault {
    tracing::error!(error = &error as &dyn std::error::Error, "hooks cannot be run");
    FaultCode::Internal.into()
}

fn missing(path: &str) -> Fault {
    let detail = format!("{path} is not there: build it with `plugins/build`, or set hooks.dist_dir.");
    Fault::new(FaultCode::PluginFileMissing).with_detail(detail)
}

fn refused(error: CompileError) -> Fault {
    match &error {
        CompileError::TooLarge { .. } => Fault::new(FaultCode::PayloadTooLarge).with_detail(error.to_string()),
        CompileError::NoRunner { path } => missing(path),
        _ => invalid(error.to_string()),
    }
}

/// For [`registry`]'s seats: the error as text.
impl Gateway {
    pub(super) async fn replace_seat(&self, name: &str) -> Result<(), Fault> {
        let Some(plugin) = self.store().plugin(name).await.map_err(fault)? else {
            self.inner.hooks.put(self, name, None);
            return Ok(());
        };
        let version = match &plugin.active {
            Some(active) => self.store().plugin_version(name, active).await.map_err(fault)?,
            None => None,
        };
        let seat = match version {
            Some(version) => registry::seat_or_broken(self, &plugin, &version).await,
            None => None,
        };
        self.inner.hooks.put(self, name, seat);
        Ok(())
    }
}
