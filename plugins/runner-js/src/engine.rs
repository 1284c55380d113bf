//! One QuickJS runtime per instance, made at the first call.

use crate::kero::plugin::script;
use crate::kero::plugin::types::HookError;
use crate::natives;
use rquickjs::{CaughtError, Context, Ctx, Function, Module, Object, Runtime, Value};
use std::cell::OnceCell;

const PRELUDE: &str = include_str!("prelude.js");
/// QuickJS counts its own C stack; below the linker's 1 MiB, so that endless recursion is a `RangeError`.
const STACK: usize = 192 << 10;

thread_local! {
    static ENGINE: OnceCell<Context> = const { OnceCell::new() };
    static LOADED: OnceCell<Result<(), HookError>> = const { OnceCell::new() };
}

/// Gets the engine ready before there is a script; the host then freezes the memory.
#[unsafe(export_name = "wizer-initialize")]
extern "C" fn initialize() {
    ENGINE.with(|engine| {
        // what fails now fails again, and is told, at the first call
        if let Ok(started) = start() {
            let _ = engine.set(started);
        }
    });
}

/// Calls one of the prelude's entry points with JSON texts; it answers a list of strings.
pub(crate) fn call(entry: &str, arguments: &[String]) -> Result<Vec<String>, HookError> {
    ENGINE.with(|engine| {
        if engine.get().is_none() {
            let _ = engine.set(start()?);
        }
        let Some(context) = engine.get() else { return Err(HookError::Reject("no script engine".to_owned())) };
        LOADED.with(|loaded| loaded.get_or_init(|| load(context)).clone())?;
        context.with(|ctx| {
            let answer = (|| {
                let entry: Function = ctx.globals().get::<_, Object>("__kero")?.get(entry)?;
                let mut parsed = rquickjs::function::Args::new(ctx.clone(), arguments.len());
                for argument in arguments {
                    parsed.push_arg(ctx.json_parse(argument.as_str())?)?;
                }
                settle::<Vec<String>>(entry.call_arg(parsed)?)
            })();
            answer.map_err(|error| failure(&ctx, error))
        })
    })
}

/// Runs pending jobs until the value, if it is a promise, is there.
fn settle<'js, T: rquickjs::FromJs<'js>>(value: Value<'js>) -> rquickjs::Result<T> {
    match value.as_promise() {
        Some(promise) => promise.finish(),
        None => T::from_js(&value.ctx().clone(), value),
    }
}

/// QuickJS with the prelude, without a script.
fn start() -> Result<Context, HookError> {
    let broken = |error: rquickjs::Error| HookError::Reject(format!("the script engine could not start: {error}"));
    let runtime = Runtime::new().map_err(broken)?;
    runtime.set_max_stack_size(STACK);
    let context = Context::full(&runtime).map_err(broken)?;
    // asked at every 10,000th turn of a loop or call: a script that spins is ended where it does
    runtime.set_interrupt_handler(Some(Box::new(script::out_of_time)));
    context.with(|ctx| {
        let ran = natives::define(&ctx).and_then(|()| ctx.eval::<(), _>(PRELUDE));
        ran.map_err(|error| failure(&ctx, error))
    })?;
    Ok(context)
}

/// Reads the hook's own file.
fn load(context: &Context) -> Result<(), HookError> {
    context.with(|ctx| {
        let ran = (|| {
            let (module, evaluated) = Module::declare(ctx.clone(), script::name(), script::source())?.eval()?;
            settle::<()>(evaluated.into_value())?;
            let attach: Function = ctx.globals().get::<_, Object>("__kero")?.get("attach")?;
            attach.call::<_, ()>((module.namespace()?,))
        })();
        ran.map_err(|error| failure(&ctx, error))
    })
}

/// What was thrown, with its stack, or a request to retry.
fn failure(ctx: &Ctx<'_>, error: rquickjs::Error) -> HookError {
    match CaughtError::from_error(ctx, error) {
        CaughtError::Exception(exception) => {
            let message = exception.message().unwrap_or_default();
            if exception.get::<_, Option<bool>>("retry").ok().flatten() == Some(true) {
                return HookError::Retry(message);
            }
            let name = exception.get::<_, String>("name").unwrap_or_else(|_| "Error".to_owned());
            let stack = exception.stack().unwrap_or_default();
            HookError::Reject(format!("{name}: {message}\n{stack}").trim_end().to_owned())
        }
        CaughtError::Value(value) => {
            let shown = ctx.json_stringify(value).ok().flatten().and_then(|text| text.to_string().ok());
            HookError::Reject(format!("the script threw {}", shown.unwrap_or_else(|| "something".to_owned())))
        }
        CaughtError::Error(rquickjs::Error::WouldBlock) => {
            HookError::Reject("the script waits for a promise that nothing will settle".to_owned())
        }
        CaughtError::Error(error) => HookError::Reject(error.to_string()),
    }
}

/// Microseconds since 1970: the only thing that the engine itself asks the outside for.
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    crate::kero::plugin::clock::now() as f64 * 1000.0
}
