//! Dry runs: a plugin against its cases, or one call without effects. The host is the real one; nothing is done.

use crate::call::{Cost, Delivery, Setting};
use crate::cases::{Case, CaseError, Expect};
use crate::compile::Compiled;
use crate::effects::Effects;
use crate::engine::{Host, HostConfig};
use crate::error::{CompileError, HookError, Kind as ErrorKind};
use crate::fixture::Requested;
use crate::hook::Hook;
use crate::host::log::LogLine;
use crate::manifest::{Kind, Manifest, ManifestError};
use crate::verdict::{Judgement, Request, Verdict};
use crate::{ack, cases};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A case that was run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub case: String,
    /// Complaints; empty means that the case passes.
    pub failures: Vec<String>,
    /// `verdict` with its members, or `request`, or `judgement`; `effects` when there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Value>,
    /// What the hook changed of the event's data or of the request, as RFC 6902 has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<json_patch::PatchOperation>,
    /// Settings that the schema refuses, a script that cannot be read, or a failed call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the author can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    pub logs: Vec<LogLine>,
    pub requests: Vec<Requested>,
    pub cost: Cost,
}

/// Why a plugin's folder could not be tested.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{entry}: {source}")]
    Compile { entry: String, source: CompileError },
    #[error(transparent)]
    Case(#[from] CaseError),
}

impl HostConfig {
    /// Counts fuel; nothing else differs from the gateway's host.
    pub fn dry() -> Self {
        Self { fuel: true, ..Self::default() }
    }
}

/// A plugin's folder, read and compiled once, for as many runs as the author saves.
pub struct Bench {
    manifest: Manifest,
    compiled: Compiled,
}

