//! How long what ended jobs printed is kept: up to an age, up to so many bytes together, and less where the disk gets tight; the
//! oldest goes first. For how long their records are says `jobs`.
//!
//! Age is measured on the journal's own timeline, from the event that ended the job. Because the oldest goes first, one number says
//! all of what is gone: the last event whose job's output was removed ([`removed`]). It is on disk before the first file goes, so a
//! crash in the middle of a removal leaves nothing that looks whole, and the next start ends it.
//!
//! What a job that has not ended printed is never touched, nor is what somebody is reading until he is done. Money is not touched at
//! all: the journal keeps every posting.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use modchain_certs::files::FileError;
use modchain_core::Control;
use modchain_types::{JobId, Span, Timestamp};
use tokio::sync::Notify;

use crate::engine::EngineHandle;
use crate::feed::FeedHandle;
use crate::store::output::OutputStore;
use crate::store::removed;
use crate::store::space::{Short, Space, is_full, room};

pub use jobs::{Forgotten, KeepJobs};

/// Longest time between two looks, for clocks that jump.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
/// Shortest, so that what cannot be removed does not become a busy loop.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);

/// How much of ended jobs is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Output no older than this.
    pub age: Span,
    /// At most so many bytes of it together; a quarter of the disk if `None`.
    pub bytes: Option<u64>,
    /// Younger than this it stays, however much there is and however little room: whoever has just run a job wants to see it.
    pub fresh: Span,
    /// Their records.
    pub jobs: KeepJobs,
}

impl Keep {
    /// Default age: a week.
    pub const AGE: Span = Span::from_secs(7 * 24 * 3600);
    /// Least age that can be set: for trying it out.
    pub const AGE_MIN: Span = Span::from_secs(1);
    /// Ten minutes.
    const FRESH: Span = Span::from_secs(600);
    /// The part of the disk that is the default for the bytes.
    const PART_OF_DISK: u64 = 4;
}

impl Default for Keep {
    fn default() -> Self {
        Self { age: Self::AGE, bytes: None, fresh: Self::FRESH, jobs: KeepJobs::USUAL }
    }
}

/// Output of one ended job.
#[derive(Debug, Clone, Copy)]
struct Kept {
    job: JobId,
    at: Timestamp,
    takes: Takes,
}

/// What a job's output takes of the disk.
#[derive(Debug, Clone, Copy, Default)]
struct Takes {
    bytes: u64,
    /// Its folder is one.
    files: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Output of jobs that were ended by this event or before is removed, or is being removed.
    upto: u64,
    /// What is there, by the number of the event that ended the job.
    kept: BTreeMap<u64, Kept>,
    /// Bytes of it.
    bytes: u64,
    /// What is to be removed once nobody reads it.
    doomed: BTreeSet<JobId>,
    /// How many read what.
    readers: BTreeMap<JobId, usize>,
    /// Of jobs that were ended by this event or before nothing is left that was kept for running them.
    closed: u64,
    /// Jobs that are being forgotten.
    forgetting: BTreeSet<JobId>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    store: OutputStore,
    age: Span,
    bytes_max: u64,
    fresh: Span,
    jobs: KeepJobs,
    state: Mutex<State>,
    /// There is too much, something is the oldest, or somebody has stopped reading.
    changed: Notify,
}

/// Keeps and removes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Retention {
    shared: Arc<Shared>,
}

