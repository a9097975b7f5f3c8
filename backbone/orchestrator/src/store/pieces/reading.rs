//! Reading: pages of records, each from where the one before it ended, from memory where that has what was written last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use super::{HEAD_BYTES, Mark, PIECE_BYTES_MAX, Piece, Pieces, State, parse, payload_length};

/// Places where pages ended that are remembered of one file: for so many readers who go on.
const PAGE_ENDS_MAX: usize = 16;
/// Most bytes in memory of what was written last, of all files of a directory together.
const TAILS_BYTES_MAX: usize = 64 << 20;

/// Bytes that are read at once.
pub(super) const WINDOW_BYTES: usize = 4 * PIECE_BYTES_MAX;

/// What was written last.
#[derive(Debug)]
pub(super) struct Tail {
    /// Where it begins in the file.
    from: u64,
    bytes: Bytes,
    /// Bytes of all tails.
    total: Arc<AtomicUsize>,
}

impl Tail {
    /// `None` when memory holds enough of them already.
    pub(super) fn new(from: u64, bytes: Bytes, total: &Arc<AtomicUsize>) -> Option<Self> {
        let before = total.fetch_add(bytes.len(), Ordering::Relaxed);
        let tail = Self { from, bytes, total: Arc::clone(total) };
        (before + tail.bytes.len() <= TAILS_BYTES_MAX).then_some(tail)
    }

    /// From this place of the file on.
    fn after(&self, at: u64) -> Option<Bytes> {
        let skip = usize::try_from(at.checked_sub(self.from)?).ok()?;
        (skip < self.bytes.len()).then(|| self.bytes.slice(skip..))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// What a reader makes of a record.
enum Taken {
    /// It goes on behind it.
    Next,
    /// It has enough with it.
    Last,
    /// It had enough without it.
    Not,
}

/// Where to begin reading.
struct Place {
    file: Arc<File>,
    mark: Mark,
    tail: Option<Arc<Tail>>,
}

impl Pieces {
    /// Synced records from index `from` on, of at most `max_bytes` together, at least one if there is one. Blocks.
    pub(in crate::store) fn read_records(&self, from: u64, max_bytes: usize) -> io::Result<Vec<Piece>> {
        let place = self.place_before(|mark| mark.record <= from);
        self.records(place, from, max_bytes)
    }

    /// The same, without waiting for a disk; `None` where that needs one.
    pub(in crate::store) fn recent_records(&self, from: u64, max_bytes: usize) -> Option<Vec<Piece>> {
        let place = self.place_before(|mark| mark.record <= from).filter(|place| place.mark.record == from)?;
        place.tail.as_ref()?.after(place.mark.file)?;
        // Should it have to read after all, because more was synced this very moment, that is in the system's memory.
        self.records(Some(place), from, max_bytes).ok()
    }

    fn records(&self, place: Option<Place>, from: u64, max_bytes: usize) -> io::Result<Vec<Piece>> {
        let mut found = Vec::new();
        let mut bytes = 0usize;
        self.scan(place, |piece| {
            if piece.index >= from {
                if !found.is_empty() && bytes.saturating_add(piece.data.len()) > max_bytes {
                    return Taken::Not;
                }
                bytes = bytes.saturating_add(piece.data.len());
                found.push(piece);
            }
            if bytes < max_bytes { Taken::Next } else { Taken::Last }
        })?;
        Ok(found)
    }

    /// Synced bytes of `tag` from `offset` on, at most `max_bytes`. Blocks.
    pub(in crate::store) fn read_bytes(&self, tag: u8, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let mut found = BytesMut::new();
        let place = self.place_before(|mark| mark.lengths[usize::from(tag)] <= offset);
        self.scan(place, |piece| {
            let end = piece.offset + piece.data.len() as u64;
            if piece.tag != tag || end <= offset {
                return Taken::Next;
            }
            let skip = usize::try_from(offset.saturating_sub(piece.offset)).unwrap_or(usize::MAX);
            let data = &piece.data[skip.min(piece.data.len())..];
            let room = max_bytes - found.len();
            found.extend_from_slice(&data[..data.len().min(room)]);
            match (found.len() < max_bytes, data.len() <= room) {
                (true, _) => Taken::Next,
                (false, true) => Taken::Last,
                // The next page begins within this record.
                (false, false) => Taken::Not,
            }
        })?;
        Ok(found.freeze())
    }

    /// The last known place for which this is true.
    fn place_before(&self, fits: impl Fn(&Mark) -> bool) -> Option<Place> {
        let state = self.state();
        let mark = state.marks.partition_point(&fits).checked_sub(1).map(|at| state.marks[at]);
        let page_end = state.page_ends.iter().filter(|mark| fits(mark)).max_by_key(|mark| mark.record).copied();
        let mark = mark.into_iter().chain(page_end).max_by_key(|mark| mark.record)?;
        let tail = state.tail.clone();
        Some(Place { file: Arc::clone(state.file.as_ref()?), mark, tail })
    }

    /// Shows records to `each` until it has enough, and remembers where that was.
    fn scan(&self, place: Option<Place>, mut each: impl FnMut(Piece) -> Taken) -> io::Result<()> {
        let Some(Place { file, mut mark, tail }) = place else { return Ok(()) };
        let end = self.progress.borrow().file;
        let mut window = Bytes::new();
        while mark.file < end {
            if window.len() < HEAD_BYTES || window.len() < HEAD_BYTES + payload_length(&window) {
                window = match tail.as_ref().and_then(|tail| tail.after(mark.file)) {
                    // A copy, so that a reader who is slow holds no more than its page.
                    Some(bytes) => Bytes::copy_from_slice(&bytes[..bytes.len().min(WINDOW_BYTES)]),
                    None => {
                        let upto = tail.as_ref().map(|tail| tail.from).filter(|from| *from > mark.file);
                        let wanted = (upto.unwrap_or(end) - mark.file).min(WINDOW_BYTES as u64) as usize;
                        let mut bytes = BytesMut::zeroed(wanted);
                        file.read_exact_at(&mut bytes, mark.file)?;
                        bytes.freeze()
                    }
                };
            }
            let Some((mut piece, used)) = parse(&window) else {
                let why = format!("a record at {} is damaged", mark.file);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            };
            piece.index = mark.record;
            let (tag, length) = (usize::from(piece.tag), piece.data.len() as u64);
            let taken = each(piece);
            if matches!(taken, Taken::Not) {
                break;
            }
            window = window.slice(used..);
            mark.lengths[tag] += length;
            mark.file += used as u64;
            mark.record += 1;
            if matches!(taken, Taken::Last) {
                break;
            }
        }
        self.state().remember_page_end(mark);
        Ok(())
    }
}

impl State {
    /// Who reads on from here finds it at once.
    fn remember_page_end(&mut self, mark: Mark) {
        if self.page_ends.iter().all(|known| known.record != mark.record) {
            self.page_ends.truncate(PAGE_ENDS_MAX - 1);
            self.page_ends.push_front(mark);
        }
    }
}
