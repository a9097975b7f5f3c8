//! How many bad frames a peer may send: one ends its stream, a second within ten seconds ends the connection, and five
//! within a minute keep its identity out for another.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use modchain_types::IdentityId;

use crate::settings::{BAD_FRAME_WINDOW, COOL_OFF, COOL_OFF_FRAMES, COOL_OFF_WINDOW};

/// What a bad frame costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Penalty {
    /// Its stream.
    Stream,
    /// The whole connection.
    Connection,
}

/// The bad frames of one connection.
#[derive(Debug, Default)]
pub(crate) struct BadFrames {
    last: Option<Instant>,
}

impl BadFrames {
    pub(crate) fn record(&mut self, now: Instant) -> Penalty {
        match self.last.replace(now) {
            Some(last) if now.saturating_duration_since(last) <= BAD_FRAME_WINDOW => Penalty::Connection,
            Some(_) | None => Penalty::Stream,
        }
    }
}

/// Identities that sent bad frames a short time ago, on whatever connection.
#[derive(Debug, Default)]
pub(crate) struct Offenders {
    /// When each sent its last ones, oldest first, at most [`COOL_OFF_FRAMES`].
    frames: HashMap<IdentityId, VecDeque<Instant>>,
}

impl Offenders {
    /// Notes one more; tells whether the identity is to be kept out.
    pub(crate) fn record(&mut self, id: IdentityId, now: Instant) -> bool {
        let forgotten = COOL_OFF.max(COOL_OFF_WINDOW);
        self.frames
            .retain(|_, frames| frames.back().is_some_and(|last| now.saturating_duration_since(*last) < forgotten));
        let frames = self.frames.entry(id).or_default();
        if frames.len() == COOL_OFF_FRAMES {
            frames.pop_front();
        }
        frames.push_back(now);
        self.cools_off(&id, now)
    }

    /// Whether the identity is kept out.
    pub(crate) fn cools_off(&self, id: &IdentityId, now: Instant) -> bool {
        let Some(frames) = self.frames.get(id).filter(|frames| frames.len() == COOL_OFF_FRAMES) else { return false };
        let (Some(first), Some(last)) = (frames.front(), frames.back()) else { return false };
        last.saturating_duration_since(*first) <= COOL_OFF_WINDOW && now.saturating_duration_since(*last) < COOL_OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn five_within_a_minute_keep_an_identity_out_for_a_minute_and_nobody_else() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let (bad, clumsy) = (IdentityId([1; 16]), IdentityId([2; 16]));
        let mut offenders = Offenders::default();
        for count in 0..4 {
            assert!(!offenders.record(bad, start + 11 * count * second));
            assert!(!offenders.record(clumsy, start + 16 * count * second));
        }
        let fifth = start + 44 * second;
        assert!(offenders.record(bad, fifth));
        assert!(!offenders.record(clumsy, start + 64 * second), "five within more than a minute");
        assert!(offenders.cools_off(&bad, fifth + COOL_OFF - second) && !offenders.cools_off(&clumsy, fifth));
        assert!(!offenders.cools_off(&bad, fifth + COOL_OFF));
        assert!(!offenders.record(bad, fifth + COOL_OFF + second), "it begins anew");
        assert_eq!(offenders.frames.len(), 2);
        offenders.record(clumsy, fifth + 3 * COOL_OFF);
        assert_eq!(offenders.frames.len(), 1, "who sends no more is forgotten");
    }

    #[test]
    fn the_second_within_the_window_costs_the_connection() {
        let start = Instant::now();
        let mut frames = BadFrames::default();
        let late = BAD_FRAME_WINDOW + Duration::from_millis(1);
        assert_eq!(frames.record(start), Penalty::Stream);
        assert_eq!(frames.record(start + late), Penalty::Stream);
        assert_eq!(frames.record(start + 2 * late), Penalty::Stream);
        assert_eq!(frames.record(start + 2 * late + BAD_FRAME_WINDOW), Penalty::Connection);
    }
}
