//! `plugin.toml`: what a plugin is, when it is called, what it asks for. The same members in JSON over the API.

use crate::grants::Grants;
use crate::limits::Wishes;
use crate::policy::Policy;
use crate::versions::VERSIONS;
use kero_domain::EventKind;
use kero_domain::endpoint::EventFilter;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a manifest's `api` begins with; MAJOR.MINOR of a published version follows.
const PACKAGE: &str = "kero:plugin@";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: Name,
    /// Immutable: another artefact is another version.
    pub version: String,
    /// `kero:plugin@MAJOR.MINOR`
    pub api: String,
    /// The artefact beside the manifest: `.wasm` or `.js`.
    pub entry: String,
    pub kind: Kind,
    pub on: EventFilter,
    /// Instances it is called for; a trailing `*` matches the rest.
    #[serde(default = "everything")]
    pub instances: Vec<Pattern>,
    /// Delivery hooks only: the endpoints' ids.
    #[serde(default = "everything", skip_serializing_if = "is_everything")]
    pub endpoints: Vec<Pattern>,
    /// Hooks are called in ascending order, then by name.
    #[serde(default = "fifty")]
    pub order: i32,
    /// What happens to an event that the hook fails on. Required: an enrichment should fail open, a redaction must not.
    pub on_error: Policy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    #[serde(default)]
    pub grants: Grants,
    #[serde(default)]
    pub limits: Wishes,
    #[serde(default)]
    pub config: ConfigSection,
}

/// Which of the two worlds the plugin lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Once per event: `handle`.
    Transform,
    /// Once per delivery: `shape`; once per answer: `judge`.
    Delivery,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Delivery => "delivery",
        }
    }
}

/// Keep an instance for several calls of one WhatsApp instance. Without it every call gets a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reuse {
    /// Calls after which an instance is thrown away.
    pub calls: u32,
    #[serde(with = "humantime_serde")]
    pub age: Duration,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSection {
    /// JSON Schema of the settings; members marked `writeOnly` are secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<serde_json::Value>,
}

/// Bytes of a manifest in TOML.
pub const LARGEST: usize = 64 << 10;
/// Entries of a list of names or URLs: all of them are looked at for each event.
const PATTERNS: usize = 256;

/// A reader's complaint, and what to do where that is not plain.
fn advised(complaint: &str) -> String {
    let complaint = complaint.trim_end();
    if complaint.contains("missing field `on_error`") {
        return format!(
            "{complaint}: say what becomes of an event that the hook fails on, on_error = \"raw\", \"dead\" or \"drop\""
        );
    }
    complaint.to_owned()
}

