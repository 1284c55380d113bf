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

/// Which order an endpoint's deliveries keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::endpoint::Order", rename_all = "snake_case")]
pub(crate) enum DeliveryOrder {
    None,
    Chat,
    Strict,
}

/// What became of a delivery. A `dead` one can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::DeliveryState", rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    Pending,
    Delivered,
    Dead,
}

/// What made the gateway try: the event and its retry schedule, a replay, or finding out whether an endpoint that
/// failed answers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_store::Trigger", rename_all = "snake_case")]
pub(crate) enum DeliveryTrigger {
    Event,
    Manual,
    Probe,
}

/// A kind of chat. `broadcast` is also the status updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::endpoint::ChatType", rename_all = "snake_case")]
pub(crate) enum ChatType {
    Private,
    Group,
    Newsletter,
    Broadcast,
}

/// Who wrote a message: `in` somebody else, `out` the account itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::endpoint::Direction", rename_all = "snake_case")]
pub(crate) enum Direction {
    In,
    Out,
}

/// Why the gateway disabled an endpoint: it answered 410, or failed for days without one success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(remote = "kero_domain::endpoint::DisabledReason", rename_all = "snake_case")]
pub(crate) enum DisabledReason {
    Gone,
    Failing,
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
        same!(InstanceStatus, Cause, JobState, HeldReason, Priority, EventKind, DeliveryState);
        for order in kero_domain::endpoint::Order::ALL {
            assert_eq!(super::DeliveryOrder::from(*order).to_json(), Some(order.as_str().into()));
        }
        for kind in kero_domain::endpoint::ChatType::ALL {
            assert_eq!(super::ChatType::from(*kind).to_json(), Some(kind.as_str().into()));
        }
    }
}
