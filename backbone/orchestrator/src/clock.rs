//! The logical timeline of the journal.
//!
//! Events carry a moment on it; leases, deadlines and bills are intervals on it. It runs with this machine's clock that
//! counts sleep, so that no change of the wall clock can move it, and it goes on where it stopped when the program starts
//! again. Only after a reboot, when that clock has begun anew, does the wall clock say how long the gap was; deadlines may
//! come late by that, never a bill.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use modchain_core::{Event, EventBody};
use modchain_types::{BootId, Span, Timestamp, WallTime};

/// Where time comes from. A trait only so that tests can make it jump.
pub trait TimeSource: Send {
    /// This boot of the machine.
    fn boot(&self) -> BootId;
    /// Time since that boot, counting sleep. Never goes back.
    fn boot_clock(&self) -> Span;
    /// What the calendar says.
    fn wall(&self) -> WallTime;
}

/// This machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemSource {
    boot: BootId,
}

impl SystemSource {
    /// Reads the boot's id.
    pub fn new() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let number = u128::from_str_radix(&digits, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the boot id is not a number"))?;
        Ok(Self { boot: BootId(number.to_be_bytes()) })
    }
}

impl TimeSource for SystemSource {
    fn boot(&self) -> BootId {
        self.boot
    }

    fn boot_clock(&self) -> Span {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let micros = u64::try_from(now.tv_nsec / 1_000).unwrap_or(0);
        Span(secs.saturating_mul(1_000_000).saturating_add(micros))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What a journal says about time: its last `EngineStarted` and its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// The last start of the engine.
    pub started: Option<Started>,
    /// The moment of the last event.
    pub last: Timestamp,
}

/// A start of the engine, by all clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// By the timeline.
    pub at: Timestamp,
    /// Of the machine.
    pub boot: BootId,
    /// Since then, counting sleep.
    pub boot_clock: Span,
    /// By the calendar.
    pub wall: WallTime,
}

impl Past {
    /// Takes note of the next event.
    pub fn observe(&mut self, event: &Event) {
        self.last = self.last.max(event.at);
        if let EventBody::EngineStarted { boot, boot_clock, wall, .. } = event.body {
            self.started = Some(Started { at: event.at, boot, boot_clock, wall });
        }
    }
}

/// The timeline, running. Never goes back.
pub struct Clock {
    source: Box<dyn TimeSource>,
    base: Timestamp,
    base_clock: Span,
    last: Timestamp,
}

impl Clock {
    /// Goes on where the past ended.
    pub fn resume(source: Box<dyn TimeSource>, past: &Past) -> Self {
        let (clock, wall) = (source.boot_clock(), source.wall());
        let now = match &past.started {
            None => past.last,
            Some(started) if started.boot == source.boot() => started.at + clock.saturating_sub(started.boot_clock),
            Some(started) => started.at + wall.since(started.wall),
        };
        let base = now.max(past.last);
        Self { source, base, base_clock: clock, last: base }
    }

    /// This moment. Never before one that was told earlier, or before the last event.
    pub fn now(&mut self) -> Timestamp {
        let now = self.base + self.source.boot_clock().saturating_sub(self.base_clock);
        self.last = self.last.max(now);
        self.last
    }

    /// The machine's clocks behind it, for `EngineStarted`.
    pub fn source(&self) -> &dyn TimeSource {
        &*self.source
    }
}
