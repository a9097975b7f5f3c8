//! A job that has not ended, and its attempt.
//!
//! ```text
//!            assign             starting             started
//!  queued ----------> assigned ----------> starting ----------> running ------+
//!    ^  ^                |                    |                    |          | result before
//!    |  |  refused, lost |   node's fault,    |    node's fault,   |          | its output
//!    |  +----------------+   lost             |    lost            |          v
//!    +----------------------------------------+--------------------+        done
//!                                                                             |
//!  from every state: finished (completed | failed | timed_out | cancelled | expired), the job leaves `Control`
//! ```
//!
//! Progress of one attempt only moves right; a retry is a new attempt with a new number and a higher fence. `unreachable` and
//! `cancelling` are not states here: the first follows from the node's silence, the second from a wish to stop.

use std::collections::BTreeSet;

use modchain_types::{
    AccountId, Adapter, AttemptId, Digest, DockerTask, Ending, Exceptions, Fence, ImagePin, JobId, JobSpec, JobState,
    Limits, LlmTask, Micro, NodeId, OutputLengths, Reason, Reservation, Span, SubmitKey, Tariff, Task, TaskBody, Text,
    Timestamp, Usage,
};

use crate::scheduler::needs::SharedNeeds;

/// A job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Derived from account and key.
    pub id: JobId,
    /// Who pays.
    pub account: AccountId,
    /// The submitter's key.
    pub key: SubmitKey,
    /// What is to run.
    pub spec: Box<JobSpec>,
    /// Of the specification as the client sent it.
    pub spec_digest: Digest,
    /// The platform's part, frozen at submit.
    pub fee_basis_points: u16,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// Journal number of its acceptance: its place among equals in the queue, which a retry keeps.
    pub queued_number: u64,
    /// Number of the newest attempt; 0 before the first.
    pub attempts_made: u32,
    /// Attempts that reached `starting`: those that count against `attempts_max`.
    pub attempts_counted: u32,
    /// Nodes that refused or failed it: others are tried first.
    pub avoided: BTreeSet<NodeId>,
    /// The image that every attempt runs, once one was found.
    pub image: Option<ImagePin>,
    /// What it asks of a node. Follows from the specification and the image.
    pub needs: SharedNeeds,
    /// Why its attempt is to be stopped, if it is. The first reason stands.
    pub stop: Option<StopWish>,
    /// Where it is.
    pub phase: Phase,
}

/// The job is to end before its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopWish {
    /// Time between asking and killing.
    pub grace: Span,
    /// Why, and so how it ends.
    pub cause: WishCause,
}

/// Why a job is to end before its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WishCause {
    /// The client wants it: it ends as cancelled.
    Client,
    /// Its input can never be completed: it ends as failed.
    InputFailed(Text<512>),
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a node.
    Queued,
    /// Is on a node.
    Placed(Box<Placement>),
}

/// An attempt and the node that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its fence.
    pub fence: Fence,
    /// Where.
    pub node: NodeId,
    /// Prices, frozen at the assignment.
    pub tariff: Box<Tariff>,
    /// What it holds there.
    pub reservation: Reservation,
    /// Longest run.
    pub run_limit: Span,
    /// What reaching it means.
    pub run_limit_reason: Reason,
    /// When the node was told.
    pub assigned_at: Timestamp,
    /// How far it is.
    pub progress: Progress,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The node was told.
    Assigned,
    /// The node prepares it.
    Starting,
    /// Its code runs.
    Running {
        /// Since when, by the orchestrator's timeline.
        started_at: Timestamp,
    },
    /// It is over, but not all of its output is here.
    Done(Box<Done>),
}

/// A result that waits for its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// How it ended.
    pub ending: Ending,
    /// What it used.
    pub usage: Usage,
    /// How much output there is in all.
    pub output: OutputLengths,
    /// When the result came.
    pub at: Timestamp,
}

impl Job {
    /// What is held for it.
    pub fn hold(&self) -> Micro {
        self.spec.max_cost
    }

    /// Its attempt, if it is on a node.
    pub fn placement(&self) -> Option<&Placement> {
        match &self.phase {
            Phase::Queued => None,
            Phase::Placed(placement) => Some(placement),
        }
    }

    /// Its attempt if it is just this one under just this fence.
    pub fn placement_of(&self, attempt: AttemptId, fence: Fence) -> Option<&Placement> {
        self.placement().filter(|placement| placement.attempt == attempt && placement.fence == fence)
    }

