//! Which part of an output is on the screen. A position is the number of a line, and where lines are broken the row within it, so that
//! a line which is taller than the screen is read to its end.

use unicode_width::UnicodeWidthChar;

use super::OutputUi;
use super::search::finds;
use crate::client::colour::plain;
use crate::client::log_buffer::LogBuffer;

/// What is at the top of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Top {
    /// The number of a line.
    pub(super) line: u64,
    /// How many of its rows are above the screen, where it is broken.
    pub(super) row: usize,
}

/// What is looked at: the lines, how, and how much room there is for them.
pub(super) struct Window<'a> {
    pub(super) log: &'a LogBuffer,
    pub(super) ui: &'a OutputUi,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Columns before the text of a line.
    pub(super) margin: usize,
}

impl Window<'_> {
    fn shows(&self, number: u64) -> bool {
        self.log.line(number).is_some_and(|line| self.ui.streams.shows(line.kind))
    }

    /// The line that is shown after this one.
    fn after(&self, number: u64) -> Option<u64> {
        (number + 1..self.log.end_number()).find(|number| self.shows(*number))
    }

    /// The line that is shown before this one.
    fn before(&self, number: u64) -> Option<u64> {
        (self.log.first()..number.min(self.log.end_number())).rev().find(|number| self.shows(*number))
    }

    /// Columns for the text of a line.
    fn room(&self) -> usize {
        self.columns.saturating_sub(self.margin).max(1)
    }

    /// Rows of the screen that a line takes.
    fn height(&self, number: u64) -> usize {
        if !self.ui.wrap {
            return 1;
        }
        self.log.line(number).map_or(1, |line| broken(&plain(&line.text), self.room()))
    }

    /// The row of a line in which a text begins for the first time.
    pub(super) fn row_of(&self, number: u64, wanted: &str) -> usize {
        let Some(line) = self.log.line(number).filter(|_| self.ui.wrap) else { return 0 };
        let text = plain(&line.text);
        let end = finds(&text, wanted).first().map_or(0, |find| find.start);
        // The first character of what was found may be the one that begins the next row.
        let with_first = text[end..].chars().next().map_or(end, |c| end + c.len_utf8());
        broken(&text[..with_first], self.room()) - 1
    }

    /// The top so many rows of the screen below another, as far as there are any.
    fn below(&self, from: Top, rows: usize) -> Top {
        let mut top = from;
        for _ in 0..rows {
            if top.row + 1 < self.height(top.line) {
                top.row += 1;
            } else if let Some(line) = self.after(top.line) {
                top = Top { line, row: 0 };
            } else {
                break;
            }
        }
        top
    }

    /// The top so many rows of the screen above another, as far as there are any.
    fn above(&self, from: Top, rows: usize) -> Top {
        let mut top = from;
        for _ in 0..rows {
            if top.row > 0 {
                top.row -= 1;
            } else if let Some(line) = self.before(top.line) {
                top = Top { line, row: self.height(line) - 1 };
            } else {
                break;
            }
        }
        top
    }

    /// The top with which the last row of the last line is at the bottom.
    fn top_at_end(&self) -> Top {
        let Some(line) = self.before(self.log.end_number()) else {
            return Top { line: self.log.end_number(), row: 0 };
        };
        self.above(Top { line, row: self.height(line) - 1 }, self.rows - 1)
    }

    /// What is at the top of the screen.
    pub(super) fn top(&self) -> Top {
        let Some(top) = self.ui.top else { return self.top_at_end() };
        let line = top.line.max(self.log.first());
        if line == top.line && self.shows(line) {
            return Top { line, row: top.row.min(self.height(line) - 1) };
        }
        let line = if self.shows(line) { Some(line) } else { self.after(line).or_else(|| self.before(line)) };
        Top { line: line.unwrap_or(top.line), row: 0 }
    }

    /// The lines on the screen, each with how many of its rows are above it.
    pub(super) fn shown(&self) -> Vec<(u64, usize)> {
        let top = self.top();
        let mut lines = Vec::new();
        let mut next = Some(top.line).filter(|number| self.shows(*number));
        let (mut skip, mut used) = (top.row, 0);
        while let Some(number) = next.filter(|_| used < self.rows) {
            lines.push((number, skip));
            used += self.height(number) - skip;
            skip = 0;
            next = self.after(number);
        }
        lines
    }

    /// Whether a row of a line is on the screen.
    pub(super) fn has(&self, at: Top) -> bool {
        let top = self.top();
        let bottom = self.below(top, self.rows - 1);
        (top..=bottom).contains(&at)
    }

    /// The top with which a row of a line is in the middle.
    pub(super) fn centred(&self, at: Top) -> Top {
        self.above(at, self.rows / 2)
    }

    /// The top so many rows away; `None` where that is the end, which is followed.
    pub(super) fn moved(&self, by: isize) -> Option<Top> {
        let from = self.top();
        if by <= 0 {
            return Some(self.above(from, by.unsigned_abs()));
        }
        Some(self.below(from, by.unsigned_abs())).filter(|top| *top < self.top_at_end())
    }
}

/// Rows that a text takes where it is broken after so many columns; a wide character is never broken.
pub(super) fn broken(text: &str, room: usize) -> usize {
    let (mut rows, mut used) = (1, 0);
    for width in text.chars().map(|c| c.width().unwrap_or(0)) {
        if used + width > room {
            (rows, used) = (rows + 1, 0);
        }
        used += width;
    }
    rows
}
