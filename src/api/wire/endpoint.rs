//! Endpoints on the wire. Secrets and header values go in and never come out; a secret that was made is shown once.

use super::event::Include;
use super::members::Members;
use super::recipient::Recipient;
use super::secret::NewSecret;
use super::time::Moment;
use super::url::HttpUrl;
use super::wait::Wait;
use super::webhook::EventName;
use super::word::Word;
use super::words::{ChatType, DeliveryOrder, Direction, DisabledReason, EventKind};
use crate::body::Body;
use kero_domain::{Fault, FaultCode};
use kero_gateway::{EndpointSettings, Sampled, WithSecret};
use poem_openapi::Object;
use poem_openapi::types::MaybeUndefined;
use secrecy::SecretString;
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// A URL that receives events.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Endpoint {
    pub id: Uuid,
    /// Absent for a global endpoint, which receives the events of every instance.
    pub instance_id: Option<String>,
    pub url: String,
    /// The events that are delivered; `all` means every event.
    pub events: Vec<String>,
    /// Only events of these chats; empty for all.
    pub chats: Vec<String>,
    /// Only events of chats of these kinds; empty for all.
    pub chat_types: Vec<ChatType>,
    /// Only messages of these types; empty for all.
    pub message_types: Vec<String>,
    /// Only messages of this direction.
    pub direction: Option<Direction>,
    /// The names of the further headers.
    pub header_names: Vec<String>,
    pub order: DeliveryOrder,
    /// Deliveries a second at most.
    pub rate_limit: Option<u32>,
    /// How long one try may take; absent: what the gateway is set to.
    pub timeout_seconds: Option<u64>,
    /// The waits before the retries in seconds; absent: what the gateway is set to.
    pub retry_schedule: Option<Vec<u64>>,
    /// What events come with beside their own data.
    pub include: Vec<Include>,
    pub enabled: bool,
    /// Why the gateway disabled it. Enable it to have what waits delivered.
    pub disabled_reason: Option<DisabledReason>,
    pub disabled_at: Option<Moment>,
    /// Since when every try failed; failures of less than a minute are not told.
    pub failing_since: Option<Moment>,
    /// Whether deliveries are signed with a secret.
    pub has_secret: bool,
    /// Earlier secrets that sign, too, until then.
    pub old_secrets_until: Option<Moment>,
    /// `whpk_…`: verifies the `v1a` signatures, where the endpoint has them.
    pub public_key: Option<String>,
    /// The secret that was made just now. It is never shown again.
    pub secret: Option<String>,
    pub created_at: Moment,
    pub updated_at: Moment,
}

impl Endpoint {
    pub fn new(instance_id: Option<String>, endpoint: kero_store::Endpoint) -> Self {
        Self {
            id: endpoint.id.0,
            instance_id,
            events: endpoint.events.names(),
            chats: endpoint.narrow.chats.iter().map(ToString::to_string).collect(),
            chat_types: endpoint.narrow.chat_types.into_iter().map(ChatType::from).collect(),
            message_types: endpoint.narrow.message_types,
            direction: endpoint.narrow.direction.map(Direction::from),
            header_names: endpoint.headers.into_iter().map(|(name, _)| name).collect(),
            order: endpoint.order.into(),
            rate_limit: endpoint.rate_limit,
            timeout_seconds: endpoint.timeout.map(|timeout| timeout.as_secs()),
            retry_schedule: endpoint.schedule.map(|waits| waits.iter().map(Duration::as_secs).collect()),
            include: endpoint.include_raw.then_some(Include::Raw).into_iter().collect(),
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled.map(|(reason, _)| reason.into()),
            disabled_at: endpoint.disabled.map(|(_, at)| at.into()),
            failing_since: Moment::maybe(endpoint.failing_since),
            has_secret: endpoint.secret.is_some(),
            old_secrets_until: Moment::maybe(endpoint.old_secrets.iter().map(|old| old.until).max()),
            public_key: endpoint.signing_key.as_ref().and_then(kero_gateway::delivery::sign::public_key),
            secret: None,
            url: endpoint.url,
            created_at: endpoint.created_at.into(),
            updated_at: endpoint.updated_at.into(),
        }
    }

    /// With the secret that was made for it.
    pub fn shown_once(instance_id: Option<String>, made: WithSecret) -> Self {
        use secrecy::ExposeSecret;
        let secret = made.secret.map(|secret| secret.expose_secret().to_owned());
        Self { secret, ..Self::new(instance_id, made.endpoint) }
    }
}

