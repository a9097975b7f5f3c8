//! How often one identity may submit, so that a client in a loop cannot keep everybody else's commits waiting.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use modchain_types::IdentityId;

/// Submits that may come at once: a large sweep from one script.
const BURST: u32 = 2_000;
/// Submits a second in the long run: a tenth of what one disk commits.
const PER_SECOND: u32 = 200;
/// Identities that are remembered; a full bucket is forgotten when there are more.
const REMEMBERED: usize = 1_024;

/// A token bucket for each identity.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    buckets: Mutex<HashMap<IdentityId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(PER_SECOND);
        self.tokens = (self.tokens + gained).min(f64::from(BURST));
        self.at = now;
    }
}

impl RateLimit {
    /// Takes one token, or tells how long to wait for it.
    pub(super) fn take(&self, id: IdentityId, now: Instant) -> Result<(), Duration> {
        // A panic between two steps leaves a bucket a little fuller, nothing worse.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < f64::from(BURST)
            });
        }
        let bucket = buckets.entry(id).or_insert(Bucket { tokens: f64::from(BURST), at: now });
        bucket.refill(now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / f64::from(PER_SECOND)));
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
        let (limit, now) = (RateLimit::default(), Instant::now());
        let (busy, other) = (IdentityId([1; 16]), IdentityId([2; 16]));
        assert!((0..BURST).all(|_| limit.take(busy, now).is_ok()));
        assert!(limit.take(busy, now).is_err());
        assert!(limit.take(other, now).is_ok());
        let later = now + Duration::from_millis(100);
        assert_eq!((0..BURST).filter(|_| limit.take(busy, later).is_ok()).count(), 20);
    }
}
