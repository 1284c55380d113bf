//! Problems in the document: which codes an operation can answer, per status.

use super::{each, secured};
use crate::problem::CONTENT_TYPE;
use kero_domain::{Class, FaultCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Codes that come from what operations have in common; the document gets them by the rules of [`common`].
pub(crate) const COMMON: &[FaultCode] = &[
    FaultCode::BadRequest,
    FaultCode::InvalidJson,
    FaultCode::ValidationFailed,
    FaultCode::InvalidInstanceId,
    FaultCode::Unauthorized,
    FaultCode::Forbidden,
    FaultCode::InstanceNotFound,
    FaultCode::RequestTimeout,
    FaultCode::PayloadTooLarge,
    FaultCode::UnsupportedMediaType,
    FaultCode::Internal,
    FaultCode::StorageUnavailable,
    FaultCode::Timeout,
    FaultCode::ShuttingDown,
    FaultCode::StorageFull,
];

/// What an operation may answer because of its kind.
fn common(path: &str, method: &str, operation: &Map<String, Value>) -> Vec<FaultCode> {
    let mut codes = vec![FaultCode::Internal];
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let in_query = |parameter: &Value| parameter.get("in").is_some_and(|place| place == "query");
    if parameters.is_some_and(|parameters| parameters.iter().any(in_query)) {
        codes.push(FaultCode::ValidationFailed);
    }
    if path.contains("{instance_id}") {
        codes.extend([FaultCode::InvalidInstanceId, FaultCode::InstanceNotFound]);
    }
    if operation.contains_key("requestBody") {
        codes.extend([
            FaultCode::BadRequest,
            FaultCode::InvalidJson,
            FaultCode::ValidationFailed,
            FaultCode::RequestTimeout,
            FaultCode::PayloadTooLarge,
            FaultCode::UnsupportedMediaType,
        ]);
    }
    if secured(operation) {
        codes.extend([
            FaultCode::Unauthorized,
            FaultCode::Forbidden,
            FaultCode::StorageUnavailable,
            FaultCode::Timeout,
            FaultCode::ShuttingDown,
        ]);
        if method != "get" {
            codes.push(FaultCode::StorageFull);
        }
    }
    codes
}

/// Gives every operation its problems: the handler's own codes, which stand as an `enum` in the response, and the
/// common ones.
pub(super) fn document(document: &mut Value) {
    if let Some(Value::String(text)) = document.pointer_mut("/components/schemas/Problem/description") {
        text.push_str("\n\n");
        text.push_str(&table());
    }
    let commons: Vec<Vec<FaultCode>> =
        each(document).map(|(path, method, operation)| common(path, method, operation)).collect();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    let operations = paths.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten());
    for ((_, operation), common) in operations.zip(commons) {
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        let mut codes: BTreeMap<u16, Vec<FaultCode>> = BTreeMap::new();
        let own: Vec<FaultCode> = responses.values().flat_map(own_codes).collect();
        responses.retain(|_, response| own_codes(response).is_empty());
        for code in FaultCode::ALL.iter().filter(|code| own.contains(code) || common.contains(code)) {
            codes.entry(code.status()).or_default().push(*code);
        }
        for (status, codes) in codes {
            // an operation that answers with a body of its own (health) keeps that
            responses.entry(status.to_string()).or_insert_with(|| response(&codes));
        }
        let mut sorted: Vec<(String, Value)> = std::mem::take(responses).into_iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        responses.extend(sorted);
    }
}

fn own_codes(response: &Value) -> Vec<FaultCode> {
    let names = response
        .get("content")
        .and_then(|content| content.get(CONTENT_TYPE))
        .and_then(|content| content.pointer("/schema/enum"))
        .and_then(Value::as_array);
    let known = |name: &Value| FaultCode::ALL.iter().copied().find(|code| name == code.code());
    names.into_iter().flatten().filter_map(known).collect()
}

fn response(codes: &[FaultCode]) -> Value {
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.code(), code.title())).collect();
    let description = match lines.as_slice() {
        [only] => only.clone(),
        lines => lines.iter().fold(String::new(), |text, line| text + "- " + line + "\n").trim_end().to_owned(),
    };
    let names: Vec<&str> = codes.iter().map(|code| code.code()).collect();
    let mut headers = Map::new();
    if codes.contains(&FaultCode::Unauthorized) {
        headers.insert("WWW-Authenticate".to_owned(), header("Always a `Bearer` challenge."));
    }
    if codes.iter().any(|code| matches!(code.class(), Class::Transient | Class::Throttled)) {
        headers.insert(
            "Retry-After".to_owned(),
            json!({
                "description": "Seconds after which trying again makes sense, where known.",
                "schema": { "type": "integer", "minimum": 0 },
            }),
        );
    }
    let mut response = json!({ "description": description });
    if !headers.is_empty() {
        response["headers"] = headers.into();
    }
    response["content"] = json!({ CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } });
    response["x-problem-codes"] = names.into();
    response
}

fn header(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string" } })
}

/// All codes, for the description of the problem itself.
fn table() -> String {
    let mut table = String::from("| code | status | meaning |\n| --- | --- | --- |\n");
    for code in FaultCode::ALL {
        let _ = writeln!(table, "| `{}` | {} | {} |", code.code(), code.status(), code.title());
    }
    table.trim_end().to_owned()
}
