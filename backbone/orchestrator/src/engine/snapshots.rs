//! When snapshots are taken. The engine's thread copies the state; another encodes and writes it.

use std::thread::{self, JoinHandle};

use modchain_core::Control;
use modchain_types::JournalId;

use super::SnapshotEvery;
use crate::clock::{Past, Started};
use crate::store::journal::Place;
use crate::store::snapshot::{Snapshot, Snapshots};

/// Takes a snapshot now and then.
pub(super) struct Writer {
    snapshots: Snapshots,
    every: SnapshotEvery,
    /// This start of the engine.
    started: Option<Started>,
    /// The event that the last snapshot stands behind.
    last: u64,
    /// Bytes of journal since then.
    bytes: u64,
    writing: Option<JoinHandle<()>>,
}

impl Writer {
    /// `last` is the event of the newest snapshot that there is.
    pub(super) fn new(snapshots: Snapshots, every: SnapshotEvery, past: Past, last: u64) -> Self {
        Self { snapshots, every, started: past.started, last, bytes: 0, writing: None }
    }

    /// Takes one if it is time. `bytes` were appended since the call before; `place` is where the journal stands, and `control`
    /// the state there.
    pub(super) fn look(&mut self, journal: JournalId, place: Place, bytes: u64, control: &Control) {
        self.bytes += bytes;
        let due = place.number - self.last >= self.every.events || self.bytes >= self.every.bytes;
        if !due || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let Some(started) = self.started else { return };
        (self.last, self.bytes) = (place.number, 0);
        let snapshot = Snapshot { journal, place, started, state: control.durable() };
        let snapshots = self.snapshots.clone();
        let writing = thread::Builder::new().name("snapshot".into()).spawn(move || match snapshots.write(&snapshot) {
            Ok(path) => tracing::info!(path = %path.display(), "a snapshot is written"),
            Err(error) => tracing::warn!(%error, "a snapshot cannot be written; the journal has everything"),
        });
        match writing {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::warn!(%error, "a snapshot cannot be written; the journal has everything"),
        }
    }

    /// Waits for the one that is being written.
    pub(super) fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.join(); // it says itself what went wrong
        }
    }
}
