//! Jobs: what a client asks for, and the words for what becomes of it.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::bounded::{Map, Text};
use crate::id::Digest;
use crate::money::Micro;
use crate::resources::{Adapter, Requirements};
use crate::task::Task;
use crate::time::Span;

/// Everything a client says about a job. Its canonical bytes are its wire encoding; their digest tells whether two submits
/// under one key mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Read")]
pub struct JobSpec {
    /// For people; need not be unique. Empty means none.
    pub name: Text<64>,
    /// What to run.
    pub body: TaskBody,
    /// What a node must have.
    pub requirements: Requirements,
    /// Bounds on time and tries.
    pub limits: Limits,
    /// The most it may cost: held in escrow from submit to end.
    pub max_cost: Micro,
    /// Higher goes first among the jobs of one account, and between accounts as far as the operator lets the account; 0 is
    /// ordinary.
    pub priority: i8,
    /// The client's own labels.
    pub labels: Map<Text<64>, Text<256>, 32>,
    /// Whether the job reads standard input.
    pub input: Input,
    /// Which node is best among those that fit.
    pub policy: Policy,
}

/// Where the task is: beside the rest, or, when it is large, in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskBody {
    /// Here. What clients send and agents get.
    Inline(Task),
    /// In the blob store of the job's account. What the journal keeps when the task is over 4 KiB.
    Blob {
        /// Of the task's wire encoding.
        digest: Digest,
        /// Which executor it is for.
        adapter: Adapter,
    },
}

/// Whether a job reads standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Standard input is at its end from the start.
    None,
    /// The client sends it; the orchestrator spools it, so that a new attempt reads it again from the start.
    Stream,
}

/// Which node is best among those that fit. What each compares stands in `modchain-core`, `scheduler/rank.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Policy {
    /// The one that costs least per hour.
    #[default]
    Cheapest,
    /// The one where it can begin soonest and has most to itself, whatever that costs.
    Fastest,
    /// The one of which least is reserved.
    Spread,
}

impl Policy {
    /// Every policy, the default first.
    pub const ALL: [Self; 3] = [Self::Cheapest, Self::Fastest, Self::Spread];

    /// The word used in commands, job files and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cheapest => "cheapest",
            Self::Fastest => "fastest",
            Self::Spread => "spread",
        }
    }

    /// The policy of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What an unreachable attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDisconnect {
    /// Goes on: two attempts may overlap for a while, only one is ever billed.
    Keep,
    /// Ends with its lease: at most one attempt runs as long as its agent lives.
    Stop,
}

/// The end of a specification's bytes. The codec has no optional fields; what joined the specification later is in variants
/// that were appended here, so that a job which does not use it keeps its bytes, and with them its digest.
#[derive(Serialize, Deserialize)]
enum End {
    None,
    Stream,
    NoneBy(Policy),
    StreamBy(Policy),
}

/// A specification as it is read.
#[derive(Deserialize)]
struct Read {
    name: Text<64>,
    body: TaskBody,
    requirements: Requirements,
    limits: Limits,
    max_cost: Micro,
    priority: i8,
    labels: Map<Text<64>, Text<256>, 32>,
    end: End,
}

/// A specification as it is written: the same fields.
#[derive(Serialize)]
struct Written<'a> {
    name: &'a Text<64>,
    body: &'a TaskBody,
    requirements: &'a Requirements,
    limits: &'a Limits,
    max_cost: Micro,
    priority: i8,
    labels: &'a Map<Text<64>, Text<256>, 32>,
    end: End,
}

impl From<Read> for JobSpec {
    fn from(read: Read) -> Self {
        let Read { name, body, requirements, limits, max_cost, priority, labels, end } = read;
        let (input, policy) = match end {
            End::None => (Input::None, Policy::default()),
            End::Stream => (Input::Stream, Policy::default()),
            End::NoneBy(policy) => (Input::None, policy),
            End::StreamBy(policy) => (Input::Stream, policy),
        };
        Self { name, body, requirements, limits, max_cost, priority, labels, input, policy }
    }
}

impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, body, requirements, limits, max_cost, priority, labels, input, policy } = self;
        let end = match (input, policy) {
            (Input::None, Policy::Cheapest) => End::None,
            (Input::Stream, Policy::Cheapest) => End::Stream,
            (Input::None, policy) => End::NoneBy(*policy),
            (Input::Stream, policy) => End::StreamBy(*policy),
        };
        let (max_cost, priority) = (*max_cost, *priority);
        Written { name, body, requirements, limits, max_cost, priority, labels, end }.serialize(serializer)
    }
}

/// Bounds on time and tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest run of one attempt; none means until the budget is used.
    pub time_limit: Option<Span>,
    /// Longest wait in the queue, from submit on; none means for ever.
    pub start_by: Option<Span>,
    /// Silence of a node after which the attempt is given up, 15 s to 24 h.
    pub lost_after: Span,
    /// What an unreachable attempt does.
    pub on_disconnect: OnDisconnect,
    /// Attempts that may be counted: 1 + retries.
    pub attempts_max: u32,
    /// Bytes of output kept, both streams together.
    pub output_bytes_max: u64,
}

