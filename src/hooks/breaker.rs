//! The breaker of one plugin: stops calling what only fails. Pure: the time is a parameter.

use std::collections::VecDeque;

/// Faults in a row that open it.
const IN_A_ROW: u32 = 5;
/// Or: of the last 20 calls within a minute, more than half.
const WINDOW_CALLS: usize = 20;
const WINDOW_MS: i64 = 60_000;
/// How long it stays open before one call is let through.
pub const PROBE_AFTER_MS: i64 = 30_000;

#[derive(Debug, Default)]
pub struct Breaker {
    recent: VecDeque<(i64, bool)>,
    faults_in_a_row: u32,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        probe_at: i64,
    },
    /// One call is under way.
    Probing {
        since: i64,
    },
}

/// Whether the plugin may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Call,
    /// Not before this moment (Unix milliseconds): `raw` plugins are passed by, others' events are held.
    Shut {
        until: i64,
    },
}

impl Breaker {
    pub fn ask(&mut self, now: i64) -> Gate {
        match self.state {
            State::Closed => Gate::Call,
            State::Open { probe_at } if now < probe_at => Gate::Shut { until: probe_at },
            // a probe whose caller vanished is given up after the same time
            State::Probing { since } if now < since + PROBE_AFTER_MS => Gate::Shut { until: since + PROBE_AFTER_MS },
            State::Open { .. } | State::Probing { .. } => {
                self.state = State::Probing { since: now };
                Gate::Call
            }
        }
    }

    /// A call ended. `fault` is the plugin's own ([`crate::error::Class::Fault`]); a rejected event is none.
    /// Answers true when this opened the breaker.
    pub fn record(&mut self, now: i64, fault: bool) -> bool {
        if let State::Probing { .. } = self.state {
            if fault {
                self.state = State::Open { probe_at: now + PROBE_AFTER_MS };
            } else {
                *self = Self::default();
            }
            return false;
        }
        self.recent.push_back((now, fault));
        while self.recent.len() > WINDOW_CALLS || self.recent.front().is_some_and(|(at, _)| *at < now - WINDOW_MS) {
            self.recent.pop_front();
        }
        self.faults_in_a_row = if fault { self.faults_in_a_row.saturating_add(1) } else { 0 };
        let faults = self.recent.iter().filter(|(_, fault)| *fault).count();
        let too_many = self.recent.len() == WINDOW_CALLS && faults * 2 > WINDOW_CALLS;
        if self.state == State::Closed && fault && (self.faults_in_a_row >= IN_A_ROW || too_many) {
            self.state = State::Open { probe_at: now + PROBE_AFTER_MS };
            return true;
        }
        false
    }

    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_five_in_a_row_and_probes() {
        let mut breaker = Breaker::default();
        for n in 0..4 {
            assert!(!breaker.record(n, true));
            assert_eq!(breaker.ask(n), Gate::Call);
        }
        assert!(breaker.record(4, true));
        assert_eq!(breaker.ask(5), Gate::Shut { until: 30_004 });
        assert_eq!(breaker.ask(30_004), Gate::Call, "the probe");
        assert_eq!(breaker.ask(30_005), Gate::Shut { until: 60_004 }, "one probe at a time");
        breaker.record(30_006, true);
        assert_eq!(breaker.ask(30_007), Gate::Shut { until: 60_006 });
        assert_eq!(breaker.ask(60_006), Gate::Call);
        breaker.record(60_007, false);
        assert!(!breaker.is_open());
        assert_eq!(breaker.ask(60_008), Gate::Call);
    }

    #[test]
    fn opens_when_more_than_half_of_twenty_fail() {
        let mut breaker = Breaker::default();
        let mut opened = Vec::new();
        for n in 0..24 {
            opened.push(breaker.record(n, n % 7 < 4));
        }
        assert!(opened.iter().any(|it| *it));
        // the same faults spread over a longer time do not
        let mut slow = Breaker::default();
        assert!((0..100).all(|n| !slow.record(n * 10_000, n % 7 < 4)));
    }

    #[test]
    fn a_lost_probe_is_given_up() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|n| {
            breaker.record(n, true);
        });
        assert_eq!(breaker.ask(40_000), Gate::Call);
        assert_eq!(breaker.ask(70_000), Gate::Call);
    }
}
