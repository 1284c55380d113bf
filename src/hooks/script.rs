//! Reading a plain `.js` hook before it is accepted: its syntax, and whether it exports what its kind needs.

use crate::call;
use crate::capabilities::Scope;
use crate::engine::{Host, Inner};
use crate::error::HookError;
use crate::fixture::Fixture;
use crate::hook::Hook;
use crate::host::{State, Task, wasi};
use crate::limits::Meter;
use crate::manifest::Kind;
use std::sync::Arc;
use wasmtime::Store;

impl Host {
    /// Loads the script once, with no capability but its settings. The error is the script's own, with its line, or
    /// says which export is missing. Nothing to check for other artefacts.
    pub async fn check_script(&self, hook: &Arc<Hook>) -> Result<(), HookError> {
        if hook.compiled.script.is_none() {
            return Ok(());
        }
        let outside = tokio::runtime::Handle::current();
        let (host, mine) = (Arc::clone(&self.inner), Arc::clone(hook));
        let checked = self.on_workers(async move { exports(&host, &mine, outside).await }).await;
        let exports =
            checked.unwrap_or_else(|| Err(call::error(hook, crate::error::Kind::Link, "the gateway is stopping")))?;
        let (wanted, written) = match hook.manifest.kind {
            Kind::Transform => ("default", "export default function"),
            Kind::Delivery => ("shape", "export function shape"),
        };
        if exports.iter().any(|export| export == wanted) {
            return Ok(());
        }
        let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let kind = hook.manifest.kind.as_str();
        let detail = format!("a {kind} needs `{written}`; the script exports {found}");
        Err(call::error(hook, crate::error::Kind::Reject, detail))
    }
}

async fn exports(
    host: &Arc<Inner>,
    hook: &Arc<Hook>,
    outside: tokio::runtime::Handle,
) -> Result<Vec<String>, HookError> {
    let _running = host.pulse.running();
    let plugin = hook.manifest.name.to_string();
    let scope = Scope { plugin, instance: String::new(), event: String::new() };
    let task = Task::new(hook.seat(), scope, Fixture::default().capabilities(), outside);
    let state = State { meter: Meter::new(hook.limits.memory), wasi: wasi::Handles::default(), task };
    let mut store = Store::new(&host.engine, state);
    call::fence(host, hook, &mut store);
    let read = tokio::time::timeout(hook.limits.wall, hook.compiled.inner.adapter.script_exports(&mut store)).await;
    match read {
        Err(_) => {
            Err(call::error(hook, crate::error::Kind::Wall, "the script does not come to its end when it is loaded"))
        }
        Ok(Err(trapped)) => Err(call::classify(hook, &store, &trapped)),
        Ok(Ok(Err(why))) => Err(call::error(hook, crate::error::Kind::Reject, why)),
        Ok(Ok(Ok(exports))) => Ok(exports),
    }
}
