//! Compiled code on disk. It is machine code, so none is ever loaded that this gateway did not write itself: each file
//! carries a keyed hash over its name and content, and whatever does not fit is compiled again.

use std::hash::Hash;
use std::io::Write;
use std::path::PathBuf;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Where compiled code is kept.
#[derive(Clone)]
pub struct CacheConfig {
    /// Made with mode 0700 when absent.
    pub dir: PathBuf,
    /// Secret of this installation, e.g. derived from its master key.
    pub key: [u8; 32],
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}

pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    /// Version and settings of the engine: other code would not fit.
    engine: [u8; 32],
}

impl Cache {
    pub(crate) fn open(config: &CacheConfig, engine: &Engine) -> Result<Self, std::io::Error> {
        let mut make = std::fs::DirBuilder::new();
        make.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(&config.dir)?;
        let mut hasher = Blake(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: config.dir.clone(), key: config.key, engine: *hasher.0.finalize().as_bytes() })
    }

    fn name(&self, source: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.engine).update(source);
        hasher.finalize().to_hex().to_string()
    }

    fn seal(&self, name: &str, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes()).update(code);
        hasher.finalize()
    }

    /// The compiled form of these bytes, if it is there and ours.
    pub(crate) fn load(&self, engine: &Engine, source: &[u8]) -> Option<Component> {
        let name = self.name(source);
        let file = std::fs::read(self.dir.join(&name)).ok()?;
        let (seal, code) = file.split_first_chunk::<32>()?;
        if self.seal(&name, code) != blake3::Hash::from_bytes(*seal) {
            tracing::warn!(file = name, "compiled hook is not as it was written; it is compiled again");
            return None;
        }
        deserialize(engine, code)
    }

    /// Keeps a component's code. A failure costs the next start a compilation, no more.
    pub(crate) fn store(&self, source: &[u8], component: &Component) {
        let name = self.name(source);
        let written = component.serialize().map_err(std::io::Error::other).and_then(|code| {
            let part = self.dir.join(format!("{name}.{:016x}", rand::random::<u64>()));
            let mut file = std::fs::File::create_new(&part)?;
            file.write_all(self.seal(&name, &code).as_bytes())?;
            file.write_all(&code)?;
            std::fs::rename(&part, self.dir.join(&name))
        });
        if let Err(error) = written {
            tracing::warn!(error = &error as &dyn std::error::Error, "compiled hook could not be kept");
        }
    }
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: wasmtime asks that the bytes come from `Component::serialize` unchanged. The keyed hash, whose key only
    // this installation has, was checked over exactly this slice.
    unsafe { Component::deserialize(engine, code) }.ok()
}

/// Feeds a [`Hash`] into a hash that is the same on every machine and in every build.
struct Blake(blake3::Hasher);

impl std::hash::Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        u64::from_le_bytes(*self.0.finalize().as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]))
    }
}
