//! Server-sent events: the text format, made part by part as the client reads.

use super::Line;
use crate::wire::event::Event;
use bytes::Bytes;
use futures_util::stream;
use poem::http::{HeaderValue, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ToJSON, Type};
use std::fmt::Write;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How long a browser waits before it comes back.
const RETRY_MS: u32 = 3000;

const CONTENT_TYPE: &str = "text/event-stream";

/// An open stream.
pub(crate) struct Sent(Line);

impl Sent {
    pub fn new(line: Line) -> Self {
        Self(line)
    }
}

struct State {
    line: Line,
    beat: Interval,
    /// The place that the client knows of.
    told: i64,
    opened: bool,
}

/// One event. JSON has no line ends, so its data is one line.
fn write(text: &mut String, seq: i64, event: Event) {
    let kind = event.event.to_json();
    let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let _ = write!(text, "id: {seq}\nevent: {kind}\ndata: {}\n\n", event.to_json_string());
}

async fn next(mut state: State) -> Option<(std::io::Result<Bytes>, State)> {
    if !state.opened {
        state.opened = true;
        // the place to come back to, also when nothing follows
        let text = format!("retry: {RETRY_MS}\nid: {}\n\n", state.told);
        return Some((Ok(text.into()), state));
    }
    let mut text = String::new();
    tokio::select! {
        biased;
        () = state.line.stopping.cancelled() => return None,
        found = state.line.follower.next() => {
            for event in found.ok()? {
                let seq = event.seq.unwrap_or_default();
                if let Some(event) = Event::new(event) {
                    write(&mut text, seq, event);
                }
            }
            state.told = state.line.follower.cursor();
        }
        _ = state.beat.tick() => {
            if !state.line.counts().await {
                return None;
            }
            let cursor = state.line.follower.cursor();
            // an id without data moves the place to come back to, past what was not asked for
            text = if cursor == state.told { ":\n\n".to_owned() } else { format!("id: {cursor}\n\n") };
            state.told = cursor;
        }
    }
    Some((Ok(text.into()), state))
}

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        let line = self.0;
        let mut beat = interval_at(Instant::now() + line.heartbeat, line.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let told = line.follower.cursor();
        let chunks = stream::unfold(State { line, beat, told, opened: false }, next);
        Response::builder()
            .header(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))
            .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            // nginx would hold it back
            .header("X-Accel-Buffering", HeaderValue::from_static("no"))
            .body(Body::from_bytes_stream(chunks))
    }
}

impl ApiResponse for Sent {
    fn meta() -> MetaResponses {
        let schema = MetaSchema {
            description: Some("Server-sent events; `data` of each is an `Event`."),
            ..MetaSchema::new("string")
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The stream. It has no end but the client's, the instance's or the gateway's.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: CONTENT_TYPE,
                    schema: MetaSchemaRef::Inline(Box::new(schema)),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        Event::register(registry);
    }
}
