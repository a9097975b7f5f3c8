//! The last five minutes of what nodes measure, second by second; gaps stay gaps.

use std::collections::BTreeMap;

use modchain_types::{Name, WallTime};
use modchain_wire::view::NodeView;

/// Points of a line: five minutes in steps of five seconds.
pub(crate) const POINTS: usize = 60;
/// Milliseconds of one point.
pub(crate) const STEP_MS: i64 = 5_000;

/// What stands for a point at which nothing was measured.
const UNKNOWN: u8 = u8::MAX;

/// One line: at most [`POINTS`] points, each 0 to 100 percent, `None` where nothing was measured. In one piece, because those of 10,000
/// nodes are summed up.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The newest is at the end.
    points: [u8; POINTS],
    /// How many of them there are: what is before was not looked at yet.
    count: usize,
    /// The step of the last point.
    step: i64,
}

impl Default for Line {
    fn default() -> Self {
        Self { points: [UNKNOWN; POINTS], count: 0, step: 0 }
    }
}

impl Line {
    /// Puts a measurement at its moment; the newest one of a step counts.
    pub(crate) fn put(&mut self, at: WallTime, percent: u8) {
        let step = at.0.div_euclid(STEP_MS);
        if self.count == 0 {
            (self.step, self.count) = (step, 1);
        }
        if step < self.step {
            return;
        }
        let ahead = usize::try_from(step - self.step).unwrap_or(POINTS).min(POINTS);
        self.points.copy_within(ahead.., 0);
        self.points[POINTS - ahead..].fill(UNKNOWN);
        self.count = (self.count + ahead).min(POINTS);
        self.step = step;
        self.points[POINTS - 1] = percent.min(100);
    }

    /// The points up to this moment, oldest first.
    pub(crate) fn points(&self, now: WallTime) -> Vec<Option<u8>> {
        let gap = self.gap(now);
        let known = self.points[POINTS - self.count..].iter().map(|point| Some(*point).filter(|one| *one != UNKNOWN));
        let mut points: Vec<Option<u8>> = known.chain(std::iter::repeat_n(None, gap)).collect();
        points.drain(..points.len().saturating_sub(POINTS));
        points
    }

    /// Points between the last one and this moment. The step that has just begun has not been measured yet: that is no gap.
    fn gap(&self, now: WallTime) -> usize {
        let behind = usize::try_from(now.0.div_euclid(STEP_MS) - self.step).unwrap_or(0);
        behind.saturating_sub(1).min(POINTS)
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

/// Several lines up to this moment as one of [`POINTS`], oldest first: their mean, moment by moment, of those that say something.
pub(crate) fn mean<'a>(lines: impl Iterator<Item = &'a Line>, now: WallTime) -> Vec<Option<u8>> {
    let (mut sums, mut counts) = ([0u32; POINTS], [0u32; POINTS]);
    for line in lines {
        let points = &line.points[line.gap(now)..];
        for ((sum, count), point) in sums.iter_mut().zip(&mut counts).zip(points) {
            let known = u32::from(*point != UNKNOWN);
            *sum += u32::from(*point) * known;
            *count += known;
        }
    }
    let mean = |(sum, count): (&u32, &u32)| sum.checked_div(*count).and_then(|mean| u8::try_from(mean).ok());
    sums.iter().zip(&counts).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_lines_is_taken_from_the_newest_point_backwards() {
        let at = |step: i64| WallTime(step * STEP_MS + 1);
        let mut lines = [Line::default(), Line::default(), Line::default()];
        lines[0].put(at(0), 10);
        lines[0].put(at(2), 40);
        lines[0].put(at(2), 50);
        lines[1].put(at(2), 100);
        let line = mean(lines.iter(), at(2));
        assert_eq!((line.len(), &line[POINTS - 4..]), (POINTS, &[None, Some(10), None, Some(75)][..]));
        assert_eq!(lines[0].points(at(2)), [Some(10), None, Some(50)]);
        // The step that has just begun is no gap; the one before it is.
        assert_eq!(lines[0].points(at(3)), [Some(10), None, Some(50)]);
        assert_eq!(lines[0].points(at(4)), [Some(10), None, Some(50), None]);
        assert_eq!(mean(lines.iter(), at(4))[POINTS - 4..], [Some(10), None, Some(75), None]);
        assert_eq!(lines[0].points(at(1_000)), [None; POINTS], "all of it is too long ago");
        // Sixty points back from 61 is 2.
        lines[0].put(at(61), 7);
        let points = lines[0].points(at(61));
        assert_eq!((points.len(), points[0], points[POINTS - 1]), (POINTS, Some(50), Some(7)));
        assert_eq!(mean([].iter(), at(0)), [None; POINTS]);
        assert_eq!((share(1, 0), share(1, 3), share(9, 3)), (None, Some(33), Some(100)));
    }
}
