//! Lines of libraries name chats by phone number, the WhatsApp client's most of all. From level info upwards their long
//! digit runs are masked; below, in debug and trace, an operator asked for everything. Our own rooms keep to the rule by
//! themselves.

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Shorter runs are codes, counts and times.
const SHORTEST: usize = 7;

/// Formats events with `inner` and masks what libraries must not show.
pub struct Redacting<F> {
    pub inner: F,
    /// The lines are JSON: members that are numbers stay, so that the line can still be read.
    pub json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Redacting<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if *metadata.level() > Level::INFO || is_ours(metadata.target()) {
            return self.inner.format_event(context, to, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        to.write_str(&mask(&line, self.json))
    }
}

fn is_ours(target: &str) -> bool {
    target.split("::").next().is_some_and(|krate| krate == "kero" || krate.starts_with("kero_"))
}

/// `4915112345678@s.whatsapp.net` → `…78@s.whatsapp.net`
fn mask(line: &str, json: bool) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(|character: char| character.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let number = json && out.ends_with("\":") && !out.ends_with("\\\":");
        let belongs = |character: char| character.is_ascii_digit() || (number && character == '.');
        let (run, after) = from.split_at(from.find(|character| !belongs(character)).unwrap_or(from.len()));
        match run.get(run.len().saturating_sub(2)..) {
            Some(end) if run.len() >= SHORTEST && !number => {
                out.push('…');
                out.push_str(end);
            }
            _ => out.push_str(run),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_phone_numbers_and_nothing_else() {
        assert_eq!(mask("to 4915112345678@s.whatsapp.net failed", false), "to …78@s.whatsapp.net failed");
        assert_eq!(mask("49151123456", false), "…56");
        assert_eq!(mask("ä 49151123456 ö", false), "ä …56 ö");
        let line = "2026-01-02T03:04:05.123456Z code 479";
        assert_eq!(mask(line, false), line);
    }

    #[test]
    fn json_stays_json() {
        let line = r#"{"message":"to 4915112345678, \"jid\":4915112345678","elapsed":1.234567891,"rows":12345678}"#;
        let masked = mask(line, true);
        assert_eq!(masked, r#"{"message":"to …78, \"jid\":…78","elapsed":1.234567891,"rows":12345678}"#);
    }

    #[test]
    fn knows_our_rooms() {
        assert!(is_ours("kero") && is_ours("kero_gateway::worker"));
        assert!(!is_ours("Client/Receipt") && !is_ours("whatsapp_rust::send") && !is_ours("kerosene"));
    }
}
