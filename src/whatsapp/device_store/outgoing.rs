//! Which messages are those of jobs. The job's row has their protobuf, and with it their secret, so that the client's own
//! copies of both need not be written.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Ids remembered at least. The client stores a message while it sends it and its secret a moment later; one that is
/// forgotten by then is stored twice, which harms nobody.
const REMEMBERED: usize = 1024;

/// The ids of the messages that jobs sent last.
#[derive(Default)]
pub(crate) struct Outgoing {
    ids: Mutex<[HashSet<String>; 2]>,
}

impl Outgoing {
    /// The message with this id is a job's, and its protobuf is committed.
    pub(crate) fn add(&self, message_id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids[0].len() >= REMEMBERED {
            ids.swap(0, 1);
            ids[0].clear();
        }
        ids[0].insert(message_id.to_owned());
    }

    pub(crate) fn has(&self, message_id: &str) -> bool {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().any(|ids| ids.contains(message_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_than_twice_as_many() {
        let outgoing = Outgoing::default();
        for n in 0..10 * REMEMBERED {
            outgoing.add(&n.to_string());
            assert!(outgoing.has(&n.saturating_sub(REMEMBERED - 1).to_string()), "{n}");
        }
        assert!(!outgoing.has("0"));
        assert!(outgoing.ids.lock().unwrap().iter().map(HashSet::len).sum::<usize>() <= 2 * REMEMBERED);
    }
}
