//! Reactions: an emoji on an earlier message, or its removal.

use super::Data;
use super::identity::Head;
use waproto::whatsapp as wa;

pub(super) fn data(reaction: &wa::message::ReactionMessage, head: &Head<'_>) -> Data {
    let target = reaction.key.as_option();
    let emoji = reaction.text.as_deref().unwrap_or_default();
    let mut data = head.about(target);
    data.put_some("target_sender", target.and_then(|key| head.target_sender(key)));
    data.put("emoji", emoji);
    data.put("removed", emoji.is_empty());
    data
}
