//! Rates: token buckets in one number of state (GCRA), without a timer.

use crate::Timestamp;
use std::time::Duration;

/// So many a minute, so many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds between two.
    interval: i64,
    burst: i64,
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Microseconds: when it would be full.
    full_at: i64,
}

impl Rate {
    /// `None` without a limit: zero a minute.
    pub fn per_minute(count: u32, burst: u32) -> Option<Self> {
        (count > 0).then(|| Self { interval: (60_000_000 / i64::from(count)).max(1), burst: i64::from(burst.max(1)) })
    }

    /// The time that one takes.
    pub fn interval(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.interval).unwrap_or(0))
    }
}

impl Bucket {
    /// Nothing is left: what was sent before this process began is not known.
    pub fn empty(rate: &Rate, now: Timestamp) -> Self {
        Self { full_at: now.0 * 1_000 + rate.burst * rate.interval }
    }

    /// Takes one, or says from when on there is one.
    pub fn take(&mut self, rate: &Rate, now: Timestamp) -> Result<(), Timestamp> {
        let now = now.0 * 1_000;
        // a clock that was put back must not stop everything
        self.full_at = self.full_at.min(now + rate.burst * rate.interval);
        let ready_at = self.full_at - (rate.burst - 1) * rate.interval;
        if ready_at > now {
            return Err(Timestamp(ready_at.div_euclid(1_000) + 1));
        }
        self.full_at = self.full_at.max(now) + rate.interval;
        Ok(())
    }

    /// One that was taken was not used.
    pub fn give_back(&mut self, rate: &Rate) {
        self.full_at -= rate.interval;
    }

    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now.0 * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments at which sends that never rest go out.
    fn moments(rate: &Rate, bucket: &mut Bucket, from: Timestamp, count: usize) -> Vec<i64> {
        let (mut now, mut sent) = (from, Vec::new());
        while sent.len() < count {
            match bucket.take(rate, now) {
                Ok(()) => sent.push(now.0),
                Err(at) => {
                    assert!(at > now, "it says a time that lies ahead");
                    now = at;
                }
            }
        }
        sent
    }

    #[test]
    fn an_empty_bucket_fills_at_the_rate() {
        let rate = Rate::per_minute(60, 3).unwrap();
        let mut bucket = Bucket::empty(&rate, Timestamp(0));
        let sent = moments(&rate, &mut bucket, Timestamp(0), 4);
        assert!(
            sent.iter().zip([1_000, 2_000, 3_000, 4_000]).all(|(at, want)| (0..=4).contains(&(at - want))),
            "{sent:?}"
        );
        // rested: three at once, then one a second
        let sent = moments(&rate, &mut bucket, Timestamp(60_000), 5);
        assert_eq!(sent[..3], [60_000; 3]);
        assert!(sent[3] >= 61_000 && sent[4] >= 62_000, "{sent:?}");
    }

    #[test]
    fn over_any_minute_no_more_than_the_rate_and_the_burst() {
        let rate = Rate::per_minute(7, 2).unwrap();
        let mut bucket = Bucket::empty(&rate, Timestamp(5));
        let sent = moments(&rate, &mut bucket, Timestamp(5), 100);
        for from in &sent {
            let within = sent.iter().filter(|at| (*from..from + 60_000).contains(*at)).count();
            assert!(within <= 8, "{within} in a minute");
        }
        assert!(Rate::per_minute(0, 5).is_none());
    }

    #[test]
    fn what_was_not_used_is_given_back_and_a_clock_put_back_stops_nothing() {
        let rate = Rate::per_minute(60, 1).unwrap();
        let mut bucket = Bucket::empty(&rate, Timestamp(1_000_000));
        assert!(bucket.take(&rate, Timestamp(1_000_500)).is_err());
        assert!(bucket.take(&rate, Timestamp(1_001_000)).is_ok());
        bucket.give_back(&rate);
        assert!(bucket.take(&rate, Timestamp(1_001_000)).is_ok());
        let at = bucket.take(&rate, Timestamp(0)).unwrap_err();
        assert!(at.0 <= 1_001, "{at:?}");
        assert!(!bucket.is_full(Timestamp(0)) && bucket.is_full(Timestamp(2_000)));
    }
}
