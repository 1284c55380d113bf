//! Which messages are those of jobs. The job's row has their protobuf, and with it their secret, so that the client's own
//! copies of both need not be written.

use kero_domain::Recent;
use std::sync::{Mutex, PoisonError};

/// The client stores a message while it sends it and its secret a moment later; one that is forgotten by then is stored
/// twice, which harms nobody.
const REMEMBERED: usize = 1024;

/// The ids of the messages that jobs sent last.
pub(crate) struct Outgoing(Mutex<Recent<String>>);

impl Default for Outgoing {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(REMEMBERED)))
    }
}

impl Outgoing {
    /// The message with this id is a job's, and its protobuf is committed.
    pub(crate) fn add(&self, message_id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(message_id.to_owned());
    }

    pub(crate) fn has(&self, message_id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&message_id.to_owned())
    }
}
