//! A folder that appears under its name only once all of it is on disk.
//!
//! Until then it is called `.NAME.partial`, beside where it will be. An empty folder that is there already is kept, because it may
//! be where a disk or a volume begins, and nothing may be written beside it: then `.partial` in it is filled, and what is in that is
//! moved up name by name, last of all the one without which the rest is nothing. Before the first one moves, a list of the names is
//! on disk: whoever comes after a crash knows what to remove.
//!
//! It is locked by whoever fills it. What a run leaves there that was killed is removed by the next one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::OFlags;

/// Mode of every folder in it: keys lie there.
const DIR_MODE: u32 = 0o700;
/// Where a folder is filled that is there already.
const PARTIAL: &str = ".partial";
/// In it, what is being moved up: a list of names, JSON.
const MOVING: &str = ".moving";
/// What a file system puts into the folder that it begins with; nobody's data.
pub(super) const LOST_AND_FOUND: &str = "lost+found";
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A folder in the making. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Folder {
    name: PathBuf,
    partial: PathBuf,
    /// Whether `partial` is in the folder, and not beside it.
    inside: bool,
    /// What is moved up last.
    last: &'static str,
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
    /// Begins one that is to be called `name`. Nothing that is there is overwritten: only an empty folder may be. Where it is
    /// filled can be written to then, and is on the same disk. `last` is what is in it last, at its top.
    pub(super) fn begin(name: &Path, last: &'static str) -> anyhow::Result<Self> {
        let name = std::path::absolute(name).with_context(|| format!("{} is no place", name.display()))?;
        let (Some(parent), Some(own)) = (name.parent(), name.file_name()) else {
            bail!("{} cannot be a new folder: name one below it", name.display());
        };
        ensure!(parent.is_dir(), "{} is not a folder: make it first", parent.display());
        check_free(&name, last)?;
        let inside = name.is_dir();
        let partial = if inside {
            fs::set_permissions(&name, fs::Permissions::from_mode(DIR_MODE)).with_context(|| {
                format!("{} cannot be closed to others: it must belong to this user", name.display())
            })?;
            name.join(PARTIAL)
        } else {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(own);
            hidden.push(PARTIAL);
            parent.join(hidden)
        };
        match DirBuilder::new().mode(DIR_MODE).create(&partial) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let mut what = format!("{} cannot be made", partial.display());
                if !inside {
                    let name = name.display();
                    what.push_str(&format!(
                        ": make the empty folder {name} for this user first, and it is filled itself"
                    ));
                }
                return Err(error).context(what);
            }
            _ => {}
        }
        let lock = lock(&partial, &name)?;
        // Whoever had the lock before may have come to the end.
        check_free(&name, last)?;
        let folder = Self { name, partial, inside, last, finished: false, _lock: lock };
        folder.clear().with_context(|| format!("what is left in {} cannot be removed", folder.partial.display()))?;
        Ok(folder)
    }

    /// Where it is filled.
    pub(super) fn place(&self) -> &Path {
        &self.partial
    }

    /// Removes what was made, here or by a run that was killed.
    fn clear(&self) -> io::Result<()> {
        if self.inside {
            for name in moved(&self.partial) {
                remove(&self.name.join(name))?;
            }
            // The list goes after what it names.
            sync(&self.name)?;
        }
        fs::set_permissions(&self.partial, fs::Permissions::from_mode(DIR_MODE))?;
        for entry in fs::read_dir(&self.partial)? {
            remove(&entry?.path())?;
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
        // Whatever else a mode says means nothing to the pool.
        let mode = source.metadata()?.mode() & 0o777;
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
        check_free(&self.name, self.last)?;
        let parent = self.name.parent().expect("it was begun beside something");
        let called = || format!("{} cannot be called {}", self.partial.display(), self.name.display());
        if self.inside {
            self.move_up(usize::MAX).with_context(called)?;
        } else {
            // The system itself puts a folder in the place of an empty one only.
            fs::rename(&self.partial, &self.name).with_context(called)?;
        }
        self.finished = true;
        let synced = if self.inside { &self.name } else { parent };
        sync(synced).with_context(|| format!("{} cannot be synced", synced.display()))?;
        if self.inside {
            let _ = fs::remove_dir_all(&self.partial); // nothing looks at it where the last name is there
        }
        Ok(self.name.clone())
    }

    /// Moves up what is in it, in at most so many moves; the last one is not on disk yet when this returns.
    fn move_up(&self, moves: usize) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.partial)? {
            let name = entry?.file_name().into_string().map_err(|_| io::ErrorKind::InvalidFilename)?;
            if name != self.last {
                names.push(name);
            }
        }
        names.sort_unstable();
        self.write(Path::new(MOVING), &serde_json::to_vec(&names)?)?;
        sync(&self.partial)?;
        let up = |name: &str| fs::rename(self.partial.join(name), self.name.join(name));
        names.iter().take(moves).try_for_each(|name| up(name))?;
        sync(&self.name)?;
        sync(&self.partial)?;
        if moves > names.len() {
            up(self.last)?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.clear().and_then(|()| fs::remove_dir(&self.partial)); // if it stays, the next one removes it
        }
    }
}

