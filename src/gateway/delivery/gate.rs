//! What stands before an endpoint's exchanges: its breaker, its rate limit, and its record of failures. Pure.

use super::breaker::{Breaker, BreakerConfig, Pass};
use kero_domain::Timestamp;
use std::time::Duration;

/// Tokens for `rate` exchanges a second, at most one second's worth in store.
#[derive(Debug, Clone)]
struct Bucket {
    rate: u32,
    /// In thousandths of a token, so that a millisecond adds `rate` of them.
    level: u64,
    filled: Timestamp,
}

impl Bucket {
    fn new(rate: u32, now: Timestamp) -> Self {
        // begins with a single token: a restart is no occasion for a burst
        Self { rate, level: 1000, filled: now }
    }

    /// When the next token is there; `None`: now.
    fn next(&mut self, now: Timestamp) -> Option<Timestamp> {
        let rate = u64::from(self.rate.max(1));
        let passed = u64::try_from(self.filled.until(now).as_millis()).unwrap_or(u64::MAX);
        self.level = self.level.saturating_add(passed.saturating_mul(rate)).min(rate * 1000);
        self.filled = self.filled.max(now);
        let missing = 1000u64.checked_sub(self.level).filter(|missing| *missing > 0)?;
        Some(now.after(Duration::from_millis(missing.div_ceil(rate))))
    }

    fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        match self.next(now) {
            Some(until) => Err(until),
            None => {
                self.level -= 1000;
                Ok(())
            }
        }
    }
}

/// What a failure or a success means for the endpoint's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Same,
    /// Only failures since then, for a while: worth remembering over a restart.
    Failing(Timestamp),
    /// It answers again.
    Recovered,
    /// Only failures since then, for so long that it is disabled.
    GivenUp(Timestamp),
}

/// Failures that last this long are stored.
const WORTH_STORING: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Gate {
    breaker: Breaker,
    bucket: Option<Bucket>,
    failing_since: Option<Timestamp>,
    stored: bool,
    disable_after: Duration,
}

impl Gate {
    pub(crate) fn new(breaker: BreakerConfig, disable_after: Duration) -> Self {
        Self { breaker: Breaker::new(breaker), bucket: None, failing_since: None, stored: false, disable_after }
    }

    /// The endpoint as it is stored now.
    pub(crate) fn configure(&mut self, rate_limit: Option<u32>, failing_since: Option<Timestamp>, now: Timestamp) {
        if self.bucket.as_ref().map(|bucket| bucket.rate) != rate_limit {
            self.bucket = rate_limit.map(|rate| Bucket::new(rate, now));
        }
        if failing_since.is_some() || self.stored {
            self.failing_since = failing_since;
            self.stored = failing_since.is_some();
        }
    }

    /// May an exchange begin?
    pub(crate) fn enter(&mut self, now: Timestamp) -> Pass {
        let pass = self.breaker.pass(now);
        if matches!(pass, Pass::Wait(_)) {
            return pass;
        }
        match self.bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(now)) {
            Ok(()) => pass,
            Err(until) => {
                if pass == Pass::Probe {
                    self.breaker.give_back(now);
                }
                Pass::Wait(until)
            }
        }
    }

    /// Until when [`Self::enter`] would say no.
    pub(crate) fn blocked_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.breaker.blocked_until(now).or_else(|| self.bucket.as_mut()?.next(now))
    }

    /// An open breaker lets the next exchange through, as a probe.
    pub(crate) fn ask_again(&mut self, now: Timestamp) {
        self.breaker.ask_again(now);
    }

    /// How it ended.
    pub(crate) fn leave(&mut self, success: bool, probe: bool, now: Timestamp) -> Health {
        self.breaker.report(success, probe, now);
        if success {
            self.failing_since = None;
            return if std::mem::take(&mut self.stored) { Health::Recovered } else { Health::Same };
        }
        let since = *self.failing_since.get_or_insert(now);
        if since.until(now) >= self.disable_after {
            return Health::GivenUp(since);
        }
        if !self.stored && since.until(now) >= WORTH_STORING {
            self.stored = true;
            return Health::Failing(since);
        }
        Health::Same
    }

    pub(crate) fn level(&self) -> f64 {
        self.breaker.level()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn gate() -> Gate {
        Gate::new(BreakerConfig { least: 1_000, ..BreakerConfig::default() }, 5 * DAY)
    }

    #[test]
    fn lets_through_as_many_a_second_as_it_should() {
        for rate in [1, 3, 10, 1000] {
            let mut gate = gate();
            gate.configure(Some(rate), None, START);
            let (mut passed, mut now) = (0, START);
            while now < START.after(Duration::from_secs(10)) {
                match gate.enter(now) {
                    Pass::Wait(until) => {
                        assert!(until > now && until <= now.after(Duration::from_millis(1001)));
                        now = until;
                    }
                    _ => passed += 1,
                }
            }
            assert!((10 * rate..=10 * rate + 1).contains(&passed), "{rate}/s: {passed} in ten seconds");
            // a pause earns one second's worth, no more
            now = now.after(Duration::from_secs(3600));
            let burst = std::iter::from_fn(|| (gate.enter(now) == Pass::Go).then_some(())).count();
            assert_eq!(burst, rate as usize);
        }
    }

    #[test]
    fn five_days_of_failures_only_give_it_up_and_one_success_clears_them() {
        let mut gate = gate();
        assert_eq!(gate.leave(false, false, START), Health::Same);
        let minute = START.after(Duration::from_secs(60));
        assert_eq!(gate.leave(false, false, minute), Health::Failing(START));
        assert_eq!(gate.leave(false, false, START.after(4 * DAY)), Health::Same);
        assert_eq!(gate.clone().leave(false, false, START.after(5 * DAY)), Health::GivenUp(START));
        assert_eq!(gate.leave(true, false, START.after(5 * DAY)), Health::Recovered);
        assert_eq!(gate.leave(false, false, START.after(6 * DAY)), Health::Same, "counted anew");
        assert_eq!(gate.leave(true, false, START.after(6 * DAY)), Health::Same, "nothing was stored");
        // a restart knows what was stored
        let mut fresh = self::gate();
        fresh.configure(None, Some(START), START.after(DAY));
        assert_eq!(fresh.leave(false, false, START.after(5 * DAY)), Health::GivenUp(START));
    }

    #[test]
    fn a_probe_without_a_token_is_made_later() {
        let mut gate = Gate::new(BreakerConfig { least: 1, ..BreakerConfig::default() }, DAY);
        gate.configure(Some(1), None, START);
        assert_eq!(gate.enter(START), Pass::Go);
        gate.leave(false, false, START);
        let open = START.after(Duration::from_secs(30));
        assert_eq!(gate.enter(START), Pass::Wait(open));
        assert_eq!(gate.enter(open), Pass::Probe);
        gate.leave(false, true, open);
        assert_eq!(gate.enter(open), Pass::Wait(open.after(Duration::from_secs(60))));
    }
}
