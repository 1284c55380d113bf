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
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut case = Case::of(&name, |file| match std::fs::read(dir.join(file)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(bytes) => Ok(Some(bytes)),
    })
    .map_err(|error| CaseError { file: dir.join(error.file).display().to_string(), why: error.why })?;
    case.dir = dir.to_owned();
    Ok(case)
}

/// A file of a case, if it is there.
struct Files<F>(F);

impl<F: Fn(&str) -> Result<Option<Vec<u8>>, String>> Files<F> {
    fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>, CaseError> {
        (self.0)(file).map_err(|why| CaseError { file: file.to_owned(), why })
    }

    fn json<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, CaseError> {
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes);
        let wrong = |error: serde_json::Error| CaseError { file: file.to_owned(), why: error.to_string() };
        self.bytes(file)?.map(read).transpose().map_err(wrong)
    }
}

impl Case {
    /// A case from its files by name. Errors name the file.
    pub fn of(name: &str, file: impl Fn(&str) -> Result<Option<Vec<u8>>, String>) -> Result<Self, CaseError> {
        let files = Files(file);
        let envelope: Envelope = files
            .json("event.json")?
            .ok_or_else(|| CaseError { file: "event.json".to_owned(), why: "is not there".to_owned() })?;
        let at = envelope.timestamp.saturating_mul(1000);
        let event = crate::event::Event::new(envelope.id, envelope.event, envelope.instance_id, at, &envelope.data)
            .caused_by(envelope.caused_by);
        let error = files.bytes("error.txt")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let expect = match (files.json::<Value>("verdict.json")?, error) {
            (Some(verdict), None) => Expect::Verdict(verdict),
            (None, Some(text)) => Expect::Error(text),
            (None, None) => Expect::Unwritten,
            (Some(_), Some(_)) => {
                let why = "is there, and so is verdict.json".to_owned();
                return Err(CaseError { file: "error.txt".to_owned(), why });
            }
        };
        let request = files.json("request.json")?;
        Ok(Self {
            name: name.to_owned(),
            data: event.data.clone(),
            config: files.json("config.json")?.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            grants: files.json("grants.json")?,
            kv: files.json("kv.json")?.unwrap_or_default(),
            http: files.json("http.json")?.unwrap_or_default(),
            request: request.unwrap_or_else(|| standard(&event, &envelope.data)),
            response: files.json("response.json")?,
            dir: PathBuf::new(),
            event,
            expect,
        })
    }
}

/// The request that the gateway would make for an event.
fn standard(event: &crate::event::Event, data: &Value) -> Request {
    let body = serde_json::json!({
        "event": event.kind, "instance_id": event.instance, "timestamp": event.at / 1000, "data": data,
        "id": event.id, "seq": 1, "schema": kero_domain::event::SCHEMA,
    });
    Request {
        method: "POST".to_owned(),
        path: "/hook".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

impl Case {
    pub(crate) fn fixture(&self) -> Fixture {
        let now = u64::try_from(self.event.at).unwrap_or(0);
        Fixture { now, kv: self.kv.clone(), http: self.http.clone(), ..Fixture::default() }
    }
}
