//! What webhooks carry: the envelope of every kind of event and its `data`. These objects only describe; the events
//! are made where they happen. `data` may have further members.

use super::members::Members;
use super::time::Moment;
use super::words::{Cause, InstanceStatus};
use poem_openapi::{Enum, Object};
use uuid::Uuid;

/// Declares the envelope of one kind of event.
macro_rules! envelopes {
    ($($(#[$doc:meta])* $name:ident { $data:ty })+) => {
        $(
            $(#[$doc])*
            #[derive(Object)]
            pub(crate) struct $name {
                pub event: String,
                pub instance_id: String,
                /// When it happened, in Unix seconds.
                pub timestamp: i64,
                pub data: $data,
                /// The event's id, the same in every delivery of it: use it to drop repetitions.
                pub id: Uuid,
                /// Its place in the instance's journal; dense.
                pub seq: i64,
                /// Grows when a member changes its meaning.
                pub schema: u32,
            }
        )+
    };
}

envelopes! {
    /// A message came in, or was sent from another device of the account.
    MessageEvent { MessageData }
    /// An asynchronous send ended.
    MessageAckEvent { MessageAckData }
    /// Messages were delivered, read or played.
    ReceiptEvent { ReceiptData }
    /// An instance's link changed.
    StatusEvent { StatusData }
    /// A step of pairing.
    PairingEvent { PairingData }
    /// A message was edited.
    MessageEditEvent { ChangeData }
    /// A message was deleted for everyone.
    MessageRevokeEvent { ChangeData }
    /// Somebody reacted to a message, or took the reaction back.
    ReactionEvent { ReactionData }
    /// Somebody voted in a poll.
    PollVoteEvent { PollVoteData }
    /// Somebody types, records, came online or left.
    PresenceEvent { PresenceData }
    /// Somebody calls, or the call ended.
    CallEvent { CallData }
    /// A message came that could not be read.
    UndecryptableEvent { UndecryptableData }
    /// Fetching the history goes on.
    SyncProgressEvent { SyncProgressData }
    /// An event whose data is not described further.
    OtherEvent { Members }
}

/// What is known of a person. A LID and a phone number are two addresses of one contact; neither stands in for the
/// other.
#[derive(Object)]
pub(crate) struct Identity {
    /// Digits of the phone number.
    pub phone: Option<String>,
    /// The anonymous address, `…@lid`.
    pub lid: Option<String>,
    /// The address as it came.
    pub jid: Option<String>,
}

/// A message.
#[derive(Object)]
pub(crate) struct MessageData {
    pub message_id: String,
    /// The sender's address; in a group the participant's.
    pub from: String,
    /// The chat's address.
    pub to: String,
    pub is_group: bool,
    /// `text`, `image`, `video`, `audio`, `document`, `sticker`, `location`, `contact`, `poll`, …; `unknown` with
    /// `kind` for what Kero does not read.
    pub message_type: String,
    pub text: Option<String>,
    pub caption: Option<String>,
    pub file_name: Option<String>,
    pub mime_type: Option<String>,
    pub file_size: Option<u64>,
    /// Degrees, six decimals.
    pub latitude: Option<String>,
    /// Degrees, six decimals.
    pub longitude: Option<String>,
    pub location_name: Option<String>,
    pub location_address: Option<String>,
    /// When it was written, in Unix seconds.
    pub timestamp: i64,
    /// Whether it was sent from the account itself.
    pub is_from_me: bool,
    /// The name that the sender chose.
    pub sender_name: Option<String>,
    /// The chat's address.
    pub chat: String,
    pub sender: Identity,
    /// Of the other side, in a private chat.
    pub chat_identity: Option<Identity>,
    pub quoted: Option<Quoted>,
    /// Addresses of the people mentioned.
    pub mentions: Option<Vec<String>>,
    pub forwarded: Option<bool>,
    /// How to fetch the media.
    pub media: Option<Media>,
    pub voice_note: Option<bool>,
    pub view_once: Option<bool>,
    /// WhatsApp's name of the content, when `message_type` is `unknown`.
    pub kind: Option<String>,
}

/// The message that was answered.
#[derive(Object)]
pub(crate) struct Quoted {
    pub message_id: String,
    /// The address of its sender.
    pub sender: Option<String>,
    pub text: Option<String>,
}

/// Media of a message.
#[derive(Object)]
pub(crate) struct Media {
    /// `image`, `video`, `audio`, `document` or `sticker`.
    pub kind: String,
    pub mime_type: Option<String>,
    pub file_size: Option<u64>,
    /// Of the decrypted file, in hex.
    pub sha256: Option<String>,
    /// What fetching and decrypting it takes. Treat it as a secret.
    pub handle: Option<Members>,
}

/// How an asynchronous send ended.
#[derive(Object)]
pub(crate) struct MessageAckData {
    pub status: AckStatus,
    pub correlation_id: String,
    /// WhatsApp's message id, when it was sent.
    pub message_id: Option<String>,
    /// The error as a sentence, when it was not sent.
    pub error: Option<String>,
    /// The error's stable code, when it was not sent.
    pub code: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// The end of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum AckStatus {
    Sent,
    Failed,
    Cancelled,
}

/// A receipt.
#[derive(Object)]
pub(crate) struct ReceiptData {
    /// The first of `ids`.
    pub message_id: String,
    /// The messages that it is about.
    pub ids: Vec<String>,
    /// The address that it came from; in a group the participant's.
    pub from: String,
    /// The chat's address.
    pub chat: Option<String>,
    pub sender: Option<Identity>,
    /// `delivered`, `read`, `played`, `read-self`, …
    #[oai(rename = "type")]
    pub kind: String,
    /// Unix seconds.
    pub timestamp: i64,
}

/// An instance's status.
#[derive(Object)]
pub(crate) struct StatusData {
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    pub since: Moment,
    pub next_retry_at: Option<Moment>,
}

/// A step of pairing.
#[derive(Object)]
pub(crate) struct PairingData {
    pub kind: PairingKind,
    /// The QR code's text, or the pair code.
    pub code: Option<String>,
    pub expires_at: Option<Moment>,
}

/// A step of pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum PairingKind {
    /// A new QR code counts.
    Qr,
    /// A pair code counts.
    Code,
    Scanned,
    Paired,
    Failed,
    Timeout,
}

/// A change to an earlier message; for an edit also the new content, named as in `message`.
#[derive(Object)]
pub(crate) struct ChangeData {
    /// The id of the change.
    pub message_id: String,
    /// The message that was changed.
    pub target_message_id: Option<String>,
    pub chat: String,
    pub is_group: bool,
    pub from: String,
    /// Who changed it.
    pub actor: Identity,
    pub is_from_me: bool,
    /// Unix seconds.
    pub timestamp: i64,
    pub text: Option<String>,
    pub caption: Option<String>,
    /// Who wrote the message, where known (revoke).
    pub target_sender: Option<String>,
    /// Whether a group's admin deleted it (revoke).
    pub by_admin: Option<bool>,
}

/// A reaction.
#[derive(Object)]
pub(crate) struct ReactionData {
    pub message_id: String,
    pub target_message_id: Option<String>,
    pub target_sender: Option<String>,
    pub chat: String,
    pub is_group: bool,
    pub from: String,
    pub actor: Identity,
    pub is_from_me: bool,
    /// Unix seconds.
    pub timestamp: i64,
    /// Empty when it was taken back.
    pub emoji: String,
    pub removed: bool,
}

/// A vote.
#[derive(Object)]
pub(crate) struct PollVoteData {
    pub message_id: String,
    /// The poll.
    pub target_message_id: Option<String>,
    pub target_sender: Option<String>,
    pub chat: String,
    pub is_group: bool,
    pub from: String,
    pub actor: Identity,
    pub is_from_me: bool,
    /// Unix seconds.
    pub timestamp: i64,
    /// SHA-256 of the chosen options' texts, in hex; absent when the vote could not be read.
    pub selected_option_hashes: Option<Vec<String>>,
}

/// Somebody's presence.
#[derive(Object)]
pub(crate) struct PresenceData {
    /// The address of the person, or of the chat.
    pub from: String,
    /// `composing`, `paused`, `available` or `unavailable`.
    pub state: String,
    /// `audio` while recording, else empty.
    pub media: Option<String>,
    /// Unix seconds.
    pub last_seen: Option<i64>,
}

/// A call.
#[derive(Object)]
pub(crate) struct CallData {
    pub from: String,
    pub call_id: Option<String>,
    /// `incoming`, `accepted`, `rejected`, `ended`, …
    pub status: String,
    pub is_video: Option<bool>,
    /// Unix seconds.
    pub timestamp: i64,
}

/// A message that could not be read.
#[derive(Object)]
pub(crate) struct UndecryptableData {
    pub message_id: String,
    pub chat: String,
    pub from: String,
    pub sender: Identity,
    pub is_group: bool,
    /// Unix seconds.
    pub timestamp: i64,
    /// `decryption-failed`, `view-once`, `unavailable`, …
    pub reason: String,
}

/// How far fetching the history is.
#[derive(Object)]
pub(crate) struct SyncProgressData {
    /// 0 to 100.
    pub percentage: Option<u32>,
    pub sync_type: Option<String>,
}
