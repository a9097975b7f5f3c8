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

/// One line: at most [`POINTS`] points, each 0 to 100 percent, `None` where nothing was measured. In one piece, because 10,000 nodes
/// have three each.
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
    /// Puts a measurement at its moment; the newest one of a step counts. Tells which point is another one now, and what it was.
    pub(crate) fn put(&mut self, at: WallTime, percent: u8) -> Option<(i64, Option<u8>)> {
        let step = at.0.div_euclid(STEP_MS);
        if self.count == 0 {
            (self.step, self.count) = (step, 1);
        }
        if step < self.step {
            return None;
        }
        let ahead = usize::try_from(step - self.step).unwrap_or(POINTS).min(POINTS);
        self.points.copy_within(ahead.., 0);
        self.points[POINTS - ahead..].fill(UNKNOWN);
        self.count = (self.count + ahead).min(POINTS);
        self.step = step;
        let before = std::mem::replace(&mut self.points[POINTS - 1], percent.min(100));
        Some((step, Some(before).filter(|one| *one != UNKNOWN)))
    }

    /// Every point that was measured, with its step.
    fn measured(&self) -> impl Iterator<Item = (i64, u8)> {
        let steps = (self.step + 1 - POINTS as i64)..;
        steps.zip(self.points).filter(|(_, point)| *point != UNKNOWN)
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

/// Several lines as one: their mean, moment by moment, of those that say something. Kept up point by point, so that a step costs
/// nothing for each of 10,000 lines.
#[derive(Debug, Clone)]
struct Mean {
    /// Sum and number of what was measured; the newest is at the end.
    points: [(u32, u32); POINTS],
    /// The step of the last point.
    step: i64,
}

impl Default for Mean {
    fn default() -> Self {
        Self { points: [(0, 0); POINTS], step: i64::MIN }
    }
}

impl Mean {
    fn place(&self, step: i64) -> Option<usize> {
        let behind = usize::try_from(self.step.checked_sub(step)?).ok()?;
        (POINTS - 1).checked_sub(behind)
    }

    /// Puts a measurement into a line that belongs to it.
    fn put(&mut self, line: &mut Line, at: WallTime, percent: u8) {
        let Some((step, before)) = line.put(at, percent) else { return };
        if step > self.step {
            let ahead = usize::try_from(step.saturating_sub(self.step)).unwrap_or(POINTS).min(POINTS);
            self.points.copy_within(ahead.., 0);
            self.points[POINTS - ahead..].fill((0, 0));
            self.step = step;
        }
        if let Some(before) = before {
            self.take_out(step, before);
        }
        if let Some(place) = self.place(step) {
            let (sum, count) = &mut self.points[place];
            *sum += u32::from(percent.min(100));
            *count += 1;
        }
    }

    fn take_out(&mut self, step: i64, percent: u8) {
        if let Some(place) = self.place(step) {
            let (sum, count) = &mut self.points[place];
            *sum -= u32::from(percent);
            *count -= 1;
        }
    }

    /// A line belongs to it no more.
    fn leave(&mut self, line: &Line) {
        line.measured().for_each(|(step, percent)| self.take_out(step, percent));
    }

    /// The points up to this moment, oldest first. The step that has just begun is left out as long as fewer than half of
    /// those that told the one before have told it.
    fn points(&self, now: WallTime) -> Vec<Option<u8>> {
        let at = |step: i64| self.place(step).map_or((0, 0), |place| self.points[place]);
        let step = now.0.div_euclid(STEP_MS);
        let last = if 2 * at(step).1 > at(step - 1).1 { step } else { step - 1 };
        let mean = |(sum, count): (u32, u32)| sum.checked_div(count).and_then(|mean| u8::try_from(mean).ok());
        (last + 1 - POINTS as i64..=last).map(|step| mean(at(step))).collect()
    }
}

/// Lines of all nodes together.
#[derive(Debug, Clone, Default)]
struct Means {
    gpu: Mean,
    vram: Mean,
    cpu: Mean,
}

/// All lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    nodes: BTreeMap<Name, NodeSeries>,
    all: Means,
}

impl Series {
    /// Takes in what a node's last heartbeat measured.
    pub(crate) fn take(&mut self, node: &NodeView, now: WallTime) {
        let Self { nodes, all } = self;
        let line = nodes.entry(node.name.clone()).or_default();
        if let Some(percent) = gpu_busy(node) {
            all.gpu.put(&mut line.gpu, now, percent);
        }
        if let Some(percent) = vram(node).and_then(|(used, total)| share(used, total)) {
            all.vram.put(&mut line.vram, now, percent);
        }
        if let Some(permille) = node.load.and_then(|load| load.cpu_permille) {
            all.cpu.put(&mut line.cpu, now, u8::try_from(permille / 10).unwrap_or(100));
        }
    }

    /// Forgets a node.
    pub(crate) fn remove(&mut self, name: &Name) {
        if let Some(node) = self.nodes.remove(name) {
            self.all.leave(&node);
        }
    }

