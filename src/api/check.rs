//! Whether a JSON value is what a schema says, and where not, as JSON pointers: poem-openapi's own texts name no place
//! and quote the value, and its texts take numbers and booleans.

use crate::wire::time::SECONDS;
use kero_domain::fault::FieldError;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde_json::Value;
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The places of `value` that `T` does not take; empty when the schema cannot tell.
pub(crate) fn explain<T: Type + 'static>(value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(&T::schema_ref(), value, String::new(), &registry::<T>(), &mut errors);
    errors
}

/// The members of `value` that `T` does not have; `said` has words for some of them.
pub(crate) fn unknown<T: Type + 'static>(value: &Value, said: &[(&str, &str)]) -> Vec<FieldError> {
    let registry = registry::<T>();
    let (Value::Object(members), Some(schema)) = (value, registry.schemas.get(T::name().as_ref())) else {
        return Vec::new();
    };
    let known = |name: &str| schema.properties.iter().any(|(known, _)| *known == name);
    let refused = members.keys().filter(|name| !known(name)).map(|name| {
        let detail = said.iter().find(|(member, _)| member == name).map_or("is not known here", |(_, detail)| detail);
        FieldError { pointer: format!("/{}", escape(name)), detail: detail.to_owned() }
    });
    refused.collect()
}

/// The schemas that `T` is made of, gathered once.
fn registry<T: Type + 'static>() -> Arc<Registry> {
    static KNOWN: LazyLock<Mutex<HashMap<TypeId, Arc<Registry>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let gather = || {
        let mut registry = Registry::new();
        T::register(&mut registry);
        Arc::new(registry)
    };
    known.entry(TypeId::of::<T>()).or_insert_with(gather).clone()
}

fn visit(schema: &MetaSchemaRef, value: &Value, pointer: String, registry: &Registry, errors: &mut Vec<FieldError>) {
    let schema = match schema {
        MetaSchemaRef::Inline(schema) => schema,
        MetaSchemaRef::Reference(name) => match registry.schemas.get(name) {
            Some(schema) => schema,
            None => return,
        },
    };
    for part in &schema.all_of {
        visit(part, value, pointer.clone(), registry, errors);
    }
    if let Some(detail) = complaint(schema, value) {
        errors.push(FieldError { pointer, detail });
        return;
    }
    match value {
        Value::Object(members) => {
            for (name, member) in &schema.properties {
                let place = format!("{pointer}/{}", escape(name));
                match members.get(*name) {
                    None | Some(Value::Null) => {
                        if schema.required.contains(name) {
                            errors.push(FieldError { pointer: place, detail: "is required".to_owned() });
                        }
                    }
                    Some(value) => visit(member, value, place, registry, errors),
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    visit(schema, item, format!("{pointer}/{index}"), registry, errors);
                }
            }
        }
        _ => {}
    }
}

/// What is wrong with the value itself.
fn complaint(schema: &MetaSchema, value: &Value) -> Option<String> {
    let fits = match schema.ty {
        // a moment may be Unix seconds, a phone number a number; `spec::rules` says so in the document
        "string" => value.is_string() || (value.is_i64() && or_number(schema)),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if !fits {
        let article = if schema.ty.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
        return Some(format!("must be {article} {}", schema.ty));
    }
    if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
        let names: Vec<_> = schema.enum_items.iter().filter_map(Value::as_str).collect();
        return Some(format!("must be one of: {}", names.join(", ")));
    }
    let length = value.as_str().map(|text| text.chars().count()).or_else(|| value.as_array().map(Vec::len));
    let (least, most) = match value {
        Value::Array(_) => (schema.min_items, schema.max_items),
        _ => (schema.min_length, schema.max_length),
    };
    match (length, value.as_f64()) {
        (Some(length), _) if least.is_some_and(|least| length < least) => {
            Some(format!("must have at least {}", least.unwrap_or_default()))
        }
        (Some(length), _) if most.is_some_and(|most| length > most) => {
            Some(format!("must have at most {}", most.unwrap_or_default()))
        }
        (_, Some(number)) if is_time(schema) && !(SECONDS.0 as f64..=SECONDS.1 as f64).contains(&number) => {
            Some("is not a time between the years 0 and 9999".to_owned())
        }
        (_, Some(number)) if schema.minimum.is_some_and(|least| number < least) => Some("is too small".to_owned()),
        (_, Some(number)) if schema.maximum.is_some_and(|most| number > most) => Some("is too large".to_owned()),
        _ if is_time(schema)
            && value.as_str().is_some_and(|text| kero_domain::Timestamp::parse_rfc3339(text).is_none()) =>
        {
            Some("must be a time in RFC 3339".to_owned())
        }
        _ => None,
    }
}

fn or_number(schema: &MetaSchema) -> bool {
    matches!(schema.format, Some("date-time" | "phone-number" | "whatsapp-address"))
}

fn is_time(schema: &MetaSchema) -> bool {
    schema.ty == "string" && schema.format == Some("date-time")
}

/// A member's name in a JSON pointer (RFC 6901 §3).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
