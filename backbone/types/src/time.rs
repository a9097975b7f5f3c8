//! Three kinds of time that must never be mixed.
//!
//! * [`Timestamp`]: the orchestrator's logical timeline. Orders events, drives deadlines. Never goes back, never jumps with
//!   a wall clock.
//! * [`Span`]: an interval, measured by one machine with its own monotonic clock.
//! * [`WallTime`]: what a calendar says, for people to read. Nothing is decided by it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the logical timeline of one journal, in microseconds since its beginning. An agent uses the same type for its
/// own monotonic clock; the two are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The beginning of the timeline.
    pub const ZERO: Self = Self(0);

    /// The interval since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// An interval in microseconds. Arithmetic saturates: the largest span is 584,000 years and means "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than anything lasts.
    pub const MAX: Self = Self(u64::MAX);

    /// A span of whole microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Both spans one after the other.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left after `other`.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Duration::from_micros(span.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Short human form: `850ms`, `4.2s`, `3m11s`, `2h14m`, `14d3h`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1_000_000;
        match secs {
            0 if self.0 < 1_000 => write!(f, "0.{}ms", self.0 / 100),
            0 => write!(f, "{}ms", self.as_millis()),
            1..60 => write!(f, "{}.{}s", secs, self.0 % 1_000_000 / 100_000),
            60..3_600 => write!(f, "{}m{:02}s", secs / 60, secs % 60),
            3_600..86_400 => write!(f, "{}h{:02}m", secs / 3_600, secs % 3_600 / 60),
            _ => write!(f, "{}d{}h", secs / 86_400, secs % 86_400 / 3_600),
        }
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z by somebody's wall clock. For display only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct WallTime(pub i64);

impl WallTime {
    /// This moment and a span later.
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The interval since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A duration as people write it: `90s`, `10m`, `2h`, `1h30m`, `250ms`, `7d`; a bare number is seconds.
///
/// Errors name what could not be read.
pub fn parse_span(text: &str) -> Result<Span, BadSpan> {
    let bad = || BadSpan { text: text.into() };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let (mut total, mut first) = (0u64, true);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let first = std::mem::replace(&mut first, false);
        let unit = match &rest[..letters] {
            "ms" => 1_000,
            "s" => 1_000_000,
            "" if first => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(bad()),
        };
        rest = &rest[letters..];
        total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
    }
    Ok(Span(total))
}

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: write 250ms, 90s, 10m, 2h, 1h30m or 7d")]
pub struct BadSpan {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_as_people_write_them() {
        for (text, micros, shown) in [
            ("250ms", 250_000, "250ms"),
            ("90", 90_000_000, "1m30s"),
            ("4s", 4_000_000, "4.0s"),
            ("1h30m", 5_400_000_000, "1h30m"),
            ("7d", 604_800_000_000, "7d0h"),
        ] {
            let span = parse_span(text).expect(text);
            assert_eq!((span.0, span.to_string().as_str()), (micros, shown), "{text}");
        }
        for text in ["", "s", "1x", "-4s", "1.5h", "99999999999999999999d", "999999999999999d", "5s7", "0h5"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
