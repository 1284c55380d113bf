//! WASI, closed: clocks, random numbers, and standard output to the log. There is no file, no socket, no environment
//! and no code for any of them; what a guest's runtime imports beyond that is bound to functions that trap when they
//! are called, so that components of ordinary toolchains link.

use super::State;
use crate::error::CompileError;
use std::time::Duration;
use wasmtime::component::types::{Component as ComponentType, ComponentItem};
use wasmtime::component::{ComponentType as WasmType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Engine, StoreContextMut};

type Cx<'a> = StoreContextMut<'a, State>;

/// Deadlines of the timers that a guest waits for, in nanoseconds of the monotonic clock. A ring: a runtime drops a
/// timer soon after it made it.
#[derive(Default)]
pub(crate) struct Handles {
    deadlines: Vec<u64>,
    next: usize,
}

/// The handle of what is always ready: streams.
const READY: u32 = u32::MAX;

/// Pollables that a guest may hold; a runtime holds a few.
const POLLABLES: usize = 1024;
/// Bytes that one call of `get-random-bytes` may ask for.
const RANDOM: u64 = 64 << 10;

struct Pollable;
struct InputStream;
struct OutputStream;
struct IoError;
struct Closed;

#[derive(WasmType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(WasmType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// The only packages that guests' runtimes import. `wasi:http` is none: there is a grant for that.
const PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Binds every WASI 0.2 import of a component.
pub(crate) fn link(linker: &mut Linker<State>, engine: &Engine, component: &ComponentType) -> Result<(), CompileError> {
    for (import, item) in component.imports(engine) {
        let Some((interface, version)) = import.split_once('@') else { continue };
        if !version.starts_with("0.2.") || !PACKAGES.iter().any(|package| interface.starts_with(package)) {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        let refused = |error: wasmtime::Error| CompileError::UnknownImport {
            import: import.to_owned(),
            detail: format!("{error:#}"),
        };
        let mut bound = linker.instance(import).map_err(refused)?;
        for (name, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => bound.resource(name, resource(name), |_, _| Ok(())).map_err(refused)?,
                ComponentItem::ComponentFunc(_) if !open(&mut bound, interface, name).map_err(refused)? => {
                    let what = format!("{interface}#{name} is closed to hooks");
                    bound.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(what.clone()))).map_err(refused)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Closed>(),
    }
}

/// Binds one function that guests may call; false when it is none of those.
fn open(to: &mut LinkerInstance<'_, State>, interface: &str, name: &str) -> wasmtime::Result<bool> {
    match interface {
        "wasi:clocks/monotonic-clock" | "wasi:clocks/wall-clock" => clocks(to, interface, name),
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => random(to, name),
        "wasi:io/poll" => poll(to, name),
        "wasi:io/streams" => streams(to, name),
        _ => surroundings(to, name),
    }
}

/// What a runtime asks when it starts: the answer is always "nothing".
fn surroundings(to: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-environment" => to.func_wrap(name, |_: Cx, (): ()| Ok((Vec::<(String, String)>::new(),)))?,
        "get-arguments" => to.func_wrap(name, |_: Cx, (): ()| Ok((Vec::<String>::new(),)))?,
        "initial-cwd" => to.func_wrap(name, |_: Cx, (): ()| Ok((None::<String>,)))?,
        "get-directories" => to.func_wrap(name, |_: Cx, (): ()| Ok((Vec::<(Resource<Closed>, String)>::new(),)))?,
        "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr" => {
            to.func_wrap(name, |_: Cx, (): ()| Ok((None::<Resource<Closed>>,)))?;
        }
        "get-stdin" => to.func_wrap(name, |_: Cx, (): ()| Ok((Resource::<InputStream>::new_own(0),)))?,
        "get-stdout" => to.func_wrap(name, |_: Cx, (): ()| Ok((Resource::<OutputStream>::new_own(0),)))?,
        "get-stderr" => to.func_wrap(name, |_: Cx, (): ()| Ok((Resource::<OutputStream>::new_own(1),)))?,
        "[method]error.to-debug-string" => {
            to.func_wrap(name, |_: Cx, (_,): (Resource<IoError>,)| Ok(("closed".to_owned(),)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn clocks(to: &mut LinkerInstance<'_, State>, interface: &str, name: &str) -> wasmtime::Result<bool> {
    let wall = interface.ends_with("wall-clock");
    match name {
        "now" if wall => to.func_wrap(name, |mut cx: Cx, (): ()| {
            cx.data_mut().task.enter("wasi")?;
            let now = cx.data().task.capabilities.clock.now();
            Ok((Datetime { seconds: now / 1000, nanoseconds: u32::try_from(now % 1000).unwrap_or(0) * 1_000_000 },))
        })?,
        "resolution" if wall => {
            to.func_wrap(name, |_: Cx, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))?
        }
        "now" => to.func_wrap(name, |mut cx: Cx, (): ()| {
            cx.data_mut().task.enter("wasi")?;
            Ok((cx.data().task.capabilities.clock.monotonic(),))
        })?,
        "resolution" => to.func_wrap(name, |_: Cx, (): ()| Ok((1_000u64,)))?,
        "subscribe-instant" => to.func_wrap(name, |mut cx: Cx, (at,): (u64,)| Ok((pollable(&mut cx, at)?,)))?,
        "subscribe-duration" => to.func_wrap(name, |mut cx: Cx, (wait,): (u64,)| {
            let at = cx.data().task.capabilities.clock.monotonic().saturating_add(wait);
            Ok((pollable(&mut cx, at)?,))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn random(to: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-random-bytes" | "get-insecure-random-bytes" => to.func_wrap(name, |mut cx: Cx, (length,): (u64,)| {
            cx.data_mut().task.enter("wasi")?;
            if length > RANDOM {
                return Err(wasmtime::Error::msg(format!("at most {RANDOM} random bytes at once")));
            }
            let random = &cx.data().task.capabilities.random;
            let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
            bytes.truncate(usize::try_from(length)?);
            Ok((bytes,))
        })?,
        "get-random-u64" | "get-insecure-random-u64" => to.func_wrap(name, |mut cx: Cx, (): ()| {
            cx.data_mut().task.enter("wasi")?;
            Ok((cx.data().task.capabilities.random.next(),))
        })?,
        "insecure-seed" => to.func_wrap(name, |mut cx: Cx, (): ()| {
            cx.data_mut().task.enter("wasi")?;
            let random = &cx.data().task.capabilities.random;
            Ok(((random.next(), random.next()),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll(to: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]pollable.ready" => to.func_wrap(name, |mut cx: Cx, (one,): (Resource<Pollable>,)| {
            cx.data_mut().task.enter("wasi")?;
            Ok((ready_in(&cx, &one).is_zero(),))
        })?,
        "[method]pollable.block" => to.func_wrap_async(name, |mut cx: Cx, (one,): (Resource<Pollable>,)| {
            Box::new(async move {
                cx.data_mut().task.enter("wasi")?;
                tokio::time::sleep(ready_in(&cx, &one)).await;
                Ok(())
            })
        })?,
        "poll" => to.func_wrap_async(name, |mut cx: Cx, (all,): (Vec<Resource<Pollable>>,)| {
            Box::new(async move {
                cx.data_mut().task.enter("wasi")?;
                let Some(first) = all.iter().map(|one| ready_in(&cx, one)).min() else {
                    return Err(wasmtime::Error::msg("poll of nothing"));
                };
                tokio::time::sleep(first).await;
                let ready = all.iter().enumerate().filter(|(_, one)| ready_in(&cx, one) <= first);
                Ok((ready.filter_map(|(at, _)| u32::try_from(at).ok()).collect::<Vec<u32>>(),))
            })
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Input is at its end; output is the log and takes everything.
fn streams(to: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => {
            to.func_wrap(name, |mut cx: Cx, (_, _): (Resource<InputStream>, u64)| {
                cx.data_mut().task.enter("wasi")?;
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            })?;
        }
        "[method]input-stream.subscribe" => {
            to.func_wrap(name, |_: Cx, (_,): (Resource<InputStream>,)| Ok((Resource::<Pollable>::new_own(READY),)))?;
        }
        "[method]output-stream.subscribe" => {
            to.func_wrap(name, |_: Cx, (_,): (Resource<OutputStream>,)| Ok((Resource::<Pollable>::new_own(READY),)))?;
        }
        "[method]output-stream.check-write" => to.func_wrap(name, |mut cx: Cx, (_,): (Resource<OutputStream>,)| {
            cx.data_mut().task.enter("wasi")?;
            Ok((Ok::<u64, StreamError>(4096),))
        })?,
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            to.func_wrap(name, |mut cx: Cx, (out, bytes): (Resource<OutputStream>, Vec<u8>)| {
                let task = &mut cx.data_mut().task;
                task.enter("wasi")?;
                task.log.stream(usize::from(out.rep() == 1), &bytes);
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            to.func_wrap(name, |mut cx: Cx, (_,): (Resource<OutputStream>,)| {
                cx.data_mut().task.enter("wasi")?;
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn pollable(cx: &mut Cx, at: u64) -> wasmtime::Result<Resource<Pollable>> {
    cx.data_mut().task.enter("wasi")?;
    let timers = &mut cx.data_mut().wasi;
    let index = timers.next % POLLABLES;
    timers.next = index + 1;
    if index < timers.deadlines.len() {
        timers.deadlines[index] = at
    } else {
        timers.deadlines.push(at)
    }
    Ok(Resource::new_own(u32::try_from(index)?))
}

fn ready_in(cx: &Cx, one: &Resource<Pollable>) -> Duration {
    let at = cx.data().wasi.deadlines.get(one.rep() as usize).copied().unwrap_or(0);
    Duration::from_nanos(at.saturating_sub(cx.data().task.capabilities.clock.monotonic()))
}
