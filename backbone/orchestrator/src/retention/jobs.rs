//! For how long the records of ended jobs are kept: up to an age, and so many of them; the oldest go first, some at a time with
//! other work in between.
//!
//! A job is forgotten by an event, for good: engine, feed and view have nothing of it afterwards, and its key may make another job
//! under the same id. So whatever else bears its id goes before that, and the order makes a crash harmless: what was kept for
//! running it (`dispatch`), then its output, under the mark that `removed` keeps, then the folder on disk, and only then the event. What
//! somebody reads of is passed over until he is done.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use modchain_core::event::JOBS_FORGOTTEN_MAX;
use modchain_core::{Command, Control, Refused, Reply};
use modchain_types::{JobId, Span, Timestamp};

use super::{Reading, Retention};
use crate::engine::EngineHandle;
use crate::feed::FeedHandle;
use crate::store::space::{Level, Space};

/// What comes between two events that forget jobs: everything else, for so long at least, and the view's writing of the first.
const PAUSE: Duration = Duration::from_millis(100);

/// How many records of ended jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepJobs {
    /// No older than this.
    pub age: Span,
    /// At most so many, but for those of the last minutes.
    pub count: usize,
    /// Younger than this they stay, however many there are: whoever has just run a job wants to see it.
    pub fresh: Span,
}

impl KeepJobs {
    /// Default age: 90 days.
    pub const AGE: Span = Span::from_secs(90 * 24 * 3600);
    /// Least age that can be set: for trying it out.
    pub const AGE_MIN: Span = Span::from_secs(1);
    /// Default count: a million, which take some hundreds of megabytes of the engine's memory.
    pub const COUNT: usize = 1_000_000;
    /// What is kept when nothing is said; fresh are ten minutes.
    pub const USUAL: Self = Self { age: Self::AGE, count: Self::COUNT, fresh: Span::from_secs(600) };

    /// The oldest jobs that are to be forgotten, as many as go at once, but for `busy` ones and those that were ended behind the
    /// event `upto`. And when the oldest of all is due by its age.
    fn due(&self, control: &Control, now: Timestamp, busy: &BTreeSet<JobId>, upto: u64) -> Due {
        let mut too_many = control.ended_count().saturating_sub(self.count);
        let mut due = Due { next: control.ended_oldest().next().map(|(_, job)| job.at + self.age), ..Due::default() };
        for (id, job) in control.ended_oldest() {
            let lived = now.since(job.at);
            let is_due = lived >= self.age || (too_many > 0 && lived >= self.fresh);
            if !is_due || job.finished > upto || due.jobs.len() == JOBS_FORGOTTEN_MAX {
                break;
            }
            too_many = too_many.saturating_sub(1);
            if !busy.contains(&id) {
                due.jobs.push(id);
                due.upto = job.finished;
            }
        }
        due
    }
}

#[derive(Debug, Default)]
struct Due {
    jobs: Vec<JobId>,
    /// The event that ended the last of them.
    upto: u64,
    next: Option<Timestamp>,
}

/// What one go of forgetting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// How many jobs are forgotten.
    pub jobs: usize,
    /// The last event by then.
    pub upto: u64,
    /// When the oldest ended job is due, if it makes sense to try again then.
    pub next: Option<Timestamp>,
}

impl Retention {
    /// What is kept, in one sentence for members.
    pub fn jobs_rule(&self) -> String {
        let KeepJobs { age, count, .. } = self.shared.jobs;
        format!("records of ended jobs are kept for {age}, up to {count} of them")
    }

    /// The job is not forgotten as long as this is there; `None` if that is happening at this very moment.
    pub fn hold(&self, job: JobId) -> Option<Reading> {
        let state = &mut *self.shared.state();
        if state.forgetting.contains(&job) {
            return None;
        }
        *state.readers.entry(job).or_default() += 1;
        Some(Reading { shared: Arc::clone(&self.shared), job })
    }

