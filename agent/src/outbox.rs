//! What the agent must not forget, on disk: which attempts it holds, how they ended, and the highest fence it was given.
//!
//! ```text
//! DATA/fence.json                          the highest fence, with its mark and its journal
//! DATA/attempts/j-…-N/assignment.json      written before anything of the attempt runs
//!                     /output              the spool
//!                     /result.json         written before the result is sent
//!                     /started.json        since when the job's own code runs
//!                     /input-done          that the job has got all of its input
//!                     /state               what its executor needs to take it up again
//!                     /module, /run/       for the executor
//! ```
//!
//! A folder without `assignment.json` never began. One with it and without `result.json` was running when its agent died: a
//! container goes on, everything else has died with it.
//! Every method waits for the disk; when one that writes returns, what it wrote survives a power loss.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use modchain_types::{
    Assignment, AttemptId, BootId, FenceClaim, Input, JobId, JournalId, Limits, Report, ReportBody, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::spool::{Spool, SpoolWriter, spool_file};

/// Version of the JSON files here. A file of another version is refused, not guessed at.
const FORMAT: u32 = 1;

/// The folders of all attempts, and the fence.
#[derive(Debug)]
pub struct Outbox {
    attempts: PathBuf,
    fence_file: PathBuf,
    fence: Option<FenceSeen>,
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
    /// Scratch of the attempt.
    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

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

