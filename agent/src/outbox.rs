//! What the agent must not forget, on disk: which attempts it holds, how they ended, and the highest fence it was given.
//!
//! ```text
//! DATA/attempts.log                the highest fence, with its mark and its journal; and of each attempt
//!                                    Began    before anything of it runs
//!                                    Started  since when a container's own code runs
//!                                    Ended    before the result is sent; a short output is in it
//!                                    Forgot   once the orchestrator has acknowledged the result
//! DATA/attempts.damaged            the log as it was when something of it could not be read; for people
//! DATA/attempts/j-…-N/output       the spool, once there is output
//!                    /input-done   that all of the job's input is out of the agent's hands
//!                    /state        what its executor needs to take it up again
//!                    /module       for the executor
//! ```
//!
//! The folder is there once something is in it: many jobs have a module that was compiled before, and print nothing.
//!
//! An attempt of which nothing is in the log never began. One that began and has not ended was running when its agent died: a
//! container goes on, everything else has died with it.
//!
//! What is to be remembered is gathered in memory, by methods that return at once, until [`Outbox::commit`] makes all of it
//! durable with one sync. After a commit that failed, memory is ahead of the disk and the next one writes everything anew.
//! Of what is said last, `Started` and `Forgot` ask for no sync: a power loss ends what started, and an attempt that was
//! forgotten and comes up again is forgotten again.
//!
//! What clients gave and jobs printed stays in the file after its attempt is forgotten, until [`Outbox::tidy`] or a lack of room
//! writes the file anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use modchain_types::{
    Assignment, AttemptId, BootId, FenceClaim, Input, JobId, JournalId, Limits, Report, ReportBody, Timestamp,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::spool::{Spool, SpoolWriter, spool_file};

mod log;
#[cfg(test)]
mod tests;

use log::{Found, Log};

/// How long a log that could not be read stays for people to look at: it holds what clients gave.
const DAMAGED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The folders of all attempts, and the log.
#[derive(Debug)]
pub struct Outbox {
    attempts: PathBuf,
    log_file: PathBuf,
    /// `None` after a write that failed, when the file is to be written anew.
    log: Option<Log>,
    /// Records that are in no file yet.
    staged: Vec<u8>,
    /// Whether one of them asks for a sync.
    urgent: bool,
    /// Whether the file may hold something that does not count any more.
    stale: bool,
    fence: Option<FenceSeen>,
    held: BTreeMap<AttemptId, Held>,
}

/// What the log holds of one attempt.
#[derive(Debug, Default)]
struct Held {
    /// Its records as they are on disk, for writing the file anew.
    records: Vec<u8>,
    /// The same, read, until it is asked for.
    found: Option<FoundAttempt>,
}

/// What an earlier run wrote down of one attempt.
#[derive(Debug)]
struct FoundAttempt {
    assignment: Box<Assignment>,
    started: Option<Started>,
    result: Option<Report>,
    /// The spool's file as it was at the end, if it was short.
    output: Vec<u8>,
}

#[derive(Debug, Serialize)]
enum Entry<'a> {
    Fence(FenceSeen),
    Began(&'a Assignment),
    Started(AttemptId, Started),
    Ended(&'a Report),
    Forgot(AttemptId),
}

/// [`Entry`], as it is read of what is not forgotten.
#[derive(Debug, Deserialize)]
enum ReadEntry {
    Fence(FenceSeen),
    Began(Box<Assignment>),
    Started(AttemptId, Started),
    Ended(Box<Report>),
}

/// [`Entry`], as far as it says whose it is: so much is read of a record of another build too.
#[derive(Debug, Deserialize)]
enum Whose {
    Fence(IgnoredAny),
    Began(Of),
    Started(AttemptId, IgnoredAny),
    Ended(Of),
    Forgot(AttemptId),
}

#[derive(Debug, Deserialize)]
struct Of {
    attempt: AttemptId,
}

impl Whose {
    fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Fence(IgnoredAny) => None,
            Self::Began(Of { attempt })
            | Self::Started(attempt, IgnoredAny)
            | Self::Ended(Of { attempt })
            | Self::Forgot(attempt) => Some(*attempt),
        }
    }
}

/// The highest fence that was ever given to this node, and by which journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceSeen {
    /// The journal that it counts in.
    pub journal: JournalId,
    /// The fence with its mark.
    pub claim: FenceClaim,
}

/// The folder of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFolder {
    path: PathBuf,
}

impl AttemptFolder {
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes it, for everything but output. One that exists keeps its content.
    pub fn make(&self) -> io::Result<()> {
        files::make_private_dir(&self.path)
    }

    /// The task's main file.
    pub fn module(&self) -> PathBuf {
        self.path.join("module")
    }

