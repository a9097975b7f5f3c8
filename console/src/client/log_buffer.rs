//! The output of one followed job as lines: cleaned of everything but text and colours, bounded, with numbers that never
//! change, so that forgetting the oldest lines never moves what is on the screen.
//!
//! Standard output and standard error each have their unfinished line, which is shown at once and grows in its place; a line
//! that a program writes anew after a carriage return keeps its last state. What cannot be shown is a `·`.

use std::collections::VecDeque;
use std::sync::Arc;

use modchain_types::{Asset, WallTime};
use modchain_wire::agent::OutputStream;
use modchain_wire::console::{LogChunk, LogCursor};
use modchain_wire::view::JobView;
use unicode_width::UnicodeWidthChar;

use super::colour::{Look, Painted};
use super::live::LogItem;
use crate::clean::{Cleaner, Sink};
use crate::exit::Failure;
use crate::text;

/// Lines that are kept.
pub(crate) const LINES_MAX: usize = 50_000;
/// Bytes of lines that are kept.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// A line is shown in parts when it is longer than so many bytes, or has more changes of colour than that.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;
/// See [`LINE_BYTES_MAX`].
const LINE_CHANGES_MAX: usize = 512;
/// Columns from one tab to the next.
const TAB_COLUMNS: usize = 8;
/// What stands for a character that is not shown.
const UNSHOWN: &str = "·";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When its first byte was written, by the node's clock.
    pub(crate) at: WallTime,
    /// What it is.
    pub(crate) kind: LineKind,
    /// Text and SGR sequences only, in UTF-8; no line end. [`super::colour::runs`] takes it apart. Every line begins with the
    /// default look.
    pub(crate) text: Arc<str>,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// The job's standard output.
    Out,
    /// The job's standard error.
    Err,
    /// Ours or the orchestrator's: a new attempt, a connection that was resumed, the end.
    Note,
}

/// What remarks are put in words with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The time, by this machine's clock.
    pub(crate) now: WallTime,
    /// Whether times are shown in UTC.
    pub(crate) utc: bool,
    /// What money is.
    pub(crate) asset: Asset,
}

/// The output of one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogBuffer {
    lines: Lines,
    out: Stream,
    err: Stream,
    note: Stream,
    cursor: Option<LogCursor>,
    /// The job as it was when it ended, once it has and all its output is here.
    pub(crate) end: Option<Box<JobView>>,
    /// Whether all that was there when it was asked for has come.
    pub(crate) caught_up: bool,
    /// Why there is nothing more.
    pub(crate) refused: Option<Failure>,
}

/// The lines that are kept.
#[derive(Debug, Clone, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    /// Number of the first line that is kept; lines count from 0.
    first: u64,
    bytes: usize,
}

/// What is known of a stream between two pieces of it.
#[derive(Debug, Clone, Default)]
struct Stream {
    cleaner: Cleaner,
    look: Look,
    /// The unfinished line.
    open: Painted,
    /// Its width so far.
    column: usize,
    /// Its number; `None` while it has not begun.
    number: Option<u64>,
    /// It is written anew by what comes next.
    returned: bool,
    /// Something was written into it, even if that was taken back.
    begun: bool,
}

impl LogBuffer {
    /// Takes in the next item.
    pub(crate) fn take(&mut self, item: LogItem, setting: Setting) {
        match item {
            LogItem::Chunk(chunk) => self.chunk(&chunk),
            LogItem::CaughtUp => self.caught_up = true,
            LogItem::Resumed(since) => {
                let time = |at| text::time_of_day(at, setting.utc);
                let words = format!("link lost {}, resumed {}, no output lost", time(since), time(setting.now));
                self.remark(setting.now, &words);
            }
            LogItem::End(job) => {
                if self.end.is_none() {
                    self.remark(job.ended_at.unwrap_or(setting.now), &ending(&job, setting.asset));
                }
                self.end = Some(job);
                self.caught_up = true;
            }
            LogItem::Refused(failure) => {
                // Who asks once more hears the same once more.
                if self.refused.as_ref().is_none_or(|known| known.message != failure.message) {
                    self.remark(setting.now, &failure.message);
                }
                self.refused = Some(failure);
            }
        }
    }

    /// A line of our own.
    pub(crate) fn remark(&mut self, at: WallTime, words: &str) {
        self.lines.push(LogLine { at, kind: LineKind::Note, text: text::one_line(words).into() });
    }

