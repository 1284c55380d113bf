//! Storage of a plugin in an instance. Reads see the call's own writes; writes are staged.

use super::{Refusal, Task, missing};
use crate::effects::{KvChange, KvWrite};

/// In the guest's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvError {
    Denied(String),
    TooLarge,
    Quota,
    Unavailable(String),
}

impl Refusal for KvError {
    fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Quota => "quota",
            Self::TooLarge | Self::Unavailable(_) => "failed",
        }
    }
}

/// An answer, unless the guest is stopped.
type Told<T> = wasmtime::Result<Result<T, KvError>>;

impl Task {
    pub(crate) async fn kv_get(&mut self, key: &str) -> Told<Option<Vec<u8>>> {
        self.begin("kv.get")?;
        let answer = self.get(key).await;
        Ok(self.told(answer))
    }

    pub(crate) async fn kv_set(&mut self, key: &str, value: Vec<u8>, ttl_seconds: Option<u32>) -> Told<()> {
        self.begin("kv.set")?;
        let answer = self.set(key, value, ttl_seconds).await;
        Ok(self.told(answer))
    }

    pub(crate) fn kv_delete(&mut self, key: &str) -> Told<()> {
        self.begin("kv.delete")?;
        let answer = self.kv_allowed(key).and_then(|_| self.stage(key, KvChange::Delete));
        Ok(self.told(answer))
    }

    pub(crate) async fn kv_increment(&mut self, key: &str, by: i64, ttl_seconds: Option<u32>) -> Told<i64> {
        self.begin("kv.increment")?;
        let answer = self.increment(key, by, ttl_seconds).await;
        Ok(self.told(answer))
    }

    async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        self.kv_allowed(key)?;
        // the last write that does not depend on what is stored decides; only additions after it count
        let from = self.staged(key).rposition(|change| !matches!(change, KvChange::Add { .. }));
        let base = match from.and_then(|at| self.staged(key).nth(at)) {
            Some(KvChange::Set { value, .. }) => Some(value.clone()),
            Some(_) => None,
            None => self.stored(key).await?,
        };
        let mut value = base;
        for change in self.staged(key).skip(from.map_or(0, |at| at + 1)) {
            if let KvChange::Add { by, .. } = change {
                value = Some(number(value.as_deref()).saturating_add(*by).to_string().into_bytes());
            }
        }
        Ok(value)
    }

    async fn set(&mut self, key: &str, value: Vec<u8>, ttl_seconds: Option<u32>) -> Result<(), KvError> {
        let most = self.kv_allowed(key)?;
        if value.len() > self.limits().kv_value {
            return Err(KvError::TooLarge);
        }
        self.kv_room(most, key.len() + value.len()).await?;
        self.stage(key, KvChange::Set { value, ttl_seconds })
    }

    /// Whether so many bytes more fit the quota. What was staged before counts in full, also where it replaces a value.
    async fn kv_room(&mut self, most: u64, more: usize) -> Result<(), KvError> {
        let used = self.kv_used().await?;
        let staged: usize = self.effects.kv.iter().map(KvWrite::bytes).sum();
        if used.saturating_add((staged + more) as u64) > most { Err(KvError::Quota) } else { Ok(()) }
    }

    async fn increment(&mut self, key: &str, by: i64, ttl_seconds: Option<u32>) -> Result<i64, KvError> {
        let most = self.kv_allowed(key)?;
        let before = self.get(key).await?;
        // a counter that is there grows by digits only
        if before.is_none() {
            self.kv_room(most, key.len() + NUMBER).await?;
        }
        let now = number(before.as_deref());
        self.stage(key, KvChange::Add { by, ttl_seconds })?;
        Ok(now.saturating_add(by))
    }

    /// The quota in bytes, if there is a grant.
    fn kv_allowed(&mut self, key: &str) -> Result<u64, KvError> {
        let Some(quota) = self.hook.grants.kv else {
            self.denied.insert("kv");
            return Err(KvError::Denied(missing("kv", "kv = \"1MiB\"")));
        };
        if key.is_empty() || key.len() > self.limits().kv_key {
            return Err(KvError::TooLarge);
        }
        Ok(quota.0)
    }

    fn stage(&mut self, key: &str, change: KvChange) -> Result<(), KvError> {
        if self.effects.kv.len() >= self.limits().kv_writes {
            return Err(KvError::Quota);
        }
        self.effects.kv.push(KvWrite { plugin: self.hook.manifest.name.to_string(), key: key.to_owned(), change });
        Ok(())
    }

    fn staged<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a KvChange> + ExactSizeIterator {
        let staged: Vec<&KvChange> =
            self.effects.kv.iter().filter(|write| write.key == key).map(|write| &write.change).collect();
        staged.into_iter()
    }

    async fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let (kv, scope, key) = (self.capabilities.kv.clone(), self.scope(), key.to_owned());
        let read = self.outside(async move { kv.get(&scope, &key).await }).await;
        read.and_then(|read| read).map_err(KvError::Unavailable)
    }

    async fn kv_used(&mut self) -> Result<u64, KvError> {
        if let Some(used) = self.kv_used {
            return Ok(used);
        }
        let (kv, scope) = (self.capabilities.kv.clone(), self.scope());
        let used = self.outside(async move { kv.used(&scope).await }).await;
        let used = used.and_then(|used| used).map_err(KvError::Unavailable)?;
        self.kv_used = Some(used);
        Ok(used)
    }
}

/// Bytes of the longest number.
const NUMBER: usize = 20;

impl KvWrite {
    /// What it may add to the storage.
    fn bytes(&self) -> usize {
        match &self.change {
            KvChange::Set { value, .. } => self.key.len() + value.len(),
            KvChange::Add { .. } => self.key.len() + NUMBER,
            KvChange::Delete => 0,
        }
    }
}

/// A counter: decimal text; everything else counts as 0.
fn number(value: Option<&[u8]>) -> i64 {
    value.and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
