//! Plugins: upload, activate, watch, configure, try, delete. All of it needs a key for the whole gateway.

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::handle::Handle;
use crate::page;
use crate::plugin_form::PluginForm;
use crate::problem::{Failure, codes};
use crate::tags::Tag;
use crate::wire::plugin::{
    ActivatePlugin, Plugin, PluginCall, PluginConfig, PluginTest, PluginUpload, PluginVersion, PutPluginConfig,
    PutPluginGrants, TestPlugin,
};
use crate::wire::{Data, Done, Page};
use kero_domain::EventId;
use kero_gateway::hooks::Activation;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::Value;
use uuid::Uuid;

pub(crate) struct PluginsApi {
    pub handle: Handle,
}

codes! {
    UploadCodes = [PluginInvalid, PluginTestsFailed, PluginVersionExists, PluginFileMissing, PluginNotFound];
    FindCodes = [PluginNotFound, PluginVersionNotFound, PluginInvalid];
    ActivateCodes = [PluginNotFound, PluginVersionNotFound, PluginInvalid, PluginGrantsMissing, PluginConfigInvalid];
    RollBackCodes = [PluginNotFound, PluginVersionNotFound, PluginInvalid, PluginNotActive, PluginGrantsMissing,
        PluginConfigInvalid];
    SwitchCodes = [PluginNotFound, PluginVersionNotFound, PluginInvalid, PluginNotActive];
    TestCodes = [PluginNotFound, PluginVersionNotFound, PluginInvalid, EventNotFound];
}

