//! This machine's time: a clock that only goes forward and counts sleep, the wall clock for people, and the id of the boot.
//!
//! Intervals, deadlines and bills come from [`now`] alone. [`wall`] is for display.

use std::fs;
use std::time::SystemTime;

use anyhow::{Context, bail};
use modchain_types::{BootId, InstanceId, Span, Timestamp, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Where Linux tells one boot from another.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Microseconds since the machine's start, sleep included. The same clock for all processes of the machine.
pub fn now() -> Timestamp {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000))
}

/// What the calendar says here.
pub fn wall() -> WallTime {
    let millis = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    };
    WallTime(millis)
}

/// A time of the calendar as RFC 3339, to the second.
pub fn utc(at: WallTime) -> String {
    match jiff::Timestamp::from_second(at.0.div_euclid(1000)) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("{} ms", at.0),
    }
}

/// Which boot of the machine this is. Fails where the system does not tell.
pub fn boot_id() -> anyhow::Result<BootId> {
    let text = fs::read_to_string(BOOT_ID_FILE).with_context(|| format!("failed to read {BOOT_ID_FILE}"))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(number) if digits.len() == 32 => Ok(BootId(number.to_be_bytes())),
        _ => bail!("{BOOT_ID_FILE} does not hold a uuid"),
    }
}

/// A fresh id for this start of the program. Fails when the system has no randomness.
pub fn instance_id() -> anyhow::Result<InstanceId> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(InstanceId(bytes))
}

/// A span drawn evenly from zero to `limit`. Without randomness it is `limit`: late is safer than all at once.
pub fn jitter(limit: Span) -> Span {
    let mut bytes = [0; 8];
    match random(&mut bytes) {
        Ok(()) => {
            let share = (u128::from(u64::from_le_bytes(bytes)) * u128::from(limit.0)) >> 64;
            Span(u64::try_from(share).unwrap_or(limit.0))
        }
        Err(_) => limit,
    }
}

/// Fills `bytes` with random ones. Fails when the system has none.
pub(crate) fn random(bytes: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .context("failed to get random bytes from the system")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_ids_are_what_the_system_says() {
        let (first, second) = (now(), now());
        assert!(second >= first && first > Timestamp::ZERO);
        assert_eq!(boot_id().expect("linux tells"), boot_id().expect("linux tells"));
        assert_ne!(instance_id().expect("random"), instance_id().expect("random"));
    }

    #[test]
    fn jitter_stays_below_its_limit_and_is_not_always_the_same() {
        let limit = Span::from_secs(30);
        let drawn: Vec<Span> = (0..64).map(|_| jitter(limit)).collect();
        assert!(drawn.iter().all(|span| *span < limit));
        assert!(drawn.iter().any(|span| *span != drawn[0]));
    }
}
