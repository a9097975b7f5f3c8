//! How many bad frames a peer may send: one ends its stream, a second within ten seconds ends the connection.

use std::time::Instant;

use crate::settings::BAD_FRAME_WINDOW;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
