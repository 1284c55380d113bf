//! Jobs: sends that were accepted, and the states they go through.

use crate::instance::word_enum;
use serde::{Deserialize, Serialize};

word_enum!(
    /// The one list of job states (API, store, metrics, hooks).
    JobState {
        /// Accepted; waits for its lane.
        Queued = "queued",
        /// Waits for something; see [`HeldReason`].
        Held = "held",
        /// The intent is stored; the outcome is not yet known.
        Sending = "sending",
        /// WhatsApp's server acknowledged the message.
        Sent = "sent",
        Delivered = "delivered",
        Read = "read",
        Played = "played",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

word_enum!(
    /// Why a job is `held`.
    HeldReason {
        /// The instance is paired but not connected.
        Offline = "offline",
        /// `send_at` lies ahead.
        Scheduled = "scheduled",
        /// An attempt failed; the next is due later.
        Retry = "retry",
        /// A rate limit of the instance or recipient.
        Rate = "rate",
        /// WhatsApp restricts messages to people who never wrote (code 463).
        ReachOutLock = "reach_out_lock",
        /// The outcome of an attempt is unknown; it is sent again under the same id.
        InDoubt = "in_doubt",
    }
);

word_enum!(
    /// The class of a send: lanes serve them 8 : 2 : 1.
    Priority {
        Interactive = "interactive",
        Bulk = "bulk",
        Background = "background",
    }
);

impl JobState {
    /// Nothing more will be tried: the job ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Sent | Self::Delivered | Self::Read | Self::Played | Self::Failed | Self::Cancelled)
    }

    /// Rank along `sent < delivered < read < played`; receipts only move forward.
    pub const fn progress(self) -> Option<u8> {
        match self {
            Self::Sent => Some(0),
            Self::Delivered => Some(1),
            Self::Read => Some(2),
            Self::Played => Some(3),
            _ => None,
        }
    }

    /// The state that a receipt of WhatsApp's `kind` means, if any.
    pub fn from_receipt(kind: &str) -> Option<Self> {
        match kind {
            "" | "delivered" | "inactive" => Some(Self::Delivered),
            "read" | "read-self" => Some(Self::Read),
            "played" | "played-self" => Some(Self::Played),
            _ => None,
        }
    }
}

impl Priority {
    /// Share of a lane's turns.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Interactive => 8,
            Self::Bulk => 2,
            Self::Background => 1,
        }
    }
}
