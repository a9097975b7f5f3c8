//! Up to where output is gone: `DATA/output/removed` has the number of an event, and what jobs printed that were ended by it or
//! by an event before is removed, or is being removed.
//!
//! Written before the first file goes, so that a removal that a crash cuts short is gone on with, and nobody is shown half of what
//! a job printed as if it were all of it.

use std::fs;
use std::io;
use std::path::Path;

use modchain_certs::files::{self, FileError};

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

/// Writes it; when this returns it survives the loss of power.
pub fn write(output: &Path, upto: u64) -> Result<(), FileError> {
    files::write_atomic(&output.join(FILE), format!("{upto}\n").as_bytes(), 0o600)
}
