//! Where in a container's output an attempt is, so that a later agent goes on at the same byte.
//!
//! The engine's log knows messages with a time and a stream, but no bytes. A [`Mark`] ties the two: at the message of this
//! stream and time, so many bytes of each stream had come before. A message is a place only when its time is later than that
//! of every message of its stream before it, because then no other can be taken for it. Marks are appended to the attempt's
//! state file now and then; a new agent takes the last one that its spool has reached and counts on from there.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modchain_wire::agent::OutputStream;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// Output after which a mark is written: at most this much is read twice after a restart.
const MARK_BYTES: u64 = 64 << 10;

/// Time after which a mark is written, when there is output.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Marks in the file at which the old ones are dropped: 36 KiB.
const MARKS_MAX: usize = 1024;

/// Marks that are then kept, beside the first. Output waits for the spool in some dozens of pieces, and there is at most one
/// mark for each, so the spool has reached one of these.
const MARKS_KEPT: usize = 256;

/// Bytes of a mark in the file.
const RECORD_BYTES: usize = 4 + 1 + 8 + 8 + 8;

/// Bytes of both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
}

impl Position {
    /// Of one stream; a container has no notes.
    pub(super) fn of(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Out => &mut self.stdout,
            OutputStream::Err | OutputStream::Note => &mut self.stderr,
        }
    }

    pub(super) fn total(self) -> u64 {
        self.stdout + self.stderr
    }
}

/// A message that can be found again, and the bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) stream: OutputStream,
    /// Nanoseconds since 1970 by the engine's clock, as in the log.
    pub(super) at: i64,
    pub(super) before: Position,
}

/// The second of a moment, as the engine wants to be asked.
fn second(nanos: i64) -> i32 {
    i32::try_from(nanos.div_euclid(1_000_000_000).max(0)).unwrap_or(i32::MAX)
}

impl Mark {
    /// Whether a message is its own.
    pub(super) fn is(self, stream: OutputStream, at: i64) -> bool {
        self.stream == stream && self.at == at
    }
}

/// Counts an attempt's output and remembers marks.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    file: Option<tokio::fs::File>,
    records: usize,
    /// Bytes that were taken from the log.
    pub(super) position: Position,
    /// The last place that can be found again, written or not.
    pub(super) mark: Option<Mark>,
    /// Times of the latest message of each stream.
    latest: [i64; 2],
    /// The earliest time of a message since the mark's, if the clock was set back meanwhile; not known after [`Cursor::load`].
    earliest: i64,
    /// The earliest time of all.
    first_time: i64,
    written_at: Option<(Instant, u64)>,
    /// Where this log began, as far as is known.
    pub(super) first: Option<Mark>,
}

