//! The words a hook is written with, over the generated bindings.

use crate::bindings::kero::plugin as host;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use host::types::{AckStatus, Body, Context, Event, Header, HookError as Failure, Message, MessageAck, Receipt};
pub use host::{http, kv, send};

#[cfg(feature = "delivery")]
pub use crate::bindings::exports::kero::plugin::on_delivery::{Judgement, Request, Response};
#[cfg(feature = "transform")]
pub use crate::bindings::exports::kero::plugin::on_event::{Routing, Verdict};

/// The time, in Unix milliseconds.
pub fn clock() -> u64 {
    host::clock::now()
}

/// 64 random bits.
pub fn random() -> u64 {
    host::random::number()
}

/// The operator's settings, as a type of the plugin's own.
pub fn config<T: DeserializeOwned>() -> Result<T, Failure> {
    serde_json::from_str(&host::config::all()).map_err(|error| Failure::Reject(format!("config: {error}")))
}

/// The event's `data` object.
pub fn data(event: &Event) -> Result<Value, Failure> {
    Ok(serde_json::from_str(&event.data)?)
}

#[cfg(feature = "transform")]
impl Verdict {
    /// Replace the event's `data`.
    pub fn data(data: &Value) -> Self {
        Self::Replace(data.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Reject(format!("JSON: {error}"))
    }
}

impl From<kv::KvError> for Failure {
    fn from(error: kv::KvError) -> Self {
        match error {
            kv::KvError::Unavailable(why) => Self::Retry(format!("kv: {why}")),
            kv::KvError::Denied(why) => Self::Reject(format!("kv: {why}")),
            kv::KvError::TooLarge => Self::Reject("kv: the key or the value is too long".to_owned()),
            kv::KvError::Quota => Self::Reject("kv: the storage that was granted is used up".to_owned()),
        }
    }
}

impl From<http::HttpError> for Failure {
    fn from(error: http::HttpError) -> Self {
        match error {
            http::HttpError::Denied(why) => Self::Reject(format!("http: {why}")),
            http::HttpError::TooLarge => Self::Reject("http: the answer is too large".to_owned()),
            http::HttpError::Timeout => Self::Retry("http: no answer in time".to_owned()),
            http::HttpError::Failed(why) => Self::Retry(format!("http: {why}")),
        }
    }
}

impl From<send::SendError> for Failure {
    fn from(error: send::SendError) -> Self {
        match error {
            send::SendError::Denied(why) | send::SendError::Quota(why) | send::SendError::Invalid(why) => {
                Self::Reject(format!("send: {why}"))
            }
        }
    }
}

/// Lines of the plugin's log.
pub mod log {
    use super::host::log;

    pub fn debug(message: impl AsRef<str>) {
        log::write(log::Level::Debug, message.as_ref());
    }
    pub fn info(message: impl AsRef<str>) {
        log::write(log::Level::Info, message.as_ref());
    }
    pub fn warn(message: impl AsRef<str>) {
        log::write(log::Level::Warn, message.as_ref());
    }
    pub fn error(message: impl AsRef<str>) {
        log::write(log::Level::Error, message.as_ref());
    }
}

/// Puts a panic's message into the log before it becomes a trap.
#[doc(hidden)]
pub fn begin() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| log::error(panic.to_string())));
    });
}

/// Makes a function `fn(Event, Context) -> Result<Verdict, Failure>` the plugin's hook.
#[cfg(feature = "transform")]
#[macro_export]
macro_rules! transform {
    ($handle:path) => {
        struct KeroHook;
        impl $crate::bindings::exports::kero::plugin::on_event::Guest for KeroHook {
            fn handle(context: $crate::Context, event: $crate::Event) -> Result<$crate::Verdict, $crate::Failure> {
                $crate::begin();
                $handle(event, context)
            }
        }
        $crate::bindings::export!(KeroHook with_types_in $crate::bindings);
    };
}

/// Makes `fn(Event, Request, Context) -> Result<Request, Failure>` and, when given,
/// `fn(Request, Response, Judgement, Context) -> Result<Judgement, Failure>` the plugin's hook.
#[cfg(feature = "delivery")]
#[macro_export]
macro_rules! delivery {
    ($shape:path) => {
        $crate::delivery!($shape, $crate::as_usual);
    };
    ($shape:path, $judge:path) => {
        struct KeroHook;
        impl $crate::bindings::exports::kero::plugin::on_delivery::Guest for KeroHook {
            fn shape(
                context: $crate::Context,
                event: $crate::Event,
                request: $crate::Request,
            ) -> Result<$crate::Request, $crate::Failure> {
                $crate::begin();
                $shape(event, request, context)
            }
            fn judge(
                context: $crate::Context,
                request: $crate::Request,
                response: $crate::Response,
                usual: $crate::Judgement,
            ) -> Result<$crate::Judgement, $crate::Failure> {
                $crate::begin();
                $judge(request, response, usual, context)
            }
        }
        $crate::bindings::export!(KeroHook with_types_in $crate::bindings);
    };
}

/// The gateway's own judgement.
#[cfg(feature = "delivery")]
#[doc(hidden)]
pub fn as_usual(_: Request, _: Response, usual: Judgement, _: Context) -> Result<Judgement, Failure> {
    Ok(usual)
}