impl Limits {
    /// Shortest `lost_after`.
    pub const LOST_AFTER_MIN: Span = Span::from_secs(15);
    /// Longest `lost_after`.
    pub const LOST_AFTER_MAX: Span = Span::from_secs(24 * 3600);
    /// Most attempts that can be asked for.
    pub const ATTEMPTS_MAX: u32 = 20;
    /// Most output that is kept for one job: 64 MiB.
    pub const OUTPUT_BYTES_MAX: u64 = 64 << 20;
    /// Most standard input that one job is given: as much as it may print.
    pub const INPUT_BYTES_MAX: u64 = 64 << 20;
}

/// No limit on time, 60 s until lost, keep on disconnect, 3 attempts, 64 MiB of output.
impl Default for Limits {
    fn default() -> Self {
        Self {
            time_limit: None,
            start_by: None,
            lost_after: Span::from_secs(60),
            on_disconnect: OnDisconnect::Keep,
            attempts_max: 3,
            output_bytes_max: Self::OUTPUT_BYTES_MAX,
        }
    }
}

/// The state of a job, or of one attempt, as everybody sees it. The last five are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobState {
    /// Accepted and paid into escrow; waits for a node.
    Queued,
    /// A node was chosen and told.
    Assigned,
    /// The node fetches and prepares what it needs. Not billed.
    Starting,
    /// The job's own code runs. Billed.
    Running,
    /// Its node is silent; the work may go on.
    Unreachable,
    /// Told to stop; not yet confirmed.
    Cancelling,
    /// Ended with exit code 0.
    Completed,
    /// Ended otherwise.
    Failed,
    /// Reached its time limit or its budget.
    TimedOut,
    /// Stopped by its client.
    Cancelled,
    /// Found no node in time.
    Expired,
}

impl JobState {
    /// Every state, in order.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Assigned,
        Self::Starting,
        Self::Running,
        Self::Unreachable,
        Self::Cancelling,
        Self::Completed,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The word used in screens, filters and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unreachable => "unreachable",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing can change any more.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Expired)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a job or an attempt ended. A closed list; who pays follows from it (`modchain-core`, `settle`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The program exited by itself, with any code.
    Exit,
    /// The program was killed by a signal that Modchain did not send.
    Signal,
    /// The WebAssembly program trapped.
    Trap,
    /// The program went over its own memory limit.
    Memory,
    /// The time limit was reached.
    TimeLimit,
    /// The money held was used up.
    Budget,
    /// The client cancelled.
    Cancelled,
    /// No node was found before the start-by time.
    Expired,
    /// The job cannot be started as it is, or a node refused the attempt.
    Refused,
    /// The image or model does not exist.
    NotFound,
    /// The node fell silent for too long.
    NodeLost,
    /// The node failed.
    NodeFault,
    /// The node's or client's certificate was revoked.
    Revoked,
    /// The last of the attempts allowed failed through its node.
    Attempts,
    /// The command does not exist in the image.
    CommandNotFound,
    /// The program had as many processes as it may, and failed.
    Pids,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::Exit,
        Self::Signal,
        Self::Trap,
        Self::Memory,
        Self::TimeLimit,
        Self::Budget,
        Self::Cancelled,
        Self::Expired,
        Self::Refused,
        Self::NotFound,
        Self::NodeLost,
        Self::NodeFault,
        Self::Revoked,
        Self::Attempts,
        Self::CommandNotFound,
        Self::Pids,
    ];

    /// The word used in screens, filters and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Trap => "trap",
            Self::Memory => "memory",
            Self::TimeLimit => "time_limit",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::NodeLost => "node_lost",
            Self::NodeFault => "node_fault",
            Self::Revoked => "revoked",
            Self::Attempts => "attempts",
            Self::CommandNotFound => "command_not_found",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Who an exit code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExitFrom {
    /// The program itself.
    Job,
    /// One of the job's own limits.
    Limit,
    /// The node.
    Node,
    /// Modchain: refused or expired.
    Modchain,
    /// The client: cancelled.
    Client,
}

impl ExitFrom {
    /// The word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Limit => "limit",
            Self::Node => "node",
            Self::Modchain => "modchain",
            Self::Client => "client",
        }
    }
}

/// The exit code that a job's command line ends with, 0 to 255, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255.
    pub code: u8,
    /// Whose it is.
    pub from: ExitFrom,
}

impl Exit {
    /// The program's own code.
    pub fn job(code: u8) -> Self {
        Self { code, from: ExitFrom::Job }
    }

    /// The code that stands for an ending without one of its own (`console.md` §5); `None` for [`Reason::Exit`] and
    /// [`Reason::Pids`], whose code is the program's. A signal's is 128 + its number and not known here either.
    pub fn of(reason: Reason) -> Option<Self> {
        let (code, from) = match reason {
            Reason::Exit | Reason::Signal | Reason::Pids => return None,
            Reason::Trap => (134, ExitFrom::Job),
            Reason::Memory => (137, ExitFrom::Limit),
            Reason::TimeLimit | Reason::Budget => (124, ExitFrom::Limit),
            Reason::Cancelled => (143, ExitFrom::Client),
            Reason::Expired | Reason::Refused | Reason::NotFound => (126, ExitFrom::Modchain),
            Reason::CommandNotFound => (127, ExitFrom::Job),
            Reason::NodeLost | Reason::NodeFault | Reason::Revoked | Reason::Attempts => (125, ExitFrom::Node),
        };
        Some(Self { code, from })
    }
}
