//! Starting a plugin before it is accepted.

use crate::call;
use crate::engine::{Host, Inner};
use crate::error::{HookError, Kind};
use crate::event::Event;
use crate::fixture::Fixture;
use crate::hook::Hook;
use crate::host::{State, Task, wasi};
use crate::limits::Meter;
use crate::manifest::Kind as PluginKind;
use crate::work::About;
use kero_domain::EventKind;
use serde_json::Value;
use std::sync::Arc;
use wasmtime::Store;

impl Host {
    /// Starts the plugin once, with no capability but its settings, and asks it nothing. Finds what compiling cannot:
    /// exports of another type than the WIT's, a start that traps, a script with a syntax error (told with its line) or
    /// without the function that its kind needs. Part of an upload.
    pub async fn check(&self, hook: &Arc<Hook>) -> Result<(), HookError> {
        let outside = tokio::runtime::Handle::current();
        let (host, mine) = (Arc::clone(&self.inner), Arc::clone(hook));
        let checked = self.on_workers(async move { start(&host, &mine, outside).await }).await;
        let exports = checked.unwrap_or_else(|| Err(call::error(hook, Kind::Link, "the gateway is stopping")))?;
        let Some(exports) = exports else { return Ok(()) };
        let (wanted, written) = match hook.manifest.kind {
            PluginKind::Transform => ("default", "export default function"),
            PluginKind::Delivery => ("shape", "export function shape"),
        };
        if exports.iter().any(|export| export == wanted) {
            return Ok(());
        }
        let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let kind = hook.manifest.kind.as_str();
        Err(call::error(hook, Kind::Reject, format!("a {kind} needs `{written}`; the script exports {found}")))
    }
}

/// A script's exports; nothing for other artefacts.
async fn start(
    host: &Arc<Inner>,
    hook: &Arc<Hook>,
    outside: tokio::runtime::Handle,
) -> Result<Option<Vec<String>>, HookError> {
    let _place = host.calls.acquire().await.ok();
    let _running = host.pulse.running();
    let nothing = Event::new("", EventKind::Message, "", 0, &Value::Null);
    let (about, capabilities) = (About::event(&nothing), Fixture::default().capabilities());
    let task = Task::new(hook.seat(), &Arc::new(nothing), &Arc::new(about), &Arc::new(capabilities), outside);
    let state = State { meter: Meter::new(hook.limits.memory), wasi: wasi::Handles::default(), task };
    let mut store = Store::new(&host.engine, state);
    call::fence(host, hook, &mut store);
    let adapter = &hook.compiled.inner.adapter;
    let is_script = hook.compiled.script.is_some();
    let started = tokio::time::timeout(hook.limits.wall, async {
        if is_script {
            return adapter.script_exports(&mut store).await.map(|read| read.map(Some));
        }
        adapter.instantiate(&mut store, hook.manifest.kind).await.map(|_| Ok(None))
    });
    match started.await {
        Err(_) => Err(call::error(hook, Kind::Wall, "does not come to its end when it is loaded")),
        Ok(Err(failed)) => Err(call::instantiation(hook, &store, &failed)),
        Ok(Ok(Err(why))) => Err(call::answered(hook, &store, Kind::Reject, why)),
        Ok(Ok(Ok(exports))) => Ok(exports),
    }
}
