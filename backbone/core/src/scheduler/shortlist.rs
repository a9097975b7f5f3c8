//! The best nodes for each class, kept from one placement to the next, so that placing a job does not look at every node.
//!
//! A class's list has the best of the nodes that fit, by the scores that they had when they were judged. Two things keep it
//! true. Whatever could make a node fit, or fit better, is noted with [`Shortlists::changed`]: it was given back something,
//! connected, changed its offer, was opened, cooled down, was heard again. Each list judges those nodes anew before it is
//! used, once for each change. And what only makes a node worse (something is taken from it, it falls silent, it is closed)
//! is found out when its entry comes first: the node is judged again, and if it is not what it was, the entry moves back.
//! So the first entry that is what it was is the best node there is: all before it have gone, all behind it are as good as
//! they say or worse, and all outside are worse than the last that the list has room for.
//!
//! [`super::plan`] judges every node instead, and must come to the same; a test has them both plan in random worlds.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use modchain_types::{Name, NodeId, Timestamp};

use super::feasible::{self, Fit};
use super::needs::{Needs, SharedNeeds};
use super::rank::{self, Score};
use crate::node::Node;

/// Nodes that a list is made with. When all of them are full, every node is judged again: once in so many placements at
/// worst, so that a placement costs at most the judgement of `nodes / LISTED_MAX` nodes on average. Few in this crate's own
/// tests, so that small worlds come to the end of a list.
const LISTED_MAX: usize = if cfg!(test) { 3 } else { 4096 };

/// Nodes in all lists together; some 30 MiB. Where there are more, other lists are forgotten, and made anew when their
/// classes are looked at. Lists of classes that fit nowhere have no nodes, so they stay.
const NODES_MAX: usize = 64 * LISTED_MAX;
/// The room that a list takes beside its nodes, in nodes: in a small pool it is the most of it.
const LIST_AS_NODES: usize = 16;

/// The lists.
#[derive(Debug, Clone, Default)]
pub struct Shortlists {
    lists: BTreeMap<SharedNeeds, Shortlist>,
    changes: Changes,
    judged: u64,
}

/// A node as it was when it was judged; smaller is better.
type Entry = (Score, Name, NodeId);

#[derive(Debug, Clone, Default)]
struct Shortlist {
    entries: BTreeSet<Entry>,
    scores: BTreeMap<NodeId, Score>,
    /// Every node that fits and is not listed is no better than this; `None` where all that fit are listed.
    beyond: Option<Entry>,
    /// The last change that it knows of.
    seen: u64,
}

/// Which nodes may have become better, each at its last such change.
#[derive(Debug, Clone, Default)]
struct Changes {
    last: u64,
    by_number: BTreeMap<u64, NodeId>,
    by_node: BTreeMap<NodeId, u64>,
}

/// The nodes and the moment that is judged by.
struct Judge<'a> {
    nodes: &'a BTreeMap<NodeId, Node>,
    now: Timestamp,
    needs: &'a Needs,
    judged: &'a mut u64,
}

/// Which nodes a job gets only if there is no other, and which it does not get.
#[derive(Debug, Clone, Copy)]
pub struct Except<'a> {
    /// Those that have failed it.
    pub avoided: &'a BTreeSet<NodeId>,
    /// The one that is kept for another job.
    pub kept: Option<NodeId>,
}

/// How a job stands to a node that it may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liking {
    /// As to any other.
    Free,
    /// The node has failed it.
    Avoided,
}

impl Except<'_> {
    /// `None` for the node that it does not get.
    fn of(&self, node: NodeId) -> Option<Liking> {
        if self.kept == Some(node) {
            return None;
        }
        Some(if self.avoided.contains(&node) { Liking::Avoided } else { Liking::Free })
    }
}

impl Shortlists {
    /// The node may fit where it did not, or be better than it was.
    pub fn changed(&mut self, node: NodeId) {
        let Changes { last, by_number, by_node } = &mut self.changes;
        *last += 1;
        if let Some(before) = by_node.insert(node, *last) {
            by_number.remove(&before);
        }
        by_number.insert(*last, node);
    }

    /// No job of these needs waits any more. What is known of nodes that fit is kept for the next one that comes.
    pub fn class_gone(&mut self, needs: &SharedNeeds) {
        if self.lists.get(needs).is_some_and(|list| list.entries.is_empty()) {
            self.lists.remove(needs);
        }
    }

    /// How often a node was judged so far.
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// So many nodes were judged otherwise.
    pub fn looked_at(&mut self, nodes: usize) {
        self.judged += nodes as u64;
    }

