//! The last five minutes of what nodes measure, second by second; gaps stay gaps.

use std::collections::BTreeMap;

use modchain_types::{Name, WallTime};
use modchain_wire::view::NodeView;

/// Points of a line: five minutes in steps of five seconds.
pub(crate) const POINTS: usize = 60;
/// Milliseconds of one point.
pub(crate) const STEP_MS: i64 = 5_000;

/// One line: at most [`POINTS`] points, each 0 to 100 percent, `None` where nothing was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    points: Vec<Option<u8>>,
    /// The step of the last point.
    step: i64,
}

impl Line {
    /// Puts a measurement at its moment; the newest one of a step counts.
    pub(crate) fn put(&mut self, at: WallTime, percent: u8) {
        let step = at.0.div_euclid(STEP_MS);
        if self.points.is_empty() {
            self.step = step;
            self.points.push(None);
        }
        if step < self.step {
            return;
        }
        let ahead = usize::try_from(step - self.step).unwrap_or(POINTS).min(POINTS);
        self.points.extend(std::iter::repeat_n(None, ahead));
        let surplus = self.points.len().saturating_sub(POINTS);
        self.points.drain(..surplus);
        self.step = step;
        if let Some(last) = self.points.last_mut() {
            *last = Some(percent);
        }
    }

    /// The points up to this moment, oldest first.
    pub(crate) fn points(&self, now: WallTime) -> Vec<Option<u8>> {
        let mut points: Vec<Option<u8>> = self.newest_first(now).collect();
        points.reverse();
        points
    }

    /// The same, the newest first.
    pub(crate) fn newest_first(&self, now: WallTime) -> impl Iterator<Item = Option<u8>> {
        let behind = usize::try_from(now.0.div_euclid(STEP_MS) - self.step).unwrap_or(0).min(POINTS);
        // The step that has just begun has not been measured yet: that is no gap.
        let gap = std::iter::repeat_n(None, behind.saturating_sub(1));
        gap.chain(self.points.iter().rev().copied()).take(POINTS)
    }
}

/// What is kept of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSeries {
    /// Mean of its GPUs.
    pub(crate) gpu: Line,
    /// Memory of its GPUs.
    pub(crate) vram: Line,
    /// Its processors.
    pub(crate) cpu: Line,
}

/// All lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    /// By node.
    pub(crate) nodes: BTreeMap<Name, NodeSeries>,
}

impl Series {
    /// Takes in what a node's last heartbeat measured.
    pub(crate) fn take(&mut self, node: &NodeView, now: WallTime) {
        let line = self.nodes.entry(node.name.clone()).or_default();
        if let Some(percent) = gpu_busy(node) {
            line.gpu.put(now, percent);
        }
        if let Some(percent) = vram(node).and_then(|(used, total)| share(used, total)) {
            line.vram.put(now, percent);
        }
        if let Some(permille) = node.load.and_then(|load| load.cpu_permille) {
            line.cpu.put(now, u8::try_from(permille / 10).unwrap_or(100).min(100));
        }
    }
}

/// Mean busy share of a node's GPUs in percent; `None` where none says so.
pub(crate) fn gpu_busy(node: &NodeView) -> Option<u8> {
    let known: Vec<u32> = node.gpus.iter().filter_map(|gpu| gpu.busy_pct.map(u32::from)).collect();
    let sum: u32 = known.iter().sum();
    sum.checked_div(u32::try_from(known.len()).unwrap_or(u32::MAX)).and_then(|mean| u8::try_from(mean).ok())
}

/// Bytes of all its GPUs' memory that are in use, and all there are; `None` where no GPU tells it.
pub(crate) fn vram(node: &NodeView) -> Option<(u64, u64)> {
    let infos = &node.offer.as_ref()?.capabilities.gpus;
    let known =
        node.gpus.iter().zip(infos.iter()).filter_map(|(gpu, info)| Some((gpu.memory_used_bytes?, info.memory_bytes)));
    known.reduce(|sum, gpu| (sum.0.saturating_add(gpu.0), sum.1.saturating_add(gpu.1)))
}

/// Part of a whole in percent; `None` where there is no whole.
pub(crate) fn share(part: u64, whole: u64) -> Option<u8> {
    percent(part.into(), whole.into())
}

/// The same of sums, of which each is less than 2^120.
pub(crate) fn percent(part: u128, whole: u128) -> Option<u8> {
    let percent = (part * 100).checked_div(whole)?;
    Some(u8::try_from(percent).unwrap_or(100).min(100))
}

/// Several lines of points, the newest first, as one of [`POINTS`], the newest last: their mean, moment by moment, of those that say
/// something.
pub(crate) fn mean(lines: impl Iterator<Item = impl Iterator<Item = Option<u8>>>) -> Vec<Option<u8>> {
    let mut sums = [(0u32, 0u32); POINTS];
    for line in lines {
        for (sum, point) in sums.iter_mut().rev().zip(line) {
            if let Some(percent) = point {
                *sum = (sum.0 + u32::from(percent), sum.1 + 1);
            }
        }
    }
    let mean = |(sum, count): &(u32, u32)| sum.checked_div(*count).and_then(|mean| u8::try_from(mean).ok());
    sums.iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_lines_is_taken_from_the_newest_point_backwards() {
        let lines = [vec![Some(10), None, Some(50)], vec![Some(100)], vec![]];
        let line = mean(lines.into_iter().map(|line| line.into_iter().rev()));
        assert_eq!((line.len(), &line[POINTS - 4..]), (POINTS, &[None, Some(10), None, Some(75)][..]));
        assert_eq!(mean(std::iter::empty::<std::iter::Empty<Option<u8>>>()), [None; POINTS]);
        assert_eq!((share(1, 0), share(1, 3), share(9, 3)), (None, Some(33), Some(100)));
    }
}
