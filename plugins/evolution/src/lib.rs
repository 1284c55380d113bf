//! Speaks Evolution API's webhooks: an endpoint written for Evolution v2 (most public n8n flows are) needs no change.
//!
//! Known differences: one webhook per receipt, with all of its messages in `ids`; `status` of an incoming message is
//! always `DELIVERY_ACK`; media come as Evolution's members without the download keys, since Kero keeps the media.

mod content;
mod time;

use kero_plugin::{Context, Event, Failure, Request};
use serde::Deserialize;
use serde_json::{Map, Value, json};

kero_plugin::delivery!(shape);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Append the event's name to the path, as Evolution's `webhook_by_events` does.
    by_events: bool,
    /// The `server_url` that flows answer to.
    server_url: Option<String>,
    /// A key with the scope to answer, never an administrator's.
    apikey: Option<String>,
    /// This account's own address.
    sender: Option<String>,
}

fn shape(event: Event, mut request: Request, _: Context) -> Result<Request, Failure> {
    let settings: Settings = kero_plugin::config()?;
    let data = kero_plugin::data(&event)?;
    let (name, payload) = translate(&event, &data);
    let mut body = Map::new();
    body.insert("event".into(), name.into());
    body.insert("instance".into(), event.instance.as_str().into());
    body.insert("data".into(), payload);
    body.insert("destination".into(), request.path.as_str().into());
    body.insert("date_time".into(), time::iso(event.timestamp_ms).into());
    for (member, value) in
        [("sender", &settings.sender), ("server_url", &settings.server_url), ("apikey", &settings.apikey)]
    {
        if let Some(value) = value {
            body.insert(member.into(), value.as_str().into());
        }
    }
    request.body = Value::Object(body).to_string().into_bytes();
    if settings.by_events {
        let (path, query) =
            request.path.split_once('?').map_or((request.path.as_str(), None), |(path, query)| (path, Some(query)));
        let path = format!("{}/{}", path.trim_end_matches('/'), name.replace(['.', '_'], "-"));
        request.path = query.map_or(path.clone(), |query| format!("{path}?{query}"));
    }
    Ok(request)
}

/// Evolution's name of an event, and its `data`.
fn translate(event: &Event, data: &Value) -> (&'static str, Value) {
    match event.name.as_str() {
        "message" => ("messages.upsert", message(event, data, content::of(data))),
        "reaction" => ("messages.upsert", message(event, data, content::reaction(data))),
        "message_edit" => ("messages.edited", message(event, data, content::of(data))),
        "message_revoke" => ("messages.delete", key(data, "target_message_id")),
        "message_ack" => ("messages.update", ack(event, data)),
        "receipt" => ("messages.update", receipt(event, data)),
        "status" => ("connection.update", connection(event, data)),
        "pairing" => ("qrcode.updated", pairing(event, data)),
        "presence" => ("presence.update", presence(data)),
        "call" => ("call", data.clone()),
        "group" => ("groups.update", data.clone()),
        "contact" => ("contacts.update", data.clone()),
        "chat" => ("chats.update", data.clone()),
        "label" => ("labels.edit", data.clone()),
        _ => ("kero.event", json!({"name": event.name, "data": data})),
    }
}

fn text<'a>(data: &'a Value, member: &str) -> Option<&'a str> {
    data.get(member).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Baileys' message key, with both addresses of a private chat when they are known.
fn key(data: &Value, id: &str) -> Value {
    let chat = text(data, "chat").or_else(|| text(data, "to")).unwrap_or_default();
    let mut key = Map::new();
    key.insert("remoteJid".into(), chat.into());
    key.insert("fromMe".into(), data.get("is_from_me").and_then(Value::as_bool).unwrap_or(false).into());
    key.insert("id".into(), text(data, id).unwrap_or_default().into());
    if data.get("is_group").and_then(Value::as_bool) == Some(true) {
        key.insert("participant".into(), text(data, "from").unwrap_or_default().into());
    } else if let Some(identity) = data.get("chat_identity") {
        let lid = chat.ends_with("@lid");
        let (other, server) = if lid { ("phone", "s.whatsapp.net") } else { ("lid", "lid") };
        if let Some(other) = text(identity, other) {
            let other = other.trim_start_matches('+');
            let address = if other.contains('@') { other.to_owned() } else { format!("{other}@{server}") };
            key.insert("remoteJidAlt".into(), address.into());
        }
        key.insert("addressingMode".into(), if lid { "lid" } else { "pn" }.into());
    }
    Value::Object(key)
}

fn message(event: &Event, data: &Value, (kind, content): (&str, Value)) -> Value {
    let mut out = Map::new();
    out.insert("key".into(), key(data, "message_id"));
    if let Some(name) = text(data, "sender_name") {
        out.insert("pushName".into(), name.into());
    }
    out.insert("status".into(), "DELIVERY_ACK".into());
    out.insert("message".into(), content);
    if let Some(context) = content::context(data) {
        out.insert("contextInfo".into(), context);
    }
    out.insert("messageType".into(), kind.into());
    let seconds = data.get("timestamp").and_then(Value::as_u64).unwrap_or(event.timestamp_ms / 1000);
    out.insert("messageTimestamp".into(), seconds.into());
    out.insert("instanceId".into(), event.instance.as_str().into());
    out.insert("source".into(), text(data, "source").unwrap_or("unknown").into());
    Value::Object(out)
}

fn ack(event: &Event, data: &Value) -> Value {
    let status = if text(data, "status") == Some("sent") { "SERVER_ACK" } else { "ERROR" };
    let mut out = json!({
        "keyId": text(data, "message_id"),
        "fromMe": true,
        "status": status,
        "instanceId": event.instance,
        "correlationId": text(data, "correlation_id"),
    });
    if let Some(error) = text(data, "error") {
        out["error"] = error.into();
    }
    out
}

fn receipt(event: &Event, data: &Value) -> Value {
    let status = match text(data, "type").unwrap_or("delivered") {
        "read" | "read-self" => "READ",
        "played" | "played-self" => "PLAYED",
        _ => "DELIVERY_ACK",
    };
    json!({
        "keyId": text(data, "message_id"),
        "ids": data.get("ids"),
        "remoteJid": text(data, "chat").or_else(|| text(data, "from")),
        "fromMe": true,
        "participant": text(data, "from"),
        "status": status,
        "instanceId": event.instance,
    })
}

fn connection(event: &Event, data: &Value) -> Value {
    let (state, reason) = match text(data, "status").unwrap_or_default() {
        "connected" => ("open", 200),
        "connecting" => ("connecting", 200),
        "logged_out" => ("close", 401),
        _ => ("close", 428),
    };
    json!({"instance": event.instance, "state": state, "statusReason": reason})
}

fn pairing(event: &Event, data: &Value) -> Value {
    let code = text(data, "code");
    let (qr, pairing) = if text(data, "kind") == Some("code") { (None, code) } else { (code, None) };
    json!({"qrcode": {"instance": event.instance, "pairingCode": pairing, "code": qr}})
}

fn presence(data: &Value) -> Value {
    let from = text(data, "from").unwrap_or_default();
    let state = match (text(data, "state"), text(data, "media")) {
        (Some("composing"), Some("audio")) => "recording",
        (Some(state), _) => state,
        (None, _) => "unavailable",
    };
    json!({"id": from, "presences": {from: {"lastKnownPresence": state}}})
}
