//! Contacts, and every kind without a file of its own: named by its field in the protobuf, never dropped.

use super::{Body, Data};
use serde_json::Value;
use waproto::whatsapp as wa;

pub(super) fn contacts(message: &wa::Message) -> Option<Body> {
    let single = message.contact_message.as_option();
    let several = message.contacts_array_message.as_option();
    let cards: Vec<Value> =
        single.into_iter().chain(several.into_iter().flat_map(|it| it.contacts.iter())).map(card).collect();
    if single.is_none() && several.is_none() {
        return None;
    }
    let mut extra = Data::default();
    extra.put("contacts", cards);
    Some(Body { message_type: "contact", extra, ..Body::default() })
}

fn card(contact: &wa::message::ContactMessage) -> Value {
    let mut data = Data::default();
    data.put_text("display_name", contact.display_name.as_deref());
    data.put_text("vcard", contact.vcard.as_deref());
    data.into_value()
}

/// `None` for a key distribution that carries nothing else. The client keeps no field that it does not know, so a message
/// that has nothing at all is one of a kind newer than this build: it says so.
pub(super) fn unknown(message: &wa::Message) -> Option<Body> {
    let number = first_field(&waproto::codec::message_to_vec(message));
    let mut extra = Data::default();
    match number.map(|number| (number, FIELDS.iter().find(|(candidate, _)| *candidate == number))) {
        Some((_, Some((_, name)))) => extra.put("kind", *name),
        Some((number, None)) => extra.put("kind", format!("field{number}")),
        None if distributes_keys(message) => return None,
        None => extra.put("kind", "newer"),
    }
    Some(Body { message_type: "unknown", extra, ..Body::default() })
}

fn distributes_keys(message: &wa::Message) -> bool {
    message.sender_key_distribution_message.is_set()
        || message.fast_ratchet_key_sender_key_distribution_message.is_set()
}

/// The number of the first top-level field that is content.
fn first_field(mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let skip = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        bytes = bytes.get(skip..)?;
        // key distributions (2, 15) and the context (35) accompany content, they are none
        if !matches!(tag >> 3, 2 | 15 | 35) {
            return Some(tag >> 3);
        }
    }
    None
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Fields of `Message`, by number.
const FIELDS: &[(u64, &str)] = &[
    (1, "conversation"),
    (3, "imageMessage"),
    (4, "contactMessage"),
    (5, "locationMessage"),
    (6, "extendedTextMessage"),
    (7, "documentMessage"),
    (8, "audioMessage"),
    (9, "videoMessage"),
    (10, "call"),
    (11, "chat"),
    (12, "protocolMessage"),
    (13, "contactsArrayMessage"),
    (14, "highlyStructuredMessage"),
    (16, "sendPaymentMessage"),
    (18, "liveLocationMessage"),
    (22, "requestPaymentMessage"),
    (23, "declinePaymentRequestMessage"),
    (24, "cancelPaymentRequestMessage"),
    (25, "templateMessage"),
    (26, "stickerMessage"),
    (28, "groupInviteMessage"),
    (29, "templateButtonReplyMessage"),
    (30, "productMessage"),
    (31, "deviceSentMessage"),
    (36, "listMessage"),
    (37, "viewOnceMessage"),
    (38, "orderMessage"),
    (39, "listResponseMessage"),
    (40, "ephemeralMessage"),
    (41, "invoiceMessage"),
    (42, "buttonsMessage"),
    (43, "buttonsResponseMessage"),
    (44, "paymentInviteMessage"),
    (45, "interactiveMessage"),
    (46, "reactionMessage"),
    (47, "stickerSyncRmrMessage"),
    (48, "interactiveResponseMessage"),
    (49, "pollCreationMessage"),
    (50, "pollUpdateMessage"),
    (51, "keepInChatMessage"),
    (53, "documentWithCaptionMessage"),
    (54, "requestPhoneNumberMessage"),
    (55, "viewOnceMessageV2"),
    (56, "encReactionMessage"),
    (58, "editedMessage"),
    (59, "viewOnceMessageV2Extension"),
    (60, "pollCreationMessageV2"),
    (61, "scheduledCallCreationMessage"),
    (62, "groupMentionedMessage"),
    (63, "pinInChatMessage"),
    (64, "pollCreationMessageV3"),
    (65, "scheduledCallEditMessage"),
    (66, "ptvMessage"),
    (67, "botInvokeMessage"),
    (69, "callLogMesssage"),
    (70, "messageHistoryBundle"),
    (71, "encCommentMessage"),
    (72, "bcallMessage"),
    (74, "lottieStickerMessage"),
    (75, "eventMessage"),
    (76, "encEventResponseMessage"),
    (77, "commentMessage"),
    (78, "newsletterAdminInviteMessage"),
    (80, "placeholderMessage"),
    (82, "secretEncryptedMessage"),
    (83, "albumMessage"),
    (85, "eventCoverImage"),
    (86, "stickerPackMessage"),
    (87, "statusMentionMessage"),
    (88, "pollResultSnapshotMessage"),
    (90, "pollCreationOptionImageMessage"),
    (91, "associatedChildMessage"),
    (92, "groupStatusMentionMessage"),
    (93, "pollCreationMessageV4"),
    (95, "statusAddYours"),
    (96, "groupStatusMessage"),
    (97, "richResponseMessage"),
    (98, "statusNotificationMessage"),
    (99, "limitSharingMessage"),
    (100, "botTaskMessage"),
    (101, "questionMessage"),
    (102, "messageHistoryNotice"),
    (103, "groupStatusMessageV2"),
    (104, "botForwardedMessage"),
    (105, "statusQuestionAnswerMessage"),
    (106, "questionReplyMessage"),
    (107, "questionResponseMessage"),
    (109, "statusQuotedMessage"),
    (110, "statusStickerInteractionMessage"),
    (111, "pollCreationMessageV5"),
    (113, "newsletterFollowerInviteMessageV2"),
    (115, "pollResultSnapshotMessageV3"),
    (116, "newsletterAdminProfileMessage"),
    (117, "newsletterAdminProfileMessageV2"),
    (118, "spoilerMessage"),
    (119, "pollCreationMessageV6"),
    (120, "conditionalRevealMessage"),
    (121, "pollAddOptionMessage"),
    (122, "eventInviteMessage"),
    (123, "groupRootKeyShare"),
    (124, "paymentReminderMessage"),
    (125, "splitPaymentMessage"),
    (126, "newsletterAdminProfileStatusMessage"),
    (127, "rootSecretDistributeMessage"),
];
