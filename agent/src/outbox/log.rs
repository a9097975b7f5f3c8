//! The file behind the outbox: records one after another, in space that was filled with zeros before.
//!
//! ```text
//! magic, 8 bytes | u32 format | u32 crc32c of both                                                    (little endian)
//! u32 bytes of the rest | u32 crc32c of length and rest | u32 bytes of the head | head, JSON | tail   … a record
//! zeros
//! ```
//!
//! Writing into space that is there changes no metadata, so that its sync is short. When the space is used up the file is
//! written anew with what still counts ([`Log::replace`]), beside its place, and takes its place in one step; no byte of a
//! file is ever written twice.
//!
//! A record that is not whole was never answered for, or the disk has lost it. Either way reading goes on at the next whole
//! one: each record stands for itself, and losing one must not take another along.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::files;

/// What the file begins with.
const MAGIC: &[u8; 8] = b"MODCAGNT";

/// Version of the file. A file of another version is refused, not guessed at.
pub(super) const FORMAT: u32 = 1;

/// Bytes before the first record.
const HEADER_BYTES: usize = 8 + 4 + 4;

/// Bytes before the head of a record.
const FRAME_BYTES: usize = 4 + 4 + 4;

/// Bytes of a new file at least: some hundred attempts find room in it before it is written anew.
const FILE_BYTES_MIN: usize = 1 << 20;

/// A record as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// JSON.
    pub head: Vec<u8>,
    /// What it carries beside that.
    pub tail: Vec<u8>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every whole record, in order.
    pub records: Vec<Record>,
    /// Whether something that is not whole stands before one that is.
    pub damaged: bool,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Where the next record goes.
    at: u64,
    /// Bytes of the file.
    size: u64,
}

impl Log {
    /// Reads the file at `path`; one that is not there holds nothing.
    pub(super) fn read(path: &Path) -> io::Result<Found> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            Err(error) => return Err(error),
        };
        check_header(path, &bytes)?;
        let mut found = Found::default();
        let (mut at, mut skipped) = (HEADER_BYTES, false);
        while at < bytes.len() {
            match parse(&bytes[at..]) {
                Some((record, used)) => {
                    found.records.push(record);
                    found.damaged |= skipped;
                    at += used;
                }
                // Zeros come after the last record, so they are worth a long stride.
                None if bytes[at..].iter().all(|byte| *byte == 0) => break,
                None => {
                    skipped = true;
                    at += 1;
                }
            }
        }
        Ok(found)
    }

    /// Writes the file at `path` anew with these records and room for as much again. Durable when it returns; until then the
    /// old file is in its place.
    pub(super) fn replace<'a>(path: &Path, records: impl Iterator<Item = &'a [u8]>) -> io::Result<Self> {
        let mut bytes = header();
        records.for_each(|record| bytes.extend_from_slice(record));
        let at = bytes.len();
        bytes.resize((2 * at).max(FILE_BYTES_MIN), 0);
        let new = path.with_extension("new");
        let file = files::create_private(&new)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        files::sync_dir(path.parent().ok_or_else(|| io::Error::other("a file has no folder"))?)?;
        Ok(Self { file, at: at as u64, size: bytes.len() as u64 })
    }

    /// Whether so many bytes of records find room.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.size - self.at >= bytes as u64
    }

    /// Appends records; with `durably` they survive a power loss when it returns, otherwise only the end of this program.
    /// After an error the file is not to be written to any more: whether the disk has something of it is not known.
    pub(super) fn append(&mut self, records: &[u8], durably: bool) -> io::Result<()> {
        self.file.write_all_at(records, self.at)?;
        if durably {
            self.file.sync_data()?;
        }
        self.at += records.len() as u64;
        Ok(())
    }

    /// From now on there is no room on the disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = File::options().write(true).open("/dev/full").expect("there is such a device");
    }
}

