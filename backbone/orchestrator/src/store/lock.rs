//! The lock on a data directory: two processes must never write one journal.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

/// Held as long as the value lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another process is serving {dir}: stop it first, or use another data directory")]
    Busy {
        /// The directory.
        dir: String,
    },
    /// The file could not be opened.
    #[error("the lock file {path} cannot be opened")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

const LOCK_FILE: &str = "lock";

impl DataLock {
    /// Takes the lock of a data directory at once, or tells who may have it.
    pub fn take(data: &Path) -> Result<Self, LockError> {
        let path = data.join(LOCK_FILE);
        let io = |source| LockError::Io { path: path.display().to_string(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Busy { dir: data.display().to_string() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // For people who look: the lock itself is what counts.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
        Ok(Self { _file: file })
    }

    /// Whether a live process holds the lock. Changes nothing on disk.
    pub fn is_held(data: &Path) -> bool {
        match File::open(data.join(LOCK_FILE)) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }
}
