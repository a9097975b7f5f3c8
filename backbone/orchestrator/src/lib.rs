//! The orchestrator: the I/O around [`modchain_core::Control`].
//!
//! A command comes in on a session, goes through the [`engine`] (decide, remember in the [`store`]'s journal, only then
//! speak), and its effects go out to agents through `dispatch`, its events to consoles through `feed`. Output of jobs never
//! passes the engine: `relay` moves it from an agent's stream to the output store, and readers page from there.
//!
//! What this crate must never do: decide anything about jobs or money (that is `modchain-core`), or let anybody see a
//! consequence of an event before the event is on disk.

pub mod accept;
pub mod backup;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod engine;
pub mod export;
pub mod feed;
pub mod fence;
pub mod founders;
pub mod gate;
pub mod init;
pub mod issuer;
pub mod rebuild;
pub mod relay;
pub mod retention;
pub mod serve;
pub mod session;
pub mod store;
pub mod verify;
