//! Polls and their votes.

use super::identity::Head;
use super::media::hex;
use super::{Body, Data, unwrap};
use waproto::whatsapp as wa;

pub(super) fn read(message: &wa::Message) -> Option<Body> {
    let poll = [
        &message.poll_creation_message,
        &message.poll_creation_message_v2,
        &message.poll_creation_message_v3,
        &message.poll_creation_message_v5,
        &message.poll_creation_message_v6,
    ]
    .into_iter()
    .find_map(|field| field.as_option())?;
    let mut it = Data::default();
    it.put_text("question", poll.name.as_deref());
    it.put("options", poll.options.iter().filter_map(|option| option.option_name.clone()).collect::<Vec<_>>());
    it.put_some("selectable", poll.selectable_options_count);
    let mut extra = Data::default();
    extra.put("poll", it);
    Some(Body { message_type: "poll", text: poll.name.clone(), extra, ..Body::default() })
}

/// The vote inside a message, for whoever can decrypt it.
pub(crate) fn vote_of(message: &wa::Message) -> Option<&wa::message::PollUpdateMessage> {
    unwrap::open(message).message.poll_update_message.as_option()
}

/// Selected options are SHA-256 hashes of the options' names; absent when the vote could not be decrypted, empty when
/// the vote was taken back.
pub(super) fn vote(update: &wa::message::PollUpdateMessage, selected: Option<&[Vec<u8>]>, head: &Head<'_>) -> Data {
    let target = update.poll_creation_message_key.as_option();
    let mut data = head.about(target);
    data.put_some("target_sender", target.and_then(|key| head.target_sender(key)));
    data.put_some(
        "selected_option_hashes",
        selected.map(|hashes| hashes.iter().map(|hash| hex(hash)).collect::<Vec<_>>()),
    );
    data
}
