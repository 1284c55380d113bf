//! The pure state machine of an instance: what happened goes in, what to do comes out. No I/O, no clock.

use kero_domain::retry::jitter;
use kero_domain::{Cause, InstanceStatus, Timestamp};
use std::time::Duration;

/// What the machine remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub status: InstanceStatus,
    pub cause: Option<Cause>,
    pub since: Timestamp,
    /// Should be connected; survives a restart.
    pub wanted: bool,
    /// Connection attempts since the last success.
    pub attempts: u32,
    pub next_retry_at: Option<Timestamp>,
    pub paired: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Connect,
    Disconnect,
    LoggedOutByRequest,
    RetryDue,
    LinkPairing,
    LinkPaired,
    LinkConnected,
    LinkLost,
    LinkClosed(Cause),
    PairingEnded(Cause),
    StartFailed(Cause),
    StorageFailed,
}

/// What to do next, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    StartLink { pair: bool },
    StopLink,
    AbandonLink,
    ForgetDevice,
    RetryAt(Timestamp),
    CancelRetry,
    StoreWanted(bool),
    Publish,
}

/// Waits before reconnects.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub base: Duration,
    pub ceiling: Duration,
}

impl State {
    /// One step. `random` in 0..1 spreads the waits.
    pub fn step(&mut self, input: Input, now: Timestamp, backoff: Backoff, random: f64) -> Vec<Action> {
        use InstanceStatus as S;
        match input {
            Input::Connect => match self.status {
                S::Connected | S::Pairing => self.want(true),
                S::Connecting if self.next_retry_at.is_none() => self.want(true),
                _ => {
                    let mut actions = self.want(true);
                    self.attempts = 0;
                    self.next_retry_at = None;
                    let status = if self.paired { S::Connecting } else { S::Pairing };
                    self.enter(status, None, now);
                    actions.extend([Action::CancelRetry, Action::StartLink { pair: !self.paired }, Action::Publish]);
                    actions
                }
            },
            Input::Disconnect => {
                let mut actions = self.want(false);
                self.next_retry_at = None;
                let changed = !matches!(self.status, S::Disconnected | S::LoggedOut);
                if changed {
                    self.enter(S::Disconnected, Some(Cause::Requested), now);
                }
                actions.extend([Action::CancelRetry, Action::StopLink]);
                if changed {
                    actions.push(Action::Publish);
                }
                actions
            }
            Input::LoggedOutByRequest => self.log_out(Cause::LogoutRequested, now),
            Input::RetryDue => {
                if !self.wanted || self.next_retry_at.take().is_none() {
                    return Vec::new();
                }
                vec![Action::StartLink { pair: !self.paired }]
            }
            Input::LinkPairing => {
                if self.status == S::Pairing {
                    return Vec::new();
                }
                self.enter(S::Pairing, None, now);
                vec![Action::Publish]
            }
            Input::LinkPaired => {
                self.paired = true;
                self.enter(S::Connecting, None, now);
                vec![Action::Publish]
            }
            Input::LinkConnected => {
                self.attempts = 0;
                self.next_retry_at = None;
                self.paired = true;
                if self.status == S::Connected {
                    return Vec::new();
                }
                self.enter(S::Connected, None, now);
                vec![Action::CancelRetry, Action::Publish]
            }
            Input::LinkLost => self.lost(Cause::ConnectionLost, now, backoff, random),
            Input::StartFailed(cause) if cause.reconnects() => self.lost(cause, now, backoff, random),
            Input::StartFailed(cause) => self.close(cause, now),
            Input::LinkClosed(cause) => match cause {
                Cause::DeviceRemoved => self.log_out(cause, now),
                cause if cause.reconnects() => self.lost(cause, now, backoff, random),
                cause => self.close(cause, now),
            },
            Input::PairingEnded(cause) => {
                let mut actions = self.want(false);
                self.enter(S::Disconnected, Some(cause), now);
                actions.extend([Action::StopLink, Action::Publish]);
                actions
            }
            Input::StorageFailed => {
                let mut actions = vec![Action::AbandonLink];
                actions.extend(self.lost(Cause::StorageFailed, now, backoff, random));
                actions
            }
        }
    }

    fn want(&mut self, wanted: bool) -> Vec<Action> {
        if self.wanted == wanted {
            return Vec::new();
        }
        self.wanted = wanted;
        vec![Action::StoreWanted(wanted)]
    }

    fn enter(&mut self, status: InstanceStatus, cause: Option<Cause>, now: Timestamp) {
        if self.status != status || self.cause != cause {
            self.since = now;
        }
        self.status = status;
        self.cause = cause;
    }

    fn lost(&mut self, cause: Cause, now: Timestamp, backoff: Backoff, random: f64) -> Vec<Action> {
        if !self.wanted {
            return Vec::new();
        }
        let factor = 1u32.checked_shl(self.attempts.min(20)).unwrap_or(u32::MAX);
        let wait = jitter(backoff.base.saturating_mul(factor).min(backoff.ceiling), random);
        self.attempts = self.attempts.saturating_add(1);
        let at = now.after(wait);
        self.next_retry_at = Some(at);
        self.enter(InstanceStatus::Connecting, Some(cause), now);
        vec![Action::StopLink, Action::RetryAt(at), Action::Publish]
    }

