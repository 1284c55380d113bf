//! Makes a valid document of what poem-openapi 5.1 writes: it says 3.0.0 and has `webhooks` (3.1) and `nullable`
//! (3.0), content types with a charset, header names in upper case, and empty descriptions.

use super::SpecVersion;
use serde_json::{Map, Value, json};

/// Where the text of the licence is, for the document that has no identifiers.
const LICENSE: &str = "https://www.apache.org/licenses/LICENSE-2.0";

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

pub(super) fn document(document: &mut Value, version: SpecVersion, public_url: Option<&str>) {
    let Some(root) = document.as_object_mut() else { return };
    let server =
        json!({ "url": public_url.map_or("/", |url| url.trim_end_matches('/')), "description": "This gateway" });
    let mut webhooks = root.shift_remove("webhooks").unwrap_or_else(|| json!({}));
    name_events(&mut webhooks, root.get_mut("components"));
    let mut take = |name: &str| root.shift_remove(name).unwrap_or_default();
    let (mut info, mut tags, mut paths, mut components) =
        (take("info"), take("tags"), take("paths"), take("components"));
    order_tags(&mut tags, &paths);
    for item in [&mut paths, &mut webhooks] {
        operations(item);
    }
    tag_webhooks(&mut webhooks, &mut tags);
    for part in [&mut paths, &mut webhooks, &mut components] {
        schemas(part, version);
    }
    let number = match version {
        SpecVersion::V3_1 => "3.1.0",
        SpecVersion::V3_0 => "3.0.3",
    };
    if version == SpecVersion::V3_0 {
        if let Some(info) = info.as_object_mut() {
            info.shift_remove("summary");
        }
        if let Some(license) = info.pointer_mut("/license").and_then(Value::as_object_mut) {
            license.shift_remove("identifier");
            license.insert("url".to_owned(), LICENSE.into());
        }
    }
    *document = json!({
        "openapi": number, "info": info, "servers": [server], "tags": tags,
        "paths": paths, "webhooks": webhooks, "components": components,
    });
}

/// The sections in the order in which operations use them, not of the alphabet.
fn order_tags(tags: &mut Value, paths: &Value) {
    let items = paths.as_object().into_iter().flatten().filter_map(|(_, item)| item.as_object());
    let operations = items.flat_map(|item| item.values());
    let used: Vec<&Value> = operations.filter_map(|operation| operation.pointer("/tags/0")).collect();
    if let Some(tags) = tags.as_array_mut() {
        tags.sort_by_key(|tag| used.iter().position(|name| tag.get("name") == Some(name)));
    }
}

/// Webhooks are a section of their own.
fn tag_webhooks(webhooks: &mut Value, tags: &mut Value) {
    for (_, item) in webhooks.as_object_mut().into_iter().flatten() {
        if let Some(operation) = item.get_mut("post").and_then(Value::as_object_mut) {
            operation.shift_insert(0, "tags".to_owned(), json!(["Webhooks"]));
        }
    }
    if let Some(tags) = tags.as_array_mut() {
        tags.push(json!({ "name": "Webhooks", "description": "What a webhook receives: one request per event." }));
    }
}

fn operations(items: &mut Value) {
    let items = items.as_object_mut().into_iter().flatten().map(|(_, item)| item);
    let operations = items.flat_map(|item| item.as_object_mut().into_iter().flatten());
    let operations = operations.filter(|(method, _)| METHODS.contains(&method.as_str()));
    for operation in operations.filter_map(|(_, operation)| operation.as_object_mut()) {
        // said of every operation: that it needs no key, too
        operation.entry("security").or_insert_with(|| json!([]));
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
        for parameter in parameters.filter_map(Value::as_object_mut) {
            tidy_parameter(parameter);
        }
        super::rules::parameters(operation);
        if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            // what an operation is about comes before how it is done
            let place = |parameter: &Value| ["path", "query", "header"].iter().position(|at| parameter["in"] == *at);
            parameters.sort_by_key(place);
        }
        if let Some(body) = operation.get_mut("requestBody").and_then(Value::as_object_mut) {
            content(body);
        }
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten();
        for response in responses.filter_map(|(_, response)| response.as_object_mut()) {
            content(response);
            headers(response);
            if response.get("description").is_none_or(|text| text == "") {
                response.insert("description".to_owned(), "Done.".into());
            }
        }
    }
}

fn tidy_parameter(parameter: &mut Map<String, Value>) {
    for (name, default) in [("deprecated", false), ("explode", true)] {
        if parameter.get(name).is_some_and(|value| *value == default) {
            parameter.shift_remove(name);
        }
    }
    // a list in the query may be empty, and an empty one is no parameter at all
    let list =
        parameter.get("schema").is_some_and(|schema| schema["type"] == "array" && schema.get("minItems").is_none());
    if list && parameter.get("in").is_some_and(|place| place == "query") {
        parameter.insert("required".to_owned(), false.into());
    }
    if parameter.get("in").is_some_and(|place| place == "header")
        && let Some(Value::String(name)) = parameter.get_mut("name")
    {
        *name = canonical(name);
    }
    if parameter.get("name").is_some_and(|name| name == "instance_id") && !parameter.contains_key("description") {
        parameter.insert("description".to_owned(), "The instance's id, as it was created.".into());
    }
}

