//! An example for every body: the object's own where one is written down, else put together from its members.
//!
//! `examples.json` has whole objects by the schema's name (and by name and status, where statuses differ), whole bodies
//! by operation id, and members by name. What is in none of them gets a value by its type, so that a new operation
//! has examples from its first day. A test checks all of them against the schemas.

use super::each;
use crate::problem::{CONTENT_TYPE, type_uri};
use kero_domain::{Class, FaultCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

static WRITTEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// A moment, a UUID and an address for members that only have a format.
const MOMENT: &str = "2026-11-25T09:30:00.000Z";
const UUID: &str = "01a21035-444a-7476-9d86-4c1c3807f474";
const SECRET: &str = "correct-horse-battery-staple";
const URL: &str = "https://example.org/kero";

/// Schemas nest no deeper than this; a schema that contains itself ends here.
const DEPTH: usize = 8;

/// Puts an example into every body of every operation and webhook.
pub(super) fn document(document: &mut Value) {
    let schemas = document.pointer("/components/schemas").cloned().unwrap_or_default();
    let read = Read { schemas: &schemas };
    let used: BTreeSet<String> = each(document)
        .filter_map(|(_, _, operation)| operation.get("responses")?.as_object())
        .flat_map(|responses| responses.values())
        .filter_map(|response| response.get("x-problem-codes")?.as_array())
        .flat_map(|codes| codes.iter().filter_map(|code| code.as_str().map(str::to_owned)))
        .collect();
    for section in ["paths", "webhooks"] {
        let items = document.get_mut(section).and_then(Value::as_object_mut).into_iter().flatten();
        for (name, item) in items {
            let operations = item.as_object_mut().into_iter().flatten();
            for operation in operations.filter_map(|(_, operation)| operation.as_object_mut()) {
                read.operation(operation, (section == "webhooks").then_some(name));
            }
        }
    }
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        let given = FaultCode::ALL.iter().filter(|code| used.contains(code.code()));
        let problems = given.map(|code| (code.code().to_owned(), problem(*code)));
        components.insert("examples".to_owned(), problems.collect::<Map<_, _>>().into());
    }
}

struct Read<'d> {
    schemas: &'d Value,
}

/// Whose example: the caller's, which shows what has to be given, or the gateway's, which shows what can come.
#[derive(Clone, Copy)]
struct Side<'a> {
    request: bool,
    status: &'a str,
}

