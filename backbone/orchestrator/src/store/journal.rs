//! The journal.

use modchain_core::Event;

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot be read: {0}")]
pub struct ReadError(pub String);

/// Reads committed events from disk, beside the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JournalReader {}

impl JournalReader {
    /// At most `max` events with numbers above `after`, in order; empty when there are no more on disk. Blocks: call it
    /// through `spawn_blocking`.
    pub fn read_after(&self, _after: u64, _max: usize) -> Result<Vec<Event>, ReadError> {
        todo!()
    }
}
