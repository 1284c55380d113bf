//! Messages of a plugin: queued with the verdict, limited per event and per chat.

use super::{Refusal, Task, missing};
use crate::effects::StagedSend;

/// In the guest's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    Denied(String),
    Quota(String),
    Invalid(String),
}

/// Bytes of a message: what WhatsApp takes as one text.
const TEXT: usize = 65_536;

impl Refusal for SendError {
    fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Quota(_) => "quota",
            Self::Invalid(_) => "failed",
        }
    }
}

impl Task {
    pub(crate) async fn send_text(
        &mut self,
        chat: String,
        text: String,
        reply_to: Option<String>,
    ) -> wasmtime::Result<Result<String, SendError>> {
        self.begin("send.text")?;
        let answer = self.text(chat, text, reply_to).await;
        Ok(self.told(answer))
    }

    async fn text(&mut self, chat: String, text: String, reply_to: Option<String>) -> Result<String, SendError> {
        let Some(grant) = self.hook.grants.send else {
            self.denied.insert("send");
            return Err(SendError::Denied(missing("send", "send = { per_chat_per_minute = 5 }")));
        };
        if text.trim().is_empty() || text.len() > TEXT {
            return Err(SendError::Invalid(format!("text: 1 to {TEXT} bytes, not only blanks")));
        }
        self.capabilities.send.check(&chat, &text).map_err(SendError::Invalid)?;
        let most = self.limits().sends as usize;
        if self.effects.sends.len() >= most {
            return Err(SendError::Quota(format!("at most {most} messages per event")));
        }
        let (quota, scope, to) = (self.capabilities.send.clone(), self.scope(), chat.clone());
        let per_minute = grant.per_chat_per_minute;
        let left =
            self.outside(async move { quota.left(&scope, &to, per_minute).await }).await.map_err(SendError::Quota)?;
        let staged = self.effects.sends.iter().filter(|send| send.chat == chat).count();
        if staged >= left as usize {
            return Err(SendError::Quota(format!("at most {per_minute} messages per chat and minute")));
        }
        let n = self.effects.sends.len() + 1;
        let correlation_id = self.scope().name('.', n);
        let plugin = self.hook.manifest.name.to_string();
        let correlation = correlation_id.clone();
        let send = StagedSend { plugin, correlation_id: correlation, chat, text, reply_to, per_minute };
        self.effects.sends.push(send);
        Ok(correlation_id)
    }
}
