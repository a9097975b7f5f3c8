//! The file behind the outbox: records one after another, in space that was filled with zeros before.
//!
//! ```text
//! magic, 8 bytes | u32 format | salt, 8 bytes | u32 crc32c of all before                              (little endian)
//! u32 bytes of the rest | u32 crc32c | u32 bytes of the head | head, JSON | tail                      … a record
//! zeros
//! ```
//!
//! Writing into space that is there changes no metadata, so that its sync is short. When the space is used up the file is
//! written anew with what still counts ([`Log::beside`]), beside its place, and takes its place in one step; no byte of a
//! file is ever written twice.
//!
//! A record that is not whole was never answered for, or the disk has lost it. Either way reading goes on at the next whole
//! one: each record stands for itself, and losing one must not take another along. What stands inside of a broken record may
//! be what a job has printed. So that nothing of it passes for a record, the checksum of each is over the file's salt and the
//! record's place too: a job knows neither.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{clock, files};

/// What the file begins with.
const MAGIC: &[u8; 8] = b"MODCAGNT";

/// Version of the file. A file of another version is refused, not guessed at.
pub(super) const FORMAT: u32 = 1;

/// Random bytes of a file.
type Salt = [u8; 8];

/// Bytes before the first record.
pub(super) const HEADER_BYTES: usize = 8 + 4 + 8 + 4;

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
#[derive(Debug)]
pub(super) struct Found {
    /// Every whole record, in order. They survive a power loss if there is a `log`.
    pub records: Vec<Record>,
    /// Whether something that is not whole stands before one that is.
    pub damaged: bool,
    /// The file, to go on at its end; `None` if something that is not whole stands anywhere.
    pub log: Option<Log>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    salt: Salt,
    /// Where the next record goes.
    at: u64,
    /// Bytes of the file.
    size: u64,
}

impl Log {
    /// Opens the file at `path` and reads it; `None` if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Option<Found>> {
        let mut file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let salt = read_header(path, &bytes)?;
        let (mut records, mut damaged) = (Vec::new(), false);
        let (mut at, mut end) = (HEADER_BYTES, HEADER_BYTES);
        let whole = loop {
            if let Some((record, used)) = parse(salt, at, &bytes) {
                damaged |= at != end;
                records.push(record);
                at += used;
                end = at;
            } else if let Some(stride) = stride(&bytes[at..]) {
                at += stride;
            } else {
                break at == end;
            }
        };
        let log = Self { file, salt, at: end as u64, size: bytes.len() as u64 };
        // Whoever wrote the last records may have died before their sync.
        let log = match whole && !damaged {
            true => log
                .sync(path)
                .map(|()| log)
                .inspect_err(|error| {
                    tracing::warn!(%error, path = %path.display(), "it cannot be synced");
                })
                .ok(),
            false => None,
        };
        Ok(Some(Found { records, damaged, log }))
    }

    /// Writes a file beside `path` with these records and room for as much again.
    pub(super) fn beside<'a>(path: &Path, records: impl Iterator<Item = &'a [u8]>) -> io::Result<New> {
        let mut salt = Salt::default();
        clock::random(&mut salt).map_err(io::Error::other)?;
        let mut bytes = header(salt);
        records.for_each(|record| bytes.extend_from_slice(record));
        seal(salt, HEADER_BYTES, &mut bytes[HEADER_BYTES..]);
        let at = bytes.len();
        bytes.resize((2 * at).max(FILE_BYTES_MIN), 0);
        let new = beside(path);
        let written = files::create_private(&new).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            Ok(file)
        });
        // Half of it may be what fills the disk.
        let file = written.inspect_err(|_| drop(fs::remove_file(new)))?;
        Ok(New(Self { file, salt, at: at as u64, size: bytes.len() as u64 }))
    }

    /// Whether so many bytes of records find room.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.size - self.at >= bytes as u64
    }

    /// Appends records, sealing them; with `durably` they survive a power loss when it returns, otherwise only the end of
    /// this program. After an error the file is not to be written to any more: whether the disk has something of it is not
    /// known.
    pub(super) fn append(&mut self, records: &mut [u8], durably: bool) -> io::Result<()> {
        seal(self.salt, usize::try_from(self.at).expect("it was in memory"), records);
        self.file.write_all_at(records, self.at)?;
        if durably {
            self.file.sync_data()?;
        }
        self.at += records.len() as u64;
        Ok(())
    }

    /// Makes the file and its name durable.
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        sync_name(path)
    }

    /// From now on there is no room on the disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = File::options().write(true).open("/dev/full").expect("there is such a device");
    }
}

/// A file that is to take the place of another one, durable but for its name.
#[derive(Debug)]
pub(super) struct New(Log);