/// Appends the bytes of a record to `records`.
pub(super) fn encode(records: &mut Vec<u8>, head: &[u8], tail: &[u8]) {
    let word = |number: usize| u32::try_from(number).expect("frames bound what an agent is told").to_le_bytes();
    let start = records.len();
    records.extend_from_slice(&word(4 + head.len() + tail.len()));
    records.extend_from_slice(&[0; 4]);
    records.extend_from_slice(&word(head.len()));
    records.extend_from_slice(head);
    records.extend_from_slice(tail);
    let crc = checksum(&records[start..]);
    records[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn check_header(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} {why}", path.display())));
    let whole = bytes.len() >= HEADER_BYTES
        && bytes.starts_with(MAGIC)
        && crc32c::crc32c(&bytes[..12]).to_le_bytes() == bytes[12..HEADER_BYTES];
    match word_at(bytes, 8) {
        Some(FORMAT) if whole => Ok(()),
        Some(format) if whole => invalid(format!("has format {format}, this agent reads {FORMAT}")),
        _ => invalid("is not what an agent remembers; move it away, and what it held counts as lost".into()),
    }
}

/// The record at the beginning of `bytes` and its length; `None` if there is no whole one.
fn parse(bytes: &[u8]) -> Option<(Record, usize)> {
    let rest = word_at(bytes, 0)? as usize;
    let head = word_at(bytes, 8)? as usize;
    let used = rest.checked_add(8)?;
    if head.checked_add(4)? > rest {
        return None;
    }
    let record = bytes.get(..used)?;
    if checksum(record).to_le_bytes() != record[4..8] {
        return None;
    }
    let (head, tail) = record[FRAME_BYTES..].split_at(head);
    Some((Record { head: head.to_vec(), tail: tail.to_vec() }, used))
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u32, tail: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, format!("{{\"number\":{number}}}").as_bytes(), tail);
        bytes
    }

    fn numbers(path: &Path) -> (Vec<String>, bool) {
        let found = Log::read(path).expect("reads");
        let head = |record: &Record| String::from_utf8(record.head.clone()).expect("text");
        (found.records.iter().map(head).collect(), found.damaged)
    }

    #[test]
    fn what_was_appended_is_read_whatever_was_torn_behind_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        assert_eq!(numbers(&path), (Vec::new(), false));
        let kept = record(1, b"");
        let mut log = Log::replace(&path, std::iter::once(&kept[..])).expect("replaces");
        let (second, third) = (record(2, b"\0\0tail\0"), record(3, b""));
        log.append(&second, true).expect("appends");
        let whole = log.at as usize;
        log.append(&third, false).expect("appends");
        let bytes = fs::read(&path).expect("reads");
        assert_eq!(bytes.len(), FILE_BYTES_MIN);
        assert_eq!(numbers(&path).0.len(), 3);
        assert_eq!(Log::read(&path).expect("reads").records[1].tail, b"\0\0tail\0");
        for torn in 0..third.len() {
            // Both what a file of zeros and what a file that ends there looks like after a crash.
            let mut zeroed = bytes.clone();
            zeroed[whole + torn..].fill(0);
            for bytes in [&zeroed[..], &bytes[..whole + torn]] {
                fs::write(&path, bytes).expect("writes");
                assert_eq!(numbers(&path), (vec!["{\"number\":1}".into(), "{\"number\":2}".into()], false), "{torn}");
            }
        }
    }

    #[test]
    fn a_damaged_record_costs_no_other() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let records = [record(1, b""), record(2, &[7; 1000]), record(3, b"")];
        let log = Log::replace(&path, records.iter().map(|record| &record[..])).expect("replaces");
        let bytes = fs::read(&path).expect("reads");
        let second = HEADER_BYTES + records[0].len();
        for at in second..second + records[1].len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).expect("writes");
            assert_eq!(numbers(&path), (vec!["{\"number\":1}".into(), "{\"number\":3}".into()], true), "at {at}");
        }
        assert!(log.has_room(FILE_BYTES_MIN / 2) && !log.has_room(FILE_BYTES_MIN));
    }

    #[test]
    fn a_file_has_room_for_as_much_as_it_began_with() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let long = record(1, &vec![9; 3 * FILE_BYTES_MIN]);
        let log = Log::replace(&path, std::iter::once(&long[..])).expect("replaces");
        assert!(log.has_room(long.len()) && !log.has_room(2 * long.len()));
        assert_eq!(Log::read(&path).expect("reads").records.len(), 1);
    }
}
