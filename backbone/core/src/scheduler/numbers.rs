//! A set of numbers that tells how many are below one, in a number of steps that does not grow with the set.

use std::collections::BTreeMap;

/// Bits of a number that one word of the set stands for.
const WORD_BITS: u32 = 6;
/// Bits by which each level above the words is coarser than the one below it.
const LEVEL_BITS: u32 = 8;
/// Levels above the words. The coarsest counts 2³⁸ numbers in one, more than a journal has.
const LEVELS: usize = 4;

/// The numbers. A question takes at most 256 steps a level, whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Which of the 64 numbers that begin with the same bits are in it.
    words: BTreeMap<u64, u64>,
    /// How many that begin with the same bits are in it, finest level first.
    counts: [BTreeMap<u64, u64>; LEVELS],
    length: u64,
}

fn shift(level: usize) -> u32 {
    WORD_BITS + LEVEL_BITS * (level as u32 + 1)
}

impl Numbers {
    /// Adds a number; tells whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        let word = self.words.entry(number >> WORD_BITS).or_default();
        let bit = 1 << (number & 63);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        for (level, counts) in self.counts.iter_mut().enumerate() {
            *counts.entry(number >> shift(level)).or_default() += 1;
        }
        self.length += 1;
        true
    }

    /// Takes a number out; tells whether it was there.
    pub fn remove(&mut self, number: u64) -> bool {
        let bit = 1 << (number & 63);
        let Some(word) = self.words.get_mut(&(number >> WORD_BITS)).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        if *word == 0 {
            self.words.remove(&(number >> WORD_BITS));
        }
        for (level, counts) in self.counts.iter_mut().enumerate() {
            let index = number >> shift(level);
            let count = counts.get_mut(&index).expect("counted when it was added");
            *count -= 1;
            if *count == 0 {
                counts.remove(&index);
            }
        }
        self.length -= 1;
        true
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many are below this one.
    pub fn below(&self, number: u64) -> u64 {
        let mut below = 0;
        for (level, counts) in self.counts.iter().enumerate() {
            // Those that begin as it does one level up; the coarsest level has no level above it.
            let first = if level + 1 == LEVELS { 0 } else { number >> shift(level + 1) << LEVEL_BITS };
            below += counts.range(first..number >> shift(level)).map(|(_, count)| count).sum::<u64>();
        }
        let (first, index) = (number >> shift(0) << LEVEL_BITS, number >> WORD_BITS);
        below += self.words.range(first..index).map(|(_, word)| u64::from(word.count_ones())).sum::<u64>();
        let word = self.words.get(&index).copied().unwrap_or(0);
        below + u64::from((word & ((1 << (number & 63)) - 1)).count_ones())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn counts_are_those_of_a_plain_set(
            // Close together and far apart, so that every level has something to count.
            changes in prop::collection::vec((any::<bool>(), 0u64..200, 0u32..40), 0..200),
            asked in prop::collection::vec((0u64..200, 0u32..40), 1..20),
        ) {
            let (mut numbers, mut plain) = (Numbers::default(), BTreeSet::new());
            for (add, number, shift) in changes {
                let number = number << shift;
                let (ours, expected) = match add {
                    true => (numbers.insert(number), plain.insert(number)),
                    false => (numbers.remove(number), plain.remove(&number)),
                };
                prop_assert_eq!(ours, expected);
            }
            prop_assert_eq!(numbers.len(), plain.len() as u64);
            for (number, shift) in asked {
                let number = number << shift;
                prop_assert_eq!(numbers.below(number), plain.range(..number).count() as u64, "below {}", number);
            }
            for number in plain.clone() {
                numbers.remove(number);
            }
            prop_assert_eq!(numbers, Numbers::default(), "nothing stays behind");
        }
    }
}
