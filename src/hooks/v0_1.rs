//! Adapter for `kero:plugin@0.1`: binds the host's capabilities to its imports, and its exports to the host's words.
//! A published WIT version is one folder under `plugins/wit` and one file like this.

use crate::capabilities::HttpFailure;
use crate::error::{CompileError, Kind as Failure};
use crate::event::{Event, Facts};
use crate::host::{State, http::Asked, kv as kv_host, log::Level, send as send_host, wasi};
use crate::info::Info;
use crate::manifest::Kind;
use crate::verdict::{Judgement, Request, Response, Verdict};
use crate::work::{Answer, Work};
use std::time::Duration;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store};

wasmtime::component::bindgen!({
    path: "../../plugins/wit/0.1.0",
    world: "scripted",
    imports: {
        "kero:plugin/http.fetch": async | trappable,
        "kero:plugin/kv.get": async | trappable,
        "kero:plugin/kv.increment": async | trappable,
        "kero:plugin/kv.set": async | trappable,
        "kero:plugin/send.text": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

use exports::kero::plugin::{on_delivery, on_event, on_script};
use kero::plugin::{clock, config, http, kv, log, random, script, send, types};

/// A component bound to the host: what can be instantiated.
pub(crate) struct Adapter {
    pre: InstancePre<State>,
    on_event: Option<on_event::GuestIndices>,
    on_delivery: Option<on_delivery::GuestIndices>,
    on_script: Option<on_script::GuestIndices>,
}

/// A live instance's exports.
pub(crate) enum Guest {
    OnEvent(on_event::Guest),
    OnDelivery(on_delivery::Guest),
}

impl Adapter {
    pub(crate) fn link(
        engine: &Engine,
        component: &Component,
        info: &Info,
        runner: bool,
    ) -> Result<Self, CompileError> {
        let mut linker = Linker::new(engine);
        wasi::link(&mut linker, engine, &component.component_type())?;
        let ours = |linker: &mut Linker<State>| -> wasmtime::Result<()> {
            clock::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            config::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            http::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            kv::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            log::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            random::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            send::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            if runner {
                script::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
            }
            Ok(())
        };
        ours(&mut linker).map_err(|error| CompileError::Stopped(format!("{error:#}")))?;
        let pre = linker.instantiate_pre(component).map_err(|error| unknown(info, &format!("{error:#}")))?;
        let invalid = |error: wasmtime::Error| CompileError::Invalid(format!("{error:#}"));
        let has = |kind| info.kinds.contains(&kind);
        Ok(Self {
            on_event: has(Kind::Transform).then(|| on_event::GuestIndices::new(&pre)).transpose().map_err(invalid)?,
            on_delivery: has(Kind::Delivery)
                .then(|| on_delivery::GuestIndices::new(&pre))
                .transpose()
                .map_err(invalid)?,
            on_script: runner.then(|| on_script::GuestIndices::new(&pre)).transpose().map_err(invalid)?,
            pre,
        })
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>, kind: Kind) -> wasmtime::Result<Guest> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let none = || wasmtime::Error::msg("the export is gone");
        Ok(match kind {
            Kind::Transform => Guest::OnEvent(self.on_event.as_ref().ok_or_else(none)?.load(store, &instance)?),
            Kind::Delivery => Guest::OnDelivery(self.on_delivery.as_ref().ok_or_else(none)?.load(store, &instance)?),
        })
    }

    /// Asks the runner what a script exports. The error is the script's own.
    pub(crate) async fn script_exports(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<Result<Vec<String>, String>> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let indices = self.on_script.as_ref().ok_or_else(|| wasmtime::Error::msg("not a runner"))?;
        indices.load(&mut *store, &instance)?.call_exports(store).await
    }
}

/// Names the import that the host does not have, from the engine's text ("component imports instance `…`, but …").
fn unknown(info: &Info, text: &str) -> CompileError {
    let named =
        info.imports.iter().filter(|import| text.contains(&format!("`{import}`"))).max_by_key(|import| import.len());
    match named {
        Some(import) => CompileError::UnknownImport { import: import.clone(), detail: text.to_owned() },
        None => CompileError::Invalid(text.to_owned()),
    }
}

impl Guest {
    /// Calls the export that the work is for.
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        work: &Work,
    ) -> wasmtime::Result<Result<Answer, (Failure, String)>> {
        let context = {
            let task = &store.data().task;
            types::Context {
                plugin: task.hook.manifest.name.to_string(),
                version: task.hook.manifest.version.clone(),
                endpoint: work.about.endpoint.clone(),
                dry_run: work.dry_run,
            }
        };
        use crate::work::Question;
        let answered = match (self, &work.question) {
            (Self::OnEvent(guest), Question::Handle { data }) => {
                let event = event_of(&work.event, data);
                guest.call_handle(store, &context, &event).await?.map(|verdict| Answer::Verdict(verdict.into()))
            }
            (Self::OnDelivery(guest), Question::Shape { data, request }) => {
                let event = event_of(&work.event, data);
                let shaped = guest.call_shape(store, &context, &event, &request_of(request)).await?;
                shaped.map(|request| Answer::Request(request.into()))
            }
            (Self::OnDelivery(guest), Question::Judge { request, response, usual }) => {
                let usual = usual_of(usual);
                let judged =
                    guest.call_judge(store, &context, &request_of(request), &response_of(response), &usual).await?;
                judged.map(|judgement| Answer::Judgement(judgement.into()))
            }
            _ => return Err(wasmtime::Error::msg("the plugin is of the other kind")),
        };
        Ok(answered.map_err(|error| match error {
            types::HookError::Retry(why) => (Failure::Retry, why),
            types::HookError::Reject(why) => (Failure::Reject, why),
        }))
    }
}

fn event_of(event: &Event, data: &str) -> types::Event {
    let body = match &event.facts {
        Facts::Message(it) => types::Body::Message(types::Message {
            id: it.id.clone(),
            chat: it.chat.clone(),
            sender: it.sender.clone(),
            from_me: it.from_me,
            is_group: it.is_group,
            kind: it.kind.clone(),
            text: it.text.clone(),
            reply_to: it.reply_to.clone(),
        }),
        Facts::Ack(it) => types::Body::MessageAck(types::MessageAck {
            status: match it.status.as_str() {
                "sent" => types::AckStatus::Sent,
                "cancelled" => types::AckStatus::Cancelled,
                _ => types::AckStatus::Failed,
            },
            correlation_id: it.correlation_id.clone(),
            message_id: it.message_id.clone(),
            error: it.error.clone(),
        }),
        Facts::Receipt(it) => types::Body::Receipt(types::Receipt {
            chat: it.chat.clone(),
            sender: it.sender.clone(),
            kind: it.kind.clone(),
            ids: it.ids.clone(),
        }),
        Facts::Other => types::Body::Other,
    };
    types::Event {
        id: event.id.clone(),
        name: event.kind.as_str().to_owned(),
        instance: event.instance.clone(),
        timestamp_ms: u64::try_from(event.at).unwrap_or(0),
        body,
        data: data.to_owned(),
    }
}

fn headers_of(headers: &[(String, String)]) -> Vec<types::Header> {
    headers.iter().map(|(name, value)| types::Header { name: name.clone(), value: value.clone() }).collect()
}

fn pairs(headers: Vec<types::Header>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

fn request_of(request: &Request) -> on_delivery::Request {
    on_delivery::Request {
        method: request.method.clone(),
        path: request.path.clone(),
        headers: headers_of(&request.headers),
        body: request.body.clone(),
    }
}

fn response_of(response: &Response) -> on_delivery::Response {
    on_delivery::Response {
        status: response.status,
        headers: headers_of(&response.headers),
        body: response.body.clone(),
    }
}

fn usual_of(judgement: &Judgement) -> on_delivery::Judgement {
    match judgement {
        Judgement::Success => on_delivery::Judgement::Success,
        Judgement::Retry { after } => {
            on_delivery::Judgement::Retry(after.map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX)))
        }
        Judgement::Dead { reason } => on_delivery::Judgement::Dead(reason.clone()),
    }
}

