//! Log lines of the libraries that speak to WhatsApp name chats by phone number. From level info upwards their long
//! digit runs are masked; below, in debug and trace, an operator asked for everything.

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Crates whose lines are masked.
const LIBRARIES: [&str; 4] = ["whatsapp_rust", "wacore", "waproto", "Client"];

/// Shorter runs are codes, counts and times.
const SHORTEST: usize = 7;

/// Formats events with `F` and masks what libraries must not show.
pub struct Redacting<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for Redacting<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if *metadata.level() > Level::INFO || !is_library(metadata.target()) {
            return self.0.format_event(context, to, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        to.write_str(&mask(&line))
    }
}

fn is_library(target: &str) -> bool {
    LIBRARIES.iter().any(|name| target.starts_with(name))
}

/// `4915112345678@s.whatsapp.net` → `…78@s.whatsapp.net`
fn mask(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut run = String::new();
    for character in line.chars().chain(std::iter::once('\0')) {
        if character.is_ascii_digit() {
            run.push(character);
            continue;
        }
        match run.get(run.len().saturating_sub(2)..) {
            Some(end) if run.len() >= SHORTEST => {
                out.push('…');
                out.push_str(end);
            }
            _ => out.push_str(&run),
        }
        run.clear();
        if character != '\0' {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_phone_numbers_and_nothing_else() {
        assert_eq!(mask("to 4915112345678@s.whatsapp.net failed"), "to …78@s.whatsapp.net failed");
        assert_eq!(mask("49151123456"), "…56");
        assert_eq!(mask("2026-01-02T03:04:05.123456Z code 479"), "2026-01-02T03:04:05.123456Z code 479");
    }

    #[test]
    fn knows_the_libraries() {
        assert!(is_library("whatsapp_rust::send") && is_library("wacore_libsignal") && !is_library("kero_gateway"));
    }
}
