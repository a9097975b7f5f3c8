//! `backup` and `restore`: a copy of a data directory that is whole in itself, made while the orchestrator runs or while it does not.
//!
//! A copy is made from outside: nothing is asked of the orchestrator, and nothing of it waits. The order makes the copy whole. The
//! journal comes first, up to a batch that is on disk; then whatever it names up to there: a blob or a log was on disk before the
//! event that speaks of it. What was removed meanwhile belonged to jobs that have ended since: then the journal is followed a bit
//! further and the copy goes on from there. So a copy never names what is not in it, but for what was not there in the first place,
//! and that is said.
//!
//! The view is not copied, because it is made from the journal; nor are the lock and the ballast.

mod folder;
mod manifest;
mod needs;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use modchain_certs::{Authority, Credentials};
use modchain_core::{Control, ControlConfig, EventBody};
use modchain_types::{AccountId, Asset, Digest, JobId, JournalId};

use crate::engine::{journal_dir, snapshots_dir};
use crate::init::{authority_dir, own_identity_dir};
use crate::store::journal::cursor::{Cursor, Piece};
use crate::store::journal::{Found, find};
use crate::store::pieces;
use crate::store::removed;
use crate::store::snapshot::{Snapshot, Snapshots};
use folder::{Copied, Folder, seal};
use manifest::Manifest;
pub use restore::{Restored, restore};

/// What is at the top of a data directory and is not copied as it is: made anew, copied in an order of its own, or the disk's.
const NOT_AS_IT_IS: [&str; 10] =
    ["ballast", "blobs", "init.lock", "input", JOURNAL, "lock", folder::LOST_AND_FOUND, "output", "snapshots", "view"];
/// What a data directory is nothing without.
const JOURNAL: &str = "journal";
/// How often the journal is followed further, because what was to be copied was removed: each time the window is shorter.
const ROUNDS_MAX: u32 = 20;
/// How often a folder of keys is read again that is just being renewed.
const READINGS_MAX: u32 = 3;
/// Time between two lines about how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// A copy, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Where it is.
    pub place: PathBuf,
    /// The journal's id.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// The last event in it.
    pub last_number: u64,
    /// The journal's chain there.
    pub head: [u8; 32],
    /// Files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What open jobs need and what was not there to be copied, in words.
    pub lacking: Vec<String>,
}

/// Refuses a data directory that `restore` has not finished: whoever made or served a pool there would have two by halves.
pub(crate) fn check_finished(data: &Path) -> anyhow::Result<()> {
    ensure!(
        !folder::is_unfinished(data, JOURNAL),
        "{} is not whole: `restore` fills it just now, or was cut short; wait until it has ended, or run it again",
        data.display()
    );
    Ok(())
}

/// Copies the data directory `data` to `to`, where nothing may be yet but an empty folder. `say` hears now and then how far it is. Blocks, as long as it takes.
pub fn backup(data: &Path, to: &Path, say: &mut dyn FnMut(String)) -> anyhow::Result<Backup> {
    let cursor = Cursor::begin(&journal_dir(data))?;
    let parent = std::path::absolute(to).ok().and_then(|to| fs::canonicalize(to.parent()?).ok());
    let inside = parent.zip(fs::canonicalize(data).ok()).is_some_and(|(parent, data)| parent.starts_with(data));
    ensure!(!inside, "{} lies in the data that it is to be a copy of: name another place", to.display());
    let folder = Folder::begin(to, manifest::FILE)?;
    let (journal, asset) = (cursor.journal(), cursor.asset());
    let mut making = Making { data, folder, files: BTreeMap::new(), seen: BTreeMap::new(), said: Instant::now(), say };
    let mut followed = Followed::new(cursor);
    let lacking = making.all(&mut followed)?;
    let place = followed.cursor.place();
    let manifest = Manifest { journal, place, lacking: lacking.clone(), files: making.files };
    making.folder.write(Path::new(manifest::FILE), manifest.encode()?.as_bytes()).context("the list of files")?;
    let at = making.folder.finish()?;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    Ok(Backup { place: at, journal, asset, last_number: place.number, head: place.hash, files, bytes, lacking })
}

/// The journal as far as it was copied.
struct Followed {
    cursor: Cursor,
    control: Control,
    /// The segment that is being written.
    segment: Option<fs::File>,
    names: Vec<String>,
}

