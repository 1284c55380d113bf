//! An instance's webhook on the wire. The secret goes in and never comes out.

use super::time::Moment;
use super::url::HttpUrl;
use crate::body::Body;
use kero_domain::{EventKind, InstanceId};
use poem_openapi::Object;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;
use std::borrow::Cow;

/// Where an instance's events go.
#[derive(Object)]
pub(crate) struct Webhook {
    pub instance_id: String,
    pub url: String,
    /// The events that are delivered; `all` means every event.
    pub events: Vec<String>,
    pub enabled: bool,
    /// Whether deliveries are signed.
    pub has_secret: bool,
    pub created_at: Moment,
    pub updated_at: Moment,
}

impl Webhook {
    pub fn new(instance_id: InstanceId, endpoint: kero_store::Endpoint) -> Self {
        Self {
            instance_id: instance_id.into(),
            url: endpoint.url,
            events: endpoint.events.names(),
            enabled: endpoint.enabled,
            has_secret: endpoint.secret.is_some(),
            created_at: endpoint.created_at.into(),
            updated_at: endpoint.updated_at.into(),
        }
    }
}

/// The webhook to set.
#[derive(Object)]
pub(crate) struct PutWebhook {
    /// An `http` or `https` URL.
    pub url: HttpUrl,
    /// Names of events, or `all`. Absent or empty: `message`, `message_ack`, `receipt`, `status`.
    pub events: Option<Vec<EventName>>,
    /// Signs deliveries. Absent: the present one stays; empty: none.
    #[oai(write_only)]
    pub secret: Option<String>,
    /// `false` stops deliveries; events stay in the journal.
    #[oai(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Body for PutWebhook {}

/// The name of an event, or `all` or `*` for every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventName(pub String);

impl Type for EventName {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_event-name".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let names = EventKind::ALL.iter().map(|kind| kind.as_str()).chain(["all", "*"]);
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            enum_items: names.map(Value::from).collect(),
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

impl ToJSON for EventName {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone().into())
    }
}

impl ParseFromJSON for EventName {
    /// [`kero_domain::endpoint::EventFilter`] knows the names.
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        String::parse_from_json(value).map(Self).map_err(ParseError::propagate)
    }
}
