//! Results that are being committed while their chats go on.

use super::LaneKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// By chat: at most one each.
#[derive(Default)]
pub(super) struct Settling(Mutex<HashMap<LaneKey, watch::Receiver<()>>>);

/// One that is under way, until it is dropped.
pub(super) struct UnderWay {
    settling: Arc<Settling>,
    key: LaneKey,
    _ends: watch::Sender<()>,
}

impl Settling {
    /// Of a chat that has none.
    pub(super) fn begin(self: &Arc<Self>, key: LaneKey) -> UnderWay {
        let (ends, wait) = watch::channel(());
        self.lock().insert(key.clone(), wait);
        UnderWay { settling: Arc::clone(self), key, _ends: ends }
    }

    /// Returns when the chat has none.
    pub(super) async fn wait(&self, key: &LaneKey) {
        let found = self.lock().get(key).cloned();
        if let Some(mut wait) = found {
            // nothing is ever sent: it ends with the sender
            let _ = wait.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.settling.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::job;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_chat_waits_for_its_own_result_only() {
        let settling = Arc::new(Settling::default());
        let (own, other) = (LaneKey::of(&job("a")), LaneKey::of(&job("b")));
        let under_way = settling.begin(own.clone());
        settling.wait(&other).await;
        assert!(settling.wait(&own).now_or_never().is_none());
        let waiting = tokio::spawn({
            let (settling, own) = (Arc::clone(&settling), own.clone());
            async move { settling.wait(&own).await }
        });
        tokio::task::yield_now().await;
        drop(under_way);
        waiting.await.unwrap();
        settling.wait(&own).await;
        assert!(settling.lock().is_empty());
    }
}
