//! Inbound messages enter the journal here, before the client acknowledges them to WhatsApp.

use super::FanOutHandle;
use crate::{Gateway, crash};
use async_trait::async_trait;
use kero_domain::NewEvent;
use kero_store::{Store, StoreError};
use kero_whatsapp::{Inbound, InboundMessage};

/// The durable commit behind the client's durability hook. Nothing else runs in it.
pub(crate) struct Journal {
    store: Store,
    instance_pk: i64,
    epoch: i64,
    fanout: FanOutHandle,
    keep_raw: bool,
}

impl Journal {
    pub(crate) fn new(gateway: &Gateway, instance_pk: i64, epoch: i64) -> Self {
        Self {
            store: gateway.store().clone(),
            instance_pk,
            epoch,
            fanout: gateway.inner.fanout.clone(),
            keep_raw: gateway.config().keep_raw,
        }
    }
}

#[async_trait]
impl Inbound for Journal {
    async fn commit(&self, batch: Vec<InboundMessage>) -> Result<(), StoreError> {
        let stored =
            |message: InboundMessage| NewEvent { raw: message.event.raw.filter(|_| self.keep_raw), ..message.event };
        let events = batch.into_iter().map(stored).collect();
        crash::point("before_event");
        self.store.append_events(self.instance_pk, self.epoch, events).await?;
        crash::point("after_event");
        self.fanout.dirty(self.instance_pk);
        Ok(())
    }
}