/// Where a schema marks a secret that would not be treated as one: only whole members of the settings are hidden.
fn hidden_secret(schema: &serde_json::Value) -> Option<String> {
    fn walk(value: &serde_json::Value, path: &mut Vec<String>) -> Option<String> {
        let members: Vec<(String, &serde_json::Value)> = match value {
            serde_json::Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
            serde_json::Value::Array(items) => items.iter().enumerate().map(|(n, it)| (n.to_string(), it)).collect(),
            _ => return None,
        };
        for (name, value) in members {
            let at_top = matches!(&path[..], [properties, _] if properties == "properties");
            if name == "writeOnly" && value == &serde_json::Value::Bool(true) && !at_top {
                return Some(path.iter().map(|part| format!("/{part}")).collect());
            }
            path.push(name);
            let found = walk(value, path);
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        None
    }
    walk(schema, &mut Vec::new())
}

fn everything() -> Vec<Pattern> {
    vec![Pattern("*".to_owned())]
}

fn is_everything(patterns: &[Pattern]) -> bool {
    patterns.iter().any(|pattern| pattern.0 == "*")
}

const fn fifty() -> i32 {
    50
}

/// A wrong manifest: where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin.toml: {0}")]
pub struct ManifestError(pub String);

impl Manifest {
    /// At most [`LARGEST`] bytes.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        if text.len() > LARGEST {
            return Err(ManifestError(format!("it has {} bytes; at most {LARGEST} are accepted", text.len())));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError(advised(&error.to_string())))?;
        manifest.check()?;
        Ok(manifest)
    }

    pub fn from_json(value: serde_json::Value) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| ManifestError(advised(&error.to_string())))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let fail = |text: String| Err(ManifestError(text));
        let version = self.version.as_bytes();
        // a path's part: neither `.` nor `..`
        if !version.first().is_some_and(u8::is_ascii_alphanumeric)
            || version.len() > 64
            || !version.iter().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(b))
        {
            return fail(format!(
                "version {:?}: 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `+`, `-`, beginning with a letter or digit",
                self.version
            ));
        }
        if !self.wit().is_some_and(|wit| VERSIONS.contains(&wit)) {
            let known = VERSIONS.iter().map(|version| format!("\"{PACKAGE}{version}\"")).collect::<Vec<_>>().join(", ");
            return fail(format!("api {:?}: this gateway speaks {known}", self.api));
        }
        if self.entry.is_empty()
            || self.entry.len() > 128
            || self.entry.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
            || !(self.is_script() || self.entry.ends_with(".wasm"))
        {
            return fail(format!("entry {:?}: the name of a .wasm or .js file beside the manifest", self.entry));
        }
        for (member, patterns) in [("instances", &self.instances), ("endpoints", &self.endpoints)] {
            if patterns.is_empty() || patterns.len() > PATTERNS || patterns.iter().any(|it| it.0.len() > 128) {
                return fail(format!(
                    "{member}: 1 to {PATTERNS} names or beginnings of names, each of at most 128 bytes"
                ));
            }
        }
        if self.grants.http.len() > PATTERNS {
            return fail(format!("grants.http: at most {PATTERNS} URLs"));
        }
        if self.kind == Kind::Transform && !is_everything(&self.endpoints) {
            return fail(
                "endpoints: a transform runs once for all endpoints; answer a route, or use kind = \"delivery\""
                    .to_owned(),
            );
        }
        if self.reuse.is_some_and(|reuse| reuse.calls == 0 || reuse.age.is_zero()) {
            return fail("reuse: calls and age must be more than nothing".to_owned());
        }
        let Some(schema) = &self.config.schema else { return Ok(()) };
        if let Err(error) = jsonschema::validator_for(schema) {
            return fail(format!("config.schema is not a JSON Schema: {error}"));
        }
        if let Some(place) = hidden_secret(schema) {
            return fail(format!(
                "config.schema{place}: `writeOnly` may only stand at a member of the top level; mark that one as a whole"
            ));
        }
        Ok(())
    }

    /// MAJOR.MINOR of the WIT package that the plugin is written for.
    pub(crate) fn wit(&self) -> Option<&str> {
        self.api.strip_prefix(PACKAGE)
    }

    pub fn is_script(&self) -> bool {
        self.entry.ends_with(".js")
    }

    /// Whether the plugin is called for such an event.
    pub fn wants(&self, kind: EventKind, instance: &str) -> bool {
        self.on.wants(kind) && self.instances.iter().any(|pattern| pattern.matches(instance))
    }

    /// Complaints about settings, as (JSON pointer, what is wrong). Values are not repeated: they may be secrets.
    pub fn check_config(&self, config: &serde_json::Value) -> Vec<(String, String)> {
        let Some(schema) = &self.config.schema else {
            return if config.is_object() { Vec::new() } else { vec![(String::new(), "must be an object".to_owned())] };
        };
        match jsonschema::validator_for(schema) {
            Ok(validator) => validator
                .iter_errors(config)
                .map(|error| (error.instance_path().to_string(), error.masked_with("the value").to_string()))
                .collect(),
            Err(error) => vec![(String::new(), format!("the schema cannot be used: {error}"))],
        }
    }

    /// Names of the top-level settings that are secrets (`writeOnly` in the schema).
    pub fn secret_settings(&self) -> Vec<&str> {
        let properties =
            self.config.schema.as_ref().and_then(|schema| schema.get("properties")).and_then(|it| it.as_object());
        let secret = |it: &serde_json::Value| it.get("writeOnly").and_then(serde_json::Value::as_bool) == Some(true);
        properties
            .into_iter()
            .flatten()
            .filter(|(_, property)| secret(property))
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

/// `[a-z0-9-]`, 1 to 64: unique in a gateway; part of paths, metrics and correlation ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text))
        } else {
            Err(format!("name {text:?}: 1 to 64 of a-z, 0-9, `-`; no `-` at the ends"))
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or the beginning of names when it ends in `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    pub fn matches(&self, name: &str) -> bool {
        self.0.strip_suffix('*').map_or(self.0 == name, |start| name.starts_with(start))
    }
}

/// A size: a number of bytes, or a text like `64KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Size", into = "u64")]
pub struct Bytes(pub u64);

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u64),
    Text(String),
}

impl TryFrom<Size> for Bytes {
    type Error = String;

    fn try_from(size: Size) -> Result<Self, String> {
        let text = match size {
            Size::Number(bytes) => return Ok(Self(bytes)),
            Size::Text(text) => text,
        };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim() {
            "" | "B" => Some(0),
            "KiB" => Some(10),
            "MiB" => Some(20),
            "GiB" => Some(30),
            _ => None,
        };
        let bytes = digits.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(1 << unit));
        bytes.map(Self).ok_or_else(|| format!("size {text:?}: write it as 65536, 64KiB or 1MiB"))
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