    fn chunk(&mut self, chunk: &LogChunk) {
        let known = self.cursor.is_some_and(|cursor| cursor >= chunk.cursor);
        // A remark on what is missing has no place of its own.
        if known && chunk.stream != OutputStream::Note {
            return;
        }
        if self.cursor.is_some_and(|cursor| cursor.attempt < chunk.cursor.attempt) {
            // Nobody ends the lines of an older attempt any more.
            (self.out, self.err, self.note) = (Stream::default(), Stream::default(), Stream::default());
        }
        self.cursor = self.cursor.max(Some(chunk.cursor));
        let (kind, stream) = match chunk.stream {
            OutputStream::Out => (LineKind::Out, &mut self.out),
            OutputStream::Err => (LineKind::Err, &mut self.err),
            OutputStream::Note => (LineKind::Note, &mut self.note),
        };
        if stream.number.is_some_and(|number| number < self.lines.first) {
            // The line that it goes on with is forgotten.
            stream.begin();
        }
        let mut cleaner = std::mem::take(&mut stream.cleaner);
        let mut writer = Writer { lines: &mut self.lines, at: chunk.at, kind, stream };
        cleaner.feed(&chunk.data, &mut writer);
        writer.show();
        stream.cleaner = cleaner;
    }

    /// Number of the first line that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.lines.first
    }

    /// How many lines were forgotten.
    pub(crate) fn forgotten(&self) -> u64 {
        self.lines.first
    }

    /// Number after the last line.
    pub(crate) fn end_number(&self) -> u64 {
        self.lines.end()
    }

    /// The first line that may still grow, or the number after the last one.
    pub(crate) fn unfinished(&self) -> u64 {
        let open = [&self.out, &self.err, &self.note].into_iter().filter_map(|stream| stream.number);
        open.min().unwrap_or_else(|| self.end_number())
    }

    /// The line of this number, if it is kept.
    pub(crate) fn line(&self, number: u64) -> Option<&LogLine> {
        self.lines.kept.get(usize::try_from(number.checked_sub(self.lines.first)?).ok()?)
    }

    /// Where to go on.
    pub(crate) fn cursor(&self) -> Option<LogCursor> {
        self.cursor
    }

    /// Bytes that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.bytes + self.lines.kept.len() * size_of::<LogLine>()
    }
}

/// How a job ended, in words.
fn ending(job: &JobView, asset: Asset) -> String {
    let mut words = job.state.word().replace('_', " ");
    if let Some(exit) = job.exit {
        words += &format!(", exit code {}", exit.code);
    }
    if let Some(ran) = job.ended_at.and_then(|ended| text::ran(job, ended)) {
        words += &format!(", ran {}", text::lasted(ran));
    }
    words += &format!(", cost {}", text::money(job.cost, asset));
    if !job.message.is_empty() {
        words += &format!(": {}", job.message);
    }
    words
}

impl Lines {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn push(&mut self, line: LogLine) -> u64 {
        let number = self.end();
        self.bytes += line.text.len();
        self.kept.push_back(line);
        self.trim();
        number
    }

    fn replace(&mut self, number: u64, text: Arc<str>) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(line) = place.and_then(|place| self.kept.get_mut(place)) {
            self.bytes = self.bytes - line.text.len() + text.len();
            line.text = text;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.kept.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(gone) = self.kept.pop_front() else { break };
            self.bytes -= gone.text.len();
            self.first += 1;
        }
    }
}

impl Stream {
    /// A line begins; the look goes on.
    fn begin(&mut self) {
        self.open.clear();
        (self.column, self.number, self.returned, self.begun) = (0, None, false, false);
    }
}

/// Writes one piece of a stream into the lines.
struct Writer<'a> {
    lines: &'a mut Lines,
    at: WallTime,
    kind: LineKind,
    stream: &'a mut Stream,
}

