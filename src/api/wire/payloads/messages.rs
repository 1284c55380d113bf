//! `data` of events about messages.

use crate::wire::members::Members;
use poem_openapi::Object;

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