    /// The best node for a job of these needs now, with what it would hold there; `None` if something speaks against every
    /// node. The same as [`super::plan`] finds.
    pub fn plan(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        now: Timestamp,
        needs: &SharedNeeds,
        except: Except<'_>,
    ) -> Option<(NodeId, Fit)> {
        let Self { lists, changes, judged } = self;
        let mut judge = Judge { nodes, now, needs, judged };
        let mut fresh = false;
        let list = match lists.entry(needs.clone()) {
            Place::Vacant(free) => {
                fresh = true;
                free.insert(Shortlist::made(changes, &mut judge))
            }
            Place::Occupied(known) => {
                let list = known.into_mut();
                list.catch_up(changes, &mut judge);
                list
            }
        };
        let found = loop {
            let found = list.first(&mut judge, except);
            match &found {
                Some((_, Liking::Free)) => break found,
                _ if list.beyond.is_none() => break found,
                Some((_, Liking::Avoided)) | None => {}
            }
            if fresh {
                // It would rather not have as many as a list has room for: it is worth judging them all.
                *judge.judged += nodes.len() as u64;
                break super::plan(nodes.values(), now, needs, except).map(|planned| (planned, Liking::Free));
            }
            (*list, fresh) = (Shortlist::made(changes, &mut judge), true);
        };
        if fresh {
            self.make_room(needs);
        }
        found.map(|(planned, _)| planned)
    }

    /// Forgets the nodes of all other classes, if there are too many.
    fn make_room(&mut self, needs: &SharedNeeds) {
        let of = |list: &Shortlist| if list.entries.is_empty() { 0 } else { LIST_AS_NODES + list.entries.len() };
        if self.lists.values().map(of).sum::<usize>() > NODES_MAX {
            self.lists.retain(|others, list| others == needs || list.entries.is_empty());
        }
    }
}

impl<'a> Judge<'a> {
    fn fit(&mut self, node: &Node) -> Option<(Score, Fit)> {
        *self.judged += 1;
        let fit = feasible::fit(node, self.now, self.needs).ok()?;
        Some((rank::score(node, self.needs, &fit), fit))
    }

    fn of(&mut self, id: NodeId) -> Option<(Score, Fit)> {
        let nodes: &'a BTreeMap<NodeId, Node> = self.nodes;
        self.fit(nodes.get(&id)?)
    }
}

impl Shortlist {
    /// Judges every node.
    fn made(changes: &Changes, judge: &mut Judge<'_>) -> Self {
        let mut fitting: Vec<(Score, &Name, NodeId)> = Vec::new();
        for (id, node) in judge.nodes {
            fitting.extend(judge.fit(node).map(|(score, _)| (score, &node.name, *id)));
        }
        let owned = |(score, name, id): (Score, &Name, NodeId)| (score, name.clone(), id);
        let beyond = (fitting.len() > LISTED_MAX).then(|| {
            let (_, beyond, _) = fitting.select_nth_unstable(LISTED_MAX);
            owned(*beyond)
        });
        fitting.truncate(LISTED_MAX);
        let scores = fitting.iter().map(|(score, _, id)| (*id, *score)).collect();
        Self { entries: fitting.into_iter().map(owned).collect(), scores, beyond, seen: changes.last }
    }

    /// Judges what has changed since it was last looked at.
    fn catch_up(&mut self, changes: &Changes, judge: &mut Judge<'_>) {
        for id in changes.by_number.range((Excluded(self.seen), Unbounded)).map(|(_, id)| *id) {
            let Some(node) = judge.nodes.get(&id) else { continue };
            let (before, after) = (self.scores.get(&id).copied(), judge.fit(node).map(|(score, _)| score));
            if before == after {
                continue;
            }
            if let Some(score) = before {
                self.scores.remove(&id);
                self.entries.remove(&(score, node.name.clone(), id));
            }
            if let Some(score) = after {
                self.insert((score, node.name.clone(), id));
            }
        }
        self.seen = changes.last;
        // Shortened only when it is long, so that the shortening costs little for each change.
        if self.entries.len() >= 2 * LISTED_MAX {
            while self.entries.len() > LISTED_MAX {
                let last = self.entries.pop_last().expect("it is longer than that");
                self.scores.remove(&last.2);
                self.beyond = Some(last);
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        if self.beyond.as_ref().is_none_or(|beyond| entry < *beyond) {
            self.scores.insert(entry.2, entry.0);
            self.entries.insert(entry);
        }
    }

    /// The first listed node that is what the list says; one that is to be avoided only if there is no other.
    fn first(&mut self, judge: &mut Judge<'_>, except: Except<'_>) -> Option<((NodeId, Fit), Liking)> {
        let (mut after, mut avoided) = (None, None);
        loop {
            let next = match &after {
                None => self.entries.first(),
                Some(entry) => self.entries.range((Excluded(entry), Unbounded)).next(),
            };
            let Some(listed) = next.cloned() else { return avoided.map(|planned| (planned, Liking::Avoided)) };
            let id = listed.2;
            match judge.of(id) {
                Some((score, fit)) if score == listed.0 => {
                    match except.of(id) {
                        Some(Liking::Free) => return Some(((id, fit), Liking::Free)),
                        Some(Liking::Avoided) => drop(avoided.get_or_insert((id, fit))),
                        None => {}
                    }
                    after = Some(listed);
                }
                judged => {
                    self.entries.remove(&listed);
                    self.scores.remove(&id);
                    if let Some((score, _)) = judged {
                        debug_assert!(score > listed.0, "a node became better and nobody was told");
                        self.insert((score, listed.1, id));
                    }
                }
            }
        }
    }
}
