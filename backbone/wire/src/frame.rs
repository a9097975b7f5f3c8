//! Frames: `u32 length (little endian) | u8 version | u8 type | body`. The length counts the body alone and is checked
//! against the cap of the type before anything is allocated.

use bincode::config::{Configuration, LittleEndian, Varint};
use bytes::Bytes;
use modchain_types::{Digest, JobSpec, Task};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version every frame carries.
pub const WIRE_VERSION: u8 = 1;

/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 6;

/// Largest body of an ordinary message, in bytes.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a heartbeat.
pub const HEARTBEAT_BYTES_MAX: usize = 4 * 1024;
/// Largest body of a heartbeat with samples: sixteen seconds of 64 GPUs, at most 20 bytes each, and the load of the machine.
pub const SAMPLES_BYTES_MAX: usize = 24 * 1024;
/// Largest body of a message that carries a job's specification, or a node's offer.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;
/// Largest body of a message that carries a chunk of data.
pub const DATA_BYTES_MAX: usize = 64 * 1024;
/// Largest body of an inventory or a page of a list.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The other side speaks another version of the framing.
    #[error("frame version {got}, this side speaks {WIRE_VERSION}")]
    Version {
        /// What the frame says.
        got: u8,
    },
    /// A type that this side does not know in this direction.
    #[error("frame type {kind:#04x} is not supported here")]
    Unsupported {
        /// The type.
        kind: u8,
    },
    /// The body is longer than its type allows.
    #[error("a frame of type {kind:#04x} may have {limit} bytes, this one has {got}")]
    TooLong {
        /// The type.
        kind: u8,
        /// What the frame says.
        got: usize,
        /// What its type allows.
        limit: usize,
    },
    /// The body does not decode.
    #[error("a frame of type {kind:#04x} does not decode: {why}")]
    Garbled {
        /// The type.
        kind: u8,
        /// What the decoder said: names the field and the limit where there is one.
        why: String,
    },
    /// The body has bytes after its end.
    #[error("a frame of type {kind:#04x} has {extra} bytes after its end")]
    Trailing {
        /// The type.
        kind: u8,
        /// How many.
        extra: usize,
    },
}

/// The six bytes before a body, not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// The framing's version.
    pub version: u8,
    /// The message's type.
    pub kind: u8,
}

impl FrameHeader {
    /// Reads the header; every six bytes are one.
    pub fn read(bytes: [u8; FRAME_HEADER_BYTES]) -> Self {
        let [a, b, c, d, version, kind] = bytes;
        Self { body_bytes: u32::from_le_bytes([a, b, c, d]) as usize, version, kind }
    }

    /// Whether a body of this length may be read at all in a stream of `M`. Ask before allocating.
    pub fn check<M: Message>(&self) -> Result<(), WireError> {
        if self.version != WIRE_VERSION {
            return Err(WireError::Version { got: self.version });
        }
        let limit = M::cap(self.kind).ok_or(WireError::Unsupported { kind: self.kind })?;
        if self.body_bytes > limit {
            return Err(WireError::TooLong { kind: self.kind, got: self.body_bytes, limit });
        }
        Ok(())
    }
}

