//! The journal of an instance's events.

use crate::auth::Caller;
use crate::handle::Handle;
use crate::page;
use crate::problem::Failure;
use crate::tags::Tag;
use crate::wire::Page;
use crate::wire::event::Event;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

pub(crate) struct EventsApi {
    pub handle: Handle,
}

#[OpenApi(tag = "Tag::Events")]
impl EventsApi {
    /// Read events
    ///
    /// In order, from the one behind `after`: what a webhook gets, without one, or to catch up. The place of the last
    /// event that you have is the `after` of the next request; `next_cursor` is the same number, there only when more
    /// may be waiting.
    #[oai(path = "/instances/:instance_id/events", method = "get", operation_id = "event_list")]
    async fn list(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The `seq` of the last event that you have; 0 for the first.
        #[oai(default, validator(minimum(value = "0")))]
        after: Query<i64>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
    ) -> Result<Json<Page<Event>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let events = gateway.events_after(&id, after.0, limit.0).await?;
        let full = u64::try_from(events.len()).is_ok_and(|count| count >= limit.0);
        let last = events.last().and_then(|event| event.seq).filter(|_| full);
        let data = events.into_iter().filter_map(Event::new).collect();
        Ok(Json(Page::new(data, None, last.map(|seq| seq.to_string()))))
    }
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}
