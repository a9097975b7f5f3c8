//! The journal: every event, in batches, hash-chained, append-only. The truth of everything.
//!
//! [`Journal`] is the one writer; [`JournalReader`] reads beside it what is committed; [`walk()`] checks a whole journal;
//! [`cursor`] follows one from another process.
//! [`segment`] has the bytes.
//!
//! What must never happen here: telling that a batch is committed before it is synced, going on after a failed write or
//! sync (the kernel may have dropped the data and report success the next time), or dropping a batch that may have been
//! acknowledged.

pub mod cursor;
pub mod segment;
mod walk;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use modchain_core::Event;
use modchain_types::{Asset, JournalId};

use super::record::{self, RECORD_VERSION, RecordError};
use super::space::is_full;
use segment::{HEADER_BYTES, Hash, RECORD_HEAD_BYTES, Record, SegmentHeader};
pub use walk::{Damage, Found, Place, WalkError, Walked, find, identify, walk, walk_after};
use walk::{SEGMENT_SUFFIX, SegmentIndex};

/// A segment is closed before it grows beyond this: small enough to read whole, large enough that a busy day is a few dozen
/// files.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The file of the last segment grows by this much at a time, ahead of its records.
const PREPARE_BYTES: u64 = 1 << 20;

/// Suffix of a segment that is not yet part of the journal.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Everything that changes the disk, apart from the rest so that tests can watch the order, make it fail, and lose what was not
/// synced.
pub trait Disk: Send {
    /// Writes all bytes at this offset.
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes what was written survive the loss of power.
    fn sync(&mut self, file: &File) -> io::Result<()>;
    /// Fills a file with zeros from its end at `from` up to `to`, so that what is written there later needs no room and
    /// changes nothing but the bytes themselves: a sync is half as long then.
    fn prepare(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        write_zeros(file, from, to)
    }
    /// Makes an empty file of this name, or empties the one that there is.
    fn create(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }
    /// Cuts a file off after so many bytes.
    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
    /// Makes the contents and the length of a file survive the loss of power.
    fn sync_all(&mut self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
    /// Gives a file another name, in place of whatever had it.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    /// Removes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    /// Makes the names in a directory survive the loss of power.
    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Writes zeros. Blocks that are allocated but were never written would not do: the first write to each changes metadata.
pub(super) fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(ZEROS.len() as u64) as usize;
        file.write_all_at(&ZEROS[..wanted], at)?;
        at += wanted as u64;
    }
    Ok(())
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Why a batch is not in the journal. After `Disk` the journal takes nothing more, and the process has to end: what is on disk
/// is decided at the next start.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The events have no bytes.
    #[error("a batch cannot be encoded: {0}")]
    Record(#[from] RecordError),
    /// The numbers do not continue the journal; a bug.
    #[error("a batch begins with event {got}, the journal is due for {due}")]
    Number {
        /// Of the batch.
        got: u64,
        /// Of the journal.
        due: u64,
    },
    /// There is no room for it. Nothing has happened: the same batch can be tried again.
    #[error("there is no room for the journal: {cause}")]
    Full {
        /// What the system said.
        cause: io::Error,
    },
    /// The disk failed.
    #[error("the journal {doing} failed: {cause}")]
    Disk {
        /// `write`, `sync`, `room`, `end of a segment` or `new segment`.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// It failed before.
    #[error("the journal has failed before and takes nothing more")]
    Failed,
}

/// Why a journal cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is missing, damaged or unreadable.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Events are missing at its end that were there once.
    #[error(
        "the journal ends with event {last}, and a snapshot of it stands at event {known}: what was acknowledged in between is \
         gone. Bring the whole data directory back as it was; if you know better, remove the folder {snapshots}"
    )]
    Lost {
        /// The last event that is there.
        last: u64,
        /// The last event that was.
        known: u64,
        /// Where the snapshots are.
        snapshots: String,
    },
    /// Its end cannot be made sure.
    #[error("the end of the journal, {path}, cannot be repaired: {cause}")]
    Repair {
        /// The segment.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
}

