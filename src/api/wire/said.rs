//! What is said: a text that shows something. The document has the rule; [`kero_domain::Content::validate`] checks it.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;
use std::borrow::Cow;

/// No U+0000, and at least one character that is neither white space nor of no width. Written out, because engines
/// differ in what `\\s` is.
const SHOWS: &str =
    r"^[^\x00]*[^\x00\t-\r \x85\xA0\u1680\u2000-\u200F\u2028\u2029\u202F\u205F\u2060\u3000\uFEFF][^\x00]*$";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said(pub String);

impl Type for Said {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_said".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            pattern: Some(SHOWS.to_owned()),
            min_length: Some(1),
            max_length: Some(kero_domain::content::MAX_TEXT_CHARS),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ToJSON for Said {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone().into())
    }
}

impl ParseFromJSON for Said {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        String::parse_from_json(value).map(Self).map_err(ParseError::propagate)
    }
}
