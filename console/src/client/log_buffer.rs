//! The output of one followed job as lines: cleaned of everything but text and colours, bounded, with numbers that never
//! change, so that forgetting the oldest lines never moves what is on the screen.

use std::collections::VecDeque;

use modchain_types::WallTime;
use modchain_wire::agent::OutputStream;
use modchain_wire::console::LogCursor;
use modchain_wire::view::JobView;

use super::live::LogItem;
use crate::exit::Failure;

/// Lines that are kept.
pub(crate) const LINES_MAX: usize = 50_000;
/// Bytes of lines that are kept.
pub(crate) const BYTES_MAX: usize = 16 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When its first byte was written, by the node's clock.
    pub(crate) at: WallTime,
    /// What it is.
    pub(crate) kind: LineKind,
    /// Text and SGR sequences only, in UTF-8; no line end.
    pub(crate) text: Box<str>,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// The job's standard output.
    Out,
    /// The job's standard error.
    Err,
    /// Ours: a new attempt, a connection that was resumed, the end.
    Note,
}

/// The output of one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogBuffer {
    lines: VecDeque<LogLine>,
    /// Number of the first line that is kept; lines count from 0.
    first: u64,
    bytes: usize,
    cursor: Option<LogCursor>,
    /// The job as it was when it ended, once it has and all its output is here.
    pub(crate) end: Option<Box<JobView>>,
    /// Whether all that was there when it was asked for has come.
    pub(crate) caught_up: bool,
    /// Why there is nothing more.
    pub(crate) refused: Option<Failure>,
}

impl LogBuffer {
    /// Takes in the next item.
    pub(crate) fn take(&mut self, item: LogItem) {
        match item {
            LogItem::Chunk(chunk) => {
                self.cursor = Some(chunk.cursor);
                let kind = match chunk.stream {
                    OutputStream::Out => LineKind::Out,
                    OutputStream::Err => LineKind::Err,
                    OutputStream::Note => LineKind::Note,
                };
                for text in String::from_utf8_lossy(&chunk.data).lines() {
                    self.push(LogLine { at: chunk.at, kind, text: crate::text::one_line(text).into() });
                }
            }
            LogItem::CaughtUp => self.caught_up = true,
            LogItem::Resumed(_) => {}
            LogItem::End(job) => self.end = Some(job),
            LogItem::Refused(failure) => self.refused = Some(failure),
        }
    }

    fn push(&mut self, line: LogLine) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(gone) = self.lines.pop_front() else { break };
            self.bytes -= gone.text.len();
            self.first += 1;
        }
    }

    /// Number of the first line that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Number after the last line.
    pub(crate) fn end_number(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// The line of this number, if it is kept.
    pub(crate) fn line(&self, number: u64) -> Option<&LogLine> {
        self.lines.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Where to go on.
    pub(crate) fn cursor(&self) -> Option<LogCursor> {
        self.cursor
    }
}
