//! The agent: the I/O shell around [`modchain_core::supervisor`].
//!
//! It connects to the orchestrator, says what this machine offers, runs what it is assigned in an [`executor`], and keeps
//! output and results on disk until the orchestrator has them. It decides nothing about attempts itself: what happens goes
//! into the supervisor, and what comes out is done, in order. It must never run anything that it has not written down first,
//! and never report a result that it has not written down.
//!
//! Reading order: [`config`], [`engine`] (the loop around the supervisor), [`outbox`] and [`spool`] (what survives),
//! [`session`] (the connection), [`joined`] (what joining left), [`blobs`], [`executor`], [`probe`], [`clock`].

pub mod blobs;
pub mod clock;
pub mod config;
pub mod control_socket;
pub mod describe;
pub mod engine;
pub mod executor;
pub mod files;
pub mod joined;
pub mod outbox;
pub mod owner;
pub mod probe;
pub mod session;
pub mod spool;
