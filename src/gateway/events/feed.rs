//! Wakes those who follow a journal when it has grown. What grew is read from the database: nothing is buffered here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The newest number of each journal that somebody follows, by the instance's pk.
#[derive(Clone, Default)]
pub(crate) struct Feed(Arc<Mutex<HashMap<i64, watch::Sender<i64>>>>);

impl Feed {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of growth from now on; closed when the instance is deleted.
    pub(crate) fn follow(&self, instance_pk: i64) -> watch::Receiver<i64> {
        self.lock().entry(instance_pk).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(crate) fn grew(&self, instance_pk: i64, newest: i64) {
        let mut feed = self.lock();
        let Some(sender) = feed.get(&instance_pk) else { return };
        if sender.receiver_count() == 0 {
            feed.remove(&instance_pk);
        } else {
            // of two commits the later one may be told first
            sender.send_modify(|known| *known = newest.max(*known));
        }
    }

    pub(crate) fn end(&self, instance_pk: i64) {
        self.lock().remove(&instance_pk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_followers_and_forgets_journals_that_nobody_follows() {
        let feed = Feed::default();
        feed.grew(1, 5);
        let (mut one, mut two) = (feed.follow(1), feed.follow(1));
        assert!(!one.has_changed().unwrap());
        feed.grew(1, 7);
        feed.grew(1, 6);
        for receiver in [&mut one, &mut two] {
            receiver.changed().await.unwrap();
            assert_eq!(*receiver.borrow_and_update(), 7);
        }
        drop((one, two));
        feed.grew(1, 8);
        assert!(feed.lock().is_empty());
        let mut deleted = feed.follow(2);
        feed.end(2);
        assert!(deleted.changed().await.is_err());
    }
}
