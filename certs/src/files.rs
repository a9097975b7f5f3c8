//! Files that hold secrets, or whose half-written form would hurt: strict modes, checked owner, whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Largest file that is read, in bytes: a chain of certificates has about 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Longest wait for a directory that another program has locked: nobody holds it longer than a few writes to disk take.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between two tries.
const LOCK_WAIT_STEP: Duration = Duration::from_millis(10);

/// Mode of a directory that holds secrets.
pub const DIR_MODE: u32 = 0o700;
/// Mode of a private key in use.
pub const KEY_MODE: u32 = 0o600;
/// Mode of a certificate authority's key: nothing ever writes to it in place.
pub const CA_KEY_MODE: u32 = 0o400;
/// Mode of a certificate, which is public.
pub const CERT_MODE: u32 = 0o644;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error(
        "{} has mode {mode:04o}, which lets others at it; run: chmod {:04o} '{}'",
        path.display(), mode & allowed, path.display()
    )]
    LooseMode {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The bits it may have.
        allowed: u32,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner}, this program runs as user {user}; run: chown {user} '{}'",
        path.display(), path.display()
    )]
    WrongOwner {
        /// The file or directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who wants to use it.
        user: u32,
    },
    /// It is a directory where a file is wanted, a device, a link, or the reverse.
    #[error("{} is not {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is longer than anything that belongs there.
    #[error("{} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Another program keeps changing it.
    #[error("{} is in use by another program that does not let go of it; try again", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => FileError::Missing { path: path.into() },
        _ => FileError::Io { action, path: path.into(), source },
    }
}

/// Makes the directory with mode 0700, with its parents, or checks that the one that is there is this user's alone. One that is
/// empty and this user's is closed first.
pub fn ensure_private_dir(dir: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(io_error("create", dir))?;
    match check_private_dir(dir) {
        // Made beforehand for this, with the usual mode: nothing in it can have been seen, and nobody else uses it.
        Err(FileError::LooseMode { .. }) if is_empty(dir)? => {
            fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE)).map_err(io_error("close", dir))
        }
        checked => checked,
    }
}

/// Checks that the directory is there and this user's alone.
pub fn check_private_dir(dir: &Path) -> Result<(), FileError> {
    let metadata = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FileError::Missing { path: dir.into() }),
        metadata => metadata.map_err(io_error("look at", dir))?,
    };
    if !metadata.is_dir() {
        return Err(FileError::WrongKind { path: dir.into(), wanted: "a directory" });
    }
    check_owner_and_mode(dir, &metadata, DIR_MODE)
}

/// Keeps every other program that asks for it out of this directory, until dropped.
#[must_use]
pub(crate) struct DirLock {
    _dir: File,
}

/// Locks a directory, waiting for at most [`LOCK_WAIT_MAX`]. Some network file systems know no such locks: there,
/// nothing keeps two programs apart.
pub(crate) fn lock_dir(dir: &Path) -> Result<DirLock, FileError> {
    lock_dir_within(dir, LOCK_WAIT_MAX)
}

fn lock_dir_within(dir: &Path, wait_max: Duration) -> Result<DirLock, FileError> {
    let file = File::open(dir).map_err(io_error("open", dir))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(DirLock { _dir: file }),
            Err(TryLockError::WouldBlock) if began.elapsed() < wait_max => thread::sleep(LOCK_WAIT_STEP),
            Err(TryLockError::WouldBlock) => return Err(FileError::Busy { path: dir.into() }),
            Err(TryLockError::Error(error)) if knows_no_locks(&error) => return Ok(DirLock { _dir: file }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", dir)(error)),
        }
    }
}

fn knows_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // A network file system may want a file that is open for writing, which a directory never is.
    [Errno::NOTSUP, Errno::NOSYS, Errno::NOLCK, Errno::BADF, Errno::INVAL]
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

fn is_empty(dir: &Path) -> Result<bool, FileError> {
    Ok(fs::read_dir(dir).map_err(io_error("list", dir))?.next().is_none())
}

/// Reads a file that only this user may read. `allowed` are the mode bits that it may have, such as [`KEY_MODE`]; a link is
/// not followed. The bytes are wiped when dropped.
pub fn read_private(path: &Path, allowed: u32) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (file, metadata) = open(path)?;
    check_owner_and_mode(path, &metadata, allowed)?;
    read_all(path, file, &metadata)
}

/// Reads a public file, such as a certificate, of a bounded length.
pub fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    let (file, metadata) = open(path)?;
    Ok(std::mem::take(&mut *read_all(path, file, &metadata)?))
}

/// Writes a file whole or not at all: a temporary file beside it, synced, renamed over it, and the directory synced. After
/// it returned, the file outlives a power cut.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("rename", &temporary)));
    if let Err(error) = written {
        // Best effort: the name is random, so what stays behind harms nobody.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir)
}