    /// Stops until an operator connects again: replaced, banned, outdated, refused.
    fn close(&mut self, cause: Cause, now: Timestamp) -> Vec<Action> {
        let mut actions = self.want(false);
        self.next_retry_at = None;
        self.enter(InstanceStatus::Failed, Some(cause), now);
        actions.extend([Action::CancelRetry, Action::StopLink, Action::Publish]);
        actions
    }

    fn log_out(&mut self, cause: Cause, now: Timestamp) -> Vec<Action> {
        let mut actions = self.want(false);
        self.next_retry_at = None;
        self.paired = false;
        self.enter(InstanceStatus::LoggedOut, Some(cause), now);
        actions.extend([Action::CancelRetry, Action::AbandonLink, Action::ForgetDevice, Action::Publish]);
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), ceiling: Duration::from_secs(60) };

    fn fresh(paired: bool) -> State {
        State {
            status: InstanceStatus::Disconnected,
            cause: None,
            since: Timestamp(0),
            wanted: false,
            attempts: 0,
            next_retry_at: None,
            paired,
        }
    }

    fn drive(state: &mut State, inputs: &[Input]) -> Vec<Action> {
        inputs.iter().flat_map(|input| state.step(input.clone(), Timestamp(1_000), BACKOFF, 0.5)).collect()
    }

    #[test]
    fn pairs_connects_and_comes_back() {
        let mut state = fresh(false);
        let actions = drive(&mut state, &[Input::Connect]);
        assert!(actions.contains(&Action::StartLink { pair: true }));
        assert_eq!(state.status, InstanceStatus::Pairing);
        drive(&mut state, &[Input::LinkPaired, Input::LinkConnected]);
        assert_eq!(state.status, InstanceStatus::Connected);
        let actions = drive(&mut state, &[Input::LinkLost]);
        assert!(actions.iter().any(|a| matches!(a, Action::RetryAt(_))));
        assert_eq!((state.status, state.cause), (InstanceStatus::Connecting, Some(Cause::ConnectionLost)));
        assert_eq!(drive(&mut state, &[Input::RetryDue]), [Action::StartLink { pair: false }]);
    }

    #[test]
    fn two_connects_start_one_link() {
        let mut state = fresh(true);
        let actions = drive(&mut state, &[Input::Connect, Input::Connect]);
        assert_eq!(actions.iter().filter(|a| matches!(a, Action::StartLink { .. })).count(), 1);
    }

    #[test]
    fn never_reconnects_by_itself_after_an_end_that_needs_an_operator() {
        for cause in Cause::ALL.iter().filter(|c| !c.reconnects()) {
            let mut state = fresh(true);
            let actions = drive(
                &mut state,
                &[Input::Connect, Input::LinkConnected, Input::LinkClosed(*cause), Input::LinkLost, Input::RetryDue],
            );
            assert!(!state.wanted, "{cause}");
            assert!(!actions.iter().any(|a| matches!(a, Action::RetryAt(_))), "{cause}");
        }
    }

    #[test]
    fn waits_grow_and_stay_below_the_ceiling() {
        let mut state = fresh(true);
        drive(&mut state, &[Input::Connect]);
        let mut last = 0;
        for _ in 0..30 {
            drive(&mut state, &[Input::LinkLost]);
            let wait = state.next_retry_at.unwrap().0 - 1_000;
            assert!(wait >= last && wait <= 72_000, "{wait}");
            last = wait.min(60_000);
        }
    }

    proptest! {
        #[test]
        fn no_sequence_leaves_a_wanted_instance_without_link_or_retry(inputs in proptest::collection::vec(prop_oneof![
            Just(Input::Connect), Just(Input::Disconnect), Just(Input::RetryDue), Just(Input::LinkPaired), Just(Input::LinkConnected), Just(Input::LinkLost),
            Just(Input::LinkClosed(Cause::Replaced)), Just(Input::LinkClosed(Cause::DeviceRemoved)), Just(Input::PairingEnded(Cause::PairingTimeout)),
            Just(Input::StartFailed(Cause::Unreachable)), Just(Input::StorageFailed), Just(Input::LoggedOutByRequest)], 0..40)) {
            let mut state = fresh(true);
            let mut link = false;
            for input in inputs {
                // a link event can only come from a link
                if !link && matches!(input, Input::LinkPaired | Input::LinkConnected | Input::LinkLost | Input::LinkClosed(_) | Input::PairingEnded(_)) { continue; }
                for action in state.step(input, Timestamp(0), BACKOFF, 0.5) {
                    match action {
                        Action::StartLink { .. } => { prop_assert!(!link, "a second link"); link = true; }
                        Action::StopLink | Action::AbandonLink => link = false,
                        _ => {}
                    }
                }
                if state.wanted { prop_assert!(link || state.next_retry_at.is_some(), "{state:?}"); }
            }
        }
    }
}
