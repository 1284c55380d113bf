//! The retry schedule of sends: data, never a sleep.

use std::time::Duration;

/// Exponential back-off with a ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub base: Duration,
    pub ceiling: Duration,
    /// Retries after the first attempt.
    pub max_retries: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { base: Duration::from_secs(2), ceiling: Duration::from_secs(300), max_retries: 5 }
    }
}

impl Schedule {
    /// The wait after failed attempt number `attempt` (1 is the first), before jitter; `None` when none is left.
    pub fn delay(&self, attempt: u32) -> Option<Duration> {
        if attempt > self.max_retries {
            return None;
        }
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(self.base.saturating_mul(factor).min(self.ceiling))
    }
}

/// Spreads `delay` by ± 20 %; `random` lies in 0..1.
pub fn jitter(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling_and_ends() {
        let schedule = Schedule::default();
        let secs: Vec<_> = (1..=6).map(|n| schedule.delay(n).map(|d| d.as_secs())).collect();
        assert_eq!(secs, [Some(2), Some(4), Some(8), Some(16), Some(32), None]);
        let long = Schedule { max_retries: 100, ..schedule };
        assert_eq!(long.delay(60), Some(Duration::from_secs(300)));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let two = Duration::from_secs(2);
        assert_eq!(jitter(two, 0.0), Duration::from_millis(1600));
        assert_eq!(jitter(two, 1.0), Duration::from_millis(2400));
    }
}