/// Makes renames and removals in this directory outlive a power cut.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io_error("create", path))?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io_error("set the mode of", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).expect("the system's random numbers do not run out");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{:016x}", u64::from_le_bytes(random)))
}

fn open(path: &Path) -> Result<(File, fs::Metadata), FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                FileError::WrongKind { path: path.into(), wanted: "a plain file (it is a link)" }
            }
            _ => io_error("open", path)(error),
        })?;
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    if !metadata.is_file() {
        return Err(FileError::WrongKind { path: path.into(), wanted: "a plain file" });
    }
    Ok((file, metadata))
}

fn read_all(path: &Path, file: File, metadata: &fs::Metadata) -> Result<Zeroizing<Vec<u8>>, FileError> {
    if metadata.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLong { path: path.into() });
    }
    // Room for all of it at once: a vector that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(bytes)
}

fn check_owner_and_mode(path: &Path, metadata: &fs::Metadata, allowed: u32) -> Result<(), FileError> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(FileError::WrongOwner { path: path.into(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & !allowed != 0 {
        return Err(FileError::LooseMode { path: path.into(), mode, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_with_its_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("secret");
        for text in ["first", "second"] {
            write_atomic(&path, text.as_bytes(), CA_KEY_MODE).expect("writes over a read-only file too");
            assert_eq!(read_private(&path, CA_KEY_MODE).expect("reads").as_slice(), text.as_bytes());
        }
        assert_eq!(fs::metadata(&path).expect("metadata").mode() & 0o7777, CA_KEY_MODE);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn looser_modes_are_refused_by_name_mode_and_remedy() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("secret");
        for (mode, allowed, remedy) in
            [(0o640, KEY_MODE, "chmod 0600"), (0o604, KEY_MODE, "chmod 0600"), (0o600, CA_KEY_MODE, "chmod 0400")]
        {
            write_atomic(&path, b"x", mode).expect("writes");
            let message = read_private(&path, allowed).expect_err("refused").to_string();
            for part in [path.to_str().expect("utf-8"), &format!("{mode:04o}"), remedy] {
                assert!(message.contains(part), "{message}");
            }
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).expect("mode");
        assert!(matches!(ensure_private_dir(dir.path()), Err(FileError::LooseMode { mode: 0o750, .. })));
    }

    #[test]
    fn links_directories_and_long_files_are_not_read() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, link) = (dir.path().join("long"), dir.path().join("link"));
        write_atomic(&path, &vec![0; FILE_BYTES_MAX as usize + 1], KEY_MODE).expect("writes");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(matches!(read_private(&path, KEY_MODE), Err(FileError::TooLong { .. })));
        assert!(matches!(read_private(&link, KEY_MODE), Err(FileError::WrongKind { .. })));
        assert!(matches!(read_private(dir.path(), KEY_MODE), Err(FileError::WrongKind { .. })));
        assert!(matches!(read_public(&dir.path().join("absent")), Err(FileError::Missing { .. })));
    }

    #[test]
    fn a_locked_directory_is_busy_until_it_is_let_go() {
        let dir = tempfile::tempdir().expect("directory");
        let lock = lock_dir(dir.path()).expect("locks");
        let second = lock_dir_within(dir.path(), Duration::ZERO);
        assert!(matches!(second, Err(FileError::Busy { .. })));
        drop(lock);
        drop(lock_dir_within(dir.path(), Duration::ZERO).expect("is free"));
        let absent = lock_dir(&dir.path().join("absent"));
        assert!(matches!(absent, Err(FileError::Missing { .. })));
    }

    #[test]
    fn directories_are_made_private_with_their_parents() {
        let dir = tempfile::tempdir().expect("directory");
        let inner = dir.path().join("a/b");
        ensure_private_dir(&inner).expect("makes");
        let made_before = dir.path().join("made-before");
        fs::create_dir(&made_before).expect("makes");
        fs::set_permissions(&made_before, fs::Permissions::from_mode(0o755)).expect("opens");
        ensure_private_dir(&made_before).expect("an empty one is closed and used");
        assert_eq!(fs::metadata(&made_before).expect("metadata").mode() & 0o7777, DIR_MODE);
        fs::write(made_before.join("file"), "x").expect("writes");
        fs::set_permissions(&made_before, fs::Permissions::from_mode(0o755)).expect("opens");
        assert!(matches!(ensure_private_dir(&made_before), Err(FileError::LooseMode { .. })), "one in use is not");
        ensure_private_dir(&inner).expect("is there");
        for made in [&inner, &dir.path().join("a")] {
            assert_eq!(fs::metadata(made).expect("metadata").mode() & 0o7777, DIR_MODE);
        }
    }
}
