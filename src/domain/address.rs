//! Who a message goes to or comes from: phone numbers, LIDs, groups, newsletters and broadcast lists.
//!
//! A LID and a phone number are two addresses of one contact; they are never compared as text.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A WhatsApp address without device part, in one canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// Digits of an E.164 number, 5 to 15 of them (`4915…`): `…@s.whatsapp.net`.
    Phone(String),
    /// WhatsApp's anonymous contact id: `…@lid`.
    Lid(String),
    /// `…@g.us`
    Group(String),
    /// A channel: `…@newsletter`.
    Newsletter(String),
    /// A broadcast list or `status@broadcast`.
    Broadcast(String),
}

/// Why a text is no address. The sentence is meant for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("is empty")]
    Empty,
    #[error("is not a phone number in international form (5 to 15 digits, e.g. 491701234567)")]
    Phone,
    #[error("has an unknown server part; use digits, …@s.whatsapp.net, …@lid, …@g.us or …@newsletter")]
    Server,
    #[error("has characters that no WhatsApp address has")]
    Characters,
}

fn digits(text: &str, range: std::ops::RangeInclusive<usize>) -> bool {
    range.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

impl Address {
    /// Accepts E.164 (`+`, spaces, dashes, brackets, dots), bare digits, and JIDs of every kind, with or without device.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let Some((user, server)) = text.rsplit_once('@') else {
            return Self::phone(text);
        };
        // `user:device@server` and `user.agent:device@server` name a device of the contact
        let bare = user.split(':').next().unwrap_or(user);
        let bare = if matches!(server, "s.whatsapp.net" | "c.us" | "lid") {
            bare.split('.').next().unwrap_or(bare)
        } else {
            bare
        };
        match server {
            "s.whatsapp.net" | "c.us" if digits(bare, 5..=15) => Ok(Self::Phone(bare.to_owned())),
            "s.whatsapp.net" | "c.us" => Err(AddressError::Phone),
            "lid" if digits(bare, 1..=20) => Ok(Self::Lid(bare.to_owned())),
            "g.us" if Self::group_user(bare) => Ok(Self::Group(bare.to_owned())),
            "newsletter" if digits(bare, 1..=32) => Ok(Self::Newsletter(bare.to_owned())),
            "broadcast" if bare == "status" || digits(bare, 1..=32) => Ok(Self::Broadcast(bare.to_owned())),
            "lid" | "g.us" | "newsletter" | "broadcast" => Err(AddressError::Characters),
            _ => Err(AddressError::Server),
        }
    }

    fn group_user(user: &str) -> bool {
        (1..=64).contains(&user.len())
            && user.bytes().all(|b| b.is_ascii_digit() || b == b'-')
            && user.bytes().any(|b| b.is_ascii_digit())
    }

    fn phone(text: &str) -> Result<Self, AddressError> {
        let number = text.strip_prefix('+').unwrap_or(text);
        let mut found = String::with_capacity(number.len());
        for character in number.chars() {
            match character {
                '0'..='9' => found.push(character),
                ' ' | '-' | '(' | ')' | '.' | '/' => {}
                _ => return Err(AddressError::Phone),
            }
        }
        if digits(&found, 5..=15) { Ok(Self::Phone(found)) } else { Err(AddressError::Phone) }
    }

    /// The JID as WhatsApp writes it, without device.
    pub fn jid(&self) -> String {
        self.to_string()
    }

    /// The part before the `@`.
    pub fn user(&self) -> &str {
        match self {
            Self::Phone(user)
            | Self::Lid(user)
            | Self::Group(user)
            | Self::Newsletter(user)
            | Self::Broadcast(user) => user,
        }
    }

    pub fn is_group(&self) -> bool {
        matches!(self, Self::Group(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = match self {
            Self::Phone(_) => "s.whatsapp.net",
            Self::Lid(_) => "lid",
            Self::Group(_) => "g.us",
            Self::Newsletter(_) => "newsletter",
            Self::Broadcast(_) => "broadcast",
        };
        write!(f, "{}@{server}", self.user())
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// What is known of a person: never one in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Digits of the phone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// `…@lid`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lid: Option<String>,
    /// The address as it came over the wire, device part included where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jid: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_of_a_number() {
        for text in [
            "491701234567",
            "+49 170 1234567",
            "+49 (170) 123-45.67",
            "491701234567@s.whatsapp.net",
            "491701234567@c.us",
            "491701234567:12@s.whatsapp.net",
        ] {
            assert_eq!(Address::parse(text).unwrap().jid(), "491701234567@s.whatsapp.net", "{text}");
        }
    }

    #[test]
    fn reads_the_other_kinds() {
        for (text, jid) in [
            ("100000011111111:3@lid", "100000011111111@lid"),
            ("120363000000000001@g.us", "120363000000000001@g.us"),
            ("4917012345-1500000000@g.us", "4917012345-1500000000@g.us"),
            ("120363000000000002@newsletter", "120363000000000002@newsletter"),
            ("status@broadcast", "status@broadcast"),
        ] {
            assert_eq!(Address::parse(text).unwrap().jid(), jid);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            " ",
            "abc",
            "1234",
            "1234567890123456",
            "12345@",
            "@g.us",
            "x@y.z",
            "\u{202e}491701234567",
            "49170123456７",
            "a@g.us",
            "491701234567@s.whatsapp.net.evil",
            "-@g.us",
            "1@2@g.us",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
