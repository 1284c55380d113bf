//! Inbound messages enter the journal here, before the client acknowledges them to WhatsApp.

use super::FanOutHandle;
use crate::Gateway;
use async_trait::async_trait;
use kero_store::{Store, StoreError};
use kero_whatsapp::{Inbound, InboundMessage};

/// The durable commit behind the client's durability hook. Nothing else runs in it.
pub(crate) struct Journal {
    store: Store,
    instance_pk: i64,
    epoch: i64,
    fanout: FanOutHandle,
}

impl Journal {
    pub(crate) fn new(gateway: &Gateway, instance_pk: i64, epoch: i64) -> Self {
        Self { store: gateway.store().clone(), instance_pk, epoch, fanout: gateway.inner.fanout.clone() }
    }
}

#[async_trait]
impl Inbound for Journal {
    async fn commit(&self, batch: Vec<InboundMessage>) -> Result<(), StoreError> {
        let events = batch.into_iter().map(|message| message.event).collect();
        self.store.append_events(self.instance_pk, self.epoch, events).await?;
        self.fanout.dirty(self.instance_pk);
        Ok(())
    }
}
