//! What goes in and comes out.

use modchain_types::{AccountId, JobId, JobState, Text, WallTime};
use modchain_wire::view::{EventView, JobView, LedgerEntryView, LedgerKind};
use serde::{Deserialize, Serialize};

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Number of the event that made it.
    pub number: u64,
    /// Number of the event that ended it.
    pub finished: u64,
    /// Numbers of all events about it.
    pub events: Vec<u64>,
    /// What people see.
    pub view: JobView,
}

/// An event and the account that may see it besides operators; `None` is nobody, the empty one is everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Who.
    pub audience: Option<Text<32>>,
    /// What people see.
    pub view: EventView,
}

/// Something that the feed keeps for itself: its key, and what it is from now on; `None` if it is no more.
pub type Kept = (Vec<u8>, Option<Vec<u8>>);

/// What some events of the journal led to.
#[derive(Debug, Default)]
pub struct Rows {
    /// The last of the events.
    pub upto: u64,
    /// Jobs that they ended.
    pub jobs: Vec<JobRow>,
    /// Ended jobs that are no longer kept. Their entries of statements and events are.
    pub forgotten: Vec<JobId>,
    /// Entries of statements, in order.
    pub entries: Vec<(AccountId, LedgerEntryView)>,
    /// The events, in order and without a gap.
    pub events: Vec<EventRow>,
    /// What the feed keeps, as it is behind the last of the events.
    pub kept: Vec<Kept>,
}

/// Which ended jobs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only in these states; empty means all.
    pub states: Vec<JobState>,
    /// Only with all of these labels.
    pub labels: Vec<(Text<64>, Text<256>)>,
    /// Only those whose name or id begins so; empty means all.
    pub prefix: String,
    /// Only those created at or after this moment.
    pub since: Option<WallTime>,
    /// Only those made by events before this one.
    pub below: u64,
    /// At most this many.
    pub limit: usize,
}

/// Ended jobs, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JobsFound {
    /// At most as many as were wanted.
    pub items: Vec<JobRow>,
    /// How many there are in all, wherever the page begins; at least so many where there are more than some ten million.
    pub total: u64,
    /// Whether there are more after the last one.
    pub more: bool,
    /// How many blocks were looked at to find them. Of rows it were those of the items alone.
    pub blocks: u64,
}

/// Which entries of a statement are wanted.
#[derive(Debug, Clone, Default)]
pub struct EntriesWanted {
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<LedgerKind>,
    /// Only about this job.
    pub job: Option<JobId>,
    /// Number of the event that made this job, if it has not ended: the view knows the others'.
    pub made: Option<u64>,
    /// Only of events before this one.
    pub below: Option<u64>,
    /// At most this many; those of one event stay together, so it can be three more.
    pub limit: usize,
}