impl Bench {
    /// Reads `plugin.toml` and the entry beside it, or, for bundled plugins, in the host's dist folder.
    pub async fn open(host: &Host, dir: &Path) -> Result<Self, TestError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TestError::Read { path: path.display().to_string(), source })
        };
        let text = String::from_utf8_lossy(&read(&dir.join("plugin.toml"))?).into_owned();
        let manifest = Manifest::from_toml(&text)?;
        let beside = dir.join(&manifest.entry);
        let bundled = host.config().dist_dir.join(&manifest.entry);
        let bytes = if beside.exists() || !bundled.exists() { read(&beside)? } else { read(&bundled)? };
        let compiled = if manifest.is_script() {
            host.compile_script(&manifest.entry, bytes).await
        } else {
            host.compile(bytes).await
        };
        let entry = manifest.entry.clone();
        Ok(Self { compiled: compiled.map_err(|source| TestError::Compile { entry, source })?, manifest })
    }

    pub fn new(manifest: Manifest, compiled: Compiled) -> Self {
        Self { manifest, compiled }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Runs all cases below `dir/cases`. With `update`, expectations that are missing or differ are written.
    pub async fn run(&self, host: &Host, dir: &Path, update: bool) -> Result<Vec<Report>, TestError> {
        let mut reports = Vec::new();
        for case in cases::load(&dir.join("cases"))? {
            let mut report = self.case(host, &case).await?;
            if update && !report.failures.is_empty() {
                write(&case, &report)?;
                report.failures.clear();
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// Runs one case.
    pub async fn case(&self, host: &Host, case: &Case) -> Result<Report, TestError> {
        let given = case.grants.as_ref().unwrap_or(&self.manifest.grants);
        let hook = match Hook::new(host, self.manifest.clone(), self.compiled.clone(), given, case.config.clone()) {
            Ok(hook) => hook,
            Err(error) => return Ok(Report::failed(case, error.0, None)),
        };
        if let Err(error) = host.check(&hook).await {
            return Ok(Report::failed(case, error.to_string(), Some(error.kind)));
        }
        let fixture = Arc::new(case.fixture());
        let setting = Setting { capabilities: fixture.shared(), dry_run: true };
        let event = Arc::new(case.event.clone());
        let (answer, effects, logs, cost) = ask(host, &hook, &event, case, &setting).await;
        let mut report = match answer {
            Err(error) => Report { cost, ..Report::failed(case, error.to_string(), Some(error.kind)) },
            Ok(mut outcome) => {
                if !effects.is_empty()
                    && let (Some(members), Ok(effects)) = (outcome.as_object_mut(), serde_json::to_value(&effects))
                {
                    members.insert("effects".to_owned(), effects);
                }
                Report { diff: diff(case, &outcome), outcome: Some(outcome), cost, ..Report::empty(case) }
            }
        };
        (report.logs, report.requests) = (logs, fixture.requests());
        report.failures = compare(&case.expect, &report);
        Ok(report)
    }
}

impl Report {
    fn empty(case: &Case) -> Self {
        Self {
            case: case.name.clone(),
            failures: Vec::new(),
            outcome: None,
            diff: Vec::new(),
            error: None,
            advice: None,
            logs: Vec::new(),
            requests: Vec::new(),
            cost: Cost::default(),
        }
    }

    fn failed(case: &Case, error: String, kind: Option<ErrorKind>) -> Self {
        let mut report = Self { error: Some(error), advice: kind.map(ErrorKind::advice), ..Self::empty(case) };
        report.failures = compare(&case.expect, &report);
        report
    }
}

type Asked = (Result<Value, HookError>, Effects, Vec<LogLine>, Cost);

async fn ask(host: &Host, hook: &Arc<Hook>, event: &Arc<crate::event::Event>, case: &Case, setting: &Setting) -> Asked {
    const ENDPOINT: &str = "00000000-0000-7000-8000-0000000000ee";
    const DELIVERY: &str = "00000000-0000-7000-8000-0000000000de";
    let attempt = case.response.as_ref().map(|_| 1);
    let delivery = Delivery { event, data: &case.data, endpoint: ENDPOINT, id: DELIVERY, attempt };
    match (hook.manifest.kind, &case.response) {
        (Kind::Transform, _) => {
            let ran = host.transform(hook, event, &case.data, setting).await;
            let shown = ran.answer.map(|verdict| {
                let (verdict, refused) = ack::guard(event, &case.data, verdict, hook.grants.drop_ack);
                show_verdict(&verdict, refused)
            });
            (shown, ran.effects, ran.logs, ran.cost)
        }
        (Kind::Delivery, None) => {
            let ran = host.shape(hook, delivery, &case.request, setting).await;
            (ran.answer.map(|request| show_request(&request)), ran.effects, ran.logs, ran.cost)
        }
        (Kind::Delivery, Some(response)) => {
            let usual = match response.status {
                200..=299 => Judgement::Success,
                _ => Judgement::Retry { after: None },
            };
            let ran = host.judge(hook, delivery, &case.request, response, &usual, setting).await;
            (ran.answer.map(|judgement| show_judgement(&judgement)), ran.effects, ran.logs, ran.cost)
        }
    }
}

/// As cases write it: `data` as JSON, not as text in JSON.
fn show_verdict(verdict: &Verdict, refused: Option<&str>) -> Value {
    let data = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let mut shown = match verdict {
        Verdict::Pass => json!({"verdict": "pass"}),
        Verdict::Drop { reason } => json!({"verdict": "drop", "reason": reason}),
        Verdict::Replace { data: text } => json!({"verdict": "replace", "data": data(text)}),
        Verdict::Route { endpoints, data: None } => json!({"verdict": "route", "endpoints": endpoints}),
        Verdict::Route { endpoints, data: Some(text) } => {
            json!({"verdict": "route", "endpoints": endpoints, "data": data(text)})
        }
    };
    if let (Some(refused), Some(members)) = (refused, shown.as_object_mut()) {
        members.insert("refused".to_owned(), refused.into());
    }
    shown
}

/// A JSON body as JSON.
fn show_request(request: &Request) -> Value {
    let text = String::from_utf8_lossy(&request.body);
    let body = serde_json::from_str::<Value>(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    let headers: serde_json::Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({"request": {"method": request.method, "path": request.path, "headers": headers, "body": body}})
}

/// From what a hook got to what it made of it.
fn diff(case: &Case, outcome: &Value) -> Vec<json_patch::PatchOperation> {
    let (before, after) = match (outcome.get("data"), outcome.get("request")) {
        (Some(data), _) => (serde_json::from_str(&case.data).unwrap_or_default(), data),
        (None, Some(request)) => (show_request(&case.request)["request"].take(), request),
        (None, None) => return Vec::new(),
    };
    json_patch::diff(&before, after).0
}

fn show_judgement(judgement: &Judgement) -> Value {
    match judgement {
        Judgement::Success => json!({"judgement": "success"}),
        Judgement::Retry { after: None } => json!({"judgement": "retry"}),
        Judgement::Retry { after: Some(after) } => json!({"judgement": "retry", "after": after.as_secs()}),
        Judgement::Dead { reason } => json!({"judgement": "dead", "reason": reason}),
    }
}

/// Complaints, in the author's words.
fn compare(expect: &Expect, report: &Report) -> Vec<String> {
    match (expect, &report.outcome, &report.error) {
        (Expect::Verdict(wanted), Some(outcome), _) => {
            let members = wanted.as_object().into_iter().flatten();
            members.filter_map(|(member, wanted)| differs(member, wanted, outcome, &report.cost)).collect()
        }
        (Expect::Error(lines), _, Some(error)) => {
            let missing = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !error.contains(line));
            missing.map(|line| format!("the error does not say {line:?}; it says: {error}")).collect()
        }
        (_, None, Some(error)) => {
            let mut complaint = error.clone();
            if let Some(advice) = report.advice {
                complaint = format!("{complaint}\n{advice}");
            }
            if !report.cost.denied.is_empty() {
                complaint = format!("{complaint}\nmissing grants: {}", report.cost.denied.join(", "));
            }
            vec![complaint]
        }
        (Expect::Error(_), Some(outcome), _) => vec![format!("an error was expected; the answer is {outcome}")],
        (Expect::Unwritten, Some(outcome), _) => {
            vec![format!(
                "there is neither verdict.json nor error.txt (run with --update to write it); the answer is {outcome}"
            )]
        }
        (_, None, None) => vec!["no answer and no error".to_owned()],
    }
}

fn differs(member: &str, wanted: &Value, outcome: &Value, cost: &Cost) -> Option<String> {
    if member == "fuel_max" {
        let (most, used) = (wanted.as_u64().unwrap_or(0), cost.fuel.unwrap_or(0));
        return (used > most).then(|| format!("fuel: {used} used, at most {most} expected"));
    }
    let found = outcome.get(member).unwrap_or(&Value::Null);
    (found != wanted).then(|| format!("{member}: expected {wanted}, found {found}"))
}

/// Writes what came out as the expectation.
fn write(case: &Case, report: &Report) -> Result<(), TestError> {
    let (file, other, text) = match (&report.outcome, &report.error) {
        (Some(outcome), _) => {
            let mut wanted = outcome.clone();
            // a bound that the author set stays, and is raised where the cost is over it
            if let (Expect::Verdict(before), Some(members)) = (&case.expect, wanted.as_object_mut())
                && let Some(most) = before.get("fuel_max")
            {
                let most = most.as_u64().unwrap_or(0).max(report.cost.fuel.unwrap_or(0));
                members.insert("fuel_max".to_owned(), most.into());
            }
            ("verdict.json", "error.txt", serde_json::to_string_pretty(&wanted).unwrap_or_default())
        }
        // only the first line: a backtrace changes with every build
        (None, error) => {
            let text = error.as_deref().unwrap_or_default();
            ("error.txt", "verdict.json", text.lines().next().unwrap_or_default().to_owned())
        }
    };
    let path = case.dir.join(file);
    std::fs::write(&path, text + "\n")
        .map_err(|source| TestError::Read { path: path.display().to_string(), source })?;
    let _ = std::fs::remove_file(case.dir.join(other));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_of_what_the_hook_got() {
        let case = Case::of("x", |file| {
            Ok(match file {
                "event.json" => Some(br#"{"event": "message", "data": {"text": "a", "n": 1}}"#.to_vec()),
                "request.json" => Some(br#"{"method": "POST", "path": "/in", "headers": [], "body": "{}"}"#.to_vec()),
                _ => None,
            })
        })
        .unwrap();
        let of = |outcome: Value| serde_json::to_value(diff(&case, &outcome)).unwrap();
        let changed = of(json!({"verdict": "replace", "data": {"text": "b", "n": 1}}));
        assert_eq!(changed, json!([{"op": "replace", "path": "/text", "value": "b"}]));
        let mut request = show_request(&case.request);
        request["request"]["path"] = "/out".into();
        assert_eq!(of(request), json!([{"op": "replace", "path": "/path", "value": "/out"}]));
        for unchanged in [show_request(&case.request), json!({"verdict": "pass"}), json!({"judgement": "success"})] {
            assert_eq!(of(unchanged), json!([]));
        }
    }
}
