//! What crosses the network, and its bytes.
//!
//! A [`frame`] is a length, a version, a type and a body. The [`agent`], [`console`] and [`join`] modules list the messages of
//! the three protocols, one struct per frame type, and [`view`] the read-only documents that consoles get. Once released a body never
//! changes: a change is a new frame type, and both sides tell at the start which types they know.
//!
//! bincode is named in [`frame`] and nowhere else in this crate.

mod protocol;

pub mod agent;
pub mod console;
pub mod frame;
pub mod join;
pub mod view;

pub use agent::{FromAgent, ToAgent};
pub use console::{FromConsole, ToConsole};
pub use frame::{
    FRAME_HEADER_BYTES, FrameHeader, Message, WIRE_VERSION, WireError, decode_task, encode_task, spec_digest,
};
pub use join::{FromJoiner, ToJoiner};

/// Largest payload of one data chunk, in bytes: the rest of a 64 KiB frame is its header and offsets.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024 - 128;

/// Payload of a data frame.
pub type Data = modchain_types::Chunk<CHUNK_BYTES_MAX>;

/// A sentence for a person.
pub type Sentence = modchain_types::Text<1024>;

/// The frame types that a program knows.
pub type KnownTypes = modchain_types::List<u8, 256>;

/// Application protocol of agents, with its major version, as negotiated in TLS.
pub const ALPN_AGENT: &[u8] = b"modchain-agent/1";
/// Application protocol of consoles and command lines.
pub const ALPN_CONSOLE: &[u8] = b"modchain-console/1";
/// Application protocol of the join port, where newcomers have no certificate yet.
pub const ALPN_JOIN: &[u8] = b"modchain-join/1";
