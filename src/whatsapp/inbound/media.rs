//! Images, videos, audio, documents and stickers: what they are, and the handle that a download needs.

use super::{Body, Data};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use waproto::whatsapp as wa;

pub(super) fn read(message: &wa::Message) -> Option<Body> {
    macro_rules! handle {
        ($kind:literal, $it:ident) => {
            Handle {
                kind: $kind,
                mime_type: $it.mimetype.as_deref(),
                file_length: $it.file_length,
                file_sha256: $it.file_sha256.as_deref(),
                file_enc_sha256: $it.file_enc_sha256.as_deref(),
                media_key: $it.media_key.as_deref(),
                direct_path: $it.direct_path.as_deref(),
            }
        };
    }
    if let Some(it) = message.image_message.as_option() {
        let mut media = handle!("image", it).data();
        media.put_some("width", it.width);
        media.put_some("height", it.height);
        return Some(Body { caption: it.caption.clone(), ..body("image", it.mimetype.clone(), it.file_length, media) });
    }
    if let Some(it) = message.video_message.as_option() {
        return Some(video(it, handle!("video", it).data()));
    }
    if let Some(it) = message.ptv_message.as_option() {
        let mut body = video(it, handle!("video", it).data());
        body.extra.put("video_note", true);
        return Some(body);
    }
    if let Some(it) = message.audio_message.as_option() {
        let mut media = handle!("audio", it).data();
        media.put_some("seconds", it.seconds);
        return Some(Body {
            voice_note: it.ptt == Some(true),
            ..body("audio", it.mimetype.clone(), it.file_length, media)
        });
    }
    if let Some(it) = message.document_message.as_option() {
        let mut media = handle!("document", it).data();
        media.put_some("page_count", it.page_count);
        let file_name = it.file_name.clone().or_else(|| it.title.clone());
        return Some(Body {
            caption: it.caption.clone(),
            file_name,
            ..body("document", it.mimetype.clone(), it.file_length, media)
        });
    }
    if let Some(it) = message.sticker_message.as_option() {
        let mut media = handle!("sticker", it).data();
        media.put_some("width", it.width);
        media.put_some("height", it.height);
        media.put_some("animated", it.is_animated);
        return Some(body("sticker", it.mimetype.clone(), it.file_length, media));
    }
    None
}

fn body(message_type: &'static str, mime_type: Option<String>, file_size: Option<u64>, media: Data) -> Body {
    Body { message_type, mime_type, file_size, media: Some(media), ..Body::default() }
}

fn video(it: &wa::message::VideoMessage, mut media: Data) -> Body {
    media.put_some("seconds", it.seconds);
    media.put_some("width", it.width);
    media.put_some("height", it.height);
    let mut body = Body { caption: it.caption.clone(), ..body("video", it.mimetype.clone(), it.file_length, media) };
    if it.gif_playback == Some(true) {
        body.extra.put("gif", true);
    }
    body
}

struct Handle<'a> {
    kind: &'static str,
    mime_type: Option<&'a str>,
    file_length: Option<u64>,
    file_sha256: Option<&'a [u8]>,
    file_enc_sha256: Option<&'a [u8]>,
    media_key: Option<&'a [u8]>,
    direct_path: Option<&'a str>,
}

impl Handle<'_> {
    fn data(&self) -> Data {
        let mut data = Data::default();
        data.put("kind", self.kind);
        data.put_text("mime_type", self.mime_type);
        data.put_some("file_size", self.file_length);
        data.put_some("sha256", self.file_sha256.map(hex));
        let mut handle = Data::default();
        handle.put_text("direct_path", self.direct_path);
        handle.put_some("media_key", self.media_key.map(|bytes| STANDARD.encode(bytes)));
        handle.put_some("file_sha256", self.file_sha256.map(|bytes| STANDARD.encode(bytes)));
        handle.put_some("file_enc_sha256", self.file_enc_sha256.map(|bytes| STANDARD.encode(bytes)));
        handle.put_some("file_length", self.file_length);
        if !handle.is_empty() {
            data.put("handle", handle);
        }
        data
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