impl Cursor {
    /// For an attempt that begins.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            records: 0,
            position: Position::default(),
            mark: None,
            latest: [i64::MIN; 2],
            earliest: i64::MAX,
            first_time: i64::MAX,
            written_at: None,
            first: None,
        }
    }

    /// For an attempt of which `position` is in the spool.
    pub(super) async fn load(path: PathBuf, position: Position) -> Self {
        let marks = match tokio::fs::read(&path).await {
            Ok(bytes) => read_marks(&bytes),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "the places in a container's log cannot be read");
                }
                Vec::new()
            }
        };
        let reached = |mark: &&Mark| mark.before.stdout <= position.stdout && mark.before.stderr <= position.stderr;
        let mark = marks.iter().rev().find(reached).copied();
        let (earliest, first_time) = (i64::MIN, i64::MIN);
        let first = marks.first().copied();
        let mut cursor = Self { position, mark, earliest, first_time, first, ..Self::new(path) };
        // What the new agent reads again it also writes again; marks beyond the spool would lie in wait for the next one.
        let kept: Vec<Mark> = marks.iter().filter(reached).copied().collect();
        cursor.rewrite(&kept).await;
        cursor
    }

    /// From when on the engine has to be asked for its log, in seconds since 1970, so that the mark's message and all behind it are
    /// in the answer. It leaves out what was written before that by its clock, which may have been set back.
    pub(super) fn since(&self, now: i64) -> i32 {
        self.mark.map_or(0, |mark| second(mark.at.min(self.earliest).min(now)))
    }

    /// The same for the first mark's message.
    pub(super) fn since_first(&self, now: i64) -> i32 {
        self.first.map_or(0, |first| second(first.at.min(self.first_time).min(now)))
    }

    /// Takes in a message of which `bytes` are new.
    pub(super) async fn take(&mut self, stream: OutputStream, at: i64, bytes: u64) {
        let latest = &mut self.latest[usize::from(stream != OutputStream::Out)];
        if at > *latest {
            *latest = at;
            let mark = Mark { stream, at, before: self.position };
            self.mark = Some(mark);
            self.earliest = i64::MAX;
            self.first.get_or_insert(mark);
            let due = self.written_at.is_none_or(|(when, total)| {
                when.elapsed() >= MARK_EVERY || self.position.total() - total >= MARK_BYTES
            });
            if due {
                self.write(mark).await;
            }
        }
        (self.earliest, self.first_time) = (self.earliest.min(at), self.first_time.min(at));
        *self.position.of(stream) += bytes;
    }

    /// Notes the time of a message that was read again, so that the next one is compared with it.
    pub(super) fn passed(&mut self, stream: OutputStream, at: i64) {
        let latest = &mut self.latest[usize::from(stream != OutputStream::Out)];
        *latest = at.max(*latest);
    }

    async fn write(&mut self, mark: Mark) {
        self.written_at = Some((Instant::now(), self.position.total()));
        if self.records >= MARKS_MAX {
            match tokio::fs::read(&self.path).await {
                Ok(bytes) => {
                    let marks = read_marks(&bytes);
                    let recent = marks.len().saturating_sub(MARKS_KEPT).max(1).min(marks.len());
                    let kept: Vec<Mark> = marks.iter().take(1).chain(&marks[recent..]).copied().collect();
                    self.rewrite(&kept).await;
                }
                Err(error) => self.complain(&error),
            }
        }
        if let Err(error) = self.append(&record(mark)).await {
            // The attempt goes on; only a restart of the agent would miss it, and says so then.
            self.complain(&error);
        }
        self.records += 1;
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = tokio::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).await?;
            self.file = Some(file);
        }
        let file = self.file.as_mut().expect("opened above");
        file.write_all(bytes).await?;
        file.flush().await
    }

    async fn rewrite(&mut self, marks: &[Mark]) {
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| record(*mark)).collect();
        self.file = None;
        self.records = marks.len();
        if let Err(error) = replace(&self.path, &bytes).await {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "a place in a container's log cannot be kept");
    }
}

/// Replaces a file as a whole, so that a crash leaves the old or the new one.
async fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    tokio::fs::write(&new, bytes).await?;
    tokio::fs::rename(&new, path).await
}

