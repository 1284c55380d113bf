//! What an artefact is, read before anything of it runs.

use crate::error::CompileError;
use crate::manifest::Kind;
use crate::versions::{VERSIONS, minor};
use serde::Serialize;
use std::time::Duration;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The exported interface of each kind.
pub(crate) const ON_EVENT: &str = "kero:plugin/on-event";
pub(crate) const ON_DELIVERY: &str = "kero:plugin/on-delivery";

#[derive(Debug, Clone, Serialize)]
pub struct Info {
    /// Worlds that the component can serve; the manifest's `kind` chooses.
    pub kinds: Vec<Kind>,
    /// Full version of the WIT package that it was built against.
    pub wit: String,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Bytes as uploaded, and their BLAKE3 in hex.
    pub bytes: usize,
    pub hash: String,
    /// The code came from the cache.
    pub from_cache: bool,
    /// Componentizing, compiling and linking.
    #[serde(rename = "compile_ms", serialize_with = "millis")]
    pub took: Duration,
}

fn millis<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64() * 1000.0)
}

impl Info {
    pub(crate) fn of(engine: &Engine, component: &Component) -> Result<Self, CompileError> {
        let ty = component.component_type();
        let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let mut kinds = Vec::new();
        let mut wit = None;
        for export in &exports {
            let Some((name, version)) = export.split_once('@') else { continue };
            let kind = match name {
                ON_EVENT => Kind::Transform,
                ON_DELIVERY => Kind::Delivery,
                _ => continue,
            };
            if !VERSIONS.contains(&minor(version)) {
                let known = VERSIONS.iter().map(|version| format!("{name}@{version}.x")).collect::<Vec<_>>().join(", ");
                return Err(CompileError::UnknownVersion { found: export.clone(), known });
            }
            kinds.push(kind);
            wit = Some(version.to_owned());
        }
        let wit = wit.ok_or(CompileError::NoExport)?;
        Ok(Self {
            kinds,
            wit,
            imports,
            exports,
            bytes: 0,
            hash: String::new(),
            from_cache: false,
            took: Duration::ZERO,
        })
    }

    /// Capabilities that the component imports and that need a grant.
    pub fn wants(&self) -> Vec<&'static str> {
        let wants = |name: &str| self.imports.iter().any(|import| import.starts_with(&format!("kero:plugin/{name}@")));
        ["http", "kv", "send"].into_iter().filter(|name| wants(name)).collect()
    }
}
