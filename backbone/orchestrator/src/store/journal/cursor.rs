//! Reads a journal beside its writer, batch by batch, each one checked, as far as there are any: for copying it.
//!
//! The writer may be in another process and in the middle of a record. What is not whole yet is not there yet; what stays
//! wrong in front of something whole is damage.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use modchain_core::Event;
use modchain_types::{Asset, JournalId};

use super::segment::{HEADER_BYTES, Hash, Record, SegmentHeader, find_record};
use super::walk::{Damage, Place, WalkError, file_name, segments};
use crate::store::record;

/// How often something that looks like damage is looked at again: the pages of a file are not read all at once, so a record can
/// look torn though the one behind it is whole.
const LOOKS: u32 = 40;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a reader meets.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A segment begins; its file's name and header.
    Segment {
        /// Of the file.
        name: &'a str,
        /// The header's bytes.
        bytes: &'a [u8],
    },
    /// A batch.
    Batch {
        /// The record's bytes.
        bytes: &'a [u8],
        /// What is in it.
        events: Vec<Event>,
    },
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The journal is missing, damaged or unreadable.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Whoever got the pieces could not take one.
    #[error("the copy of the journal cannot be written: {0}")]
    Sink(io::Error),
}

/// A place in a journal from which reading goes on.
#[derive(Debug, Clone)]
pub struct Cursor {
    dir: PathBuf,
    journal: JournalId,
    asset: Asset,
    place: Place,
    /// The segment that is being read: its first event, and how much of its file is behind.
    segment: Option<(u64, u64)>,
}

impl Cursor {
    /// At the beginning of the journal in `dir`.
    pub fn begin(dir: &Path) -> Result<Self, WalkError> {
        let (journal, asset) = super::identify(dir)?;
        let place = Place { number: 0, hash: [0; 32] };
        Ok(Self { dir: dir.to_owned(), journal, asset, place, segment: None })
    }

    /// The journal's id.
    pub fn journal(&self) -> JournalId {
        self.journal
    }

    /// What its money is.
    pub fn asset(&self) -> Asset {
        self.asset
    }

    /// Behind the last batch that was read.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads whatever is whole by now and gives it to `sink`, in order. Blocks.
    pub fn read(&mut self, mut sink: impl FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), CursorError> {
        let mut looks = 0;
        while let Some(damage) = self.look(&mut sink)? {
            looks += 1;
            if looks >= LOOKS {
                return Err(WalkError::from(damage).into());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// One look at the files; tells what is wrong where it stopped, if anything is.
    fn look(&mut self, sink: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> Result<Option<Damage>, CursorError> {
        let files = segments(&self.dir)?;
        let last = files.len() - 1;
        let begin = self.segment.map_or(0, |(first, _)| files.partition_point(|(other, _)| *other < first));
        for (position, (named, path)) in files.iter().enumerate().skip(begin) {
            let name = file_name(path);
            let bytes = self.unread(*named, path)?;
            let known = match self.segment {
                Some((first, behind)) if first == *named => behind,
                _ => 0,
            };
            let damage = |offset: usize, number: u64, what: String| {
                let (segment, offset) = (name.clone(), known + offset as u64);
                Ok(Some(Damage { segment, offset, number, what }))
            };
            let mut at = 0;
            if known == 0 {
                match self.header(*named, &bytes) {
                    Ok(hash) => {
                        at = HEADER_BYTES;
                        sink(Piece::Segment { name: &name, bytes: &bytes[..at] }).map_err(CursorError::Sink)?;
                        (self.place.hash, self.segment) = (hash, Some((*named, at as u64)));
                    }
                    Err(what) => return damage(0, self.place.number + 1, what),
                }
            }
            while at < bytes.len() && !(position == last && bytes[at..].iter().all(|byte| *byte == 0)) {
                let due = self.place.number + 1;
                let record = match Record::parse(self.journal, &bytes[at..]) {
                    Ok(record) => record,
                    Err(_) if position == last && find_record(self.journal, &bytes[at..]).is_none() => break,
                    Err(what) => return damage(at, due, what),
                };
                if record.first != due || record.count == 0 || !record.follows(&self.place.hash) {
                    return damage(at, due, "the batch does not continue the one before".into());
                }
                let events = match record::decode(record.version, record.first, record.count, record.payload) {
                    Ok(events) => events,
                    Err(error) => return damage(at, due, error.to_string()),
                };
                let piece = Piece::Batch { bytes: &bytes[at..at + record.bytes], events };
                sink(piece).map_err(CursorError::Sink)?;
                at += record.bytes;
                self.place = Place { number: self.place.number + u64::from(record.count), hash: record.hash };
                self.segment = Some((*named, known + at as u64));
            }
        }
        Ok(None)
    }

    /// The bytes of a segment that were not read yet.
    fn unread(&self, named: u64, path: &Path) -> Result<Vec<u8>, WalkError> {
        let behind = self.segment.filter(|(first, _)| *first == named).map_or(0, |(_, behind)| behind);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(behind))?;
            file.read_to_end(&mut bytes)
        });
        read.map_err(|cause| WalkError::Io { path: path.display().to_string(), cause })?;
        Ok(bytes)
    }

    /// The chain behind a header that goes on from here.
    fn header(&self, named: u64, bytes: &[u8]) -> Result<Hash, String> {
        let header = SegmentHeader::decode(bytes)?;
        if (header.journal, header.asset) != (self.journal, self.asset) {
            return Err("the header belongs to another journal".into());
        }
        if header.first != self.place.number + 1 || named != header.first || header.previous != self.place.hash {
            return Err("the segment does not continue the one before".into());
        }
        Ok(header.hash())
    }
}
