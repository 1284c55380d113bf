//! What the gateway takes, as schemas: rules for parameters by their name, which means the same in every operation,
//! and, in the newer document, the leniencies of bodies.
//!
//! The older document keeps bodies plain: code generators make worse types of a union with `null` than a caller needs.

use super::SpecVersion;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The schema of a parameter, by its place and name.
fn parameter(place: &str, name: &str) -> Option<Value> {
    let instance_id = || json!({ "type": "string", "pattern": crate::wire::slug::PATTERN, "maxLength": 64 });
    let correlation_id = || json!({ "type": "string", "pattern": "^[A-Za-z0-9._:~-]+$", "maxLength": 128 });
    Some(match (place, name) {
        ("path", "instance_id") | ("header", "X-Instance-Id") => instance_id(),
        ("path", "correlation_id") | ("header", "X-Correlation-Id") => correlation_id(),
        ("header", "X-Async") => json!({ "type": "string", "enum": ["true", "false", "1", "0"] }),
        ("header", "Idempotency-Key") => {
            json!({ "type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": 255 })
        }
        ("query", "since" | "until") => json!({ "type": "string", "format": "date-time" }),
        ("query", "cursor") => json!({ "type": "string", "format": "cursor" }),
        _ => return None,
    })
}

/// Gives parameters their rules.
pub(super) fn parameters(operation: &mut Map<String, Value>) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    for found in parameters {
        let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(schema) = parameter(text("in"), text("name")) {
            found["schema"] = schema;
        }
    }
}

/// Declares what bodies may be beyond their plain schemas: an absent member may be `null`, a moment may be Unix
/// seconds, a phone number may be a number.
pub(super) fn bodies(document: &mut Value, version: SpecVersion) {
    if version != SpecVersion::V3_1 {
        return;
    }
    let own: Vec<Value> =
        super::each(document).filter_map(|(_, _, operation)| operation.get("requestBody").cloned()).collect();
    let answered: Vec<Value> = super::each(document)
        .filter_map(|(_, _, operation)| operation.get("responses").cloned())
        .chain(document.get("webhooks").cloned())
        .collect();
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    let (own, answered) = (reached(&own, schemas), reached(&answered, schemas));
    for name in own.difference(&answered) {
        let Some(schema) = schemas.get_mut(name) else { continue };
        let required: BTreeSet<String> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let members = schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten();
        for (name, member) in members.filter_map(|(name, member)| Some((name, member.as_object_mut()?))) {
            lenient(member, !required.contains(name));
        }
    }
}

fn lenient(member: &mut Map<String, Value>, optional: bool) {
    if let Some(reference) = member.shift_remove("$ref") {
        if optional {
            member.shift_insert(0, "anyOf".to_owned(), json!([{ "$ref": reference }, { "type": "null" }]));
        } else {
            member.shift_insert(0, "$ref".to_owned(), reference);
        }
        return;
    }
    if let Some(items) = member.get_mut("items").and_then(Value::as_object_mut) {
        lenient(items, false);
    }
    let Some(Value::String(kind)) = member.get("type").cloned() else { return };
    let mut kinds = vec![kind];
    let limits = match member.get("format").and_then(Value::as_str) {
        Some("date-time") => Some(crate::wire::time::SECONDS),
        // as many digits as a number can have
        Some("phone-number" | "whatsapp-address") => Some((10_000, 999_999_999_999_999)),
        _ => None,
    };
    if let Some((least, most)) = limits {
        kinds.push("integer".to_owned());
        member.insert("minimum".to_owned(), least.into());
        member.insert("maximum".to_owned(), most.into());
    }
    if optional {
        kinds.push("null".to_owned());
        if let Some(Value::Array(words)) = member.get_mut("enum") {
            words.push(Value::Null);
        }
    }
    if kinds.len() > 1 {
        member.insert("type".to_owned(), kinds.into());
    }
}

/// The names of the schemas that these values lead to.
fn reached(from: &[Value], schemas: &Map<String, Value>) -> BTreeSet<String> {
    fn visit(value: &Value, schemas: &Map<String, Value>, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, schemas, found)),
            Value::Object(members) => {
                let target = members.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
                if let Some((name, schema)) = target.and_then(|name| schemas.get_key_value(name))
                    && found.insert(name.clone())
                {
                    visit(schema, schemas, found);
                }
                members.values().for_each(|member| visit(member, schemas, found));
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    from.iter().for_each(|value| visit(value, schemas, &mut found));
    found
}
