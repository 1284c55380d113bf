//! A set that forgets.

use std::collections::HashSet;
use std::hash::Hash;

/// Remembers the last `at_least` values that were put into it, and never more than twice as many.
pub struct Recent<T> {
    generations: [HashSet<T>; 2],
    at_least: usize,
}

impl<T: Eq + Hash> Recent<T> {
    pub fn new(at_least: usize) -> Self {
        Self { generations: [HashSet::new(), HashSet::new()], at_least: at_least.max(1) }
    }

    pub fn insert(&mut self, value: T) {
        if self.generations[0].len() >= self.at_least {
            self.generations.swap(0, 1);
            self.generations[0].clear();
        }
        self.generations[0].insert(value);
    }

    pub fn contains(&self, value: &T) -> bool {
        self.generations.iter().any(|generation| generation.contains(value))
    }

    /// Whether it was there.
    pub fn remove(&mut self, value: &T) -> bool {
        let [young, old] = &mut self.generations;
        // it may be in both
        young.remove(value) | old.remove(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_than_twice_as_many() {
        const AT_LEAST: usize = 8;
        let mut recent = Recent::new(AT_LEAST);
        for n in 0..100 {
            recent.insert(n);
            for known in (n + 1usize).saturating_sub(AT_LEAST)..=n {
                assert!(recent.contains(&known), "{known} after {n}");
            }
            assert!((0..=n).filter(|n| recent.contains(n)).count() <= 2 * AT_LEAST);
        }
        assert!(recent.remove(&99) && !recent.remove(&99) && !recent.contains(&99));
    }
}
