//! An object under construction: members keep the order in which they were put.

use kero_domain::address::Identity;
use serde_json::{Map, Value};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Data(Map<String, Value>);

impl Data {
    pub(crate) fn put(&mut self, key: &str, value: impl Into<Member>) {
        self.0.insert(key.to_owned(), value.into().0);
    }

    /// Absent stays absent: no nulls, no placeholders.
    pub(crate) fn put_some(&mut self, key: &str, value: Option<impl Into<Member>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Like [`Self::put_some`], and an empty text is absent too.
    pub(crate) fn put_text(&mut self, key: &str, value: Option<&str>) {
        self.put_some(key, value.filter(|text| !text.is_empty()));
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_value(self) -> Value {
        let mut value = Value::Object(self.0);
        kero_domain::text::storable_json(&mut value);
        value
    }
}

/// What may be put.
pub(crate) struct Member(Value);

macro_rules! members {
    ($($from:ty),+) => { $(impl From<$from> for Member { fn from(value: $from) -> Self { Self(value.into()) } })+ };
}
members!(&str, String, bool, i64, u64, u32, i32, f64, Vec<String>, Vec<Value>, Value);

impl From<&Identity> for Member {
    fn from(identity: &Identity) -> Self {
        let mut data = Data::default();
        data.put_some("phone", identity.phone.as_deref());
        data.put_some("lid", identity.lid.as_deref());
        data.put_some("jid", identity.jid.as_deref());
        Self(Value::Object(data.0))
    }
}

impl From<Data> for Member {
    fn from(data: Data) -> Self {
        Self(Value::Object(data.0))
    }
}
