//! Whose turn it is in a lane: classes by weight, one turn of a chat at a time.

use super::LaneKey;
use kero_domain::Priority;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Keys that wait for a turn, by class.
#[derive(Default)]
pub(super) struct Ready {
    queues: [VecDeque<LaneKey>; 3],
    pub(super) known: HashSet<LaneKey>,
    /// Turns left in this round, by class.
    credit: [u32; 3],
    /// Ready keys whose first job says that it waits for the instance's rate.
    marked: HashSet<LaneKey>,
    /// Chats with a turn under way, and the keys of their other classes whose turn it was meanwhile: a chat has one
    /// message in flight.
    chats: HashMap<Arc<str>, Vec<LaneKey>>,
    /// Keys that are ready or running, as others see them.
    pub(super) busy: Arc<Mutex<HashSet<LaneKey>>>,
}

const CLASSES: [Priority; 3] = [Priority::Interactive, Priority::Bulk, Priority::Background];

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Bulk => 1,
        Priority::Background => 2,
    }
}

impl Ready {
    pub(super) fn new(busy: Arc<Mutex<HashSet<LaneKey>>>) -> Self {
        Self { busy, ..Self::default() }
    }

    pub(super) fn add(&mut self, key: LaneKey) {
        if self.known.insert(key.clone()) {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
            self.queues[class(key.priority)].push_back(key);
        }
    }

    /// A turn ended: the chat's other classes come first now.
    pub(super) fn ended(&mut self, key: &LaneKey) {
        for key in self.chats.remove(&key.chat).into_iter().flatten() {
            self.queues[class(key.priority)].push_front(key);
        }
    }

    /// A turn ended and none follows at once.
    pub(super) fn rest(&self, key: &LaneKey) {
        if !self.known.contains(key) {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }

    /// Weighted round robin; a class without work leaves its turns to the others.
    pub(super) fn take(&mut self) -> Option<LaneKey> {
        while !self.is_empty() {
            let next = |ready: &Self| (0..3).find(|i| ready.credit[*i] > 0 && !ready.queues[*i].is_empty());
            let index = next(self).or_else(|| {
                self.credit = CLASSES.map(Priority::weight);
                next(self)
            })?;
            let key = self.queues[index].pop_front()?;
            if let Some(waiting) = self.chats.get_mut(&key.chat) {
                waiting.push(key);
                continue;
            }
            self.credit[index] -= 1;
            self.chats.insert(key.chat.clone(), Vec::new());
            self.known.remove(&key);
            self.marked.remove(&key);
            return Some(key);
        }
        None
    }

    /// No key may have a turn now.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Ready keys that were not marked before, by class.
    pub(super) fn mark(&mut self) -> Vec<LaneKey> {
        let keys: Vec<LaneKey> =
            self.queues.iter().flatten().filter(|key| !self.marked.contains(key)).cloned().collect();
        self.marked.extend(keys.iter().cloned());
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_share_turns_eight_two_one_and_never_starve() {
        let mut ready = Ready::default();
        for n in 0..200 {
            for priority in CLASSES {
                ready.add(LaneKey { chat: format!("{n}").into(), priority });
            }
        }
        let take = |ready: &mut Ready| ready.take().inspect(|key| ready.ended(key));
        let first: Vec<_> = (0..110).filter_map(|_| take(&mut ready)).collect();
        let count = |priority| first.iter().filter(|key| key.priority == priority).count();
        assert_eq!((count(Priority::Interactive), count(Priority::Bulk), count(Priority::Background)), (80, 20, 10));
        assert_eq!(std::iter::from_fn(|| take(&mut ready)).count(), 490);
    }

    #[test]
    fn a_chat_has_one_turn_at_a_time_whatever_its_classes() {
        let mut ready = Ready::default();
        let key = |chat: &str, priority| LaneKey { chat: chat.into(), priority };
        for (chat, priority) in [("a", Priority::Interactive), ("a", Priority::Bulk), ("b", Priority::Bulk)] {
            ready.add(key(chat, priority));
        }
        let first = ready.take().unwrap();
        assert_eq!(first, key("a", Priority::Interactive));
        assert_eq!(ready.take(), Some(key("b", Priority::Bulk)), "the other class waits, the other chat does not");
        assert_eq!((ready.take(), ready.is_empty()), (None, true));
        ready.ended(&first);
        assert_eq!((ready.take(), ready.take()), (Some(key("a", Priority::Bulk)), None));
    }
}