impl From<on_event::Verdict> for Verdict {
    fn from(verdict: on_event::Verdict) -> Self {
        match verdict {
            on_event::Verdict::Pass => Self::Pass,
            on_event::Verdict::Drop(reason) => Self::Drop { reason },
            on_event::Verdict::Replace(data) => Self::Replace { data },
            on_event::Verdict::Route(it) => Self::Route { endpoints: it.endpoints, data: it.data },
        }
    }
}

impl From<on_delivery::Request> for Request {
    fn from(request: on_delivery::Request) -> Self {
        Self { method: request.method, path: request.path, headers: pairs(request.headers), body: request.body }
    }
}

impl From<on_delivery::Judgement> for Judgement {
    fn from(judgement: on_delivery::Judgement) -> Self {
        match judgement {
            on_delivery::Judgement::Success => Self::Success,
            on_delivery::Judgement::Retry(after) => {
                Self::Retry { after: after.map(|secs| Duration::from_secs(secs.into())) }
            }
            on_delivery::Judgement::Dead(reason) => Self::Dead { reason },
        }
    }
}

impl types::Host for State {}

impl clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.task.enter("clock.now")?;
        Ok(self.task.capabilities.clock.now())
    }
}

impl random::Host for State {
    fn number(&mut self) -> wasmtime::Result<u64> {
        self.task.enter("random.number")?;
        Ok(self.task.capabilities.random.next())
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.task.enter("log.write")?;
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.task.log.write(level, &message);
        Ok(())
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.task.enter("config.get")?;
        Ok(self.task.setting(&key))
    }

