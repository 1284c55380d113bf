//! Inbound messages enter the journal here, before the client acknowledges them to WhatsApp.

use crate::{Gateway, crash};
use async_trait::async_trait;
use kero_domain::NewEvent;
use kero_store::StoreError;
use kero_whatsapp::{Inbound, InboundMessage};

/// The durable commit behind the client's durability hook. Nothing else runs in it.
pub(crate) struct Journal {
    gateway: Gateway,
    instance_pk: i64,
    epoch: i64,
}

impl Journal {
    pub(crate) fn new(gateway: &Gateway, instance_pk: i64, epoch: i64) -> Self {
        Self { gateway: gateway.clone(), instance_pk, epoch }
    }
}

#[async_trait]
impl Inbound for Journal {
    async fn commit(&self, batch: Vec<InboundMessage>) -> Result<(), StoreError> {
        let (gateway, pk) = (&self.gateway, self.instance_pk);
        let keep_raw = gateway.config().keep_raw;
        let entries: Vec<_> = batch
            .into_iter()
            .map(|InboundMessage { event, .. }| NewEvent { raw: event.raw.filter(|_| keep_raw), ..event })
            .map(|event| super::entry(gateway, pk, event))
            .collect();
        let due = super::due(&entries);
        crash::point("before_event");
        let appended = gateway.store().append_events(pk, self.epoch, entries).await?;
        crash::point("after_event");
        super::appended(gateway, pk, appended, due);
        Ok(())
    }
}
