//! Files that must survive a crash: written beside their place, synced, renamed, and the folder synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Makes a folder that only this user can enter, with its parents. One that exists keeps its content.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes what was created, renamed or removed in this folder durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens a new file that only this user can read; one that is there is emptied.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Replaces the file in one step: a reader, and a start after a crash, see all of the old or all of the new. Durable when it
/// returns.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file has no folder"))?;
    let temporary = path.with_extension("new");
    let mut file = create_private(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(parent)
}

/// As [`write_durably`], with JSON.
pub fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// Reads JSON; `None` when there is no such file. A file that does not read as a `T` is an error of kind `InvalidData`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Removes a folder and all in it; one that is not there is fine.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