/// The one writer of a journal. Whoever has it holds the lock of the data directory.
pub struct Journal {
    dir: PathBuf,
    id: JournalId,
    asset: Asset,
    file: File,
    /// Bytes of the file: zeros behind the records.
    prepared: u64,
    /// Bytes of records since somebody asked.
    appended: u64,
    next: u64,
    hash: Hash,
    segment_bytes_max: u64,
    disk: Box<dyn Disk>,
    failed: bool,
    committed: Arc<RwLock<Vec<SegmentIndex>>>,
}

impl Journal {
    /// Makes an empty journal in `dir`, which must exist. Refuses if there is one.
    pub fn create(dir: &Path, id: JournalId, asset: Asset) -> io::Result<()> {
        Self::create_with(dir, id, asset, &mut RealDisk)
    }

    /// As [`Journal::create`], with another disk.
    pub fn create_with(dir: &Path, id: JournalId, asset: Asset, disk: &mut dyn Disk) -> io::Result<()> {
        let header = SegmentHeader { journal: id, asset, first: 1, previous: [0; 32] };
        if segment_path(dir, 1).exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a journal already"));
        }
        create_segment(dir, &header, disk).map(|_| ())
    }

    /// Opens the journal, gives every event to `each`, and makes sure that its end is on disk: a torn last write, which
    /// nobody was ever told of, is cut off.
    pub fn open(dir: &Path, each: impl FnMut(Vec<Event>)) -> Result<Self, OpenError> {
        Self::open_with(dir, each, Box::new(RealDisk), SEGMENT_BYTES_MAX)
    }

    /// As [`Journal::open`], with another disk and another size of segments.
    pub fn open_with(
        dir: &Path,
        each: impl FnMut(Vec<Event>),
        disk: Box<dyn Disk>,
        segment_bytes_max: u64,
    ) -> Result<Self, OpenError> {
        Self::open_after(dir, 0, each, disk, segment_bytes_max)
    }

    /// As [`Journal::open_with`], for who knows the events up to `after` already: gives the batches that have later ones.
    pub fn open_after(
        dir: &Path,
        after: u64,
        each: impl FnMut(Vec<Event>),
        mut disk: Box<dyn Disk>,
        segment_bytes_max: u64,
    ) -> Result<Self, OpenError> {
        let walked = walk_after(dir, after, each)?;
        let tail = walked.segments.last().expect("a journal has a segment");
        let repair = |cause| OpenError::Repair { path: tail.path.display().to_string(), cause };
        if let Some(torn) = &walked.torn {
            tracing::warn!(segment = torn.segment, offset = torn.offset, "cutting off a torn write: {}", torn.what);
        }
        remove_temporaries(dir, &mut *disk).map_err(repair)?;
        let file = reopen_tail(tail, &mut *disk).map_err(repair)?;
        let prepared = tail.length;
        disk.sync_dir(dir).map_err(repair)?;
        Ok(Self {
            dir: dir.to_owned(),
            id: walked.journal,
            asset: walked.asset,
            file,
            prepared,
            appended: 0,
            next: walked.last_number + 1,
            hash: walked.hash,
            segment_bytes_max,
            disk,
            failed: false,
            committed: Arc::new(RwLock::new(walked.segments)),
        })
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// What its money is.
    pub fn asset(&self) -> Asset {
        self.asset
    }

    /// Number of the last event.
    pub fn last_number(&self) -> u64 {
        self.next - 1
    }

    /// Bytes of records that were appended since the call before.
    pub fn take_appended(&mut self) -> u64 {
        std::mem::take(&mut self.appended)
    }

    /// Where the chain stands.
    pub fn place(&self) -> Place {
        Place { number: self.next - 1, hash: self.hash }
    }

    /// A reader of what is committed.
    pub fn reader(&self) -> JournalReader {
        JournalReader { id: self.id, committed: Arc::clone(&self.committed) }
    }

    /// Appends a batch as one record and syncs it. When this returns the batch is committed. After [`AppendError::Full`] the
    /// caller may make room and try again.
    pub fn append(&mut self, events: &[Event]) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        let Some(first) = events.first() else { return Ok(()) };
        if first.number != self.next || events.windows(2).any(|pair| pair[1].number != pair[0].number + 1) {
            return Err(AppendError::Number { got: first.number, due: self.next });
        }
        let payload = record::encode(events)?;
        let result = self.write(first.number, events.len() as u32, &payload);
        self.failed = result.as_ref().is_err_and(|error| !matches!(error, AppendError::Full { .. }));
        result
    }

    fn write(&mut self, first: u64, count: u32, payload: &[u8]) -> Result<(), AppendError> {
        let failed = |doing| move |cause| AppendError::Disk { doing, cause };
        // Before the sync a lack of room is no reason to distrust the disk: what is behind the last record does not count.
        let unless_full = |doing| {
            move |cause| if is_full(&cause) { AppendError::Full { cause } } else { AppendError::Disk { doing, cause } }
        };
        let bytes = (RECORD_HEAD_BYTES + payload.len() + segment::RECORD_TAIL_BYTES) as u64;
        let length = self.tail_length();
        if length > HEADER_BYTES as u64 && length + bytes > self.segment_bytes_max {
            self.seal().map_err(failed("end of a segment"))?;
            self.begin_segment().map_err(unless_full("new segment"))?;
        }
        self.make_room(bytes).map_err(unless_full("room"))?;
        let (frame, hash) = segment::frame(self.id, first, count, RECORD_VERSION, payload, &self.hash);
        self.disk.write(&self.file, &frame, self.tail_length()).map_err(unless_full("write"))?;
        self.disk.sync(&self.file).map_err(failed("sync"))?;
        self.appended += bytes;
        self.hash = hash;
        self.next = first + u64::from(count);
        let mut committed = self.committed.write().expect("no holder of this lock panics");
        committed.last_mut().expect("a journal has a segment").push(first, frame.len());
        Ok(())
    }

    fn tail_length(&self) -> u64 {
        let committed = self.committed.read().expect("no holder of this lock panics");
        committed.last().expect("a journal has a segment").length
    }

    /// Makes the file as long as a record of `bytes` bytes needs, and longer if there is room.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.tail_length() + bytes;
        if end <= self.prepared {
            return Ok(());
        }
        let ahead = end.next_multiple_of(PREPARE_BYTES).min(self.segment_bytes_max.max(end));
        self.prepared = match self.disk.prepare(&self.file, self.prepared, ahead) {
            Err(error) if is_full(&error) => self.disk.prepare(&self.file, self.prepared, end).map(|()| end)?,
            done => done.map(|()| ahead)?,
        };
        Ok(())
    }

    /// Cuts the last segment's file to its records: only the last one has zeros behind them.
    fn seal(&mut self) -> io::Result<()> {
        let length = self.tail_length();
        self.disk.cut(&self.file, length)?;
        self.prepared = length;
        self.disk.sync_all(&self.file)
    }

    /// Can be repeated when there was no room for it.
    fn begin_segment(&mut self) -> io::Result<()> {
        let header = SegmentHeader { journal: self.id, asset: self.asset, first: self.next, previous: self.hash };
        let (file, path) = create_segment(&self.dir, &header, &mut *self.disk)?;
        self.file = file;
        self.prepared = HEADER_BYTES as u64;
        self.hash = header.hash();
        let mut committed = self.committed.write().expect("no holder of this lock panics");
        committed.push(SegmentIndex::new(path, self.next));
        Ok(())
    }
}

fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SEGMENT_SUFFIX}"))
}

/// A new segment with its header, under its name only once it is whole: a crash can leave no torn header behind.
fn create_segment(dir: &Path, header: &SegmentHeader, disk: &mut dyn Disk) -> io::Result<(File, PathBuf)> {
    let path = segment_path(dir, header.first);
    let temporary = path.with_extension(&TEMPORARY_SUFFIX[1..]);
    let file = disk.create(&temporary)?;
    disk.write(&file, &header.encode(), 0)?;
    disk.sync_all(&file)?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok((file, path))
}

fn remove_temporaries(dir: &Path, disk: &mut dyn Disk) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// Cuts off what is torn and writes the last record once more: after a failed sync the pages that the walk has read may be
/// in memory alone, marked clean, and only writing them again makes the kernel write them out.
fn reopen_tail(tail: &SegmentIndex, disk: &mut dyn Disk) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(&tail.path)?;
    disk.cut(&file, tail.length)?;
    let mut last = vec![0; usize::try_from(tail.length - tail.last_record).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut last, tail.last_record)?;
    disk.write(&file, &last, tail.last_record)?;
    disk.sync_all(&file)?;
    Ok(file)
}

/// Reads committed events from disk, beside the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JournalReader {
    id: JournalId,
    committed: Arc<RwLock<Vec<SegmentIndex>>>,
}

