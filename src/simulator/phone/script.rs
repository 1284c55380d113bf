//! What a simulated person does with a message.

use std::time::Duration;

use serde::Deserialize;

/// How late a `late` person is unless told otherwise.
const LATE: Duration = Duration::from_secs(5);

/// A person's behaviour. Delivery is acknowledged in every case, as a phone does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// Reads nothing, answers nothing.
    #[default]
    Silent,
    /// Reads: a read receipt follows.
    Read,
    /// Reads, and answers `echo: <text>` to a text.
    Echo,
    /// Does as [`Script::Echo`] after this time.
    Late(Duration),
}

/// A person to add to the phone book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Digits; numbers that end in 0000 are not on WhatsApp.
    pub phone: String,
    pub name: Option<String>,
    pub script: Script,
}

/// A person as it was added.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PersonInfo {
    pub phone: String,
    /// User part of the hidden id.
    pub lid: String,
}

/// As the control API takes it: a word, or an object with the kind and its delay.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Word(String),
    Object { kind: String, delay_ms: Option<u64> },
}

impl<'de> Deserialize<'de> for Script {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, delay) = match Given::deserialize(deserializer) {
            Ok(Given::Word(kind)) => (kind, None),
            Ok(Given::Object { kind, delay_ms }) => (kind, delay_ms),
            Err(_) => (String::new(), None),
        };
        match kind.as_str() {
            "silent" => Ok(Self::Silent),
            "read" => Ok(Self::Read),
            "echo" => Ok(Self::Echo),
            "late" => Ok(Self::Late(delay.map_or(LATE, Duration::from_millis))),
            _ => Err(serde::de::Error::custom(
                "script must be \"silent\", \"read\", \"echo\", \"late\" or {\"kind\":\"late\",\"delay_ms\":5000}",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_words_or_objects() {
        let read = |json: &str| serde_json::from_str::<Script>(json);
        assert_eq!(read("\"echo\"").unwrap(), Script::Echo);
        assert_eq!(read("\"late\"").unwrap(), Script::Late(LATE));
        assert_eq!(read(r#"{"kind":"late","delay_ms":20}"#).unwrap(), Script::Late(Duration::from_millis(20)));
        for wrong in ["\"shout\"", "7", "{}"] {
            assert!(read(wrong).unwrap_err().to_string().contains("script must be"), "{wrong}");
        }
    }
}
