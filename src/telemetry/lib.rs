//! Logs and metrics. The only room that names the subscriber and the exporter; the others use the `tracing` and
//! `metrics` facades.
//!
//! No message text, phone number or secret is logged at level info or above. Our rooms keep to that by themselves;
//! for libraries, `redact` enforces it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod metrics;
mod redact;

pub use self::metrics::Metrics;

use redact::Redacting;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, JsonFields};
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("a log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends `tracing` events and the `log` records of libraries to standard error. Once per process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder
                .with_ansi(colours)
                .event_format(Redacting { inner: Format::default().with_ansi(colours), json: false })
                .finish()
                .try_init()
        }
        LogFormat::Json => {
            let json = Format::default().json().flatten_event(true).with_current_span(false);
            builder
                .with_ansi(false)
                .fmt_fields(JsonFields::new())
                .event_format(Redacting { inner: json, json: true })
                .finish()
                .try_init()
        }
    }?;
    Ok(())
}
