//! What heartbeats say, and the last five minutes of it. Kept in memory alone: it is for looking at, and nothing depends on it.

use std::collections::VecDeque;

use modchain_types::{GpuInfo, List, Span, WallTime};
use modchain_wire::agent::{GpuSample, HostLoad};
use modchain_wire::view::GpuTickView;

/// Looks at the GPUs that are kept: five minutes, one a second.
const TICKS_MAX: usize = 300;

/// What one heartbeat says.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// Load of the machine.
    pub load: HostLoad,
    /// Round trip of the heartbeat before.
    pub rtt: Option<Span>,
    /// When it came.
    pub seen: WallTime,
    /// Looks at the GPUs, oldest first, by our own calendar.
    pub ticks: Vec<GpuTickView>,
}

/// The last five minutes of a node's GPUs, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    ticks: VecDeque<GpuTickView>,
}

impl History {
    /// Adds what is newer than everything that is here.
    pub(super) fn add(&mut self, ticks: Vec<GpuTickView>) {
        for tick in ticks {
            if self.ticks.back().is_some_and(|newest| newest.at >= tick.at) {
                continue;
            }
            if self.ticks.len() == TICKS_MAX {
                self.ticks.pop_front();
            }
            self.ticks.push_back(tick);
        }
    }

    /// Other GPUs have other samples: begins anew unless the list is the same.
    pub(super) fn offered(&mut self, before: &[GpuInfo], now: &[GpuInfo]) {
        let same = before.len() == now.len() && before.iter().zip(now).all(|(a, b)| a.uuid == b.uuid);
        if !same {
            self.ticks.clear();
        }
    }

    /// The newest look.
    pub(super) fn latest(&self) -> List<GpuSample, 64> {
        self.ticks.back().map(|tick| tick.gpus.clone()).unwrap_or_default()
    }

    /// Everything that is kept.
    pub(super) fn ticks(&self) -> List<GpuTickView, 320> {
        List::cut(self.ticks.iter().cloned().collect())
    }

    /// Bytes that the newest look takes in a frame, at most.
    pub(super) fn weight(&self) -> usize {
        self.ticks.back().map_or(0, |tick| tick.gpus.len() * 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::Text;

    fn tick(at: i64) -> GpuTickView {
        let sample = GpuSample { busy_pct: Some((at % 100) as u8), ..GpuSample::default() };
        GpuTickView { at: WallTime(at), gpus: List::cut(vec![sample]) }
    }

    fn gpu(uuid: &str) -> GpuInfo {
        GpuInfo {
            uuid: Text::cut(uuid),
            vendor: Text::default(),
            model: Text::default(),
            memory_bytes: 1,
            driver: Text::default(),
            compute: Text::default(),
        }
    }

    #[test]
    fn five_minutes_are_kept_in_order_and_nothing_twice() {
        let mut history = History::default();
        for begin in 0..100 {
            // Each heartbeat repeats the last tick of the one before.
            history.add((begin * 5..=begin * 5 + 5).map(|second| tick(second * 1000)).collect());
        }
        let ticks = history.ticks();
        assert_eq!(ticks.len(), TICKS_MAX);
        assert!(ticks.windows(2).all(|pair| pair[0].at.0 + 1000 == pair[1].at.0));
        assert_eq!(history.latest(), ticks.last().expect("some").gpus);
    }

    #[test]
    fn other_gpus_begin_anew() {
        let mut history = History::default();
        history.add(vec![tick(1)]);
        history.offered(&[gpu("a")], &[gpu("a")]);
        assert_eq!(history.ticks().len(), 1);
        history.offered(&[gpu("a")], &[gpu("b")]);
        assert!(history.ticks().is_empty() && history.latest().is_empty());
    }
}
