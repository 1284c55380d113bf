//! Links: which operations an answer leads to.
//!
//! An answer that names something new (an instance, a job) links to every operation whose path asks for it: found by
//! the names of members and path parameters, which are the same throughout the API.

use super::each;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn document(document: &mut Value) {
    let consumers: Vec<(String, Vec<String>)> = each(document)
        .filter_map(|(path, _, operation)| {
            Some((operation.get("operationId")?.as_str()?.to_owned(), parameters(path).map(str::to_owned).collect()))
        })
        .collect();
    let mut found: Vec<(String, String, String, Map<String, Value>)> = Vec::new();
    for (path, method, operation) in each(document).filter(|(_, method, _)| *method == "post") {
        let own: Vec<&str> = parameters(path).collect();
        for (status, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
            if !status.starts_with('2') {
                continue;
            }
            let named = named(document, response);
            // only what the path does not already say is news
            let news: BTreeMap<&str, &str> = named
                .iter()
                .filter(|(name, _)| !own.contains(&name.as_str()))
                .map(|(name, place)| (name.as_str(), place.as_str()))
                .collect();
            let mut links = Map::new();
            for (id, wanted) in &consumers {
                let places: Option<BTreeMap<&str, String>> = wanted
                    .iter()
                    .map(|name| {
                        let here = own.contains(&name.as_str()).then(|| format!("$request.path.{name}"));
                        let place = here.or_else(|| Some(format!("$response.body#{}", news.get(name.as_str())?)))?;
                        Some((name.as_str(), place))
                    })
                    .collect();
                let Some(places) = places.filter(|_| wanted.iter().any(|name| news.contains_key(name.as_str()))) else {
                    continue;
                };
                links.insert(id.clone(), json!({ "operationId": id, "parameters": places }));
            }
            if !links.is_empty() {
                found.push((path.to_owned(), method.to_owned(), status.clone(), links));
            }
        }
    }
    for (path, method, status, links) in found {
        let operation = document.get_mut("paths").and_then(|paths| paths.get_mut(path)?.get_mut(method));
        if let Some(response) = operation.and_then(|operation| operation.get_mut("responses")?.get_mut(status)) {
            response["links"] = links.into();
        }
    }
}

fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The ids in an answer: its own members and those of `data`, with the JSON pointers where they are.
fn named(document: &Value, response: &Value) -> Vec<(String, String)> {
    let resolve = |schema: &Value| -> Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
        name.and_then(|name| document.pointer("/components/schemas")?.get(name)).unwrap_or(schema).clone()
    };
    let schema = response.pointer("/content").and_then(Value::as_object).and_then(|kinds| {
        let json = kinds.iter().find(|(kind, _)| kind.starts_with("application/json"))?;
        Some(resolve(json.1.get("schema")?))
    });
    let Some(schema) = schema else { return Vec::new() };
    let members = |schema: &Value, at: &str| -> Vec<(String, String)> {
        let names = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let ids = names.filter(|(name, _)| name.ends_with("_id") || *name == "id");
        ids.map(|(name, _)| (name.clone(), format!("{at}/{name}"))).collect()
    };
    let mut found = members(&schema, "");
    if let Some(data) = schema.pointer("/properties/data") {
        let members = members(&resolve(data), "/data");
        // the `id` of an Endpoint is what paths call `endpoint_id`
        let kind = data.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
        if let (Some(kind), Some((_, place))) = (kind, members.iter().find(|(name, _)| name == "id")) {
            found.push((format!("{}_id", snake(kind)), place.clone()));
        }
        found.extend(members);
    }
    found
}

/// `DeadLetter` → `dead_letter`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}
