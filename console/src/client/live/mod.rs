//! The console's live link: one task that keeps a connection for as long as the console is open, and sends what happens on it.
//! The console never waits for it and never exits because of it.
//!
//! Commands go in as [`ToLive`], everything else comes out as [`FromLive`]: the state of the link, snapshots and deltas,
//! events, output of followed jobs, and answers. A recording (`console --record`) is the sequence of [`FromLive`] with the time of
//! each, so `console --replay` shows exactly what was seen.
//!
//! ```text
//! Target ─▶ Link(Connecting) ─▶ Welcome, Link(Live) ─▶ snapshot, deltas, events, logs, answers
//!                  ▲                                      │
//!                  └── Link(Lost), after a while ◀────────┘     Link(Refused): only after a long while, or when told
//! ```
//!
//! [`kept`] is what outlives a connection, and decides what goes on where; [`task`] makes connections; [`session`] is what is
//! done over one.

mod kept;
pub(crate) mod recording;
mod session;
mod task;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use modchain_types::{JobId, JournalId, WallTime};
use modchain_wire::console::{ConsoleWelcome, LogChunk, LogCursor, StateDelta, StateSnapshot, Submit};
use modchain_wire::view::{EventView, JobView};
use modchain_wire::{FromConsole, ToConsole};

use crate::exit::Failure;
use crate::shell::Target;

pub(crate) use task::{Inbox, LiveHandle, start};

/// Names one request of the console for its answer. Never used twice by one console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AskId(pub(crate) u64);

/// What the console wants of its link.
#[derive(Debug)]
pub(crate) enum ToLive {
    /// One request with one answer. Sent again over a new connection when the old one breaks before the answer: every request that
    /// changes something carries a key or is harmless to repeat. One for a blob is answered with all of it in one piece, if it is no
    /// longer than that.
    Ask(AskId, Box<FromConsole>),
    /// Puts the blob, if there is one, and submits. The key makes a repetition harmless.
    Submit(AskId, Box<Submit>, Option<Bytes>),
    /// Follows a job's output from here on (from the start if `None`), over as many connections as it takes, to the job's end.
    Follow(JobId, Option<LogCursor>),
    /// Gives that up.
    Unfollow(JobId),
    /// Bytes for a job's standard input; an empty piece ends it.
    Input(JobId, Bytes),
    /// Tries to connect now.
    Reconnect,
    /// Goes to another orchestrator, or there as somebody else.
    UseTarget(Box<Target>),
}

/// What happens on the link.
#[derive(Debug, Clone)]
pub(crate) enum FromLive {
    /// What comes from here on belongs to this context; what is known belongs to another one. Said first.
    Target(String),
    /// The link is in another state.
    Link(LinkState),
    /// Connected; said once for each connection, before anything else that comes over it.
    Welcome(Box<Welcome>),
    /// A frame of a snapshot; the mirror is replaced when the last one is there.
    Snapshot(Box<StateSnapshot>),
    /// What changed.
    Delta(Box<StateDelta>),
    /// Events that were missed, or that are older than the snapshot: in order, perhaps some that are known.
    Events(Vec<EventView>),
    /// Output of a followed job.
    Log(JobId, LogItem),
    /// The answer to a request, with the request.
    Answer(AskId, Box<FromConsole>, Result<Box<ToConsole>, Failure>),
    /// How much of a job's standard input is on the orchestrator's disk, and whether that is all of it; or why it was refused.
    Input(JobId, Result<(u64, bool), Failure>),
    /// The path's round trip, measured when something came over it.
    Rtt(Duration),
    /// What its user should know of the certificate, although nobody asked.
    Said(String),
}

/// What the orchestrator said at the start of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    /// As it said it.
    pub(crate) welcome: ConsoleWelcome,
    /// `HOST:PORT` of it.
    pub(crate) address: String,
    /// How far its clock is ahead of ours, in milliseconds.
    pub(crate) clock_ahead_ms: i64,
}

/// The state of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The first connection is being made.
    Connecting,
    /// Connected; what is shown is as new as the network allows once the snapshot is there.
    Live,
    /// There is a connection, and nothing comes over it, not even what keeps it alive: what is shown may be old. Ends with the
    /// first thing that comes.
    Silent {
        /// When something came last, by this machine's clock; up to some seconds later than it was.
        since: WallTime,
    },
    /// The connection is gone.
    Lost {
        /// Since when, by this machine's clock.
        since: WallTime,
        /// Why, in lower case.
        why: String,
        /// When the next try begins, by this machine's clock; `None` while one is under way.
        retry_at: Option<WallTime>,
        /// How many tries there were.
        tries: u32,
    },
    /// Trying again does not help: the identity is refused, or the orchestrator is not who it should be. `R` tries all the same.
    Refused(Failure),
}

impl LinkState {
    /// Whether there is a connection, whatever comes over it.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self, Self::Live | Self::Silent { .. })
    }
}

/// A piece of a followed job's output.
#[derive(Debug, Clone)]
pub(crate) enum LogItem {
    /// Bytes, in order, none twice.
    Chunk(Box<LogChunk>),
    /// All that was there has come.
    CaughtUp,
    /// The connection broke at this moment by this machine's clock, and is back now: nothing is missing.
    Resumed(WallTime),
    /// The job has ended, and all its output has come.
    End(Box<JobView>),
    /// Its output cannot be read.
    Refused(Failure),
}

/// Whose history a mirror shows, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The journal.
    pub(crate) journal: JournalId,
    /// The last event that was taken in.
    pub(crate) upto: u64,
}
