//! Sends on the wire.

use super::recipient::Recipient;
use super::said::Said;
use super::time::Moment;
use super::words::Priority;
use crate::body::Body;
use kero_gateway::SendReply;
use poem_openapi::{Enum, Object};

/// A text to send.
#[derive(Object)]
pub(crate) struct SendText {
    /// Who gets it: a phone number in international form, or a WhatsApp address (`…@s.whatsapp.net`, `…@lid`,
    /// `…@g.us` for groups, `…@newsletter`). (`jid` is taken too.)
    pub phone: Recipient,
    /// The text, up to 65,536 characters; WhatsApp's own marks (`*bold*`) count.
    pub message: Said,
    /// How urgent it is; `interactive` when absent.
    pub priority: Option<Priority>,
    /// Not before then. Such a send is asynchronous, whatever `X-Async` says. (Unix seconds are taken too.)
    pub send_at: Option<Moment>,
}

impl Body for SendText {
    const ALIASES: &'static [(&'static str, &'static str)] = &[("jid", "phone")];
}

/// How a send was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(crate) enum SendStatus {
    /// WhatsApp's server acknowledged the message.
    Sent,
    /// It is stored and will end in exactly one `message_ack`.
    Queued,
}

/// The answer to a send.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct SendResult {
    /// Always true.
    pub success: bool,
    /// WhatsApp's message id, final from the start.
    pub message_id: String,
    pub status: SendStatus,
    /// Your handle on the job. A synchronous send has it only when the request named it.
    pub correlation_id: Option<String>,
}

impl SendResult {
    pub fn new(reply: SendReply, named: bool) -> Self {
        let status = if reply.queued { SendStatus::Queued } else { SendStatus::Sent };
        let shown = reply.queued || named;
        Self {
            success: true,
            message_id: reply.message_id.into(),
            status,
            correlation_id: shown.then(|| reply.correlation_id.into()),
        }
    }
}
