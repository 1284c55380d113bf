//! `X-Request-Id`: taken from the caller when it is safe to log, else made; echoed, logged, stored with the job.

use poem::http::HeaderMap;
use uuid::Uuid;

/// The id of the request being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(pub String);

pub(crate) const HEADER: &str = "x-request-id";

impl RequestId {
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|text| safe(text));
        Self(given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }
}

/// 1 to 128 characters that no log and no header takes apart.
fn safe(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:~+/=@-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_safe_ids_and_replaces_others() {
        let of =
            |text: &str| RequestId::of(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())])).0;
        assert_eq!(of("order-1:2"), "order-1:2");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_ne!(of(bad), bad);
        }
    }
}
