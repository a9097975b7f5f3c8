//! Addresses that come with wrong tokens again and again: they are not answered for a while, so that guessing is slow and the
//! log stays readable. Addresses are proved by a retry before they get here.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use modchain_link::source_of;

/// Wrong tokens from one source within [`WINDOW`] that block it.
const WRONG_MAX: usize = 20;
/// See [`WRONG_MAX`].
const WINDOW: Duration = Duration::from_secs(60);
/// How long a source is blocked.
const BLOCKED_FOR: Duration = Duration::from_secs(600);
/// Sources that are remembered; when there are more, the one that was wrong longest ago is forgotten.
const REMEMBERED: usize = 4096;

/// What is known of where wrong tokens came from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    wrong: Mutex<HashMap<IpAddr, Source>>,
}

#[derive(Debug, Default)]
struct Source {
    /// When, oldest first, at most [`WRONG_MAX`].
    times: VecDeque<Instant>,
    blocked_until: Option<Instant>,
}

impl Sources {
    /// How long the source is not to be answered, if it is not.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let until = wrong.get(&source_of(address)?)?.blocked_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Notes a wrong token.
    pub(super) fn wrong(&self, address: IpAddr, now: Instant) {
        let Some(key) = source_of(address) else { return };
        // Each entry is changed in one step.
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= REMEMBERED && !wrong.contains_key(&key) {
            let oldest = wrong.iter().min_by_key(|(_, source)| source.times.back().copied()).map(|(key, _)| *key);
            oldest.and_then(|oldest| wrong.remove(&oldest));
        }
        let source = wrong.entry(key).or_default();
        if source.times.len() == WRONG_MAX {
            source.times.pop_front();
        }
        source.times.push_back(now);
        let first = source.times.front().copied().unwrap_or(now);
        if source.times.len() == WRONG_MAX && now.saturating_duration_since(first) <= WINDOW {
            source.blocked_until = Some(now + BLOCKED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_wrong_tokens_within_a_minute_block_a_source_for_ten() {
        let (sources, start) = (Sources::default(), Instant::now());
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let second = Duration::from_secs(1);
        for count in 0..20 {
            assert_eq!(sources.blocked(ip("192.0.2.1"), start + count * second), None);
            sources.wrong(ip("192.0.2.1"), start + count * second);
            sources.wrong(ip("192.0.2.2"), start + 4 * count * second);
            sources.wrong(ip("127.0.0.1"), start);
            sources.wrong(ip(&format!("2001:db8::{count}")), start);
        }
        let later = start + 20 * second;
        assert!(sources.blocked(ip("192.0.2.1"), later).is_some());
        assert!(sources.blocked(ip("::ffff:192.0.2.1"), later).is_some(), "the same address in another dress");
        assert!(sources.blocked(ip("2001:db8::ffff"), later).is_some(), "the same network");
        for free in ["192.0.2.2", "127.0.0.1", "192.0.2.3", "2001:db8:0:1::1"] {
            assert_eq!(sources.blocked(ip(free), later), None, "{free}");
        }
        assert_eq!(sources.blocked(ip("192.0.2.1"), later + BLOCKED_FOR), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (sources, start) = (Sources::default(), Instant::now());
        for count in 0..2 * REMEMBERED as u32 {
            sources.wrong(IpAddr::V4((0xc000_0000 + count).into()), start + Duration::from_millis(count.into()));
        }
        assert_eq!(sources.wrong.lock().expect("lock").len(), REMEMBERED);
    }
}
