//! A plugin's test cases: folders of data, run against the real host with nothing behind it. `kero plugin test` is
//! this, and so are the checks at upload.
//!
//! `cases/NAME/` holds `event.json` (the envelope as a webhook gets it; a delivery's `judge` is tested when there is a
//! `response.json`), and may hold `config.json`, `grants.json` (what the operator gives; without it what the manifest
//! asks), `kv.json`, `http.json`, `request.json`. The expectation is `verdict.json`, whose members are compared with
//! what came out, or `error.txt`, each line of which must be in the error's text.

use crate::fixture::{Fixture, Stub};
use crate::grants::Grants;
use crate::verdict::{Request, Response};
use kero_domain::EventKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One case, as it lies in its folder.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub dir: PathBuf,
    pub event: crate::event::Event,
    pub data: String,
    pub config: Value,
    pub grants: Option<Grants>,
    pub kv: BTreeMap<String, String>,
    pub http: Vec<Stub>,
    pub request: Request,
    pub response: Option<Response>,
    pub expect: Expect,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// Members of [`Report::outcome`](crate::dry::Report::outcome).
    Verdict(Value),
    /// Lines that the error's text holds.
    Error(String),
    /// Nothing yet: a first run writes it (`--update`).
    Unwritten,
}

/// A case that cannot be read: which file, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct CaseError {
    pub file: String,
    pub why: String,
}

/// `event.json`: what a webhook gets, of which only the kind and the data are needed.
#[derive(Deserialize)]
struct Envelope {
    event: EventKind,
    #[serde(default = "demo")]
    instance_id: String,
    /// Unix seconds.
    #[serde(default = "some_day")]
    timestamp: i64,
    #[serde(default = "first")]
    id: String,
    data: Value,
    #[serde(default)]
    caused_by: Option<String>,
}

fn demo() -> String {
    "demo".to_owned()
}

fn first() -> String {
    "00000000-0000-7000-8000-000000000001".to_owned()
}

/// 2026-01-01, noon UTC.
const fn some_day() -> i64 {
    1_767_268_800
}

/// The cases of a plugin, by name. A plugin without any has none.
pub fn load(dir: &Path) -> Result<Vec<Case>, CaseError> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().map(|folder| read(folder)).collect()
}

fn read(dir: &Path) -> Result<Case, CaseError> {
    let envelope: Envelope = required(&dir.join("event.json"))?;
    let at = envelope.timestamp.saturating_mul(1000);
    let event = crate::event::Event::new(envelope.id, envelope.event, envelope.instance_id, at, &envelope.data)
        .caused_by(envelope.caused_by);
    let standard = || {
        let body = serde_json::json!({
            "event": envelope.event, "instance_id": event.instance, "timestamp": envelope.timestamp, "data": envelope.data,
            "id": event.id, "seq": 1, "schema": kero_domain::event::SCHEMA,
        });
        Request {
            method: "POST".to_owned(),
            path: "/hook".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    };
    let expect = match (optional::<Value>(&dir.join("verdict.json"))?, std::fs::read_to_string(dir.join("error.txt"))) {
        (Some(verdict), Err(_)) => Expect::Verdict(verdict),
        (None, Ok(text)) => Expect::Error(text),
        (None, Err(_)) => Expect::Unwritten,
        (Some(_), Ok(_)) => {
            return Err(CaseError {
                file: dir.display().to_string(),
                why: "has both verdict.json and error.txt".to_owned(),
            });
        }
    };
    Ok(Case {
        name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        data: event.data.clone(),
        config: optional(&dir.join("config.json"))?.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        grants: optional(&dir.join("grants.json"))?,
        kv: optional(&dir.join("kv.json"))?.unwrap_or_default(),
        http: optional(&dir.join("http.json"))?.unwrap_or_default(),
        request: optional(&dir.join("request.json"))?.unwrap_or_else(standard),
        response: optional(&dir.join("response.json"))?,
        dir: dir.to_owned(),
        event,
        expect,
    })
}

fn required<T: DeserializeOwned>(path: &Path) -> Result<T, CaseError> {
    optional(path)?.ok_or_else(|| CaseError { file: path.display().to_string(), why: "is not there".to_owned() })
}

fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CaseError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CaseError { file: path.display().to_string(), why: error.to_string() }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| CaseError { file: path.display().to_string(), why: error.to_string() }),
    }
}

impl Case {
    pub(crate) fn fixture(&self) -> Fixture {
        let now = u64::try_from(self.event.at).unwrap_or(0);
        Fixture { now, kv: self.kv.clone(), http: self.http.clone(), ..Fixture::default() }
    }
}
