//! The log of deliveries: what was tried, what came of it, and once more.

use crate::auth::Caller;
use crate::handle::Handle;
use crate::page;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::delivery::{Delivery, DeliveryDetail};
use crate::wire::words::{DeliveryState, EventKind};
use crate::wire::{Data, Page};
use kero_domain::{EndpointId, FaultCode};
use kero_store::DeliveryFilter;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

pub(crate) struct DeliveriesApi {
    pub handle: Handle,
}

codes! {
    DeliveryCodes = [DeliveryNotFound];
}

#[OpenApi(tag = "Tag::Deliveries")]
impl DeliveriesApi {
    /// List deliveries
    ///
    /// Newest first: one for every event and endpoint, with what came back the last time. Search by `message_id` to see
    /// who was told of a message.
    #[oai(path = "/instances/:instance_id/deliveries", method = "get", operation_id = "delivery_list")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// Only deliveries in this state; give it several times for several states.
        state: Query<Vec<DeliveryState>>,
        /// Only deliveries to this endpoint.
        endpoint_id: Query<Option<String>>,
        /// Only deliveries of this kind of event.
        event: Query<Option<EventKind>>,
        /// Only deliveries of events about this message (WhatsApp's id).
        message_id: Query<Option<String>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<Delivery>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let before = page::decode(cursor.0.as_deref())?;
        let endpoint = endpoint_id.0.map(|text| text.parse::<EndpointId>());
        let filter = DeliveryFilter {
            states: state.0.into_iter().map(Into::into).collect(),
            endpoint: endpoint.transpose().map_err(|_| page::parameter("endpoint_id", "is no endpoint's id."))?,
            event: event.0.map(Into::into),
            message_id: message_id.0.filter(|text| !text.is_empty()),
        };
        let found = gateway.deliveries(&id, &filter, before, limit.0).await?;
        let next = page::next(&found, limit.0, |line| line.id);
        Ok(Json(Page::new(found.into_iter().map(Delivery::from).collect(), None, next)))
    }

    /// Get a delivery
    ///
    /// With every try: number, status, times, the head of the answer, and when the next one is due.
    #[oai(path = "/instances/:instance_id/deliveries/:delivery_id", method = "get", operation_id = "delivery_get")]
    async fn get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The delivery's id.
        delivery_id: Path<String>,
    ) -> Result<Json<Data<DeliveryDetail>>, Failure<DeliveryCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.instance(&id).await?;
        let delivery = delivery_id.parse().map_err(|_| FaultCode::DeliveryNotFound)?;
        Ok(Json(Data::new(DeliveryDetail::new(gateway.delivery(&id, delivery).await?))))
    }

    /// Replay a delivery
    ///
    /// It goes out again now, under the same `webhook-id` and with the same body, whatever became of it; its retry
    /// schedule begins anew. An endpoint that is left alone, because it only failed, is asked at once; a disabled one gets
    /// it when it is enabled.
    #[oai(
        path = "/instances/:instance_id/deliveries/:delivery_id/replay",
        method = "post",
        operation_id = "delivery_replay"
    )]
    async fn replay(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The delivery's id.
        delivery_id: Path<String>,
    ) -> Result<Json<Data<DeliveryDetail>>, Failure<DeliveryCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.instance(&id).await?;
        let delivery = delivery_id.parse().map_err(|_| FaultCode::DeliveryNotFound)?;
        Ok(Json(Data::new(DeliveryDetail::new(gateway.replay_delivery(&id, delivery).await?))))
    }
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}
