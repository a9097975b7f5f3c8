//! The agent's root machine: which attempts it holds, what it tells the orchestrator, when it stops them.
//!
//! Pure like everything here: the shell feeds [`Input`]s with the agent's own monotonic time and carries out [`Action`]s in
//! their order. What must survive a restart of the agent is written by the shell when an action says so, and given back
//! through [`Supervisor::recover`].
//!
//! Order that matters: [`Action::Begin`] makes its attempt durable before anything runs, so that after a crash the attempt is
//! reported as ended by the node's fault instead of being run twice under one fence; [`Action::Record`] makes a result
//! durable before it is sent, so that it is sent until it is acknowledged.

pub mod admission;
pub mod attempt;
pub mod lease;

mod machine;

#[cfg(test)]
mod tests;

pub use machine::{RUN_LIMIT_GRACE, Supervisor, SupervisorConfig};

use modchain_types::{
    Assignment, AttemptId, Ending, Fence, FenceClaim, ImagePin, Report, Span, StopCause, Text, Timestamp, Usage,
    Verdict,
};

/// Something that happened on or to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The orchestrator said welcome.
    Connected {
        /// How long attempts with `on_disconnect = stop` may go on after the sending of the last answered heartbeat.
        lease: Span,
        /// When the hello was sent: the welcome counts as the first answered heartbeat.
        sent: Timestamp,
    },
    /// The connection is gone.
    Disconnected,
    /// The orchestrator answered the heartbeat that was sent at this moment.
    HeartbeatAnswered {
        /// When it was sent.
        sent: Timestamp,
    },
    /// Verdicts on the inventory of the hello.
    Reconcile(Vec<(AttemptId, Fence, Verdict)>),
    /// Run this.
    Assign(Box<Assignment>),
    /// End this.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
        /// Time between asking and killing.
        grace: Span,
        /// Why.
        cause: StopCause,
    },
    /// The orchestrator remembers how this attempt ended.
    Ack {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
    },
    /// The executor says how far the preparation is.
    Preparing {
        /// Which attempt.
        attempt: AttemptId,
        /// For people.
        message: Text<256>,
    },
    /// The executor says what the job's image name means here.
    Pinned {
        /// Which attempt.
        attempt: AttemptId,
        /// The image.
        image: ImagePin,
    },
    /// The executor says that the job's own code runs.
    Started {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The executor says that nothing of it runs any more and all of its output is in the spool.
    Ended {
        /// Which attempt.
        attempt: AttemptId,
        /// How, as the executor saw it; `Stopped` if it ended because it was told to.
        ending: Ending,
        /// What it used.
        usage: Usage,
        /// How much output it made.
        output: modchain_types::OutputLengths,
    },
    /// The agent is to stop: no new attempts; those that run are ended within the grace time and reported.
    ShutDown {
        /// Time between asking and killing.
        grace: Span,
    },
    /// The owner wants the node empty by now: those that run are ended within the grace time and reported as the node's fault,
    /// so that they go on elsewhere. Unlike a shutdown it does not keep new ones away; a closed offer does.
    Evict {
        /// Time between asking and killing.
        grace: Span,
    },
    /// [`Supervisor::next_deadline`] has come.
    Tick,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Remember durably that this attempt is beginning, then fetch, prepare and start it. Trouble on the way comes back as
    /// [`Input::Ended`] with `CannotStart`.
    Begin(Box<Assignment>),
    /// Ask the executor to end it, kill it after the grace time, and say [`Input::Ended`] when it is verified gone.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
        /// Time between asking and killing; zero kills at once.
        grace: Span,
    },
    /// Write this result to disk durably; then send it if there is a connection.
    Record(Report),
    /// Send this if there is a connection; nothing is lost if there is none.
    Send(Report),
    /// Drop everything that is kept about this attempt: result, output, scratch.
    Discard {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The highest fence seen has risen: remember it durably with its mark.
    RememberFence(FenceClaim),
}

/// What the shell found on disk about an attempt after a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Its result, if it was recorded; without one the attempt died with the agent.
    pub result: Option<Report>,
    /// How much output is in the spool.
    pub output: modchain_types::OutputLengths,
}
