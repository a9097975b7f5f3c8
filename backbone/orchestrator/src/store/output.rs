//! Output of attempts: `DATA/output/JOB/NUMBER.log`, one file each.
//!
//! Only what is synced is visible to readers and acknowledged to agents. Readers page from the file, each at its own speed,
//! and never hold a writer up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modchain_types::{AttemptId, JobId, OutputLengths, WallTime};
use modchain_wire::agent::OutputStream;
use tokio::sync::watch;

use super::pieces::{OpenPieces, Piece, Pieces, Progress};
use super::space::{Space, is_full};

/// Most records of one attempt. Output that comes in faster than syncs is merged, so that only a program that alternates
/// between its streams a million times gets here; the index of a file this long takes less than a megabyte.
pub const RECORDS_MAX: u64 = 1 << 20;

/// Most bytes of Modchain's own remarks in one attempt's output.
const NOTE_BYTES_MAX: u64 = 64 * 1024;

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
    #[error("more than {cap} bytes of output, or too many pieces of it")]
    OverCap {
        /// Bytes.
        cap: u64,
    },
    /// There is no room for it on the disk. Everything that was not synced is forgotten: the sender begins again from what is
    /// stored once there is room.
    #[error("there is no room for more output on the orchestrator's disk")]
    Full,
    /// The disk said no. Everything that was not synced is forgotten: the sender begins again from what is stored.
    #[error("output cannot be kept or read: {0}")]
    Disk(String),
}

fn disk(error: impl Into<io::Error>) -> OutputError {
    let error = error.into();
    if is_full(&error) { OutputError::Full } else { OutputError::Disk(error.to_string()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, OutputError> {
    tokio::task::spawn_blocking(work).await.map_err(disk)?.map_err(disk)
}

/// All output of all attempts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutputStore {
    dir: Arc<Path>,
    open: Arc<OpenPieces>,
}

impl OutputStore {
    /// The store in `dir`, which is made if it is missing. Blocks.
    pub fn at(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.into(), open: Arc::default() })
    }

    /// The same, which leaves the last bytes of the disk to the journal.
    pub fn within(self, space: Arc<Space>) -> Self {
        Self { open: Arc::new(OpenPieces::within(space)), ..self }
    }

    fn job_dir(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    /// The log of one attempt, the same one for writers and readers. Nothing is on disk before the first sync.
    pub async fn open(&self, attempt: AttemptId) -> Result<OutputLog, OutputError> {
        let path = self.job_dir(attempt.job).join(format!("{}.log", attempt.number));
        Ok(OutputLog::new(self.open.get(&path).await.map_err(disk)?))
    }

    /// Attempts of a job that have output on disk, in order.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<u32>, OutputError> {
        let dir = self.job_dir(job);
        blocking(move || {
            let entries = match fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut numbers = Vec::new();
            for entry in entries {
                let name = entry?.file_name();
                numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok()));
            }
            numbers.sort_unstable();
            Ok(numbers)
        })
        .await
    }

    /// Drops all output of a job.
    pub async fn remove(&self, job: JobId) -> Result<(), OutputError> {
        let dir = self.job_dir(job);
        self.open.forget(&dir);
        blocking(move || match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

/// How much is synced, and so visible to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputProgress {
    /// Records.
    pub records: u64,
    /// Bytes per stream; `dropped` is always zero here.
    pub lengths: OutputLengths,
}

impl From<Progress> for OutputProgress {
    fn from(progress: Progress) -> Self {
        let [stdout, stderr, _] = progress.lengths;
        Self { records: progress.records, lengths: OutputLengths { stdout, stderr, dropped: 0 } }
    }
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

fn tag(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Out => 0,
        OutputStream::Err => 1,
        OutputStream::Note => 2,
    }
}

impl From<Piece> for OutputRecord {
    fn from(piece: Piece) -> Self {
        let stream = match piece.tag {
            0 => OutputStream::Out,
            1 => OutputStream::Err,
            _ => OutputStream::Note,
        };
        Self { index: piece.index, stream, offset: piece.offset, at: piece.at, data: piece.data }
    }
}

/// The output of one attempt. Cheap to clone; dropping the last clone closes the file and forgets what was not synced.
#[derive(Debug, Clone)]
pub struct OutputLog {
    pieces: Arc<Pieces>,
    /// Follows the file's progress in the words of output.
    progress: watch::Receiver<Progress>,
}

impl OutputLog {
    fn new(pieces: Arc<Pieces>) -> Self {
        let progress = pieces.progress();
        Self { pieces, progress }
    }

    /// Takes a piece of standard output or error; what is here already is skipped. In memory until [`OutputLog::sync`].
    /// `cap` is the most bytes of both streams. Cheap: no system call.
    pub fn append(
        &self,
        stream: OutputStream,
        offset: u64,
        at: WallTime,
        data: Bytes,
        cap: u64,
    ) -> Result<(), OutputError> {
        let tag = tag(stream);
        self.pieces.append(tag, at, &data, |head| {
            let have = head.lengths[usize::from(tag)];
            if offset > have {
                return Err(OutputError::Gap { offset, have });
            }
            let known = usize::try_from(have - offset).unwrap_or(usize::MAX).min(data.len());
            let [stdout, stderr, _] = head.lengths;
            let fresh = (data.len() - known) as u64;
            if fresh > 0 && (stdout + stderr + fresh > cap || head.records >= RECORDS_MAX) {
                return Err(OutputError::OverCap { cap });
            }
            Ok(known)
        })
    }

    /// Adds a remark of Modchain's own; not counted in the lengths.
    pub fn note(&self, at: WallTime, text: &str) -> Result<(), OutputError> {
        let tag = tag(OutputStream::Note);
        self.pieces.end_record();
        self.pieces.append(tag, at, text.as_bytes(), |head| {
            if head.lengths[usize::from(tag)] + text.len() as u64 > NOTE_BYTES_MAX || head.records >= RECORDS_MAX {
                return Err(OutputError::OverCap { cap: NOTE_BYTES_MAX });
            }
            Ok(0)
        })
    }

    /// Waits until all that was appended before is on disk; many callers share one sync. Tells what is stored then.
    pub async fn sync(&self) -> Result<OutputProgress, OutputError> {
        self.pieces.sync().await.map(Into::into).map_err(disk)
    }

    /// What is on disk.
    pub fn stored(&self) -> OutputProgress {
        (*self.progress.borrow()).into()
    }

    /// Waits until more than `records` records are on disk, and tells what is. Cancelling it loses nothing; put a limit
    /// around it.
    pub async fn wait_beyond(&self, records: u64) -> OutputProgress {
        let mut progress = self.progress.clone();
        match progress.wait_for(|progress| progress.records > records).await {
            Ok(progress) => (*progress).into(),
            Err(_) => self.stored(), // cannot be: this log keeps the sender alive
        }
    }

    /// Records from the index `from` on, of at most `max_bytes` together (but at least one if there is one); only synced
    /// ones. Empty at the end: see [`OutputLog::wait_beyond`].
    pub async fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<OutputRecord>, OutputError> {
        if from >= self.stored().records {
            return Ok(Vec::new());
        }
        if let Some(found) = self.pieces.recent_records(from, max_bytes) {
            return Ok(found.into_iter().map(Into::into).collect());
        }
        let pieces = Arc::clone(&self.pieces);
        let found = blocking(move || pieces.read_records(from, max_bytes)).await?;
        Ok(found.into_iter().map(Into::into).collect())
    }
}
