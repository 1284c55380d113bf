//! The elements of `kero_message_queue` and `kero_dead_letter_queue`: JSON, as the seed names them.

use super::DeadLetter;
use crate::instances::{Handle, Registry};
use crate::worker::LaneKey;
use kero_domain::{Address, InstanceId, Priority};
use kero_store::{Job, JobName};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// `{correlation_id, instance_id, type, payload, message_id, created_at}` and the class.
pub(super) fn message_job(job: &Job) -> Map<String, Value> {
    let mut content = serde_json::to_value(&job.content).unwrap_or_default();
    let mut payload = Map::new();
    payload.insert("phone".into(), job.chat.as_str().into());
    if let Some(Value::Object(members)) = content.get_mut("payload").map(Value::take) {
        payload.extend(members);
    }
    let mut element = Map::new();
    element.insert("correlation_id".into(), job.correlation_id.as_str().into());
    element.insert("instance_id".into(), job.instance_id.as_str().into());
    element.insert("type".into(), job.content.kind().into());
    element.insert("payload".into(), payload.into());
    element.insert("message_id".into(), job.message_id.as_str().into());
    element.insert("created_at".into(), job.created_at.secs().into());
    element.insert("priority".into(), job.priority.as_str().into());
    element
}

pub(super) fn dead_letter(letter: &DeadLetter<'_>) -> Vec<u8> {
    let mut element = message_job(letter.job);
    element.insert("reason".into(), letter.reason.into());
    element.insert("code".into(), letter.code.into());
    element.insert("attempts".into(), letter.attempts.into());
    element.insert("failed_at".into(), letter.failed_at.secs().into());
    Value::from(element).to_string().into_bytes()
}

/// The dead letter of an element that is no job; bytes that are no text are kept in a readable form.
pub(super) fn unknown(bytes: &[u8], failed_at: i64) -> Vec<u8> {
    let raw = String::from_utf8_lossy(bytes);
    json!({ "raw": raw, "reason": "The element is not a job that this gateway knows.", "code": super::UNKNOWN_JOB, "attempts": 0, "failed_at": failed_at })
        .to_string()
        .into_bytes()
}

/// The job that an element names.
pub(super) fn name(bytes: &[u8]) -> Option<JobName> {
    letter_of(&serde_json::from_slice(bytes).ok()?).map(|(name, _)| name)
}

/// The job that a dead letter names, and when it failed by the letter, in Unix seconds.
pub(super) fn letter(bytes: &[u8]) -> Option<(JobName, i64)> {
    letter_of(&serde_json::from_slice(bytes).ok()?)
}

fn letter_of(value: &Value) -> Option<(JobName, i64)> {
    let name = JobName {
        instance_id: value["instance_id"].as_str()?.parse().ok()?,
        correlation_id: value["correlation_id"].as_str()?.parse().ok()?,
    };
    Some((name, value["failed_at"].as_i64().unwrap_or_default()))
}

pub(super) enum Resolved {
    Job { handle: Handle, key: LaneKey },
    Unknown,
}

/// What a lane needs of an element.
#[derive(Deserialize)]
struct Wake<'a> {
    /// Elements without one are no jobs.
    #[serde(borrow, rename = "correlation_id")]
    _correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    instance_id: Cow<'a, str>,
    #[serde(borrow)]
    payload: Recipient<'a>,
    #[serde(borrow)]
    priority: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Recipient<'a> {
    #[serde(borrow)]
    phone: Cow<'a, str>,
}

/// Which lane an element wakes.
pub(super) fn resolve(instances: &Registry, bytes: &[u8]) -> Resolved {
    let found = || {
        let wake: Wake<'_> = serde_json::from_slice(bytes).ok()?;
        let id: InstanceId = wake.instance_id.parse().ok()?;
        let chat = Address::parse(&wake.payload.phone).ok()?;
        let priority = wake.priority.map_or(Ok(Priority::Interactive), |priority| priority.parse()).ok()?;
        Some(Resolved::Job { handle: instances.get(&id)?, key: LaneKey { chat: chat.jid().into(), priority } })
    };
    found().unwrap_or(Resolved::Unknown)
}
