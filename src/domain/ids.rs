//! Identifiers. Ours are UUIDv7 (sortable by creation); callers choose instance and correlation ids; WhatsApp's are text.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Why a text is not an identifier. The sentence is meant for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct IdError {
    pub what: &'static str,
    pub rule: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, greater than every id made before it in this process.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError { what: stringify!($name), rule: "a UUID" })
            }
        }
    };
}

uuid_id!(
    /// A send that was accepted.
    JobId
);
uuid_id!(
    /// An event; also the `webhook-id` of its deliveries' bodies (`id` in the envelope).
    EventId
);
uuid_id!(
    /// A URL that receives events.
    EndpointId
);
uuid_id!(
    /// One event for one endpoint.
    DeliveryId
);
uuid_id!(
    /// An API credential (its public id, not its secret).
    ApiKeyId
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(IdError { what: $what, rule: $rule }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn all_of(text: &str, max: usize, extra: &str) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.as_bytes().contains(&b))
}

text_id!(
    /// The caller's name for a WhatsApp account in paths: `[A-Za-z0-9._-]{1,64}`, unique, not `.` or `..`.
    InstanceId,
    "instance_id",
    "1 to 64 characters out of A-Z a-z 0-9 . _ - (and not only dots)",
    |text| all_of(text, 64, "._-") && text.bytes().any(|b| b != b'.')
);
text_id!(
    /// The caller's handle on an asynchronous send: `[A-Za-z0-9._:~-]{1,128}`, unique per instance.
    CorrelationId,
    "correlation_id",
    "1 to 128 characters out of A-Z a-z 0-9 . _ : ~ -",
    |text| all_of(text, 128, "._:~-")
);
text_id!(
    /// WhatsApp's message id. Unique only together with chat and sender; ours are `3EB0` and 18 hex digits.
    MessageId,
    "message_id",
    "1 to 128 printable ASCII characters",
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

impl CorrelationId {
    /// A fresh one, for callers that name none. Increasing with time, so that its index grows at one end.
    pub fn mint() -> Self {
        Self(Uuid::now_v7().to_string())
    }
}

impl MessageId {
    /// A fresh id in the form that WhatsApp Web clients mint.
    pub fn mint() -> Self {
        let bytes: [u8; 9] = rand::random();
        let mut text = String::with_capacity(22);
        text.push_str("3EB0");
        for byte in bytes {
            text.push_str(&format!("{byte:02X}"));
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_take_only_the_documented_characters() {
        for good in ["a", "demo", "Shop.1_b-2", &"x".repeat(64)] {
            assert!(good.parse::<InstanceId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "ä", "a\0b", &"x".repeat(65)] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn correlation_ids_refuse_control_characters_and_length() {
        assert!("order:1~2".parse::<CorrelationId>().is_ok());
        for bad in ["", "a\nb", "a\0", "😀", &"x".repeat(129)] {
            assert!(bad.parse::<CorrelationId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn minted_message_ids_have_the_web_form() {
        let id = MessageId::mint();
        assert!(id.as_str().starts_with("3EB0") && id.as_str().len() == 22);
        assert_ne!(id, MessageId::mint());
    }
}
