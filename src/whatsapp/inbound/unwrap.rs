//! WhatsApp wraps messages in messages (disappearing, view once, captions, …); what counts is inside.

use waproto::whatsapp as wa;

pub(super) struct Opened<'a> {
    pub(super) message: &'a wa::Message,
    pub(super) view_once: bool,
}

/// The innermost message. Depth is bounded: a sender may nest as it likes.
pub(super) fn open(message: &wa::Message) -> Opened<'_> {
    let mut opened = Opened { message, view_once: false };
    for _ in 0..16 {
        let Some((inner, view_once)) = step(opened.message) else { break };
        opened.message = inner;
        opened.view_once |= view_once;
    }
    opened.view_once |= marked_view_once(opened.message);
    opened
}

fn step(message: &wa::Message) -> Option<(&wa::Message, bool)> {
    if let Some(inner) = message.device_sent_message.as_option().and_then(|it| it.message.as_option()) {
        return Some((inner, false));
    }
    macro_rules! wrappers {
        ($($field:ident: $view_once:literal),+ $(,)?) => {
            $(if let Some(inner) = message.$field.as_option().and_then(|it| it.message.as_option()) {
                return Some((inner, $view_once));
            })+
        };
    }
    wrappers!(
        ephemeral_message: false,
        view_once_message: true,
        view_once_message_v2: true,
        view_once_message_v2_extension: true,
        document_with_caption_message: false,
        edited_message: false,
        group_mentioned_message: false,
        bot_invoke_message: false,
        bot_task_message: false,
        bot_forwarded_message: false,
        lottie_sticker_message: false,
        event_cover_image: false,
        associated_child_message: false,
        poll_creation_option_image_message: false,
        poll_creation_message_v4: false,
        status_mention_message: false,
        group_status_mention_message: false,
        group_status_message: false,
        group_status_message_v2: false,
        status_add_yours: false,
        limit_sharing_message: false,
        question_message: false,
        question_reply_message: false,
        spoiler_message: false,
        newsletter_admin_profile_message: false,
        newsletter_admin_profile_message_v2: false,
        newsletter_admin_profile_status_message: false,
    );
    None
}

fn marked_view_once(message: &wa::Message) -> bool {
    let marks = [
        message.image_message.as_option().and_then(|it| it.view_once),
        message.video_message.as_option().and_then(|it| it.view_once),
        message.audio_message.as_option().and_then(|it| it.view_once),
        message.extended_text_message.as_option().and_then(|it| it.view_once),
    ];
    marks.contains(&Some(true))
}