/// One direction of one protocol: a closed set of frame types. Made by the `protocol!` macro.
pub trait Message: Sized + Send + 'static {
    /// Every type of this direction with its name and the cap on its body.
    const TYPES: &'static [(u8, &'static str, usize)];

    /// This message's type.
    fn kind(&self) -> u8;

    /// Appends the body's bytes.
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), WireError>;

    /// Reads a body of the type `kind`; all of it.
    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, WireError>;

    /// The cap on bodies of the type `kind`, or `None` for a type that does not exist here.
    fn cap(kind: u8) -> Option<usize> {
        Self::TYPES.iter().find(|(k, _, _)| *k == kind).map(|(_, _, cap)| *cap)
    }

    /// The list for `Hello` and `Welcome`.
    fn known_types() -> crate::KnownTypes {
        crate::KnownTypes::cut(Self::TYPES.iter().map(|(kind, _, _)| *kind).collect())
    }

    /// The whole frame.
    fn to_frame(&self) -> Result<Bytes, WireError> {
        // The header's place is kept free, so that the body is written where it stays.
        let mut frame = Vec::with_capacity(64);
        frame.resize(FRAME_HEADER_BYTES, 0);
        self.encode_body(&mut frame)?;
        let (kind, body_bytes) = (self.kind(), frame.len() - FRAME_HEADER_BYTES);
        let limit = Self::cap(kind).ok_or(WireError::Unsupported { kind })?;
        if body_bytes > limit {
            return Err(WireError::TooLong { kind, got: body_bytes, limit });
        }
        let length = u32::try_from(body_bytes).expect("caps are far below 4 GiB");
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4] = WIRE_VERSION;
        frame[5] = kind;
        Ok(Bytes::from(frame))
    }

    /// A message from a whole frame. Streams use [`FrameHeader::check`] and [`Message::decode_body`] instead.
    fn from_frame(frame: &[u8]) -> Result<Self, WireError> {
        let short = || WireError::Garbled { kind: 0, why: "the frame is shorter than its header says".into() };
        let (header, body) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or_else(short)?;
        let header = FrameHeader::read(*header);
        header.check::<Self>()?;
        if body.len() < header.body_bytes {
            return Err(short());
        }
        if body.len() > header.body_bytes {
            return Err(WireError::Trailing { kind: header.kind, extra: body.len() - header.body_bytes });
        }
        Self::decode_body(header.kind, body)
    }
}

const CODEC: Configuration<LittleEndian, Varint> = bincode::config::standard();

pub(crate) fn encode_value<T: Serialize>(kind: u8, value: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    bincode::serde::encode_into_std_write(value, out, CODEC)
        .map(|_| ())
        .map_err(|error| WireError::Garbled { kind, why: error.to_string() })
}

/// The decoder counts memory, not bytes on the wire, and an honest list of short items takes up to eight times its bytes:
/// hence eight times the cap, one constant per class of frame.
pub(crate) fn decode_value<T: DeserializeOwned>(kind: u8, cap: usize, body: &[u8]) -> Result<T, WireError> {
    let decoded = match cap {
        HEARTBEAT_BYTES_MAX => {
            bincode::serde::decode_from_slice(body, CODEC.with_limit::<{ 8 * HEARTBEAT_BYTES_MAX }>())
        }
        SAMPLES_BYTES_MAX => bincode::serde::decode_from_slice(body, CODEC.with_limit::<{ 8 * SAMPLES_BYTES_MAX }>()),
        CONTROL_BYTES_MAX => bincode::serde::decode_from_slice(body, CODEC.with_limit::<{ 8 * CONTROL_BYTES_MAX }>()),
        SPEC_BYTES_MAX => bincode::serde::decode_from_slice(body, CODEC.with_limit::<{ 8 * SPEC_BYTES_MAX }>()),
        _ => bincode::serde::decode_from_slice(body, CODEC.with_limit::<{ 8 * PAGE_BYTES_MAX }>()),
    };
    let (value, used) = decoded.map_err(|error| WireError::Garbled { kind, why: error.to_string() })?;
    if used != body.len() {
        return Err(WireError::Trailing { kind, extra: body.len() - used });
    }
    Ok(value)
}

/// The digest of a specification's canonical bytes, which are its wire encoding with the body inline: two submits under one
/// key mean the same job when, and only when, these are equal.
pub fn spec_digest(spec: &JobSpec) -> Digest {
    let mut bytes = Vec::new();
    encode_value(0, spec, &mut bytes).expect("a specification always encodes into memory");
    Digest::of(&bytes)
}

/// A task's bytes, for keeping a large one in the blob store.
pub fn encode_task(task: &Task) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_value(0, task, &mut bytes).expect("a task always encodes into memory");
    bytes
}

/// A task from [`encode_task`]'s bytes.
pub fn decode_task(bytes: &[u8]) -> Result<Task, WireError> {
    if bytes.len() > SPEC_BYTES_MAX {
        return Err(WireError::TooLong { kind: 0, got: bytes.len(), limit: SPEC_BYTES_MAX });
    }
    decode_value(0, SPEC_BYTES_MAX, bytes)
}
