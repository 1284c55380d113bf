//! The shared places of exchanges under way. Endpoints that answer slowly, or not at all, use places of their own, so
//! that however many of them there are, those that answer find one free. Pure.

use std::time::Duration;

/// An exchange that takes longer than this is slow, and so is its endpoint until one is faster.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fast,
    Slow,
}

#[derive(Debug)]
pub(crate) struct Places {
    fast: usize,
    slow: usize,
    /// Of each kind.
    most: usize,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { fast: 0, slow: 0, most }
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Fast => self.fast < self.most,
            Kind::Slow => self.slow < self.most,
        }
    }

    /// Takes a place; there must be one.
    pub(crate) fn take(&mut self, kind: Kind) {
        *self.count(kind) += 1;
    }

    pub(crate) fn free(&mut self, kind: Kind) {
        let count = self.count(kind);
        *count = count.saturating_sub(1);
    }

    /// A fast one turned out to be slow; the place that it had is free for others.
    pub(crate) fn demote(&mut self) {
        self.free(Kind::Fast);
        self.take(Kind::Slow);
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Fast => &mut self.fast,
            Kind::Slow => &mut self.slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_holes_hold_no_fast_place_once_they_are_known() {
        const MOST: usize = 8;
        let mut places = Places::new(MOST);
        // wave after wave of endpoints that nobody knew to be slow, each taking every place there is
        let mut stuck = 0;
        for _ in 0..10 {
            while places.has(Kind::Fast) {
                places.take(Kind::Fast);
                stuck += 1;
            }
            for _ in 0..MOST {
                places.demote();
            }
            assert_eq!(places.fast, 0, "all free again for those that answer");
        }
        assert_eq!(places.slow, stuck);
        // known ones get nothing more, however much they have to send
        assert!(!places.has(Kind::Slow) && places.has(Kind::Fast));
        for _ in 0..stuck {
            places.free(Kind::Slow);
        }
        assert!(places.has(Kind::Slow));
        places.free(Kind::Slow);
        assert_eq!(places.slow, 0);
    }
}
