//! The bytes of a segment: one header, then records.
//!
//! All numbers are little endian.
//!
//! | header | bytes |
//! |---|---|
//! | magic `MODCHJNL` | 8 |
//! | format version | 4 |
//! | journal id | 16 |
//! | asset: 0 test, 1 usdc; three zero bytes | 4 |
//! | number of the first event | 8 |
//! | hash of the last record of the segment before, or zeros | 32 |
//! | crc32c of all before | 4 |
//!
//! | record | bytes |
//! |---|---|
//! | length of the payload | 4 |
//! | crc32c of the journal id and of all of the record but this field | 4 |
//! | number of the first event | 8 |
//! | events | 4 |
//! | kind | 2 |
//! | version | 2 |
//! | payload | as it says |
//! | BLAKE3 of the hash before and of all of the record but crc32c and this field | 32 |
//!
//! The hash before the first record of a segment is the BLAKE3 of its header, which holds the hash before it.

use modchain_types::{Asset, JournalId};

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 76;
/// Bytes of a record before its payload.
pub const RECORD_HEAD_BYTES: usize = 24;
/// Bytes of a record after its payload.
pub const RECORD_TAIL_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"MODCHJNL";
const FORMAT_VERSION: u32 = 1;

/// A record of events. Both bytes can stand nowhere in UTF-8, so that no text in a torn payload can look like a record.
const KIND_EVENTS: u16 = 0xfffe;

/// A link of the chain.
pub type Hash = [u8; 32];

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Drawn when the journal is made.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Number of the first event in this segment.
    pub first: u64,
    /// The chain before this segment.
    pub previous: Hash,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let asset = match self.asset {
            Asset::Test => 0u8,
            Asset::Usdc => 1,
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.journal.0);
        bytes.extend_from_slice(&[asset, 0, 0, 0]);
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.previous);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above are 76 bytes")
    }

    /// A header from the first bytes of a segment; errors say what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let header: &[u8; HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| format!("the header needs {HEADER_BYTES} bytes, the file has {}", bytes.len()))?;
        let (fields, crc) = header.split_at(HEADER_BYTES - 4);
        if &fields[..8] != MAGIC {
            return Err("this is not a segment of a journal".into());
        }
        if crc32c::crc32c(fields).to_le_bytes() != crc {
            return Err("the header's checksum does not match".into());
        }
        let version = u32_at(fields, 8);
        if version != FORMAT_VERSION {
            return Err(format!("the format version is {version}, this program reads {FORMAT_VERSION}"));
        }
        let asset = match fields[28..32] {
            [0, 0, 0, 0] => Asset::Test,
            [1, 0, 0, 0] => Asset::Usdc,
            _ => return Err("the header names an unknown asset".into()),
        };
        Ok(Self {
            journal: JournalId(fields[12..28].try_into().expect("16 bytes")),
            asset,
            first: u64_at(fields, 32),
            previous: fields[40..72].try_into().expect("32 bytes"),
        })
    }

    /// The link before the segment's first record.
    pub fn hash(&self) -> Hash {
        *blake3::hash(&self.encode()).as_bytes()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// One record whose checksum matches.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Number of its first event.
    pub first: u64,
    /// Events.
    pub count: u32,
    /// Of the payload's encoding.
    pub version: u16,
    /// The events' bytes.
    pub payload: &'a [u8],
    /// The chain after it.
    pub hash: Hash,
    /// Bytes of the whole record.
    pub bytes: usize,
    hashed: [&'a [u8]; 2],
}

impl<'a> Record<'a> {
    /// Reads the record at the beginning of `bytes`; errors say what is wrong. Looks at the checksum, not at the chain.
    pub fn parse(journal: JournalId, bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < RECORD_HEAD_BYTES + RECORD_TAIL_BYTES {
            return Err(format!("{} bytes are too few for a record", bytes.len()));
        }
        let (length, kind) = (u32_at(bytes, 0) as usize, u16::from_le_bytes([bytes[20], bytes[21]]));
        if kind != KIND_EVENTS {
            return Err(format!("{kind:#06x} is not a kind of record"));
        }
        let whole = RECORD_HEAD_BYTES.saturating_add(length).saturating_add(RECORD_TAIL_BYTES);
        if whole > bytes.len() {
            return Err(format!("the record needs {whole} bytes, {} are there", bytes.len()));
        }
        if checksum(journal, &bytes[..4], &bytes[8..whole]) != u32_at(bytes, 4) {
            return Err("its checksum does not match".into());
        }
        let end = RECORD_HEAD_BYTES + length;
        Ok(Self {
            first: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
            version: u16::from_le_bytes([bytes[22], bytes[23]]),
            payload: &bytes[RECORD_HEAD_BYTES..end],
            hash: bytes[end..whole].try_into().expect("32 bytes"),
            bytes: whole,
            hashed: [&bytes[..4], &bytes[8..end]],
        })
    }

    /// Whether it follows `previous` in the chain.
    pub fn follows(&self, previous: &Hash) -> bool {
        link(previous, &self.hashed) == self.hash
    }
}

/// The bytes of a record that follows `previous`, and the chain after it.
pub fn frame(
    journal: JournalId,
    first: u64,
    count: u32,
    version: u16,
    payload: &[u8],
    previous: &Hash,
) -> (Vec<u8>, Hash) {
    let length = u32::try_from(payload.len()).expect("a payload is far below 4 GiB");
    let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + payload.len() + RECORD_TAIL_BYTES);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&KIND_EVENTS.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(payload);
    let hash = link(previous, &[&bytes[..4], &bytes[8..]]);
    bytes.extend_from_slice(&hash);
    let crc = checksum(journal, &bytes[..4], &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    (bytes, hash)
}

/// Where the next record with a matching checksum begins, looking at every byte of `bytes` after the first.
pub fn find_record(journal: JournalId, bytes: &[u8]) -> Option<usize> {
    let kind = KIND_EVENTS.to_le_bytes();
    (1..bytes.len().saturating_sub(RECORD_HEAD_BYTES + RECORD_TAIL_BYTES - 1))
        .filter(|&at| bytes[at + 20..at + 22] == kind)
        .find(|&at| Record::parse(journal, &bytes[at..]).is_ok())
}

fn link(previous: &Hash, parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn checksum(journal: JournalId, length: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&journal.0), length), rest)
}
