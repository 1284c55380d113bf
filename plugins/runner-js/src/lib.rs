//! The component that runs plain `.js` hooks: QuickJS, our prelude, and the hook's source as the host gives it.
//!
//! One instance runs one script. The script is read at the first call and kept, so a reused instance parses it once.

mod engine;
mod natives;

wit_bindgen::generate!({ path: "../wit/0.1.0", world: "scripted" });

use exports::kero::plugin::{on_delivery, on_event, on_script};
use kero::plugin::types::{Body, Context, Event, HookError};

struct Runner;
export!(Runner);

impl on_event::Guest for Runner {
    fn handle(context: Context, event: Event) -> Result<on_event::Verdict, HookError> {
        let answer = engine::call("handle", &[context_json(&context), event_json(&event)])?;
        let mut answer = answer.into_iter();
        let word = answer.next().unwrap_or_default();
        let mut text = || answer.next().unwrap_or_default();
        Ok(match word.as_str() {
            "pass" => on_event::Verdict::Pass,
            "drop" => on_event::Verdict::Drop(text()),
            "replace" => match text() {
                same if same == event.data => on_event::Verdict::Pass,
                data => on_event::Verdict::Replace(data),
            },
            _ => {
                let data = text();
                let data = (!data.is_empty()).then_some(data);
                on_event::Verdict::Route(on_event::Routing { endpoints: answer.collect(), data })
            }
        })
    }
}

impl on_delivery::Guest for Runner {
    fn shape(context: Context, event: Event, request: on_delivery::Request) -> Result<on_delivery::Request, HookError> {
        let arguments = [context_json(&context), event_json(&event), request_json(&request)];
        let mut answer = engine::call("shape", &arguments)?.into_iter();
        let mut next = || answer.next().unwrap_or_default();
        let (method, path, body) = (next(), next(), next());
        let rest: Vec<String> = answer.collect();
        let headers =
            rest.chunks_exact(2).map(|pair| on_delivery::Header { name: pair[0].clone(), value: pair[1].clone() });
        Ok(on_delivery::Request { method, path, headers: headers.collect(), body: body.into_bytes() })
    }

    fn judge(
        context: Context,
        request: on_delivery::Request,
        response: on_delivery::Response,
        usual: on_delivery::Judgement,
    ) -> Result<on_delivery::Judgement, HookError> {
        let response = format!(
            r#"{{"status":{},"headers":{},"body":{}}}"#,
            response.status,
            headers_json(&response.headers),
            quote(&String::from_utf8_lossy(&response.body)),
        );
        let word = match &usual {
            on_delivery::Judgement::Success => r#"["success"]"#.to_owned(),
            on_delivery::Judgement::Retry(None) => r#"["retry"]"#.to_owned(),
            on_delivery::Judgement::Retry(Some(after)) => format!(r#"["retry",{after}]"#),
            on_delivery::Judgement::Dead(reason) => format!(r#"["dead",{}]"#, quote(reason)),
        };
        let mut answer =
            engine::call("judge", &[context_json(&context), request_json(&request), response, word])?.into_iter();
        let (word, detail) = (answer.next().unwrap_or_default(), answer.next());
        Ok(match word.as_str() {
            "success" => on_delivery::Judgement::Success,
            "dead" => on_delivery::Judgement::Dead(detail.unwrap_or_default()),
            _ => on_delivery::Judgement::Retry(detail.and_then(|seconds| seconds.parse().ok())),
        })
    }
}

impl on_script::Guest for Runner {
    fn exports() -> Result<Vec<String>, String> {
        engine::call("exports", &[]).map_err(|error| match error {
            HookError::Retry(why) | HookError::Reject(why) => why,
        })
    }
}

/// A JSON string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| *byte < b' ' || matches!(byte, b'"' | b'\\')) {
        out.push_str(&text[from..at]);
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            _ => out.push_str(&format!("\\u{byte:04x}")),
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
    out
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quote)
}

fn context_json(context: &Context) -> String {
    format!(
        r#"{{"plugin":{},"version":{},"endpoint":{},"dryRun":{}}}"#,
        quote(&context.plugin),
        quote(&context.version),
        optional(context.endpoint.as_deref()),
        context.dry_run,
    )
}

/// The event as scripts see it. `data` goes in as it came, so it is parsed once, by the script's engine.
fn event_json(event: &Event) -> String {
    let typed = match &event.body {
        Body::Message(it) => format!(
            r#""message":{{"id":{},"chat":{},"sender":{},"fromMe":{},"isGroup":{},"kind":{},"text":{},"replyTo":{}}},"#,
            quote(&it.id),
            quote(&it.chat),
            quote(&it.sender),
            it.from_me,
            it.is_group,
            quote(&it.kind),
            optional(it.text.as_deref()),
            optional(it.reply_to.as_deref()),
        ),
        Body::MessageAck(it) => format!(
            r#""ack":{{"status":"{}","correlationId":{},"messageId":{},"error":{}}},"#,
            match it.status {
                kero::plugin::types::AckStatus::Sent => "sent",
                kero::plugin::types::AckStatus::Failed => "failed",
                kero::plugin::types::AckStatus::Cancelled => "cancelled",
            },
            quote(&it.correlation_id),
            optional(it.message_id.as_deref()),
            optional(it.error.as_deref()),
        ),
        Body::Receipt(it) => format!(
            r#""receipt":{{"chat":{},"sender":{},"kind":{},"ids":[{}]}},"#,
            quote(&it.chat),
            quote(&it.sender),
            quote(&it.kind),
            it.ids.iter().map(|id| quote(id)).collect::<Vec<_>>().join(","),
        ),
        Body::Other => String::new(),
    };
    format!(
        r#"{{"id":{},"name":{},"instance":{},"timestamp":{},{typed}"data":{}}}"#,
        quote(&event.id),
        quote(&event.name),
        quote(&event.instance),
        event.timestamp_ms,
        event.data,
    )
}

fn headers_json(headers: &[kero::plugin::types::Header]) -> String {
    let pairs = headers.iter().map(|header| format!("[{},{}]", quote(&header.name), quote(&header.value)));
    format!("[{}]", pairs.collect::<Vec<_>>().join(","))
}

fn request_json(request: &on_delivery::Request) -> String {
    format!(
        r#"{{"method":{},"path":{},"headers":{},"body":{}}}"#,
        quote(&request.method),
        quote(&request.path),
        headers_json(&request.headers),
        quote(&String::from_utf8_lossy(&request.body)),
    )
}
