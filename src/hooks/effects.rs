//! What a call asks for besides its answer. Staged: the gateway commits it together with the verdict, or not at all.

use serde::Serialize;

/// In the order in which the hook asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Effects {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kv: Vec<KvWrite>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<StagedSend>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.kv.is_empty() && self.sends.is_empty()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.kv.append(&mut other.kv);
        self.sends.append(&mut other.sends);
    }
}

/// A write to a plugin's storage in the event's instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KvWrite {
    pub plugin: String,
    pub key: String,
    #[serde(flatten)]
    pub change: KvChange,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum KvChange {
    Set {
        #[serde(serialize_with = "text")]
        value: Vec<u8>,
        ttl_seconds: Option<u32>,
    },
    Delete,
    /// To be applied to the stored number (decimal text, absent is 0), so that concurrent calls lose nothing.
    Add {
        by: i64,
        ttl_seconds: Option<u32>,
    },
}

fn text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// A message to be accepted like an `X-Async` send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StagedSend {
    /// The events that it causes carry this as `caused_by`.
    pub plugin: String,
    /// `{event id}.{plugin}.{n}`, of delivery hooks `{delivery id}.{plugin}.{step}.{n}`: the same in every try, so a
    /// repeated call cannot send twice, and another in every other call, so nothing is taken for a repetition.
    pub correlation_id: String,
    pub chat: String,
    pub text: String,
    pub reply_to: Option<String>,
    /// The quota in force, which is checked once more when the send is committed.
    #[serde(skip)]
    pub per_minute: u32,
}
