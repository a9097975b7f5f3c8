//! The waiting jobs, in classes of equal needs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use modchain_types::{JobId, Micro, Requirements, Span};

use crate::job::Job;

/// Jobs of one class fit the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassKey {
    requirements: Requirements,
    max_cost: Micro,
    time_limit: Option<Span>,
}

/// A job's place: higher priority first, then the order of acceptance, which retries keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Reverse<i8>,
    number: u64,
}

/// The waiting jobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    classes: BTreeMap<ClassKey, BTreeMap<Place, JobId>>,
    length: usize,
}

fn class_of(job: &Job) -> ClassKey {
    ClassKey {
        requirements: job.spec.requirements.clone(),
        max_cost: job.spec.max_cost,
        time_limit: job.spec.limits.time_limit,
    }
}

fn place_of(job: &Job) -> Place {
    Place { priority: Reverse(job.spec.priority), number: job.queued_number }
}

impl Queue {
    /// Adds a job.
    pub fn insert(&mut self, job: &Job) {
        let before = self.classes.entry(class_of(job)).or_default().insert(place_of(job), job.id);
        self.length += usize::from(before.is_none());
    }

    /// Takes a job out.
    pub fn remove(&mut self, job: &Job) {
        let class = class_of(job);
        if let Some(members) = self.classes.get_mut(&class) {
            self.length -= usize::from(members.remove(&place_of(job)).is_some());
            if members.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many go before this one.
    pub fn ahead(&self, job: &Job) -> u64 {
        let place = place_of(job);
        self.classes.values().map(|members| members.range(..place).count() as u64).sum()
    }

    /// The first of each class, in the order in which they go. Where the first of a class fits nowhere, no other of it does;
    /// so a pass looks at these alone, and a class costs it one look however many wait in it.
    pub fn heads(&self) -> BTreeMap<Place, JobId> {
        self.classes
            .values()
            .filter_map(|members| members.first_key_value().map(|(place, job)| (*place, *job)))
            .collect()
    }

    /// Who goes after this one in its class.
    pub fn next_of_class(&self, job: &Job) -> Option<(Place, JobId)> {
        let members = self.classes.get(&class_of(job))?;
        members.range((Excluded(place_of(job)), Unbounded)).next().map(|(place, job)| (*place, *job))
    }
}
