//! An adapter for the tests' next version, as a published one would be: a file of its own, nothing in that of 0.1.

use crate::error::{CompileError, Kind as Failure};
use crate::event::Facts;
use crate::host::State;
use crate::info::Info;
use crate::verdict::Verdict;
use crate::work::{Answer, Question, Work};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store};

wasmtime::component::bindgen!({
    path: "tests/next/0.2.0",
    world: "transform",
    imports: { default: trappable },
    exports: { default: async },
});

use exports::kero::plugin::on_event;
use kero::plugin::{clock, types};

pub(crate) struct Adapter {
    pre: InstancePre<State>,
    on_event: on_event::GuestIndices,
}

pub(crate) struct Guest(on_event::Guest);

impl Adapter {
    pub(crate) fn link(engine: &Engine, component: &Component, _: &Info) -> Result<Self, CompileError> {
        let invalid = |error: wasmtime::Error| CompileError::Invalid(format!("{error:#}"));
        let mut linker = Linker::new(engine);
        clock::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(invalid)?;
        types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(invalid)?;
        let pre = linker.instantiate_pre(component).map_err(invalid)?;
        Ok(Self { on_event: on_event::GuestIndices::new(&pre).map_err(invalid)?, pre })
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        self.on_event.load(store, &instance).map(Guest)
    }
}

impl Guest {
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        work: &Work,
    ) -> wasmtime::Result<Result<Answer, (Failure, String)>> {
        let Question::Handle { data } = &work.question else { return Err(wasmtime::Error::msg("no transform's work")) };
        let body = match &work.event.facts {
            Facts::Message(it) => types::Body::Message(types::Message { text: it.text.clone(), edited: true }),
            _ => types::Body::Other,
        };
        let event = types::Event {
            id: work.event.id.clone(),
            body,
            data: data.as_deref().unwrap_or(&work.event.data).to_owned(),
        };
        let answered = self.0.call_handle(store, &event).await?;
        Ok(answered
            .map(|verdict| {
                Answer::Verdict(match verdict {
                    on_event::Verdict::Hide => Verdict::Drop { reason: "hidden".to_owned() },
                    on_event::Verdict::Pass => Verdict::Pass,
                    on_event::Verdict::Replace(data) => Verdict::Replace { data },
                })
            })
            .map_err(|error| match error {
                types::HookError::Retry(why) => (Failure::Retry, why),
                types::HookError::Reject(why) => (Failure::Reject, why),
            }))
    }
}

impl types::Host for State {}

impl clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.task.enter("clock.now")?;
        Ok(self.task.capabilities.clock.now())
    }
}
