//! What outlived an earlier run of the agent on the machine, beside what it left on disk.

use std::collections::BTreeMap;

use modchain_core::supervisor::Survivor;
use modchain_types::{AttemptId, BootId, Fence};

use crate::executor::docker;
use crate::outbox::Left;

/// Containers that were found when the agent started.
#[derive(Debug, Default)]
pub struct Survivors {
    found: BTreeMap<(AttemptId, Fence), docker::Survivor>,
    boot: Option<BootId>,
}

impl Survivors {
    /// Of these containers, on this boot of the machine.
    pub fn new(found: Vec<docker::Survivor>, boot: BootId) -> Self {
        let found = found.into_iter().map(|one| ((one.attempt, one.fence), one)).collect();
        Self { found, boot: Some(boot) }
    }

    /// What is left of an attempt, if it goes on: its container is there, was made for this very specification and on this
    /// boot, its start was noted, and nothing of its input is missing.
    pub(super) fn of(&self, left: &Left) -> Option<Survivor> {
        let found = self.found.get(&(left.attempt, left.assignment.claim.fence))?;
        let started = left.started?;
        let same = found.spec_digest == modchain_wire::spec_digest(&left.assignment.spec);
        let boot = self.boot == Some(started.boot) && found.boot == started.boot;
        let goes_on = same && boot && left.input_done && left.result.is_none();
        goes_on.then(|| {
            let mut assignment = left.assignment.clone();
            // What its image was found to be may have been said to nobody.
            assignment.image = found.image.clone().or(assignment.image);
            Survivor { assignment, since: started.since }
        })
    }
}
