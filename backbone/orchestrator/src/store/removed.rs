//! Up to where output is gone: `DATA/output/removed` has the number of an event, and what jobs printed that were ended by it or
//! by an event before is removed, or is being removed.
//!
//! Written before the first file goes, so that a removal that a crash cuts short is gone on with, and nobody is shown half of what
//! a job printed as if it were all of it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use modchain_certs::files::{self, FileError};

use super::space::is_full;

const FILE: &str = "removed";

/// The event; 0 where nothing was ever removed.
pub fn read(output: &Path) -> io::Result<u64> {
    match fs::read_to_string(output.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        text => text?.trim().parse().map_err(|_| {
            let what = format!("{} does not hold the number of an event", output.join(FILE).display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
    }
}

/// Writes it; when this returns it survives the loss of power. Without room for a new file it takes the place of the number that is
/// there: what is written before output goes must not wait for what goes.
pub fn write(output: &Path, upto: u64) -> Result<(), FileError> {
    let (path, text) = (output.join(FILE), format!("{upto}\n"));
    let written = files::write_atomic(&path, text.as_bytes(), 0o600);
    match &written {
        Err(FileError::Io { source, .. }) if is_full(source) && overwrite(&path, &text).is_ok() => Ok(()),
        _ => written,
    }
}

/// Within one sector, so the old number is there or the new one. A shorter one would leave some of the old one behind it.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > text.len() as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all()
}
