//! Endpoints: of an instance, and global ones, which only a key for the whole gateway sees.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::endpoint::{
    CreateEndpoint, Endpoint, ReplayEndpoint, Replayed, RotateSecret, TestResult, UpdateEndpoint,
};
use crate::wire::words::EventKind;
use crate::wire::{Data, Done, Page};
use kero_domain::{EndpointId, Fault, FaultCode, InstanceId};
use kero_gateway::{Gateway, ReplayRange};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};
use secrecy::SecretString;
use std::time::Duration;

pub(crate) struct EndpointsApi {
    pub handle: Handle,
}

codes! {
    EndpointCodes = [EndpointNotFound];
    CreateEndpointCodes = [EndpointLimit];
}

#[derive(ApiResponse)]
enum CreateReply {
    /// The endpoint exists; events from now on go there. A secret that was made is in this answer only.
    #[oai(status = 201)]
    Created(
        Json<Data<Endpoint>>,
        /// The endpoint's path.
        #[oai(header = "Location")]
        String,
    ),
}

type Found<T> = Result<Json<Data<T>>, Failure<EndpointCodes>>;

#[OpenApi(tag = "Tag::Endpoints")]
impl EndpointsApi {
    /// List endpoints
    ///
    /// Oldest first. The first one is the instance's webhook.
    #[oai(path = "/instances/:instance_id/endpoints", method = "get", operation_id = "endpoint_list")]
    async fn list(&self, caller: Caller, instance_id: Path<String>) -> Result<Json<Page<Endpoint>>, Failure> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(Json(list(gateway, Some(&id)).await?))
    }

    /// Create an endpoint
    ///
    /// Events from now on go there, signed, in order per chat, and are tried for days. `POST …/replay` sends earlier
    /// ones.
    #[oai(path = "/instances/:instance_id/endpoints", method = "post", operation_id = "endpoint_create")]
    async fn create(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        body: JsonBody<CreateEndpoint>,
    ) -> Result<CreateReply, Failure<CreateEndpointCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(create(gateway, Some(&id), body.value).await?)
    }

    /// Get an endpoint
    ///
    /// Its settings, and why it is disabled if it is. Secrets and header values are never shown.
    #[oai(path = "/instances/:instance_id/endpoints/:endpoint_id", method = "get", operation_id = "endpoint_get")]
    async fn get(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
    ) -> Found<Endpoint> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        let found = gateway.endpoint(Some(&id), endpoint(gateway, Some(&id), &endpoint_id).await?).await?;
        Ok(Json(Data::new(Endpoint::new(Some(id.into()), found))))
    }

    /// Change an endpoint
    ///
    /// What is absent stays as it is. Enabling one that the gateway disabled delivers what waits.
    #[oai(path = "/instances/:instance_id/endpoints/:endpoint_id", method = "patch", operation_id = "endpoint_update")]
    async fn update(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<UpdateEndpoint>,
    ) -> Found<Endpoint> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(Json(update(gateway, Some(&id), &endpoint_id, body.value).await?))
    }

    /// Delete an endpoint
    ///
    /// With its deliveries and their log. Events stay in the journal.
    #[oai(path = "/instances/:instance_id/endpoints/:endpoint_id", method = "delete", operation_id = "endpoint_delete")]
    async fn delete(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
    ) -> Result<Json<Done>, Failure<EndpointCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        gateway.delete_endpoint(Some(&id), endpoint(gateway, Some(&id), &endpoint_id).await?).await?;
        Ok(Json(Done::silent()))
    }

    /// Replace an endpoint's secret
    ///
    /// For a time both sign: `webhook-signature` lists a signature of each. The other signature headers are the new
    /// secret's from now on.
    #[oai(
        path = "/instances/:instance_id/endpoints/:endpoint_id/rotate-secret",
        method = "post",
        operation_id = "endpoint_rotate_secret"
    )]
    async fn rotate(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<RotateSecret>,
    ) -> Found<Endpoint> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(Json(rotate(gateway, Some(&id), &endpoint_id, body.value).await?))
    }

    /// Send a sample to an endpoint
    ///
    /// At once, signed, also to a disabled one, and once only. It is no event of the journal; its `data.test` is true, and
    /// the rest of it is made up. Where an endpoint was left alone, because it only failed, and takes it, what waits goes
    /// out as well.
    #[oai(
        path = "/instances/:instance_id/endpoints/:endpoint_id/test",
        method = "post",
        operation_id = "endpoint_test"
    )]
    async fn test(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        /// The kind of the sample.
        #[oai(default = "a_message")]
        event: Query<EventKind>,
    ) -> Found<TestResult> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(Json(test(gateway, Some(&id), &endpoint_id, event.0).await?))
    }

    /// Replay to an endpoint
    ///
    /// Dead deliveries are due again, under the same `webhook-id`, and events that the endpoint never got are delivered
    /// at last. An endpoint that is left alone, because it only failed, is asked at once; a disabled one gets all of it when
    /// it is enabled.
    #[oai(
        path = "/instances/:instance_id/endpoints/:endpoint_id/replay",
        method = "post",
        operation_id = "endpoint_replay"
    )]
    async fn replay(
        &self,
        caller: Caller,
        instance_id: Path<String>,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<ReplayEndpoint>,
    ) -> Result<Json<Replayed>, Failure<EndpointCodes>> {
        let (gateway, id) = self.handle.at(&caller, &instance_id)?;
        Ok(Json(replay(gateway, Some(&id), &endpoint_id, body.value).await?))
    }

    /// List global endpoints
    ///
    /// They receive the events of every instance. Needs a key for the whole gateway, like all that follow.
    #[oai(path = "/endpoints", method = "get", operation_id = "global_endpoint_list")]
    async fn list_global(&self, caller: Caller) -> Result<Json<Page<Endpoint>>, Failure> {
        Ok(Json(list(self.handle.admin(&caller)?, None).await?))
    }

    /// Create a global endpoint
    ///
    /// It receives the events of every instance from now on. Needs a key for the whole gateway.
    #[oai(path = "/endpoints", method = "post", operation_id = "global_endpoint_create")]
    async fn create_global(
        &self,
        caller: Caller,
        body: JsonBody<CreateEndpoint>,
    ) -> Result<CreateReply, Failure<CreateEndpointCodes>> {
        Ok(create(self.handle.admin(&caller)?, None, body.value).await?)
    }

    /// Get a global endpoint
    ///
    /// Its settings, and why it is disabled if it is. Needs a key for the whole gateway.
    #[oai(path = "/endpoints/:endpoint_id", method = "get", operation_id = "global_endpoint_get")]
    async fn get_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
    ) -> Found<Endpoint> {
        let gateway = self.handle.admin(&caller)?;
        let found = gateway.endpoint(None, endpoint(gateway, None, &endpoint_id).await?).await?;
        Ok(Json(Data::new(Endpoint::new(None, found))))
    }

    /// Change a global endpoint
    ///
    /// What is absent stays as it is. Needs a key for the whole gateway.
    #[oai(path = "/endpoints/:endpoint_id", method = "patch", operation_id = "global_endpoint_update")]
    async fn update_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<UpdateEndpoint>,
    ) -> Found<Endpoint> {
        Ok(Json(update(self.handle.admin(&caller)?, None, &endpoint_id, body.value).await?))
    }

    /// Delete a global endpoint
    ///
    /// With its deliveries and their log, of every instance. Needs a key for the whole gateway.
    #[oai(path = "/endpoints/:endpoint_id", method = "delete", operation_id = "global_endpoint_delete")]
    async fn delete_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
    ) -> Result<Json<Done>, Failure<EndpointCodes>> {
        let gateway = self.handle.admin(&caller)?;
        gateway.delete_endpoint(None, endpoint(gateway, None, &endpoint_id).await?).await?;
        Ok(Json(Done::silent()))
    }

    /// Replace a global endpoint's secret
    ///
    /// For a time both sign, as with an endpoint of one instance. Needs a key for the whole gateway.
    #[oai(
        path = "/endpoints/:endpoint_id/rotate-secret",
        method = "post",
        operation_id = "global_endpoint_rotate_secret"
    )]
    async fn rotate_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<RotateSecret>,
    ) -> Found<Endpoint> {
        Ok(Json(rotate(self.handle.admin(&caller)?, None, &endpoint_id, body.value).await?))
    }

    /// Send a sample to a global endpoint
    ///
    /// At once, signed, and once only; it is no event of any journal. Needs a key for the whole gateway.
    #[oai(path = "/endpoints/:endpoint_id/test", method = "post", operation_id = "global_endpoint_test")]
    async fn test_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        /// The kind of the sample.
        #[oai(default = "a_message")]
        event: Query<EventKind>,
    ) -> Found<TestResult> {
        Ok(Json(test(self.handle.admin(&caller)?, None, &endpoint_id, event.0).await?))
    }

    /// Replay to a global endpoint
    ///
    /// As with an endpoint of one instance, for every instance. Needs a key for the whole gateway.
    #[oai(path = "/endpoints/:endpoint_id/replay", method = "post", operation_id = "global_endpoint_replay")]
    async fn replay_global(
        &self,
        caller: Caller,
        /// The endpoint's id.
        endpoint_id: Path<String>,
        body: JsonBody<ReplayEndpoint>,
    ) -> Result<Json<Replayed>, Failure<EndpointCodes>> {
        Ok(Json(replay(self.handle.admin(&caller)?, None, &endpoint_id, body.value).await?))
    }
}

