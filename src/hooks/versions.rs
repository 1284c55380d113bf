//! The published WIT versions that this host speaks: one adapter file each. A component is bound by the adapter of the
//! version that its export names, so that a new version changes nothing for guests of the versions before.

use crate::error::{CompileError, Kind as Failure};
use crate::host::State;
use crate::info::Info;
use crate::manifest::Kind;
use crate::v0_1;
#[cfg(test)]
use crate::v0_2;
use crate::work::{Answer, Work};
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

/// As MAJOR.MINOR, oldest first.
#[cfg(not(test))]
pub const VERSIONS: &[&str] = &["0.1"];
/// With the one that the tests publish.
#[cfg(test)]
pub const VERSIONS: &[&str] = &["0.1", "0.2"];

/// The part of a version that changes mean something to: `0.1` of `0.1.3`.
pub(crate) fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

/// A component bound to the host: what can be instantiated.
pub(crate) enum Adapter {
    V0_1(v0_1::Adapter),
    #[cfg(test)]
    V0_2(v0_2::Adapter),
}

/// A live instance's exports.
pub(crate) enum Guest {
    V0_1(v0_1::Guest),
    #[cfg(test)]
    V0_2(v0_2::Guest),
}

impl Adapter {
    pub(crate) fn link(
        engine: &Engine,
        component: &Component,
        info: &Info,
        runner: bool,
    ) -> Result<Self, CompileError> {
        match minor(&info.wit) {
            #[cfg(test)]
            "0.2" => v0_2::Adapter::link(engine, component, info).map(Self::V0_2),
            _ => v0_1::Adapter::link(engine, component, info, runner).map(Self::V0_1),
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>, kind: Kind) -> wasmtime::Result<Guest> {
        match self {
            Self::V0_1(adapter) => adapter.instantiate(store, kind).await.map(Guest::V0_1),
            #[cfg(test)]
            Self::V0_2(adapter) => adapter.instantiate(store).await.map(Guest::V0_2),
        }
    }

    /// Asks the runner what a script exports. The error is the script's own.
    pub(crate) async fn script_exports(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<Result<Vec<String>, String>> {
        match self {
            Self::V0_1(adapter) => adapter.script_exports(store).await,
            #[cfg(test)]
            Self::V0_2(_) => Err(wasmtime::Error::msg("not a runner")),
        }
    }
}

impl Guest {
    /// Calls the export that the work is for.
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        work: &Work,
    ) -> wasmtime::Result<Result<Answer, (Failure, String)>> {
        match self {
            Self::V0_1(guest) => guest.call(store, work).await,
            #[cfg(test)]
            Self::V0_2(guest) => guest.call(store, work).await,
        }
    }
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
