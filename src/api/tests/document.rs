//! The document: committed, complete, valid in shape, without duplicate keys.

use crate::spec::{SpecVersion, operations, raw_text, spec};
use kero_domain::FaultCode;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

fn document(version: SpecVersion) -> Value {
    serde_json::from_str(&spec(version)).unwrap()
}

fn operations_of(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let named = |(path, item): (&String, &Value)| {
        let path = path.clone();
        item.as_object()
            .unwrap()
            .iter()
            .map(|(method, operation)| (format!("{method} {path}"), operation.clone()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(named).collect()
}

/// Every value of a document with its path.
fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, value);
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| walk(member, &format!("{path}/{name}"), visit))
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{path}/{i}"), visit)),
        _ => {}
    }
}

#[test]
fn the_committed_files_are_what_the_handlers_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi");
    let mut stale = Vec::new();
    for (name, text) in [
        ("openapi.json", spec(SpecVersion::V3_1)),
        ("openapi-3.0.json", spec(SpecVersion::V3_0)),
        ("operations.txt", operations()),
    ] {
        let file = folder.join(name);
        if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&file, text).unwrap();
            } else {
                stale.push(name);
            }
        }
    }
    assert!(stale.is_empty(), "stale under openapi/: {stale:?}; run the tests once with UPDATE=1 and commit");
}

#[test]
fn it_is_the_same_every_time() {
    assert_eq!(spec(SpecVersion::V3_1), spec(SpecVersion::V3_1));
    assert_eq!(spec(SpecVersion::V3_0), spec(SpecVersion::V3_0));
}

/// A value that refuses to be read when an object names a member twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unique;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("{key} twice")));
                    }
                    map.next_value::<Unique>()?;
                }
                Ok(Unique)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                while seq.next_element::<Unique>()?.is_some() {}
                Ok(Unique)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[test]
fn nothing_is_named_twice() {
    assert!(serde_json::from_str::<Unique>(r#"{"a": 1, "a": 2}"#).is_err());
    // in poem-openapi's own text a path of two impl blocks would be there twice, and parsers lose the first
    for text in [raw_text(), spec(SpecVersion::V3_1), spec(SpecVersion::V3_0)] {
        serde_json::from_str::<Unique>(&text).map(|_| ()).unwrap();
    }
}

#[test]
fn every_operation_is_described() {
    let document = document(SpecVersion::V3_1);
    let mut ids = HashSet::new();
    for (name, operation) in operations_of(&document) {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && id.contains('_'), "{id}");
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() < 60 && !text.ends_with('.')), "{name}");
        assert!(operation["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: no description");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name}");
        let tag = document["tags"].as_array().unwrap().iter().find(|tag| tag["name"] == operation["tags"][0]).unwrap();
        assert!(tag["description"].as_str().is_some_and(|text| !text.is_empty()), "{tag}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{name}: {parameter}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
            for kind in response["content"].as_object().into_iter().flatten().map(|(kind, _)| kind) {
                assert!(!kind.contains(';'), "{name} {status}: {kind}");
                let own_body = name == "get /health" && status == "503";
                assert_eq!(status.as_str() < "400" || own_body, kind != "application/problem+json", "{name} {status}");
            }
        }
    }
    for (name, item) in document["webhooks"].as_object().unwrap() {
        assert!(item["post"]["summary"].is_string(), "{name}");
    }
}

#[test]
fn every_operation_needs_a_key_except_these() {
    let open: Vec<String> = operations_of(&document(SpecVersion::V3_1))
        .into_iter()
        .filter(|(_, operation)| operation["security"].as_array().unwrap().is_empty())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(open, ["get /", "get /health", "get /livez", "get /readyz", "get /problems/{code}"]);
    for (name, operation) in operations_of(&document(SpecVersion::V3_1)) {
        if !operation["security"].as_array().unwrap().is_empty() {
            for status in ["401", "403", "500"] {
                assert!(operation["responses"][status].is_object(), "{name} {status}");
            }
        }
    }
}