    /// Its state, without looking at the node's silence.
    pub fn state(&self) -> JobState {
        if self.stop.is_some() {
            return JobState::Cancelling;
        }
        match &self.phase {
            Phase::Queued => JobState::Queued,
            Phase::Placed(placement) => match placement.progress {
                Progress::Assigned => JobState::Assigned,
                Progress::Starting => JobState::Starting,
                Progress::Running { .. } | Progress::Done(_) => JobState::Running,
            },
        }
    }
}

/// Largest price, size and count that a job may ask for; what is over it is a mistake.
const CPU_MILLI_MAX: u32 = 1_024_000;
const MEMORY_BYTES_MAX: u64 = 16 << 40;
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const GPUS_MAX: u32 = 64;
/// Longest name of a job in bytes is in its type; this is what it may contain.
fn is_job_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Checks every bound that a specification's types do not already keep. Tells the first that is broken.
pub fn check_spec(spec: &JobSpec) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let adapter = match &spec.body {
        TaskBody::Inline(task) => task.adapter(),
        TaskBody::Blob { adapter, .. } => *adapter,
    };
    let (requirements, limits) = (&spec.requirements, &spec.limits);
    check(is_job_name(&spec.name), "the name must be printable ASCII without spaces")?;
    check(spec.max_cost > Micro::ZERO, "the maximum cost must be more than zero")?;
    check(spec.max_cost <= Micro::INPUT_MAX, "the maximum cost is absurd")?;
    check(requirements.adapter == adapter, "the adapter asked for is not the one of the task")?;
    check((1..=CPU_MILLI_MAX).contains(&requirements.cpu_milli), "cpus must be between 0.001 and 1024")?;
    check(
        (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&requirements.memory_bytes),
        "memory must be between 1 MiB and 16 TiB",
    )?;
    check(requirements.gpus.count <= GPUS_MAX, "at most 64 GPUs may be asked for")?;
    check(limits.time_limit != Some(Span::ZERO), "the time limit must be more than zero")?;
    check(
        (Limits::LOST_AFTER_MIN..=Limits::LOST_AFTER_MAX).contains(&limits.lost_after),
        "lost-after must be between 15s and 24h",
    )?;
    check((1..=Limits::ATTEMPTS_MAX).contains(&limits.attempts_max), "retries must be between 0 and 19")?;
    check(limits.output_bytes_max <= Limits::OUTPUT_BYTES_MAX, "at most 64 MiB of output are kept")?;
    check(
        requirements.model.is_some() == (adapter == Adapter::Llm),
        "a job for a language model, and no other, needs the model's name",
    )?;
    check(
        requirements.exceptions == Exceptions::default() || adapter == Adapter::Docker,
        "only containers can have a writable root or a network",
    )?;
    match &spec.body {
        TaskBody::Inline(Task::Docker(task)) => check_docker(task, requirements.memory_bytes),
        TaskBody::Inline(Task::Llm(task)) => check_llm(task, requirements.model.as_deref()),
        TaskBody::Inline(Task::Wasm(_)) | TaskBody::Blob { .. } => Ok(()),
    }
}

/// Least memory of a container that starts at all.
const CONTAINER_MEMORY_BYTES_MIN: u64 = 6 << 20;

/// Bounds of a container; also to be kept by who reads a task from the blob store.
pub fn check_docker(task: &DockerTask, memory_bytes: u64) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    check(plain(&task.image), "the image must be a name such as alpine:3, or an id")?;
    check(
        (2..=DockerTask::PIDS_MAX).contains(&task.pids_max),
        "pids must be between 2 and 4096: the init of a container is one",
    )?;
    check(
        (Span::from_secs(1)..=DockerTask::PULL_TIMEOUT_MAX).contains(&task.pull_timeout),
        "the pull timeout must be between 1s and 90m",
    )?;
    check(memory_bytes >= CONTAINER_MEMORY_BYTES_MIN, "a container needs 6 MiB of memory at least")?;
    check(
        task.workdir.as_ref().is_none_or(|path| path.starts_with('/')),
        "the working directory must be an absolute path",
    )?;
    check(
        task.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('=') && !name.contains('\0')),
        "the name of a variable must not be empty or have a `=`",
    )
}

/// Bounds of a request to a language model.
pub fn check_llm(task: &LlmTask, model: Option<&str>) -> Result<(), String> {
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    check(plain(&task.model), "the model must be a name such as llama3.2:1b")?;
    check(model == Some(&*task.model), "the model asked for is not the one of the task")?;
    check(task.request_bytes <= LlmTask::REQUEST_BYTES_MAX, "a prompt may have 1 MiB with all that belongs to it")?;
    check(
        task.temperature_milli.is_none_or(|milli| milli <= LlmTask::TEMPERATURE_MILLI_MAX),
        "the temperature must be between 0 and 10",
    )?;
    check(task.max_tokens != Some(0), "max tokens must be more than zero")
}
