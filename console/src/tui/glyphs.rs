//! The characters that pictures are made of: Unicode where the terminal can, plain ASCII where it cannot. Colour never carries
//! a meaning alone: every state has its character and its word.

use modchain_types::{JobState, NodeState};
use ratatui::symbols::border;

/// One set of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glyphs {
    /// Whether only ASCII is used.
    pub(crate) ascii: bool,
}

const SPARKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const SPARKS_ASCII: [&str; 8] = ["_", "_", ".", "-", "=", "+", "*", "#"];
const EIGHTHS: [&str; 9] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Glyphs {
    /// The character of a job's state.
    pub(crate) fn job(self, state: JobState) -> &'static str {
        let (unicode, ascii) = match state {
            JobState::Queued => ("◌", "."),
            JobState::Assigned | JobState::Starting => ("◔", "o"),
            JobState::Running => ("●", "*"),
            JobState::Unreachable => ("?", "?"),
            JobState::Cancelling => ("◑", "~"),
            JobState::Completed => ("✓", "+"),
            JobState::Failed => ("✗", "x"),
            JobState::TimedOut => ("⧖", "t"),
            JobState::Cancelled => ("⊘", "c"),
            JobState::Expired => ("∅", "e"),
        };
        self.pick(unicode, ascii)
    }

    /// The character of a node's state.
    pub(crate) fn node(self, state: NodeState) -> &'static str {
        let (unicode, ascii) = match state {
            NodeState::Ready => ("●", "*"),
            NodeState::Suspect => ("?", "?"),
            NodeState::Lost => ("○", "o"),
            NodeState::Cordoned => ("◐", "-"),
            NodeState::Draining => ("◑", "~"),
            NodeState::Paused => ("▫", "p"),
        };
        self.pick(unicode, ascii)
    }

    /// A line of measurements, the newest last, in so many columns; a gap is a `·`.
    pub(crate) fn spark(self, points: &[Option<u8>], columns: usize) -> String {
        if columns == 0 || points.is_empty() {
            return String::new();
        }
        let sparks = if self.ascii { SPARKS_ASCII } else { SPARKS };
        let gap = self.pick("·", " ");
        let columns = columns.min(points.len());
        (0..columns)
            .map(|column| {
                let part = &points[column * points.len() / columns..(column + 1) * points.len() / columns];
                match part.iter().flatten().max() {
                    Some(percent) => sparks[usize::from((*percent).min(100)) * (sparks.len() - 1) / 100],
                    None => gap,
                }
            })
            .collect()
    }

    /// A picture of so many rows, the uppermost first: one column for each value, in thousandths of the whole height; a gap is a `·`.
    pub(crate) fn chart(self, values: &[Option<u32>], rows: usize) -> Vec<String> {
        let sparks = if self.ascii { SPARKS_ASCII } else { SPARKS };
        let line = |row: usize| {
            let below = rows - 1 - row;
            let column = |value: &Option<u32>| {
                let Some(value) = value else { return if below == 0 { self.pick("·", " ") } else { " " } };
                // What is there shows, however little it is.
                let eighths = ((*value).min(1000) as usize * rows * 8).div_ceil(1000);
                match eighths.saturating_sub(below * 8) {
                    0 => " ",
                    part => sparks[part.min(8) - 1],
                }
            };
            values.iter().map(column).collect()
        };
        (0..rows).map(line).collect()
    }

    /// A bar of so many columns that is filled to this share, in thousandths.
    pub(crate) fn bar(self, permille: u32, columns: usize) -> String {
        let eighths = permille.min(1000) as usize * columns * 8 / 1000;
        if self.ascii {
            let full = eighths / 8;
            return "#".repeat(full) + &"-".repeat(columns - full);
        }
        let mut text = "█".repeat(eighths / 8);
        if eighths / 8 < columns {
            text.push_str(EIGHTHS[eighths % 8]);
            text.push_str(&" ".repeat(columns - eighths / 8 - 1));
        }
        text
    }

    /// The frame around a pane.
    pub(crate) fn border(self) -> border::Set<'static> {
        if self.ascii { ASCII_BORDER } else { border::PLAIN }
    }

    /// The frame around a question.
    pub(crate) fn double_border(self) -> border::Set<'static> {
        if self.ascii { ASCII_BORDER } else { border::DOUBLE }
    }

    /// One of two, by what the terminal can.
    pub(crate) fn pick(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    /// A text without any character that is not ASCII, where the terminal cannot show one.
    pub(crate) fn plain(self, text: &str) -> String {
        if self.ascii { text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spark_has_the_columns_it_was_given_and_shows_gaps() {
        let glyphs = Glyphs { ascii: false };
        assert_eq!(glyphs.spark(&[Some(0), Some(50), None, Some(100)], 4), "▁▄·█");
        assert_eq!(glyphs.spark(&[Some(0), Some(50), None, Some(100)], 2), "▄█");
        assert_eq!(glyphs.spark(&[Some(7)], 10), "▁");
        assert_eq!(glyphs.spark(&[], 10), "");
    }

    #[test]
    fn a_chart_grows_from_its_lowest_row() {
        let glyphs = Glyphs { ascii: false };
        assert_eq!(glyphs.chart(&[Some(0), Some(1), Some(500), Some(750), Some(1000), None], 2), ["   ▄█ ", " ▁███·"]);
        assert_eq!(glyphs.chart(&[Some(1000)], 0), Vec::<String>::new());
    }

    #[test]
    fn a_bar_has_the_columns_it_was_given() {
        for ascii in [false, true] {
            for permille in [0, 1, 499, 500, 999, 1000, 2000] {
                for columns in 0..12 {
                    let bar = Glyphs { ascii }.bar(permille, columns);
                    assert_eq!(bar.chars().count(), columns, "{permille} {columns} {bar:?}");
                }
            }
        }
        assert_eq!(Glyphs { ascii: true }.bar(500, 4), "##--");
    }

    #[test]
    fn states_differ_by_more_than_colour() {
        for ascii in [false, true] {
            let glyphs = Glyphs { ascii };
            let mut seen: Vec<&str> = JobState::ALL.iter().map(|state| glyphs.job(*state)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), JobState::ALL.len() - 1, "assigned and starting are one to the eye");
        }
    }
}
