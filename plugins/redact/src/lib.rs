//! Takes phone numbers, and on demand the text, out of events.

use kero_plugin::{Context, Event, Failure, Verdict};
use serde::Deserialize;
use serde_json::Value;

kero_plugin::transform!(handle);

/// Members that name things rather than people: their digits stay.
const KEPT: &[&str] =
    &["correlation_id", "ids", "media", "message_id", "recovered_by", "server_id", "target_message_id"];
/// Members that say what somebody wrote.
const WRITTEN: &[&str] = &["caption", "text"];
/// The shortest run of digits that is taken for a phone number.
const SHORTEST: usize = 7;

#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    /// How many digits at the end stay readable.
    keep_last: usize,
    text: Text,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep_last: 2, text: Text::Numbers }
    }
}

/// What becomes of texts and captions.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Text {
    /// Nothing.
    Keep,
    /// Phone numbers in them are masked.
    Numbers,
    /// They become `[redacted]`.
    Remove,
}

fn handle(event: Event, _: Context) -> Result<Verdict, Failure> {
    let settings: Settings = kero_plugin::config()?;
    let before = kero_plugin::data(&event)?;
    let mut data = before.clone();
    redact(&mut data, "", &settings);
    Ok(if data == before { Verdict::Pass } else { Verdict::data(&data) })
}

fn redact(value: &mut Value, name: &str, settings: &Settings) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut().filter(|(name, _)| !KEPT.contains(&name.as_str())) {
                redact(value, name, settings);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, name, settings)),
        Value::String(text) if WRITTEN.contains(&name) => match settings.text {
            Text::Keep => {}
            Text::Numbers => *text = mask(text, settings.keep_last),
            Text::Remove => *text = "[redacted]".to_owned(),
        },
        Value::String(text) if is_date(text) => {}
        Value::String(text) => *text = mask(text, settings.keep_last),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Masks every run of at least [`SHORTEST`] digits; up to two of blank, dot, hyphen and bracket inside a run do not end it.
fn mask(text: &str, keep_last: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut masked = characters.clone();
    let mut at = 0;
    while at < characters.len() {
        if !characters[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let mut digits = vec![at];
        while let Some(next) = next_digit(&characters, at) {
            digits.push(next);
            at = next;
        }
        if digits.len() >= SHORTEST {
            for &digit in &digits[..digits.len().saturating_sub(keep_last)] {
                masked[digit] = '*';
            }
        }
        at += 1;
    }
    masked.into_iter().collect()
}

/// The digit of the same run that follows the one at `at`.
fn next_digit(characters: &[char], at: usize) -> Option<usize> {
    let within = characters.iter().enumerate().skip(at + 1).take(3);
    let (next, _) = within.take_while(|(_, c)| c.is_ascii_digit() || " .-()".contains(**c)).find(|(_, c)| c.is_ascii_digit())?;
    Some(next)
}

/// Whether a member is a moment, as the gateway writes it (RFC 3339).
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T' && text.is_ascii()
}
