//! The OpenAPI document: poem-openapi's, normalised, as 3.1.0 and 3.0.3.
//!
//! poem-openapi writes one document that claims to be 3.0.0 and is neither; see `normalise`. The files under
//! `openapi/` are what [`spec`] and [`operations`] give, and a test compares them.

mod examples;
mod links;
mod normalise;
mod problems;
mod rules;

use crate::config::ApiConfig;
use crate::handle::Handle;
use crate::service;
use crate::stream::Tickets;
use serde_json::{Map, Value};

pub(crate) use problems::COMMON;

/// Which version of the specification a document follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecVersion {
    /// 3.0.3, for tools that read no newer one; webhooks are under `x-webhooks`.
    V3_0,
    /// 3.1.0.
    V3_1,
}

/// The document, as it is committed: with a relative server.
pub fn spec(version: SpecVersion) -> String {
    document(version, None)
}

/// The document of a gateway that is reached under `public_url`.
pub(crate) fn document(version: SpecVersion, public_url: Option<&str>) -> String {
    let mut document = raw();
    problems::document(&mut document);
    normalise::document(&mut document, version, public_url);
    links::document(&mut document);
    examples::document(&mut document);
    rules::bodies(&mut document, version);
    if version == SpecVersion::V3_0
        && let Some(root) = document.as_object_mut()
        && let Some(webhooks) = root.shift_remove("webhooks")
    {
        let place = root.keys().position(|key| key == "components").unwrap_or_default();
        root.shift_insert(place, "x-webhooks".to_owned(), webhooks);
    }
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// As poem-openapi writes it.
pub(crate) fn raw_text() -> String {
    service::service(&Handle::inert(), &Tickets::default(), &ApiConfig::default()).spec()
}

fn raw() -> Value {
    serde_json::from_str(&raw_text()).unwrap_or_default()
}

/// The list of operations: method, path, operation id, tag, and whether a key is needed.
pub fn operations() -> String {
    let document = raw();
    let mut lines = String::new();
    for (path, method, operation) in each(&document) {
        let text = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or("-");
        let tag = operation.get("tags").and_then(|tags| tags.get(0)?.as_str()).unwrap_or("-");
        let auth = if secured(operation) { "key" } else { "public" };
        let method = method.to_uppercase();
        lines.push_str(&format!("{method} {path} {} {tag} {auth}\n", text("operationId")));
    }
    lines
}

/// Every operation: path, method, operation.
fn each(document: &Value) -> impl Iterator<Item = (&str, &str, &Map<String, Value>)> {
    let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.filter_map(move |(method, operation)| Some((path.as_str(), method.as_str(), operation.as_object()?)))
    })
}

fn secured(operation: &Map<String, Value>) -> bool {
    operation.get("security").and_then(Value::as_array).is_some_and(|schemes| !schemes.is_empty())
}

/// Which methods a path takes, for `Allow`.
pub(crate) struct Methods(Vec<(String, Vec<String>)>);

impl Methods {
    pub fn of_all() -> Self {
        let mut all: Vec<(String, Vec<String>)> = ["/docs", "/openapi.json", "/openapi-3.0.json"]
            .map(|path| (path.to_owned(), vec!["GET".to_owned()]))
            .into();
        for (path, method, _) in each(&raw()) {
            let method = method.to_uppercase();
            match all.iter_mut().find(|(known, _)| known == path) {
                Some((_, methods)) => methods.push(method),
                None => all.push((path.to_owned(), vec![method])),
            }
        }
        Self(all)
    }

    pub fn of(&self, path: &str) -> Vec<&str> {
        let fits = |template: &str| {
            let (mut theirs, mut ours) =
                (path.trim_end_matches('/').split('/'), template.trim_end_matches('/').split('/'));
            loop {
                match (theirs.next(), ours.next()) {
                    (None, None) => return true,
                    (Some(theirs), Some(ours)) if ours.starts_with('{') || theirs == ours => {}
                    _ => return false,
                }
            }
        };
        let methods = self.0.iter().find(|(template, _)| fits(template)).map(|(_, methods)| methods.as_slice());
        let mut methods: Vec<&str> = methods.unwrap_or_default().iter().map(String::as_str).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods
    }
}

/// What a reader must know before the operations.
pub(crate) fn introduction() -> &'static str {
    include_str!("spec/introduction.md").trim()
}