impl Read<'_> {
    fn operation(&self, operation: &mut Map<String, Value>, webhook: Option<&String>) {
        let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(body) = operation.get_mut("requestBody") {
            // what a webhook's receiver gets is an answer in all but name
            let side = Side { request: webhook.is_none(), status: "" };
            self.content(body, side, None, webhook);
        }
        let whole = WRITTEN.pointer(&format!("/operations/{id}"));
        for (status, response) in operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten() {
            let codes = response.get("x-problem-codes").and_then(Value::as_array).cloned();
            match codes {
                Some(codes) => refer(response, &codes),
                None => self.content(response, Side { request: false, status }, whole, None),
            }
        }
    }

    fn content(&self, holder: &mut Value, side: Side<'_>, whole: Option<&Value>, webhook: Option<&String>) {
        let kinds = holder.get_mut("content").and_then(Value::as_object_mut).into_iter().flatten();
        for (_, body) in kinds.filter_map(|(kind, body)| Some((kind, body.as_object_mut()?))) {
            let Some(schema) = body.get("schema") else { continue };
            let binary = schema.get("format").is_some_and(|format| format == "binary");
            if binary || body.contains_key("example") || body.contains_key("examples") {
                continue;
            }
            let Some(mut example) = whole.cloned().or_else(|| self.value(schema, "", side, 0)) else { continue };
            if let (Some(webhook), Some(event)) = (webhook, example.get_mut("event")) {
                *event = if webhook == "other" { "media".into() } else { webhook.as_str().into() };
            }
            body.insert("example".to_owned(), example);
        }
    }

    /// An example of a schema; `name` is the member that has it.
    fn value(&self, schema: &Value, name: &str, side: Side<'_>, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = reference.rsplit('/').next().unwrap_or_default();
            let written = |key: &str| WRITTEN["objects"].get(key).cloned();
            let target_schema = self.schemas.get(target)?;
            return match written(&format!("{target} {}", side.status)).or_else(|| written(target)) {
                Some(mut example) => {
                    self.complete(target_schema, &mut example, side, depth + 1);
                    Some(example)
                }
                None => self.value(target_schema, name, side, depth + 1),
            };
        }
        if let Some(own) = schema.get("example").or_else(|| schema.get("default")) {
            return Some(own.clone());
        }
        if let Some(part) = ["allOf", "oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.get(0)) {
            return self.value(part, name, side, depth + 1);
        }
        let written = WRITTEN["members"].get(name).filter(|value| fits(schema, value));
        let kind = schema.get("type").and_then(Value::as_str).unwrap_or("object");
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return written.filter(|word| words.contains(word)).or_else(|| words.first()).cloned();
        }
        Some(match kind {
            "array" => match written {
                Some(written) => written.clone(),
                None => Value::from_iter(self.value(schema.get("items")?, name, side, depth + 1)),
            },
            "object" => self.object(schema, side, depth),
            "boolean" => written.cloned().unwrap_or(Value::Bool(true)),
            "integer" => written.or_else(|| schema.get("minimum")).cloned().unwrap_or_else(|| 1.into()),
            "number" => written.or_else(|| schema.get("minimum")).cloned().unwrap_or_else(|| json!(1.5)),
            _ => match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => MOMENT.into(),
                Some("uuid") => UUID.into(),
                Some("uri" | "uri-or-empty" | "url") => URL.into(),
                Some("webhook-secret") => SECRET.into(),
                _ => written.cloned().unwrap_or_else(|| name.replace('_', " ").into()),
            },
        })
    }

    /// Adds the members that an object must have and that were not written down: it got them later.
    fn complete(&self, schema: &Value, example: &mut Value, side: Side<'_>, depth: usize) {
        let Some(members) = example.as_object_mut() else { return };
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(own) = members.get_mut(name) {
                let target = member.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
                self.complete(target.and_then(|name| self.schemas.get(name)).unwrap_or(member), own, side, depth + 1);
            } else if required.contains(&name.as_str())
                && let Some(value) = self.value(member, name, side, depth + 1)
            {
                members.insert(name.clone(), value);
            }
        }
    }

    fn object(&self, schema: &Value, side: Side<'_>, depth: usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let needed = |name: &String| required.is_some_and(|names| names.iter().any(|needed| needed == name));
        let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        // a request that has to say something says just that
        let all = !side.request || required.is_none_or(Vec::is_empty);
        let shown = members.filter(|(name, _)| all || needed(name));
        shown
            .filter_map(|(name, member)| Some((name.clone(), self.value(member, name, side, depth + 1)?)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Whether a written value is of the schema's type: members of one name can differ in it.
fn fits(schema: &Value, value: &Value) -> bool {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.as_array().and_then(|items| items.first()).is_some_and(|first| {
            let items = schema.get("items").unwrap_or(&Value::Null);
            let word = items.get("enum").and_then(Value::as_array).is_none_or(|words| words.contains(first));
            word && items.get("$ref").is_none() && fits(items, first)
        }),
        _ => false,
    }
}

/// One example per code, kept once for all operations.
fn refer(response: &mut Value, codes: &[Value]) {
    let Some(body) = response.pointer_mut("/content").and_then(|content| content.get_mut(CONTENT_TYPE)) else { return };
    let reference = |code: &str| (code.to_owned(), json!({ "$ref": format!("#/components/examples/{code}") }));
    body["examples"] = codes.iter().filter_map(Value::as_str).map(reference).collect::<Map<_, _>>().into();
}

fn problem(code: FaultCode) -> Value {
    let mut value = json!({
        "type": type_uri(code), "title": code.title(), "status": code.status(), "code": code.code(),
        "instance": "/instances/shop",
    });
    if code == FaultCode::ValidationFailed {
        value["errors"] = json!([{ "pointer": "/phone", "detail": "is required" }]);
    }
    if matches!(code.class(), Class::Throttled) {
        value["retry_after"] = 5.into();
    }
    value["request_id"] = UUID.into();
    value["success"] = false.into();
    json!({ "summary": code.title(), "value": value })
}
