//! The webhooks in the document: events as they are POSTed to an instance's webhook.
//!
//! poem-openapi's `#[Webhook]` takes one POST per trait, so its description is built by hand.

use crate::wire::payloads::{
    CallEvent, ChatEvent, ContactEvent, EndpointEvent, GroupEvent, LabelEvent, MessageAckEvent, MessageEditEvent,
    MessageEvent, MessageRevokeEvent, NewsletterEvent, OtherEvent, PairingEvent, PollVoteEvent, PresenceEvent,
    ReactionEvent, ReceiptEvent, StatusEvent, SyncProgressEvent, UndecryptableEvent,
};
use poem::http::Method;
use poem_openapi::Webhook;
use poem_openapi::registry::{
    MetaMediaType, MetaOperation, MetaOperationParam, MetaParamIn, MetaRequest, MetaResponse, MetaResponses,
    MetaSchemaRef, MetaWebhook, Registry,
};
use poem_openapi::types::Type;

/// Every webhook.
pub(crate) struct Webhooks;

/// Headers of a delivery: name, whether it is always there, description.
const HEADERS: &[(&str, bool, &str)] = &[
    ("webhook-id", true, "The event's id, the same in every attempt (Standard Webhooks)."),
    ("webhook-timestamp", true, "When this attempt began, in Unix seconds (Standard Webhooks)."),
    (
        "webhook-signature",
        false,
        "With a secret: `v1,` and base64 of HMAC-SHA256 over `webhook-id.webhook-timestamp.body` (Standard Webhooks). \
         A secret `whsec_…` is base64 key material; another one is taken as its bytes. While a secret is being replaced \
         the header lists a signature of each, with a space between; with an ed25519 key also `v1a,` and its signature.",
    ),
    ("X-Webhook-Signature", false, "With a secret: the lower-case hex HMAC-SHA256 of the body."),
    ("X-Hub-Signature-256", false, "With a secret: `sha256=` and the same."),
];

macro_rules! webhooks {
    ($($name:literal $id:literal $body:ty: $summary:literal, $description:literal;)+) => {
        impl Webhook for Webhooks {
            fn meta() -> Vec<MetaWebhook> {
                vec![$(MetaWebhook { name: $name, operation: operation($id, $summary, $description, <$body>::schema_ref()) },)+]
            }

            fn register(registry: &mut Registry) {
                $(<$body>::register(registry);)+
            }
        }
    };
}

webhooks! {
    "message" "on_message" MessageEvent: "A message came in",
        "Or was sent from another device of the account. Acknowledged to WhatsApp only after it was stored. Delivered by default.";
    "message_ack" "on_message_ack" MessageAckEvent: "An asynchronous send ended",
        "Exactly one for every send that was answered `202`, and one more for every retry of it as a dead letter. Delivered by default.";
    "receipt" "on_receipt" ReceiptEvent: "Messages were delivered, read or played", "Delivered by default.";
    "status" "on_status" StatusEvent: "An instance's link changed", "Delivered by default.";
    "pairing" "on_pairing" PairingEvent: "A step of pairing", "On request only.";
    "message_edit" "on_message_edit" MessageEditEvent: "A message was edited", "On request only.";
    "message_revoke" "on_message_revoke" MessageRevokeEvent: "A message was deleted for everyone", "On request only.";
    "reaction" "on_reaction" ReactionEvent: "Somebody reacted to a message", "On request only.";
    "poll_vote" "on_poll_vote" PollVoteEvent: "Somebody voted in a poll", "On request only.";
    "presence" "on_presence" PresenceEvent: "Somebody types, records, came online or left", "On request only; best effort.";
    "call" "on_call" CallEvent: "Somebody calls", "On request only; best effort.";
    "undecryptable" "on_undecryptable" UndecryptableEvent: "A message came that could not be read", "On request only.";
    "sync_progress" "on_sync_progress" SyncProgressEvent: "Fetching the history goes on", "On request only.";
    "group" "on_group" GroupEvent: "A group changed", "On request only; best effort.";
    "contact" "on_contact" ContactEvent: "A contact changed", "On request only; best effort.";
    "chat" "on_chat" ChatEvent: "A chat was changed on another device", "On request only; best effort.";
    "label" "on_label" LabelEvent: "A label was changed or given", "On request only; best effort.";
    "newsletter" "on_newsletter" NewsletterEvent: "Posts of a newsletter changed", "On request only; best effort.";
    "endpoint" "on_endpoint" EndpointEvent: "An endpoint was disabled",
        "It answered 410, or failed for days. Goes to the other endpoints; on request only.";
    "other" "on_other" OtherEvent: "A kind that is to come",
        "`media`: it comes with the download of media, and nothing causes it yet. An endpoint may ask for it already.";
}

fn operation(id: &'static str, summary: &'static str, description: &'static str, body: MetaSchemaRef) -> MetaOperation {
    let header = |(name, required, description): &(&str, bool, &str)| MetaOperationParam {
        name: (*name).to_owned(),
        schema: String::schema_ref(),
        in_type: MetaParamIn::Header,
        description: Some((*description).to_owned()),
        required: *required,
        deprecated: false,
        explode: true,
        style: None,
    };
    MetaOperation {
        method: Method::POST,
        tags: Vec::new(),
        summary: Some(summary),
        description: Some(description),
        external_docs: None,
        params: HEADERS.iter().map(header).collect(),
        request: Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: body }],
            required: true,
        }),
        responses: MetaResponses {
            responses: vec![MetaResponse {
                description: "Delivered. Any other status, or none in time, is tried again later.",
                status: None,
                status_range: Some("2XX".to_owned()),
                content: Vec::new(),
                headers: Vec::new(),
            }],
        },
        deprecated: false,
        security: Vec::new(),
        operation_id: Some(id),
        code_samples: Vec::new(),
    }
}
