//! The log of deliveries, and single replays.

use crate::{Gateway, errors::fault};
use kero_domain::{DeliveryId, Fault, FaultCode, InstanceId};
use kero_store::{Attempt, DeliveryFilter, DeliveryLine};

impl Gateway {
    /// Newest first; `before` is the last one of the page before.
    pub async fn deliveries(
        &self,
        id: &InstanceId,
        filter: &DeliveryFilter,
        before: Option<DeliveryId>,
        limit: u64,
    ) -> Result<Vec<DeliveryLine>, Fault> {
        let instance = self.instance(id).await?;
        self.store().deliveries_page(instance.pk, filter, before, limit).await.map_err(fault)
    }

    /// A delivery and its tries, oldest first.
    pub async fn delivery(&self, id: &InstanceId, delivery: DeliveryId) -> Result<(DeliveryLine, Vec<Attempt>), Fault> {
        let instance = self.instance(id).await?;
        let line = self.store().delivery_line(instance.pk, delivery).await.map_err(fault)?;
        let line = line.ok_or_else(|| Fault::from(FaultCode::DeliveryNotFound))?;
        Ok((line, self.store().attempts(delivery).await.map_err(fault)?))
    }

    /// Makes a delivery due now, whatever became of it; its retry schedule begins anew.
    pub async fn replay_delivery(
        &self,
        id: &InstanceId,
        delivery: DeliveryId,
    ) -> Result<(DeliveryLine, Vec<Attempt>), Fault> {
        let instance = self.instance(id).await?;
        if !self.store().replay_delivery(instance.pk, delivery).await.map_err(fault)? {
            return Err(FaultCode::DeliveryNotFound.into());
        }
        self.inner.hooks.replayed(self, instance.pk);
        let found = self.delivery(id, delivery).await?;
        self.inner.delivery.asked(found.0.endpoint);
        Ok(found)
    }
}