    /// What an executor needs to take the attempt up again.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Remembers that all of its input has been handed to the job, or to who outlives the agent with it. Outlives the agent, not a
    /// power loss: nor does the job.
    pub fn input_is_done(&self) -> io::Result<()> {
        fs::write(self.input_done_file(), [])
    }

    fn input_done_file(&self) -> PathBuf {
        self.path.join("input-done")
    }
}

/// An attempt that an earlier run of the agent left.
#[derive(Debug)]
pub struct Left {
    /// Which attempt.
    pub attempt: AttemptId,
    /// As it was assigned.
    pub assignment: Box<Assignment>,
    /// Its result, if it was recorded.
    pub result: Option<Report>,
    /// When its own code began to run, and on which boot of the machine, if that was noted.
    pub started: Option<Started>,
    /// Whether it reads no input, or has got all of it.
    pub input_done: bool,
    /// Its output.
    pub spool: Spool,
}

/// When the job's own code of an attempt began to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// On the agent's clock.
    pub since: Timestamp,
    /// Which counts from this boot of the machine.
    pub boot: BootId,
}

impl Outbox {
    /// Opens the log and the folders below `data`, making them where they are not there. A log of which something cannot be
    /// read is kept aside and written anew with the rest; where that fails, as on a full disk, [`Outbox::commit`] tries again,
    /// so that at least what was held can be handed over.
    pub fn open(data: &Path) -> io::Result<Self> {
        let attempts = data.join("attempts");
        files::make_private_dir(&attempts)?;
        let log_file = data.join("attempts.log");
        log::remove_unfinished(&log_file);
        let found = Log::open(&log_file)?;
        let is_new = found.is_none();
        let mut outbox = Self {
            attempts,
            log_file,
            log: None,
            staged: Vec::new(),
            urgent: true,
            stale: false,
            fence: None,
            held: BTreeMap::new(),
        };
        outbox.remove_old_copy();
        if let Some(found) = found {
            outbox.take_over(found);
        }
        match outbox.commit() {
            Err(error) if !is_new => {
                tracing::error!(%error, "the log of attempts cannot be written anew yet");
            }
            committed => committed?,
        }
        Ok(outbox)
    }

    fn take_over(&mut self, found: Found) {
        let Found { records, damaged, log } = found;
        let whose = |head: &[u8]| serde_json::from_slice::<Whose>(head).ok();
        let whose: Vec<_> = records.iter().map(|record| whose(&record.head)).collect();
        // An attempt can begin again after it was forgotten.
        let mut forgotten = BTreeMap::new();
        for (place, whose) in whose.iter().enumerate() {
            if let Some(Whose::Forgot(attempt)) = whose {
                forgotten.insert(*attempt, place);
            }
        }
        let mut unread = Vec::new();
        for (place, (record, whose)) in records.into_iter().zip(whose).enumerate() {
            let attempt = whose.and_then(|whose| whose.attempt());
            if attempt.and_then(|attempt| forgotten.get(&attempt)).is_some_and(|end| place <= *end) {
                self.stale = true;
                continue;
            }
            match self.take_in(record) {
                Ok(counts) => self.stale |= !counts,
                Err(error) => unread.push(error),
            }
        }
        if damaged {
            tracing::warn!("the log of attempts is damaged; what can be read of it counts");
        }
        if let Some(error) = unread.first() {
            tracing::warn!(
                records = unread.len(),
                %error,
                "the log of attempts has records that this build of the agent cannot read: their attempts count as lost and \
                 go on elsewhere; to lose none, drain a node before its agent is replaced"
            );
        }
        if damaged || !unread.is_empty() {
            self.keep_copy();
        }
        self.log = log.filter(|_| unread.is_empty());
    }

    /// Takes in a record; whether it counts for anything.
    fn take_in(&mut self, record: log::Record) -> serde_json::Result<bool> {
        let log::Record { head, tail } = record;
        let attempt = match serde_json::from_slice(&head)? {
            ReadEntry::Fence(seen) => {
                self.fence = Some(seen);
                return Ok(true);
            }
            ReadEntry::Began(assignment) => {
                let attempt = assignment.attempt;
                let found = FoundAttempt { assignment, started: None, result: None, output: Vec::new() };
                self.held.insert(attempt, Held { records: Vec::new(), found: Some(found) });
                attempt
            }
            ReadEntry::Started(attempt, started) => {
                let Some(found) = self.found(attempt) else { return Ok(false) };
                found.started = Some(started);
                attempt
            }
            ReadEntry::Ended(report) => {
                let (attempt, fence) = (report.attempt, report.fence);
                let Some(found) = self.found(attempt).filter(|found| found.assignment.claim.fence == fence) else {
                    return Ok(false);
                };
                (found.result, found.output) = (Some(*report), tail.clone());
                attempt
            }
        };
        if let Some(held) = self.held.get_mut(&attempt) {
            log::encode(&mut held.records, &head, &tail);
        }
        Ok(true)
    }

