//! Snapshots and deltas for readers that watch.
//!
//! A reader keeps a [`Cursor`] and asks for what changed since. Nothing is queued for it: a slow reader asks seldom and gets
//! more at once, and one that fell too far behind starts over with a snapshot. Events, and with them every change of state
//! and every movement of money, are never left out; of jobs, nodes and balances the newest version is sent.

use modchain_core::Actor;
use modchain_types::{JobId, List, Name, Timestamp};
use modchain_wire::console::{StateDelta, StateSnapshot};

use super::model::{Model, Node};
use super::query::{PAGE_WEIGHT_MAX, Sight};

/// Most jobs or nodes in one frame.
const ITEMS_MAX: usize = 200;
/// Most events in one delta; a reader with more to read gets a snapshot.
const EVENTS_MAX: usize = 500;
/// Most events that wait with nothing among them that a reader may see: more are a watermark of their own, so that they are looked
/// through once.
const UNSEEN_MAX: u64 = 250;
/// Ended jobs in a snapshot: a few screens full.
const ENDED_SHOWN: usize = 200;
/// Bytes of jobs in one delta, and of its nodes; its events take at most 350 KiB more, and names of nodes that are gone 13.
const DELTA_WEIGHT_MAX: usize = PAGE_WEIGHT_MAX / 3;

/// How much of the changes a reader has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The last event.
    pub number: u64,
    /// Revision of the last change of state.
    revision: u64,
    /// Revision of the last measurement.
    measured: u64,
}

/// What a watching reader gets next.
#[derive(Debug)]
pub enum Change {
    /// Send this and go on from there.
    Delta(Box<StateDelta>, Cursor),
    /// Too far behind: start over with a snapshot.
    Reset,
}

/// Where the next frame of a snapshot begins.
#[derive(Debug, Clone)]
pub struct SnapshotPlace {
    /// As of which moment the whole snapshot is.
    pub cursor: Cursor,
    part: Part,
}

#[derive(Debug, Clone)]
enum Part {
    Live(Option<JobId>),
    /// Below this age, and how many may follow.
    Ended(u64, usize),
    Nodes(Option<Name>),
}

/// A delta under construction, and whether anything in it concerns the reader.
struct Draft {
    change: Change,
    visible: bool,
}

impl Model {
    /// A reader that starts now.
    pub(super) fn snapshot_start(&self) -> SnapshotPlace {
        let cursor = Cursor { number: self.upto(), revision: self.revision, measured: self.revision };
        SnapshotPlace { cursor, part: Part::Live(None) }
    }

    /// A reader that goes on after an event that it saw in an earlier stream; `None` if that is too long ago or not of this
    /// journal. What is not in the journal (states of nodes, measurements) is sent again.
    pub(super) fn resume(&self, upto: u64) -> Option<Cursor> {
        if upto > self.upto() || self.upto() - upto > EVENTS_MAX as u64 {
            return None;
        }
        let revision = match upto.checked_sub(1) {
            None => 0,
            Some(before) => self.rows_after(before).next().filter(|row| row.view.number == upto)?.revision,
        };
        Some(Cursor { number: upto, revision, measured: 0 })
    }

    /// One frame of a snapshot, and where the next one begins; the last frame has `last`. Jobs are as they are when their
    /// frame is made: what changed after the cursor comes once more as a delta.
    pub(super) fn snapshot_page(
        &self,
        actor: &Actor,
        only: Option<JobId>,
        place: SnapshotPlace,
        now: Timestamp,
    ) -> (StateSnapshot, Option<SnapshotPlace>) {
        let cursor = place.cursor;
        let mut page = StateSnapshot {
            journal: self.journal,
            upto: cursor.number,
            jobs: List::default(),
            nodes: List::default(),
            account: None,
            last: false,
        };
        if let Some(only) = only {
            let job = self.visible_job(actor, only);
            page.jobs = List::cut(job.map(|job| job.view(self, now)).into_iter().collect());
            page.last = true;
            return (page, None);
        }
        let (mut items, mut weight) = (Vec::new(), 0);
        let mut fits = |add: usize, count: usize| {
            weight += add;
            count < ITEMS_MAX && (weight <= PAGE_WEIGHT_MAX || count == 0)
        };
        let next = match place.part {
            Part::Live(after) => {
                use std::ops::Bound::{Excluded, Unbounded};
                let mut next = None;
                let live = if actor.may_touch_all() {
                    Some(&self.live)
                } else {
                    self.accounts.get(&actor.account).map(|account| &account.live)
                };
                let from = after.map_or(Unbounded, Excluded);
                let rest = live.into_iter().flat_map(|live| live.range((from, Unbounded)));
                for job in rest.filter_map(|id| self.visible_job(actor, *id)) {
                    if !fits(job.weight(), items.len()) {
                        next = items.last().map(|job: &modchain_wire::view::JobView| Part::Live(Some(job.id)));
                        break;
                    }
                    items.push(job.view(self, now));
                }
                page.jobs = List::cut(items);
                Some(next.unwrap_or(Part::Ended(u64::MAX, ENDED_SHOWN)))
            }
            Part::Ended(below, left) => {
                let mut next = None;
                let mut last = below;
                let ages = self.ages(actor, None).rev().filter(|(number, _)| **number < below);
                let ended = ages.filter_map(|(_, id)| self.jobs.get(id)).filter(|job| job.ended().is_some()).take(left);
                for job in ended {
                    if !fits(job.weight(), items.len()) {
                        next = Some(Part::Ended(last, left - items.len()));
                        break;
                    }
                    last = job.number();
                    items.push(job.view(self, now));
                }
                page.jobs = List::cut(items);
                Some(next.unwrap_or(Part::Nodes(None)))
            }
            Part::Nodes(after) => {
                let (mut nodes, mut next) = (Vec::new(), None);
                for node in self.nodes_after(after.as_ref()) {
                    if !fits(node.weight(), nodes.len()) {
                        next = nodes
                            .last()
                            .map(|node: &modchain_wire::view::NodeView| Part::Nodes(Some(node.name.clone())));
                        break;
                    }
                    nodes.push(node.view(self));
                }
                page.nodes = List::cut(nodes);
                if next.is_none() {
                    page.account = self.account_view(&actor.account);
                    page.last = true;
                }
                next
            }
        };
        (page, next.map(|part| SnapshotPlace { cursor, part }))
    }

