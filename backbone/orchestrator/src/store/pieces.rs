//! An append-only file of small records: what one attempt prints, or what one job reads.
//!
//! Appending only fills memory; [`Pieces::sync`] writes and syncs what has gathered, and many callers share one sync. Only
//! synced records are visible to readers, so that nobody ever sees bytes that a crash could take back.
//!
//! A reader that goes on where it stopped is found by where pages ended, and gets what was just written from memory: who
//! follows what is printed costs the disk nothing.
//!
//! A record is `length u32 | crc32c u32 | at i64 | offset u64 | tag u8 | bytes`, little endian, after a header of 8 bytes.
//! Opening only measures: what follows the last whole record is not shown, and is cut off when more is written. So a reader, and who
//! only looks, destroys nothing, and what is whole behind a damaged record of a job that has ended is still there for who mends it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use modchain_types::WallTime;
use tokio::sync::{Semaphore, watch};

use super::space::{Level, Space, is_full};

mod reading;

use reading::{Tail, WINDOW_BYTES};

const MAGIC: &[u8; 8] = b"MODCPCS1";
/// Bytes of a record before its payload.
const HEAD_BYTES: usize = 25;
/// Largest payload of a record: what fits into one data frame of the wire.
pub(super) const PIECE_BYTES_MAX: usize = modchain_wire::CHUNK_BYTES_MAX;
/// Small pieces of one stream that arrive within this many milliseconds, before they are synced, become one record: a
/// program that prints byte by byte must not cost 25 bytes of disk for each.
const MERGE_MILLIS: u64 = 50;
/// One mark of the index every so many records.
const MARK_RECORDS: u64 = 64;
/// Files of one directory that are opened at once: opening reads a file through, and others' work on the disk needs threads too.
const OPENING_MAX: usize = 32;
/// Streams of one file.
pub(super) const TAGS: usize = 3;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) index: u64,
    pub(super) tag: u8,
    /// Bytes of this tag before it.
    pub(super) offset: u64,
    pub(super) at: WallTime,
    pub(super) data: Bytes,
}

/// What is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub(super) records: u64,
    /// Bytes per tag.
    pub(super) lengths: [u64; TAGS],
    /// Bytes of the file.
    file: u64,
}

impl Progress {
    fn covers(&self, other: &Self) -> bool {
        self.records >= other.records && self.lengths.iter().zip(other.lengths).all(|(mine, theirs)| *mine >= theirs)
    }
}

/// Where to begin reading for a record, or for an offset of a tag.
#[derive(Debug, Clone, Copy)]
struct Mark {
    record: u64,
    lengths: [u64; TAGS],
    file: u64,
}

#[derive(Debug)]
struct State {
    file: Option<Arc<File>>,
    /// Encoded records that are not written yet.
    pending: BytesMut,
    /// Where the last record in `pending` begins, if it may still grow.
    open_record: Option<usize>,
    /// With all that is pending.
    head: Progress,
    /// The file may go on behind what is synced: with something half written, damaged, or refused in the middle.
    goes_on: bool,
    marks: Vec<Mark>,
    /// Marks of pending records; they count once these are synced.
    pending_marks: Vec<Mark>,
    /// Where pages ended, the newest first.
    page_ends: VecDeque<Mark>,
    tail: Option<Arc<Tail>>,
}

/// One file. Shared by its writers and readers.
#[derive(Debug)]
pub(super) struct Pieces {
    path: PathBuf,
    state: Mutex<State>,
    /// Held by whoever syncs, on the thread that writes: a caller that goes away meanwhile must not let the next one write
    /// to the same place.
    syncing: Arc<tokio::sync::Mutex<()>>,
    progress: watch::Sender<Progress>,
    /// The room on the disk, which the journal needs more than this.
    space: Option<Arc<Space>>,
    /// Bytes of all tails.
    tails: Arc<AtomicUsize>,
}

