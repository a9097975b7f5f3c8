//! Which rows of one kind have changed last, so that who keeps an order of 50,000 need not make it anew for one.

use std::collections::VecDeque;

/// Changes that are remembered: more at once are no mending any more.
const CHANGES_MAX: usize = 256;

/// The changes of the rows that have such a key.
#[derive(Debug, Clone)]
pub(crate) struct Changes<K> {
    /// How many there were.
    revision: u64,
    /// The last ones, the newest at the end.
    log: VecDeque<K>,
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self { revision: 0, log: VecDeque::new() }
    }
}

impl<K> Changes<K> {
    /// Counts changes: whoever has seen this one has seen all.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// This row came, went, or is another now.
    pub(super) fn note(&mut self, key: K) {
        self.revision += 1;
        self.log.push_back(key);
        if self.log.len() > CHANGES_MAX {
            self.log.pop_front();
        }
    }

    /// Any row may be another now.
    pub(super) fn anew(&mut self) {
        self.revision += 1;
        self.log.clear();
    }

    /// The rows that changed after a revision, oldest first, some perhaps more than once; `None` if that is not known any more.
    pub(crate) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &K>> {
        let count = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let known = self.log.len().checked_sub(count)?;
        Some(self.log.iter().skip(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_as_far_back_as_they_are_remembered() {
        let mut changes = Changes::default();
        let since = |changes: &Changes<u32>, revision| changes.since(revision).map(|keys| keys.copied().collect());
        assert_eq!(since(&changes, 0), Some(Vec::new()));
        (0..3).for_each(|key| changes.note(key));
        assert_eq!((changes.revision(), since(&changes, 1)), (3, Some(vec![1, 2])));
        assert_eq!(since(&changes, 4), None, "that is another count");
        changes.anew();
        assert_eq!((since(&changes, 3), since(&changes, 4)), (None, Some(Vec::new())));
        let most = u32::try_from(CHANGES_MAX).expect("fits");
        (0..=most).for_each(|key| changes.note(key));
        assert_eq!(since(&changes, 4), None, "the first one is forgotten");
        assert_eq!(since(&changes, 5), Some((1..=most).collect()));
    }
}
