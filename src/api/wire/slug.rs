//! An instance's id as a caller writes it: the document has the rule, [`kero_domain::InstanceId`] checks it.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;
use std::borrow::Cow;

/// 1 to 64 of the characters, not only dots (without a look-ahead, which not every engine has).
pub(crate) const PATTERN: &str = "^\\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slug(pub String);

impl Type for Slug {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_instance-id".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            pattern: Some(PATTERN.to_owned()),
            max_length: Some(64),
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

impl ToJSON for Slug {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone().into())
    }
}

impl ParseFromJSON for Slug {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        String::parse_from_json(value).map(Self).map_err(poem_openapi::types::ParseError::propagate)
    }
}