    /// What changed since the cursor. `None` if nothing did, or, unless it is `due`, if the reader may see nothing of it: a
    /// bare watermark can wait, if it does not pass very many events.
    pub(super) fn changed_since(
        &self,
        actor: &Actor,
        only: Option<JobId>,
        cursor: Cursor,
        now: Timestamp,
        due: bool,
    ) -> Option<Change> {
        if cursor.number == self.upto() && cursor.revision >= self.revision && cursor.measured >= self.revision {
            return None;
        }
        let draft = self.draft(actor, only, cursor, now);
        let passed = self.upto() - cursor.number;
        let due = (due && passed > 0) || passed > UNSEEN_MAX;
        (draft.visible || due).then_some(draft.change)
    }

    fn draft(&self, actor: &Actor, only: Option<JobId>, cursor: Cursor, now: Timestamp) -> Draft {
        let reset = Draft { change: Change::Reset, visible: true };
        if cursor.number < self.forgotten {
            return reset;
        }
        let concerns = |job: Option<JobId>| only.is_none() || job == only;
        let seen = self.rows_after(cursor.number).filter(|row| row.visible_to(actor) && concerns(row.view.job));
        let events: Vec<_> = seen.take(EVENTS_MAX + 1).map(|row| row.view.clone()).collect();
        if events.len() > EVENTS_MAX {
            return reset;
        }

        let (mut jobs, mut weight) = (Vec::new(), 0);
        for (_, id) in self.changed_jobs.range(cursor.revision + 1..) {
            let Some(job) = self.visible_job(actor, *id).filter(|job| concerns(Some(job.id()))) else { continue };
            weight += job.weight();
            if jobs.len() == ITEMS_MAX || (weight > DELTA_WEIGHT_MAX && !jobs.is_empty()) {
                return reset;
            }
            jobs.push(job.view(self, now));
        }

        let mut nodes: Vec<&Node> = Vec::new();
        let mut gone: Vec<Name> = Vec::new();
        let mut measured = self.revision;
        if only.is_none() {
            let mut weight = 0;
            for node in self.changed_nodes.range(cursor.revision + 1..).filter_map(|(_, id)| self.nodes.get(id)) {
                if node.revoked {
                    // Its name may belong to another one by now, which is told of among the nodes.
                    if !self.node_names.contains_key(&node.identity.name) {
                        if gone.len() == ITEMS_MAX {
                            return reset;
                        }
                        gone.push(node.identity.name.clone());
                    }
                    continue;
                }
                weight += node.weight();
                if nodes.len() == ITEMS_MAX || (weight > DELTA_WEIGHT_MAX && !nodes.is_empty()) {
                    return reset;
                }
                nodes.push(node);
            }
            // Measurements take what room is left; the rest of them come with the next delta.
            for (revision, id) in self.measured_nodes.range(cursor.measured + 1..) {
                let news = |node: &&Node| node.changed <= cursor.revision && !node.revoked;
                let Some(node) = self.nodes.get(id).filter(news) else { continue };
                weight += node.weight();
                if nodes.len() == ITEMS_MAX || (weight > DELTA_WEIGHT_MAX && !nodes.is_empty()) {
                    measured = revision - 1;
                    break;
                }
                nodes.push(node);
            }
        }
        let account = self.accounts.get(&actor.account).filter(|account| account.changed > cursor.revision);
        let account = account.filter(|_| only.is_none()).and_then(|_| self.account_view(&actor.account));

        let visible =
            !(events.is_empty() && jobs.is_empty() && nodes.is_empty() && gone.is_empty() && account.is_none());
        let delta = StateDelta {
            prev: cursor.number,
            upto: self.upto(),
            jobs: List::cut(jobs),
            nodes: List::cut(nodes.into_iter().map(|node| node.view(self)).collect()),
            gone: List::cut(gone),
            account,
            events: List::cut(events),
        };
        let cursor = Cursor { number: self.upto(), revision: self.revision, measured };
        Draft { change: Change::Delta(Box::new(delta), cursor), visible }
    }
}
