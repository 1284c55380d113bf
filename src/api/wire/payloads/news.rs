//! `data` of events about people, chats and groups. They pass by without an acknowledgement: best effort.

use super::messages::Identity;
use poem_openapi::Object;

/// Somebody's presence.
#[derive(Object)]
pub(crate) struct PresenceData {
    /// The chat's address; of a person for `available` and `unavailable`.
    pub from: String,
    /// `composing`, `paused`, `available` or `unavailable`.
    pub state: String,
    /// `audio` while recording, else empty.
    pub media: String,
    pub chat: String,
    pub sender: Identity,
    /// Unix seconds.
    pub last_seen: Option<i64>,
}

/// A call.
#[derive(Object)]
pub(crate) struct CallData {
    /// Who began it.
    pub from: String,
    /// Unix seconds.
    pub timestamp: i64,
    /// `incoming`, `accepted`, `rejected`, `ended`, `missed`, `accepted_elsewhere`, `rejected_elsewhere`.
    pub status: String,
    pub call_id: String,
    pub sender: Identity,
    pub is_video: Option<bool>,
    pub is_group: Option<bool>,
    /// The group's address.
    pub group: Option<String>,
    pub reason: Option<String>,
    /// Seconds.
    pub duration: Option<u64>,
}

/// A change of a group.
#[derive(Object)]
pub(crate) struct GroupData {
    /// The group's address.
    pub group: String,
    /// WhatsApp's word: `add`, `remove`, `promote`, `demote`, `subject`, `description`, `picture`, `invite`, …
    pub action: String,
    /// Unix seconds.
    pub timestamp: i64,
    /// Who changed it.
    pub actor: Option<Identity>,
    pub participants: Option<Vec<Participant>>,
    pub subject: Option<String>,
    pub description: Option<String>,
    /// Of disappearing messages, in seconds.
    pub expiration: Option<u32>,
    pub invite_code: Option<String>,
    pub reason: Option<String>,
    /// `membership_approval_mode`: whether admins let people in.
    pub enabled: Option<bool>,
    /// `member_add_mode`: who may add people.
    pub mode: Option<String>,
    /// `link`: how the group belongs to a community now.
    pub link_type: Option<String>,
    /// `unlink`: how it belonged to one.
    pub unlink_type: Option<String>,
    /// `picture`, as in `action`.
    pub change: Option<String>,
    /// `picture`: whether there is none any longer.
    pub removed: Option<bool>,
    /// `picture`: the new one's id.
    pub picture_id: Option<String>,
}

/// A member of a group.
#[derive(Object)]
pub(crate) struct Participant {
    pub phone: Option<String>,
    pub lid: Option<String>,
    pub jid: Option<String>,
    pub display_name: Option<String>,
}

/// A change of a contact.
#[derive(Object)]
pub(crate) struct ContactData {
    /// `picture`, `about`, `name`, `number`, `push_name`, `security_code`, `business` or `own_push_name`.
    pub change: String,
    /// The contact's address.
    pub contact: Option<String>,
    pub identity: Option<Identity>,
    /// Unix seconds.
    pub timestamp: Option<i64>,
    pub about: Option<String>,
    pub full_name: Option<String>,
    pub first_name: Option<String>,
    pub push_name: Option<String>,
    pub verified_name: Option<String>,
    pub picture_id: Option<String>,
    pub removed: Option<bool>,
    /// `name`: it came with all contacts, when the account was linked.
    pub from_full_sync: Option<bool>,
    /// `number`: the address before.
    pub old: Option<String>,
    /// `number`: the address now.
    pub new: Option<String>,
    /// `push_name`: the name before.
    pub old_push_name: Option<String>,
}

/// A change of a chat.
#[derive(Object)]
pub(crate) struct ChatData {
    pub chat: String,
    /// `pin`, `mute`, `archive`, `star`, `read`, `delete`, `clear`, `delete_message_for_me` or `disappearing_mode`.
    pub change: String,
    /// Unix seconds.
    pub timestamp: i64,
    pub target_message_id: Option<String>,
    pub pinned: Option<bool>,
    pub muted: Option<bool>,
    pub archived: Option<bool>,
    pub starred: Option<bool>,
    pub read: Option<bool>,
    /// Until when it is muted, in Unix milliseconds; -1 for ever.
    pub until_ms: Option<i64>,
    /// Of disappearing messages, in seconds.
    pub duration: Option<u32>,
}

/// A change of a label.
#[derive(Object)]
pub(crate) struct LabelData {
    pub label_id: String,
    /// `label` (the label itself) or `assignment` (to a chat).
    pub change: String,
    pub chat: Option<String>,
    pub labeled: Option<bool>,
    pub name: Option<String>,
    pub color: Option<i32>,
    pub deleted: Option<bool>,
    /// Unix seconds, of an assignment.
    pub timestamp: Option<i64>,
}

/// A change of a newsletter's posts.
#[derive(Object)]
pub(crate) struct NewsletterData {
    /// The newsletter's address.
    pub chat: String,
    /// `reactions`.
    pub change: String,
    pub messages: Option<Vec<Post>>,
}

/// A newsletter's post.
#[derive(Object)]
pub(crate) struct Post {
    pub server_id: u64,
    pub reactions: Vec<ReactionCount>,
}

/// How often an emoji was given.
#[derive(Object)]
pub(crate) struct ReactionCount {
    pub emoji: String,
    pub count: u64,
}

/// How far fetching the history is.
#[derive(Object)]
pub(crate) struct SyncProgressData {
    /// 0 to 100.
    pub percentage: u32,
    /// `offline` for what came in while the instance was away; else WhatsApp's word.
    pub sync_type: String,
    /// The part of the history, from 0.
    pub chunk: Option<u32>,
    /// `offline`, at the beginning: how many are waiting.
    pub messages: Option<i32>,
    /// `offline`, at the beginning.
    pub notifications: Option<i32>,
    /// `offline`, at the beginning.
    pub receipts: Option<i32>,
    /// `offline`, at the end: how many came.
    pub count: Option<i32>,
}