    /// Forgets some of the jobs that are to be, oldest first, once nothing else is left of them.
    pub async fn forget(&self, engine: &EngineHandle, space: &Space) -> anyhow::Result<Forgotten> {
        if engine.frozen().is_some() {
            return Ok(Forgotten::default());
        }
        // Left over from a crash, or from somebody who has read it.
        self.remove_doomed().await;
        let (keep, busy, closed) = (self.shared.jobs, self.busy(), self.shared.state().closed);
        let due = move |control: &Control, now| {
            // It would be refused, and what they printed must not go for nothing.
            let is_sound = control.problems().is_empty();
            if is_sound { keep.due(control, now, &busy, closed) } else { Due::default() }
        };
        let Due { jobs, upto, next } = tokio::select! {
            biased;
            _ = engine.no_room() => return Ok(Forgotten::default()),
            due = engine.query(due) => due?,
        };
        // Whatever it was told to forget before this question it has decided by now.
        self.shared.state().forgetting.clear();
        if jobs.is_empty() {
            return Ok(Forgotten { jobs: 0, upto: closed, next });
        }
        let last_kept = self.shared.state().kept.range(..=upto).next_back().map(|(finished, _)| *finished);
        if let Some(last_kept) = last_kept {
            self.doom(last_kept, space).await.context("the mark of removed output")?;
        }
        self.remove_doomed().await;
        let jobs = self.claim(jobs);
        let Some(told) = self.forget_claimed(engine, jobs).await.transpose() else {
            return Ok(Forgotten::default()); // they stay claimed until it has answered something else
        };
        self.shared.state().forgetting.clear();
        let (jobs, upto) = told?;
        Ok(Forgotten { jobs, upto, next: next.filter(|_| jobs > 0) })
    }

    /// Jobs that must not be forgotten now: somebody reads of them, or their output is still there.
    fn busy(&self) -> BTreeSet<JobId> {
        let state = self.shared.state();
        state.readers.keys().chain(&state.doomed).copied().collect()
    }

    /// From here on nobody can hold these jobs; those that are busy by now are left out.
    fn claim(&self, mut jobs: Vec<JobId>) -> Vec<JobId> {
        let state = &mut *self.shared.state();
        jobs.retain(|job| !state.readers.contains_key(job) && !state.doomed.contains(job));
        state.forgetting = jobs.iter().copied().collect();
        jobs
    }

    /// Forgets them once no folder of theirs is on disk; tells how many, and the last event by then. `None` if the engine waits
    /// for room, and may forget them yet.
    async fn forget_claimed(&self, engine: &EngineHandle, jobs: Vec<JobId>) -> anyhow::Result<Option<(usize, u64)>> {
        let dir = self.shared.dir.clone();
        let (with_folder, mut without): (Vec<JobId>, Vec<JobId>) = tokio::task::spawn_blocking(move || {
            jobs.into_iter().partition(|job| !matches!(dir.join(job.to_string()).try_exists(), Ok(false)))
        })
        .await?;
        // What came after its job had ended, or could not be measured then.
        for job in with_folder {
            match self.shared.store.remove(job).await {
                Ok(()) => without.push(job),
                Err(error) => tracing::warn!(%job, %error, "the output of an ended job cannot be removed"),
            }
        }
        if without.is_empty() {
            return Ok(Some((0, 0)));
        }
        // A loss of power must not bring a folder back whose job nobody knows any more.
        let dir = self.shared.dir.clone();
        let synced = tokio::task::spawn_blocking(move || File::open(dir)?.sync_all()).await?;
        synced.context("the folder of outputs cannot be synced")?;
        let (reply, upto) = tokio::select! {
            told = engine.command_numbered(Command::ForgetJobs { jobs: without }) => told?,
            _ = engine.no_room() => return Ok(None),
        };
        match reply {
            Reply::Forgotten { jobs } => Ok(Some((jobs, upto))),
            // The engine says itself what is wrong.
            Reply::Refused(Refused::Frozen { .. }) => Ok(Some((0, upto))),
            reply => bail!("the engine answered {reply:?}"),
        }
    }
}

/// Waits until the view has come as far as this event, so that it is never far behind with forgetting, and for a moment at least. But
/// not where there is little room: the view may wait for just that, and whoever waits here makes it.
pub(super) async fn others_come_first(feed: &FeedHandle, upto: u64, space: &Space) {
    tokio::time::sleep(PAUSE).await;
    while feed.archived() < upto && feed.complaint().is_none() && space.level() == Level::Enough {
        tokio::time::sleep(PAUSE).await;
    }
}
