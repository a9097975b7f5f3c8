//! What the agent must not forget, on disk: which attempts it holds, how they ended, and the highest fence it was given.
//!
//! ```text
//! DATA/attempts.log                the highest fence, with its mark and its journal; and of each attempt
//!                                    Began    before anything of it runs
//!                                    Started  since when a container's own code runs
//!                                    Ended    before the result is sent; a short output is in it
//!                                    Forgot   once the orchestrator has acknowledged the result
//! DATA/attempts/j-…-N/output       the spool, once there is output
//!                    /input-done   that the job has got all of its input
//!                    /state        what its executor needs to take it up again
//!                    /module       for the executor
//! ```
//!
//! An attempt of which nothing is in the log never began. One that began and has not ended was running when its agent died: a
//! container goes on, everything else has died with it.
//!
//! What is to be remembered is gathered in memory, by methods that return at once, until [`Outbox::commit`] makes all of it
//! durable with one sync. After a commit that failed, memory is ahead of the disk and the next one writes everything anew.
//! Of what is said last, `Started` and `Forgot` ask for no sync: a power loss ends what started, and an attempt that was
//! forgotten and comes up again is forgotten again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use modchain_types::{
    Assignment, AttemptId, BootId, FenceClaim, Input, JobId, JournalId, Limits, Report, ReportBody, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::spool::{Spool, SpoolWriter, spool_file};

mod log;
#[cfg(test)]
mod tests;

use log::Log;

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

/// [`Entry`], as it is read.
#[derive(Debug, Deserialize)]
enum ReadEntry {
    Fence(FenceSeen),
    Began(Box<Assignment>),
    Started(AttemptId, Started),
    Ended(Box<Report>),
    Forgot(AttemptId),
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
    /// The task's main file.
    pub fn module(&self) -> PathBuf {
        self.path.join("module")
    }

    /// What an executor needs to take the attempt up again.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Remembers that the job has got all of its input. Outlives the agent, not a power loss: nor does the job.
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
    /// Opens the log and the folders below `data`, making them where they are not there. The log is written anew, so that it
    /// begins with nothing torn.
    pub fn open(data: &Path) -> io::Result<Self> {
        let attempts = data.join("attempts");
        files::make_private_dir(&attempts)?;
        let log_file = data.join("attempts.log");
        let found = Log::read(&log_file)?;
        let mut outbox = Self {
            attempts,
            log_file,
            log: None,
            staged: Vec::new(),
            urgent: true,
            fence: None,
            held: BTreeMap::new(),
        };
        if found.damaged {
            let aside = outbox.log_file.with_extension("damaged");
            tracing::warn!(copy = %aside.display(), "the log of attempts is damaged; what can be read of it counts");
            fs::copy(&outbox.log_file, aside)?;
        }
        for record in found.records {
            outbox.take_in(record)?;
        }
        outbox.commit()?;
        Ok(outbox)
    }

    fn take_in(&mut self, record: log::Record) -> io::Result<()> {
        let log::Record { head, tail } = record;
        let entry = serde_json::from_slice(&head).map_err(|error| {
            let why = format!("{} has a record that this agent cannot read: {error}", self.log_file.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        let attempt = match entry {
            ReadEntry::Fence(seen) => {
                self.fence = Some(seen);
                return Ok(());
            }
            ReadEntry::Forgot(attempt) => {
                self.held.remove(&attempt);
                return Ok(());
            }
            ReadEntry::Began(assignment) => {
                let attempt = assignment.attempt;
                let found = FoundAttempt { assignment, started: None, result: None, output: Vec::new() };
                self.held.insert(attempt, Held { records: Vec::new(), found: Some(found) });
                attempt
            }
            ReadEntry::Started(attempt, started) => {
                let Some(found) = self.found(attempt) else { return Ok(()) };
                found.started = Some(started);
                attempt
            }
            ReadEntry::Ended(report) => {
                let (attempt, fence) = (report.attempt, report.fence);
                let Some(found) = self.found(attempt).filter(|found| found.assignment.claim.fence == fence) else {
                    return Ok(());
                };
                (found.result, found.output) = (Some(*report), tail.clone());
                attempt
            }
        };
        if let Some(held) = self.held.get_mut(&attempt) {
            log::encode(&mut held.records, &head, &tail);
        }
        Ok(())
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
            self.staged.extend_from_slice(&encode(&Entry::Forgot(attempt), &[]));
        }
    }

    /// Makes all that was said before durable. Waits for the disk, if there is anything to wait for. After an error it is to
    /// be called again; what was said stays said, but counts as unheard.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.is_committed() {
            return Ok(());
        }
        match self.log.take().filter(|log| log.has_room(self.staged.len())) {
            Some(mut log) => {
                log.append(&self.staged, self.urgent)?;
                self.log = Some(log);
            }
            None => {
                let fence = self.fence.map(|seen| encode(&Entry::Fence(seen), &[]));
                let held = self.held.values().map(|held| &held.records[..]);
                self.log = Some(Log::replace(&self.log_file, fence.as_deref().into_iter().chain(held))?);
            }
        }
        self.staged.clear();
        self.urgent = false;
        Ok(())
    }

    /// Whether nothing waits for a commit.
    pub fn is_committed(&self) -> bool {
        self.log.is_some() && self.staged.is_empty()
    }

    /// Makes the folder of an attempt that begins. What stands there of an attempt that never began is cleared away. Nothing
    /// in it has to survive a power loss before there is output.
    pub fn folder(&self, assignment: &Assignment) -> io::Result<(AttemptFolder, SpoolWriter, Spool)> {
        let folder = self.folder_of(assignment.attempt);
        match fs::DirBuilder::new().mode(0o700).create(&folder.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                files::remove_dir(&folder.path)?;
                files::make_private_dir(&folder.path)?;
            }
            made => made?,
        }
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
    files::make_private_dir(&folder.path)?;
    remove_file(&folder.module())?;
    let spool_file = spool_file(&folder.path);
    if !output.is_empty() {
        // A power loss may have taken the file that the result promises.
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
