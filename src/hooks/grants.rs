//! Grants: what a plugin may reach. A manifest asks, the operator gives; in force is what both say.

use crate::manifest::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

/// Asked for in a manifest, or given by the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Storage for each instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<UrlPrefix>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Send>,
    /// May drop a `message_ack`, route it away, or change the members that tell a send's end.
    #[serde(default, rename = "drop-ack", skip_serializing_if = "std::ops::Not::not")]
    pub drop_ack: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Ban risk: messages that nobody asked for get numbers blocked.
    #[serde(default = "five")]
    pub per_chat_per_minute: u32,
}

const fn five() -> u32 {
    5
}

impl Grants {
    /// What is asked for and given.
    pub fn meet(&self, given: &Self) -> Self {
        Self {
            kv: self.kv.zip(given.kv).map(|(asked, given)| asked.min(given)),
            http: self
                .http
                .iter()
                .filter(|asked| given.http.iter().any(|given| given.covers(asked)))
                .cloned()
                .collect(),
            send: self.send.zip(given.send).map(|(asked, given)| Send {
                per_chat_per_minute: asked.per_chat_per_minute.min(given.per_chat_per_minute),
            }),
            drop_ack: self.drop_ack && given.drop_ack,
        }
    }

    /// Whether `given` holds everything that is asked for here.
    pub fn within(&self, given: &Self) -> bool {
        self.meet(given) == *self
    }

    /// Whether a URL may be fetched.
    pub fn allows(&self, url: &Url) -> bool {
        self.http.iter().any(|prefix| prefix.matches(url))
    }
}

/// `https://host[:port]/path*`: compared member by member after parsing, never as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlPrefix {
    base: Url,
    /// The pattern ends in `*`: paths that begin with it. Without it the path is meant exactly.
    open: bool,
}

impl UrlPrefix {
    pub fn matches(&self, url: &Url) -> bool {
        url.username().is_empty() && url.password().is_none() && self.same_origin(url) && self.path_fits(url.path())
    }

    fn covers(&self, other: &Self) -> bool {
        self.same_origin(&other.base) && self.path_fits(other.base.path()) && (self.open || !other.open)
    }

    fn same_origin(&self, url: &Url) -> bool {
        self.base.scheme() == url.scheme()
            && self.base.host() == url.host()
            && self.base.port_or_known_default() == url.port_or_known_default()
    }

    fn path_fits(&self, path: &str) -> bool {
        if self.open { path.starts_with(self.base.path()) } else { path == self.base.path() }
    }
}

impl TryFrom<String> for UrlPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (bare, open) = text.strip_suffix('*').map_or((text.as_str(), false), |bare| (bare, true));
        let base = Url::parse(bare).map_err(|error| format!("grant http {text:?}: {error}"))?;
        let plain = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !matches!(base.scheme(), "https" | "http") || base.host().is_none() || !plain || bare.contains('*') {
            return Err(format!("grant http {text:?}: write it as https://host/path/*"));
        }
        // `https://api.example*` would also mean `https://api.example.attacker.net`
        if open && !bare.trim_start_matches("https://").trim_start_matches("http://").contains('/') {
            return Err(format!("grant http {text:?}: a `*` may only stand in the path, as in {bare}/*"));
        }
        Ok(Self { base, open })
    }
}

impl From<UrlPrefix> for String {
    fn from(prefix: UrlPrefix) -> Self {
        format!("{}{}", prefix.base, if prefix.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> UrlPrefix {
        UrlPrefix::try_from(text.to_owned()).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn urls_are_compared_by_their_members() {
        let api = prefix("https://api.crm.example/v1/*");
        assert!(api.matches(&url("https://api.crm.example/v1/contacts?x=1")));
        assert!(api.matches(&url("https://API.crm.example:443/v1/")));
        for other in [
            "http://api.crm.example/v1/x",
            "https://api.crm.example/v2/x",
            "https://api.crm.example/v1/../v2/x",
            "https://api.crm.example/v1/%2e%2e/v2/x",
            "https://api.crm.example:8443/v1/x",
            "https://api.crm.example.attacker.net/v1/x",
            "https://api.crm.example@attacker.net/v1/x",
            "https://user:pw@api.crm.example/v1/x",
        ] {
            assert!(!api.matches(&url(other)), "{other}");
        }
        for bad in ["https://api.example*", "ftp://x/*", "https://*.example/*", "nonsense", "https://u@h/*"] {
            assert!(UrlPrefix::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert_eq!(String::from(prefix("https://h/a/*")), "https://h/a/*");
    }

    #[test]
    fn in_force_is_what_is_asked_and_given() {
        let asked: Grants = serde_json::from_value(serde_json::json!({
            "kv": "1MiB", "http": ["https://a.example/x/*", "https://b.example/*"], "send": {"per_chat_per_minute": 9}, "drop-ack": true
        }))
        .unwrap();
        let given: Grants = serde_json::from_value(serde_json::json!({
            "kv": "64KiB", "http": ["https://a.example/*"], "send": {}
        }))
        .unwrap();
        let met = asked.meet(&given);
        assert_eq!(met.kv, Some(Bytes(64 << 10)));
        assert_eq!(met.http, vec![prefix("https://a.example/x/*")]);
        assert_eq!(met.send.unwrap().per_chat_per_minute, 5);
        assert!(!met.drop_ack);
        assert!(!asked.within(&given) && met.within(&given) && Grants::default().within(&given));
    }
}
