//! The breaker of an endpoint: after many failures it is left alone, and asked now and then whether it answers again.
//! Pure: time is a parameter.

use kero_domain::Timestamp;
use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Failures among the exchanges of the last [`WINDOW`], in percent, that open it …
    pub percent: u32,
    /// … when there were at least this many.
    pub least: u32,
    /// How long it stays open the first time; twice as long after each failed probe.
    pub open: Duration,
    /// The longest it stays open.
    pub ceiling: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { percent: 70, least: 10, open: Duration::from_secs(30), ceiling: Duration::from_secs(600) }
    }
}

/// How far back exchanges count.
pub const WINDOW: Duration = Duration::from_secs(300);
const SLOTS: usize = 10;
const SLOT_MILLIS: i64 = WINDOW.as_millis() as i64 / SLOTS as i64;
/// A probe that has not come back by then is given up.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Go,
    /// One exchange, to see whether the endpoint answers.
    Probe,
    /// Nothing before this moment.
    Wait(Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Timestamp,
        step: u32,
    },
    /// A probe is under way since then.
    HalfOpen {
        since: Timestamp,
        step: u32,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    /// Which slot of time it counts.
    number: i64,
    failed: u32,
    total: u32,
}

#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    slots: [Slot; SLOTS],
}

impl Breaker {
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed, slots: [Slot::default(); SLOTS] }
    }

    /// What an exchange that wants to begin may do. After [`Pass::Probe`] the caller owes a report.
    pub fn pass(&mut self, now: Timestamp) -> Pass {
        match self.state {
            State::Closed => Pass::Go,
            State::Open { until, .. } if now < until => Pass::Wait(until),
            State::HalfOpen { since, .. } if now < since.after(PROBE_LIMIT) => Pass::Wait(since.after(PROBE_LIMIT)),
            State::Open { step, .. } | State::HalfOpen { step, .. } => {
                self.state = State::HalfOpen { since: now, step };
                Pass::Probe
            }
        }
    }

    /// How an exchange ended.
    pub fn report(&mut self, success: bool, probe: bool, now: Timestamp) {
        match (self.state, success) {
            (State::HalfOpen { .. }, true) if probe => {
                self.state = State::Closed;
                self.slots = [Slot::default(); SLOTS];
            }
            (State::HalfOpen { step, .. }, false) if probe => self.open(now, step.saturating_add(1)),
            (State::Closed, _) => {
                self.count(success, now);
                if self.is_bad(now) {
                    self.open(now, 0);
                }
            }
            // exchanges that began before it opened say nothing new
            (State::Open { .. } | State::HalfOpen { .. }, _) => {}
        }
    }

    /// A probe that could not be made.
    pub fn give_back(&mut self, now: Timestamp) {
        if let State::HalfOpen { step, .. } = self.state {
            self.state = State::Open { until: now, step };
        }
    }

    /// There is a reason to believe that the endpoint answers now: the next exchange is a probe.
    pub fn ask_again(&mut self, now: Timestamp) {
        if let State::Open { until, step } = self.state {
            self.state = State::Open { until: until.min(now), step };
        }
    }

    /// Until when nothing may begin, as things stand.
    pub fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = match self.state {
            State::Closed => return None,
            State::Open { until, .. } => until,
            State::HalfOpen { since, .. } => since.after(PROBE_LIMIT),
        };
        (until > now).then_some(until)
    }

    /// For the metrics: 0 closed, 1 half open, 2 open.
    pub fn level(&self) -> f64 {
        match self.state {
            State::Closed => 0.0,
            State::HalfOpen { .. } => 1.0,
            State::Open { .. } => 2.0,
        }
    }

    fn open(&mut self, now: Timestamp, step: u32) {
        let factor = 1u32.checked_shl(step).unwrap_or(u32::MAX);
        let wait = self.config.open.saturating_mul(factor).min(self.config.ceiling);
        self.state = State::Open { until: now.after(wait), step };
    }

    fn count(&mut self, success: bool, now: Timestamp) {
        let number = now.0.div_euclid(SLOT_MILLIS);
        let slot = &mut self.slots[usize::try_from(number.rem_euclid(SLOTS as i64)).unwrap_or(0)];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.total += 1;
        slot.failed += u32::from(!success);
    }

    fn is_bad(&self, now: Timestamp) -> bool {
        let oldest = now.0.div_euclid(SLOT_MILLIS) - SLOTS as i64 + 1;
        let recent = self.slots.iter().filter(|slot| slot.number >= oldest);
        let (failed, total) = recent.fold((0, 0), |(failed, total), slot| (failed + slot.failed, total + slot.total));
        total >= self.config.least && u64::from(failed) * 100 >= u64::from(total) * u64::from(self.config.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);

    fn failing(times: usize) -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..times {
            assert_eq!(breaker.pass(START), Pass::Go);
            breaker.report(false, false, START);
        }
        breaker
    }

    #[test]
    fn opens_on_the_tenth_failure_and_doubles_up_to_ten_minutes() {
        assert_eq!(failing(9).pass(START), Pass::Go);
        let mut breaker = failing(10);
        let mut now = START;
        for secs in [30, 60, 120, 240, 480, 600, 600] {
            let until = now.after(Duration::from_secs(secs));
            assert_eq!(breaker.pass(now), Pass::Wait(until), "{secs}");
            assert_eq!(breaker.pass(Timestamp(until.0 - 1)), Pass::Wait(until));
            now = until;
            assert_eq!(breaker.pass(now), Pass::Probe);
            assert!(matches!(breaker.pass(now), Pass::Wait(_)), "one probe at a time");
            breaker.report(false, true, now);
        }
        now = now.after(Duration::from_secs(600));
        assert_eq!(breaker.pass(now), Pass::Probe);
        breaker.report(true, true, now);
        assert_eq!((breaker.pass(now), breaker.level()), (Pass::Go, 0.0));
        // the past is forgotten
        breaker.report(false, false, now);
        assert_eq!(breaker.pass(now), Pass::Go);
    }

    #[test]
    fn what_is_long_ago_and_what_works_keeps_it_closed() {
        let mut breaker = failing(9);
        let later = START.after(WINDOW);
        breaker.report(false, false, later);
        assert_eq!(breaker.pass(later), Pass::Go);
        let mut mixed = Breaker::new(BreakerConfig::default());
        for n in 0..100 {
            mixed.report(n % 3 == 0, false, START);
        }
        assert_eq!(mixed.pass(START), Pass::Go, "67 % is less than 70 %");
    }

    #[test]
    fn a_lost_probe_is_made_again() {
        let mut breaker = failing(10);
        let now = START.after(Duration::from_secs(30));
        assert_eq!(breaker.pass(now), Pass::Probe);
        assert_eq!(breaker.pass(now.after(PROBE_LIMIT)), Pass::Probe);
        breaker.give_back(now);
        assert_eq!(breaker.pass(now), Pass::Probe);
    }

    #[test]
    fn an_endpoint_that_was_changed_is_asked_at_once() {
        let mut breaker = failing(10);
        breaker.ask_again(START);
        assert_eq!(breaker.pass(START), Pass::Probe);
        breaker.ask_again(START);
        assert!(matches!(breaker.pass(START), Pass::Wait(_)), "one probe at a time");
        breaker.report(false, true, START);
        assert_eq!(breaker.pass(START), Pass::Wait(START.after(Duration::from_secs(60))), "it goes on where it was");
        let mut closed = Breaker::new(BreakerConfig::default());
        closed.ask_again(START);
        assert_eq!(closed.pass(START), Pass::Go);
    }

    proptest! {
        /// Whatever happens: while it is open nothing passes before its time, and of one probe there is never a second
        /// beside it; and an endpoint that answers is served again within the ceiling.
        #[test]
        fn never_lets_through_what_it_should_not(
            steps in proptest::collection::vec((0u64..120_000, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let mut breaker = Breaker::new(BreakerConfig::default());
            let mut now = START;
            let mut probing: Option<Timestamp> = None;
            let mut blocked_until: Option<Timestamp> = None;
            for (wait, success, late) in steps {
                now = now.after(Duration::from_millis(wait));
                match breaker.pass(now) {
                    Pass::Go => {
                        prop_assert!(blocked_until.is_none() && probing.is_none());
                        breaker.report(success, false, now);
                    }
                    Pass::Probe => {
                        prop_assert!(blocked_until.is_some_and(|until| now >= until));
                        prop_assert!(probing.is_none_or(|since| now >= since.after(PROBE_LIMIT)));
                        probing = Some(now);
                        if !late {
                            breaker.report(success, true, now);
                            probing = None;
                        }
                    }
                    Pass::Wait(until) => {
                        prop_assert_eq!(breaker.blocked_until(now), Some(until));
                        prop_assert!(until > now && until <= now.after(Duration::from_secs(600)));
                        // a straggler changes nothing
                        breaker.report(success, false, now);
                        prop_assert_eq!(breaker.pass(now), Pass::Wait(until));
                    }
                }
                blocked_until = match breaker.state {
                    State::Open { until, .. } => Some(until),
                    State::HalfOpen { since, .. } => Some(since),
                    State::Closed => None,
                };
            }
            let end = now.after(Duration::from_secs(600));
            if breaker.pass(end) == Pass::Probe {
                breaker.report(true, true, end);
            }
            prop_assert_eq!(breaker.pass(end), Pass::Go);
        }
    }
}
