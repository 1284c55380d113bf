//! `--print-config`: the effective values as TOML, secrets masked by their own serializers.

use super::Config;
use serde_json::Value;
use std::fmt::Write;

/// The configuration as a TOML document.
pub fn print(config: &Config) -> anyhow::Result<String> {
    let Value::Object(keys) = serde_json::to_value(config)? else { return Ok(String::new()) };
    let mut text = String::new();
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_object()) {
        // Texts, numbers, truth values and lists of texts are written alike in JSON and TOML.
        writeln!(text, "{key} = {value}")?;
    }
    for (section, value) in &keys {
        let Value::Object(inner) = value else { continue };
        writeln!(text, "\n[{section}]")?;
        for (key, value) in inner {
            writeln!(text, "{key} = {value}")?;
        }
    }
    Ok(text)
}
