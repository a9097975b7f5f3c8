//! Output of attempts, one file each.

use bytes::Bytes;
use modchain_types::{AttemptId, JobId, OutputLengths, WallTime};
use modchain_wire::agent::OutputStream;
use tokio::sync::watch;

/// Why output could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutputError {
    /// A piece begins after the end of what is here.
    #[error("output at offset {offset} leaves a gap: {have} bytes are here")]
    Gap {
        /// Where it begins.
        offset: u64,
        /// What is here.
        have: u64,
    },
    /// More than the attempt may keep.
    #[error("more than {cap} bytes of output")]
    OverCap {
        /// Bytes.
        cap: u64,
    },
    /// The disk said no. Everything that was not synced is forgotten: the sender begins again from what is stored.
    #[error("output cannot be kept: {0}")]
    Disk(String),
}

/// All output of all attempts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutputStore {}

impl OutputStore {
    /// The log of one attempt, the same one for writers and readers. Nothing is on disk before the first append.
    pub async fn open(&self, _attempt: AttemptId) -> Result<OutputLog, OutputError> {
        todo!()
    }

    /// Attempts of a job that have output, in order.
    pub async fn attempts(&self, _job: JobId) -> Result<Vec<u32>, OutputError> {
        todo!()
    }

    /// Drops all output of a job.
    pub async fn remove(&self, _job: JobId) -> Result<(), OutputError> {
        todo!()
    }
}

/// The output of one attempt. Cheap to clone; dropping the last clone closes the file.
#[derive(Debug, Clone)]
pub struct OutputLog {}

/// How much is synced, and so visible to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputProgress {
    /// Records.
    pub records: u64,
    /// Bytes per stream; `dropped` is always zero here.
    pub lengths: OutputLengths,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// Records before it.
    pub index: u64,
    /// Where it belongs.
    pub stream: OutputStream,
    /// Bytes of this stream before it.
    pub offset: u64,
    /// By the node's wall clock.
    pub at: WallTime,
    /// The bytes, 1 to `CHUNK_BYTES_MAX`.
    pub data: Bytes,
}

impl OutputLog {
    /// Takes a piece of standard output or error; what is here already is skipped. In memory until [`OutputLog::sync`].
    /// `cap` is the most bytes of both streams. Cheap: no system call.
    pub fn append(
        &self,
        _stream: OutputStream,
        _offset: u64,
        _at: WallTime,
        _data: Bytes,
        _cap: u64,
    ) -> Result<(), OutputError> {
        todo!()
    }

    /// Adds a remark of Modchain's own; not counted in the lengths.
    pub fn note(&self, _at: WallTime, _text: &str) -> Result<(), OutputError> {
        todo!()
    }

    /// Waits until all that was appended before is on disk; many callers share one sync. Tells what is stored then.
    pub async fn sync(&self) -> Result<OutputProgress, OutputError> {
        todo!()
    }

    /// What is on disk, and every change of it.
    pub fn progress(&self) -> watch::Receiver<OutputProgress> {
        todo!()
    }

    /// Records from the index `from` on, of at most `max_bytes` together (but at least one if there is one); only synced
    /// ones. Empty at the end: wait on [`OutputLog::progress`] for more.
    pub async fn read(&self, _from: u64, _max_bytes: usize) -> Result<Vec<OutputRecord>, OutputError> {
        todo!()
    }
}
