//! Looking for a text in a job's output, some of it at a time: keys and frames are never waited for.

use crate::client::colour::plain;
use crate::client::log_buffer::LogBuffer;

/// Finds that are kept; a `+` says that there are more.
pub(super) const FINDS_MAX: usize = 10_000;
/// Bytes of lines that are looked at in one go: some milliseconds.
const LOOK_BYTES: usize = 512 << 10;

/// A search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    /// What is looked for, in lower case.
    pub(super) wanted: String,
    /// The lines that have it, in their order.
    pub(super) finds: Vec<u64>,
    /// Whether the first find is gone to as soon as everything was looked at.
    pub(super) goes: bool,
    /// The first line that was not looked at yet.
    next: u64,
    /// Whether all lines up to the end were looked at.
    done: bool,
    /// Lines that alone can have it up to the first that was not looked at, because they have a part of it.
    hopeful: Option<Vec<u64>>,
    /// The find that was gone to.
    at: Option<u64>,
}

impl Search {
    /// A search for this text. Where the one before was for a part of it, only what that has found is looked at again.
    pub(super) fn new(wanted: &str, before: Option<Self>) -> Self {
        let wanted = wanted.to_lowercase();
        let narrows = |before: &Self| {
            before.done
                && before.finds.len() < FINDS_MAX
                && !before.wanted.is_empty()
                && wanted.contains(&before.wanted)
        };
        let (next, hopeful) = match before.filter(narrows) {
            Some(before) => (before.next, Some(before.finds)),
            None => (0, None),
        };
        Self { wanted, finds: Vec::new(), goes: true, next, done: false, hopeful, at: None }
    }

    /// Whether all lines up to the end were looked at.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Looks at some of the lines that have come since, or were there. Unfinished ones may still grow, so they are looked at again.
    pub(super) fn look(&mut self, log: &LogBuffer) {
        let gone = self.finds.partition_point(|find| *find < log.first());
        self.finds.drain(..gone);
        for number in self.hopeful.take().unwrap_or_default() {
            self.look_at(log, number);
        }
        let from = self.next.max(log.first());
        let kept = self.finds.partition_point(|find| *find < from);
        self.finds.truncate(kept);
        let mut left = LOOK_BYTES;
        let mut number = from;
        while number < log.end_number() && left > 0 {
            left = left.saturating_sub(self.look_at(log, number).max(1));
            number += 1;
        }
        self.done = number >= log.end_number();
        self.next = number.min(log.unfinished());
    }

    /// Looks at one line; gives its length.
    fn look_at(&mut self, log: &LogBuffer, number: u64) -> usize {
        let Some(line) = log.line(number) else { return 0 };
        if self.finds.len() < FINDS_MAX && !finds(&plain(&line.text), &self.wanted).is_empty() {
            self.finds.push(number);
        }
        line.text.len()
    }

    /// Goes to the next find, or the one before: from `top` at first, from find to find after that, and round the ends.
    pub(super) fn next(&mut self, top: u64, backwards: bool) -> Option<u64> {
        let finds = &self.finds;
        let place = match (self.at, backwards) {
            (Some(at), false) => finds.partition_point(|find| *find <= at),
            (Some(at), true) => finds.partition_point(|find| *find < at).wrapping_sub(1),
            (None, false) => finds.partition_point(|find| *find < top),
            (None, true) => finds.partition_point(|find| *find < top).wrapping_sub(1),
        };
        let round = if backwards { finds.last() } else { finds.first() };
        let find = finds.get(place).or(round).copied()?;
        self.at = Some(find);
        Some(find)
    }

    /// The place of the find that was gone to among all, from 1 on; 0 before that.
    pub(super) fn place(&self) -> usize {
        self.at.and_then(|at| self.finds.binary_search(&at).ok()).map_or(0, |place| place + 1)
    }
}

/// Where a text has another, whatever the case: byte ranges.
pub(super) fn finds(text: &str, wanted: &str) -> Vec<std::ops::Range<usize>> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let lower = text.to_lowercase();
    // Where lower case has other lengths nothing could be pointed at: then only what is written just so is found.
    let place = if lower.len() == text.len() { lower.as_str() } else { text };
    let found = place.match_indices(wanted).map(|(at, found)| at..at + found.len());
    found.filter(|range| text.is_char_boundary(range.start) && text.is_char_boundary(range.end)).collect()
}

