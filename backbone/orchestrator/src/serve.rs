//! `serve`: opens the stores, starts the engine, the read model and the sessions, and stops them in order.
//!
//! Start: lock, journal replay (each event goes to `feed` too), audit, engine thread, `session::Server::start`, ready line.
//! Stop: `server.shutdown` (GoAway, no new connections, bounded), engine stop, exit.
//!
//! What this module calls of the others:
//! * `feed::Replay::new(JournalId, Asset)`, `replay.event(&Event)` for every event of the journal, in order, before the
//!   engine starts;
//! * `session::Server::start(Services, Outlets, feed::Replay).await -> anyhow::Result<Server>`: spawns feed and dispatch,
//!   binds `settings.listen` with the authority and certificate in the data directory, accepts;
//! * `server.local_addr() -> SocketAddr`, `server.shutdown(Duration).await`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use modchain_types::{Asset, JournalId};

use crate::engine::EngineHandle;
use crate::fence::FenceKey;
use crate::store::blobs::BlobStore;
use crate::store::input::InputStore;
use crate::store::journal::JournalReader;
use crate::store::output::OutputStore;

/// All that sessions, relay, feed and dispatch are built on. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The one way to change or ask live state.
    pub engine: EngineHandle,
    /// Output of attempts.
    pub output: OutputStore,
    /// Standard input of jobs.
    pub input: InputStore,
    /// Modules and large tasks.
    pub blobs: BlobStore,
    /// Reads committed events from disk.
    pub journal: JournalReader,
    /// The journal's id.
    pub journal_id: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Marks fences.
    pub fence_key: FenceKey,
    /// Where things are and how they are set.
    pub settings: Arc<Settings>,
}

/// What `serve` was started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory.
    pub data: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
}
