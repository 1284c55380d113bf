//! What hooks answer, read and checked: a verdict, a shaped request, a judgement.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A transform's answer. `data` members are JSON objects as text, already checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    Pass,
    /// Nobody gets the event; the reason is kept with it.
    Drop {
        reason: String,
    },
    Replace {
        data: String,
    },
    /// Only to these endpoints, of those that would have got it.
    Route {
        endpoints: Vec<String>,
        data: Option<String>,
    },
}

impl Verdict {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop { .. } => "drop",
            Self::Replace { .. } => "replace",
            Self::Route { .. } => "route",
        }
    }

    /// The new `data`, if there is one.
    pub fn data(&self) -> Option<&str> {
        match self {
            Self::Replace { data } => Some(data),
            Self::Route { data, .. } => data.as_deref(),
            Self::Pass | Self::Drop { .. } => None,
        }
    }

    /// Checks what a guest answered. `limit` is the most bytes of a `data` object.
    pub(crate) fn checked(mut self, limit: usize) -> Result<Self, String> {
        if let Self::Drop { reason } = &mut self {
            shorten(reason, REASON);
        }
        if let Self::Route { endpoints, .. } = &self
            && (endpoints.len() > ENDPOINTS || endpoints.iter().any(|id| id.len() > 256))
        {
            return Err(format!("route: at most {ENDPOINTS} endpoints, each an id"));
        }
        if let Some(data) = self.data() {
            check_data(data, limit)?;
        }
        Ok(self)
    }
}

/// Endpoints of one route.
const ENDPOINTS: usize = 256;
/// Bytes of a reason that are kept.
const REASON: usize = 512;

/// `data` must be a JSON object within the limit.
fn check_data(data: &str, limit: usize) -> Result<(), String> {
    if data.len() > limit {
        return Err(format!("data has {} bytes; at most {limit} are allowed", data.len()));
    }
    match serde_json::from_str::<Anything>(data) {
        Ok(_) if data.trim_start().starts_with('{') => Ok(()),
        Ok(_) => Err("data is JSON, but not an object".to_owned()),
        Err(error) => Err(format!("data is not JSON: {error}")),
    }
}

/// Reads what `serde_json::Value` reads, with the same limits, and keeps nothing of it.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> serde::de::Visitor<'de> for Anything {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Cuts a text at a character boundary.
pub(crate) fn shorten(reason: &mut String, most: usize) {
    if reason.len() > most {
        let end = (0..=most).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        reason.truncate(end);
    }
}

/// An HTTP request to an endpoint. The origin, the signature and the connection are the gateway's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    /// Path and query, beginning with one `/`.
    pub path: String,
    pub headers: Vec<(String, String)>,
    #[serde(with = "text_body")]
    pub body: Vec<u8>,
}

/// What an endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    pub status: u16,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The first [`RESPONSE_BODY`] bytes.
    #[serde(default, with = "text_body")]
    pub body: Vec<u8>,
}

/// Bytes of an answer's body that `judge` sees.
pub const RESPONSE_BODY: usize = 64 << 10;

/// What an attempt's answer means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "judgement")]
pub enum Judgement {
    Success,
    /// By the usual schedule when there is no time.
    Retry {
        after: Option<Duration>,
    },
    Dead {
        reason: String,
    },
}

impl Judgement {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
        }
    }

    /// A hook may ask for a wait of a day at most.
    pub(crate) fn checked(mut self) -> Self {
        match &mut self {
            Self::Retry { after: Some(after) } => *after = (*after).min(Duration::from_secs(86_400)),
            Self::Dead { reason } => shorten(reason, REASON),
            Self::Success | Self::Retry { after: None } => {}
        }
        self
    }
}

const METHODS: &[&str] = &["DELETE", "GET", "PATCH", "POST", "PUT"];
/// Bytes of a path, number of headers, bytes of all headers.
const PATH: usize = 2048;
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
/// Headers that belong to the connection or to the gateway: a shaped request must not set them. `webhook-` and
/// `x-webhook-signature` carry the signature.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-webhook-signature",
];

/// Whether the gateway alone may set this header (lower case).
fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || ["proxy-", "webhook-", "x-kero-"].iter().any(|start| name.starts_with(start))
}