/// Somebody who reads a job's output: it stays until this is dropped.
#[derive(Debug)]
pub struct Reading {
    shared: Arc<Shared>,
    job: JobId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let state = &mut *self.shared.state();
        if let Some(readers) = state.readers.get_mut(&self.job) {
            *readers -= 1;
            if *readers == 0 {
                state.readers.remove(&self.job);
                if state.doomed.contains(&self.job) {
                    self.shared.changed.notify_one();
                }
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Retention {
    /// Looks through the output that is there. Blocks.
    pub fn open(dir: &Path, store: OutputStore, keep: Keep, control: &Control) -> io::Result<Self> {
        // A number behind the journal's last is of another journal: those that come must not count as removed, nor after the next
        // start, when the journal may have come further.
        let (noted, closed) = (removed::read(dir)?, control.last_number());
        if noted > closed {
            removed::write(dir, closed).map_err(io::Error::other)?;
        }
        // Later there may be no room for it, when it is what room is waiting for.
        if noted == 0
            && let Err(error) = removed::write(dir, 0)
        {
            tracing::warn!(%error, "the mark of removed output cannot be prepared");
        }
        let mut state = State { upto: noted.min(closed), closed, ..State::default() };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(job) = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()) else { continue };
            if let Some(ended) = control.ended(job) {
                state.add(ended.finished, Kept { job, at: ended.at, takes: taken_by(&entry.path())? });
            }
        }
        let bytes_max = match keep.bytes {
            Some(bytes) => bytes,
            None => room(dir)?.total / Keep::PART_OF_DISK,
        };
        let shared = Shared {
            dir: dir.to_owned(),
            store,
            age: keep.age,
            bytes_max,
            fresh: keep.fresh,
            jobs: keep.jobs,
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What is kept, in one sentence for members.
    pub fn rule(&self) -> String {
        let mib = self.shared.bytes_max >> 20;
        format!(
            "output of ended jobs is kept for {}, up to {mib} MiB of it, less where the disk is full",
            self.shared.age
        )
    }

    /// A job's output stays as long as the answer does. Ask [`Retention::is_removed`] only then.
    pub fn reading(&self, job: JobId) -> Reading {
        *self.shared.state().readers.entry(job).or_default() += 1;
        Reading { shared: Arc::clone(&self.shared), job }
    }

    /// Whether the output of a job that this event has ended is gone, or is going.
    pub fn is_removed(&self, finished: u64) -> bool {
        finished <= self.shared.state().upto
    }

    /// A job has ended, by the event `finished` at the moment `at`, and nothing is left that was kept for running it: what it
    /// printed begins to grow old. Call it in the order of the events.
    pub async fn job_ended(&self, job: JobId, finished: u64, at: Timestamp) {
        let path = self.shared.dir.join(job.to_string());
        let measured = tokio::task::spawn_blocking(move || taken_by(&path)).await;
        match measured.map_err(io::Error::other).flatten() {
            Ok(Takes { files: 0, .. }) => {}
            Ok(takes) => {
                let look = {
                    let state = &mut *self.shared.state();
                    let oldest = state.kept.is_empty();
                    state.add(finished, Kept { job, at, takes });
                    oldest || state.bytes > self.shared.bytes_max
                };
                if look {
                    self.shared.changed.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(%job, %error, "the output of an ended job cannot be measured; the next start does")
            }
        }
        let state = &mut *self.shared.state();
        state.closed = state.closed.max(finished);
    }

    /// Removes what is too old or too much at the moment `now`, and so much more that what is `short` comes free if it can. Tells how
    /// many jobs' output is gone.
    pub async fn sweep(&self, now: Timestamp, short: Short, space: &Space) -> Result<usize, FileError> {
        if let Some(upto) = self.choose(now, short) {
            self.doom(upto, space).await?;
        }
        Ok(self.remove_doomed().await)
    }

    /// Nobody is shown the output any more of what this event has ended or one before.
    async fn doom(&self, upto: u64, space: &Space) -> Result<(), FileError> {
        let dir = self.shared.dir.clone();
        let write = move || removed::write(&dir, upto);
        let written = match tokio::task::spawn_blocking(write.clone()).await {
            // There is no room to note it: that of the ballast comes back with what is removed now.
            Ok(Err(FileError::Io { source, .. })) if is_full(&source) && space.exhausted() => {
                tokio::task::spawn_blocking(write).await
            }
            written => written,
        };
        match written {
            Ok(written) => written?,
            Err(_) => return Ok(()), // the program is ending
        }
        self.shared.state().doom(upto);
        Ok(())
    }

    /// Removes the output that is to go and that nobody reads; tells of how many jobs.
    async fn remove_doomed(&self) -> usize {
        let mut gone = 0;
        for job in self.removable() {
            match self.shared.store.remove(job).await {
                Ok(()) => {
                    self.shared.state().doomed.remove(&job);
                    gone += 1;
                }
                Err(error) => tracing::warn!(%job, %error, "the output of an ended job cannot be removed"),
            }
        }
        gone
    }

    /// The event up to which output is to go, if any is.
    fn choose(&self, now: Timestamp, short: Short) -> Option<u64> {
        let Shared { age, bytes_max, fresh, .. } = *self.shared;
        let state = self.shared.state();
        let (mut freed, mut upto) = (Takes::default(), None);
        for (finished, kept) in &state.kept {
            let lived = now.since(kept.at);
            let is_short = freed.bytes < short.bytes || freed.files < short.files;
            let too_much = lived >= fresh && (state.bytes - freed.bytes > bytes_max || is_short);
            if lived < age && !too_much {
                break;
            }
            freed.bytes += kept.takes.bytes;
            freed.files += kept.takes.files;
            upto = Some(*finished);
        }
        upto
    }

    /// What is to be removed and nobody reads.
    fn removable(&self) -> Vec<JobId> {
        let state = self.shared.state();
        state.doomed.iter().filter(|job| !state.readers.contains_key(job)).copied().collect()
    }

    /// Removes what is to go, for as long as the engine runs.
    pub async fn run(self, engine: EngineHandle, feed: FeedHandle) {
        let space = engine.space();
        // Also while the engine waits for room: what is removed here is what it may wait for.
        while let Ok(now) = engine.now().await {
            match self.sweep(now, space.short(), space).await {
                Ok(0) => {}
                Ok(jobs) => {
                    tracing::info!(jobs, "removed the output of ended jobs: {}", self.rule());
                    // What is short is what was last seen: not that it is removed once more.
                    let space = Arc::clone(space);
                    let _ = tokio::task::spawn_blocking(move || space.look()).await; // it tells itself what fails
                }
                Err(error) => tracing::error!(%error, "the output of ended jobs cannot be removed"),
            }
            // What the view cannot take out it would go on showing; and it takes some room in the journal.
            let forgotten = if feed.complaint().is_some() || engine.storage_low() {
                Ok(Forgotten::default())
            } else {
                self.forget(&engine, space).await
            };
            let next = match forgotten {
                Ok(Forgotten { jobs: 0, next, .. }) => next,
                Ok(Forgotten { jobs, upto, .. }) => {
                    tracing::debug!(jobs, "forgot ended jobs: {}", self.jobs_rule());
                    jobs::others_come_first(&feed, upto, space).await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "ended jobs cannot be forgotten");
                    None
                }
            };
            let oldest = self.shared.state().kept.values().next().map(|kept| kept.at + self.shared.age);
            let due = oldest.into_iter().chain(next).min();
            let wait = due.map_or(LOOK_EVERY_MAX, |due| Duration::from(due.since(now)));
            tokio::time::sleep(LOOK_EVERY_MIN).await;
            tokio::select! {
                () = tokio::time::sleep(wait.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX) - LOOK_EVERY_MIN) => {}
                () = space.tight() => {}
                () = self.shared.changed.notified() => {}
            }
        }
    }
}

impl Takes {
    /// Bytes of a block of `st_blocks`, whatever those of the file system are.
    const BLOCK: u64 = 512;

    fn add(&mut self, file: &fs::Metadata) {
        self.bytes += file.blocks() * Self::BLOCK;
        self.files += 1;
    }
}

impl State {
    fn add(&mut self, finished: u64, kept: Kept) {
        if finished <= self.upto {
            self.doomed.insert(kept.job);
            return;
        }
        self.bytes += kept.takes.bytes;
        if let Some(before) = self.kept.insert(finished, kept) {
            self.bytes -= before.takes.bytes;
        }
    }

    /// What ended by this event or before is gone for everybody who comes from now on.
    fn doom(&mut self, upto: u64) {
        self.upto = upto;
        let stay = self.kept.split_off(&(upto + 1));
        for kept in std::mem::replace(&mut self.kept, stay).into_values() {
            self.bytes -= kept.takes.bytes;
            self.doomed.insert(kept.job);
        }
    }
}

/// What a folder with its files takes of the disk, which is more than the files are long; nothing if it is missing.
fn taken_by(dir: &Path) -> io::Result<Takes> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Takes::default()),
        entries => entries?,
    };
    let mut takes = Takes::default();
    takes.add(&fs::metadata(dir)?);
    for entry in entries {
        takes.add(&entry?.metadata()?);
    }
    Ok(takes)
}
