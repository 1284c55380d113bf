//! Kero-Kero's webhook of an instance: its first endpoint.

use crate::delivery::sign::check_secret;
use crate::endpoints::check_url;
use crate::{Gateway, errors::fault};
use kero_domain::endpoint::EventFilter;
use kero_domain::{Fault, FaultCode, InstanceId};
use kero_store::{Endpoint, NewEndpoint};
use secrecy::SecretString;

/// `POST /instances/{id}/webhook`.
#[derive(Debug, Clone)]
pub struct PutWebhook {
    pub url: String,
    /// Empty: the default events.
    pub events: Vec<String>,
    /// `None` keeps the secret, an empty one clears it.
    pub secret: Option<SecretString>,
    pub enabled: bool,
}

impl Gateway {
    pub async fn webhook(&self, id: &InstanceId) -> Result<Endpoint, Fault> {
        let instance = self.instance(id).await?;
        self.store().webhook(instance.pk).await.map_err(fault)?.ok_or_else(|| FaultCode::WebhookNotFound.into())
    }

    pub async fn put_webhook(&self, id: &InstanceId, webhook: PutWebhook) -> Result<Endpoint, Fault> {
        let instance = self.instance(id).await?;
        let endpoint = new_endpoint(self, webhook)?;
        let stored = self.store().put_webhook(instance.pk, endpoint).await.map_err(fault)?;
        self.endpoint_changed(Some(instance.pk), stored.id);
        Ok(stored)
    }

    pub async fn delete_webhook(&self, id: &InstanceId) -> Result<(), Fault> {
        let instance = self.instance(id).await?;
        let deleted = self.store().delete_webhook(instance.pk).await.map_err(fault)?;
        let deleted = deleted.ok_or_else(|| Fault::from(FaultCode::WebhookNotFound))?;
        self.endpoint_changed(Some(instance.pk), deleted);
        Ok(())
    }
}

pub(crate) fn new_endpoint(gateway: &Gateway, webhook: PutWebhook) -> Result<NewEndpoint, Fault> {
    use secrecy::ExposeSecret;
    check_url(gateway, &webhook.url)?;
    let events = EventFilter::try_from(webhook.events)
        .map_err(|why| Fault::new(FaultCode::ValidationFailed).at("/events", why))?;
    let secret = webhook.secret.map(|secret| Some(secret.expose_secret().to_owned()).filter(|text| !text.is_empty()));
    if let Some(Some(secret)) = &secret {
        // Kero-Kero's secrets are any text
        let any = !secret.starts_with("whsec_") && (1..=1024).contains(&secret.len());
        if !any || secret.chars().any(char::is_control) {
            check_secret(secret).map_err(|why| Fault::new(FaultCode::ValidationFailed).at("/secret", why))?;
        }
    }
    Ok(NewEndpoint { url: webhook.url, events, secret, enabled: webhook.enabled })
}