#[derive(ApiResponse)]
enum UploadReply {
    /// The version is kept. Nothing calls it before it is activated.
    #[oai(status = 201)]
    Uploaded(
        Json<Data<PluginUpload>>,
        /// The plugin's path.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(tag = "Tag::Plugins")]
impl PluginsApi {
    /// Upload a plugin
    ///
    /// Compiles it, starts it once and runs its test cases; what fails is refused and nothing is kept. The answer says
    /// what it imports and which grants it asks for. A version never changes: another artefact needs another version,
    /// and the same upload again is answered the same. Compiled code is not taken.
    #[oai(path = "/plugins", method = "post", operation_id = "plugin_upload")]
    async fn upload(&self, caller: Caller, form: PluginForm) -> Result<UploadReply, Failure<UploadCodes>> {
        let gateway = self.handle.admin(&caller)?;
        let uploaded = match form {
            PluginForm::Own(upload) => gateway.upload_plugin(upload).await?,
            PluginForm::Bundled(name) => gateway.upload_bundled_plugin(&name).await?,
        };
        let location = format!("/plugins/{}", uploaded.name);
        Ok(UploadReply::Uploaded(Json(Data::new(PluginUpload::from(uploaded))), location))
    }

    /// List plugins
    ///
    /// By name.
    #[oai(path = "/plugins", method = "get", operation_id = "plugin_list")]
    async fn list(&self, caller: Caller) -> Result<Json<Page<Plugin>>, Failure<FindCodes>> {
        let plugins = self.handle.admin(&caller)?.plugins().await?;
        let total = plugins.len() as u64;
        Ok(Json(Page::new(plugins.into_iter().map(Plugin::new).collect(), Some(total), None)))
    }

    /// Get a plugin
    ///
    /// Its state, its grants, and the manifest of its active version.
    #[oai(path = "/plugins/:name", method = "get", operation_id = "plugin_get")]
    async fn get(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<Plugin>>, Failure<FindCodes>> {
        let view = self.handle.admin(&caller)?.plugin(&name).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Delete a plugin
    ///
    /// With its versions, its storage and the list of its calls. Events go by without it.
    #[oai(path = "/plugins/:name", method = "delete", operation_id = "plugin_delete")]
    async fn delete(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Done>, Failure<FindCodes>> {
        self.handle.admin(&caller)?.delete_plugin(&name).await?;
        Ok(Json(Done::saying("Plugin deleted.")))
    }

    /// List a plugin's versions
    ///
    /// Newest first.
    #[oai(path = "/plugins/:name/versions", method = "get", operation_id = "plugin_version_list")]
    async fn versions(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Page<PluginVersion>>, Failure<FindCodes>> {
        let versions = self.handle.admin(&caller)?.plugin_versions(&name).await?;
        let total = versions.len() as u64;
        Ok(Json(Page::new(versions.into_iter().map(PluginVersion::from).collect(), Some(total), None)))
    }

    /// Activate a version
    ///
    /// From now on it is called, in the place of the one before. Calls that have begun end on that one; no event is
    /// skipped or lost. A version that asks for more grants than it was given is refused unless they are given here or
    /// `with_fewer_grants` is set.
    #[oai(path = "/plugins/:name/versions/:version/activate", method = "post", operation_id = "plugin_activate")]
    async fn activate(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
        /// The version, as its manifest names it.
        version: Path<String>,
        body: JsonBody<ActivatePlugin>,
    ) -> Result<Json<Data<Plugin>>, Failure<ActivateCodes>> {
        let gateway = self.handle.admin(&caller)?;
        let activation = Activation {
            grants: body.value.grants.map(|grants| Value::Object(grants.0)),
            with_fewer_grants: body.value.with_fewer_grants,
        };
        let view = gateway.activate_plugin(&name, &version, activation).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Roll a plugin back
    ///
    /// Activates the version that was active before, with the grants that are given.
    #[oai(path = "/plugins/:name/rollback", method = "post", operation_id = "plugin_roll_back")]
    async fn roll_back(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<Plugin>>, Failure<RollBackCodes>> {
        let view = self.handle.admin(&caller)?.roll_back_plugin(&name).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Suspend a plugin
    ///
    /// It is not called until it is resumed. A plugin whose `on_error` is `raw` is passed by; the events of another are
    /// held, so that nothing leaves without it.
    #[oai(path = "/plugins/:name/suspend", method = "post", operation_id = "plugin_suspend")]
    async fn suspend(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<Plugin>>, Failure<SwitchCodes>> {
        let view = self.handle.admin(&caller)?.suspend_plugin(&name).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Resume a plugin
    ///
    /// What it held goes on, in order. A broken plugin is tried again.
    #[oai(path = "/plugins/:name/resume", method = "post", operation_id = "plugin_resume")]
    async fn resume(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<Plugin>>, Failure<SwitchCodes>> {
        let view = self.handle.admin(&caller)?.resume_plugin(&name).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Deactivate a plugin
    ///
    /// Events go by without it, whatever its `on_error`. Its versions, settings and storage stay.
    #[oai(path = "/plugins/:name/deactivate", method = "post", operation_id = "plugin_deactivate")]
    async fn deactivate(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<Plugin>>, Failure<SwitchCodes>> {
        let view = self.handle.admin(&caller)?.deactivate_plugin(&name).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Give a plugin grants
    ///
    /// They take the place of those that were given. What is in force is what the version asks for and these allow;
    /// what is not is answered `denied`.
    #[oai(path = "/plugins/:name/grants", method = "put", operation_id = "plugin_grants_update")]
    async fn grant(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
        body: JsonBody<PutPluginGrants>,
    ) -> Result<Json<Data<Plugin>>, Failure<FindCodes>> {
        let grants = Value::Object(body.value.grants.0);
        let view = self.handle.admin(&caller)?.grant_plugin(&name, &grants).await?;
        Ok(Json(Data::new(Plugin::new(view))))
    }

    /// Get a plugin's settings
    ///
    /// Without the secrets; of those only the names.
    #[oai(path = "/plugins/:name/config", method = "get", operation_id = "plugin_config_get")]
    async fn config(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
    ) -> Result<Json<Data<PluginConfig>>, Failure<FindCodes>> {
        let view = self.handle.admin(&caller)?.plugin(&name).await?;
        Ok(Json(Data::new(PluginConfig::new(view))))
    }

    /// Set a plugin's settings
    ///
    /// They are checked by the schema of the active version, else of the newest, and hold from the next call on.
    /// Members that the schema marks `writeOnly` are secrets: stored encrypted and never shown again.
    #[oai(path = "/plugins/:name/config", method = "put", operation_id = "plugin_config_update")]
    async fn configure(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
        body: JsonBody<PutPluginConfig>,
    ) -> Result<Json<Data<PluginConfig>>, Failure<FindCodes>> {
        let view = self.handle.admin(&caller)?.configure_plugin(&name, body.value.config.0).await?;
        Ok(Json(Data::new(PluginConfig::new(view))))
    }

    /// Try a plugin
    ///
    /// Calls a version once with a sample event or one of the journal, in the real host but with nothing behind it:
    /// nothing is stored, sent or fetched. The answer says what it would have come to.
    #[oai(path = "/plugins/:name/test", method = "post", operation_id = "plugin_test")]
    async fn test(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
        body: JsonBody<TestPlugin>,
    ) -> Result<Json<Data<PluginTest>>, Failure<TestCodes>> {
        let report = self.handle.admin(&caller)?.try_plugin(&name, body.value.into()).await?;
        Ok(Json(Data::new(PluginTest::from(report))))
    }

    /// List a plugin's calls
    ///
    /// Newest first, with what they came to, what they used and what they logged. `hooks.keep_calls` says how far back.
    #[oai(path = "/plugins/:name/calls", method = "get", operation_id = "plugin_call_list")]
    async fn calls(
        &self,
        caller: Caller,
        /// The plugin's name.
        name: Path<String>,
        /// Only calls that ended so; may be repeated.
        outcome: Query<Vec<String>>,
        /// Only calls for this event.
        event_id: Query<Option<Uuid>>,
        /// Rows in the answer.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u64>,
        /// `next_cursor` of the part before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<PluginCall>>, Failure<FindCodes>> {
        let gateway = self.handle.admin(&caller)?;
        let before: Option<Uuid> = page::decode(cursor.0.as_deref())?;
        let event = event_id.0.map(EventId);
        let calls = gateway.plugin_calls(&name, &outcome, event, before, limit.0).await?;
        let next = page::next(&calls, limit.0, |call| call.id);
        Ok(Json(Page::new(calls.into_iter().map(PluginCall::from).collect(), None, next)))
    }
}

fn default_limit() -> u64 {
    page::DEFAULT_LIMIT
}
