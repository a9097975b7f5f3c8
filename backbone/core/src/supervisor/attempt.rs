//! One attempt on the agent.
//!
//! ```text
//!  Assign        Started            Ended: recorded         Ack, Forget
//! ───────▶ Starting ──────▶ Running ───────────────▶ Ended ────────────▶ forgotten
//!             │                │                       ▲
//!             └───────┬────────┘                       │
//!     cancel, run limit, lease, shutdown, drain, void  │
//!                     ▼              Ended             │
//!                 stopping ────────────────────────────┤
//!                                                      │ void: discarded, nobody is told
//!                                                      ▼
//!                                                  forgotten
//! ```
//!
//! Being told to stop does not hide how far an attempt is: a container may still start between the order and its arrival, so
//! [`Phase`] and [`Stopping`] are kept side by side.

use super::machine::RUN_LIMIT_GRACE;
use modchain_types::{
    Ending, Fence, ImagePin, ItemState, OnDisconnect, OutputLengths, Report, ReportBody, Reservation, Span, Text,
    Timestamp, Usage,
};

/// One attempt that the agent knows of.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Something of it may run.
    Live(Live),
    /// Nothing of it runs; its recorded result waits to be acknowledged.
    Ended(Report),
}

impl Attempt {
    /// The fence that it was assigned under.
    pub(super) fn fence(&self) -> Fence {
        match self {
            Self::Live(live) => live.fence,
            Self::Ended(report) => report.fence,
        }
    }

    /// How far it is, in the words of the inventory.
    pub(super) fn item_state(&self) -> ItemState {
        match self {
            Self::Live(Live { phase: Phase::Starting, .. }) => ItemState::Starting,
            Self::Live(Live { phase: Phase::Running { .. }, .. }) => ItemState::Running,
            Self::Ended(_) => ItemState::Ended,
        }
    }
}

/// An attempt of which something may run.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) fence: Fence,
    pub(super) reservation: Reservation,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) run_limit: Span,
    /// What its image name means here, once that is known.
    pub(super) image: Option<ImagePin>,
    pub(super) phase: Phase,
    pub(super) stopping: Option<Stopping>,
}

/// How far a live attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is fetched and prepared; its own code does not run.
    Starting,
    /// Its own code runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
}

/// An order to stop that the executor has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) why: StopReason,
    pub(super) kill: Kill,
}

/// Why an attempt was told to stop. Decides what becomes of its end. The first reason stays, but [`StopReason::Void`]
/// replaces every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The client cancelled it.
    Cancelled,
    /// Its run limit was reached.
    RunLimit,
    /// Its lease ended.
    LeaseEnded,
    /// The agent shuts down.
    ShutDown,
    /// The owner's time for a drain is over.
    Evicted,
    /// It was replaced, or its job has ended: its result is worth nothing and nobody is told of it.
    Void,
}

/// When the executor was told to kill. The earlier, the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kill {
    /// At once, when it was told.
    AtOnce,
    /// Once its grace time is over.
    At(Timestamp),
}

impl Live {
    /// Notes an order to stop. Tells the grace time to pass on to the executor, or `None` if it was told to be at least as
    /// quick before.
    pub(super) fn stop(&mut self, now: Timestamp, grace: Span, why: StopReason) -> Option<Span> {
        let kill = if grace == Span::ZERO { Kill::AtOnce } else { Kill::At(now + grace) };
        match &mut self.stopping {
            None => {
                self.stopping = Some(Stopping { why, kill });
                Some(grace)
            }
            Some(stopping) => {
                if why == StopReason::Void {
                    stopping.why = why;
                }
                let quicker = kill < stopping.kill;
                if quicker {
                    stopping.kill = kill;
                }
                quicker.then_some(grace)
            }
        }
    }

    /// When its run limit is reached; `None` before its code runs and once it was told to be gone soon after that, or was told for
    /// another reason than a wish of its client, whose grace may be longer than what is left of the time that is paid for.
    pub(super) fn limit_at(&self) -> Option<Timestamp> {
        let Phase::Running { since } = self.phase else { return None };
        let limit = since + self.run_limit;
        match self.stopping {
            None => Some(limit),
            Some(Stopping { why: StopReason::Cancelled, kill }) => {
                (kill > Kill::At(limit + RUN_LIMIT_GRACE)).then_some(limit)
            }
            Some(_) => None,
        }
    }

    /// Whether it must be killed when a lease ends at `lease_end`: it asked for that, and nothing kills it earlier.
    pub(super) fn ends_with_lease(&self, lease_end: Timestamp) -> bool {
        self.on_disconnect == OnDisconnect::Stop
            && self.stopping.is_none_or(|stopping| stopping.kill > Kill::At(lease_end))
    }

    /// What to report now that nothing of it runs any more; `None` if nobody wants to know.
    pub(super) fn conclude(
        &self,
        now: Timestamp,
        ending: Ending,
        usage: Usage,
        output: OutputLengths,
    ) -> Option<ReportBody> {
        let ending = match (ending, self.stopping.map(|stopping| stopping.why)) {
            (_, Some(StopReason::Void)) => return None,
            (Ending::Stopped, Some(StopReason::Cancelled)) => Ending::Stopped,
            (Ending::Stopped, Some(StopReason::RunLimit)) => Ending::RunLimit,
            (Ending::Stopped, Some(StopReason::LeaseEnded)) => Ending::LeaseEnded,
            (Ending::Stopped, Some(StopReason::ShutDown)) => node_fault("agent shut down"),
            (Ending::Stopped, Some(StopReason::Evicted)) => node_fault("its node was drained by its owner"),
            (Ending::Stopped, None) => node_fault("stopped without being told to"),
            // It ended by itself before the order reached it.
            (by_itself, _) => by_itself,
        };
        // The executor's watch may run a little longer than ours; what is billed begins with `Started`.
        let ran = match self.phase {
            Phase::Starting => Span::ZERO,
            Phase::Running { since } => usage.ran.min(now.since(since)),
        };
        Some(ReportBody::Ended { ending, usage: Usage { ran, ..usage }, output })
    }
}

/// The ending of an attempt that its node could not finish.
pub(super) fn node_fault(message: &str) -> Ending {
    Ending::NodeFault { message: Text::cut(message) }
}
