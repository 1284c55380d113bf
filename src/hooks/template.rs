//! New plugins: the files that `kero plugin new` writes. They are the ones of `plugins/`, so what is handed out is what
//! is tested.

use crate::manifest::{Kind, Name};

/// Files with their paths below the new folder.
pub type Files = Vec<(&'static str, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// One file, no toolchain.
    JavaScript,
    Rust,
}

impl std::str::FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "js" | "javascript" => Ok(Self::JavaScript),
            "rust" | "rs" => Ok(Self::Rust),
            other => Err(format!("language {other:?}: js or rust")),
        }
    }
}

/// A plugin that works and has a test case.
pub fn files(name: &Name, language: Language, kind: Kind) -> Files {
    let manifest = |entry: &str| {
        let text = match kind {
            Kind::Transform => include_str!("../../plugins/template/transform.toml"),
            Kind::Delivery => include_str!("../../plugins/template/delivery.toml"),
        };
        text.replace("NAME", name.as_str()).replace("ENTRY", entry)
    };
    let (event, verdict) = match kind {
        Kind::Transform => (
            include_str!("../../plugins/template/transform/event.json"),
            include_str!("../../plugins/template/transform/verdict.json"),
        ),
        Kind::Delivery => (
            include_str!("../../plugins/template/delivery/event.json"),
            include_str!("../../plugins/template/delivery/verdict.json"),
        ),
    };
    let mut files: Files =
        vec![("cases/first/event.json", event.to_owned()), ("cases/first/verdict.json", verdict.to_owned())];
    match language {
        Language::JavaScript => {
            let script = match kind {
                Kind::Transform => include_str!("../../plugins/template/transform.js"),
                Kind::Delivery => include_str!("../../plugins/template/delivery.js"),
            };
            files.push(("plugin.toml", manifest("hook.js")));
            files.push(("hook.js", script.to_owned()));
            files.push(("kero.d.ts", include_str!("../../plugins/sdk-js/kero.d.ts").to_owned()));
        }
        Language::Rust => {
            let (source, feature) = match kind {
                Kind::Transform => (include_str!("../../plugins/template/transform.rs"), "transform"),
                Kind::Delivery => (include_str!("../../plugins/template/delivery.rs"), "delivery"),
            };
            let cargo = include_str!("../../plugins/template/Cargo.toml.txt");
            files.push(("plugin.toml", manifest(&format!("{name}.wasm"))));
            files.push(("Cargo.toml", cargo.replace("NAME", name.as_str()).replace("FEATURE", feature)));
            files.push(("src/lib.rs", source.to_owned()));
            files.push(("kero/sdk-rust/Cargo.toml", include_str!("../../plugins/sdk-rust/Cargo.toml").to_owned()));
            files.push(("kero/sdk-rust/src/lib.rs", include_str!("../../plugins/sdk-rust/src/lib.rs").to_owned()));
            files.push(("kero/sdk-rust/src/hook.rs", include_str!("../../plugins/sdk-rust/src/hook.rs").to_owned()));
            files.push(("kero/wit/0.1.0/plugin.wit", include_str!("../../plugins/wit/0.1.0/plugin.wit").to_owned()));
            files.push((".gitignore", "/target\n/*.wasm\n".to_owned()));
        }
    }
    files
}
