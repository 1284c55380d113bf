//! An instance's webhook on the wire. The secret goes in and never comes out.

use super::time::Moment;
use crate::body::Body;
use kero_domain::InstanceId;
use poem_openapi::Object;

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
    pub url: String,
    /// Names of events, or `all`. Absent or empty: `message`, `message_ack`, `receipt`, `status`.
    pub events: Option<Vec<String>>,
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
