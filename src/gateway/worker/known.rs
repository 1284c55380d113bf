//! Jobs that a lane knows without asking the database.
//!
//! A look-up reads the first few jobs of a chat. When these are all, whatever comes afterwards is told by accept; until
//! more comes than is kept here, or until anything else happens to the chat's rows, the next look-up can be saved. When
//! there are more, those that were read are the next ones, since what is accepted later stands behind them. The rows
//! stay the truth: an intent names the state that it needs, so a job that was cancelled or moved meanwhile is not sent
//! from here.

use super::LaneKey;
use kero_domain::{JobId, JobState, Timestamp};
use kero_store::Job;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Jobs kept for one instance.
const JOBS: usize = 1_024;
/// Chats remembered for one instance.
const CHATS: usize = 4_096;

#[derive(Default)]
pub(crate) struct Known {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    chats: HashMap<LaneKey, Chat>,
    jobs: usize,
}

#[derive(Default)]
struct Chat {
    jobs: BTreeMap<(Timestamp, JobId), Job>,
    knowledge: Knowledge,
}

/// What the jobs of a chat are.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Knowledge {
    /// Those accepted while the database is asked.
    #[default]
    Asking,
    /// The next ones; there are others.
    First,
    /// All that are unfinished.
    All,
}

/// What is next for a chat.
#[derive(Debug)]
pub(crate) enum Next {
    Run(Box<Job>),
    Empty,
    /// Only the database knows.
    Ask,
}

impl Known {
    /// Before the database is asked: jobs accepted from now on may not be in its answer.
    pub(crate) fn asking(&self, key: &LaneKey) {
        let mut inner = self.lock();
        inner.forget(key);
        if inner.chats.len() >= CHATS {
            *inner = Inner::default();
        }
        inner.chats.insert(key.clone(), Chat::default());
    }

    /// The database has these jobs of the chat behind the one that it gave; `whole`: and no others.
    pub(crate) fn found(&self, key: &LaneKey, jobs: Vec<Job>, whole: bool) {
        let mut inner = self.lock();
        if inner.jobs + jobs.len() > JOBS {
            inner.forget(key);
            return;
        }
        // gone when something happened to the chat meanwhile
        let Some(chat) = inner.chats.get_mut(key) else { return };
        let before = chat.jobs.len();
        if !whole {
            // they come after others that were not read
            chat.jobs.clear();
        }
        chat.jobs.extend(jobs.into_iter().map(|job| ((job.order_at, job.id), job)));
        chat.knowledge = if whole { Knowledge::All } else { Knowledge::First };
        let now = chat.jobs.len();
        inner.jobs = inner.jobs + now - before;
    }

    /// A job was accepted, and committed.
    pub(crate) fn accepted(&self, job: &Job) {
        let key = LaneKey::of(job);
        let mut inner = self.lock();
        let full = inner.jobs >= JOBS;
        let Some(chat) = inner.chats.get_mut(&key) else { return };
        if chat.knowledge == Knowledge::First {
            // it stands behind what was not read
            return;
        }
        if full || job.state != JobState::Queued {
            inner.forget(&key);
            return;
        }
        if chat.jobs.insert((job.order_at, job.id), job.clone()).is_none() {
            inner.jobs += 1;
        }
    }

    pub(crate) fn next(&self, key: &LaneKey) -> Next {
        let mut inner = self.lock();
        let Some(chat) = inner.chats.get_mut(key).filter(|chat| chat.knowledge != Knowledge::Asking) else {
            return Next::Ask;
        };
        match chat.jobs.pop_first() {
            Some((_, job)) => {
                inner.jobs -= 1;
                Next::Run(Box::new(job))
            }
            None if chat.knowledge == Knowledge::All => Next::Empty,
            None => Next::Ask,
        }
    }

    /// Something else happened to rows of the chat.
    pub(crate) fn forget(&self, key: &LaneKey) {
        self.lock().forget(key);
    }

    pub(crate) fn forget_all(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, key: &LaneKey) {
        if let Some(chat) = self.chats.remove(key) {
            self.jobs -= chat.jobs.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::job;

    fn key() -> LaneKey {
        LaneKey::of(&job("a"))
    }

    fn complete() -> Known {
        let known = Known::default();
        known.asking(&key());
        known.found(&key(), Vec::new(), true);
        known
    }

    fn run(known: &Known) -> Option<JobId> {
        match known.next(&key()) {
            Next::Run(job) => Some(job.id),
            Next::Empty => None,
            Next::Ask => panic!("asks"),
        }
    }

    fn asks(known: &Known) -> bool {
        matches!(known.next(&key()), Next::Ask)
    }

    #[test]
    fn a_chat_that_was_never_looked_up_is_asked_for() {
        let known = Known::default();
        known.accepted(&job("a"));
        assert!(asks(&known));
    }

    #[test]
    fn jobs_accepted_since_the_look_up_began_come_in_their_order() {
        let known = Known::default();
        known.asking(&key());
        let (first, second) = (job("a"), job("a"));
        known.accepted(&second);
        assert!(asks(&known), "the look-up has not answered");
        known.found(&key(), Vec::new(), true);
        known.accepted(&first);
        assert_eq!([run(&known), run(&known), run(&known)], [Some(first.id), Some(second.id), None]);
    }

    #[test]
    fn whatever_else_happens_to_the_chat_makes_it_ask() {
        let known = complete();
        known.forget(&key());
        assert!(asks(&known));
        known.asking(&key());
        known.forget(&key());
        known.found(&key(), vec![job("a")], true);
        assert!(asks(&known), "it happened during the look-up");
        let known = complete();
        known.accepted(&Job { state: JobState::Held, ..job("a") });
        assert!(asks(&known), "a job that waits for something is not kept");
        let known = complete();
        known.forget_all();
        assert!(asks(&known));
    }

    #[test]
    fn the_first_of_many_are_run_in_order_and_then_it_asks() {
        let known = Known::default();
        let (first, second, third) = (job("a"), job("a"), job("a"));
        known.asking(&key());
        known.accepted(&third);
        known.found(&key(), vec![first.clone(), second.clone()], false);
        known.accepted(&job("a"));
        assert_eq!([run(&known), run(&known)], [Some(first.id), Some(second.id)]);
        assert!(asks(&known), "others were accepted meanwhile");
        assert_eq!(known.lock().jobs, 0);
        // found and told: once
        known.asking(&key());
        known.accepted(&third);
        known.found(&key(), vec![third.clone()], true);
        assert_eq!([run(&known), run(&known)], [Some(third.id), None]);
        assert_eq!(known.lock().jobs, 0);
    }

    #[test]
    fn a_backlog_stays_in_the_database() {
        let known = complete();
        for _ in 0..JOBS {
            known.accepted(&job("a"));
        }
        known.accepted(&job("a"));
        assert!(asks(&known));
        assert_eq!(known.lock().jobs, 0);
        for n in 0..=CHATS {
            known.asking(&LaneKey::of(&job(&n.to_string())));
        }
        assert!(known.lock().chats.len() <= CHATS);
    }
}
