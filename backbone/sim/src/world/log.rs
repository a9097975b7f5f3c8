//! The journal on a disk that keeps what was synced and may lose the one record that was not.
//!
//! A record that a crash tears is cut off at the next start, so for whoever reads the journal it is a lost one; that the real
//! journal does so, whatever the disk made of its writes, is shown over the real code by the orchestrator's own tests.

use modchain_core::Event;

/// What becomes of the record that is not synced when its writer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not all of it reached the disk.
    Lost,
    /// All of it did, although nobody was told.
    Kept,
}

/// Every event, in records.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// What a start finds: whole records, one after the other.
    synced: Vec<Event>,
    /// The record in the making.
    open: Vec<Event>,
}

impl Log {
    /// Adds the events of a decision to the record in the making.
    pub(super) fn gather(&mut self, events: Vec<Event>) {
        self.open.extend(events);
    }

    /// Whether a record is in the making.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The record in the making is on disk now. Tells where its events begin.
    pub(super) fn sync(&mut self) -> usize {
        let from = self.synced.len();
        self.synced.append(&mut self.open);
        from
    }

    /// The writer dies. Tells where the events begin that are on disk although nobody heard of them.
    pub(super) fn crash(&mut self, fate: Fate) -> usize {
        match fate {
            Fate::Kept => self.sync(),
            Fate::Lost => {
                self.open.clear();
                self.synced.len()
            }
        }
    }

    /// Every event on disk.
    pub(super) fn synced(&self) -> &[Event] {
        &self.synced
    }

    /// Every event that was decided, on disk or not.
    pub(super) fn decided(&self) -> impl Iterator<Item = &Event> {
        self.synced.iter().chain(&self.open)
    }

    pub(super) fn into_synced(self) -> Vec<Event> {
        self.synced
    }
}
