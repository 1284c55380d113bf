//! The document's sections.

use poem_openapi::Tags;

#[derive(Tags)]
pub(crate) enum Tag {
    /// WhatsApp accounts that the gateway holds: create, connect, watch, delete.
    Instances,
    /// Linking an instance with a phone, by QR code or pair code.
    Pairing,
    /// Sending.
    Messages,
    /// Sends that were accepted, and what became of them.
    Jobs,
    /// Asynchronous sends that failed: look at them, try them again, or put them away.
    #[oai(rename = "Dead letters")]
    DeadLetters,
    /// The URL that receives an instance's events.
    Webhook,
    /// Several URLs that receive events, each with its own filter, secret and order; the webhook is the first of them.
    Endpoints,
    /// What was delivered where, when and how, and once more.
    Deliveries,
    /// The journal of an instance's events, to read or to catch up.
    Events,
    /// Hooks in WebAssembly between events and endpoints: upload, activate, watch.
    Plugins,
    /// What waits.
    Queue,
    /// Health, metrics and the list of problems.
    System,
}
