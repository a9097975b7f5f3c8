//! QUIC endpoints and typed streams, mutually authenticated. Knows bytes and peers, not jobs: what a frame means is for
//! `modchain-wire` to say and for the programs to act on. It must not depend on `modchain-core`.
//!
//! The orchestrator has one [`Endpoint`] and takes [`Accepted`] connections from it; everybody else calls [`connect`]. Both
//! get a [`Connection`], and on it streams as pairs of a [`FrameWriter`] and a [`FrameReader`] for one direction of one
//! protocol each.
//!
//! In TLS 1.3 `connect` returns before the orchestrator has judged the client's certificate. A connection counts only once
//! the first frame of welcome arrived; when it ends before that, [`Connection::why_refused`] says why in words.
//!
//! Somebody who has a token but no certificate yet comes to a port of its own, [`JoinEndpoint`], by [`join_connect`]: there
//! the orchestrator alone is authenticated, and a connection is short and small.
//!
//! Reading order: [`settings`], [`code`], [`endpoint`], `gate`, [`dial`], [`connection`], [`stream`], [`join`], [`enrol`]
//! (getting certificates), [`reach`], [`stats`], [`backoff`], [`keys`].

pub mod backoff;
pub mod code;
pub mod connection;
pub mod dial;
pub mod endpoint;
pub mod enrol;
pub mod join;
pub mod keys;
pub mod reach;
pub mod settings;
pub mod socket;
pub mod stats;
pub mod stream;

mod admission;
mod bad_frames;
mod gate;

pub use backoff::Backoff;
pub use code::{Alert, CloseCode, CloseReason, Side, StreamCode};
pub use connection::{Connection, OpenError};
pub use dial::{CertificateRefusal, ConnectError, connect};
pub use endpoint::{Accepted, BindError, Endpoint};
pub use gate::source_of;
pub use join::{JoinEndpoint, JoinLink, Joining, join_connect};
pub use keys::EndpointKeys;
pub use settings::{Priority, Protocol};
pub use socket::Buffers;
pub use stats::{EndpointStats, Refusal, rcvbuf_errors};
pub use stream::{FrameReader, FrameWriter, ReadError, WriteError};
