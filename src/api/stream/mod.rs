//! Events as they come: server-sent events, and Kero-Kero's WebSocket.
//!
//! Both follow the journal in the database and are only woken by what is new, so a client that is slow, or away for a
//! while, misses nothing and costs no memory: it catches up from its place.

mod sent;
mod socket;
mod tickets;

pub(crate) use tickets::{StreamCaller, Tickets};

use crate::auth::Caller;
use crate::config::ApiConfig;
use crate::events::filter;
use crate::handle::Handle;
use crate::page;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::event::Include;
use kero_domain::endpoint::EventFilter;
use kero_domain::{EventKind, Fault, FaultCode};
use kero_gateway::{Follow, Follower};
use poem::web::websocket::WebSocket;
use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path, Query};
use sent::Sent;
use socket::Upgraded;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

codes! {
    StreamCodes = [Gone, TooManyRequests];
    SocketCodes = [BadRequest, Gone, TooManyRequests];
}

pub(crate) struct StreamApi {
    handle: Handle,
    heartbeat: Duration,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// What both kinds of streams stand on.
struct Line {
    handle: Handle,
    caller: Caller,
    follower: Follower,
    heartbeat: Duration,
    stopping: CancellationToken,
    /// Held as long as the stream is open.
    _place: OwnedSemaphorePermit,
}

impl Line {
    /// Whether the key that opened the stream still counts. While the database does not answer, it does.
    async fn counts(&self) -> bool {
        let key = self.caller.key();
        if key.0 == Uuid::nil() {
            return true;
        }
        match self.handle.gateway() {
            Ok(gateway) => gateway.store().key_counts(key).await.unwrap_or(true),
            Err(_) => false,
        }
    }
}

impl StreamApi {
    pub fn new(handle: Handle, config: &ApiConfig) -> Self {
        Self {
            handle,
            heartbeat: config.heartbeat,
            places: Arc::new(Semaphore::new(config.max_streams)),
            stopping: config.shutting_down.clone(),
        }
    }

    async fn line(&self, caller: StreamCaller, instance_id: &str, follow: Follow) -> Result<Line, Fault> {
        let (gateway, id) = caller.at(&self.handle, instance_id)?;
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Fault::new(FaultCode::TooManyRequests).with_detail("Too many streams are open.").retry_after(10)
        })?;
        Ok(Line {
            handle: self.handle.clone(),
            caller: caller.caller,
            follower: gateway.follow_events(&id, follow).await?,
            heartbeat: self.heartbeat,
            stopping: self.stopping.clone(),
            _place: place,
        })
    }
}

/// The four kinds that Kero-Kero's socket has.
fn socket_events() -> EventFilter {
    EventFilter::Only(vec![EventKind::Message, EventKind::Status, EventKind::Pairing, EventKind::Presence])
}

#[OpenApi(tag = "Tag::Events")]
impl StreamApi {
    /// Follow events
    ///
    /// Server-sent events (`text/event-stream`): each has the event's kind as `event`, its `seq` as `id` and the whole
    /// event as `data`. A comment comes every few seconds while nothing else does.
    ///
    /// A client that comes back sends the last `id` as `Last-Event-ID` (browsers do that by themselves) and gets what it
    /// missed first. It may be as slow as it likes: events wait in the journal. When the next one is no longer kept, the
    /// answer is `410`, with `oldest_seq`.
    ///
    /// Browsers cannot send an API key here: get a token first, open `…/events/stream?token=…`, and on an error get
    /// another one and go on with `after`.
    // hidden, like the socket below: no document can describe an answer without an end, and generated clients, which read
    // answers whole, would wait for ever; the document's introduction and the README name both
    #[oai(path = "/instances/:instance_id/events/stream", method = "get", operation_id = "event_stream", hidden)]
    #[allow(clippy::too_many_arguments)]
    async fn stream(
        &self,
        caller: StreamCaller,
        instance_id: Path<String>,
        /// The `seq` of the last event that you have. Without it, what comes from now on.
        #[oai(validator(minimum(value = "0")))]
        after: Query<Option<i64>>,
        /// The same, as browsers send it when they come back; it wins.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
        /// Only events of these kinds, comma-separated; `all` or nothing for every kind.
        events: Query<Option<String>>,
        /// `raw`: with each message as WhatsApp sent it.
        include: Query<Option<Include>>,
    ) -> Result<Sent, Failure<StreamCodes>> {
        let after = match last_event_id.0.as_deref().map(str::trim).filter(|id| !id.is_empty()) {
            Some(id) => {
                let seq = id.parse().ok().filter(|seq| *seq >= 0);
                Some(seq.ok_or_else(|| page::parameter("Last-Event-ID", "is not the id of an event."))?)
            }
            None => after.0,
        };
        let events = filter(events.0.as_deref(), EventFilter::All)?;
        let follow = Follow { after, events, raw: include.0.is_some() };
        Ok(Sent::new(self.line(caller, &instance_id, follow).await?))
    }

    /// Open a WebSocket
    ///
    /// Text frames `{"type", "payload"}`, from the gateway to the client only, as Kero-Kero has them:
    ///
    /// | type | payload |
    /// | --- | --- |
    /// | `qr` | `{instance_id, qr, expires_at}`: the raw text of the QR code to show |
    /// | `status` | `{instance_id, status, cause?, since}` |
    /// | `message` | `{instance_id, data}`, `data` as in the webhook |
    /// | `presence` | `{instance_id, data: {from, type, …}}` |
    /// | any other event | `{instance_id, data}`, when asked for with `events` |
    ///
    /// Where a frame is an event, its payload also has `id`, `seq` and `timestamp`; come back with `after` and nothing is
    /// missed. The first frames say what is now: `status`, and `qr` while there is one.
    ///
    /// The gateway pings and drops a client that does not answer. Close codes: 1001 the gateway stops, 4001 the API key
    /// was revoked, 4004 the instance was deleted, 4008 no answer to a ping, 4010 the next event is no longer kept, 1011
    /// the database does not answer.
    #[oai(path = "/instances/:instance_id/ws", method = "get", operation_id = "socket_open", hidden)]
    async fn socket(
        &self,
        caller: StreamCaller,
        instance_id: Path<String>,
        /// The `seq` of the last event that you have. Without it, what comes from now on.
        #[oai(validator(minimum(value = "0")))]
        after: Query<Option<i64>>,
        /// Events of these kinds, comma-separated, or `all`. Without it, `message`, `status`, `pairing`, `presence`.
        events: Query<Option<String>>,
        socket: poem::Result<WebSocket>,
    ) -> Result<Upgraded, Failure<SocketCodes>> {
        let events = filter(events.0.as_deref(), socket_events())?;
        let follow = Follow { after: after.0, events, raw: false };
        let (gateway, id) = caller.at(&self.handle, &instance_id)?;
        gateway.instance(&id).await?;
        let socket = socket.map_err(|_| {
            Fault::new(FaultCode::BadRequest).with_detail("This path takes a WebSocket's handshake only.")
        })?;
        let line = self.line(caller, &instance_id, follow).await?;
        Ok(Upgraded::new(socket, line))
    }
}
