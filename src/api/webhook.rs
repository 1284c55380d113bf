//! The webhook of an instance, as Kero-Kero has it: one URL.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::webhook::{PutWebhook, Webhook};
use crate::wire::{Data, Done};
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use secrecy::SecretString;

pub(crate) struct WebhookApi {
    pub handle: Handle,
}

codes! {
    WebhookCodes = [WebhookNotFound];
}

#[OpenApi(tag = "Tag::Webhook")]
impl WebhookApi {
    /// Set the webhook
    ///
    /// Events from now on go there, in order per chat, signed where there is a secret, and are tried for days. URLs
    /// that lead into private networks are refused.
    #[oai(path = "/instances/:instance_id/webhook", method = "post", operation_id = "webhook_update")]
    async fn update(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        body: JsonBody<PutWebhook>,
    ) -> Result<Json<Data<Webhook>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let wanted = kero_gateway::PutWebhook {
            url: body.value.url.0,
            events: body.value.events.unwrap_or_default().into_iter().map(|name| name.0).collect(),
            secret: body.value.secret.map(SecretString::from),
            enabled: body.value.enabled,
        };
        let endpoint = gateway.put_webhook(&id, wanted).await?;
        Ok(Json(Data::new(Webhook::new(id, endpoint))))
    }

    /// Get the webhook
    ///
    /// `has_secret` tells whether deliveries are signed; the secret itself never comes out.
    #[oai(path = "/instances/:instance_id/webhook", method = "get", operation_id = "webhook_get")]
    async fn get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
    ) -> Result<Json<Data<Webhook>>, Failure<WebhookCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let endpoint = gateway.webhook(&id).await?;
        Ok(Json(Data::new(Webhook::new(id, endpoint))))
    }

    /// Delete the webhook
    ///
    /// Deliveries end. Events stay in the journal.
    #[oai(path = "/instances/:instance_id/webhook", method = "delete", operation_id = "webhook_delete")]
    async fn delete(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Done>, Failure<WebhookCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.delete_webhook(&id).await?;
        Ok(Json(Done::silent()))
    }
}
