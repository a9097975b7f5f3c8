//! How often one identity may do what ends up in the journal, so that a peer in a loop can neither keep everybody else's
//! commits waiting nor fill the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use modchain_types::IdentityId;

/// Identities that are remembered; a full bucket is forgotten when there are more.
const REMEMBERED: usize = 1_024;

/// How often something may be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// So many may come at once.
    burst: u32,
    /// So many a second in the long run.
    per_second: u32,
}

impl Rate {
    /// A large sweep from one script at once, then a tenth of what one disk commits.
    pub(super) const SUBMITS: Self = Self { burst: 2_000, per_second: 200 };
    /// Of agents that say hello or change their offer: more than an unsteady line brings about, and each may cost 64 KiB of
    /// the journal.
    pub(super) const OFFERS: Self = Self { burst: 60, per_second: 1 };
    /// Of members that renew their certificates: once a day is usual, and each costs a signature and 200 bytes of the journal.
    pub(super) const RENEWALS: Self = Self { burst: 30, per_second: 1 };
    /// Of members that make tokens: as many at once as may wait, twice over. Tokens can be ended as quickly as they are
    /// made, so their number alone bounds no journal.
    pub(super) const TOKENS: Self = Self { burst: 200, per_second: 1 };
}

/// A token bucket for each identity.
#[derive(Debug)]
pub(super) struct RateLimit {
    rate: Rate,
    buckets: Mutex<HashMap<IdentityId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, rate: Rate, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.tokens = (self.tokens + gained).min(f64::from(rate.burst));
        self.at = now;
    }
}

impl RateLimit {
    /// Every bucket is full.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one token, or tells how long to wait for it.
    pub(super) fn take(&self, id: IdentityId, now: Instant) -> Result<(), Duration> {
        let (rate, full) = (self.rate, f64::from(self.rate.burst));
        // A panic between two steps leaves a bucket a little fuller, nothing worse.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            buckets.retain(|_, bucket| {
                bucket.refill(rate, now);
                bucket.tokens < full
            });
        }
        let bucket = buckets.entry(id).or_insert(Bucket { tokens: full, at: now });
        bucket.refill(rate, now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / f64::from(rate.per_second)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_then_the_rate_and_others_are_untouched() {
        let rate = Rate { burst: 100, per_second: 10 };
        let (limit, now) = (RateLimit::new(rate), Instant::now());
        let (busy, other) = (IdentityId([1; 16]), IdentityId([2; 16]));
        assert!((0..rate.burst).all(|_| limit.take(busy, now).is_ok()));
        let wait = limit.take(busy, now).expect_err("all are taken");
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert!(limit.take(other, now).is_ok());
        let later = now + Duration::from_secs(2);
        assert_eq!((0..rate.burst).filter(|_| limit.take(busy, later).is_ok()).count(), 20);
    }
}