fn record(mark: Mark) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[4] = u8::from(mark.stream != OutputStream::Out);
    bytes[5..13].copy_from_slice(&mark.at.to_le_bytes());
    bytes[13..21].copy_from_slice(&mark.before.stdout.to_le_bytes());
    bytes[21..29].copy_from_slice(&mark.before.stderr.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The marks up to the first that is torn or damaged.
fn read_marks(bytes: &[u8]) -> Vec<Mark> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    bytes
        .chunks_exact(RECORD_BYTES)
        .map_while(|bytes| {
            let crc = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
            let stream = match bytes[4] {
                0 => OutputStream::Out,
                1 => OutputStream::Err,
                _ => return None,
            };
            (crc == crc32c::crc32c(&bytes[4..])).then(|| Mark {
                stream,
                at: number(&bytes[5..13]).cast_signed(),
                before: Position { stdout: number(&bytes[13..21]), stderr: number(&bytes[21..29]) },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stdout: u64, stderr: u64) -> Position {
        Position { stdout, stderr }
    }

    #[tokio::test]
    async fn the_last_mark_that_the_spool_has_reached_is_taken_and_the_ones_beyond_it_are_dropped() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("state");
        let mut cursor = Cursor::new(path.clone());
        let step = MARK_BYTES;
        cursor.take(OutputStream::Out, 10, step).await;
        cursor.take(OutputStream::Err, 11, step).await;
        // No place: it has the time of the one before.
        cursor.take(OutputStream::Err, 11, step).await;
        cursor.take(OutputStream::Out, 12, step).await;
        assert_eq!(cursor.position, at(2 * step, 2 * step));
        let loaded = Cursor::load(path.clone(), at(step, step + 1)).await;
        assert_eq!(loaded.mark, Some(Mark { stream: OutputStream::Err, at: 11, before: at(step, 0) }));
        assert_eq!(loaded.first, Some(Mark { stream: OutputStream::Out, at: 10, before: at(0, 0) }));
        // The mark at (step, 2 * step) is gone although the spool would reach it now.
        let again = Cursor::load(path.clone(), at(9 * step, 9 * step)).await;
        assert_eq!(again.mark.map(|mark| mark.at), Some(11));
        assert_eq!(Cursor::load(path, at(0, 0)).await.mark.map(|mark| mark.at), Some(10));
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_leaves_nothing_out_of_the_log() {
        const SECOND: i64 = 1_000_000_000;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("state");
        let mut cursor = Cursor::new(path.clone());
        let now = 200 * SECOND;
        assert_eq!(cursor.since(now), 0);
        cursor.take(OutputStream::Out, 100 * SECOND, 5).await;
        assert_eq!((cursor.since(now), cursor.since_first(now)), (100, 100));
        // Just set back: what is written from now on has not been seen.
        assert_eq!((cursor.since(70 * SECOND), cursor.since_first(70 * SECOND)), (70, 70));
        cursor.take(OutputStream::Out, 71 * SECOND, 5).await;
        assert_eq!((cursor.mark.map(|mark| mark.at), cursor.since(now)), (Some(100 * SECOND), 71));
        let loaded = Cursor::load(path, at(10, 0)).await;
        assert_eq!((loaded.mark.map(|mark| mark.at), loaded.since(now)), (Some(100 * SECOND), 0), "nobody knows");
        cursor.take(OutputStream::Out, 101 * SECOND, 5).await;
        assert_eq!((cursor.since(now), cursor.since_first(now)), (101, 71));
    }

    #[tokio::test]
    async fn a_torn_or_missing_file_gives_what_is_whole_of_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("state");
        assert_eq!(Cursor::load(path.clone(), at(5, 5)).await.mark, None);
        let mark = |at_time, stdout| Mark { stream: OutputStream::Out, at: at_time, before: at(stdout, 0) };
        let mut bytes = [record(mark(1, 0)), record(mark(2, 5))].concat();
        bytes.pop();
        std::fs::write(&path, &bytes).expect("writes");
        assert_eq!(Cursor::load(path, at(5, 5)).await.mark, Some(mark(1, 0)));
    }

    #[tokio::test]
    async fn the_file_stays_small_and_keeps_its_first_mark() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("state");
        let mut cursor = Cursor::new(path.clone());
        for time in 0..3 * MARKS_MAX as i64 {
            cursor.take(OutputStream::Out, time, MARK_BYTES).await;
        }
        let marks = read_marks(&std::fs::read(&path).expect("there"));
        assert!(marks.len() <= MARKS_MAX + 1, "{}", marks.len());
        assert_eq!(marks[0].at, 0);
        assert_eq!(marks.last().map(|mark| mark.at), Some(3 * MARKS_MAX as i64 - 1));
    }
}