#[cfg(test)]
mod tests {
    use modchain_types::{Asset, WallTime};
    use modchain_wire::Data;
    use modchain_wire::agent::OutputStream;
    use modchain_wire::console::{LogChunk, LogCursor};

    use super::*;
    use crate::client::live::LogItem;
    use crate::client::log_buffer::Setting;

    fn write(log: &mut LogBuffer, text: &str) {
        let records = log.cursor().map_or(0, |cursor| cursor.records) + 1;
        let chunk = LogChunk {
            cursor: LogCursor { attempt: 1, records },
            stream: OutputStream::Out,
            offset: 0,
            at: WallTime(0),
            data: Data::new(bytes::Bytes::copy_from_slice(text.as_bytes())).expect("fits"),
        };
        let setting = Setting { now: WallTime(0), utc: true, asset: Asset::Test };
        log.take(LogItem::Chunk(Box::new(chunk)), setting);
    }

    /// Every thirtieth line has `needle` and its number.
    fn haystack(lines: u64) -> LogBuffer {
        let mut log = LogBuffer::default();
        for number in 0..lines {
            let word = if number % 30 == 0 { "Needle" } else { "straw" };
            write(&mut log, &format!("{word} {number} {}\n", "x".repeat(100)));
        }
        log
    }

    fn looked(search: &mut Search, log: &LogBuffer) -> usize {
        for look in 1.. {
            search.look(log);
            if search.is_done() {
                return look;
            }
        }
        0
    }

    #[test]
    fn a_long_output_is_looked_at_in_pieces_and_a_longer_word_only_where_the_shorter_was() {
        let log = haystack(20_000);
        let mut search = Search::new("NEED", None);
        assert!(looked(&mut search, &log) > 2, "not in one go");
        let all: Vec<u64> = (0..20_000).filter(|number| number % 30 == 0).collect();
        assert_eq!(search.finds, all);
        let mut longer = Search::new("needle 3", Some(search.clone()));
        assert_eq!(looked(&mut longer, &log), 1, "two thirds of a thousand lines are few");
        let whole = |wanted: &str| {
            let mut search = Search::new(wanted, None);
            looked(&mut search, &log);
            search.finds
        };
        assert_eq!(longer.finds, whole("needle 3"));
        // Another word is looked for from the beginning, and so is a shorter one.
        for wanted in ["straw 17", "nee", "needle"] {
            let mut other = Search::new(wanted, Some(longer.clone()));
            looked(&mut other, &log);
            assert_eq!(other.finds, whole(wanted), "{wanted}");
        }
    }

    #[test]
    fn what_comes_and_what_grows_is_found_and_what_is_forgotten_is_not() {
        let mut log = haystack(60);
        let mut search = Search::new("needle", None);
        looked(&mut search, &log);
        write(&mut log, "a nee");
        search.look(&log);
        assert_eq!(search.finds, [0, 30]);
        write(&mut log, "dle has come\nand more\n");
        search.look(&log);
        assert_eq!(search.finds, [0, 30, 60]);
        // A longer word than that is looked for in what comes after it too.
        let mut longer = Search::new("needle h", Some(search));
        write(&mut log, "needle here\n");
        looked(&mut longer, &log);
        assert_eq!(longer.finds, [60, 62]);
    }

    #[test]
    fn finds_are_gone_to_in_both_directions_and_round_the_ends() {
        let log = haystack(100);
        let mut search = Search::new("needle", None);
        looked(&mut search, &log);
        assert_eq!((search.place(), search.next(31, false), search.place()), (0, Some(60), 3));
        let mut go = |backwards| search.next(0, backwards);
        assert_eq!([go(false), go(false), go(true), go(true)], [Some(90), Some(0), Some(90), Some(60)]);
        let mut back = Search::new("needle", None);
        looked(&mut back, &log);
        assert_eq!(back.next(31, true), Some(30));
        assert_eq!(Search::new("nothing", None).next(0, false), None);
    }

    #[test]
    fn case_does_not_matter_and_ranges_lie_on_characters() {
        assert_eq!(finds("a Needle, a nEEDLE", "needle"), [2..8, 12..18]);
        assert_eq!(finds("漢字 Wort", "wort").first(), Some(&(7..11)));
        // The small letter of this one is longer: then it is looked for as it is written.
        assert_eq!(finds("\u{130}stanbul x", "x").first(), Some(&(10..11)));
        assert!(finds("text", "").is_empty());
    }
}