/// Whether a folder is being filled, or was when its program was killed: it lacks what comes last.
pub(super) fn is_unfinished(name: &Path, last: &str) -> bool {
    name.join(PARTIAL).is_dir() && !name.join(last).exists()
}

/// Sets the permissions and syncs.
pub(super) fn seal(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn check_free(name: &Path, last: &str) -> anyhow::Result<()> {
    let moved = moved(&name.join(PARTIAL));
    let ours = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok().and_then(|entry| entry.file_name().into_string().ok());
        entry.is_some_and(|entry| {
            entry == LOST_AND_FOUND || entry != last && (entry == PARTIAL || moved.contains(&entry))
        })
    };
    let free = match fs::read_dir(name) {
        Ok(mut entries) => entries.all(ours),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(error).with_context(|| format!("{} cannot be looked into", name.display()));
        }
        // A link that leads nowhere is something.
        Err(error) => error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(name).is_err(),
    };
    ensure!(free, "{} is there already, and nothing is overwritten: name another place", name.display());
    Ok(())
}

/// What a program that was killed had moved up, if anything. A list that is not whole was not begun with, and what is still in the
/// folder below is above somebody else's.
fn moved(partial: &Path) -> Vec<String> {
    let list = fs::read(partial.join(MOVING)).ok();
    let mut names: Vec<String> = list.and_then(|list| serde_json::from_slice(&list).ok()).unwrap_or_default();
    names.retain(|name| {
        Path::new(name).file_name() == Some(OsStr::new(name)) && fs::symlink_metadata(partial.join(name)).is_err()
    });
    names
}

/// Removes whatever is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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
    sync(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(name: &Path) -> anyhow::Result<Folder> {
        Folder::begin(name, "journal")
    }

    fn fill(folder: &Folder) {
        for path in ["blobs/a", "fence", "journal/1.seg", "tls/key.pem"] {
            folder.write(Path::new(path), path.as_bytes()).expect("writes");
        }
    }

    fn there(name: &Path) -> Vec<String> {
        let names = fs::read_dir(name).expect("lists").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_that_is_there_is_whole_or_seen_not_to_be_wherever_its_program_is_killed() {
        for moves in 0..=4 {
            let dir = tempfile::tempdir().expect("a directory");
            let name = dir.path().join("data");
            fs::create_dir_all(name.join(LOST_AND_FOUND)).expect("makes");
            let mut killed = begin(&name).expect("it is empty");
            assert!(is_unfinished(&name, "journal"));
            fill(&killed);
            killed.move_up(moves).expect("moves");
            killed.finished = true; // it does not get to remove anything
            drop(killed);
            assert_eq!(there(&name).len(), 2 + moves, "{:?}", there(&name));
            if moves == 4 {
                assert!(!is_unfinished(&name, "journal"));
                let error = begin(&name).expect_err("it is whole").to_string();
                assert!(error.contains("is there already"), "{error}");
                continue;
            }
            assert!(is_unfinished(&name, "journal"), "{moves}");
            let again = begin(&name).expect("what is left is this program's");
            assert_eq!(there(&name), [PARTIAL, LOST_AND_FOUND], "{moves}");
            fill(&again);
            again.finish().expect("is moved up");
            assert_eq!(there(&name), ["blobs", "fence", "journal", LOST_AND_FOUND, "tls"], "{moves}");
            assert_eq!(fs::read(name.join("tls/key.pem")).expect("reads"), b"tls/key.pem");
            assert!(!is_unfinished(&name, "journal"));
        }
    }

    #[test]
    fn what_somebody_else_has_put_there_is_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let name = dir.path().join("data");
        fs::create_dir(&name).expect("makes");
        let mut killed = begin(&name).expect("it is empty");
        fill(&killed);
        killed.move_up(1).expect("moves");
        killed.finished = true;
        drop(killed);
        // The second one has the name of something that was not moved yet.
        for mine in ["mine", "tls"] {
            fs::write(name.join(mine), "mine").expect("writes");
            let before = there(&name);
            let error = begin(&name).expect_err("it is somebody's").to_string();
            assert!(error.contains("is there already"), "{error}");
            assert_eq!(there(&name), before);
            fs::remove_file(name.join(mine)).expect("removes");
        }
        // Nor is what comes while it is filled, and then nothing of ours stays.
        let folder = begin(&name).expect("it is free");
        fill(&folder);
        fs::write(name.join("mine"), "mine").expect("writes");
        let error = folder.finish().expect_err("it is somebody's").to_string();
        assert!(error.contains("is there already"), "{error}");
        assert_eq!(there(&name), ["mine"]);
    }

    #[test]
    fn a_link_to_nothing_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let name = dir.path().join("data");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &name).expect("links");
        let error = begin(&name).expect_err("it is a link").to_string();
        assert!(error.contains("is there already"), "{error}");
        fs::create_dir(dir.path().join("nowhere")).expect("makes");
        let folder = begin(&name).expect("it leads to an empty folder");
        fill(&folder);
        folder.finish().expect("is moved up");
        assert_eq!(there(&dir.path().join("nowhere")), ["blobs", "fence", "journal", "tls"]);
    }
}
