//! Standard input of jobs, one file each, so that a new attempt reads it again from the start.

use bytes::Bytes;
use modchain_types::JobId;
use tokio::sync::watch;

/// Most input of one job: 64 MiB, as much as a job may print.
pub const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Why input could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InputError {
    /// A piece begins after the end of what is here.
    #[error("input at offset {offset} leaves a gap: {have} bytes are here")]
    Gap {
        /// Where it begins.
        offset: u64,
        /// What is here.
        have: u64,
    },
    /// More than [`INPUT_BYTES_MAX`].
    #[error("standard input is over its limit of {INPUT_BYTES_MAX} bytes")]
    OverCap,
    /// The input was ended before, elsewhere.
    #[error("standard input has already ended after {length} bytes")]
    Ended {
        /// Bytes.
        length: u64,
    },
    /// The disk said no. Everything that was not synced is forgotten.
    #[error("input cannot be kept: {0}")]
    Disk(String),
}

/// All input of all jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputStore {}

impl InputStore {
    /// The spool of one job, the same one for writers and readers. Nothing is on disk before the first append.
    pub async fn open(&self, _job: JobId) -> Result<InputSpool, InputError> {
        todo!()
    }

    /// Drops the input of a job.
    pub async fn remove(&self, _job: JobId) -> Result<(), InputError> {
        todo!()
    }
}

/// How much is synced, and so visible to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputProgress {
    /// Bytes.
    pub length: u64,
    /// Whether that is all of it.
    pub done: bool,
}

/// The input of one job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputSpool {}

impl InputSpool {
    /// Takes a piece; what is here already is skipped. In memory until [`InputSpool::sync`].
    pub fn append(&self, _offset: u64, _data: Bytes) -> Result<(), InputError> {
        todo!()
    }

    /// Ends the input after `length` bytes. Ending it again at the same length is harmless.
    pub fn finish(&self, _length: u64) -> Result<(), InputError> {
        todo!()
    }

    /// Waits until all that was appended before is on disk. Tells what is stored then.
    pub async fn sync(&self) -> Result<InputProgress, InputError> {
        todo!()
    }

    /// What is on disk, and every change of it.
    pub fn progress(&self) -> watch::Receiver<InputProgress> {
        todo!()
    }

    /// Bytes from `offset` on, at most `max_bytes`; only synced ones. Empty at the end: wait on
    /// [`InputSpool::progress`] for more.
    pub async fn read(&self, _offset: u64, _max_bytes: usize) -> Result<Bytes, InputError> {
        todo!()
    }
}
