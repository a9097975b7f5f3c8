//! The bytes of events in the journal.
//!
//! The journal has its own types, one module per version, apart from those of `modchain-core`: a change to the machine
//! cannot change what is on disk by accident. A version, once released, never changes; a new one gets its own module, and
//! the old ones stay readable for ever. bincode is named here and nowhere else in this crate; golden files pin the bytes.

pub mod v2;

use bincode::config::{Configuration, LittleEndian, Varint};
use bincode::error::DecodeError;
use modchain_core::Event;
use modchain_core::control::Durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that is written. Version 1 was never released.
pub const RECORD_VERSION: u16 = 2;

/// Largest payload of one record. A record is a batch of at most a few hundred commands and the placements that follow from
/// them, tens of kilobytes each at the very most; this is far above what they come to and far below what a machine has.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// The decoder counts memory, not bytes: an honest list of short items takes up to eight times its bytes.
const MEMORY_PER_BYTE: usize = 8;

/// Payloads up to here may make the decoder take [`MEMORY_PER_BYTE`] times this. The decoder takes memory for what a length
/// claims before it looks whether the bytes are there, and its limit is a constant of the type: hence a few classes, so that
/// a record of a hundred bytes cannot claim gigabytes.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// As [`SMALL_BYTES_MAX`], for larger ones.
const MIDDLE_BYTES_MAX: usize = 4 << 20;

const CODEC: Configuration<LittleEndian, Varint> = bincode::config::standard();

/// Why bytes are not events, or events cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer program.
    #[error("its record version is {got}, this program reads {RECORD_VERSION}: {}", advice(*.got))]
    Version {
        /// What the record says.
        got: u16,
    },
    /// The numbers of the events go beyond the last there is.
    #[error("{count} events cannot begin with number {first}")]
    Number {
        /// Number of the first event.
        first: u64,
        /// How many there should be.
        count: u32,
    },
    /// The bytes do not decode.
    #[error("event {number} does not decode: {why}")]
    Garbled {
        /// Which event.
        number: u64,
        /// What the decoder said.
        why: String,
    },
    /// There are bytes after the last event.
    #[error("{extra} bytes follow the last event")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// More than a record may have.
    #[error("a record may have {PAYLOAD_BYTES_MAX} bytes, this one has {got}")]
    TooLong {
        /// How many.
        got: usize,
    },
    /// An event cannot be encoded; a bug.
    #[error("event {number} cannot be encoded: {why}")]
    Unencodable {
        /// Which event.
        number: u64,
        /// What the encoder said.
        why: String,
    },
}

fn advice(got: u16) -> &'static str {
    if got > RECORD_VERSION {
        "use a newer program"
    } else {
        "an unreleased build wrote it; start with a new data directory"
    }
}

/// The payload of a record with these events, in the newest version. Their numbers must follow one another; only the first
/// is kept, by the caller.
pub fn encode(events: &[Event]) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(events.len() * 128);
    for event in events {
        bincode::serde::encode_into_std_write(v2::Event::from(event), &mut bytes, CODEC)
            .map_err(|error| RecordError::Unencodable { number: event.number, why: error.to_string() })?;
    }
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(RecordError::TooLong { got: bytes.len() });
    }
    Ok(bytes)
}

/// The events of a payload: `count` of them, numbered from `first` on.
pub fn decode(version: u16, first: u64, count: u32, payload: &[u8]) -> Result<Vec<Event>, RecordError> {
    if version != RECORD_VERSION {
        return Err(RecordError::Version { got: version });
    }
    // One more than the last is the number that the journal is due for next.
    let end = first.checked_add(count.into()).ok_or(RecordError::Number { first, count })?;
    let mut rest = payload;
    // The count is not proof: memory grows with what really decodes.
    let mut events = Vec::with_capacity((count as usize).min(payload.len()).min(1024));
    for number in first..end {
        let garbled = |why: String| RecordError::Garbled { number, why };
        let (event, used) = decode_event(rest).map_err(|error| garbled(error.to_string()))?;
        rest = &rest[used..];
        events.push(event.into_core(number).map_err(|error| garbled(error.0))?);
    }
    if !rest.is_empty() {
        return Err(RecordError::Trailing { extra: rest.len() });
    }
    Ok(events)
}

fn decode_event(bytes: &[u8]) -> Result<(v2::Event, usize), DecodeError> {
    const SMALL: usize = MEMORY_PER_BYTE * SMALL_BYTES_MAX;
    const MIDDLE: usize = MEMORY_PER_BYTE * MIDDLE_BYTES_MAX;
    const LARGE: usize = MEMORY_PER_BYTE * PAYLOAD_BYTES_MAX;
    if bytes.len() <= SMALL_BYTES_MAX {
        bincode::serde::decode_from_slice(bytes, CODEC.with_limit::<SMALL>())
    } else if bytes.len() <= MIDDLE_BYTES_MAX {
        bincode::serde::decode_from_slice(bytes, CODEC.with_limit::<MIDDLE>())
    } else {
        bincode::serde::decode_from_slice(bytes, CODEC.with_limit::<LARGE>())
    }
}

/// Largest memory that one item of a snapshot may claim while it is decoded.
const ITEM_MEMORY_MAX: usize = MEMORY_PER_BYTE * MIDDLE_BYTES_MAX;

/// The bytes of a state, for a snapshot.
pub fn encode_durable(state: &Durable) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(64 * (state.ended.len() + 8 * state.jobs.len()));
    v2::items(state, |item| {
        bincode::serde::encode_into_std_write(item, &mut bytes, CODEC)
            .map(|_| ())
            .map_err(|error| RecordError::Unencodable { number: state.number, why: error.to_string() })
    })?;
    Ok(bytes)
}

/// A state from its bytes.
pub fn decode_durable(bytes: &[u8]) -> Result<Durable, String> {
    let mut rest = bytes;
    let mut next = || -> Result<Option<v2::Item>, String> {
        if rest.is_empty() {
            return Ok(None);
        }
        let decoded = bincode::serde::decode_from_slice(rest, CODEC.with_limit::<ITEM_MEMORY_MAX>());
        let (item, used) = decoded.map_err(|error| format!("an item of it does not decode: {error}"))?;
        rest = &rest[used..];
        Ok(Some(item))
    };
    let head = next()?.ok_or("it is empty")?;
    let mut assembly = v2::Assembly::begin(head).map_err(|error| error.0)?;
    while let Some(item) = next()? {
        assembly.take(item).map_err(|error| error.0)?;
    }
    Ok(assembly.finish())
}

/// The bytes of a row of the view. The view is made anew when what it holds changes, so its rows have no types of their own.
pub fn encode_row<T: Serialize>(row: &T) -> Result<Vec<u8>, String> {
    bincode::serde::encode_to_vec(row, CODEC).map_err(|error| error.to_string())
}

/// A row of the view from its bytes.
pub fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let decoded = bincode::serde::decode_from_slice(bytes, CODEC.with_limit::<ITEM_MEMORY_MAX>());
    let (row, used) = decoded.map_err(|error| error.to_string())?;
    if used == bytes.len() { Ok(row) } else { Err(format!("{} bytes follow a row", bytes.len() - used)) }
}