impl Pieces {
    /// Opens the file, or prepares one that comes into being with the first sync. Blocks.
    fn open(path: &Path, space: Option<Arc<Space>>, tails: Arc<AtomicUsize>) -> io::Result<Self> {
        let (file, Measured { head, marks, behind }) = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => {
                let measured = recover(&file)?;
                (Some(Arc::new(file)), measured)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Measured::default()),
            Err(error) => return Err(error),
        };
        if behind > 0 {
            let path = path.display();
            tracing::warn!(%path, bytes = behind, "what follows the last whole record is not shown; it goes if more is written");
        }
        let state = State {
            file,
            pending: BytesMut::new(),
            open_record: None,
            head,
            goes_on: behind > 0,
            marks,
            pending_marks: Vec::new(),
            page_ends: VecDeque::new(),
            tail: None,
        };
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            syncing: Arc::default(),
            progress: watch::Sender::new(head),
            space,
            tails,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// What is synced, and every change of it.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Adds bytes behind the last ones of `tag`, in as many records as it takes; in memory only. `admit` sees how much is
    /// here and tells how many of the bytes are here already, or why none may be taken; nobody comes between the two.
    pub(super) fn append<E>(
        &self,
        tag: u8,
        at: WallTime,
        data: &[u8],
        admit: impl FnOnce(&Progress) -> Result<usize, E>,
    ) -> Result<(), E> {
        let state = &mut *self.state();
        let known = admit(&state.head)?;
        for data in data[known.min(data.len())..].chunks(PIECE_BYTES_MAX) {
            if !state.merge(tag, at, data) {
                state.add(tag, at, data);
            }
            state.head.lengths[usize::from(tag)] += data.len() as u64;
        }
        Ok(())
    }

    /// What follows starts a record of its own.
    pub(super) fn end_record(&self) {
        self.state().close_record();
    }

