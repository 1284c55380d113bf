//! The operator's settings. No grant: they are the plugin's own.

use super::Task;

impl Task {
    pub(crate) fn setting(&self, key: &str) -> Option<String> {
        self.hook.config.get(key).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    pub(crate) fn settings(&self) -> String {
        self.hook.config_text.clone()
    }
}
