//! How single values are read and written: an empty text is "none", secrets never print themselves.

/// A configuration error in one line that names the key and, when known, the variable or the file.
pub fn complaint(error: &figment::Error) -> String {
    let path = error.path.join(".");
    let source = error.metadata.as_ref().map(|metadata| format!(" (from {})", metadata.name)).unwrap_or_default();
    let kind = &error.kind;
    if path.is_empty() { format!("{kind}{source}") } else { format!("{path}: {kind}{source}") }
}

/// An optional text.
pub mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }

    pub fn serialize<S: Serializer>(value: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        value.as_deref().unwrap_or_default().serialize(to)
    }
}

/// An optional secret; written as `***`.
pub mod secret {
    use secrecy::SecretString;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()).map(SecretString::from))
    }

    pub fn serialize<S: Serializer>(value: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|_| "***").unwrap_or_default().serialize(to)
    }
}

/// An optional URL that may carry a password; written without it.
pub mod secret_url {
    pub use super::secret::deserialize;
    use secrecy::{ExposeSecret, SecretString};
    use serde::{Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|url| mask(url.expose_secret())).unwrap_or_default().serialize(to)
    }

    /// Everything but the password and the query, which may hold another.
    pub fn mask(url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
        match rest.rsplit_once('@') {
            Some((login, place)) => {
                let user = login.split_once(':').map_or(login, |(user, _)| user);
                format!("{scheme}://{user}:***@{place}{query}")
            }
            None => format!("{scheme}://{rest}{query}"),
        }
    }
}

/// `2.3000.1023868176`
pub mod version {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Version = (u32, u32, u32);

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Version>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) => Ok(Some((major, minor, patch))),
            _ => Err(D::Error::custom("expected three numbers with dots, e.g. 2.3000.1023868176")),
        }
    }

    pub fn serialize<S: Serializer>(value: &Option<Version>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|(major, minor, patch)| format!("{major}.{minor}.{patch}")).unwrap_or_default().serialize(to)
    }
}

/// `["5s", "2m"]`
pub mod durations {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    #[derive(Deserialize, Serialize)]
    #[serde(transparent)]
    struct Human(#[serde(with = "humantime_serde")] Duration);

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Human>::deserialize(from)?.into_iter().map(|human| human.0).collect())
    }

    pub fn serialize<S: Serializer>(value: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        value.iter().map(|span| Human(*span)).collect::<Vec<_>>().serialize(to)
    }
}
