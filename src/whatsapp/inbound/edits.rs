//! Protocol messages: edits and revokes are events, the library's own housekeeping is none, the rest is named.

use super::identity::{Head, content};
use super::{Body, Data, unwrap};
use kero_domain::EventKind;
use wacore::types::message::{EditAttribute, MessageInfo};
use waproto::whatsapp::message::ProtocolMessage;
use waproto::whatsapp::message::protocol_message::Type;

#[allow(clippy::large_enum_variant, reason = "made once for a message and taken apart at once")]
pub(super) enum Protocol {
    Event(EventKind, Data),
    Unknown(Body),
}

pub(super) fn read(protocol: &ProtocolMessage, info: &MessageInfo, head: &Head<'_>) -> Option<Protocol> {
    let kind = protocol.r#type;
    if protocol.edited_message.is_set() || kind == Some(Type::MESSAGE_EDIT) {
        return Some(Protocol::Event(EventKind::MessageEdit, edit(protocol, head)));
    }
    // proto3 leaves out a zero, and REVOKE is zero
    if kind == Some(Type::REVOKE) || (kind.is_none() && protocol.key.is_set()) {
        return Some(Protocol::Event(EventKind::MessageRevoke, revoke(protocol, info, head)));
    }
    let name = match kind {
        Some(
            Type::HISTORY_SYNC_NOTIFICATION
            | Type::APP_STATE_SYNC_KEY_SHARE
            | Type::APP_STATE_SYNC_KEY_REQUEST
            | Type::APP_STATE_FATAL_EXCEPTION_NOTIFICATION
            | Type::MSG_FANOUT_BACKFILL_REQUEST
            | Type::INITIAL_SECURITY_NOTIFICATION_SETTING_SYNC
            | Type::PEER_DATA_OPERATION_REQUEST_MESSAGE
            | Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE
            | Type::LID_MIGRATION_MAPPING_SYNC,
        ) => return None,
        Some(Type::EPHEMERAL_SETTING) => "EPHEMERAL_SETTING",
        Some(Type::EPHEMERAL_SYNC_RESPONSE) => "EPHEMERAL_SYNC_RESPONSE",
        Some(Type::SHARE_PHONE_NUMBER) => "SHARE_PHONE_NUMBER",
        Some(Type::LIMIT_SHARING) => "LIMIT_SHARING",
        Some(Type::GROUP_MEMBER_LABEL_CHANGE) => "GROUP_MEMBER_LABEL_CHANGE",
        _ => "OTHER",
    };
    let mut extra = Data::default();
    extra.put("kind", "protocolMessage");
    extra.put("protocol_type", name);
    extra.put_some("ephemeral_expiration", protocol.ephemeral_expiration);
    Some(Protocol::Unknown(Body { message_type: "unknown", extra, ..Body::default() }))
}

fn edit(protocol: &ProtocolMessage, head: &Head<'_>) -> Data {
    let mut data = head.about(protocol.key.as_option());
    if let Some(edited) = protocol.edited_message.as_option()
        && let Some(body) = super::body(unwrap::open(edited).message)
    {
        data.put("message_type", body.message_type);
        data.append(content(&body));
        super::context::put(&mut data, super::context::info(unwrap::open(edited).message), head.known);
        data.put_some("media", body.media);
        data.append(body.extra);
    }
    data
}

fn revoke(protocol: &ProtocolMessage, info: &MessageInfo, head: &Head<'_>) -> Data {
    let target = protocol.key.as_option();
    let mut data = head.about(target);
    data.put_some("target_sender", target.and_then(|key| head.target_sender(key)));
    data.put("by_admin", info.edit == EditAttribute::AdminRevoke);
    data
}
