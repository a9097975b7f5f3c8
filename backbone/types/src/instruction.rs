//! What the orchestrator tells an agent.

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, Fence};
use crate::job::{JobSpec, Reason};
use crate::resources::Reservation;
use crate::tariff::Tariff;
use crate::task::ImagePin;
use crate::time::Span;

/// A fence with the orchestrator's own mark on it (BLAKE3 keyed with a key that only the orchestrator has), so that a node
/// cannot claim one that it was never given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceClaim {
    /// The fence.
    pub fence: Fence,
    /// The mark.
    pub mac: [u8; 16],
}

/// One attempt, with all that the agent needs to run it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its fence, marked.
    pub claim: FenceClaim,
    /// What to run; the body is inline.
    pub spec: JobSpec,
    /// What it holds on this node.
    pub reservation: Reservation,
    /// The prices in force.
    pub tariff: Tariff,
    /// Longest run: the smaller of the time limit and what the hold pays for. The agent enforces it alone if it must.
    pub run_limit: Span,
    /// What reaching it means: [`Reason::TimeLimit`] or [`Reason::Budget`].
    pub run_limit_reason: Reason,
    /// The image that an earlier attempt found under the job's image name.
    pub image: Option<ImagePin>,
    /// Most tokens that the hold pays for, where tokens have a price: the agent makes no more.
    pub output_tokens_max: Option<u64>,
}

/// Why an attempt is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// The client cancelled.
    Cancelled,
    /// It has been replaced or its job has ended; its result is void.
    Superseded,
    /// The orchestrator's own clock says that its run limit has long passed.
    Overdue,
}

/// One line of an agent's inventory: an attempt that it knows of when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryItem {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// How far it is.
    pub state: ItemState,
}

/// How far an attempt in an inventory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemState {
    /// Accepted; its code does not run yet.
    Starting,
    /// Its code runs.
    Running,
    /// Ended; the result waits to be handed over.
    Ended,
}

/// What is to become of one line of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Go on.
    Keep,
    /// End it; nobody will pay for it.
    Kill,
    /// Hand over the result.
    SendResult,
    /// It is settled: drop everything that is kept about it.
    Forget,
}