/// Why committed events cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot be read: {0}")]
pub struct ReadError(pub String);

/// Most that is read from a segment at once, in bytes, unless a single record is larger.
const READ_BYTES: u64 = 1 << 20;

impl JournalReader {
    /// At most `max` events with numbers above `after`, in order; empty when no more are committed. Blocks: call it through
    /// `spawn_blocking`.
    pub fn read_after(&self, after: u64, max: usize) -> Result<Vec<Event>, ReadError> {
        let mut found = Vec::new();
        let mut due = after.saturating_add(1);
        while found.len() < max {
            let Some((path, from, end)) = self.place_of(due) else { break };
            let before = found.len();
            self.read_segment(&path, from, end, due, max, &mut found)
                .map_err(|why| ReadError(format!("event {due} in {}: {why}", path.display())))?;
            if found.len() == before {
                break;
            }
            due = after.saturating_add(1) + found.len() as u64;
        }
        found.truncate(max);
        Ok(found)
    }

    /// The segment that may have event `number`, where to begin in it, and where what is committed ends.
    fn place_of(&self, number: u64) -> Option<(PathBuf, u64, u64)> {
        let committed = self.committed.read().expect("no holder of this lock panics");
        let index = committed.partition_point(|segment| segment.first <= number).checked_sub(1)?;
        let segment = &committed[index];
        let mark = segment.marks.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
        Some((segment.path.clone(), segment.marks[mark].1, segment.length))
    }

    fn read_segment(
        &self,
        path: &Path,
        mut from: u64,
        end: u64,
        due: u64,
        max: usize,
        found: &mut Vec<Event>,
    ) -> Result<(), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut wanted = READ_BYTES;
        while from < end && found.len() < max {
            let mut bytes = vec![0; usize::try_from(wanted.min(end - from)).map_err(|error| error.to_string())?];
            file.read_exact_at(&mut bytes, from).map_err(|error| error.to_string())?;
            let mut at = 0;
            while at < bytes.len() && found.len() < max {
                let record = match Record::parse(self.id, &bytes[at..]) {
                    Ok(record) => record,
                    // Cut off by the window, not by damage: go on from here, with a larger window if it is the first.
                    Err(_) if from + (bytes.len() as u64) < end => break,
                    Err(what) => return Err(what),
                };
                if record.first + u64::from(record.count) > due {
                    let events = record::decode(record.version, record.first, record.count, record.payload)
                        .map_err(|error| error.to_string())?;
                    found.extend(events.into_iter().filter(|event| event.number >= due));
                }
                at += record.bytes;
            }
            wanted = if at == 0 { wanted.saturating_mul(2) } else { READ_BYTES };
            from += at as u64;
        }
        Ok(())
    }
}
