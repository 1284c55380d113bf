//! What webhooks carry: the envelope of every kind of event and its `data`. These objects only describe; the events
//! are made where they happen. `data` may have further members.

mod messages;
mod news;
mod own;

use super::members::Members;
use messages::{EditData, MessageData, PollVoteData, ReactionData, RevokeData, UndecryptableData};
use news::{CallData, ChatData, ContactData, GroupData, LabelData, NewsletterData, PresenceData, SyncProgressData};
use own::{MessageAckData, PairingData, ReceiptData, StatusData};
use poem_openapi::Object;
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
    MessageEditEvent { EditData }
    /// A message was deleted for everyone.
    MessageRevokeEvent { RevokeData }
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
    /// A group changed.
    GroupEvent { GroupData }
    /// A contact changed.
    ContactEvent { ContactData }
    /// A chat was changed on another device of the account.
    ChatEvent { ChatData }
    /// A label was changed, or given to a chat.
    LabelEvent { LabelData }
    /// Posts of a newsletter changed.
    NewsletterEvent { NewsletterData }
    /// An event whose data is not described further.
    OtherEvent { Members }
}