impl New {
    /// Takes the place of the file at `path`; durable when it returns. After an error it is not known which of the two is
    /// there.
    pub(super) fn take_place(self, path: &Path) -> io::Result<Log> {
        fs::rename(beside(path), path)?;
        sync_name(path)?;
        Ok(self.0)
    }
}

/// Removes what a crash left of a file that was to take the place of the one at `path`.
pub(super) fn remove_unfinished(path: &Path) {
    // One that stays is overwritten by the next.
    let _ = fs::remove_file(beside(path));
}

/// Appends the bytes of a record to `records`. It is sealed when it is known in which file it goes, and where.
pub(super) fn encode(records: &mut Vec<u8>, head: &[u8], tail: &[u8]) {
    let word = |number: usize| u32::try_from(number).expect("frames bound what an agent is told").to_le_bytes();
    records.extend_from_slice(&word(4 + head.len() + tail.len()));
    records.extend_from_slice(&[0; 4]);
    records.extend_from_slice(&word(head.len()));
    records.extend_from_slice(head);
    records.extend_from_slice(tail);
}

/// Gives each record its checksum, of which the first one is to stand at `at`.
fn seal(salt: Salt, mut at: usize, mut records: &mut [u8]) {
    while let Some(rest) = word_at(records, 0) {
        let (record, others) = records.split_at_mut(8 + rest as usize);
        let crc = checksum(salt, at, record);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        at += record.len();
        records = others;
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn sync_name(path: &Path) -> io::Result<()> {
    files::sync_dir(path.parent().ok_or_else(|| io::Error::other("a file has no folder"))?)
}

fn header(salt: Salt) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&salt);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn read_header(path: &Path, bytes: &[u8]) -> io::Result<Salt> {
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} {why}", path.display())));
    let salt = bytes.get(12..20).and_then(|salt| Salt::try_from(salt).ok());
    match (word_at(bytes, 8), salt) {
        // What else its header has, its own build knows.
        (Some(format), _) if bytes.starts_with(MAGIC) && format != FORMAT => {
            invalid(format!("has format {format}, this agent reads {FORMAT}"))
        }
        (_, Some(salt)) if bytes.starts_with(&header(salt)) => Ok(salt),
        _ => invalid("is not what an agent remembers; move it away, and what it held counts as lost".into()),
    }
}

/// The record at `at` and its length; `None` if there is no whole one.
fn parse(salt: Salt, at: usize, bytes: &[u8]) -> Option<(Record, usize)> {
    let bytes = bytes.get(at..)?;
    let rest = word_at(bytes, 0)? as usize;
    let head = word_at(bytes, 8)? as usize;
    let used = rest.checked_add(8)?;
    if head.checked_add(4)? > rest {
        return None;
    }
    let record = bytes.get(..used)?;
    if checksum(salt, at, record).to_le_bytes() != record[4..8] {
        return None;
    }
    let (head, tail) = record[FRAME_BYTES..].split_at(head);
    Some((Record { head: head.to_vec(), tail: tail.to_vec() }, used))
}

/// How far behind a place without a record the next one can begin at the soonest; `None` if only zeros come, which stand
/// behind the last record.
fn stride(bytes: &[u8]) -> Option<usize> {
    // A record begins with its length, which is not zero, in 4 bytes.
    bytes.iter().position(|byte| *byte != 0).map(|zeros| zeros.saturating_sub(3).max(1))
}

