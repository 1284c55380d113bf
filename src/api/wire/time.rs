//! A moment on the wire: RFC 3339 in UTC with three decimals.

use kero_domain::Timestamp;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;
use std::borrow::Cow;

/// The smallest and the largest moment that is taken as Unix seconds: the years 0 to 9999, which RFC 3339 can name.
pub(crate) const SECONDS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub Timestamp);

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl Moment {
    pub fn maybe(at: Option<Timestamp>) -> Option<Self> {
        at.map(Self)
    }
}

impl Type for Moment {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ToJSON for Moment {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.rfc3339().into())
    }
}

impl ParseFromJSON for Moment {
    /// RFC 3339, or Unix seconds as Kero-Kero's schedules have them.
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let value = value.unwrap_or_default();
        let read = match &value {
            Value::String(text) => Timestamp::parse_rfc3339(text),
            Value::Number(number) => number.as_i64().map(Timestamp::from_secs),
            _ => None,
        };
        read.map(Self).ok_or_else(|| ParseError::custom("not a time in RFC 3339"))
    }
}