    /// Waits until all that was appended before is on disk. On an error everything that was not synced is forgotten.
    pub(super) async fn sync(self: &Arc<Self>) -> io::Result<Progress> {
        let target = self.state().head;
        let turn = Arc::clone(&self.syncing).lock_owned().await;
        let done = *self.progress.borrow();
        if done.covers(&target) {
            return Ok(done); // somebody else's sync took ours along
        }
        let this = Arc::clone(self);
        let write = move || {
            let _turn = turn;
            this.write_out()
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Writes and syncs what is pending. One at a time.
    fn write_out(&self) -> io::Result<Progress> {
        let durable = *self.progress.borrow();
        let (bytes, head) = {
            let state = &mut *self.state();
            state.close_record();
            (state.pending.split().freeze(), state.head)
        };
        if bytes.is_empty() {
            return Ok(durable);
        }
        let write = || {
            self.write_at(&bytes, durable.file).inspect_err(|error| match &self.space {
                Some(space) if is_full(error) => space.refused(), // whoever asks next is to know
                _ => {}
            })
        };
        let written = self.admit().and_then(|()| write());
        let state = &mut *self.state();
        match written {
            Ok(file) => {
                state.file.get_or_insert(file);
                state.goes_on = false;
                let synced = state.pending_marks.iter().take_while(|mark| mark.record < head.records).count();
                let marks: Vec<Mark> = state.pending_marks.drain(..synced).collect();
                state.marks.extend(marks);
                // The old one goes first: its room is wanted.
                state.tail = None;
                state.tail = Tail::new(head.file - bytes.len() as u64, bytes, &self.tails).map(Arc::new);
                self.progress.send_replace(head);
                Ok(head)
            }
            Err(error) => {
                // The disk may have part of it, or claim to have all of it: begin again from what is certain.
                if let Some(file) = &state.file {
                    let _ = file.set_len(durable.file);
                    state.goes_on = true; // until that is certain as well
                }
                state.pending.clear();
                state.open_record = None;
                state.pending_marks.clear();
                state.head = durable;
                Err(error)
            }
        }
    }

    /// Leaves the last bytes of the disk to the journal.
    fn admit(&self) -> io::Result<()> {
        match &self.space {
            Some(space) if space.level() == Level::Full => {
                space.look(); // there may be room for whoever asks next
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<Arc<File>> {
        let (existing, goes_on) = {
            let state = self.state();
            (state.file.clone(), state.goes_on)
        };
        let (file, new) = match existing {
            Some(file) => {
                if goes_on {
                    // On disk before anything is written there: whatever a crash leaves, no old record is found behind a new one.
                    file.set_len(at)?;
                    file.sync_all()?;
                }
                (file, false)
            }
            None => {
                if let Some(dir) = self.path.parent() {
                    fs::create_dir_all(dir)?;
                }
                let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).clone();
                (Arc::new(options.open(&self.path)?), true)
            }
        };
        // A fresh file begins with the magic; its records are written behind it at once.
        let at = if new || at == 0 {
            file.write_all_at(MAGIC, 0)?;
            MAGIC.len() as u64
        } else {
            at
        };
        file.write_all_at(bytes, at)?;
        file.sync_data()?;
        if new {
            for dir in self.path.ancestors().skip(1).take(2) {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(file)
    }
}

impl State {
    /// Puts bytes into the last pending record, if they belong there.
    fn merge(&mut self, tag: u8, at: WallTime, data: &[u8]) -> bool {
        let Some(start) = self.open_record else { return false };
        let head = &self.pending[start..start + HEAD_BYTES];
        let (length, began) = (payload_length(head), i64_at(head, 8));
        let close = at.0.abs_diff(began) <= MERGE_MILLIS;
        if head[24] != tag || !close || length + data.len() > PIECE_BYTES_MAX {
            return false;
        }
        self.pending.put_slice(data);
        let length = (length + data.len()) as u32;
        self.pending[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.head.file += data.len() as u64;
        true
    }

    /// Nothing is put into the last pending record any more: its checksum can be made.
    fn close_record(&mut self) {
        if let Some(start) = self.open_record.take() {
            seal(&mut self.pending[start..]);
        }
    }

    fn add(&mut self, tag: u8, at: WallTime, data: &[u8]) {
        self.close_record();
        if self.head.file == 0 {
            self.head.file = MAGIC.len() as u64;
        }
        if self.head.records.is_multiple_of(MARK_RECORDS) {
            self.pending_marks.push(Mark {
                record: self.head.records,
                lengths: self.head.lengths,
                file: self.head.file,
            });
        }
        let start = self.pending.len();
        self.pending.put_u32_le(data.len() as u32);
        self.pending.put_u32_le(0);
        self.pending.put_i64_le(at.0);
        self.pending.put_u64_le(self.head.lengths[usize::from(tag)]);
        self.pending.put_u8(tag);
        self.pending.put_slice(data);
        self.open_record = Some(start);
        self.head.records += 1;
        self.head.file += (HEAD_BYTES + data.len()) as u64;
    }
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn payload_length(head: &[u8]) -> usize {
    u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

fn seal(record: &mut [u8]) {
    let crc = checksum(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The length of the record at the beginning of `bytes`; `None` if it is not whole.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let length = payload_length(bytes);
    let whole = HEAD_BYTES + length;
    if length > PIECE_BYTES_MAX || whole > bytes.len() || usize::from(bytes[24]) >= TAGS {
        return None;
    }
    (checksum(&bytes[..whole]).to_le_bytes() == bytes[4..8]).then_some(whole)
}

/// The record at the beginning of `bytes`, without its index, and its length; `None` if it is not whole.
fn parse(bytes: &Bytes) -> Option<(Piece, usize)> {
    let whole = whole_length(bytes)?;
    let piece = Piece {
        index: 0,
        tag: bytes[24],
        offset: i64_at(bytes, 16) as u64,
        at: WallTime(i64_at(bytes, 8)),
        data: bytes.slice(HEAD_BYTES..whole),
    };
    Some((piece, whole))
}

/// What is in a file.
#[derive(Debug, Default)]
struct Measured {
    /// Up to the last whole record.
    head: Progress,
    /// Where to begin reading.
    marks: Vec<Mark>,
    /// Bytes that follow the last whole record.
    behind: u64,
}

/// Reads every record, and syncs, so that what is told as stored is stored.
fn recover(file: &File) -> io::Result<Measured> {
    let length = file.metadata()?.len();
    let measured = measure(file, length)?;
    file.sync_all()?;
    Ok(measured)
}

/// How far what is read of so many bytes is whole, and where to begin reading in it. Holds a window and a record in memory at a time:
/// files are large, and many may be opened at once.
fn measure(source: impl Read, length: u64) -> io::Result<Measured> {
    let mut source = BufReader::with_capacity(WINDOW_BYTES, source);
    let (mut head, mut marks) = (Progress::default(), Vec::new());
    let mut record = Vec::new();
    source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut record)?;
    if record == MAGIC {
        head.file = MAGIC.len() as u64;
        while read_record(&mut source, &mut record)? {
            let (tag, offset) = (usize::from(record[24]), i64_at(&record, 16) as u64);
            if offset != head.lengths[tag] {
                break;
            }
            if head.records.is_multiple_of(MARK_RECORDS) {
                marks.push(Mark { record: head.records, lengths: head.lengths, file: head.file });
            }
            head.lengths[tag] += (record.len() - HEAD_BYTES) as u64;
            head.records += 1;
            head.file += record.len() as u64;
        }
    }
    Ok(Measured { head, marks, behind: length.saturating_sub(head.file) })
}

/// Reads the next record; tells whether it is whole.
fn read_record(source: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    record.clear();
    source.by_ref().take(HEAD_BYTES as u64).read_to_end(record)?;
    if record.len() < HEAD_BYTES || payload_length(record) > PIECE_BYTES_MAX {
        return Ok(false);
    }
    source.by_ref().take(payload_length(record) as u64).read_to_end(record)?;
    Ok(whole_length(record).is_some())
}

/// A file's bytes up to its last whole record, for a copy that is made while somebody writes, and how many follow. Blocks.
pub fn read_whole(path: &Path) -> io::Result<(Bytes, u64)> {
    let bytes = Bytes::from(fs::read(path)?);
    let Measured { head, behind, .. } = measure(&bytes[..], bytes.len() as u64)?;
    Ok((bytes.slice(..head.file as usize), behind))
}

/// One file's place among the open ones; held while it is opened, so that no file is read through twice at once.
type Cell = Arc<tokio::sync::Mutex<Weak<Pieces>>>;

/// The open files of a directory, so that all who ask for one file share it.
#[derive(Debug)]
pub(super) struct OpenPieces {
    /// Held to find a cell, never over work on a disk.
    cells: Mutex<BTreeMap<PathBuf, Cell>>,
    /// Files that are being opened: each is read through.
    opening: Arc<Semaphore>,
    space: Option<Arc<Space>>,
    tails: Arc<AtomicUsize>,
}

impl Default for OpenPieces {
    fn default() -> Self {
        Self {
            cells: Mutex::default(),
            opening: Arc::new(Semaphore::new(OPENING_MAX)),
            space: None,
            tails: Arc::default(),
        }
    }
}

impl OpenPieces {
    /// Files that leave the last bytes of the disk to the journal.
    pub(super) fn within(space: Arc<Space>) -> Self {
        Self { space: Some(space), ..Self::default() }
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Cell>> {
        self.cells.lock().expect("no holder of this lock panics")
    }

    /// The file, opened if nobody has it open. Nobody waits for the opening of another file.
    pub(super) async fn get(&self, path: &Path) -> io::Result<Arc<Pieces>> {
        loop {
            let cell = self.cell(path);
            let mut held = Arc::clone(&cell).lock_owned().await;
            if let Some(pieces) = held.upgrade() {
                return Ok(pieces);
            }
            let turn = Arc::clone(&self.opening).acquire_owned().await.map_err(io::Error::other)?;
            let (place, space, tails) = (path.to_owned(), self.space.clone(), Arc::clone(&self.tails));
            let open = move || {
                let _turn = turn;
                let pieces = Arc::new(Pieces::open(&place, space, tails)?);
                *held = Arc::downgrade(&pieces);
                io::Result::Ok(pieces)
            };
            let pieces = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
            // If it was forgotten meanwhile, what was opened may be gone, and another may have been opened since.
            if self.cells().get(path).is_some_and(|now| Arc::ptr_eq(now, &cell)) {
                return Ok(pieces);
            }
        }
    }

    fn cell(&self, path: &Path) -> Cell {
        let mut cells = self.cells();
        if let Some(cell) = cells.get(path) {
            return Arc::clone(cell);
        }
        // A cell that nobody else has is locked by nobody, nor will be: that takes the map.
        let in_use =
            |cell: &Cell| Arc::strong_count(cell) > 1 || cell.try_lock().is_ok_and(|pieces| pieces.strong_count() > 0);
        cells.retain(|_, cell| in_use(cell));
        let cell = Cell::default();
        cells.insert(path.to_owned(), Arc::clone(&cell));
        cell
    }

    /// Forgets every file below `path`: whoever has one open still keeps it to himself.
    pub(super) fn forget(&self, path: &Path) {
        self.cells().retain(|file, _| !file.starts_with(path));
    }
}
