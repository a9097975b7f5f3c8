//! Walks over a whole journal and checks every byte of it. Reads only; recovery and `ledger verify` both stand on it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use modchain_core::Event;
use modchain_types::{Asset, JournalId};

use super::segment::{HEADER_BYTES, Hash, Record, SegmentHeader, find_record};
use crate::store::record;

/// Suffix of segment files.
pub(super) const SEGMENT_SUFFIX: &str = ".seg";

/// Distance between two marks of the index, in bytes: a reader skips at most this much to find its place.
pub(super) const MARK_BYTES: u64 = 64 * 1024;

/// Something in the journal is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, in the batch that begins with event {number}, segment {segment}, offset {offset}")]
pub struct Damage {
    /// The segment's file.
    pub segment: String,
    /// Bytes before the bad record in it.
    pub offset: u64,
    /// The number that the bad batch's first event should have.
    pub number: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a walk did not come to the end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// There is no journal.
    #[error("there is no journal in {dir}: make one with `modchain-orchestrator init --data DIR`")]
    Missing {
        /// Where it should be.
        dir: String,
    },
    /// The journal is damaged.
    #[error("the journal is damaged: {0}")]
    Damaged(Damage),
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Io {
        /// Which.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
}

// Not a `source`: the sentence has it already, and whoever prints the chain would say it twice.
impl From<Damage> for WalkError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// A segment as the walk found it.
#[derive(Debug, Clone)]
pub(super) struct SegmentIndex {
    pub(super) path: PathBuf,
    pub(super) first: u64,
    /// Bytes of whole records and the header.
    pub(super) length: u64,
    /// Number of the first event and offset of some records, in order.
    pub(super) marks: Vec<(u64, u64)>,
    /// Where the last record begins; the header, if there is none.
    pub(super) last_record: u64,
}

impl SegmentIndex {
    pub(super) fn new(path: PathBuf, first: u64) -> Self {
        Self { path, first, length: HEADER_BYTES as u64, marks: Vec::new(), last_record: 0 }
    }

    /// A segment that was not walked: whoever looks for something in it begins at its beginning.
    fn unread(path: PathBuf, first: u64, length: u64) -> Self {
        let header = HEADER_BYTES as u64;
        Self { path, first, length, marks: vec![(first, header)], last_record: header }
    }

    /// Notes a record of `bytes` bytes at the end.
    pub(super) fn push(&mut self, first: u64, bytes: usize) {
        if self.marks.last().is_none_or(|(_, offset)| self.length - offset >= MARK_BYTES) {
            self.marks.push((first, self.length));
        }
        self.last_record = self.length;
        self.length += bytes as u64;
    }
}

/// The whole journal as the walk found it.
#[derive(Debug)]
pub struct Walked {
    /// Its id.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Number of the last event; 0 if there is none.
    pub last_number: u64,
    /// The chain at its end.
    pub hash: Hash,
    /// Batches.
    pub batches: u64,
    /// Segments.
    pub(super) segments: Vec<SegmentIndex>,
    /// A torn record at the very end: it was never acknowledged.
    pub torn: Option<Damage>,
}

impl Walked {
    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }
}

