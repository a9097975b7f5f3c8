//! How many of something there are at this moment, by whose they are: requests of an identity, streams that send a job's
//! input.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by key. Something counts for as long as its guard lives; so there are never more entries than guards.
#[derive(Debug)]
pub(crate) struct Counts<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { counts: Arc::default() }
    }
}

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self { counts: Arc::clone(&self.counts) }
    }
}

impl<K: Eq + Hash + Copy> Counts<K> {
    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(&self, key: K) -> Counted<K> {
        *self.lock().entry(key).or_default() += 1;
        Counted { counts: self.clone(), key }
    }

    /// How many there are.
    pub(crate) fn of(&self, key: K) -> usize {
        self.lock().get(&key).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, usize>> {
        // A count is changed in one step, so nothing can be half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is counted.
#[derive(Debug)]
pub(crate) struct Counted<K: Eq + Hash + Copy> {
    counts: Counts<K>,
    key: K,
}

impl<K: Eq + Hash + Copy> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_until_it_leaves_and_nothing_stays_behind() {
        let counts = Counts::default();
        let (first, second, other) = (counts.enter(1), counts.enter(1), counts.enter(2));
        assert_eq!((counts.of(1), counts.of(2), counts.of(3)), (2, 1, 0));
        drop((first, other));
        assert_eq!((counts.of(1), counts.of(2)), (1, 0));
        drop(second);
        assert!(counts.lock().is_empty());
    }
}
