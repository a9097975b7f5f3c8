//! What an agent tells the orchestrator about an attempt.

use serde::{Deserialize, Serialize};

use crate::bounded::Text;
use crate::id::{AttemptId, Fence};
use crate::task::ImagePin;
use crate::usage::Usage;

/// A report. `Ended` is kept on the agent's disk until it is acknowledged; the others follow from the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence; a report under an old one changes nothing.
    pub fence: Fence,
    /// What happened.
    pub body: ReportBody,
}

/// What happened to an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportBody {
    /// This node will not run it; nothing was started.
    Refused {
        /// For people.
        message: Text<512>,
    },
    /// Accepted: it is being prepared.
    Starting,
    /// How far that is, for people; the latest counts, and nothing is remembered of it.
    Preparing {
        /// Such as `pulling: 3 of 7 layers, 120 of 310 MiB`.
        message: Text<256>,
    },
    /// What the image's name means for this job from here on.
    Pinned {
        /// The image that is about to run.
        image: ImagePin,
    },
    /// The job's own code runs since now.
    Started,
    /// It is over.
    Ended {
        /// How.
        ending: Ending,
        /// What it used.
        usage: Usage,
        /// How much output there is in all.
        output: OutputLengths,
    },
}

/// Bytes of output of one attempt, per stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputLengths {
    /// Bytes of standard output kept.
    pub stdout: u64,
    /// Bytes of standard error kept.
    pub stderr: u64,
    /// Bytes of both that were dropped over the cap.
    pub dropped: u64,
}

impl OutputLengths {
    /// Whether everything that `other` counts is kept here too.
    pub fn covers(&self, other: &Self) -> bool {
        self.stdout >= other.stdout && self.stderr >= other.stderr
    }
}

/// How an attempt ended, as its agent saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The program exited.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// The program was killed by a signal that the agent did not send.
    Signalled {
        /// The signal's number.
        signal: u8,
    },
    /// The WebAssembly program trapped.
    Trapped {
        /// What the engine said.
        message: Text<512>,
    },
    /// Over its own memory limit.
    MemoryLimit,
    /// The run limit of the assignment was reached.
    RunLimit,
    /// Stopped as it was told to; nothing of it runs any more.
    Stopped,
    /// It never started.
    CannotStart {
        /// Whose fault.
        fault: Fault,
        /// For people.
        message: Text<512>,
    },
    /// It had started, and the node could not go on.
    NodeFault {
        /// For people.
        message: Text<512>,
    },
    /// Its lease ended because the orchestrator was away. Nobody's fault.
    LeaseEnded,
    /// The program exited, and not with 0, after it was refused more processes than it may have.
    PidsLimit {
        /// 1 to 255.
        code: u8,
    },
}

/// Whose fault it is that an attempt could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The job's: no node could start it.
    Job,
    /// The job's: what it names does not exist.
    NotFound,
    /// This node's: another may do better.
    Node,
    /// The job's: its command does not exist in the image.
    Command,
}