    /// Keeps the file as it is under another name, which takes no room: it is not written to any more.
    fn keep_copy(&self) {
        let copy = self.copy_file();
        let kept = remove_file(&copy).and_then(|()| fs::hard_link(&self.log_file, &copy)).and_then(|()| {
            // From now on it counts how old it is.
            File::options().write(true).open(&copy)?.set_modified(SystemTime::now())
        });
        let (copy, days) = (copy.display(), DAMAGED_KEPT.as_secs() / (24 * 3600));
        match kept {
            Ok(()) => tracing::warn!(%copy, days, "it is kept aside"),
            Err(error) => tracing::warn!(%copy, %error, "it cannot be kept aside"),
        }
    }

    fn copy_file(&self) -> PathBuf {
        self.log_file.with_extension("damaged")
    }

    fn remove_old_copy(&self) {
        let copy = self.copy_file();
        let Ok(kept_at) = fs::metadata(&copy).and_then(|copy| copy.modified()) else { return };
        if SystemTime::now().duration_since(kept_at).is_ok_and(|age| age > DAMAGED_KEPT)
            && let Err(error) = remove_file(&copy)
        {
            tracing::warn!(copy = %copy.display(), %error, "an old log of attempts cannot be removed");
        }
    }

    fn found(&mut self, attempt: AttemptId) -> Option<&mut FoundAttempt> {
        self.held.get_mut(&attempt)?.found.as_mut()
    }

    /// Whether nothing at all is kept of any attempt.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The highest fence seen.
    pub fn fence(&self) -> Option<FenceSeen> {
        self.fence
    }

    /// Remembers a fence if it is the highest of its journal, or the first of another journal.
    pub fn remember_fence(&mut self, seen: FenceSeen) {
        let known = self.fence.is_some_and(|old| old.journal == seen.journal && old.claim.fence >= seen.claim.fence);
        if !known {
            self.staged.extend_from_slice(&encode(&Entry::Fence(seen), &[]));
            self.urgent = true;
            self.fence = Some(seen);
        }
    }

    /// Remembers that an attempt is beginning.
    pub fn begin(&mut self, assignment: &Assignment) {
        let record = encode(&Entry::Began(assignment), &[]);
        self.staged.extend_from_slice(&record);
        self.urgent = true;
        self.held.insert(assignment.attempt, Held { records: record, found: None });
    }

    /// Remembers since when the job's own code runs.
    pub fn started(&mut self, attempt: AttemptId, started: Started) {
        self.add(attempt, &Entry::Started(attempt, started), &[]);
    }

    /// Remembers how an attempt ended, and its output where that is in no file that survives a power loss. An attempt whose
    /// beginning was not remembered gets that too.
    pub fn record(&mut self, assignment: Option<&Assignment>, result: &Report, output: &[u8]) {
        if let Some(assignment) = assignment
            && !self.held.contains_key(&result.attempt)
        {
            self.begin(assignment);
        }
        self.urgent = true;
        self.add(result.attempt, &Entry::Ended(result), output);
    }

    fn add(&mut self, attempt: AttemptId, entry: &Entry<'_>, tail: &[u8]) {
        // Of what never began nothing counts.
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let record = encode(entry, tail);
        self.staged.extend_from_slice(&record);
        held.records.extend_from_slice(&record);
    }

    /// Remembers that nothing of an attempt is needed any more.
    pub fn discard(&mut self, attempt: AttemptId) {
        if self.held.remove(&attempt).is_some() {
            self.stale = true;
            self.staged.extend_from_slice(&encode(&Entry::Forgot(attempt), &[]));
        }
    }