    /// Forgets every node but these.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&Name) -> bool) {
        let Self { nodes, all } = self;
        nodes.retain(|name, node| {
            let stays = stays(name);
            if !stays {
                all.leave(node);
            }
            stays
        });
    }

    /// What is kept of one node.
    pub(crate) fn of(&self, name: &Name) -> Option<&NodeSeries> {
        self.nodes.get(name)
    }

    /// GPUs of all nodes, as [`NodeSeries::gpu`]: [`POINTS`] points up to this moment, oldest first.
    pub(crate) fn gpu(&self, now: WallTime) -> Vec<Option<u8>> {
        self.all.gpu.points(now)
    }

    /// Memory of the GPUs of all nodes, in the same form.
    pub(crate) fn vram(&self, now: WallTime) -> Vec<Option<u8>> {
        self.all.vram.points(now)
    }

    /// Processors of all nodes, in the same form.
    pub(crate) fn cpu(&self, now: WallTime) -> Vec<Option<u8>> {
        self.all.cpu.points(now)
    }
}

impl Means {
    fn leave(&mut self, node: &NodeSeries) {
        self.gpu.leave(&node.gpu);
        self.vram.leave(&node.vram);
        self.cpu.leave(&node.cpu);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: i64) -> WallTime {
        WallTime(step * STEP_MS + 1)
    }

    #[test]
    fn a_line_has_gaps_where_nothing_was_measured_and_none_for_the_step_that_has_just_begun() {
        let mut line = Line::default();
        assert_eq!(line.put(at(0), 10), Some((0, None)));
        line.put(at(2), 40);
        assert_eq!(line.put(at(2), 50), Some((2, Some(40))));
        assert_eq!(line.put(at(1), 50), None, "that is over");
        assert_eq!(line.points(at(2)), [Some(10), None, Some(50)]);
        assert_eq!(line.points(at(3)), [Some(10), None, Some(50)]);
        assert_eq!(line.points(at(4)), [Some(10), None, Some(50), None]);
        assert_eq!(line.points(at(1_000)), [None; POINTS], "all of it is too long ago");
        // Sixty points back from 61 is 2.
        line.put(at(61), 7);
        let points = line.points(at(61));
        assert_eq!((points.len(), points[0], points[POINTS - 1]), (POINTS, Some(50), Some(7)));
        assert_eq!((share(1, 0), share(1, 3), share(9, 3)), (None, Some(33), Some(100)));
    }

    #[test]
    fn the_mean_shows_a_step_once_half_of_the_lines_have_told_it() {
        let mut mean = Mean::default();
        assert_eq!(mean.points(at(0)), [None; POINTS]);
        let mut lines = [Line::default(), Line::default()];
        mean.put(&mut lines[0], at(0), 10);
        assert_eq!(mean.points(at(0))[POINTS - 1], Some(10), "nobody else was there before");
        for (line, percent) in lines.iter_mut().zip([50, 100]) {
            mean.put(line, at(2), percent);
        }
        assert_eq!(mean.points(at(2))[POINTS - 4..], [None, Some(10), None, Some(75)]);
        assert_eq!(mean.points(at(3))[POINTS - 3..], [Some(10), None, Some(75)]);
        mean.put(&mut lines[0], at(3), 20);
        assert_eq!(mean.points(at(3))[POINTS - 2..], [None, Some(75)], "half of them is not more than half");
        mean.put(&mut lines[1], at(3), 40);
        assert_eq!(mean.points(at(3))[POINTS - 2..], [Some(75), Some(30)]);
        mean.leave(&lines[1]);
        assert_eq!(mean.points(at(3))[POINTS - 4..], [Some(10), None, Some(50), Some(20)]);
        assert_eq!(mean.points(at(1_000)), [None; POINTS]);
    }

    #[test]
    fn the_mean_that_is_kept_is_the_mean_of_the_lines() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (mut mean, mut lines, mut step) = (Mean::default(), vec![Line::default(); 5], 0_i64);
        for _ in 0..2_000 {
            let (which, percent) = (draw(5) as usize, draw(101) as u8);
            match draw(10) {
                0 => mean.leave(&std::mem::take(&mut lines[which])),
                1 => step += draw(4) as i64,
                2 if draw(20) == 0 => step += 70,
                _ => mean.put(&mut lines[which], at(step - draw(2) as i64), percent),
            }
            let mut told: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
            for (step, percent) in lines.iter().flat_map(Line::measured) {
                told.entry(step).or_default().push(percent.into());
            }
            let expected = |step: i64| told.get(&step).map(|all| (all.iter().sum::<u32>() / all.len() as u32) as u8);
            let counts = |step: i64| told.get(&step).map_or(0, Vec::len);
            let last = if 2 * counts(step) > counts(step - 1) { step } else { step - 1 };
            let expected: Vec<_> = (last + 1 - POINTS as i64..=last).map(expected).collect();
            assert_eq!(mean.points(at(step)), expected);
        }
    }
}
