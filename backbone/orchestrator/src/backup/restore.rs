//! `restore`: makes a data directory of a copy, once every byte of the copy was looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use modchain_types::{AccountId, Digest, JobId};

use super::folder::Folder;
use super::manifest::Manifest;
use super::{JOURNAL, blob_path, needs, say_sometimes};
use crate::engine::journal_dir;
use crate::verify::{Verified, replay, verify};

/// A data directory that was made of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where it is.
    pub place: PathBuf,
    /// Its journal.
    pub verified: Verified,
    /// Files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What was missing already where the copy was made, in words.
    pub lacking: Vec<String>,
}

/// Checks the copy `from` and puts it where `data` says, where nothing may be yet but an empty folder. What is not whole is named,
/// and nothing is put there. `say` hears now and then how far it is. Blocks, as long as it takes.
pub fn restore(from: &Path, data: &Path, say: &mut dyn FnMut(String)) -> anyhow::Result<Restored> {
    let manifest = Manifest::read(from)?;
    check_owner(data)?;
    let folder = Folder::begin(data, JOURNAL)?;
    let mut said = Instant::now();
    for (number, (path, listed)) in manifest.files.iter().enumerate() {
        let there = from.join(path);
        let copied =
            folder.copy(&there, path).with_context(|| format!("{} of the copy cannot be read", there.display()))?;
        ensure!(
            (copied.bytes, copied.digest) == (listed.bytes, listed.digest),
            "{} is not as it was when it was copied ({} of {} bytes, digest {} instead of {}): nothing is restored, use \
             another copy",
            there.display(),
            copied.bytes,
            listed.bytes,
            copied.digest,
            listed.digest
        );
        folder.set_mode(path, listed.mode).with_context(|| format!("the permissions of {}", path.display()))?;
        say_sometimes(&mut said, say, || format!("{number} of {} files", manifest.files.len()));
    }
    let verified = verify(folder.place()).context("the journal of the copy does not pass")?;
    ensure!(
        (verified.journal, verified.last_number, verified.head)
            == (manifest.journal, manifest.place.number, manifest.place.hash),
        "the journal of the copy ends with event {}, and should end with event {}",
        verified.last_number,
        manifest.place.number
    );
    check_needs(&folder, &manifest)?;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    let place = folder.finish()?;
    Ok(Restored { place, verified, files, bytes, lacking: manifest.lacking })
}

/// Keys belong to whoever serves them, and that is whom an empty folder was made for. root could fill it, and nobody serve it.
fn check_owner(data: &Path) -> anyhow::Result<()> {
    let (Ok(there), user) = (fs::metadata(data), rustix::process::geteuid().as_raw()) else { return Ok(()) };
    ensure!(
        there.uid() == user,
        "{} belongs to user {owner}, and what user {user} restores would not: run this as user {owner} (sudo -u '#{owner}' …)",
        data.display(),
        owner = there.uid()
    );
    Ok(())
}

/// What its open jobs need must be in it, but for what the copy says that it lacks.
fn check_needs(folder: &Folder, manifest: &Manifest) -> anyhow::Result<()> {
    let (control, _) = replay(&journal_dir(folder.place()))?;
    let mut missing = Vec::new();
    needs::blobs(&control, |job: JobId, account: &AccountId, digest: &Digest| {
        let path = blob_path(account, digest);
        match manifest.files.get(&path) {
            Some(file) if file.digest.as_bytes() == &digest.0 => Ok(Some(folder.place().join(path))),
            Some(_) | None => {
                missing.push(format!("the blob {digest} of the open job {job}"));
                Ok(None)
            }
        }
    })?;
    missing.retain(|what| !manifest.lacking.iter().any(|lacking| lacking.starts_with(what)));
    ensure!(missing.is_empty(), "the copy lacks {}, and does not say so: use another copy", missing.join(", "));
    Ok(())
}