impl Followed {
    fn new(cursor: Cursor) -> Self {
        let control = Control::new(ControlConfig::new(cursor.asset()));
        Self { cursor, control, segment: None, names: Vec::new() }
    }

    /// Whether any of these jobs has ended since.
    fn ended_since(&self, jobs: &BTreeSet<JobId>) -> anyhow::Result<bool> {
        let mut ended = false;
        self.cursor.clone().read(|piece| {
            if let Piece::Batch { events, .. } = piece {
                ended |= events
                    .iter()
                    .any(|event| matches!(&event.body, EventBody::JobFinished { job, .. } if jobs.contains(job)));
            }
            Ok(())
        })?;
        Ok(ended)
    }
}

/// A copy in the making.
struct Making<'a> {
    data: &'a Path,
    folder: Folder,
    files: BTreeMap<PathBuf, Copied>,
    /// How long the files were that still grow when they were copied.
    seen: BTreeMap<PathBuf, u64>,
    said: Instant,
    say: &'a mut dyn FnMut(String),
}

impl Making<'_> {
    fn all(&mut self, followed: &mut Followed) -> anyhow::Result<Vec<String>> {
        self.follow(followed)?;
        let lacking = self.what_is_named(followed)?;
        self.output(&followed.control)?;
        followed.control.audit().map_err(|breach| {
            anyhow::anyhow!("the journal is whole but what it says is not, and no copy is made of that: {breach}")
        })?;
        self.close_journal(followed)?;
        self.snapshot(followed)?;
        self.other_blobs()?;
        self.keys_and_settings()?;
        Ok(lacking)
    }

    /// Copies what the journal has by now.
    fn follow(&mut self, followed: &mut Followed) -> anyhow::Result<()> {
        let Followed { cursor, control, segment, names } = followed;
        cursor.read(|piece| {
            match piece {
                Piece::Segment { name, bytes } => {
                    if let Some(before) = segment.take() {
                        before.sync_all()?;
                    }
                    let file = self.folder.create(&Path::new("journal").join(name))?;
                    io::Write::write_all(&mut &file, bytes)?;
                    names.push(name.to_owned());
                    *segment = Some(file);
                }
                Piece::Batch { bytes, events } => {
                    if let Some(file) = segment {
                        io::Write::write_all(&mut &*file, bytes)?;
                    }
                    events.iter().for_each(|event| control.evolve(event));
                    let last = control.last_number();
                    say_sometimes(&mut self.said, self.say, || format!("the journal up to event {last}"));
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Copies what open jobs need, and follows the journal further where that was removed meanwhile. Tells what is really missing.
    fn what_is_named(&mut self, followed: &mut Followed) -> anyhow::Result<Vec<String>> {
        for _ in 0..ROUNDS_MAX {
            let (mut absent, mut lacking) = (BTreeSet::new(), Vec::new());
            needs::blobs(&followed.control, |job, account, digest| match self.blob(account, digest)? {
                Some(true) => Ok(Some(self.folder.place().join(blob_path(account, digest)))),
                Some(false) => {
                    lacking.push(format!("the blob {digest} of the open job {job} is damaged"));
                    Ok(None)
                }
                None => {
                    absent.insert(job);
                    lacking.push(format!("the blob {digest} of the open job {job} is gone"));
                    Ok(None)
                }
            })?;
            for job in needs::inputs(&followed.control) {
                if !self.growing(&Path::new("input").join(job.to_string()), false)? {
                    absent.insert(job); // nobody has sent any yet, or the job has ended
                }
            }
            if absent.is_empty() || !followed.ended_since(&absent)? {
                return Ok(lacking);
            }
            self.follow(followed)?;
        }
        bail!("jobs end faster than what they need can be copied: try again, or while the orchestrator is stopped")
    }

    /// Copies a blob unless it is there; `None` where the source has none, `false` where its bytes are wrong.
    fn blob(&mut self, account: &AccountId, digest: &Digest) -> anyhow::Result<Option<bool>> {
        let path = blob_path(account, digest);
        if self.files.contains_key(&path) {
            return Ok(Some(true));
        }
        let Some(copied) = found(self.folder.copy(&self.data.join(&path), &path), &path)? else { return Ok(None) };
        let sound = copied.digest.as_bytes() == &digest.0;
        if sound {
            self.keep(path, copied);
        } else {
            fs::remove_file(self.folder.place().join(path))?;
        }
        Ok(Some(sound))
    }

    /// Copies a file that is appended to, up to its last whole record, unless it is as long as it was; tells whether it is there.
    /// What its job has `ended` nobody writes any more: there nothing follows that record but damage.
    fn growing(&mut self, path: &Path, ended: bool) -> anyhow::Result<bool> {
        let from = self.data.join(path);
        let Some(length) = found(fs::metadata(&from), path)?.map(|file| file.len()) else { return Ok(false) };
        if self.seen.get(path) == Some(&length) {
            return Ok(true);
        }
        let Some((bytes, behind)) = found(pieces::read_whole(&from), path)? else { return Ok(false) };
        if behind > 0 && ended {
            let path = from.display();
            tracing::warn!(%path, bytes = behind, "a record is damaged: it is not copied, nor is what follows it");
        }
        let copied = self.folder.write(path, &bytes).with_context(|| cannot_copy(path))?;
        // What was not whole yet is looked at again.
        self.seen.insert(path.to_owned(), copied.bytes);
        self.keep(path.to_owned(), copied);
        Ok(true)
    }

    /// Copies what the jobs of the journal printed, when it is followed no further: there may be much of it, and whatever ends
    /// meanwhile costs no second look. All of it that the journal speaks of was on disk before; what a job prints in an attempt that
    /// it does not know is none of this copy's. What goes while it is copied was printed by jobs that have ended: by this journal, and
    /// then the number says that it is gone, or behind its end, and then their nodes do not know them any more and they run again.
    fn output(&mut self, control: &Control) -> anyhow::Result<()> {
        let source = self.data.join("output");
        for job in ids::<JobId>(&source)? {
            let attempts = match (control.job(job), control.ended(job)) {
                (Some(open), _) => open.attempts_made,
                (None, Some(_)) => u32::MAX,
                (None, None) => continue,
            };
            for name in names(&source.join(job.to_string()))? {
                let number = name.strip_suffix(".log").and_then(|number| number.parse::<u32>().ok());
                if number.is_some_and(|number| number <= attempts) {
                    self.growing(&Path::new("output").join(job.to_string()).join(name), control.job(job).is_none())?;
                }
            }
        }
        // Read last: what was removed while it was copied is not in the copy by halves.
        let upto = removed::read(&source).context("output/removed")?.min(control.last_number());
        if upto > 0 {
            let gone = |path: &PathBuf| {
                let job = path.strip_prefix("output").ok().and_then(|path| path.parent()?.to_str()?.parse().ok());
                job.and_then(|job: JobId| control.ended(job)).is_some_and(|ended| ended.finished <= upto)
            };
            for path in self.files.keys().filter(|path| gone(path)).cloned().collect::<Vec<_>>() {
                self.files.remove(&path);
                fs::remove_file(self.folder.place().join(&path)).with_context(|| cannot_copy(&path))?;
            }
            let path = Path::new("output/removed");
            let copied = self.folder.write(path, format!("{upto}\n").as_bytes()).with_context(|| cannot_copy(path))?;
            self.keep(path.to_owned(), copied);
        }
        Ok(())
    }

    /// Makes the journal's bytes survive, and notes its files.
    fn close_journal(&mut self, followed: &mut Followed) -> anyhow::Result<()> {
        if let Some(file) = followed.segment.take() {
            seal(&file, 0o600).context("the journal cannot be synced")?;
        }
        for name in &followed.names {
            let path = Path::new("journal").join(name);
            let mut hasher = blake3::Hasher::new();
            let file = fs::File::open(self.folder.place().join(&path)).with_context(|| cannot_copy(&path))?;
            let bytes = file.metadata()?.len();
            hasher.update_reader(file).with_context(|| cannot_copy(&path))?;
            self.keep(path, Copied { bytes, digest: hasher.finalize(), mode: 0o600 });
        }
        Ok(())
    }

    /// Copies the newest snapshot that does not stand behind the copy's end. Without one the journal has everything.
    fn snapshot(&mut self, followed: &Followed) -> anyhow::Result<()> {
        let (journal, last) = (followed.cursor.journal(), followed.cursor.place().number);
        let files = Snapshots::at(&snapshots_dir(self.data)).files().context("the snapshots cannot be listed")?;
        for (_, from) in files.into_iter().filter(|(number, _)| *number <= last) {
            let Ok(bytes) = fs::read(&from) else { continue };
            let Ok(snapshot) = Snapshot::decode(&bytes) else { continue };
            let here = find(&journal_dir(self.folder.place()), &snapshot.place)? == Found::Here;
            if let Some(name) = from.file_name().filter(|_| here && snapshot.journal == journal) {
                let path = Path::new("snapshots").join(name);
                let copied = self.folder.write(&path, &bytes).with_context(|| cannot_copy(&path))?;
                self.keep(path, copied);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Copies the blobs that no open job needs and that are still there: those of jobs that have just ended or are about to come.
    fn other_blobs(&mut self) -> anyhow::Result<()> {
        let source = self.data.join("blobs");
        for account in ids::<AccountId>(&source)? {
            for digest in ids::<Digest>(&source.join(account.as_str()))? {
                self.blob(&account, &digest)?;
            }
        }
        Ok(())
    }

    /// Copies everything else: keys, certificates, who was made by `init`, and what else lies there.
    fn keys_and_settings(&mut self) -> anyhow::Result<()> {
        for name in names(self.data)? {
            // What begins with a dot is a file that is just being written.
            if !NOT_AS_IT_IS.contains(&name.as_str()) && !name.starts_with('.') {
                self.as_it_is(Path::new(&name))?;
            }
        }
        for reading in 1.. {
            match self.keys_are_whole() {
                Ok(()) => break,
                // They are renewed file by file, now and then.
                Err(_) if reading < READINGS_MAX => {
                    self.as_it_is(Path::new("tls"))?;
                    self.as_it_is(Path::new("ca"))?;
                }
                Err(error) => return Err(error.context("the orchestrator's keys are not whole where they are")),
            }
        }
        Ok(())
    }

    /// Nothing is renewed or moved there: the list says what was copied.
    fn keys_are_whole(&self) -> anyhow::Result<()> {
        let copy = self.folder.place();
        Authority::check(&authority_dir(copy))?;
        Credentials::check(&own_identity_dir(copy))?;
        Ok(())
    }

    fn as_it_is(&mut self, path: &Path) -> anyhow::Result<()> {
        let from = self.data.join(path);
        let Some(kind) = found(fs::symlink_metadata(&from), path)?.map(|file| file.file_type()) else { return Ok(()) };
        if kind.is_dir() {
            for name in names(&from)? {
                if !name.starts_with('.') {
                    self.as_it_is(&path.join(name))?;
                }
            }
            return Ok(());
        }
        if !kind.is_file() {
            bail!("{} is neither a file nor a folder: a copy cannot hold it", from.display());
        }
        // One that is there from a reading before may not be written to.
        match fs::remove_file(self.folder.place().join(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| cannot_copy(path));
            }
            _ => {}
        }
        if let Some(copied) = found(self.folder.copy(&from, path), path)? {
            self.keep(path.to_owned(), copied);
        }
        Ok(())
    }

    fn keep(&mut self, path: PathBuf, copied: Copied) {
        self.files.insert(path, copied);
        let files = &self.files;
        say_sometimes(&mut self.said, self.say, || format!("{} files", files.len()));
    }
}

/// Where a blob is in a data directory.
fn blob_path(account: &AccountId, digest: &Digest) -> PathBuf {
    Path::new("blobs").join(account.as_str()).join(digest.to_string())
}

fn say_sometimes(said: &mut Instant, say: &mut dyn FnMut(String), what: impl FnOnce() -> String) {
    if said.elapsed() >= SAY_EVERY {
        *said = Instant::now();
        say(what());
    }
}

fn cannot_copy(path: &Path) -> String {
    format!("{} cannot be copied", path.display())
}

/// What was found, or that there is no such thing: it may be removed at any moment.
fn found<T>(result: io::Result<T>, path: &Path) -> anyhow::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).with_context(|| cannot_copy(path)),
    }
}

/// The names in a folder, in order; none where it is missing.
fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(dir), dir)? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| cannot_copy(dir))?.file_name();
        names.push(name.into_string().map_err(|name| anyhow::anyhow!("{} is no text", Path::new(&name).display()))?);
    }
    names.sort_unstable();
    Ok(names)
}

/// The names in a folder that are such ids.
fn ids<T: std::str::FromStr>(dir: &Path) -> anyhow::Result<Vec<T>> {
    Ok(names(dir)?.iter().filter_map(|name| name.parse().ok()).collect())
}
