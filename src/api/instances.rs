//! Instances: create, list, get, update, delete; connect, disconnect, log out; status.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::page;
use crate::problem::{Failure, NoCodes, codes};
use crate::tags::Tag;
use crate::wire::instance::{CreateInstance, Created, Instance, Status, UpdateInstance};
use crate::wire::{Data, Done, Page};
use kero_domain::{Fault, FaultCode, InstanceId};
use kero_gateway::Gateway;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};

pub(crate) struct InstancesApi {
    pub handle: Handle,
}

codes! {
    CreateCodes = [InvalidInstanceId, InstanceExists];
    ConnectCodes = [WhatsAppUnreachable];
    LogOutCodes = [InstanceNotPaired, LogoutUnconfirmed];
}

#[derive(ApiResponse)]
enum CreateReply {
    /// The instance exists, not yet connected. Connect it, then pair it by QR code or pair code.
    #[oai(status = 201)]
    Created(
        Json<Created>,
        /// The instance's path.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Tag::Instances")]
impl InstancesApi {
    /// Create an instance
    ///
    /// An instance holds one WhatsApp account. A new one with the id of a deleted one inherits nothing of it. Needs a
    /// key for the whole gateway.
    #[oai(path = "/instances", method = "post", operation_id = "instance_create")]
    async fn create(
        &self,
        caller: Caller,
        body: JsonBody<CreateInstance>,
    ) -> Result<CreateReply, Failure<CreateCodes>> {
        let gateway = self.handle.admin(&caller)?;
        let pointer = body.pointer("instance_id");
        let wanted = body.value;
        let id: InstanceId = wanted.instance_id.0.parse().map_err(|why: kero_domain::IdError| {
            Fault::new(FaultCode::InvalidInstanceId).at(pointer, why.to_string())
        })?;
        let instance = gateway
            .create_instance(kero_gateway::CreateInstance {
                id,
                name: given(wanted.name),
                webhook_url: given(wanted.webhook_url.map(|url| url.0)),
                sync_history: wanted.sync_history,
            })
            .await?;
        let location = format!("/instances/{}", instance.id);
        let data = shown(gateway, instance).await?;
        let created = Created { success: true, data, message: "Instance created.".to_owned() };
        Ok(CreateReply::Created(Json(created), location))
    }

    /// List instances
    ///
    /// Newest first. A key of one instance sees only that one.
    #[oai(path = "/instances", method = "get", operation_id = "instance_list")]
    async fn list(
        &self,
        caller: Caller,
        /// Rows in the answer.
        #[oai(default = "max_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<Instance>>, Failure> {
        let gateway = self.handle.gateway()?;
        let after = page::decode(cursor.0.as_deref())?;
        let (instances, total) = match caller.own_instance() {
            Some(own) => (vec![gateway.instance(own).await?], 1),
            None => gateway.list_instances(after, limit.0).await?,
        };
        let next = match caller.own_instance() {
            Some(_) => None,
            None => page::next(&instances, limit.0, |instance| instance.pk),
        };
        let mut urls = gateway.webhook_urls(&instances).await?;
        let data = instances
            .into_iter()
            .map(|instance| {
                let url = urls.remove(&instance.pk);
                Instance::new(instance, url)
            })
            .collect();
        Ok(Json(Page::new(data, Some(total), next)))
    }

    /// Get an instance
    ///
    /// With its account, its status and where its events go.
    #[oai(path = "/instances/:instance_id", method = "get", operation_id = "instance_get")]
    async fn get(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Data<Instance>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let instance = gateway.instance(&id).await?;
        Ok(Json(Data::new(shown(gateway, instance).await?)))
    }

    /// Change an instance
    ///
    /// What is absent, `null` or an empty text stays as it is. `webhook_url` changes where events go and keeps the
    /// webhook's events and secret; `DELETE …/webhook` ends delivery.
    #[oai(path = "/instances/:instance_id", method = "put", operation_id = "instance_update")]
    async fn update(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        body: JsonBody<UpdateInstance>,
    ) -> Result<Json<Data<Instance>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let change = body.value;
        let instance = gateway
            .update_instance(
                &id,
                kero_gateway::UpdateInstance {
                    name: given(change.name),
                    webhook_url: given(change.webhook_url.map(|url| url.0)),
                    sync_history: change.sync_history,
                },
            )
            .await?;
        Ok(Json(Data::new(shown(gateway, instance).await?)))
    }

    /// Delete an instance
    ///
    /// Unlinks it from the phone where WhatsApp can be reached, then deletes everything of it: credentials, jobs,
    /// events, webhook, keys.
    #[oai(path = "/instances/:instance_id", method = "delete", operation_id = "instance_delete")]
    async fn delete(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Done>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.delete_instance(&id).await?;
        Ok(Json(Done::saying("Instance deleted.")))
    }

    /// Connect an instance
    ///
    /// Opens the connection to WhatsApp and keeps it, across restarts too. It continues in the background: watch
    /// `GET …/status`. An instance that is not paired shows codes at `GET …/qr`. Connecting a connected instance does
    /// nothing.
    #[oai(path = "/instances/:instance_id/connect", method = "post", operation_id = "instance_connect")]
    async fn connect(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Done>, Failure<ConnectCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.connect(&id).await?;
        Ok(Json(Done::saying("Connecting.")))
    }

    /// Connect an instance, old form
    ///
    /// For old clients; the same as the `POST`.
    #[oai(
        path = "/instances/:instance_id/connect",
        method = "get",
        operation_id = "instance_connect_by_get",
        deprecated
    )]
    async fn connect_by_get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
    ) -> Result<Json<Done>, Failure<ConnectCodes>> {
        self.connect(caller, instance_id).await
    }

    /// Disconnect an instance
    ///
    /// Closes the connection and keeps the credentials: connecting again needs no pairing. Asynchronous sends wait,
    /// synchronous ones are refused.
    #[oai(path = "/instances/:instance_id/disconnect", method = "post", operation_id = "instance_disconnect")]
    async fn disconnect(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Done>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.disconnect(&id).await?;
        Ok(Json(Done::saying("Disconnected.")))
    }

    /// Log an instance out
    ///
    /// Unlinks it from the phone and forgets its credentials. It must be paired again to be used.
    #[oai(path = "/instances/:instance_id/logout", method = "post", operation_id = "instance_log_out")]
    async fn log_out(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Done>, Failure<LogOutCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.logout(&id).await?;
        Ok(Json(Done::saying("Logged out.")))
    }

    /// Get an instance's status
    ///
    /// Whether it is linked and connected, since when, and, where something is wrong, why and what to do.
    #[oai(path = "/instances/:instance_id/status", method = "get", operation_id = "instance_status_get")]
    async fn status(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Status>, Failure<NoCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let view = gateway.status(&id).await?;
        Ok(Json(Status::new(id.into(), &view)))
    }
}

/// An instance with where its events go.
async fn shown(gateway: &Gateway, instance: kero_store::Instance) -> Result<Instance, Fault> {
    let url = gateway.webhook_urls(std::slice::from_ref(&instance)).await?.remove(&instance.pk);
    Ok(Instance::new(instance, url))
}

/// Kero-Kero's clients send empty texts for what they do not set.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// Kero-Kero's list had no parts; its clients get as many rows as a part can have.
fn max_limit() -> u64 {
    page::MAX_LIMIT
}
