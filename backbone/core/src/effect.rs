//! What must be done outside once the events of a decision are on disk. Effects are never stored: after a crash, reconciling
//! with each agent brings about again whatever was lost.

use modchain_types::{
    Assignment, AttemptId, Fence, JobId, NodeId, NodeState, Span, StopCause, Text, Timestamp, Verdict,
};

use crate::command::SessionId;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell an agent something on this connection; if the connection is gone, drop it.
    ToNode {
        /// Which node.
        node: NodeId,
        /// On which connection.
        session: SessionId,
        /// What.
        message: NodeMessage,
    },
    /// Close a connection of an agent.
    EndSession {
        /// Which node.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// Why.
        why: SessionEnd,
    },
    /// A node's state as people see it changed. For the read model; such changes are not in the journal, because they follow
    /// from silence.
    NodeChanged {
        /// Which.
        node: NodeId,
        /// Its state now.
        state: NodeState,
    },
    /// How far the preparation of an attempt is. For the read model; nothing is remembered of it.
    Preparing {
        /// Which attempt.
        attempt: AttemptId,
        /// For people.
        message: Text<256>,
    },
    /// The job has ended: whatever is kept for running it (input, blobs that no other job names) may go, and its output begins
    /// to grow old.
    JobClosed {
        /// Which.
        job: JobId,
        /// Number of the event that ended it.
        finished: u64,
        /// Its moment.
        at: Timestamp,
    },
}

/// What to tell an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMessage {
    /// Verdicts on its inventory, in its order.
    Reconcile(Vec<(AttemptId, Fence, Verdict)>),
    /// Run this. The shell marks the fence and puts the body inline.
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
    /// The end of this attempt is remembered: forget it.
    Ack {
        /// Which attempt.
        attempt: AttemptId,
        /// Under which fence.
        fence: Fence,
    },
    /// Say that you are alive.
    Probe,
}

/// Why a connection of an agent is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// A newer connection of the same agent took over.
    Superseded,
}
