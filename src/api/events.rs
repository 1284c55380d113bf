//! The journal of an instance's events: in parts, one, and tokens for streams.

use crate::auth::Caller;
use crate::handle::Handle;
use crate::page;
use crate::problem::{Failure, codes};
use crate::stream::Tickets;
use crate::tags::Tag;
use crate::wire::event::{Event, Include, StreamToken};
use crate::wire::{Data, Page};
use kero_domain::endpoint::EventFilter;
use kero_domain::{EventId, Fault, FaultCode};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};
use uuid::Uuid;

pub(crate) struct EventsApi {
    pub handle: Handle,
    pub tickets: Tickets,
}

codes! {
    ListCodes = [Gone];
    EventCodes = [EventNotFound];
    TokenCodes = [TooManyRequests];
}

#[derive(ApiResponse)]
enum TokenReply {
    /// The token. It is shown this once.
    #[oai(status = 201)]
    Created(Json<Data<StreamToken>>),
}

/// `message,call`, `all` or `*`.
pub(crate) fn filter(names: Option<&str>, otherwise: EventFilter) -> Result<EventFilter, Fault> {
    let names: Vec<String> = names
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        return Ok(otherwise);
    }
    EventFilter::try_from(names).map_err(|_| page::parameter("events", "names a kind of event that does not exist."))
}

#[OpenApi(tag = "Tag::Events")]
impl EventsApi {
    /// Read events
    ///
    /// In order, from the one behind `after`: what a webhook gets, without one, or to catch up. The place of the last
    /// event that you have is the `after` of the next request; `next_cursor` is the place to read on from, there only
    /// when more is there already. With `events`, a part may be empty and still have a `next_cursor`.
    ///
    /// Events are kept for a while (`retention.events`). When the next one is not kept any longer, the answer is `410` `gone`, with the first
    /// one that is as `oldest_seq`: nothing is left out silently. An `after` that the instance has not reached is refused.
    #[oai(path = "/instances/:instance_id/events", method = "get", operation_id = "event_list")]
    async fn list(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The `seq` of the last event that you have; without it, from the first one that is kept.
        #[oai(validator(minimum(value = "0")))]
        after: Query<Option<i64>>,
        /// Only events of these kinds, comma-separated (`message,call`); `all` or nothing for every kind.
        events: Query<Option<String>>,
        /// `raw`: with each message as WhatsApp sent it, where it was kept (`events.keep_raw`) and no hook changed it.
        include: Query<Option<Include>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
    ) -> Result<Json<Page<Event>>, Failure<ListCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let events = filter(events.0.as_deref(), EventFilter::All)?;
        let page = gateway.read_events(&id, after.0, &events, limit.0, include.0.is_some()).await?;
        let data = page.events.into_iter().filter_map(Event::new).collect();
        Ok(Json(Page::new(data, None, page.next.map(|seq| seq.to_string()))))
    }

    /// Get an event
    ///
    /// The whole event; where a webhook was too large and came `truncated`, what it left out.
    #[oai(path = "/instances/:instance_id/events/:event_id", method = "get", operation_id = "event_get")]
    async fn get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The event's `id`.
        event_id: Path<String>,
        /// `raw`: with the message as WhatsApp sent it.
        include: Query<Option<Include>>,
    ) -> Result<Json<Data<Event>>, Failure<EventCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        // what is no id is the id of no event
        let event: Uuid = event_id.parse().unwrap_or_default();
        let event = gateway.event(&id, EventId(event), include.0.is_some()).await?;
        let event = Event::new(event).ok_or_else(|| Fault::from(FaultCode::EventNotFound))?;
        Ok(Json(Data::new(event)))
    }

    /// Create a stream token
    ///
    /// For clients that cannot send headers, browsers above all: it opens one stream (`…/events/stream?token=…` or
    /// `…/ws?token=…`) of this instance, once, within a minute. Create one for every connection.
    #[oai(path = "/instances/:instance_id/events/token", method = "post", operation_id = "event_token_create")]
    async fn token(&self, caller: Caller, instance_id: Path<String>) -> Result<TokenReply, Failure<TokenCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.instance(&id).await?;
        let (token, expires_at) = self.tickets.issue(caller, id)?;
        Ok(TokenReply::Created(Json(Data::new(StreamToken { token, expires_at: expires_at.into() }))))
    }
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use kero_domain::EventKind;

    #[test]
    fn filters_are_lists_of_names() {
        let of = |names: &str| filter(Some(names), EventFilter::All);
        assert_eq!(of("message, call,").unwrap(), EventFilter::Only(vec![EventKind::Message, EventKind::Call]));
        assert_eq!(of("message,*").unwrap(), EventFilter::All);
        assert_eq!(of(" ").unwrap(), EventFilter::All);
        assert_eq!(of("nonsense").unwrap_err().code, FaultCode::ValidationFailed);
        assert_eq!(filter(None, EventFilter::default()).unwrap(), EventFilter::default());
    }
}
