//! The house rules that the compiler does not check: who names which library, which room knows which, file lengths.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("target" | "node_modules" | ".git" | "dist")) {
                found.extend(files(&path, ending));
            }
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

#[test]
fn each_heavy_library_is_named_by_its_room_only() {
    let rooms = [
        ("sea-orm", &["src/store/Cargo.toml"][..]),
        ("sea-orm-migration", &["src/store/Cargo.toml", "migrations/Cargo.toml"]),
        ("whatsapp-rust", &["src/whatsapp/Cargo.toml"]),
        ("wacore", &["src/whatsapp/Cargo.toml", "src/simulator/Cargo.toml"]),
        ("poem", &["src/api/Cargo.toml"]),
        ("poem-openapi", &["src/api/Cargo.toml"]),
        ("redis", &["src/gateway/Cargo.toml"]),
        ("wasmtime", &["src/hooks/Cargo.toml"]),
    ];
    for manifest in files(root(), "Cargo.toml") {
        let name = relative(&manifest);
        if name == "Cargo.toml" || name.starts_with("plugins/") {
            continue;
        }
        let text = std::fs::read_to_string(&manifest).unwrap();
        // what tests use is no part of the room
        let text = text.split("[dev-dependencies]").next().unwrap();
        for (library, allowed) in rooms {
            let named = text
                .lines()
                .any(|line| line.starts_with(&format!("{library}.")) || line.starts_with(&format!("{library} ")));
            assert!(!named || allowed.contains(&name.as_str()), "{name} names {library}");
        }
    }
}

#[test]
fn rooms_inside_the_gateway_know_only_what_lies_before_them() {
    // a room and what its files must not name
    let forbidden: &[(&str, &[&str])] = &[
        ("queue", &["hyper_util", "kero_whatsapp", "crate::delivery", "crate::intake"]),
        ("worker", &["hyper_util", "redis", "crate::delivery"]),
        ("events", &["redis", "hyper_util", "crate::worker", "crate::intake"]),
        ("delivery", &["redis", "kero_whatsapp", "crate::worker", "crate::intake", "crate::instances"]),
        ("intake", &["redis", "hyper_util", "kero_whatsapp", "crate::delivery"]),
        ("instances", &["redis", "hyper_util", "crate::delivery"]),
        ("hooks", &["redis", "kero_whatsapp"]),
    ];
    let gateway = root().join("src/gateway");
    for (room, words) in forbidden {
        let found = files(&gateway.join(room), ".rs");
        assert!(!found.is_empty(), "the room {room} is gone; mend this test");
        for file in found {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in text.lines().filter(|line| line.trim_start().starts_with("use ") || line.contains("::")) {
                for word in *words {
                    let names = line.contains(&format!("{word}::")) || line.contains(&format!("use {word};"));
                    assert!(!names, "{}: {room} must not know {word}: {line}", relative(&file));
                }
            }
        }
    }
    for file in files(&root().join("src"), ".rs") {
        let name = relative(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        for (library, home) in [
            ("sea_orm", "src/store"),
            ("whatsapp_rust", "src/whatsapp"),
            ("poem", "src/api"),
            ("redis::", "src/gateway/queue"),
            ("wasmtime", "src/hooks"),
        ] {
            let uses = text.lines().any(|line| line.trim_start().starts_with(&format!("use {library}")));
            assert!(!uses || name.starts_with(home) || name.contains("/tests"), "{name} uses {library}");
        }
    }
}

/// Requests to hosts that other people name go through the guard: `delivery::client::Client` makes them, for webhooks and
/// hooks today, for media and previews once they are fetched by URL. Nothing else in the gateway may reach out. (The
/// client library of `whatsapp` talks to WhatsApp's own hosts, the commands of the root to the gateway that they are told.)
#[test]
fn only_the_guarded_client_reaches_other_peoples_hosts() {
    let clients = [
        ("reqwest", &["Cargo.toml"][..]),
        ("ureq", &[]),
        ("whatsapp-rust-ureq-http-client", &["src/whatsapp/Cargo.toml"]),
        ("hyper-rustls", &["src/gateway/Cargo.toml"]),
    ];
    for manifest in files(root(), "Cargo.toml") {
        let name = relative(&manifest);
        if name.starts_with("plugins/") {
            continue;
        }
        let text = std::fs::read_to_string(&manifest).unwrap();
        let text = text.split("[dev-dependencies]").next().unwrap();
        for (library, allowed) in clients {
            let named = text.lines().any(|line| line.starts_with(&format!("{library}.workspace")));
            assert!(!named || allowed.contains(&name.as_str()), "{name} names {library}");
        }
    }
    for file in files(&root().join("src"), ".rs") {
        let name = relative(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        for (word, homes) in [
            ("hyper_util::client", &["src/gateway/delivery/"][..]),
            ("HttpConnector", &["src/gateway/delivery/client.rs"]),
            ("TcpStream::connect", &["src/whatsapp/transport.rs", "src/simulator/", "src/demo/"]),
            ("lookup_host", &["src/whatsapp/transport.rs", "src/gateway/delivery/resolve.rs"]),
            ("reqwest::", &["src/plugin/", "src/demo/"]),
            ("UreqHttpClient", &["src/whatsapp/http.rs", "src/simulator/"]),
        ] {
            let named = text.contains(word) && !name.ends_with("tests.rs");
            assert!(!named || homes.iter().any(|home| name.starts_with(home)), "{name} names {word}");
        }
    }
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for folder in ["src", "migrations", "tests", "plugins"] {
        for file in files(&root().join(folder), ".rs") {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            if lines > 600 {
                long.push(format!("{} ({lines})", relative(&file)));
            }
        }
    }
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn no_doer_objects() {
    for file in files(&root().join("src"), ".rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let Some(name) =
                line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("struct ")
            else {
                continue;
            };
            let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
            for ending in ["Manager", "Service", "Handler", "Util", "Utils", "Helper"] {
                assert!(!name.ends_with(ending), "{}: {name}", relative(&file));
            }
        }
    }
}