impl Writer<'_> {
    /// Puts the unfinished line where it is seen.
    fn show(&mut self) {
        if self.stream.begun {
            let number = self.put();
            self.stream.number = Some(number);
        }
    }

    /// Puts the line at its number, or at the end if it has none yet.
    fn put(&mut self) -> u64 {
        let text = self.stream.open.render();
        match self.stream.number {
            Some(number) => {
                self.lines.replace(number, text);
                number
            }
            None => self.lines.push(LogLine { at: self.at, kind: self.kind, text }),
        }
    }

    /// The line is finished.
    fn finish(&mut self) {
        self.put();
        self.stream.begin();
    }

    fn write(&mut self, text: &str, columns: usize) {
        let Stream { open, look, column, returned, .. } = &mut *self.stream;
        if std::mem::take(returned) {
            open.clear();
            *column = 0;
        }
        let too_long = open.plain().len() + text.len() > LINE_BYTES_MAX;
        if too_long || (open.changes() >= LINE_CHANGES_MAX && open.look() != *look) {
            self.finish();
        }
        let stream = &mut *self.stream;
        stream.open.push(text, stream.look);
        stream.column += columns;
        stream.begun = true;
    }
}

impl Sink for Writer<'_> {
    fn text(&mut self, text: &str) {
        if !text.is_ascii() {
            let columns = text.chars().map(|c| c.width().unwrap_or(0)).sum();
            return self.write(text, columns);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let written = if self.stream.returned { 0 } else { self.stream.open.plain().len() };
            let room = match LINE_BYTES_MAX.saturating_sub(written) {
                0 => LINE_BYTES_MAX,
                room => room,
            };
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.write(now, now.len());
            rest = later;
        }
    }

    fn special(&mut self, c: char) {
        match c {
            '\n' => self.finish(),
            '\r' => self.stream.returned = true,
            '\t' => {
                let column = if self.stream.returned { 0 } else { self.stream.column };
                let columns = TAB_COLUMNS - column % TAB_COLUMNS;
                self.write(&"        "[..columns], columns);
            }
            // Spinners take back what they wrote.
            '\x08' => {
                if let Some(gone) = self.stream.open.pop() {
                    self.stream.column = self.stream.column.saturating_sub(gone.width().unwrap_or(0));
                }
            }
            // Nobody hears it here.
            '\x07' => {}
            _ => self.write(UNSHOWN, 1),
        }
    }

    fn colour(&mut self, numbers: &str) {
        self.stream.look.apply(numbers);
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::Span;
    use modchain_wire::Data;

    use super::*;
    use crate::client::colour::{plain, runs};
    use crate::client::samples;

    const SETTING: Setting = Setting { now: samples::AT, utc: true, asset: Asset::Test };

    fn chunk(cursor: (u32, u64), stream: OutputStream, data: &[u8]) -> LogItem {
        LogItem::Chunk(Box::new(LogChunk {
            cursor: LogCursor { attempt: cursor.0, records: cursor.1 },
            stream,
            offset: 0,
            at: samples::AT.plus(Span::from_secs(cursor.1)),
            data: Data::new(data.to_vec()).expect("fits"),
        }))
    }

    /// Takes in these pieces of streams in turn.
    fn buffer(pieces: &[(OutputStream, &[u8])]) -> LogBuffer {
        let mut buffer = LogBuffer::default();
        for (record, (stream, data)) in pieces.iter().enumerate() {
            buffer.take(chunk((1, record as u64 + 1), *stream, data), SETTING);
        }
        buffer
    }

    fn lines(buffer: &LogBuffer) -> Vec<&str> {
        (buffer.first()..buffer.end_number()).filter_map(|number| buffer.line(number)).map(|line| &*line.text).collect()
    }

    fn of(data: &[u8]) -> Vec<String> {
        let whole = buffer(&[(OutputStream::Out, data)]);
        let pieces: Vec<_> = data.iter().map(|byte| (OutputStream::Out, std::slice::from_ref(byte))).collect();
        let bytewise = buffer(&pieces);
        assert_eq!(lines(&whole), lines(&bytewise), "the pieces must not matter");
        lines(&whole).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn lines_end_where_they_end_and_the_last_one_is_seen_at_once() {
        assert_eq!(of(b"one\ntwo\r\n\nthree"), ["one", "two", "", "three"]);
        assert_eq!(of("w\u{e4}hrung \u{6f22}\u{5b57}\n".as_bytes()), ["währung 漢字"]);
        assert_eq!(of(b""), Vec::<String>::new());
        let mut growing = buffer(&[(OutputStream::Out, b"be")]);
        assert_eq!(lines(&growing), ["be"]);
        growing.take(chunk((1, 2), OutputStream::Out, b"gun"), SETTING);
        assert_eq!(lines(&growing), ["begun"]);
        assert_eq!(growing.line(0).expect("there").at, samples::AT.plus(Span::from_secs(1)), "of its first byte");
    }

    #[test]
    fn both_streams_have_their_own_unfinished_line() {
        use OutputStream::{Err, Out};
        let buffer = buffer(&[(Out, b"out "), (Err, b"err\nmore "), (Out, b"goes on\nnext\n"), (Err, b"of it\n")]);
        assert_eq!(lines(&buffer), ["out goes on", "err", "more of it", "next"]);
        let kinds: Vec<_> = (0..4).filter_map(|number| buffer.line(number)).map(|line| line.kind).collect();
        assert_eq!(kinds, [LineKind::Out, LineKind::Err, LineKind::Err, LineKind::Out]);
    }

    #[test]
    fn progress_keeps_its_last_state() {
        assert_eq!(of(b"10 %\r50 %\r100 %\ndone\n"), ["100 %", "done"]);
        assert_eq!(of(b"half way\r"), ["half way"]);
        assert_eq!(of(b"long line\rx\n"), ["x"]);
        assert_eq!(of(b"-\x08\\\x08|\x08/\x08\n"), [""]);
        assert_eq!(of(b"a\tb\r\tc\n"), ["        c"]);
    }

    #[test]
    fn tabs_end_at_every_eighth_column() {
        assert_eq!(of(b"a\tb\t\tc\n"), ["a       b               c"]);
        assert_eq!(of("\u{6f22}\tb\n".as_bytes()), ["漢      b"], "a wide character has two");
    }

    #[test]
    fn colours_go_on_over_line_ends_and_every_line_stands_alone() {
        assert_eq!(of(b"\x1b[31mred\nstill\x1b[0m\nplain\x1b[31m\n"), ["\x1b[0;31mred", "\x1b[0;31mstill", "plain"]);
        assert_eq!(of(b"\x1b[8mhidden\x1b[5mblink\n"), ["hiddenblink"]);
        let both =
            buffer(&[(OutputStream::Out, b"\x1b[31ma"), (OutputStream::Err, b"b\n"), (OutputStream::Out, b"c\n")]);
        assert_eq!(lines(&both), ["\x1b[0;31mac", "b"], "each stream has its own");
    }

    #[test]
    fn what_cannot_be_shown_is_a_dot_or_nothing() {
        assert_eq!(of(b"a\x1b[2J\x1b]0;title\x07b\x00c\x7fd\x07\xff"), ["ab·c·d·"]);
        assert_eq!(of("x\u{202e}y\u{200b}z\u{85}".as_bytes()), ["x·y·z·"]);
    }

    #[test]
    fn a_line_without_an_end_is_broken() {
        let long = vec![b'x'; 3 * LINE_BYTES_MAX + 5];
        let parts = of(&long[..LINE_BYTES_MAX + 5]);
        assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 5]);
        let wide = "漢".repeat(LINE_BYTES_MAX / 2);
        assert!(
            lines(&buffer(&[(OutputStream::Out, wide.as_bytes())])).iter().all(|line| line.len() <= LINE_BYTES_MAX)
        );
        let colourful = "\x1b[31ma\x1b[32mb".repeat(4_000);
        let split = buffer(&[(OutputStream::Out, colourful.as_bytes())]);
        assert!(lines(&split).iter().all(|line| line.len() < 2 * LINE_BYTES_MAX));
    }

    #[test]
    fn what_came_already_is_not_taken_again_and_a_new_attempt_begins_its_own_lines() {
        let mut buffer = buffer(&[(OutputStream::Out, b"one\n"), (OutputStream::Out, b"\x1b[31mtwo")]);
        buffer.take(chunk((1, 2), OutputStream::Out, b"two"), SETTING);
        buffer.take(chunk((2, 1), OutputStream::Note, b"attempt 2 on oslo-02\n"), SETTING);
        buffer.take(chunk((2, 2), OutputStream::Out, b"one again\n"), SETTING);
        assert_eq!(lines(&buffer), ["one", "\x1b[0;31mtwo", "attempt 2 on oslo-02", "one again"]);
        assert_eq!(buffer.cursor(), Some(LogCursor { attempt: 2, records: 2 }));
    }

    #[test]
    fn an_interruption_and_the_end_are_lines() {
        let mut buffer = buffer(&[(OutputStream::Out, b"work\n")]);
        let later = Setting { now: samples::AT.plus(Span::from_secs(7)), ..SETTING };
        buffer.take(LogItem::Resumed(samples::AT), later);
        for _ in 0..2 {
            buffer.take(LogItem::End(Box::new(samples::ended_job(1, 3))), SETTING);
        }
        assert_eq!(
            lines(&buffer),
            [
                "work",
                "link lost 14:03:21, resumed 14:03:28, no output lost",
                "failed, exit code 3, ran 8m30s, cost 0.41 TEST"
            ]
        );
        assert!(buffer.end.is_some() && buffer.caught_up);
    }

    #[test]
    fn the_oldest_lines_are_forgotten_and_the_numbers_stay() {
        let mut buffer = LogBuffer::default();
        let mut record = 0;
        let mut put = |buffer: &mut LogBuffer, stream, data: &[u8]| {
            record += 1;
            buffer.take(chunk((1, record), stream, data), SETTING);
        };
        put(&mut buffer, OutputStream::Err, b"never ended");
        for number in 0..LINES_MAX as u64 + 10 {
            put(&mut buffer, OutputStream::Out, format!("{number}\n").as_bytes());
        }
        assert_eq!((buffer.forgotten(), buffer.end_number()), (11, LINES_MAX as u64 + 11));
        assert_eq!(&*buffer.line(11).expect("there").text, "10");
        assert!(buffer.line(10).is_none());
        put(&mut buffer, OutputStream::Err, b" goes on elsewhere\n");
        assert_eq!(&*buffer.line(buffer.end_number() - 1).expect("there").text, " goes on elsewhere");
        let long = [b'y'; LINE_BYTES_MAX];
        for _ in 0..3_000 {
            put(&mut buffer, OutputStream::Out, &long);
        }
        assert!(buffer.lines.bytes <= BYTES_MAX);
        let counted: usize = buffer.lines.kept.iter().map(|line| line.text.len()).sum();
        assert_eq!(buffer.lines.bytes, counted);
    }

    #[test]
    fn a_noisy_job_costs_little() {
        let line = b"2026-11-28T20:46:47 \x1b[32mINFO\x1b[0m step 12345 loss 0.4321 lr 1.0e-4 tokens/s 41233\n";
        let data: Vec<u8> = line.repeat(700);
        let mut buffer = LogBuffer::default();
        let begun = std::time::Instant::now();
        let ((), spent) = modchain_fuzz::spend(|| {
            for record in 1..=100 {
                buffer.take(chunk((1, record), OutputStream::Out, &data), SETTING);
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        println!("{:.0} lines/s, {spent:?} for 70000 lines", 70_000.0 / seconds);
        assert!(spent.allocations < 3 * 70_000 + 10_000, "{spent:?}");
        assert!(spent.peak_bytes < BYTES_MAX + LINES_MAX * 64, "{spent:?}");
    }

    /// What must hold for every line, whatever came.
    fn check(buffer: &LogBuffer) {
        for text in lines(buffer) {
            assert!(plain(text).len() <= LINE_BYTES_MAX);
            for (_, run) in runs(text) {
                for c in run.chars() {
                    assert!(!c.is_control() && !modchain_types::is_hidden(c), "{c:?}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_become_lines_that_say_nothing_to_the_terminal() {
        let words: [&[u8]; 12] = [
            b"\x1b[31m",
            b"\x1b[0m",
            b"\x1b[38;2;1;2;3m",
            b"\n",
            b"\r",
            b"\r\n",
            b"\t",
            b"\x08",
            b"\x1b]0;x\x07",
            b"\xe6\xbc\xa2",
            b"\xe2\x80\xae",
            b"\xff",
        ];
        crate::fuzz::target("lines").words(&words).longest(512).executions(5_000).run(|input| {
            let whole = buffer(&[(OutputStream::Out, input)]);
            check(&whole);
            let (first, second) = input.split_at(input.len() / 3);
            let pieces =
                buffer(&[(OutputStream::Out, first), (OutputStream::Err, b"x\n"), (OutputStream::Out, second)]);
            check(&pieces);
            let of_out = |buffer: &LogBuffer| -> Vec<Arc<str>> {
                buffer
                    .lines
                    .kept
                    .iter()
                    .filter(|line| line.kind == LineKind::Out)
                    .map(|line| line.text.clone())
                    .collect()
            };
            assert_eq!(of_out(&whole), of_out(&pieces), "the pieces must not matter");
            let ends = whole.end_number().checked_ilog2();
            modchain_fuzz::signature(&(
                ends,
                whole.lines.bytes.checked_ilog2(),
                whole.out.returned,
                whole.out.look.bold,
            ))
        });
    }
}
