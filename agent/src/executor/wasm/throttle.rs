//! Keeps a guest to the share of a core that its job reserved and pays for.
//!
//! A guest has one thread, so a whole core or more needs no help. Below that, the guest rests at every tick of the epoch for
//! as long as its share asks after what it has burnt since the last one. Time that it spent waiting is not made up for later:
//! a share is a speed, not an account.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A whole core, in thousandths.
const WHOLE_CORE: u32 = 1_000;
/// Longest rest at once, so that a child that was kept from its ticks (a long call into the host) is not kept for longer still.
const REST_MAX: Duration = Duration::from_secs(1);

/// The share of one guest.
#[derive(Debug)]
pub(super) struct Throttle {
    cpu_milli: u32,
    /// CPU time used up at the last look.
    used: Duration,
}

impl Throttle {
    /// For a job that reserved this many thousandths of a core; `None` if that is a whole one.
    pub(super) fn new(cpu_milli: u32) -> Option<Self> {
        (cpu_milli < WHOLE_CORE).then(|| Self { cpu_milli: cpu_milli.max(1), used: cpu_time() })
    }

    /// How long to rest now.
    pub(super) fn rest(&mut self) -> Duration {
        let now = cpu_time();
        let burnt = now.saturating_sub(std::mem::replace(&mut self.used, now));
        rest_after(burnt, self.cpu_milli)
    }
}

/// The rest after which a share of `cpu_milli` thousandths has been kept.
fn rest_after(burnt: Duration, cpu_milli: u32) -> Duration {
    (burnt * (WHOLE_CORE - cpu_milli) / cpu_milli).min(REST_MAX)
}

/// What this thread, which is the guest's, has burnt.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_makes_the_share_of_what_was_burnt() {
        for (burnt_ms, cpu_milli, rest_ms) in
            [(10, 500, 10), (10, 250, 30), (10, 100, 90), (10, 999, 0), (50, 1, 1_000)]
        {
            let rest = rest_after(Duration::from_millis(burnt_ms), cpu_milli);
            assert_eq!(rest.as_millis(), rest_ms, "{burnt_ms} ms at {cpu_milli}");
        }
    }

    #[test]
    fn a_whole_core_is_not_throttled() {
        assert!(Throttle::new(1_000).is_none() && Throttle::new(64_000).is_none());
        assert!(Throttle::new(999).is_some());
    }
}