/// `application/json; charset=utf-8` → `application/json`: generators look for the bare name.
fn content(holder: &mut Map<String, Value>) {
    if let Some(Value::Object(types)) = holder.get_mut("content") {
        let bare = |name: String| name.split(';').next().map(|name| name.trim().to_owned()).unwrap_or(name);
        *types = std::mem::take(types).into_iter().map(|(name, value)| (bare(name), value)).collect();
    }
}

fn headers(response: &mut Map<String, Value>) {
    if let Some(Value::Object(headers)) = response.get_mut("headers") {
        *headers = std::mem::take(headers)
            .into_iter()
            .map(|(name, mut header)| {
                if let Some(header) = header.as_object_mut() {
                    header.retain(|name, value| name != "deprecated" || *value != false);
                }
                (canonical(&name), header)
            })
            .collect();
    }
}

/// `X-CORRELATION-ID` → `X-Correlation-Id`.
fn canonical(name: &str) -> String {
    let word = |word: &str| match word.to_ascii_uppercase().as_str() {
        "API" => "API".to_owned(),
        "WWW" => "WWW".to_owned(),
        upper => upper.chars().take(1).chain(upper.chars().skip(1).map(|c| c.to_ascii_lowercase())).collect(),
    };
    name.split('-').map(word).collect::<Vec<String>>().join("-")
}

/// Goes through every object and mends those that are schemas of the wrong dialect.
fn schemas(value: &mut Value, version: SpecVersion) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| schemas(item, version)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| schemas(member, version));
            plain_reference(members, version);
            signed(members);
            if version == SpecVersion::V3_1 {
                modern(members);
            }
        }
        _ => {}
    }
}

/// poem-openapi describes a reference as `allOf: [reference, description]` and repeats the description beside it.
fn plain_reference(schema: &mut Map<String, Value>, version: SpecVersion) {
    let Some(Value::Array(parts)) = schema.get("allOf") else { return };
    let [reference, Value::Object(rest)] = parts.as_slice() else { return };
    let repeated = rest.iter().all(|(name, value)| schema.get(name) == Some(value));
    let Some(target) = reference.get("$ref").filter(|_| repeated).cloned() else { return };
    match version {
        SpecVersion::V3_0 => schema.insert("allOf".to_owned(), json!([{ "$ref": target }])),
        SpecVersion::V3_1 => {
            schema.shift_remove("allOf");
            schema.shift_insert(0, "$ref".to_owned(), target)
        }
    };
}

/// Generators know `int32` and `int64` only, and take anything else for an `int32`: a file of 3 GB would not fit.
fn signed(schema: &mut Map<String, Value>) {
    let Some(format) = schema.get("format").and_then(Value::as_str) else { return };
    let wide = match format {
        "uint64" | "uint32" => "int64",
        "uint16" | "uint8" => "int32",
        _ => return,
    };
    schema.insert("format".to_owned(), wide.into());
    schema.entry("minimum").or_insert_with(|| 0.into());
}

/// 3.0's `nullable`, boolean exclusive bounds and `example` as 3.1 has them.
fn modern(schema: &mut Map<String, Value>) {
    if schema.get("nullable") == Some(&Value::Bool(true)) {
        schema.shift_remove("nullable");
        if let Some(Value::String(kind)) = schema.get("type").cloned() {
            schema.insert("type".to_owned(), json!([kind, "null"]));
        }
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match schema.get(exclusive) {
            Some(Value::Bool(true)) => {
                schema.shift_remove(exclusive);
                if let Some(limit) = schema.shift_remove(bound) {
                    schema.insert(exclusive.to_owned(), limit);
                }
            }
            Some(Value::Bool(false)) => {
                schema.shift_remove(exclusive);
            }
            _ => {}
        }
    }
    if schema.contains_key("type")
        && let Some(example) = schema.shift_remove("example")
    {
        schema.insert("examples".to_owned(), json!([example]));
    }
}

/// In the schema of a webhook's body, `event` is exactly the webhook's name.
fn name_events(webhooks: &mut Value, components: Option<&mut Value>) {
    let Some(schemas) = components.and_then(|components| components.get_mut("schemas")) else { return };
    for (name, item) in webhooks.as_object_mut().into_iter().flatten() {
        let body = item.pointer("/post/requestBody/content").and_then(Value::as_object);
        let reference = body.and_then(|types| types.values().next()?.pointer("/schema/$ref")?.as_str());
        let schema = reference.and_then(|reference| schemas.get_mut(reference.rsplit('/').next()?));
        if let Some(event) = schema.and_then(|schema| schema.pointer_mut("/properties/event")) {
            *event = match name.as_str() {
                // stands for every kind that has no description of its own
                "other" => json!({ "type": "string" }),
                name => json!({ "type": "string", "enum": [name] }),
            };
        }
    }
}
