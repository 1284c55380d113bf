//! Kero-Kero's WebSocket: `{type, payload}` frames, with what its own lacked: a key, pings, and a bound on slow clients.

use super::Line;
use crate::wire::socket::{self, Frame};
use futures_util::{SinkExt, StreamExt};
use kero_gateway::Ended;
use poem::web::websocket::{CloseCode, Message, WebSocket, WebSocketConfig, WebSocketStream};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaResponse, MetaResponses, Registry};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The largest frame that is taken from a client, which has nothing to say.
const LARGEST: usize = 4096;
/// Pings that may stay unanswered.
const PATIENCE: u32 = 2;

/// A connection that becomes a WebSocket.
pub(crate) struct Upgraded(Response);

impl Upgraded {
    pub fn new(socket: WebSocket, line: Line) -> Self {
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        Self(socket.config(config).on_upgrade(|stream| serve(stream, line)).into_response())
    }
}

impl IntoResponse for Upgraded {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Upgraded {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The connection is a WebSocket from here on.",
                status: Some(101),
                status_range: None,
                content: Vec::new(),
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

/// Why the gateway closes a socket.
enum Close {
    Stopping,
    KeyRevoked,
    Deleted,
    Silent,
    Gone,
    Failed,
}

impl From<Ended> for Close {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Deleted => Self::Deleted,
            Ended::Stopping => Self::Stopping,
            Ended::Gone(_) => Self::Gone,
            Ended::Failed(_) => Self::Failed,
        }
    }
}

impl Close {
    fn frame(&self) -> Message {
        let (code, why) = match self {
            Self::Stopping => (CloseCode::Away, "the gateway stops"),
            Self::KeyRevoked => (CloseCode::Reserved(4001), "the API key was revoked"),
            Self::Deleted => (CloseCode::Reserved(4004), "the instance was deleted"),
            Self::Silent => (CloseCode::Reserved(4008), "no answer to a ping"),
            Self::Gone => (CloseCode::Reserved(4010), "the next event is no longer kept"),
            Self::Failed => (CloseCode::Error, "the database does not answer"),
        };
        Message::Close(Some((code, why.to_owned())))
    }
}

/// Serves until the client leaves, or there is a reason to close. A write that gets no further ends it too: the
/// connection itself gives up (`http.write_timeout`).
async fn serve(mut stream: WebSocketStream, line: Line) {
    if let Ok(Some(close)) = carry(&mut stream, line).await {
        let _ = stream.send(close.frame()).await;
        // the client's own close frame, or its end
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), async {
            while let Some(Ok(_)) = stream.next().await {}
        })
        .await;
    }
}

/// `None` when the client left.
async fn carry(stream: &mut WebSocketStream, mut line: Line) -> std::io::Result<Option<Close>> {
    for frame in now(&line).await {
        stream.send(frame.message()).await?;
    }
    let mut beat = interval_at(Instant::now() + line.heartbeat, line.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = line.stopping.clone();
    let mut unanswered = 0;
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(Some(Close::Stopping)),
            heard = stream.next() => match heard {
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => unanswered = 0,
                Some(Err(error)) => return Err(error),
            },
            _ = beat.tick() => {
                if unanswered >= PATIENCE {
                    return Ok(Some(Close::Silent));
                }
                if !line.counts().await {
                    return Ok(Some(Close::KeyRevoked));
                }
                unanswered += 1;
                stream.send(Message::Ping(Vec::new())).await?;
            }
            found = line.follower.next() => match found {
                Ok(events) => {
                    for event in events {
                        stream.feed(socket::frame(event).message()).await?;
                    }
                    stream.flush().await?;
                }
                Err(ended) => return Ok(Some(ended.into())),
            },
        }
    }
}

/// What a client that has just come must know.
async fn now(line: &Line) -> Vec<Frame> {
    let id = line.follower.instance_id();
    let Ok(gateway) = line.handle.gateway() else { return Vec::new() };
    let status = gateway.status(id).await.ok().map(|view| socket::status_now(id, &view));
    let qr = gateway.current_qr(id).map(|qr| socket::qr_now(id, &qr));
    status.into_iter().chain(qr).collect()
}

impl Frame {
    fn message(&self) -> Message {
        Message::Text(self.text())
    }
}