#[test]
fn every_fault_code_is_in_it() {
    let document = document(SpecVersion::V3_1);
    let list = document["components"]["schemas"]["Problem"]["description"].as_str().unwrap();
    let mut answered = HashSet::new();
    for (_, operation) in operations_of(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            for code in response["x-problem-codes"].as_array().into_iter().flatten() {
                let code = FaultCode::ALL.iter().find(|known| *code == known.code()).unwrap();
                assert_eq!(code.status().to_string(), *status);
                answered.insert(code.code());
            }
        }
    }
    for code in FaultCode::ALL {
        assert!(list.contains(&format!("`{}`", code.code())), "{}", code.code());
    }
    // these come from the router
    let elsewhere = ["method-not-allowed"];
    let missing: Vec<_> = FaultCode::ALL
        .iter()
        .map(|code| code.code())
        .filter(|code| !answered.contains(code) && !elsewhere.contains(code))
        .collect();
    assert!(missing.is_empty(), "no operation names {missing:?}");
}

#[test]
fn references_lead_somewhere_and_nothing_of_the_other_dialect_is_left() {
    for version in [SpecVersion::V3_1, SpecVersion::V3_0] {
        let document = document(version);
        walk(&document, "", &mut |path, value| {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{path}: {target}");
                let alone = value.as_object().unwrap().len() == 1;
                assert!(alone || version == SpecVersion::V3_1, "{path}: members beside $ref");
            }
            // a member that may be null and has a list of words names null among them
            assert!(!value.is_null() || path.contains("/enum/"), "{path} is null");
            if version == SpecVersion::V3_1 {
                assert!(value.get("nullable").is_none(), "{path}");
                assert!(!value.get("exclusiveMinimum").is_some_and(Value::is_boolean), "{path}");
            }
        });
    }
    assert_eq!(document(SpecVersion::V3_1)["openapi"], "3.1.0");
    let old = document(SpecVersion::V3_0);
    assert_eq!(old["openapi"], "3.0.3");
    assert!(old.get("webhooks").is_none() && old["x-webhooks"]["message"].is_object());
    assert!(old["info"].get("summary").is_none() && old["info"]["license"].get("identifier").is_none());
}

#[test]
fn the_shape_is_that_of_the_specification() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("", &["openapi", "info", "servers", "tags", "paths", "webhooks", "components"][..]),
        ("info", &["title", "summary", "description", "version", "license"]),
        ("components", &["schemas", "securitySchemes", "examples"]),
    ]);
    let document = document(SpecVersion::V3_1);
    for (place, names) in allowed {
        let object = if place.is_empty() { &document } else { &document[place] };
        for name in object.as_object().unwrap().keys() {
            assert!(names.contains(&name.as_str()), "{place}/{name}");
        }
    }
    for (name, operation) in operations_of(&document) {
        let path = name.split_once(' ').unwrap().1;
        let declared: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let named: Vec<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, named, "{name}");
        for (status, _) in operation["responses"].as_object().unwrap() {
            assert!(
                status.parse::<u16>().is_ok_and(|status| (200..600).contains(&status) || status == 101),
                "{name}: {status}"
            );
        }
        for scheme in operation["security"].as_array().into_iter().flatten() {
            for (scheme, scopes) in scheme.as_object().unwrap() {
                assert!(
                    document["components"]["securitySchemes"][scheme].is_object() && scopes == &Value::Array(vec![])
                );
            }
        }
    }
    let kinds = ["string", "integer", "number", "boolean", "array", "object", "null"];
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        walk(schema, name, &mut |path, value| {
            if let Some(kind) = value.get("type").filter(|_| !path.ends_with("/properties")) {
                let known = |kind: &Value| kind.as_str().is_some_and(|kind| kinds.contains(&kind));
                let listed = kind.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(known));
                assert!(known(kind) || listed, "{path}: {kind}");
                assert!(kind != "array" || value["items"].is_object(), "{path}");
            }
        });
        let required = schema["required"].as_array().into_iter().flatten();
        for member in required {
            assert!(schema["properties"][member.as_str().unwrap()].is_object(), "{name}: {member}");
        }
    }
}

