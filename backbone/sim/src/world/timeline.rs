//! The orchestrator's machine: its clock since boot, its wall clock, and the timeline of its journal over starts and reboots.

use modchain_core::{Event, EventBody};
use modchain_types::{BootId, Span, Timestamp, WallTime};

/// Milliseconds of the calendar at the world's beginning: some day that is far from zero, so that jumps go both ways.
const CALENDAR: i64 = 1_700_000_000_000;

/// Where the timeline of the journal stands, and the clocks that it follows.
#[derive(Debug)]
pub(super) struct Timeline {
    boot: u8,
    booted: Timestamp,
    /// How far somebody has moved the wall clock, in milliseconds.
    wall_moved: i64,
    /// The engine's moment at a moment of the world.
    base: Timestamp,
    base_world: Timestamp,
}

impl Timeline {
    pub(super) fn new(world: Timestamp) -> Self {
        Self { boot: 1, booted: Timestamp::ZERO, wall_moved: 0, base: world, base_world: world }
    }

    /// The engine's moment.
    pub(super) fn now(&self, world: Timestamp) -> Timestamp {
        self.base + world.since(self.base_world)
    }

    /// When, by the world's clock, the engine's moment will have come.
    pub(super) fn world(&self, engine: Timestamp) -> Timestamp {
        self.base_world + engine.since(self.base)
    }

    pub(super) fn boot(&self) -> BootId {
        BootId([self.boot; 16])
    }

    pub(super) fn boot_clock(&self, world: Timestamp) -> Span {
        world.since(self.booted)
    }

    pub(super) fn wall(&self, world: Timestamp) -> WallTime {
        WallTime(CALENDAR + self.wall_moved + i64::try_from(world.0 / 1_000).expect("worlds are short"))
    }

    /// Somebody moves the wall clock by so many milliseconds.
    pub(super) fn move_wall(&mut self, by: i64) {
        self.wall_moved += by;
    }

    /// The machine boots again: its clock begins anew.
    pub(super) fn reboot(&mut self, world: Timestamp) {
        self.boot = self.boot.wrapping_add(1);
        self.booted = world;
    }

    /// The engine starts on a journal of these events. Within a boot the machine's clock says how long it was away; after a
    /// reboot the wall clock does, which may be wrong. It never goes back.
    pub(super) fn resume(&mut self, world: Timestamp, past: &[Event]) {
        let started = past.iter().rev().find_map(|event| match &event.body {
            EventBody::EngineStarted { boot, boot_clock, wall, .. } => Some((event.at, *boot, *boot_clock, *wall)),
            _ => None,
        });
        let now = match started {
            None => world,
            Some((at, boot, clock, _)) if boot == self.boot() => at + Span(self.boot_clock(world).0 - clock.0),
            Some((at, _, _, wall)) => at + self.wall(world).since(wall),
        };
        let last = past.last().map_or(Timestamp::ZERO, |event| event.at);
        (self.base, self.base_world) = (now.max(last), world);
    }
}
