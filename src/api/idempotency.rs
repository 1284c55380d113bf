//! `Idempotency-Key`: the same key with the same request gives the same answer; with another request it is refused.
//!
//! Bodies are compared as parsed JSON: the order of members, white space and number spelling do not count.

use kero_domain::{Fault, FaultCode, InstanceId};
use poem::http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The header's value. It is read by hand, because a value that cannot be read must not count as absent.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let valid = |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    match value.to_str().map(str::trim) {
        Ok(text) if values.next().is_none() && valid(text) => Ok(Some(text.to_owned())),
        _ => Err(FaultCode::InvalidIdempotencyKey.into()),
    }
}

/// What two requests must share to count as the same: operation, instance, and the body as JSON.
pub(crate) fn fingerprint(operation: &str, instance: &InstanceId, body: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(operation.as_bytes());
    hash.update([0]);
    hash.update(instance.as_str().as_bytes());
    hash.update([0]);
    digest(body, &mut hash);
    hash.finalize().into()
}

/// Feeds a value with tags and lengths, members by name, so that no two different values feed the same bytes.
fn digest(value: &Value, hash: &mut Sha256) {
    let text = |hash: &mut Sha256, tag: u8, text: &str| {
        hash.update([tag]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    match value {
        Value::Null => hash.update([0]),
        Value::Bool(flag) => hash.update([1, u8::from(*flag)]),
        Value::Number(number) => match number.as_f64() {
            // 1, 1.0 and 1e0 are one number; beyond 2^53 the digits decide
            Some(float) if float.abs() < 9_007_199_254_740_992.0 => text(hash, 2, &float.to_string()),
            _ => text(hash, 2, &number.to_string()),
        },
        Value::String(string) => text(hash, 3, string),
        Value::Array(items) => {
            hash.update([4]);
            hash.update((items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| digest(item, hash));
        }
        Value::Object(members) => {
            hash.update([5]);
            hash.update((members.len() as u64).to_be_bytes());
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            for name in names {
                text(hash, 6, name);
                digest(&members[name], hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_does_not_count_and_content_does() {
        let shop = "shop".parse().unwrap();
        let of = |body: &Value| fingerprint("text", &shop, body);
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(of(&read(r#"{"a":1,"b":[true,null]}"#)), of(&read(r#" {"b" : [true,null], "a":1.0} "#)));
        assert_ne!(of(&json!({"a": "1"})), of(&json!({"a": 1})));
        assert_ne!(of(&json!({"a": ["b"]})), of(&json!({"a": "b"})));
        assert_ne!(of(&json!({})), fingerprint("text", &"other".parse().unwrap(), &json!({})));
    }

    #[test]
    fn an_unreadable_key_is_refused_not_ignored() {
        let headers = |value: &[u8]| {
            HeaderMap::from_iter([(
                "idempotency-key".parse().unwrap(),
                poem::http::HeaderValue::from_bytes(value).unwrap(),
            )])
        };
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(key(&headers(b"order 1")).unwrap().as_deref(), Some("order 1"));
        for bad in [&b""[..], "schlüssel".as_bytes(), &[b'x'; 256]] {
            assert_eq!(key(&headers(bad)).unwrap_err().code, FaultCode::InvalidIdempotencyKey);
        }
    }
}
