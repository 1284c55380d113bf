//! Text that a database refuses is made storable here, so that no message can block its writer.

use std::borrow::Cow;

/// Replaces U+0000, which Postgres text and JSON cannot hold, by U+FFFD.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The same for every string and key of a JSON value.
pub fn storable_json(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.contains('\0') => *text = storable(text).into_owned(),
        serde_json::Value::Array(items) => items.iter_mut().for_each(storable_json),
        serde_json::Value::Object(members) => {
            if members.keys().any(|key| key.contains('\0')) {
                let old = std::mem::take(members);
                *members = old.into_iter().map(|(key, value)| (storable(&key).into_owned(), value)).collect();
            }
            members.values_mut().for_each(storable_json);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn replaces_nul_everywhere() {
        let mut value = serde_json::json!({"a\0": ["x\0y", {"b": "\0"}]});
        super::storable_json(&mut value);
        assert!(!value.to_string().contains("\\u0000"), "{value}");
    }
}