    /// Makes all that was said before durable. Waits for the disk, if there is anything to wait for. After an error it is to
    /// be called again; what was said stays said, but counts as unheard.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.is_committed() {
            return Ok(());
        }
        let Some(mut log) = self.log.take().filter(|log| log.has_room(self.staged.len())) else {
            return self.rewrite();
        };
        log.append(&mut self.staged, self.urgent)?;
        self.log = Some(log);
        self.staged.clear();
        self.urgent = false;
        Ok(())
    }

    /// Whether the file holds something of attempts that are forgotten, so that [`Outbox::tidy`] has something to do.
    pub fn is_untidy(&self) -> bool {
        self.stale
    }

    /// Writes the file anew if it holds something of attempts that are forgotten, or something waits for a commit. Waits for
    /// the disk, for two syncs. After an error what was committed is as durable as before.
    pub fn tidy(&mut self) -> io::Result<()> {
        self.remove_old_copy();
        if self.stale || !self.is_committed() { self.rewrite() } else { Ok(()) }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let fence = self.fence.map(|seen| encode(&Entry::Fence(seen), &[]));
        let held = self.held.values().map(|held| &held.records[..]);
        let new = Log::beside(&self.log_file, fence.as_deref().into_iter().chain(held))?;
        // The old file is good up to here.
        self.log = None;
        self.log = Some(new.take_place(&self.log_file)?);
        self.staged.clear();
        (self.urgent, self.stale) = (false, false);
        Ok(())
    }

    /// Whether nothing waits for a commit.
    pub fn is_committed(&self) -> bool {
        self.log.is_some() && self.staged.is_empty()
    }

    /// The folder of an attempt that begins. What stands there of an attempt that never began is cleared away. It is made by
    /// whoever puts something into it; nothing in it has to survive a power loss before there is output.
    pub fn folder(&self, assignment: &Assignment) -> io::Result<(AttemptFolder, SpoolWriter, Spool)> {
        let folder = self.folder_of(assignment.attempt);
        files::remove_dir(&folder.path)?;
        let (writer, spool) = SpoolWriter::create(&spool_file(&folder.path), output_bytes_max(assignment));
        Ok((folder, writer, spool))
    }

    /// Goes on with the output of an attempt that outlived its agent.
    pub fn resume(&self, assignment: &Assignment) -> io::Result<(AttemptFolder, SpoolWriter, Spool)> {
        let folder = self.folder_of(assignment.attempt);
        let (writer, spool) = SpoolWriter::reopen(&spool_file(&folder.path), output_bytes_max(assignment))?;
        Ok((folder, writer, spool))
    }

    /// Drops what only the running of an attempt needed, once its result is durable.
    pub fn clear_scratch(&self, attempt: AttemptId) -> io::Result<()> {
        remove_file(&self.folder_of(attempt).module())
    }

    /// Drops the files of an attempt that is forgotten.
    pub fn remove(&self, attempt: AttemptId) -> io::Result<()> {
        files::remove_dir(&self.folder_of(attempt).path)
    }

    /// What an earlier run left, in the order of the attempts, the first time this is asked. Folders of which the log knows
    /// nothing are removed.
    pub fn recover(&mut self) -> io::Result<Vec<Left>> {
        for entry in fs::read_dir(&self.attempts)? {
            let path = entry?.path();
            let attempt = path.file_name().and_then(|name| name.to_str()).and_then(read_folder_name);
            if attempt.is_some_and(|attempt| !self.held.contains_key(&attempt)) {
                files::remove_dir(&path)?;
            }
        }
        let mut left = Vec::new();
        for (attempt, held) in &mut self.held {
            let Some(found) = held.found.take() else { continue };
            let folder = AttemptFolder { path: self.attempts.join(folder_name(*attempt)) };
            left.push(recover_one(&folder, *attempt, found)?);
        }
        Ok(left)
    }

    fn folder_of(&self, attempt: AttemptId) -> AttemptFolder {
        AttemptFolder { path: self.attempts.join(folder_name(attempt)) }
    }
}

fn recover_one(folder: &AttemptFolder, attempt: AttemptId, found: FoundAttempt) -> io::Result<Left> {
    let FoundAttempt { assignment, started, result, output } = found;
    remove_file(&folder.module())?;
    let spool_file = spool_file(&folder.path);
    // A power loss may have taken the file that the result promises. What is there needs no room on the disk, and where nothing
    // is to be written no folder is made: on a full disk that would keep the agent from starting.
    if !output.is_empty() && fs::read(&spool_file).ok().as_ref() != Some(&output) {
        folder.make()?;
        files::write_durably(&spool_file, &output)?;
    }
    let dropped = match result.as_ref().map(|result| &result.body) {
        Some(ReportBody::Ended { output, .. }) => output.dropped,
        _ => 0,
    };
    let spool = Spool::recover(&spool_file, dropped)?;
    let input_done = assignment.spec.input == Input::None || folder.input_done_file().exists();
    Ok(Left { attempt, assignment, result, started, input_done, spool })
}

/// Whatever an assignment says, a job does not fill this disk.
fn output_bytes_max(assignment: &Assignment) -> u64 {
    assignment.spec.limits.output_bytes_max.min(Limits::OUTPUT_BYTES_MAX)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder_name(attempt: AttemptId) -> String {
    format!("{}-{}", attempt.job, attempt.number)
}

fn read_folder_name(name: &str) -> Option<AttemptId> {
    let (job, number) = name.rsplit_once('-')?;
    Some(AttemptId { job: job.parse::<JobId>().ok()?, number: number.parse().ok()? })
}

fn encode(entry: &Entry<'_>, tail: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(entry).expect("these types have string keys and no failing serializer");
    let mut record = Vec::with_capacity(head.len() + tail.len() + 16);
    log::encode(&mut record, &head, tail);
    record
}
