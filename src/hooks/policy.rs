//! What becomes of an event that a hook fails on, and how often it is tried before.

use crate::error::Class;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A plugin's `on_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Deliver as if the hook were not there, with the header [`ERROR_HEADER`].
    Raw,
    /// The deliveries are written in state dead: visible, replayable.
    Dead,
    /// Nobody gets the event. A `message_ack` falls back to `raw` without the grant `drop-ack`.
    Drop,
}

/// Tells a receiver that a hook failed on what it gets: `plugin/kind`, several separated by commas.
pub const ERROR_HEADER: &str = "x-kero-hook-error";

/// Waits between tries of a hook that asks for them.
pub const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At once, on a fresh instance: the fault may have been the old instance's.
    Again,
    Later(Duration),
    /// The policy decides.
    GiveUp,
    /// Neither retry nor policy: the host cannot run the plugin, its events are held.
    Hold,
}

/// `failed` counts this hook's failed tries for this event, this one included.
pub fn step(class: Class, failed: u32) -> Step {
    match class {
        Class::Transient => {
            let wait = usize::try_from(failed).ok().and_then(|failed| BACKOFF.get(failed.saturating_sub(1)));
            wait.copied().map_or(Step::GiveUp, Step::Later)
        }
        Class::Permanent => Step::GiveUp,
        Class::Fault if failed <= 1 => Step::Again,
        Class::Fault => Step::GiveUp,
        Class::Host => Step::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_by_class() {
        let waits: Vec<Step> = (1..=4).map(|failed| step(Class::Transient, failed)).collect();
        assert_eq!(
            waits,
            vec![Step::Later(BACKOFF[0]), Step::Later(BACKOFF[1]), Step::Later(BACKOFF[2]), Step::GiveUp]
        );
        assert_eq!(step(Class::Permanent, 1), Step::GiveUp);
        assert_eq!((step(Class::Fault, 1), step(Class::Fault, 2)), (Step::Again, Step::GiveUp));
        assert_eq!(step(Class::Host, 9), Step::Hold);
    }
}