/// The segment files of a journal, in order.
pub(super) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, WalkError> {
    let io = |cause| WalkError::Io { path: dir.display().to_string(), cause };
    let missing = || WalkError::Missing { dir: dir.display().to_string() };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(io(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first) = name.strip_suffix(SEGMENT_SUFFIX).and_then(|digits| digits.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort();
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

/// The id and asset of the journal in `dir`, from the header of its first segment.
pub fn identify(dir: &Path) -> Result<(JournalId, Asset), WalkError> {
    let (first, path) = segments(dir)?.swap_remove(0);
    let io = |cause| WalkError::Io { path: path.display().to_string(), cause };
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    fs::File::open(&path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)).map_err(io)?;
    let segment = file_name(&path);
    let header = SegmentHeader::decode(&bytes).map_err(|what| Damage { segment, offset: 0, number: first, what })?;
    Ok((header.journal, header.asset))
}

/// A place in the chain: behind an event that ends a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The event.
    pub number: u64,
    /// The chain there.
    pub hash: Hash,
}

/// Whether a place is in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is.
    Here,
    /// There is another event of this number, or its segment is damaged before it.
    Elsewhere,
    /// The journal ends before it, with this event.
    Beyond(u64),
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The segment that has the event `number`, if any has.
fn position_of(files: &[(u64, PathBuf)], number: u64) -> usize {
    files.partition_point(|(first, _)| *first <= number).saturating_sub(1)
}

/// Looks for a place; reads the one segment that may have it.
pub fn find(dir: &Path, place: &Place) -> Result<Found, WalkError> {
    let files = segments(dir)?;
    let at = position_of(&files, place.number);
    let (_, path) = &files[at];
    let bytes = fs::read(path).map_err(|cause| WalkError::Io { path: path.display().to_string(), cause })?;
    let Ok(header) = SegmentHeader::decode(&bytes) else { return Ok(Found::Elsewhere) };
    let (mut hash, mut number, mut from) = (header.hash(), header.first - 1, HEADER_BYTES);
    while number < place.number {
        let Ok(record) = Record::parse(header.journal, &bytes[from..]) else {
            // Nothing but the end of all of it means that more was there once; anything else the walk will tell.
            let ended = at + 1 == files.len() && find_record(header.journal, &bytes[from..]).is_none();
            return Ok(if ended { Found::Beyond(number) } else { Found::Elsewhere });
        };
        if record.first != number + 1 || record.count == 0 || !record.follows(&hash) {
            return Ok(Found::Elsewhere);
        }
        (hash, number, from) = (record.hash, number + u64::from(record.count), from + record.bytes);
    }
    Ok(if number == place.number && hash == place.hash { Found::Here } else { Found::Elsewhere })
}

/// Reads the journal in `dir` from its first byte to its last, gives each batch to `each`, and tells what it found. Damage
/// is an error; a torn record at the very end is not, because every write may be cut off by a crash.
pub fn walk(dir: &Path, each: impl FnMut(Vec<Event>)) -> Result<Walked, WalkError> {
    walk_after(dir, 0, each)
}

/// As [`walk()`], from the segment on that has the event `after`; gives the batches that have events behind it. Of the segments
/// before only the headers are read.
pub fn walk_after(dir: &Path, after: u64, mut each: impl FnMut(Vec<Event>)) -> Result<Walked, WalkError> {
    let files = segments(dir)?;
    let last = files.len() - 1;
    let begin = position_of(&files, after);
    let mut walked: Option<Walked> = None;
    let mut unread = Vec::new();
    for (position, (named, path)) in files.into_iter().enumerate() {
        if position < begin {
            let length =
                fs::metadata(&path).map_err(|cause| WalkError::Io { path: path.display().to_string(), cause })?.len();
            unread.push(SegmentIndex::unread(path, named, length));
            continue;
        }
        let bytes = fs::read(&path).map_err(|cause| WalkError::Io { path: path.display().to_string(), cause })?;
        let segment = file_name(&path);
        if position == begin && begin > 0 {
            // What is before it was checked when it was written; here only `ledger verify` looks at it again.
            let header = SegmentHeader::decode(&bytes)
                .map_err(|what| WalkError::from(Damage { segment: segment.clone(), offset: 0, number: named, what }))?;
            walked = Some(Walked {
                journal: header.journal,
                asset: header.asset,
                last_number: named - 1,
                hash: header.previous,
                batches: 0,
                segments: std::mem::take(&mut unread),
                torn: None,
            });
        }
        let expected = walked.as_ref().map_or(1, |walked| walked.last_number + 1);
        let damage = |offset: usize, number: u64, what: String| Damage {
            segment: segment.clone(),
            offset: offset as u64,
            number,
            what,
        };

        let header = SegmentHeader::decode(&bytes).map_err(|what| damage(0, expected, what))?;
        let walked = walked.get_or_insert_with(|| Walked {
            journal: header.journal,
            asset: header.asset,
            last_number: 0,
            hash: [0; 32],
            batches: 0,
            segments: Vec::new(),
            torn: None,
        });
        let wrong = if header.journal != walked.journal || header.asset != walked.asset {
            Some("the header belongs to another journal".to_owned())
        } else if header.first != expected || named != expected {
            Some(format!("the segment begins with event {} where {expected} is due", header.first))
        } else if header.previous != walked.hash {
            Some("the header does not continue the chain of the segment before".to_owned())
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(damage(0, expected, what).into());
        }
        walked.hash = header.hash();

        let mut index = SegmentIndex::new(path.clone(), header.first);
        let mut at = HEADER_BYTES;
        // The last segment's file is longer than its records: zeros, which no record begins with.
        while at < bytes.len() && !(position == last && bytes[at..].iter().all(|byte| *byte == 0)) {
            let due = walked.last_number + 1;
            let record = match Record::parse(walked.journal, &bytes[at..]) {
                Ok(record) => record,
                Err(what) => {
                    let bad = damage(at, due, what);
                    // A crash tears only the last write. Anything whole behind it means that the disk changed what was
                    // acknowledged, and dropping it would lose it silently.
                    if position < last || find_record(walked.journal, &bytes[at..]).is_some() {
                        return Err(bad.into());
                    }
                    walked.torn = Some(bad);
                    break;
                }
            };
            if record.first != due || record.count == 0 {
                return Err(
                    damage(at, due, format!("the batch says that it begins with event {}", record.first)).into()
                );
            }
            if !record.follows(&walked.hash) {
                return Err(damage(at, due, "its hash does not follow from the batch before".into()).into());
            }
            if record.first + u64::from(record.count) > after + 1 {
                let events = record::decode(record.version, record.first, record.count, record.payload)
                    .map_err(|error| damage(at, due, error.to_string()))?;
                each(events);
            }
            walked.last_number += u64::from(record.count);
            walked.hash = record.hash;
            walked.batches += 1;
            index.push(record.first, record.bytes);
            at += record.bytes;
        }
        walked.segments.push(index);
    }
    Ok(walked.expect("there is at least one segment"))
}
