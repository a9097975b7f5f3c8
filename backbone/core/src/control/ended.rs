//! Jobs that have ended, for as long as they are remembered: by their id, and in the order in which they ended.

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{AccountId, Digest, JobId, JobState, Micro, Timestamp};

use super::{Control, Draft};
use crate::command::{Refused, Reply};
use crate::event::{EventBody, JOBS_FORGOTTEN_MAX};

/// What is remembered of a job that has ended, so that its key and its late reports still mean something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Who paid.
    pub account: AccountId,
    /// Of the specification as the client sent it.
    pub spec_digest: Digest,
    /// How it ended.
    pub state: JobState,
    /// What was held for it.
    pub hold: Micro,
    /// Number of the event that ended it.
    pub finished: u64,
    /// Its moment: by this, what is kept of the job grows old.
    pub at: Timestamp,
}

/// Every ended job that is remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct EndedJobs {
    jobs: BTreeMap<JobId, EndedJob>,
    /// Exactly the same jobs by the numbers of the events that ended them.
    order: BTreeMap<u64, JobId>,
}

impl EndedJobs {
    /// Those of a snapshot.
    pub(super) fn restore(ended: Vec<(JobId, EndedJob)>) -> Self {
        let order = ended.iter().map(|(id, job)| (job.finished, *id)).collect();
        Self { jobs: ended.into_iter().collect(), order }
    }

    pub(super) fn get(&self, job: &JobId) -> Option<&EndedJob> {
        self.jobs.get(job)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&JobId, &EndedJob)> {
        self.jobs.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Oldest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (JobId, &EndedJob)> {
        self.order.values().filter_map(|id| Some((*id, self.jobs.get(id)?)))
    }

    pub(super) fn insert(&mut self, id: JobId, job: EndedJob) {
        self.order.insert(job.finished, id);
        self.jobs.insert(id, job);
    }

    pub(super) fn forget(&mut self, forgotten: &[JobId]) {
        for job in forgotten.iter().filter_map(|id| self.jobs.remove(id)) {
            self.order.remove(&job.finished);
        }
    }

    /// Whether the order is that of exactly the jobs that are there.
    pub(super) fn agree(&self) -> bool {
        let known = |(finished, id): (&u64, &JobId)| self.jobs.get(id).is_some_and(|job| job.finished == *finished);
        self.order.len() == self.jobs.len() && self.order.iter().all(known)
    }
}

impl Control {
    /// Forgets those of the jobs that have ended, as many as one event may name.
    pub(super) fn forget_jobs(&self, jobs: Vec<JobId>, draft: &mut Draft) -> Result<Reply, Refused> {
        // Whatever is wrong, what is remembered may be needed to put it right.
        self.frozen()?;
        // What ended in this very moment may be in the same batch: nobody was told yet that it has ended.
        let is_old = |id: &JobId| self.ended.get(id).is_some_and(|job| job.at < draft.now);
        let mut seen = BTreeSet::new();
        let old = jobs.into_iter().filter(|id| is_old(id) && seen.insert(*id));
        let jobs: Vec<JobId> = old.take(JOBS_FORGOTTEN_MAX).collect();
        let count = jobs.len();
        if count > 0 {
            draft.emit(EventBody::JobsForgotten { jobs });
        }
        Ok(Reply::Forgotten { jobs: count })
    }
}