fn checksum(salt: Salt, at: usize, record: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&salt), &(at as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, &record[..4]), &record[8..])
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

    fn replace<'a>(path: &Path, records: impl IntoIterator<Item = &'a Vec<u8>>) -> Log {
        let new = Log::beside(path, records.into_iter().map(|record| &record[..])).expect("writes");
        new.take_place(path).expect("takes its place")
    }

    fn open(path: &Path) -> Found {
        Log::open(path).expect("reads").expect("it is there")
    }

    fn numbers(path: &Path) -> (Vec<String>, bool) {
        let found = open(path);
        let head = |record: &Record| String::from_utf8(record.head.clone()).expect("text");
        (found.records.iter().map(head).collect(), found.damaged)
    }

    #[test]
    fn what_was_appended_is_read_whatever_was_torn_behind_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        assert!(Log::open(&path).expect("reads").is_none());
        let mut log = replace(&path, [&record(1, b"")]);
        let (mut second, mut third) = (record(2, b"\0\0tail\0"), record(3, b""));
        log.append(&mut second, true).expect("appends");
        let whole = log.at as usize;
        log.append(&mut third, false).expect("appends");
        let mut bytes = fs::read(&path).expect("reads");
        assert_eq!(bytes.len(), FILE_BYTES_MIN);
        bytes.truncate(1000);
        assert_eq!(numbers(&path).0.len(), 3);
        assert_eq!(open(&path).records[1].tail, b"\0\0tail\0");
        for torn in 0..third.len() {
            // Both what a file of zeros and what a file that ends there looks like after a crash.
            let mut zeroed = bytes.clone();
            zeroed[whole + torn..].fill(0);
            for bytes in [&zeroed[..], &bytes[..whole + torn]] {
                fs::write(&path, bytes).expect("writes");
                assert_eq!(numbers(&path), (vec!["{\"number\":1}".into(), "{\"number\":2}".into()], false), "{torn}");
                // No byte is written twice.
                assert_eq!(open(&path).log.is_some(), bytes[whole..].iter().all(|byte| *byte == 0), "{torn}");
            }
        }
    }

    #[test]
    fn a_whole_file_is_gone_on_with_at_its_end() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        drop(replace(&path, [&record(1, b"tail\0\0\0")]));
        for number in 2..5 {
            let mut log = open(&path).log.expect("whole");
            log.append(&mut record(number, b""), true).expect("appends");
        }
        assert_eq!(numbers(&path).0.len(), 4);
        let found = open(&path);
        assert!(found.log.is_some_and(|log| log.has_room(FILE_BYTES_MIN / 2) && !log.has_room(FILE_BYTES_MIN)));
    }

    #[test]
    fn a_damaged_record_costs_no_other() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let records = [record(1, b""), record(2, &[7; 1000]), record(3, b"")];
        let log = replace(&path, &records);
        let mut bytes = fs::read(&path).expect("reads");
        bytes.truncate(2000);
        let second = HEADER_BYTES + records[0].len();
        for at in second..second + records[1].len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).expect("writes");
            assert_eq!(numbers(&path), (vec!["{\"number\":1}".into(), "{\"number\":3}".into()], true), "at {at}");
            assert!(open(&path).log.is_none());
        }
        assert!(log.has_room(FILE_BYTES_MIN / 2) && !log.has_room(FILE_BYTES_MIN));
    }

    #[test]
    fn what_stands_inside_of_a_broken_record_is_no_record_though_a_job_has_chosen_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        // A whole record of another file, that stands in this one where it stood there.
        let first = record(1, b"");
        let inner_at = HEADER_BYTES + first.len() + FRAME_BYTES + "{\"number\":2}".len();
        let padding = record(9, &vec![0; inner_at - HEADER_BYTES - record(9, b"").len()]);
        drop(replace(&path, [&padding, &record(6, b"")]));
        let of_other = fs::read(&path).expect("reads")[inner_at..][..record(6, b"").len()].to_vec();
        // A whole record of this very file, at another place.
        let carrier = record(2, &of_other);
        let mut log = replace(&path, [&first, &carrier]);
        let of_this = fs::read(&path).expect("reads")[HEADER_BYTES..][..first.len()].to_vec();
        log.append(&mut record(3, &of_this), true).expect("appends");
        let mut bytes = fs::read(&path).expect("reads");
        assert_eq!(bytes[inner_at..][..of_other.len()], of_other);
        for broken in [HEADER_BYTES + first.len(), HEADER_BYTES + first.len() + carrier.len()] {
            bytes[broken] ^= 1;
        }
        fs::write(&path, bytes).expect("writes");
        assert_eq!(numbers(&path).0, ["{\"number\":1}"]);
    }

    #[test]
    fn a_hole_of_zeros_is_passed_in_one_stride() {
        assert_eq!(stride(&vec![0; 1 << 20]), None);
        for (zeros, expected) in [(0, 1), (1, 1), (3, 1), (4, 1), (5, 2), (1 << 20, (1 << 20) - 3)] {
            let mut bytes = vec![0; zeros];
            bytes.push(7);
            assert_eq!(stride(&bytes), Some(expected), "{zeros} zeros");
        }
        // Whatever the bytes of its length are, the record behind the hole is found.
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        for tail in [0, 256 - 16, (1 << 16) - 16] {
            let last = record(3, &vec![1; tail]);
            let hole = record(2, &vec![1; 100_000]);
            drop(replace(&path, [&record(1, b""), &hole, &last]));
            let mut bytes = fs::read(&path).expect("reads");
            bytes[HEADER_BYTES + record(1, b"").len()..][..hole.len()].fill(0);
            fs::write(&path, bytes).expect("writes");
            assert_eq!(numbers(&path), (vec!["{\"number\":1}".into(), "{\"number\":3}".into()], true), "{tail}");
        }
    }

    #[test]
    fn a_file_has_room_for_as_much_as_it_began_with() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let long = record(1, &vec![9; 3 * FILE_BYTES_MIN]);
        let log = replace(&path, [&long]);
        assert!(log.has_room(long.len()) && !log.has_room(2 * long.len()));
        assert_eq!(open(&path).records.len(), 1);
    }
}