/// Declares a body with the settings of an endpoint.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident, $said:expr, { $($first:tt)* }) => {
        $(#[$doc])*
        #[derive(Object)]
        pub(crate) struct $name {
            $($first)*
            /// Names of events, or `all`. Empty: `message`, `message_ack`, `receipt`, `status`.
            pub events: Option<Vec<EventName>>,
            /// Only events of these chats: phone numbers, JIDs of people, groups or newsletters. Events without a chat
            /// are not kept out.
            #[oai(validator(max_items = 200))]
            pub chats: Option<Vec<Recipient>>,
            /// Only events of chats of these kinds.
            pub chat_types: Option<Vec<ChatType>>,
            /// Only messages of these types: `text`, `image`, … Other events are not kept out.
            #[oai(validator(max_items = 200))]
            pub message_types: Option<Vec<Word>>,
            /// Only messages that came in, or only those of the account itself; `null` for both.
            pub direction: MaybeUndefined<Direction>,
            /// Further headers of every request, by name. Names that the gateway sets itself are refused.
            #[oai(write_only)]
            pub headers: Option<Members>,
            /// Whether deliveries keep an order: those of one chat (the default), all, or none. A failing delivery holds
            /// up what stands behind it.
            pub order: Option<DeliveryOrder>,
            /// Deliveries a second at most, 1 to 1000; `null` for no limit.
            #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
            pub rate_limit: MaybeUndefined<u32>,
            /// How long one try may take, 1 to 30; `null` for what the gateway is set to.
            #[oai(validator(minimum(value = "1"), maximum(value = "30")))]
            pub timeout_seconds: MaybeUndefined<u64>,
            /// The waits before the retries in seconds, at most 20, each at most a week; `null` for what the gateway is set to. After the last
            /// one a delivery is `dead`, and can be replayed.
            #[oai(validator(max_items = 20))]
            pub retry_schedule: MaybeUndefined<Vec<Wait>>,
            /// What events come with: `raw` for the message as WhatsApp sent it (the protobuf as JSON) in `data.raw`, where it was
            /// kept (`events.keep_raw`) and no hook changed the event. Absent or empty: nothing more.
            #[oai(validator(max_items = 8))]
            pub include: Option<Vec<Include>>,
            /// `false` stops deliveries: what waits is kept, what comes is not added.
            pub enabled: Option<bool>,
            /// Sign with an ed25519 key (`v1a`), too. Its public half is `public_key`.
            pub asymmetric: Option<bool>,
        }

        impl $name {
            /// Everything but the URL and the secret.
            fn common(self) -> Result<EndpointSettings, Fault> {
                let seconds = |waits: Vec<Wait>| waits.into_iter().map(|wait| Duration::from_secs(wait.0)).collect();
                Ok(EndpointSettings {
                    url: None,
                    events: self.events.map(|names| names.into_iter().map(|name| name.0).collect()),
                    chats: self.chats.map(|chats| chats.into_iter().map(|chat| chat.0).collect()),
                    chat_types: self.chat_types.map(|kinds| kinds.into_iter().map(Into::into).collect()),
                    message_types: self.message_types.map(|words| words.into_iter().map(|word| word.0).collect()),
                    direction: given(self.direction).map(|direction| direction.map(Into::into)),
                    headers: self.headers.map(headers).transpose()?,
                    order: self.order.map(Into::into),
                    rate_limit: given(self.rate_limit),
                    timeout: given(self.timeout_seconds).map(|secs| secs.map(Duration::from_secs)),
                    schedule: given(self.retry_schedule).map(|waits| waits.map(seconds)),
                    include_raw: self.include.map(|include| include.contains(&Include::Raw)),
                    enabled: self.enabled,
                    asymmetric: self.asymmetric,
                })
            }
        }

        impl Body for $name {
            const STRICT: Option<&'static [(&'static str, &'static str)]> = Some($said);
        }
    };
}

/// What a change does not change.
const FIXED: &[(&str, &str)] = &[
    ("secret", "is not changed here; see POST …/rotate-secret"),
    ("id", "cannot be changed"),
    ("instance_id", "cannot be changed"),
    ("created_at", "cannot be changed"),
];

