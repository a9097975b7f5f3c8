//! A job that is here: what the feed makes of it as long as it can change, or the row that the view has of it too.

use modchain_types::{AccountId, JobId, JobState, Map, Text, Timestamp, WallTime};
use modchain_wire::view::JobView;

use super::job::{Job, weight_of};
use super::model::Model;
use crate::store::view::JobRow;

/// A job that is here.
#[derive(Debug)]
pub(super) enum Known {
    /// It can still change.
    Live(Box<Job>),
    /// It never changes again.
    Ended(Box<Ended>),
}

/// A job that has ended and stays for a while.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) row: JobRow,
    pub(super) changed: u64,
}

impl Known {
    pub(super) fn live(&self) -> Option<&Job> {
        match self {
            Self::Live(job) => Some(job),
            Self::Ended(_) => None,
        }
    }

    pub(super) fn ended(&self) -> Option<&JobRow> {
        match self {
            Self::Live(_) => None,
            Self::Ended(ended) => Some(&ended.row),
        }
    }

    pub(super) fn id(&self) -> JobId {
        match self {
            Self::Live(job) => job.id,
            Self::Ended(ended) => ended.row.view.id,
        }
    }

    pub(super) fn account(&self) -> &AccountId {
        match self {
            Self::Live(job) => &job.account,
            Self::Ended(ended) => &ended.row.view.account,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Live(job) => &job.name,
            Self::Ended(ended) => &ended.row.view.name,
        }
    }

    pub(super) fn labels(&self) -> &Map<Text<64>, Text<256>, 32> {
        match self {
            Self::Live(job) => &job.labels,
            Self::Ended(ended) => &ended.row.view.labels,
        }
    }

    /// Number of the event that made it.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Live(job) => job.number,
            Self::Ended(ended) => ended.row.number,
        }
    }

    /// When it was made.
    pub(super) fn created_at(&self, model: &Model) -> WallTime {
        match self {
            Self::Live(job) => model.wall(job.created_at),
            Self::Ended(ended) => ended.row.view.created_at,
        }
    }

    /// Numbers of all events about it.
    pub(super) fn events(&self) -> &[u64] {
        match self {
            Self::Live(job) => &job.events,
            Self::Ended(ended) => &ended.row.events,
        }
    }

    /// Number of its newest attempt; 0 before the first.
    pub(super) fn newest_attempt(&self) -> u32 {
        match self {
            Self::Live(job) => job.attempts.back().map_or(0, |attempt| attempt.number),
            Self::Ended(ended) => ended.row.view.attempts.last().map_or(0, |attempt| attempt.number),
        }
    }

    /// The revision of its last change.
    pub(super) fn changed(&self) -> u64 {
        match self {
            Self::Live(job) => job.changed,
            Self::Ended(ended) => ended.changed,
        }
    }

    pub(super) fn set_changed(&mut self, revision: u64) {
        match self {
            Self::Live(job) => job.changed = revision,
            Self::Ended(ended) => ended.changed = revision,
        }
    }

    /// The state as everybody sees it.
    pub(super) fn state(&self, model: &Model) -> JobState {
        match self {
            Self::Live(job) => job.state(model),
            Self::Ended(ended) => ended.row.view.state,
        }
    }

    /// The whole view.
    pub(super) fn view(&self, model: &Model, now: Timestamp) -> JobView {
        match self {
            Self::Live(job) => job.view(model, now),
            Self::Ended(ended) => ended.row.view.clone(),
        }
    }

    /// Bytes that its view takes in a frame, at most: what keeps a page below the cap on its frame.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Live(job) => job.weight(),
            Self::Ended(ended) => weight_of(&ended.row.view),
        }
    }
}
