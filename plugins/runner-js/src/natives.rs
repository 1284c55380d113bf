//! The host's capabilities as functions for the prelude. Texts and numbers only: the prelude makes objects of them.

use crate::kero::plugin::{config, http, kv, log, random, send};
use crate::quote;
use rquickjs::{Ctx, Exception, Function, Object, Result};

/// Throws what the host answered, named after the function.
fn thrown(ctx: &Ctx<'_>, what: &str, why: &str) -> rquickjs::Error {
    Exception::throw_message(ctx, &format!("{what}: {why}"))
}

/// The same, marked as something that may work later: uncaught, it asks for another try, as in the SDK for Rust.
fn thrown_for_now(ctx: &Ctx<'_>, what: &str, why: &str) -> rquickjs::Error {
    match Exception::from_message(ctx.clone(), &format!("{what}: {why}")) {
        Ok(exception) => match exception.set("retry", true) {
            Ok(()) => exception.throw(),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

fn kv_error(ctx: &Ctx<'_>, what: &str, error: &kv::KvError) -> rquickjs::Error {
    match error {
        kv::KvError::Unavailable(why) => thrown_for_now(ctx, what, why),
        other => thrown(ctx, what, of_kv(other)),
    }
}

fn of_kv(error: &kv::KvError) -> &str {
    match error {
        kv::KvError::Denied(why) | kv::KvError::Unavailable(why) => why,
        kv::KvError::TooLarge => "the key or the value is too long",
        kv::KvError::Quota => "the storage that was granted is used up",
    }
}

fn of_http(error: &http::HttpError) -> &str {
    match error {
        http::HttpError::Denied(why) | http::HttpError::Failed(why) => why,
        http::HttpError::Timeout => "no answer in time",
        http::HttpError::TooLarge => "the answer is too large",
    }
}

fn of_send(error: &send::SendError) -> &str {
    match error {
        send::SendError::Denied(why) | send::SendError::Quota(why) | send::SendError::Invalid(why) => why,
    }
}

pub(crate) fn define(ctx: &Ctx<'_>) -> Result<()> {
    let natives = Object::new(ctx.clone())?;
    natives.set(
        "log",
        Function::new(ctx.clone(), |level: String, text: String| {
            let level = match level.as_str() {
                "debug" => log::Level::Debug,
                "warn" => log::Level::Warn,
                "error" => log::Level::Error,
                _ => log::Level::Info,
            };
            log::write(level, &text);
        })?,
    )?;
    natives.set("config", Function::new(ctx.clone(), config::all)?)?;
    // 53 bits: what a double holds
    natives.set("random", Function::new(ctx.clone(), || (random::number() >> 11) as f64 / (1u64 << 53) as f64)?)?;
    natives.set(
        "kvGet",
        Function::new(ctx.clone(), |ctx: Ctx<'_>, key: String| {
            let value = kv::get(&key).map_err(|error| kv_error(&ctx, "kv.get", &error))?;
            Ok::<_, rquickjs::Error>(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        })?,
    )?;
    natives.set(
        "kvSet",
        Function::new(ctx.clone(), |ctx: Ctx<'_>, key: String, value: String, ttl: Option<u32>| {
            kv::set(&key, value.as_bytes(), ttl).map_err(|error| kv_error(&ctx, "kv.set", &error))
        })?,
    )?;
    natives.set(
        "kvDelete",
        Function::new(ctx.clone(), |ctx: Ctx<'_>, key: String| {
            kv::delete(&key).map_err(|error| kv_error(&ctx, "kv.delete", &error))
        })?,
    )?;
    natives.set(
        "kvIncrement",
        Function::new(ctx.clone(), |ctx: Ctx<'_>, key: String, by: f64, ttl: Option<u32>| {
            let sum = kv::increment(&key, by as i64, ttl).map_err(|error| kv_error(&ctx, "kv.increment", &error))?;
            Ok::<_, rquickjs::Error>(sum as f64)
        })?,
    )?;
    natives.set(
        "sendText",
        Function::new(ctx.clone(), |ctx: Ctx<'_>, chat: String, text: String, reply_to: Option<String>| {
            send::text(&chat, &text, reply_to.as_deref()).map_err(|error| thrown(&ctx, "send.text", of_send(&error)))
        })?,
    )?;
    natives.set("fetch", Function::new(ctx.clone(), fetch)?)?;
    ctx.globals().set("__native", natives)
}

/// Headers go in as `[name, value, name, value, …]`; the answer comes out as JSON.
fn fetch(
    ctx: Ctx<'_>,
    method: String,
    url: String,
    headers: Vec<String>,
    body: String,
    timeout: Option<u32>,
) -> Result<String> {
    let headers =
        headers.chunks_exact(2).map(|it| http::Header { name: it[0].clone(), value: it[1].clone() }).collect();
    let request = http::Request { method, url, headers, body: body.into_bytes(), timeout_ms: timeout };
    let response = http::fetch(&request).map_err(|error| match &error {
        http::HttpError::Timeout | http::HttpError::Failed(_) => thrown_for_now(&ctx, "fetch", of_http(&error)),
        http::HttpError::Denied(_) | http::HttpError::TooLarge => thrown(&ctx, "fetch", of_http(&error)),
    })?;
    let pairs = response.headers.iter().map(|it| format!("[{},{}]", quote(&it.name), quote(&it.value)));
    Ok(format!(
        r#"{{"status":{},"headers":[{}],"body":{}}}"#,
        response.status,
        pairs.collect::<Vec<_>>().join(","),
        quote(&String::from_utf8_lossy(&response.body)),
    ))
}
