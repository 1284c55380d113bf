//! Attempts that wait for WhatsApp's acknowledgement of their message id.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// What the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckOutcome {
    Accepted,
    /// The nack's code.
    Refused(u32),
}

#[derive(Default)]
pub(crate) struct Acks {
    waiting: Mutex<HashMap<String, oneshot::Sender<AckOutcome>>>,
}

impl Acks {
    /// Waits for the acknowledgement of `message_id`; a later call for the same id takes the place of this one.
    pub(crate) fn expect(&self, message_id: &str) -> oneshot::Receiver<AckOutcome> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(message_id.to_owned(), sender);
        receiver
    }

    pub(crate) fn forget(&self, message_id: &str) {
        self.lock().remove(message_id);
    }

    pub(crate) fn resolve(&self, message_id: &str, error: Option<u32>) {
        if let Some(sender) = self.lock().remove(message_id) {
            let _ = sender.send(error.map_or(AckOutcome::Accepted, AckOutcome::Refused));
        }
    }

    /// A receipt proves that the server took the message, also when its acknowledgement was lost.
    pub(crate) fn receipt(&self, ids: &[String]) {
        for id in ids {
            self.resolve(id, None);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<AckOutcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