    fn started_file(&self) -> PathBuf {
        self.path.join("started.json")
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

#[derive(Debug, Serialize, Deserialize)]
struct Versioned<T> {
    format: u32,
    value: T,
}

impl Outbox {
    /// Opens the folders below `data`, making them where they are not there.
    pub fn open(data: &Path) -> io::Result<Self> {
        let attempts = data.join("attempts");
        files::make_private_dir(&attempts)?;
        files::sync_dir(data)?;
        let fence_file = data.join("fence.json");
        let fence = read(&fence_file)?;
        Ok(Self { attempts, fence_file, fence })
    }

    /// Whether nothing at all is kept of any attempt.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.attempts).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// The highest fence seen.
    pub fn fence(&self) -> Option<FenceSeen> {
        self.fence
    }

    /// Remembers a fence if it is the highest of its journal, or the first of another journal.
    pub fn remember_fence(&mut self, seen: FenceSeen) -> io::Result<()> {
        let known = self.fence.is_some_and(|old| old.journal == seen.journal && old.claim.fence >= seen.claim.fence);
        if !known {
            write(&self.fence_file, &seen)?;
            self.fence = Some(seen);
        }
        Ok(())
    }

    /// Makes the attempt's folder and remembers that it is beginning. What an unfinished beginning left is cleared away.
    pub fn begin(&self, assignment: &Assignment) -> io::Result<(AttemptFolder, SpoolWriter, Spool)> {
        let folder = self.folder(assignment.attempt);
        files::remove_dir(&folder.path)?;
        files::make_private_dir(&folder.run_dir())?;
        let (writer, spool) = SpoolWriter::create(&spool_file(&folder.path), output_bytes_max(assignment))?;
        write(&assignment_file(&folder.path), assignment)?;
        files::sync_dir(&self.attempts)?;
        Ok((folder, writer, spool))
    }

    /// Remembers since when the job's own code runs. Outlives the agent, not a power loss: nor does the job.
    pub fn started(&self, attempt: AttemptId, started: Started) -> io::Result<()> {
        let bytes = serde_json::to_vec(&Versioned { format: FORMAT, value: started })?;
        let file = self.folder(attempt).started_file();
        let new = file.with_extension("new");
        fs::write(&new, bytes)?;
        fs::rename(new, file)
    }

    /// Goes on with the output of an attempt that outlived its agent.
    pub fn resume(&self, assignment: &Assignment) -> io::Result<(AttemptFolder, SpoolWriter, Spool)> {
        let folder = self.folder(assignment.attempt);
        let (writer, spool) = SpoolWriter::reopen(&spool_file(&folder.path), output_bytes_max(assignment))?;
        Ok((folder, writer, spool))
    }

    /// Remembers how an attempt ended. Its scratch is not needed any more. An attempt that has no folder, because its
    /// beginning could not be written, gets one with nothing but the result and its assignment.
    pub fn record(&self, assignment: Option<&Assignment>, result: &Report) -> io::Result<()> {
        let folder = self.folder(result.attempt);
        if let Some(assignment) = assignment
            && !assignment_file(&folder.path).exists()
        {
            files::make_private_dir(&folder.path)?;
            write(&assignment_file(&folder.path), assignment)?;
            files::sync_dir(&self.attempts)?;
        }
        write(&result_file(&folder.path), result)?;
        clear_scratch(&folder)
    }

    /// Drops everything that is kept about an attempt.
    pub fn discard(&self, attempt: AttemptId) -> io::Result<()> {
        let folder = self.folder(attempt);
        // The assignment goes first: a folder without one never began, so half a removal is a whole one.
        match fs::remove_file(assignment_file(&folder.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files::remove_dir(&folder.path)?;
        files::sync_dir(&self.attempts)
    }

    /// What an earlier run left, in the order of the attempts. Folders that never began are removed; one that cannot be read
    /// is put aside with a warning, because the orchestrator counts an attempt that its node does not know as lost.
    pub fn recover(&self) -> io::Result<Vec<Left>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.attempts)? {
            let path = entry?.path();
            let Some(attempt) = path.file_name().and_then(|name| name.to_str()).and_then(read_folder_name) else {
                continue;
            };
            match recover_one(&path, attempt) {
                Ok(Some(one)) => left.push(one),
                Ok(None) => files::remove_dir(&path)?,
                Err(error) => {
                    tracing::warn!(%attempt, %error, "what was kept of an attempt cannot be read; it is put aside");
                    let aside = path.with_extension("damaged");
                    files::remove_dir(&aside)?;
                    fs::rename(&path, aside)?;
                }
            }
        }
        files::sync_dir(&self.attempts)?;
        left.sort_by_key(|one| one.attempt);
        Ok(left)
    }

    fn folder(&self, attempt: AttemptId) -> AttemptFolder {
        AttemptFolder { path: self.attempts.join(format!("{}-{}", attempt.job, attempt.number)) }
    }
}

fn recover_one(path: &Path, attempt: AttemptId) -> io::Result<Option<Left>> {
    let Some(assignment) = read::<Assignment>(&assignment_file(path))? else { return Ok(None) };
    if assignment.attempt != attempt {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the folder holds another attempt"));
    }
    let fence = assignment.claim.fence;
    // A result that cannot be read was never sent by this rule's own order, or is damaged: either way the attempt counts as
    // one that died with its agent.
    let result = match read::<Report>(&result_file(path)) {
        Ok(result) => result.filter(|result| result.attempt == attempt && result.fence == fence),
        Err(error) => {
            tracing::warn!(%attempt, %error, "a recorded result cannot be read");
            None
        }
    };
    let dropped = match result.as_ref().map(|result| &result.body) {
        Some(ReportBody::Ended { output, .. }) => output.dropped,
        _ => 0,
    };
    clear_scratch(&AttemptFolder { path: path.to_owned() })?;
    let spool = Spool::recover(&spool_file(path), dropped)?;
    let folder = AttemptFolder { path: path.to_owned() };
    let started = read::<Started>(&folder.started_file()).unwrap_or_else(|error| {
        tracing::warn!(%attempt, %error, "since when an attempt runs cannot be read");
        None
    });
    let input_done = assignment.spec.input == Input::None || folder.input_done_file().exists();
    Ok(Some(Left { attempt, assignment: Box::new(assignment), result, started, input_done, spool }))
}

/// Whatever an assignment says, a job does not fill this disk.
fn output_bytes_max(assignment: &Assignment) -> u64 {
    assignment.spec.limits.output_bytes_max.min(Limits::OUTPUT_BYTES_MAX)
}

fn clear_scratch(folder: &AttemptFolder) -> io::Result<()> {
    files::remove_dir(&folder.run_dir())?;
    match fs::remove_file(folder.module()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn assignment_file(folder: &Path) -> PathBuf {
    folder.join("assignment.json")
}

fn result_file(folder: &Path) -> PathBuf {
    folder.join("result.json")
}

fn read_folder_name(name: &str) -> Option<AttemptId> {
    let (job, number) = name.rsplit_once('-')?;
    Some(AttemptId { job: job.parse::<JobId>().ok()?, number: number.parse().ok()? })
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    files::write_json_durably(path, &Versioned { format: FORMAT, value })
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    // The version comes first: a file of another version may have another shape.
    match files::read_json::<Versioned<serde_json::Value>>(path)? {
        None => Ok(None),
        Some(found) if found.format == FORMAT => serde_json::from_value(found.value)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))),
        Some(found) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has format {}, this agent reads {FORMAT}", path.display(), found.format),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use modchain_types::{
        Adapter, Digest, Ending, Exceptions, Fence, GpuRequest, Input, JobSpec, List, Map, Micro, OutputLengths,
        Policy, Reason, Requirements, Reservation, Span, Tariff, Task, TaskBody, Text, Usage, WallTime, WasmTask,
    };
    use modchain_wire::agent::OutputStream;

    fn assignment(number: u32, fence: u64) -> Assignment {
        let task = WasmTask {
            module: Digest::of(b"module"),
            module_bytes: 6,
            module_name: Text::cut("m.wat"),
            args: List::default(),
            env: Map::default(),
        };
        Assignment {
            attempt: AttemptId { job: JobId([3; 16]), number },
            claim: FenceClaim { fence: Fence(fence), mac: [9; 16] },
            spec: JobSpec {
                name: Text::cut("job"),
                body: TaskBody::Inline(Task::Wasm(task)),
                requirements: Requirements {
                    adapter: Adapter::Wasm,
                    cpu_milli: 1000,
                    memory_bytes: 1 << 26,
                    disk_bytes: 0,
                    gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
                    labels: Default::default(),
                    region: None,
                    node: None,
                    price_per_hour_max: None,
                    model: None,
                    exceptions: Exceptions::default(),
                },
                limits: Limits::default(),
                max_cost: Micro(1),
                priority: 0,
                labels: Map::default(),
                input: Input::None,
                policy: Policy::Cheapest,
            },
            reservation: Reservation::default(),
            tariff: Tariff::default(),
            run_limit: Span::from_secs(60),
            run_limit_reason: Reason::Budget,
            image: None,
            output_tokens_max: None,
        }
    }

    fn result(assignment: &Assignment, output: OutputLengths) -> Report {
        let body = ReportBody::Ended { ending: Ending::Exited { code: 3 }, usage: Usage::default(), output };
        Report { attempt: assignment.attempt, fence: assignment.claim.fence, body }
    }

    #[test]
    fn what_began_is_recovered_with_its_output_and_its_result() {
        let dir = tempfile::tempdir().expect("dir");
        let outbox = Outbox::open(dir.path()).expect("opens");
        let (first, second) = (assignment(1, 10), assignment(2, 11));
        let (folder, mut writer, _) = outbox.begin(&first).expect("begins");
        fs::write(folder.module(), "m").expect("writes");
        writer.append(WallTime(0), &[(OutputStream::Out, Bytes::from_static(b"hello"))]).expect("appends");
        outbox.begin(&second).expect("begins");
        let ended = result(&second, OutputLengths { stdout: 0, stderr: 0, dropped: 7 });
        outbox.record(None, &ended).expect("records");

        let left = Outbox::open(dir.path()).expect("opens").recover().expect("recovers");
        let stdout = OutputLengths { stdout: 5, stderr: 0, dropped: 0 };
        let dropped = OutputLengths { stdout: 0, stderr: 0, dropped: 7 };
        assert_eq!(
            left.iter()
                .map(|one| (one.attempt, one.assignment.claim.fence, one.result.clone(), one.spool.state().lengths))
                .collect::<Vec<_>>(),
            [(first.attempt, Fence(10), None, stdout), (second.attempt, Fence(11), Some(ended), dropped)]
        );
        assert!(!folder.module().exists() && !folder.run_dir().exists(), "scratch is cleared");

        outbox.discard(first.attempt).expect("discards");
        outbox.discard(second.attempt).expect("discards");
        outbox.discard(second.attempt).expect("twice is fine");
        assert!(outbox.recover().expect("recovers").is_empty());
        assert_eq!(fs::read_dir(dir.path().join("attempts")).expect("reads").count(), 0);
    }

    #[test]
    fn what_outlives_its_agent_is_known_by_its_start_and_its_input_and_its_output_goes_on() {
        let dir = tempfile::tempdir().expect("dir");
        let outbox = Outbox::open(dir.path()).expect("opens");
        let mut reads = assignment(1, 10);
        reads.spec.input = Input::Stream;
        let (folder, mut writer, _) = outbox.begin(&reads).expect("begins");
        writer.append(WallTime(0), &[(OutputStream::Out, Bytes::from_static(b"hello"))]).expect("appends");
        let left = |outbox: &Outbox| outbox.recover().expect("recovers").pop().expect("one is left");
        assert_eq!((left(&outbox).started, left(&outbox).input_done), (None, false));

        let started = Started { since: Timestamp(77), boot: BootId([5; 16]) };
        outbox.started(reads.attempt, started).expect("notes");
        folder.input_is_done().expect("notes");
        assert_eq!((left(&outbox).started, left(&outbox).input_done), (Some(started), true));

        let (_, mut writer, spool) = outbox.resume(&reads).expect("goes on");
        writer.append(WallTime(0), &[(OutputStream::Out, Bytes::from_static(b", world"))]).expect("appends");
        let read: Vec<u8> = spool.reader(0, 0).read(100).expect("reads").iter().flat_map(|r| r.data.to_vec()).collect();
        assert_eq!(read, b"hello, world");
        let (lengths, _) = writer.finish();
        assert_eq!(lengths.stdout, 12);
    }

    #[test]
    fn a_folder_that_never_began_is_removed_and_a_damaged_one_is_put_aside() {
        let dir = tempfile::tempdir().expect("dir");
        let outbox = Outbox::open(dir.path()).expect("opens");
        let (never, damaged, half) = (assignment(1, 1), assignment(2, 2), assignment(3, 3));
        for one in [&never, &damaged, &half] {
            outbox.begin(one).expect("begins");
        }
        fs::remove_file(assignment_file(&outbox.folder(never.attempt).path)).expect("removes");
        fs::write(assignment_file(&outbox.folder(damaged.attempt).path), "{\"format\":1,").expect("writes");
        fs::write(result_file(&outbox.folder(half.attempt).path), "\0\0\0").expect("writes");
        let left = outbox.recover().expect("recovers");
        assert_eq!(left.len(), 1, "only the one whose assignment is whole");
        assert_eq!((left[0].attempt, &left[0].result), (half.attempt, &None));
        assert!(!outbox.folder(never.attempt).path.exists());
        assert!(outbox.folder(damaged.attempt).path.with_extension("damaged").exists());
        assert_eq!(outbox.recover().expect("again").len(), 1);
    }

    #[test]
    fn a_file_of_a_later_format_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("fence.json"), "{\"format\":2,\"value\":\"?\"}").expect("writes");
        let error = Outbox::open(dir.path()).expect_err("refuses");
        assert!(error.to_string().contains("has format 2, this agent reads 1"), "{error}");
    }

    #[test]
    fn the_highest_fence_is_kept_per_journal() {
        let dir = tempfile::tempdir().expect("dir");
        let mut outbox = Outbox::open(dir.path()).expect("opens");
        let seen = |journal: u8, fence: u64| FenceSeen {
            journal: JournalId([journal; 16]),
            claim: FenceClaim { fence: Fence(fence), mac: [1; 16] },
        };
        assert_eq!(outbox.fence(), None);
        for (journal, fence) in [(1, 5), (1, 4), (1, 6)] {
            outbox.remember_fence(seen(journal, fence)).expect("remembers");
        }
        assert_eq!(Outbox::open(dir.path()).expect("opens").fence(), Some(seen(1, 6)));
        outbox.remember_fence(seen(2, 1)).expect("remembers");
        assert_eq!(Outbox::open(dir.path()).expect("opens").fence(), Some(seen(2, 1)));
    }
}