impl Request {
    /// Checks what a guest shaped, given what it was shown. Reserved headers that it left as they were are no offence:
    /// they are taken out, and the gateway sets its own.
    pub(crate) fn checked(mut self, shown: &Self, limit: usize) -> Result<Self, String> {
        if !METHODS.contains(&self.method.as_str()) {
            return Err(format!("method {:?}: one of {}", self.method, METHODS.join(", ")));
        }
        let path = self.path.as_bytes();
        let printable = path.iter().all(|b| b.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(b));
        if path.len() > PATH || !self.path.starts_with('/') || self.path.starts_with("//") || !printable {
            return Err(format!(
                "path: begins with one `/`, ASCII, percent-encoded, no fragment, at most {PATH} bytes"
            ));
        }
        if self.path.split(['/', '?']).any(|part| matches!(part, "." | "..")) {
            return Err("path: no `.` or `..` in it".to_owned());
        }
        if self.body.len() > limit {
            return Err(format!("body has {} bytes; at most {limit} are allowed", self.body.len()));
        }
        let mut kept = Vec::with_capacity(self.headers.len());
        for (name, value) in std::mem::take(&mut self.headers) {
            let name = name.to_ascii_lowercase();
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty()
                || !name.bytes().all(token)
                || !value.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b))
            {
                return Err(format!("header {name:?}: a token as its name, visible ASCII as its value"));
            }
            if is_reserved(&name) {
                if shown.headers.iter().any(|(shown, was)| shown.eq_ignore_ascii_case(&name) && *was == value) {
                    continue;
                }
                return Err(format!("header {name:?} is the gateway's"));
            }
            kept.push((name, value));
        }
        let bytes: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
        if kept.len() > HEADERS || bytes > HEADER_BYTES {
            return Err(format!("headers: at most {HEADERS} with {HEADER_BYTES} bytes"));
        }
        self.headers = kept;
        Ok(self)
    }
}

/// Bodies in JSON (cases, reports) are text; bytes that are no UTF-8 are shown as U+FFFD.
mod text_body {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Request { method: "POST".to_owned(), path: path.to_owned(), headers, body: b"{}".to_vec() }
    }

    #[test]
    fn verdicts_are_objects_within_the_limit() {
        let replace = |data: &str| Verdict::Replace { data: data.to_owned() }.checked(16);
        assert!(replace("{\"a\":1}").is_ok());
        assert_eq!(replace("[1]").unwrap_err(), "data is JSON, but not an object");
        assert!(replace("{\"a\":").unwrap_err().starts_with("data is not JSON"));
        let deep = |depth: usize| check_data(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)), 1000);
        assert!(deep(100).is_ok());
        assert!(deep(200).unwrap_err().contains("recursion limit"), "what is accepted can be read");
        for text in ["{\"a\":1e999}", "{\"a\":\"\\ud800\"}", "{\"a\":1} x", "{\"a\":nul}"] {
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_err() && check_data(text, 99).is_err(),
                "{text}"
            );
        }
        assert!(replace(&format!("{{\"a\":\"{}\"}}", "x".repeat(20))).unwrap_err().contains("at most 16"));
        let Ok(Verdict::Drop { reason }) = Verdict::Drop { reason: "ä".repeat(600) }.checked(16) else { panic!() };
        assert_eq!(reason.len(), 512);
    }

    #[test]
    fn a_shaped_request_stays_under_its_origin() {
        let shown = request("/hook", &[("webhook-id", "1"), ("content-type", "application/json")]);
        let check = |it: Request| it.checked(&shown, 100);
        let good = check(request("/hook/messages-upsert?x=1", &[("X-Api-Key", "k"), ("webhook-id", "1")])).unwrap();
        assert_eq!(good.headers, vec![("x-api-key".to_owned(), "k".to_owned())]);
        for path in ["", "hook", "//evil.example/x", "/a/../b", "/a#b", "/a b", "/\\evil", "/ä", "http://evil.example/"]
        {
            assert!(check(request(path, &[])).is_err(), "{path}");
        }
        for (name, value) in [
            ("Host", "evil"),
            ("webhook-id", "2"),
            ("Webhook-Signature", "v1,x"),
            ("a b", "c"),
            ("x", "a\r\nb: c"),
            ("x-kero-y", "z"),
        ] {
            assert!(check(request("/a", &[(name, value)])).is_err(), "{name}");
        }
        let mut large = request("/a", &[]);
        large.body = vec![0; 101];
        assert!(check(large).is_err());
        assert!(check(Request { method: "CONNECT".to_owned(), ..request("/a", &[]) }).is_err());
    }
}
