//! Kero's flat message members as Baileys' message objects.

use crate::text;
use serde_json::{Map, Value, json};

/// The `messageType` and the `message` of a message.
pub(crate) fn of(data: &Value) -> (&'static str, Value) {
    let kind = match text(data, "message_type").unwrap_or("unknown") {
        "text" if data.get("quoted").is_none() && data.get("mentions").is_none() => {
            return ("conversation", json!({"conversation": text(data, "text").unwrap_or_default()}));
        }
        "text" => {
            let content = json!({"text": text(data, "text").unwrap_or_default()});
            return ("extendedTextMessage", json!({"extendedTextMessage": content}));
        }
        "image" => "imageMessage",
        "video" => "videoMessage",
        "audio" => "audioMessage",
        "document" => "documentMessage",
        "sticker" => "stickerMessage",
        "location" => return ("locationMessage", json!({"locationMessage": location(data)})),
        "contact" => {
            return ("contactMessage", json!({"contactMessage": data.get("contact").cloned().unwrap_or_default()}));
        }
        _ => return ("unknown", json!({"unknown": data})),
    };
    (kind, json!({kind: media(data)}))
}

/// A reaction is a message in Evolution.
pub(crate) fn reaction(data: &Value) -> (&'static str, Value) {
    let emoji =
        text(data, "emoji").or_else(|| text(data, "reaction")).or_else(|| text(data, "text")).unwrap_or_default();
    let content = json!({"key": crate::key(data, "target_message_id"), "text": emoji});
    ("reactionMessage", json!({"reactionMessage": content}))
}

/// What a message refers to.
pub(crate) fn context(data: &Value) -> Option<Value> {
    let mut context = Map::new();
    if let Some(quoted) = data.get("quoted") {
        context.insert("stanzaId".into(), quoted.get("message_id").cloned().unwrap_or_default());
        if let Some(sender) = text(quoted, "sender") {
            context.insert("participant".into(), sender.into());
        }
        if let Some(words) = text(quoted, "text") {
            context.insert("quotedMessage".into(), json!({"conversation": words}));
        }
    }
    if let Some(mentions) = data.get("mentions") {
        context.insert("mentionedJid".into(), mentions.clone());
    }
    (!context.is_empty()).then_some(Value::Object(context))
}

fn media(data: &Value) -> Value {
    let mut media = Map::new();
    for (theirs, ours) in
        [("caption", "caption"), ("mimetype", "mime_type"), ("fileName", "file_name"), ("url", "media_url")]
    {
        if let Some(value) = text(data, ours) {
            media.insert(theirs.into(), value.into());
        }
    }
    if let Some(size) = data.get("file_size").and_then(Value::as_u64) {
        // Baileys' longs are strings in JSON
        media.insert("fileLength".into(), size.to_string().into());
    }
    if data.get("voice_note").and_then(Value::as_bool) == Some(true) {
        media.insert("ptt".into(), true.into());
    }
    Value::Object(media)
}

fn location(data: &Value) -> Value {
    let number = |member: &str| match data.get(member) {
        Some(Value::String(text)) => text.parse::<f64>().ok(),
        Some(value) => value.as_f64(),
        None => None,
    };
    json!({
        "degreesLatitude": number("latitude"),
        "degreesLongitude": number("longitude"),
        "name": text(data, "location_name"),
        "address": text(data, "location_address"),
    })
}
