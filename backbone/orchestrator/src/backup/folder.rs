//! A folder that appears under its name only once all of it is on disk.
//!
//! Until then it is called `.NAME.partial`, beside where it will be, and locked by whoever fills it. What a run leaves there that was
//! killed is emptied by the next one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::OFlags;

/// Mode of every folder in it: keys lie there.
const DIR_MODE: u32 = 0o700;
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A folder in the making. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Folder {
    name: PathBuf,
    partial: PathBuf,
    finished: bool,
    /// The kernel lets go of the lock when the process ends, however it ends.
    _lock: File,
}

/// What is known of a file that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) digest: blake3::Hash,
    /// Permissions.
    pub(super) mode: u32,
}

impl Folder {
    /// Begins one that is to be called `name`. Nothing that is there is overwritten: only an empty folder may be.
    pub(super) fn begin(name: &Path) -> anyhow::Result<Self> {
        let name = std::path::absolute(name).with_context(|| format!("{} is no place", name.display()))?;
        let (Some(parent), Some(last)) = (name.parent(), name.file_name()) else {
            bail!("{} cannot be a new folder: name one below it", name.display());
        };
        ensure!(parent.is_dir(), "{} is not a folder: make it first", parent.display());
        check_free(&name)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(last);
        hidden.push(".partial");
        let partial = parent.join(hidden);
        match DirBuilder::new().mode(DIR_MODE).create(&partial) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("{} cannot be made", partial.display()));
            }
            _ => {}
        }
        let lock = lock(&partial, &name)?;
        let folder = Self { name, partial, finished: false, _lock: lock };
        folder.clear().with_context(|| format!("what is left in {} cannot be removed", folder.partial.display()))?;
        Ok(folder)
    }

    /// Where it is filled.
    pub(super) fn place(&self) -> &Path {
        &self.partial
    }

    fn clear(&self) -> io::Result<()> {
        fs::set_permissions(&self.partial, fs::Permissions::from_mode(DIR_MODE))?;
        for entry in fs::read_dir(&self.partial)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// A new file in it, with the folders on the way there; at a path that was made by this program or checked.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let path = self.partial.join(path);
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
        }
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    /// Copies a file into it and makes its bytes survive the loss of power.
    pub(super) fn copy(&self, from: &Path, path: &Path) -> io::Result<Copied> {
        let mut source =
            OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(from)?;
        let mode = source.metadata()?.mode() & 0o7777;
        let mut target = self.create(path)?;
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk)? {
                0 => break,
                length => {
                    target.write_all(&chunk[..length])?;
                    hasher.update(&chunk[..length]);
                    bytes += length as u64;
                }
            }
        }
        seal(&target, mode)?;
        Ok(Copied { bytes, digest: hasher.finalize(), mode })
    }

    /// Writes a file of these bytes into it, likewise.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<Copied> {
        let mode = 0o600;
        let mut target = self.create(path)?;
        target.write_all(bytes)?;
        seal(&target, mode)?;
        Ok(Copied { bytes: bytes.len() as u64, digest: blake3::hash(bytes), mode })
    }

    /// Sets the permissions of a file in it.
    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let path = self.partial.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        File::open(path)?.sync_all()
    }

    /// Gives it its name. When this returns, all of it survives the loss of power.
    pub(super) fn finish(mut self) -> anyhow::Result<PathBuf> {
        sync_folders(&self.partial).with_context(|| format!("{} cannot be synced", self.partial.display()))?;
        check_free(&self.name)?;
        // The system itself puts a folder in the place of an empty one only.
        fs::rename(&self.partial, &self.name)
            .with_context(|| format!("{} cannot be called {}", self.partial.display(), self.name.display()))?;
        self.finished = true;
        let parent = self.name.parent().expect("it was begun beside something");
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("{} cannot be synced", parent.display()))?;
        Ok(self.name.clone())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.partial); // if it stays, the next one empties it
        }
    }
}

/// Sets the permissions and syncs.
pub(super) fn seal(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn check_free(name: &Path) -> anyhow::Result<()> {
    let free = match fs::read_dir(name) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    ensure!(free, "{} is there already, and nothing is overwritten: name another place", name.display());
    Ok(())
}

fn lock(partial: &Path, name: &Path) -> anyhow::Result<File> {
    let busy = || format!("another program is just making {}: wait until it has ended", name.display());
    let dir = File::open(partial).with_context(|| format!("{} cannot be opened", partial.display()))?;
    match dir.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(busy()),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{} cannot be locked", partial.display()));
        }
    }
    // Whoever had the lock before may have given the folder its name meanwhile.
    let here = fs::metadata(partial).with_context(busy)?;
    let locked = dir.metadata().with_context(busy)?;
    ensure!((here.dev(), here.ino()) == (locked.dev(), locked.ino()), busy());
    Ok(dir)
}

fn sync_folders(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}