#[test]
fn headers_have_their_usual_names() {
    let document = document(SpecVersion::V3_1);
    let send = &document["paths"]["/messages/text"]["post"];
    let names: Vec<&str> = send["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for name in ["X-Instance-Id", "X-Async", "Idempotency-Key", "X-Correlation-Id"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(send["responses"]["202"]["headers"]["Location"].is_object());
    assert!(send["responses"]["401"]["headers"]["WWW-Authenticate"].is_object());
}

/// Each kind of message can be sent asynchronously, repeated safely and found again.
#[test]
fn every_send_takes_the_headers_of_sends() {
    for version in [SpecVersion::V3_1, SpecVersion::V3_0] {
        let operations = operations_of(&document(version));
        let sends: Vec<_> =
            operations.iter().filter(|(name, _)| name.starts_with("post ") && name.contains("/messages/")).collect();
        assert!(sends.len() >= 2, "{sends:?}");
        for (name, operation) in sends {
            let parameters = operation["parameters"].as_array().unwrap();
            let found = |wanted: &str| parameters.iter().any(|p| p["name"] == wanted && p["in"] == "header");
            for header in ["X-Async", "Idempotency-Key", "X-Correlation-Id"] {
                assert!(found(header), "{name} does not take {header}");
            }
            assert!(operation["responses"]["202"].is_object(), "{name}");
        }
    }
}

#[test]
fn every_kind_of_event_is_described() {
    let document = document(SpecVersion::V3_1);
    let other = document["webhooks"]["other"]["post"]["description"].as_str().unwrap();
    for kind in kero_domain::EventKind::ALL {
        let own = document["webhooks"].get(kind.as_str()).is_some();
        assert!(own || other.contains(&format!("`{kind}`")), "{kind}");
    }
    let schema = &document["components"]["schemas"]["MessageAckEvent"]["properties"]["event"];
    assert_eq!(schema["enum"], serde_json::json!(["message_ack"]));
}

#[test]
fn answers_leave_out_what_is_absent() {
    use crate::wire::{Done, Page, instance::Instance, job::Job, message::SendResult};
    use poem_openapi::types::ToJSON;
    let no_nulls =
        |value: Option<Value>| walk(&value.unwrap(), "", &mut |path, value| assert!(!value.is_null(), "{path}"));
    no_nulls(Done::silent().to_json());
    no_nulls(Page::<Job>::new(vec![], None, None).to_json());
    let reply = kero_gateway::SendReply {
        message_id: "3EB0".parse().unwrap(),
        correlation_id: "c".parse().unwrap(),
        queued: false,
    };
    assert_eq!(
        SendResult::new(reply.clone(), false).to_json_string(),
        r#"{"success":true,"message_id":"3EB0","status":"sent"}"#
    );
    let queued = kero_gateway::SendReply { queued: true, ..reply };
    assert_eq!(
        SendResult::new(queued, false).to_json_string(),
        r#"{"success":true,"message_id":"3EB0","status":"queued","correlation_id":"c"}"#
    );
    let _ = std::any::type_name::<Instance>();
    // a response object with optional members says so in its derive
    for file in ["instance", "job", "delivery", "endpoint", "message", "queue", "mod", "webhook", "pairing", "system"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("wire/{file}.rs"));
        let text = std::fs::read_to_string(path).unwrap();
        for block in text.split("#[derive(Object)]").skip(1) {
            let body = block.split("\n}").next().unwrap();
            let name = body.split("struct ").nth(1).unwrap().split([' ', '<']).next().unwrap();
            let request = text.contains(&format!("impl Body for {name} "));
            let skips = body.contains("skip_serializing_if_is_none");
            assert!(request || skips || !body.contains(": Option<"), "{file}.rs: {name} would write null");
        }
    }
}

