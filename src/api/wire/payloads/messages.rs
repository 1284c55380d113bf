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
    /// A video that is shown round and plays by itself.
    pub video_note: Option<bool>,
    /// A video that plays like a GIF.
    pub gif: Option<bool>,
    /// The cards, when `message_type` is `contact`.
    pub contacts: Option<Vec<ContactCard>>,
    /// The poll, when `message_type` is `poll`.
    pub poll: Option<Poll>,
    /// A location that moves.
    pub live: Option<bool>,
    /// Of a live location.
    pub accuracy_meters: Option<u32>,
    /// Of a live location: grows with every move.
    pub sequence_number: Option<i64>,
    /// Of a place.
    pub url: Option<String>,
    /// WhatsApp's name of the content, when `message_type` is `unknown`; `newer` for one that this version does not know
    /// by name.
    pub kind: Option<String>,
    /// WhatsApp's name of the change, when `kind` is `protocolMessage`.
    pub protocol_type: Option<String>,
    /// Of disappearing messages, in seconds (`protocolMessage`).
    pub ephemeral_expiration: Option<u32>,
    /// The number of a newsletter's post.
    pub server_id: Option<i64>,
    /// The content was asked for again, from the phone, after an `undecryptable` event; the id of that request.
    pub recovered_by: Option<String>,
    /// The message as WhatsApp sent it: the protobuf as JSON, with `include=raw` only. Names are in lowerCamelCase, bytes in
    /// base64, 64-bit numbers texts.
    pub raw: Option<Members>,
}

/// A contact that was sent.
#[derive(Object)]
pub(crate) struct ContactCard {
    pub display_name: Option<String>,
    /// The whole card (RFC 6350, often version 3.0).
    pub vcard: Option<String>,
}

/// A poll.
#[derive(Object)]
pub(crate) struct Poll {
    pub question: Option<String>,
    pub options: Vec<String>,
    /// How many options may be chosen; 0 for any number.
    pub selectable: Option<u32>,
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
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// How long it plays.
    pub seconds: Option<u32>,
    /// Of a document.
    pub page_count: Option<u32>,
    /// Of a sticker.
    pub animated: Option<bool>,
    /// What fetching and decrypting it takes. Treat it as a secret.
    pub handle: Option<Members>,
}

/// An edit of an earlier message, with the new content, named as in `message`.
#[derive(Object)]
pub(crate) struct EditData {
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
    pub message_type: Option<String>,
    pub text: Option<String>,
    pub caption: Option<String>,
    pub file_name: Option<String>,
    pub mime_type: Option<String>,
    pub file_size: Option<u64>,
    pub latitude: Option<String>,
    pub longitude: Option<String>,
    pub location_name: Option<String>,
    pub location_address: Option<String>,
    pub quoted: Option<Quoted>,
    pub mentions: Option<Vec<String>>,
    pub forwarded: Option<bool>,
    pub media: Option<Media>,
    pub gif: Option<bool>,
    pub video_note: Option<bool>,
    pub contacts: Option<Vec<ContactCard>>,
    pub poll: Option<Poll>,
    pub live: Option<bool>,
    pub accuracy_meters: Option<u32>,
    pub sequence_number: Option<i64>,
    pub url: Option<String>,
    /// WhatsApp's name of the content, when `message_type` is `unknown`.
    pub kind: Option<String>,
    /// With `include=raw`, as in `message`.
    pub raw: Option<Members>,
}

/// An earlier message was taken back.
#[derive(Object)]
pub(crate) struct RevokeData {
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
    /// Who wrote the message, where known.
    pub target_sender: Option<String>,
    /// Whether a group's admin deleted it.
    pub by_admin: bool,
    /// With `include=raw`, as in `message`.
    pub raw: Option<Members>,
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
    /// With `include=raw`, as in `message`.
    pub raw: Option<Members>,
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
    /// With `include=raw`, as in `message`.
    pub raw: Option<Members>,
}

/// A message that could not be read. When its sender or the phone sends it again, a `message` event with the same
/// `message_id` follows.
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
    /// WhatsApp asks not to show that it is missing.
    pub hidden: Option<bool>,
}
