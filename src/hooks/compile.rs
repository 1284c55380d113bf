//! From uploaded bytes to something that can be called. On upload only, one at a time, never on the way of an event.

use crate::engine::Host;
use crate::error::CompileError;
use crate::info::Info;
use crate::manifest::Kind;
use crate::{snapshot, versions};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The file in the dist folder that runs `.js` hooks.
pub const RUNNER: &str = "runner-js.wasm";

/// A compiled artefact. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    pub(crate) inner: Arc<Inner>,
    pub(crate) script: Option<Arc<Script>>,
}

pub(crate) struct Inner {
    pub(crate) adapter: versions::Adapter,
    info: Info,
}

/// A plain `.js` hook.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) source: String,
}

impl Compiled {
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// Whether the artefact can be a plugin of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.inner.info.kinds.contains(&kind)
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

impl Host {
    /// Compiles a component, or a core module with a WIT section.
    pub async fn compile(&self, bytes: Vec<u8>) -> Result<Compiled, CompileError> {
        let limit = self.inner.config.artefact;
        if bytes.len() > limit {
            return Err(CompileError::TooLarge { bytes: bytes.len(), limit });
        }
        self.build(bytes, false).await
    }

    /// Makes a plain `.js` file a hook. The text is not read here; see [`Host::check`].
    pub async fn compile_script(&self, name: &str, source: Vec<u8>) -> Result<Compiled, CompileError> {
        let limit = self.inner.config.artefact;
        if source.len() > limit {
            return Err(CompileError::TooLarge { bytes: source.len(), limit });
        }
        let source = String::from_utf8(source).map_err(|_| CompileError::NotText)?;
        let runner = self.inner.runner.get_or_try_init(|| self.build_runner()).await?;
        let script = Script { name: name.to_owned(), source };
        Ok(Compiled { inner: Arc::clone(&runner.inner), script: Some(Arc::new(script)) })
    }

    async fn build_runner(&self) -> Result<Compiled, CompileError> {
        let path = self.inner.config.dist_dir.join(RUNNER);
        match std::fs::read(&path) {
            Ok(bytes) => self.build(bytes, true).await,
            Err(_) => Err(CompileError::NoRunner { path: path.display().to_string() }),
        }
    }

    async fn build(&self, bytes: Vec<u8>, runner: bool) -> Result<Compiled, CompileError> {
        let host = Arc::clone(&self.inner);
        let stopped = || CompileError::Stopped("the gateway is stopping".to_owned());
        // gone with the caller: the compiler cannot be stopped, but what nobody waited for to its end is not kept
        let wanted = Arc::new(());
        let waiting = Arc::downgrade(&wanted);
        let built = self.on_compiler(move || {
            let started = Instant::now();
            let cached = host.cache.as_ref().and_then(|cache| cache.load(&host.engine, &bytes));
            let from_cache = cached.is_some();
            let component = match cached {
                Some(component) => component,
                None => {
                    let wasm = component_of(&bytes, runner)?;
                    let invalid = |error: wasmtime::Error| CompileError::Invalid(format!("{error:#}"));
                    Component::new(&host.engine, &*wasm).map_err(invalid)?
                }
            };
            let mut info = Info::of(&host.engine, &component)?;
            let adapter = versions::Adapter::link(&host.engine, &component, &info, runner)?;
            // the runner is the gateway's own, and the next script's upload finds it
            let is_kept = !from_cache && (runner || waiting.strong_count() > 0);
            if is_kept && let Some(cache) = &host.cache {
                cache.store(&bytes, &component);
            }
            info.bytes = bytes.len();
            info.hash = blake3::hash(&bytes).to_hex().to_string();
            info.from_cache = from_cache;
            info.took = started.elapsed();
            Ok(Compiled { inner: Arc::new(Inner { adapter, info }), script: None })
        });
        let built = built.await.unwrap_or_else(|| Err(stopped()));
        drop(wanted);
        built
    }
}

/// A component as it is; a core module made one.
fn component_of(bytes: &[u8], runner: bool) -> Result<Cow<'_, [u8]>, CompileError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(CompileError::Precompiled);
    }
    if wasmparser::Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    if !wasmparser::Parser::is_core_wasm(bytes) {
        return Err(CompileError::NotWasm);
    }
    let has_wit = wasmparser::Parser::new(0).parse_all(bytes).any(|payload| {
        matches!(payload, Ok(wasmparser::Payload::CustomSection(section)) if section.name().starts_with("component-type"))
    });
    if !has_wit {
        return Err(CompileError::NoWitSection);
    }
    let mut module = Cow::Borrowed(bytes);
    if runner {
        match snapshot::started(bytes) {
            Ok(Some(started)) => module = Cow::Owned(started),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "every .js call starts its engine: calls are slower")
            }
        }
    }
    let failed = |error| CompileError::Componentize(format!("{error:#}"));
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(&module).map_err(failed)?;
    encoder.encode().map(Cow::Owned).map_err(failed)
}
