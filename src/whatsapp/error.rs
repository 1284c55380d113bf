//! Why a link or a send failed.

use kero_domain::Class;
use whatsapp_rust::{ClientError, IqError};

/// A failure of the link itself.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The rule of [`crate::check_url`].
    #[error("whatsapp.url {0}")]
    Url(&'static str),
    #[error("the instance is not paired")]
    NotPaired,
    #[error("the link is not connected")]
    NotConnected,
    /// WhatsApp did not confirm that the device was removed.
    #[error("WhatsApp did not confirm the logout: {0}")]
    Unconfirmed(String),
    #[error("the device store failed: {0}")]
    Store(#[source] anyhow::Error),
    #[error("the client could not be built: {0}")]
    Build(#[source] anyhow::Error),
}

impl LinkError {
    pub fn class(&self) -> Class {
        match self {
            Self::Url(_) | Self::NotPaired => Class::Permanent,
            Self::NotConnected | Self::Unconfirmed(_) | Self::Store(_) => Class::Transient,
            Self::Build(_) => Class::Bug,
        }
    }
}

/// A failure of one send before its frame was written, as far as is known: a frame may have left when the socket broke
/// while it was written, so a worker repeats a send only under the same message id.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the link is not connected")]
    NotConnected,
    #[error("the phone number is not on WhatsApp")]
    NotOnWhatsApp,
    /// The same send fails again.
    #[error("WhatsApp does not take this message: {0}")]
    Invalid(String),
    #[error("the message could not be sent now: {0}")]
    Transient(String),
}

impl SendError {
    pub fn class(&self) -> Class {
        match self {
            Self::NotConnected | Self::Transient(_) => Class::Transient,
            Self::NotOnWhatsApp | Self::Invalid(_) => Class::Permanent,
        }
    }
}

impl From<IqError> for SendError {
    fn from(error: IqError) -> Self {
        match error {
            IqError::NotConnected
            | IqError::Disconnected(_)
            | IqError::InternalChannelClosed
            | IqError::ClientState(_)
            | IqError::Socket(_)
            | IqError::EncryptSend(_) => Self::NotConnected,
            // 401, 403, 404, 406: not a member, no such group, not allowed
            IqError::ServerError { code: code @ (400..=404 | 406 | 410), .. } => {
                Self::Invalid(format!("WhatsApp answered {code} to a query about the chat"))
            }
            IqError::ServerError { code, .. } => {
                Self::Transient(format!("WhatsApp answered {code} to a query about the chat"))
            }
            IqError::Timeout => Self::Transient("a query about the chat was not answered".to_owned()),
            other => Self::Transient(format!("a query about the chat failed: {other}")),
        }
    }
}

impl From<ClientError> for SendError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotConnected
            | ClientError::NotLoggedIn
            | ClientError::Socket(_)
            | ClientError::EncryptSend(_) => Self::NotConnected,
            ClientError::Iq(error) => error.into(),
            other => Self::Transient(other.to_string()),
        }
    }
}

impl From<whatsapp_rust::SendError> for SendError {
    fn from(error: whatsapp_rust::SendError) -> Self {
        use whatsapp_rust::SendError as Theirs;
        match error {
            Theirs::NotLoggedIn => Self::NotConnected,
            Theirs::Client(error) => error.into(),
            Theirs::Iq(error) => error.into(),
            Theirs::InvalidRequest(reason) => Self::Invalid(reason),
            other => Self::Transient(other.to_string()),
        }
    }
}
