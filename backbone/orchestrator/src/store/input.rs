//! Standard input of jobs: `DATA/input/JOB`, one file each, so that a new attempt reads it again from the start.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modchain_types::{JobId, Limits, WallTime};
use tokio::sync::watch;

use super::pieces::{OpenPieces, Pieces, Progress};
use super::space::{Space, is_full};

/// Most input of one job.
pub const INPUT_BYTES_MAX: u64 = Limits::INPUT_BYTES_MAX;

const DATA: u8 = 0;
/// One byte here means that the input is at its end.
const END: u8 = 1;

/// Why input could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InputError {
    /// A piece begins after the end of what is here, or the input is to end where it does not.
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
    /// There is no room for it on the disk. Everything that was not synced is forgotten: the sender begins again from what is
    /// stored once there is room.
    #[error("there is no room for more input on the orchestrator's disk")]
    Full,
    /// The disk said no. Everything that was not synced is forgotten.
    #[error("input cannot be kept or read: {0}")]
    Disk(String),
}

fn disk(error: impl Into<io::Error>) -> InputError {
    let error = error.into();
    if is_full(&error) { InputError::Full } else { InputError::Disk(error.to_string()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, InputError> {
    tokio::task::spawn_blocking(work).await.map_err(disk)?.map_err(disk)
}

/// All input of all jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputStore {
    dir: Arc<Path>,
    open: Arc<OpenPieces>,
}

impl InputStore {
    /// The store in `dir`, which is made if it is missing. Blocks.
    pub fn at(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.into(), open: Arc::default() })
    }

    /// The same, which leaves the last bytes of the disk to the journal.
    pub fn within(self, space: Arc<Space>) -> Self {
        Self { open: Arc::new(OpenPieces::within(space)), ..self }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    /// The spool of one job, the same one for writers and readers. Nothing is on disk before the first sync.
    pub async fn open(&self, job: JobId) -> Result<InputSpool, InputError> {
        let pieces = self.open.get(&self.path(job)).await.map_err(disk)?;
        let progress = pieces.progress();
        Ok(InputSpool { pieces, progress })
    }

    /// Drops the inputs of all other jobs: a crash may have come between a job's end and the removal of its input.
    pub async fn keep_only(&self, jobs: &[JobId]) -> Result<(), InputError> {
        let keep: BTreeSet<String> = jobs.iter().map(ToString::to_string).collect();
        let dir = Arc::clone(&self.dir);
        blocking(move || {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Drops the input of a job.
    pub async fn remove(&self, job: JobId) -> Result<(), InputError> {
        let path = self.path(job);
        self.open.forget(&path);
        blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
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

impl From<Progress> for InputProgress {
    fn from(progress: Progress) -> Self {
        Self { length: progress.lengths[usize::from(DATA)], done: progress.lengths[usize::from(END)] > 0 }
    }
}

/// The input of one job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputSpool {
    pieces: Arc<Pieces>,
    progress: watch::Receiver<Progress>,
}

impl InputSpool {
    /// Takes a piece; what is here already is skipped. In memory until [`InputSpool::sync`].
    pub fn append(&self, offset: u64, data: Bytes) -> Result<(), InputError> {
        self.pieces.append(DATA, WallTime::default(), &data, |head| {
            let head = InputProgress::from(*head);
            if offset > head.length {
                return Err(InputError::Gap { offset, have: head.length });
            }
            let known = usize::try_from(head.length - offset).unwrap_or(usize::MAX).min(data.len());
            let fresh = (data.len() - known) as u64;
            if fresh > 0 && head.done {
                return Err(InputError::Ended { length: head.length });
            }
            if head.length + fresh > INPUT_BYTES_MAX {
                return Err(InputError::OverCap);
            }
            Ok(known)
        })
    }

    /// Ends the input after `length` bytes. Ending it again at the same length is harmless.
    pub fn finish(&self, length: u64) -> Result<(), InputError> {
        self.pieces.append(END, WallTime::default(), &[1], |head| {
            let head = InputProgress::from(*head);
            match (head.length == length, head.done) {
                (true, done) => Ok(usize::from(done)),
                (false, true) => Err(InputError::Ended { length: head.length }),
                (false, false) => Err(InputError::Gap { offset: length, have: head.length }),
            }
        })
    }

    /// Waits until all that was appended before is on disk. Tells what is stored then.
    pub async fn sync(&self) -> Result<InputProgress, InputError> {
        self.pieces.sync().await.map(Into::into).map_err(disk)
    }

    /// What is on disk.
    pub fn stored(&self) -> InputProgress {
        (*self.progress.borrow()).into()
    }

    /// Waits until there are more than `length` bytes on disk or the input is at its end. Cancelling it loses nothing; put
    /// a limit around it.
    pub async fn wait_beyond(&self, length: u64) -> InputProgress {
        let mut progress = self.progress.clone();
        let more = |progress: &Progress| {
            let progress = InputProgress::from(*progress);
            progress.length > length || progress.done
        };
        match progress.wait_for(more).await {
            Ok(progress) => (*progress).into(),
            Err(_) => self.stored(), // cannot be: this spool keeps the sender alive
        }
    }

    /// Bytes from `offset` on, at most `max_bytes`; only synced ones. Empty at the end: see [`InputSpool::wait_beyond`].
    pub async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, InputError> {
        if offset >= self.stored().length || max_bytes == 0 {
            return Ok(Bytes::new());
        }
        let pieces = Arc::clone(&self.pieces);
        blocking(move || pieces.read_bytes(DATA, offset, max_bytes)).await
    }
}