type Owner<'a> = Option<&'a InstanceId>;

fn name(owner: Owner<'_>) -> Option<String> {
    owner.map(|id| id.to_string())
}

/// A text that cannot be an endpoint's id names none, once it is clear that the instance is there.
async fn endpoint(gateway: &Gateway, owner: Owner<'_>, text: &str) -> Result<EndpointId, Fault> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => {
            if let Some(id) = owner {
                gateway.instance(id).await?;
            }
            Err(FaultCode::EndpointNotFound.into())
        }
    }
}

async fn list(gateway: &Gateway, owner: Owner<'_>) -> Result<Page<Endpoint>, Fault> {
    let found = gateway.endpoints(owner).await?;
    let total = found.len() as u64;
    let data = found.into_iter().map(|endpoint| Endpoint::new(name(owner), endpoint)).collect();
    Ok(Page::new(data, Some(total), None))
}

async fn create(gateway: &Gateway, owner: Owner<'_>, body: CreateEndpoint) -> Result<CreateReply, Fault> {
    let (settings, secret) = body.settings()?;
    let made = gateway.create_endpoint(owner, settings, secret).await?;
    let base = owner.map(|id| format!("/instances/{id}")).unwrap_or_default();
    let location = format!("{base}/endpoints/{}", made.endpoint.id);
    Ok(CreateReply::Created(Json(Data::new(Endpoint::shown_once(name(owner), made))), location))
}

