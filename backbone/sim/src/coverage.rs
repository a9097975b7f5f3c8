//! What worlds must have met: every row of the table of endings, and every move of the state table that can be made.

use std::fmt;

use modchain_core::job::WishCause;
use modchain_types::JobState::{
    Assigned, Cancelled, Cancelling, Completed, Expired, Failed, Queued, Running, Starting, TimedOut, Unreachable,
};
use modchain_types::{Ending, Fault, JobState, Reason};

use crate::auditor::Edge;

/// An agent's word of how an attempt ended, and what was wished of its job at that moment: a row of `settle.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndingMet {
    /// The ending.
    pub ending: &'static str,
    /// `go on`, `cancel` or `give up`.
    pub wish: &'static str,
}

/// The kinds of endings.
const ENDINGS: [&str; 14] = [
    "exited 0",
    "exited otherwise",
    "signalled",
    "trapped",
    "memory limit",
    "process limit",
    "run limit",
    "stopped",
    "cannot start: job",
    "cannot start: not found",
    "cannot start: command",
    "cannot start: node",
    "node fault",
    "lease ended",
];
/// The wishes.
const WISHES: [&str; 3] = ["go on", "cancel", "give up"];

impl EndingMet {
    /// The row of this ending.
    pub(crate) fn of(ending: &Ending, wish: Option<&WishCause>) -> Self {
        let ending = match ending {
            Ending::Exited { code: 0 } => "exited 0",
            Ending::Exited { .. } => "exited otherwise",
            Ending::Signalled { .. } => "signalled",
            Ending::Trapped { .. } => "trapped",
            Ending::MemoryLimit => "memory limit",
            Ending::PidsLimit { .. } => "process limit",
            Ending::RunLimit => "run limit",
            Ending::Stopped => "stopped",
            Ending::CannotStart { fault: Fault::Job, .. } => "cannot start: job",
            Ending::CannotStart { fault: Fault::NotFound, .. } => "cannot start: not found",
            Ending::CannotStart { fault: Fault::Command, .. } => "cannot start: command",
            Ending::CannotStart { fault: Fault::Node, .. } => "cannot start: node",
            Ending::NodeFault { .. } => "node fault",
            Ending::LeaseEnded => "lease ended",
        };
        let wish = match wish {
            None => "go on",
            Some(WishCause::Client) => "cancel",
            Some(WishCause::InputFailed(_)) => "give up",
        };
        Self { ending, wish }
    }

    /// Every row.
    pub fn all() -> impl Iterator<Item = Self> {
        ENDINGS.into_iter().flat_map(|ending| WISHES.into_iter().map(move |wish| Self { ending, wish }))
    }
}

impl fmt::Display for EndingMet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.ending, self.wish)
    }
}

/// Every move of the state table that can be made, with every reason that it can have. Moves that come of several faults at one
/// moment are left out: they are allowed, and too rare to be waited for.
pub fn reachable() -> impl Iterator<Item = Edge> {
    use Reason as R;
    type Moves = (JobState, &'static [JobState], &'static [(JobState, &'static [Reason])]);
    const MOVES: [Moves; 6] = [
        (Queued, &[Assigned], &[(Failed, &[R::Refused]), (Cancelled, &[R::Cancelled]), (Expired, &[R::Expired])]),
        (
            Assigned,
            &[Starting, Unreachable, Cancelling],
            &[(Queued, &[R::Refused, R::NodeLost, R::NodeFault, R::Revoked]), (Failed, &[R::Refused])],
        ),
        (
            Starting,
            &[Running, Unreachable, Cancelling],
            &[
                (Queued, &[R::NodeLost, R::NodeFault, R::Revoked]),
                (
                    Failed,
                    &[R::Refused, R::NotFound, R::CommandNotFound, R::NodeLost, R::NodeFault, R::Revoked, R::Attempts],
                ),
            ],
        ),
        (
            Running,
            &[Unreachable, Cancelling],
            &[
                (Queued, &[R::NodeLost, R::NodeFault, R::Revoked]),
                (Completed, &[R::Exit]),
                (TimedOut, &[R::TimeLimit, R::Budget]),
                (
                    Failed,
                    &[
                        R::Exit,
                        R::Signal,
                        R::Trap,
                        R::Memory,
                        R::Pids,
                        R::NodeLost,
                        R::NodeFault,
                        R::Revoked,
                        R::Attempts,
                    ],
                ),
            ],
        ),
        (
            Unreachable,
            &[Assigned, Starting, Running, Cancelling],
            &[
                (Queued, &[R::NodeLost, R::NodeFault, R::Revoked]),
                (Completed, &[R::Exit]),
                (TimedOut, &[R::TimeLimit, R::Budget]),
                (Failed, &[R::Exit, R::Refused, R::NodeLost, R::NodeFault, R::Attempts]),
            ],
        ),
        (Cancelling, &[Cancelling], &[(Failed, &[R::Refused]), (Cancelled, &[R::Cancelled])]),
    ];
    let accepted = Edge { from: None, to: Queued, cause: None };
    let moves = MOVES.into_iter().flat_map(|(from, plain, with_reasons)| {
        let edge = move |to: JobState, cause: Option<Reason>| Edge { from: Some(from), to, cause };
        let plain = plain.iter().map(move |to| edge(*to, None));
        let causes =
            with_reasons.iter().flat_map(move |(to, causes)| causes.iter().map(move |cause| edge(*to, Some(*cause))));
        plain.chain(causes)
    });
    std::iter::once(accepted).chain(moves)
}
