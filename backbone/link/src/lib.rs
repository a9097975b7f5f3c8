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
//! Reading order: [`settings`], [`code`], [`endpoint`], [`dial`], [`connection`], [`stream`], [`backoff`], [`keys`].

pub mod backoff;
pub mod code;
pub mod connection;
pub mod dial;
pub mod endpoint;
pub mod keys;
pub mod settings;
pub mod stream;

mod admission;
mod bad_frames;

pub use backoff::Backoff;
pub use code::{Alert, CloseCode, CloseReason, Side, StreamCode};
pub use connection::{Connection, OpenError};
pub use dial::{CertificateRefusal, ConnectError, connect};
pub use endpoint::{Accepted, BindError, Buffers, Endpoint};
pub use keys::EndpointKeys;
pub use settings::{Priority, Protocol};
pub use stream::{FrameReader, FrameWriter, ReadError, WriteError};
