//! The closed lists of words, as the document names them.

use poem_openapi::Enum;

/// An instance's link to WhatsApp. `connected` means logged in and able to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::InstanceStatus", rename_all = "snake_case")]
pub(crate) enum InstanceStatus {
    Disconnected,
    Connecting,
    Pairing,
    Connected,
    LoggedOut,
    Failed,
}

/// Why an instance is in its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::Cause", rename_all = "kebab-case")]
pub(crate) enum Cause {
    Requested,
    NotPaired,
    PairingTimeout,
    PairingFailed,
    DeviceRemoved,
    LogoutRequested,
    Replaced,
    TemporaryBan,
    AccountLocked,
    ClientOutdated,
    ConnectionLost,
    Unreachable,
    CertificateRefused,
    StorageFailed,
    Restart,
    Refused,
}

/// What became of a send. `queued`, `held` and `sending` may still change; `sent` is WhatsApp's acknowledgement, and
/// `delivered`, `read` and `played` follow from receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::JobState", rename_all = "snake_case")]
pub(crate) enum JobState {
    Queued,
    Held,
    Sending,
    Sent,
    Delivered,
    Read,
    Played,
    Failed,
    Cancelled,
}

/// Why a job is `held`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::HeldReason", rename_all = "snake_case")]
pub(crate) enum HeldReason {
    Offline,
    Scheduled,
    Retry,
    Rate,
    ReachOutLock,
    InDoubt,
}

/// How urgent a send is. Lanes serve the classes 8 : 2 : 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::Priority", rename_all = "snake_case")]
pub(crate) enum Priority {
    Interactive,
    Bulk,
    Background,
}

/// What an event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::EventKind", rename_all = "snake_case")]
pub(crate) enum EventKind {
    Message,
    MessageAck,
    Receipt,
    Status,
    Pairing,
    MessageEdit,
    MessageRevoke,
    Reaction,
    PollVote,
    Presence,
    Call,
    Group,
    Contact,
    Chat,
    Label,
    Newsletter,
    SyncProgress,
    Undecryptable,
    Media,
    Endpoint,
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::ToJSON;

    #[test]
    fn the_documents_words_are_the_domains() {
        macro_rules! same {
            ($($name:ident),*) => {$(
                for word in kero_domain::$name::ALL {
                    assert_eq!(super::$name::from(*word).to_json(), Some(word.as_str().into()));
                }
            )*};
        }
        same!(InstanceStatus, Cause, JobState, HeldReason, Priority, EventKind);
    }
}
