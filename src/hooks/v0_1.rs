//! Adapter for `kero:plugin@0.1`: binds the host's capabilities to its imports, and its exports to the host's words.
//! A published WIT version is one folder under `plugins/wit` and one file like this.

use crate::capabilities::HttpFailure;
use crate::error::{CompileError, Kind as Failure};
use crate::event::{Event, Facts};
use crate::host::{State, http::Asked, kv as kv_host, log::Level, send as send_host, wasi};
use crate::info::Info;
use crate::manifest::Kind;
use crate::verdict::{Judgement, Request, Verdict};
use crate::work::{Answer, Work};
use std::sync::Arc;
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
    // guests get what is here, without a copy in between
    ownership: Borrowing { duplicate_if_necessary: true },
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
        let hook = Arc::clone(&store.data().task.hook);
        let context = types::Context {
            plugin: hook.manifest.name.as_str(),
            version: &hook.manifest.version,
            endpoint: work.about.endpoint.as_deref(),
            dry_run: work.dry_run,
        };
        use crate::work::Question;
        let answered = match (self, &work.question) {
            (Self::OnEvent(guest), Question::Handle { data }) => {
                let ids = ids_of(&work.event);
                let event = event_of(&work.event, data.as_deref().unwrap_or(&work.event.data), &ids);
                guest.call_handle(store, context, event).await?.map(|verdict| Answer::Verdict(verdict.into()))
            }
            (Self::OnDelivery(guest), Question::Shape { data, request }) => {
                let (ids, headers) = (ids_of(&work.event), headers_of(&request.headers));
                let event = event_of(&work.event, data, &ids);
                let shaped = guest.call_shape(store, context, event, request_of(request, &headers)).await?;
                shaped.map(|request| Answer::Request(request.into()))
            }
            (Self::OnDelivery(guest), Question::Judge { request, response, usual }) => {
                let (sent, headers) = (headers_of(&request.headers), headers_of(&response.headers));
                let response =
                    on_delivery::Response { status: response.status, headers: &headers, body: &response.body };
                let request = request_of(request, &sent);
                let judged = guest.call_judge(store, context, request, response, usual_of(usual)).await?;
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

/// A receipt's messages.
fn ids_of(event: &Event) -> Vec<&str> {
    match &event.facts {
        Facts::Receipt(receipt) => receipt.ids.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn event_of<'a>(event: &'a Event, data: &'a str, ids: &'a [&'a str]) -> types::Event<'a> {
    let body = match &event.facts {
        Facts::Message(it) => types::Body::Message(types::Message {
            id: &it.id,
            chat: &it.chat,
            sender: &it.sender,
            from_me: it.from_me,
            is_group: it.is_group,
            kind: &it.kind,
            text: it.text.as_deref(),
            reply_to: it.reply_to.as_deref(),
        }),
        Facts::Ack(it) => types::Body::MessageAck(types::MessageAck {
            status: match it.status.as_str() {
                "sent" => types::AckStatus::Sent,
                "cancelled" => types::AckStatus::Cancelled,
                _ => types::AckStatus::Failed,
            },
            correlation_id: &it.correlation_id,
            message_id: it.message_id.as_deref(),
            error: it.error.as_deref(),
        }),
        Facts::Receipt(it) => {
            types::Body::Receipt(types::Receipt { chat: &it.chat, sender: &it.sender, kind: &it.kind, ids })
        }
        Facts::Other => types::Body::Other,
    };
    types::Event {
        id: &event.id,
        name: event.kind.as_str(),
        instance: &event.instance,
        timestamp_ms: u64::try_from(event.at).unwrap_or(0),
        body,
        data,
    }
}

fn headers_of(headers: &[(String, String)]) -> Vec<types::HeaderParam<'_>> {
    headers.iter().map(|(name, value)| types::HeaderParam { name, value }).collect()
}

fn pairs(headers: Vec<types::HeaderResult>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

fn request_of<'a>(request: &'a Request, headers: &'a [types::HeaderParam<'a>]) -> on_delivery::RequestParam<'a> {
    on_delivery::RequestParam { method: &request.method, path: &request.path, headers, body: &request.body }
}

fn usual_of(judgement: &Judgement) -> on_delivery::JudgementParam<'_> {
    match judgement {
        Judgement::Success => on_delivery::JudgementParam::Success,
        Judgement::Retry { after } => {
            let seconds = after.map(|after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
            on_delivery::JudgementParam::Retry(seconds)
        }
        Judgement::Dead { reason } => on_delivery::JudgementParam::Dead(reason),
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

impl From<on_delivery::RequestResult> for Request {
    fn from(request: on_delivery::RequestResult) -> Self {
        Self { method: request.method, path: request.path, headers: pairs(request.headers), body: request.body }
    }
}

impl From<on_delivery::JudgementResult> for Judgement {
    fn from(judgement: on_delivery::JudgementResult) -> Self {
        match judgement {
            on_delivery::JudgementResult::Success => Self::Success,
            on_delivery::JudgementResult::Retry(after) => {
                Self::Retry { after: after.map(|secs| Duration::from_secs(secs.into())) }
            }
            on_delivery::JudgementResult::Dead(reason) => Self::Dead { reason },
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
                let header = |(name, value)| types::HeaderResult { name, value };
                let headers = answer.headers.into_iter().map(header).collect();
                Ok(http::Response { status: answer.status, headers, body: answer.body })
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
