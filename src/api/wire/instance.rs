//! Instances on the wire.

use super::slug::Slug;
use super::time::Moment;
use super::url::MaybeUrl;
use super::words::{Cause, InstanceStatus};
use crate::body::Body;
use kero_gateway::StatusView;
use poem_openapi::Object;

/// A WhatsApp account that the gateway holds.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Instance {
    /// The caller's name for it, used in paths.
    pub instance_id: String,
    /// The account's address with its device part, once paired.
    pub jid: Option<String>,
    /// The account's phone number (digits), once paired.
    pub phone: Option<String>,
    /// The account's anonymous address, once known.
    pub lid: Option<String>,
    /// The name that WhatsApp shows for the account.
    pub push_name: Option<String>,
    /// A free label.
    pub name: Option<String>,
    /// Where its events go.
    pub webhook_url: Option<String>,
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    /// Since when it has this status.
    pub since: Moment,
    /// Whether the phone's history is fetched after pairing.
    pub sync_history: bool,
    pub last_connected_at: Option<Moment>,
    pub created_at: Moment,
    pub updated_at: Moment,
}

impl Instance {
    pub fn new(instance: kero_store::Instance, webhook_url: Option<String>) -> Self {
        Self {
            instance_id: instance.id.into(),
            jid: instance.jid,
            phone: instance.phone,
            lid: instance.lid,
            push_name: instance.push_name,
            name: instance.name,
            webhook_url,
            status: instance.status.into(),
            cause: instance.cause.map(Cause::from),
            since: instance.since.into(),
            sync_history: instance.sync_history,
            last_connected_at: Moment::maybe(instance.last_connected_at),
            created_at: instance.created_at.into(),
            updated_at: instance.updated_at.into(),
        }
    }
}

/// A new instance.
#[derive(Object)]
pub(crate) struct CreateInstance {
    /// Your name for it in paths: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`, unique. (`id` is taken too.)
    pub instance_id: Slug,
    /// A free label.
    pub name: Option<String>,
    /// Where its events go: `message`, `message_ack`, `receipt` and `status`. More with `POST …/webhook`.
    pub webhook_url: Option<MaybeUrl>,
    /// Fetch the phone's history after pairing.
    #[oai(default)]
    pub sync_history: bool,
}

impl Body for CreateInstance {
    const ALIASES: &'static [(&'static str, &'static str)] = &[("id", "instance_id"), ("instanceID", "instance_id")];
}

/// The answer to a new instance.
#[derive(Object)]
pub(crate) struct Created {
    /// Always true.
    pub success: bool,
    pub data: Instance,
    /// What was done, for people.
    pub message: String,
}

/// What to change of an instance; what is absent or an empty text stays as it is.
#[derive(Object)]
pub(crate) struct UpdateInstance {
    /// A free label.
    pub name: Option<String>,
    /// Where its events go. The webhook's events and secret stay as they are.
    pub webhook_url: Option<MaybeUrl>,
    /// Fetch the phone's history after pairing.
    pub sync_history: Option<bool>,
}

impl Body for UpdateInstance {}

/// An instance's link to WhatsApp.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Status {
    /// Always true.
    pub success: bool,
    pub instance_id: String,
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    /// The cause as a sentence, with what to do.
    pub detail: Option<String>,
    /// Since when it has this status.
    pub since: Moment,
    /// When the gateway tries to connect again by itself.
    pub next_retry_at: Option<Moment>,
}

impl Status {
    pub fn new(instance_id: String, view: &StatusView) -> Self {
        Self {
            success: true,
            instance_id,
            status: view.status.into(),
            cause: view.cause.map(Cause::from),
            detail: view.cause.map(|cause| cause.sentence().to_owned()),
            since: view.since.into(),
            next_retry_at: Moment::maybe(view.next_retry_at),
        }
    }
}
