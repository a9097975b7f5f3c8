//! When a waiting job may start.
//!
//! What is known is how long what runs may run at most: its limit of time, or what its hold pays for. Nobody knows how long it
//! will run, so this is no forecast but a bound, and one with an assumption: that the jobs before it are like it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use modchain_types::{JobId, NodeState, Reservation, Span, Timestamp};

use super::feasible;
use super::needs::Needs;
use super::queue::Ahead;
use crate::deadline;
use crate::job::{Job, Placement, Progress};
use crate::meter;
use crate::node::Node;

/// Most jobs before it for which a start is estimated. Behind more of them an estimate would say nothing.
const AHEAD_MAX: u64 = 10_000;
/// Most places for such a job that are looked for, on all nodes. More of them can only make it start sooner.
const PLACES_MAX: usize = 20_000;

/// How a waiting job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// How many jobs go before it.
    pub ahead: Ahead,
    /// What its priority counts for against other accounts.
    pub counts_as: i8,
    /// It starts within this time if every job before it takes as much room as it does and runs for as long as it may, and
    /// if what runs does too; `None` where nothing is known: no node that is there could take it, too many go before it, or
    /// it would be longer than any job may run.
    pub starts_within: Option<Span>,
}

/// See [`Outlook::starts_within`].
pub fn starts_within<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    jobs: &BTreeMap<JobId, Job>,
    now: Timestamp,
    needs: &Needs,
    ahead: u64,
) -> Option<Span> {
    if ahead > AHEAD_MAX {
        return None;
    }
    let mut places = BinaryHeap::new();
    for (room, run_limit) in nodes.filter_map(|node| Room::of(node, jobs, now, needs)) {
        let wanted = (ahead as usize + 1).min(PLACES_MAX - places.len());
        if wanted == 0 {
            break;
        }
        places.extend(room.take(wanted).map(|at| Reverse((at, run_limit))));
    }
    for _ in 0..ahead {
        let Reverse((at, run_limit)) = places.pop()?;
        places.push(Reverse((at + run_limit, run_limit)));
    }
    let Reverse((at, _)) = places.pop()?;
    Some(at.since(now)).filter(|span| *span <= meter::RUN_LIMIT_MAX)
}

/// When a job of these needs could be placed on this node at the latest, if nobody came before it; `None` if it never could.
pub fn room_at(node: &Node, jobs: &BTreeMap<JobId, Job>, now: Timestamp, needs: &Needs) -> Option<Timestamp> {
    let (mut room, _) = Room::of(node, jobs, now, needs)?;
    room.next()
}

/// The moments at which there is room for one more job of some needs on a node, beside those that came at the moments before.
struct Room<'a> {
    node: &'a Node,
    needs: &'a Needs,
    taken: crate::node::Taken,
    /// What will be given back, the first last.
    leaving: Vec<(Timestamp, &'a Reservation)>,
    at: Timestamp,
}

impl<'a> Room<'a> {
    /// For a node that takes jobs and could take this one if it were empty; with the longest run of the job there.
    fn of(node: &'a Node, jobs: &'a BTreeMap<JobId, Job>, now: Timestamp, needs: &'a Needs) -> Option<(Self, Span)> {
        let offer = node.offer.as_deref()?;
        if node.state(now) != NodeState::Ready || node.session().is_none() || !feasible::wanted(node, needs) {
            return None;
        }
        let run_limit = feasible::fit_beside(offer, &Default::default(), needs)?.run_limit;
        let mut leaving: Vec<_> = node
            .placed
            .iter()
            .filter_map(|job| jobs.get(job)?.placement())
            .map(|placement| (ends_by(placement, now), &placement.reservation))
            .collect();
        leaving.sort_by_key(|(at, _)| Reverse(*at));
        Some((Self { node, needs, taken: node.taken.clone(), leaving, at: now }, run_limit))
    }
}

impl Iterator for Room<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        let offer = self.node.offer.as_deref()?;
        loop {
            if let Some(fit) = feasible::fit_beside(offer, &self.taken, self.needs) {
                self.taken.add(&fit.reservation);
                return Some(self.at);
            }
            let (at, reservation) = self.leaving.pop()?;
            self.taken.remove(reservation);
            self.at = at;
        }
    }
}

/// When an attempt has given back what it holds at the latest.
fn ends_by(placement: &Placement, now: Timestamp) -> Timestamp {
    let late = match &placement.progress {
        Progress::Assigned | Progress::Starting => {
            placement.assigned_at + deadline::ACCEPT_WITHIN + deadline::PREPARE_WITHIN + placement.run_limit
        }
        Progress::Running { started_at } => match *started_at + placement.run_limit {
            at if at > now => at,
            // Its node is late with its end, and has this long to tell it.
            at => at + deadline::OVERDUE_MARGIN,
        },
        Progress::Done(done) => match done.at + deadline::OUTPUT_WITHIN {
            at if at > now => at,
            // It is still there because more and more output comes.
            _ => done.at + deadline::OUTPUT_AT_MOST,
        },
    };
    late.max(now)
}