    fn all(&mut self) -> wasmtime::Result<String> {
        self.task.enter("config.all")?;
        Ok(self.task.settings())
    }
}

impl script::Host for State {
    fn name(&mut self) -> wasmtime::Result<String> {
        self.task.enter("script.name")?;
        Ok(self.task.hook.compiled.script.as_ref().map(|it| it.name.clone()).unwrap_or_default())
    }

    fn source(&mut self) -> wasmtime::Result<String> {
        self.task.enter("script.source")?;
        Ok(self.task.hook.compiled.script.as_ref().map(|it| it.source.clone()).unwrap_or_default())
    }

    /// Not a call of the script's: it is not counted.
    fn out_of_time(&mut self) -> wasmtime::Result<bool> {
        Ok(self.task.is_over())
    }
}

impl From<kv_host::KvError> for kv::KvError {
    fn from(error: kv_host::KvError) -> Self {
        match error {
            kv_host::KvError::Denied(why) => Self::Denied(why),
            kv_host::KvError::TooLarge => Self::TooLarge,
            kv_host::KvError::Quota => Self::Quota,
            kv_host::KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl kv::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::KvError>> {
        Ok(self.task.kv_get(&key).await?.map_err(Into::into))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<(), kv::KvError>> {
        Ok(self.task.kv_set(&key, value, ttl).await?.map_err(Into::into))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::KvError>> {
        Ok(self.task.kv_delete(&key)?.map_err(Into::into))
    }

    async fn increment(
        &mut self,
        key: String,
        by: i64,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<i64, kv::KvError>> {
        Ok(self.task.kv_increment(&key, by, ttl).await?.map_err(Into::into))
    }
}

impl http::Host for State {
    async fn fetch(&mut self, asked: http::Request) -> wasmtime::Result<Result<http::Response, http::HttpError>> {
        let asked = Asked {
            method: asked.method,
            url: asked.url,
            headers: pairs(asked.headers),
            body: asked.body,
            timeout_ms: asked.timeout_ms,
        };
        Ok(match self.task.http_fetch(asked).await? {
            Ok(answer) => {
                Ok(http::Response { status: answer.status, headers: headers_of(&answer.headers), body: answer.body })
            }
            Err(HttpFailure::Denied(why)) => Err(http::HttpError::Denied(why)),
            Err(HttpFailure::Timeout) => Err(http::HttpError::Timeout),
            Err(HttpFailure::TooLarge) => Err(http::HttpError::TooLarge),
            Err(HttpFailure::Failed(why)) => Err(http::HttpError::Failed(why)),
        })
    }
}

impl send::Host for State {
    async fn text(
        &mut self,
        chat: String,
        text: String,
        reply_to: Option<String>,
    ) -> wasmtime::Result<Result<String, send::SendError>> {
        Ok(self.task.send_text(chat, text, reply_to).await?.map_err(|error| match error {
            send_host::SendError::Denied(why) => send::SendError::Denied(why),
            send_host::SendError::Quota(why) => send::SendError::Quota(why),
            send_host::SendError::Invalid(why) => send::SendError::Invalid(why),
        }))
    }
}
