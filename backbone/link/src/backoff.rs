//! Waiting times between attempts to connect: full jitter, so that a thousand agents that lost one orchestrator at the same
//! moment do not come back at the same moment.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Upper bound of the first wait.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Upper bound of every wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Each wait is drawn evenly between zero and a bound that doubles from the first one, [`BACKOFF_FIRST`] unless said otherwise,
/// to the last one, [`BACKOFF_MAX`].
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Seeded from the system.
    pub fn new() -> Self {
        let mut seed = [0; 8];
        SystemRandom::new().fill(&mut seed).expect("the system's random numbers do not run out");
        Self::seeded(u64::from_le_bytes(seed))
    }

    /// The same seed gives the same waits.
    pub fn seeded(seed: u64) -> Self {
        Self { first: BACKOFF_FIRST, max: BACKOFF_MAX, failures: 0, random: seed }
    }

    /// With other bounds; `max` goes before a longer `first`.
    pub fn between(self, first: Duration, max: Duration) -> Self {
        Self { first, max, ..self }
    }

    /// The wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let doublings = self.failures.min(16);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let bound_micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw() % bound_micros.saturating_add(1))
    }

    /// It worked: the next failure begins at the short end.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// SplitMix64: even enough for spreading out, and the same everywhere.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_keep_below_a_doubling_bound_and_spread_over_it() {
        for failures in 0..12u32 {
            let bound = BACKOFF_FIRST.saturating_mul(1 << failures).min(BACKOFF_MAX);
            let waits: Vec<_> = (0..1000)
                .map(|seed| {
                    let mut backoff = Backoff::seeded(seed);
                    for _ in 0..failures {
                        backoff.next_delay();
                    }
                    backoff.next_delay()
                })
                .collect();
            assert!(waits.iter().all(|wait| *wait <= bound));
            assert!(waits.iter().any(|wait| *wait < bound / 10), "full jitter reaches the low end");
            assert!(waits.iter().any(|wait| *wait > bound / 10 * 9), "and the high end");
        }
    }

    #[test]
    fn success_starts_over_and_a_seed_repeats() {
        let mut backoff = Backoff::seeded(7);
        let first: Vec<_> = (0..50).map(|_| backoff.next_delay()).collect();
        assert!(first.iter().all(|wait| *wait <= BACKOFF_MAX));
        backoff.reset();
        assert!(backoff.next_delay() <= BACKOFF_FIRST);
        let mut again = Backoff::seeded(7);
        assert_eq!(first, (0..50).map(|_| again.next_delay()).collect::<Vec<_>>());
    }

    #[test]
    fn other_bounds_are_kept_to() {
        let (first, max) = (Duration::from_secs(30), Duration::from_secs(600));
        let mut reached = [Duration::ZERO; 12];
        for seed in 0..500 {
            let mut backoff = Backoff::seeded(seed).between(first, max);
            for (failures, longest) in reached.iter_mut().enumerate() {
                let wait = backoff.next_delay();
                assert!(wait <= first.saturating_mul(1 << failures).min(max));
                *longest = (*longest).max(wait);
            }
        }
        assert!(reached[0] > first / 10 * 9 && reached[11] > max / 10 * 9, "{reached:?}");
    }
}