/// The bodies of an operation's or webhook's parts that are not files.
fn bodies(holder: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let kinds = holder["content"].as_object().into_iter().flatten();
    kinds.filter(|(_, body)| body["schema"]["format"] != "binary")
}

#[test]
fn every_body_has_an_example() {
    for version in [SpecVersion::V3_1, SpecVersion::V3_0] {
        let document = document(version);
        let mut counted = 0;
        for (name, operation) in operations_of(&document) {
            let answers =
                operation["responses"].as_object().unwrap().values().filter(|it| it["x-problem-codes"].is_null());
            for (kind, body) in bodies(&operation["requestBody"]).chain(answers.flat_map(bodies)) {
                assert!(!body["example"].is_null() || body["examples"].is_object(), "{name}: {kind} has no example");
                counted += 1;
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                for code in response["x-problem-codes"].as_array().into_iter().flatten() {
                    let code = code.as_str().unwrap();
                    let place = &response["content"]["application/problem+json"]["examples"][code]["$ref"];
                    let example = document.pointer(place.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                    assert_eq!(example["value"]["code"], code, "{name} {status}");
                    assert_eq!(example["value"]["status"].to_string(), *status, "{name} {status}");
                }
            }
        }
        let hooks = document.get("webhooks").or_else(|| document.get("x-webhooks")).unwrap();
        for (name, hook) in hooks.as_object().unwrap() {
            for (_, body) in bodies(&hook["post"]["requestBody"]) {
                assert!(name == "other" || body["example"]["event"] == *name, "{name}");
                counted += 1;
            }
        }
        assert!(counted > 50, "{counted}");
    }
}

#[test]
fn problems_that_pass_by_have_a_time_to_try_again() {
    use kero_domain::Class::{Throttled, Transient};
    for (name, operation) in operations_of(&document(SpecVersion::V3_1)) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let codes = response["x-problem-codes"].as_array().into_iter().flatten();
            let passes = codes
                .filter_map(|code| FaultCode::ALL.iter().find(|known| *code == known.code()))
                .any(|code| matches!(code.class(), Transient | Throttled));
            assert_eq!(passes, response["headers"]["Retry-After"].is_object(), "{name} {status}");
        }
    }
}

#[test]
fn answers_lead_to_what_can_be_done_next() {
    let document = document(SpecVersion::V3_1);
    let paths = &document["paths"];
    let created = &paths["/instances"]["post"]["responses"]["201"]["links"];
    for id in ["instance_get", "instance_connect", "qr_get", "message_send_text", "webhook_update", "job_list"] {
        assert_eq!(created[id]["parameters"]["instance_id"], "$response.body#/data/instance_id", "{id}");
    }
    let queued = &paths["/instances/{instance_id}/messages/text"]["post"]["responses"]["202"]["links"];
    assert_eq!(queued["job_get"]["parameters"]["instance_id"], "$request.path.instance_id");
    assert_eq!(queued["job_get"]["parameters"]["correlation_id"], "$response.body#/correlation_id");
    let ids: HashSet<String> = operations_of(&document)
        .iter()
        .map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    walk(&document["paths"], "", &mut |path, value| {
        if let Some(links) = value.get("links").and_then(Value::as_object) {
            for (name, link) in links {
                assert!(ids.contains(link["operationId"].as_str().unwrap()), "{path}: {name}");
            }
        }
    });
}

#[test]
fn the_newer_document_declares_what_bodies_may_be() {
    let new = &document(SpecVersion::V3_1)["components"]["schemas"]["SendText"]["properties"];
    assert_eq!(new["phone"]["type"], serde_json::json!(["string", "integer"]));
    assert_eq!(new["send_at"]["type"], serde_json::json!(["string", "integer", "null"]));
    assert_eq!(new["priority"]["anyOf"][1], serde_json::json!({ "type": "null" }));
    assert_eq!(new["message"]["type"], "string");
    let old = &document(SpecVersion::V3_0)["components"]["schemas"]["SendText"]["properties"];
    assert_eq!((&old["phone"]["type"], &old["send_at"]["type"]), (&"string".into(), &"string".into()));
}