async fn update(gateway: &Gateway, owner: Owner<'_>, id: &str, body: UpdateEndpoint) -> Result<Data<Endpoint>, Fault> {
    let id = endpoint(gateway, owner, id).await?;
    let changed = gateway.update_endpoint(owner, id, body.settings()?).await?;
    Ok(Data::new(Endpoint::new(name(owner), changed)))
}

async fn rotate(gateway: &Gateway, owner: Owner<'_>, id: &str, body: RotateSecret) -> Result<Data<Endpoint>, Fault> {
    let id = endpoint(gateway, owner, id).await?;
    let (secret, overlap) =
        (body.secret.map(|secret| SecretString::from(secret.0)), Duration::from_secs(body.overlap_seconds));
    let made = gateway.rotate_secret(owner, id, secret, overlap).await?;
    Ok(Data::new(Endpoint::shown_once(name(owner), made)))
}

async fn test(gateway: &Gateway, owner: Owner<'_>, id: &str, event: EventKind) -> Result<Data<TestResult>, Fault> {
    let id = endpoint(gateway, owner, id).await?;
    Ok(Data::new(gateway.test_endpoint(owner, id, event.into()).await?))
}

async fn replay(gateway: &Gateway, owner: Owner<'_>, id: &str, body: ReplayEndpoint) -> Result<Replayed, Fault> {
    let id = endpoint(gateway, owner, id).await?;
    let range = ReplayRange {
        since: body.since.map(|at| at.0),
        until: body.until.map(|at| at.0),
        events: body.events.unwrap_or_default().into_iter().map(Into::into).collect(),
    };
    let done = gateway.replay_endpoint(owner, id, range).await?;
    Ok(Replayed { success: true, replayed: done.replayed, missed: done.missed })
}

fn a_message() -> EventKind {
    EventKind::Message
}
