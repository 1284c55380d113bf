//! `data` of events about the account's own sends and its link.

use super::messages::Identity;
use crate::wire::time::Moment;
use crate::wire::words::{Cause, DisabledReason, InstanceStatus};
use poem_openapi::{Enum, Object};

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

/// The gateway disabled an endpoint. Its deliveries wait; enable it again and they go on.
#[derive(Object)]
pub(crate) struct EndpointData {
    pub endpoint_id: String,
    /// `disabled`.
    pub status: String,
    pub reason: DisabledReason,
    /// Since when it has failed.
    pub since: Moment,
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