settings! {
    /// The endpoint to make. Members that are not listed are refused.
    CreateEndpoint, &[], {
        /// An `http` or `https` URL. Private networks are refused.
        pub url: HttpUrl,
        /// `whsec_` and base64 of 24 to 64 bytes, or a text of as many. Absent: one is made, and shown this once.
        #[oai(write_only)]
        pub secret: Option<NewSecret>,
    }
}

settings! {
    /// What changes about an endpoint. What is absent stays as it is; members that are not listed are refused.
    UpdateEndpoint, FIXED, {
        /// An `http` or `https` URL. What waits goes there, too.
        pub url: Option<HttpUrl>,
    }
}

impl CreateEndpoint {
    pub fn settings(mut self) -> Result<(EndpointSettings, Option<SecretString>), Fault> {
        let (url, secret) = (std::mem::take(&mut self.url.0), self.secret.take().map(|secret| secret.0.into()));
        Ok((EndpointSettings { url: Some(url), ..self.common()? }, secret))
    }
}

impl UpdateEndpoint {
    pub fn settings(mut self) -> Result<EndpointSettings, Fault> {
        let url = self.url.take().map(|url| url.0);
        Ok(EndpointSettings { url, ..self.common()? })
    }
}

fn given<T>(member: MaybeUndefined<T>) -> Option<Option<T>> {
    match member {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

fn headers(members: Members) -> Result<Vec<(String, SecretString)>, Fault> {
    let read = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, SecretString::from(text))),
        _ => Err(Fault::new(FaultCode::ValidationFailed).at("/headers", "must have texts as values")),
    };
    members.0.into_iter().map(read).collect()
}

/// How to replace a secret.
#[derive(Object)]
pub(crate) struct RotateSecret {
    /// `whsec_` and base64 of 24 to 64 bytes, or a text of as many. Absent: one is made, and shown this once.
    #[oai(write_only)]
    pub secret: Option<NewSecret>,
    /// How long the present secret signs beside the new one, at most seven days. Zero ends it, and those before it, at
    /// once.
    #[oai(default = "a_day", validator(maximum(value = "604800")))]
    pub overlap_seconds: u64,
}

fn a_day() -> u64 {
    86_400
}

impl Body for RotateSecret {
    const STRICT: Option<&'static [(&'static str, &'static str)]> = Some(&[]);
}

/// Which deliveries to an endpoint shall go out once more.
#[derive(Object)]
pub(crate) struct ReplayEndpoint {
    /// From this time of the event on; absent: from the first one.
    pub since: Option<Moment>,
    /// Up to this time of the event; absent: now.
    pub until: Option<Moment>,
    /// Only these events; absent or empty for all.
    pub events: Option<Vec<EventKind>>,
}

impl Body for ReplayEndpoint {
    const STRICT: Option<&'static [(&'static str, &'static str)]> = Some(&[]);
}

/// What goes out once more.
#[derive(Object)]
pub(crate) struct Replayed {
    /// Always true.
    pub success: bool,
    /// Deliveries that were dead.
    pub replayed: u64,
    /// Events that the endpoint wants and never got: they came while it was disabled, or before it was there.
    pub missed: u64,
}

/// What came of a sample.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct TestResult {
    /// Whether the endpoint took it.
    pub delivered: bool,
    /// The sample's `id`, which the endpoint got as `webhook-id`.
    pub event_id: Uuid,
    /// The HTTP status that came back.
    pub status: Option<u16>,
    /// Why nothing came back, or why what came back counts as a failure.
    pub error: Option<String>,
    /// The answer's headers, as far as there are not too many.
    pub headers: Members,
    /// The beginning of the answer's body.
    pub response_head: Option<String>,
    pub dns_ms: Option<u64>,
    /// The name, the connection and TLS.
    pub connect_ms: Option<u64>,
    /// Until status and headers were there.
    pub first_byte_ms: Option<u64>,
    pub total_ms: u64,
}

impl From<Sampled> for TestResult {
    fn from(sampled: Sampled) -> Self {
        Self {
            delivered: sampled.status.is_some_and(|status| (200..300).contains(&status)),
            event_id: sampled.event_id.0,
            status: sampled.status,
            error: sampled.error,
            headers: Members(sampled.headers),
            response_head: sampled.response_head,
            dns_ms: sampled.dns_ms,
            connect_ms: sampled.connect_ms,
            first_byte_ms: sampled.first_byte_ms,
            total_ms: sampled.total_ms,
        }
    }
}
