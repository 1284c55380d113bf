//! What a message says.

use serde::{Deserialize, Serialize};

/// The longest text in UTF-8 bytes (WhatsApp clients cut at 65,536 characters).
pub const MAX_TEXT_CHARS: usize = 65_536;

/// The content of a send, as it is stored with the job and put on the queue (`type` and `payload` of a MessageJob).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload", rename_all = "snake_case")]
pub enum Content {
    Text(Text),
}

/// Plain text, formatted by WhatsApp's own marks (`*bold*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("message must not be empty")]
    EmptyText,
    #[error("message must have at most 65536 characters")]
    LongText,
    #[error("message must not contain U+0000")]
    Nul,
}

impl Content {
    pub fn text(message: impl Into<String>) -> Self {
        Self::Text(Text { message: message.into() })
    }

    /// The kind's name in jobs, queue elements and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
        }
    }

    pub fn validate(&self) -> Result<(), ContentError> {
        match self {
            Self::Text(Text { message }) => {
                // zero-width characters alone show nothing, and WhatsApp drops such a message silently
                let blank =
                    |c: char| c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
                if message.chars().all(blank) {
                    return Err(ContentError::EmptyText);
                }
                if message.contains('\0') {
                    return Err(ContentError::Nul);
                }
                if message.chars().count() > MAX_TEXT_CHARS {
                    return Err(ContentError::LongText);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_before_it_is_accepted() {
        assert!(Content::text("hi").validate().is_ok());
        assert!(Content::text("x".repeat(MAX_TEXT_CHARS)).validate().is_ok());
        assert_eq!(Content::text("").validate(), Err(ContentError::EmptyText));
        assert_eq!(Content::text("\u{200b} \n").validate(), Err(ContentError::EmptyText));
        assert_eq!(Content::text("x".repeat(MAX_TEXT_CHARS + 1)).validate(), Err(ContentError::LongText));
        assert_eq!(Content::text("a\0").validate(), Err(ContentError::Nul));
    }

    #[test]
    fn serialises_as_type_and_payload() {
        let json = serde_json::to_value(Content::text("hi")).unwrap();
        assert_eq!(json, serde_json::json!({"type": "text", "payload": {"message": "hi"}}));
    }
}
