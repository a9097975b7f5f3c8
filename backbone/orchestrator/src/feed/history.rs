//! What heartbeats say, and the last five minutes of it. Kept in memory alone: it is for looking at, and nothing depends on it.

use std::collections::VecDeque;

use modchain_types::{BootId, GpuInfo, List, Span, Timestamp, WallTime};
use modchain_wire::agent::{GpuSample, HostLoad};
use modchain_wire::view::GpuTickView;

/// Looks at the GPUs that are kept: five minutes, one a second.
const TICKS_MAX: usize = 300;

/// How far apart the calendar and a node's own clock may drift, in milliseconds, before looks are dated anew. Heartbeats take
/// different times on their way; looks that are dated by the node's clock are as far apart as they were made.
const DRIFT_MAX_MS: u64 = 2_000;

/// Looks older than the last word of their node by more than this say nothing of now: it has stopped looking.
const STALE_AFTER: Span = Span::from_secs(15);

/// What one heartbeat says.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// Load of the machine.
    pub load: HostLoad,
    /// Round trip of the heartbeat before.
    pub rtt: Option<Span>,
    /// When it came.
    pub seen: WallTime,
    /// The boot of the machine, that its clock counts from.
    pub boot: BootId,
    /// Looks at the GPUs, oldest first.
    pub ticks: Vec<Tick>,
}

/// One look at the GPUs.
#[derive(Debug, Clone)]
pub struct Tick {
    /// By the node's own clock: what tells a look that is repeated from a new one.
    pub taken: Timestamp,
    /// By our calendar, as far as the way of its heartbeat lets us know.
    pub at: WallTime,
    /// In the order of the node's offer.
    pub gpus: List<GpuSample, 64>,
}

/// The last five minutes of a node's GPUs, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    ticks: VecDeque<GpuTickView>,
    /// The newest look by the node's own clock, with the boot that this counts from.
    newest: Option<(BootId, Timestamp)>,
}

impl History {
    /// Adds what is newer than everything that is here. An agent that was not answered repeats what it has sent before.
    pub(super) fn add(&mut self, boot: BootId, ticks: Vec<Tick>) {
        for Tick { taken, at, gpus } in ticks {
            let newest = self.newest.and_then(|(of, newest)| (of == boot).then_some(newest));
            if newest.is_some_and(|newest| newest >= taken) {
                continue;
            }
            let last = self.ticks.back().map(|tick| tick.at);
            let by_its_clock = last.zip(newest).map(|(last, newest)| last.plus(taken.since(newest)));
            let at = match (by_its_clock, last) {
                (Some(date), _) if date.0.abs_diff(at.0) <= DRIFT_MAX_MS => date,
                (_, Some(last)) if last >= at => {
                    // The calendar was set back, and dates of before mean nothing now.
                    self.ticks.clear();
                    at
                }
                _ => at,
            };
            if self.ticks.len() == TICKS_MAX {
                self.ticks.pop_front();
            }
            self.ticks.push_back(GpuTickView { at, gpus });
            self.newest = Some((boot, taken));
        }
    }

    /// Other GPUs have other samples: begins anew unless the list is the same.
    pub(super) fn offered(&mut self, before: &[GpuInfo], now: &[GpuInfo]) {
        let same = before.len() == now.len() && before.iter().zip(now).all(|(a, b)| a.uuid == b.uuid);
        if !same {
            self.ticks.clear();
        }
    }

    /// The newest look, if the node that was last heard at `seen` still looks.
    pub(super) fn latest(&self, seen: Option<WallTime>) -> List<GpuSample, 64> {
        let current = |tick: &&GpuTickView| seen.is_none_or(|seen| seen.since(tick.at) <= STALE_AFTER);
        self.ticks.back().filter(current).map(|tick| tick.gpus.clone()).unwrap_or_default()
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

    const BOOT: BootId = BootId([1; 16]);

    /// A look that was made at this second of the node's clock and came with a heartbeat that was late by so much.
    fn late(second: u64, late_ms: i64) -> Tick {
        let sample = GpuSample { busy_pct: Some((second % 100) as u8), ..GpuSample::default() };
        let at = WallTime(second as i64 * 1_000 + 500_000 + late_ms);
        Tick { taken: Timestamp(second * 1_000_000), at, gpus: List::cut(vec![sample]) }
    }

    fn tick(second: u64) -> Tick {
        late(second, 0)
    }

    fn seconds(history: &History) -> Vec<i64> {
        history.ticks().iter().map(|tick| (tick.at.0 - 500_000) / 1_000).collect()
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
            // Each heartbeat repeats what the one before carried, and takes another time on its way.
            let late_ms = [0, 700, 40, 1_400][begin as usize % 4];
            history.add(BOOT, (begin * 5..begin * 5 + 10).map(|second| late(second, late_ms)).collect());
        }
        let ticks = history.ticks();
        assert_eq!(ticks.len(), TICKS_MAX);
        assert!(ticks.windows(2).all(|pair| pair[0].at.0 + 1000 == pair[1].at.0), "as far apart as they were made");
        assert_eq!(ticks.last().expect("some").gpus[0].busy_pct, Some((504 % 100) as u8));
    }

    #[test]
    fn a_look_counts_as_current_only_as_long_as_its_node_goes_on_looking() {
        let mut history = History::default();
        assert!(history.latest(None).is_empty());
        history.add(BOOT, vec![tick(1), tick(2)]);
        let of = WallTime(502_000);
        assert_eq!(history.latest(Some(of)), history.ticks()[1].gpus);
        assert_eq!(history.latest(Some(of.plus(STALE_AFTER))).len(), 1);
        assert!(history.latest(Some(of.plus(STALE_AFTER).plus(Span::from_millis(1)))).is_empty());
    }

    #[test]
    fn a_boot_begins_its_clock_anew_and_a_calendar_that_is_set_is_followed() {
        let mut history = History::default();
        history.add(BOOT, vec![tick(100), tick(101)]);
        let again = Tick { taken: Timestamp(5), ..tick(103) };
        history.add(BootId([2; 16]), vec![again.clone(), again]);
        assert_eq!(seconds(&history), [100, 101, 103]);
        let after = Tick { taken: Timestamp(1_000_005), ..late(104, 3_600_000) };
        history.add(BootId([2; 16]), vec![after]);
        assert_eq!(seconds(&history), [100, 101, 103, 3_704], "an hour forward");
        let back = Tick { taken: Timestamp(2_000_005), ..tick(105) };
        history.add(BootId([2; 16]), vec![back]);
        assert_eq!(seconds(&history), [105], "and back: what came before has no date any more");
    }

    #[test]
    fn other_gpus_begin_anew() {
        let mut history = History::default();
        history.add(BOOT, vec![tick(1)]);
        history.offered(&[gpu("a")], &[gpu("a")]);
        assert_eq!(history.ticks().len(), 1);
        history.offered(&[gpu("a")], &[gpu("b")]);
        assert!(history.ticks().is_empty() && history.latest(None).is_empty());
    }
}
