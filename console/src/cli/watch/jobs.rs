//! `jobs --watch`.

use std::cmp::Reverse;

use modchain_types::{Asset, JobId};
use modchain_wire::console::JobsQuery;
use modchain_wire::view::JobView;
use serde::Serialize;

use super::super::docs;
use super::super::jobs::details;
use super::super::table::{Columns, Look, Table};
use super::Watched;
use crate::client::mirror::Mirror;
use crate::filter::Filter;

/// Jobs, the newest first. One that ends, and is no longer meant for that reason, is shown once more.
pub(crate) struct JobsWatch {
    pub(crate) query: JobsQuery,
    /// What else they must be like.
    pub(crate) filter: Filter,
    pub(crate) columns: Columns<JobView>,
    pub(crate) look: Look,
    pub(crate) limit: usize,
    pub(crate) asset: Asset,
}

/// Whether a job is one of those that a query asks for.
fn fits(query: &JobsQuery, job: &JobView) -> bool {
    (query.ended || !job.state.is_ended())
        && (query.states.is_empty() || query.states.contains(&job.state))
        && query.account.as_ref().is_none_or(|account| *account == job.account)
        && query.labels.iter().all(|(key, value)| job.labels.get(key) == Some(value))
        && (job.name.starts_with(query.prefix.as_str()) || job.id.to_string().starts_with(query.prefix.as_str()))
        && query.since.is_none_or(|since| job.created_at >= since)
}

impl Watched for JobsWatch {
    type Item = JobView;

    fn items(&self, mirror: &Mirror) -> Vec<(String, JobView)> {
        let look = self.look.now();
        let is_meant = |job: &&JobView| fits(&self.query, job) && self.columns.fits(&self.filter, job, &look);
        let mut fitting: Vec<&JobView> = mirror.jobs.values().map(|job| &**job).filter(is_meant).collect();
        fitting.sort_by_key(|job| (Reverse(job.created_at), job.id));
        self.columns.sort(&mut fitting, &look);
        fitting.into_iter().take(self.limit).map(|job| (job.id.to_string(), job.clone())).collect()
    }

    fn newest(&self, mirror: &Mirror, name: &str) -> Option<JobView> {
        mirror.jobs.get(&name.parse::<JobId>().ok()?).map(|job| JobView::clone(job))
    }

    fn screen(&self, _mirror: &Mirror, items: &[JobView]) -> String {
        self.columns.table(items, &self.look.now()).render()
    }

    fn rows(&self, items: &[JobView]) -> Table {
        self.columns.table(items, &self.look.still())
    }

    fn document(&self, op: &'static str, item: &JobView) -> impl Serialize {
        docs::job_change(op, item, self.asset)
    }
}

/// Some jobs, until all of them have ended.
pub(crate) struct JobWatch {
    /// As they were when they were asked for: what has ended long ago is in no snapshot.
    pub(crate) jobs: Vec<JobView>,
    pub(crate) columns: Columns<JobView>,
    pub(crate) look: Look,
    pub(crate) asset: Asset,
}

impl Watched for JobWatch {
    type Item = JobView;

    fn items(&self, mirror: &Mirror) -> Vec<(String, JobView)> {
        let now = |job: &JobView| mirror.jobs.get(&job.id).map_or_else(|| job.clone(), |job| JobView::clone(job));
        self.jobs.iter().map(|job| (job.id.to_string(), now(job))).collect()
    }

    fn is_over(&self, items: &[JobView]) -> bool {
        items.iter().all(|job| job.state.is_ended())
    }

    fn screen(&self, _mirror: &Mirror, items: &[JobView]) -> String {
        let look = self.look.now();
        items.iter().map(|job| details(job, &look, self.asset)).collect::<Vec<_>>().join("\n")
    }

    fn rows(&self, items: &[JobView]) -> Table {
        self.columns.table(items, &self.look.still())
    }

    fn document(&self, op: &'static str, item: &JobView) -> impl Serialize {
        docs::job_change(op, item, self.asset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modchain_types::{JobState, List, Text, WallTime};

    use super::*;
    use crate::args::TableArgs;
    use crate::cli::docs::tests::ended_job;
    use crate::cli::jobs;

    #[test]
    fn the_newest_come_first_and_one_that_ended_is_found_once_more() {
        let columns = Columns::new(&jobs::COLUMNS, &TableArgs::default(), false).expect("columns");
        let look = Look { now: WallTime(0), utc: true, wide: false, short: false, still: false, csv: false };
        let filter = Filter::default();
        let watched = JobsWatch { query: jobs::live(), filter, columns, look, limit: 2, asset: Asset::Test };
        let mut mirror = Mirror::default();
        for number in 1..=4u8 {
            let id = JobId([number; 16]);
            let created_at = WallTime(i64::from(number));
            let state = if number == 3 { JobState::Completed } else { JobState::Running };
            mirror.jobs.insert(id, Arc::new(JobView { id, created_at, state, ..ended_job() }));
        }
        let ids: Vec<String> = watched.items(&mirror).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [JobId([4; 16]).to_string(), JobId([2; 16]).to_string()]);
        let ended = watched.newest(&mirror, &JobId([3; 16]).to_string()).expect("it is known");
        assert_eq!(ended.state, JobState::Completed);
        assert!(watched.newest(&mirror, &JobId([9; 16]).to_string()).is_none());
    }

    #[test]
    fn some_jobs_are_watched_as_they_are_now_until_all_have_ended() {
        let columns = Columns::new(&jobs::COLUMNS, &TableArgs::default(), false).expect("columns");
        let look = Look { now: WallTime(0), utc: true, wide: false, short: false, still: false, csv: false };
        let job = |number: u8, state| JobView { id: JobId([number; 16]), state, ..ended_job() };
        let asked = vec![job(1, JobState::Running), job(2, JobState::Completed)];
        let watched = JobWatch { jobs: asked, columns, look, asset: Asset::Test };
        let mut mirror = Mirror::default();
        let states = |mirror: &Mirror| -> Vec<JobState> {
            watched.items(mirror).into_iter().map(|(_, job)| job.state).collect()
        };
        let over = |mirror: &Mirror| {
            watched.is_over(&watched.items(mirror).into_iter().map(|(_, job)| job).collect::<Vec<_>>())
        };
        // Others are none of its business, and one that no snapshot has is what it was.
        mirror.jobs.insert(JobId([3; 16]), Arc::new(job(3, JobState::Running)));
        assert_eq!(states(&mirror), [JobState::Running, JobState::Completed]);
        assert!(!over(&mirror));
        mirror.jobs.insert(JobId([1; 16]), Arc::new(job(1, JobState::Failed)));
        assert_eq!(states(&mirror), [JobState::Failed, JobState::Completed]);
        assert!(over(&mirror));
    }

    #[test]
    fn a_query_means_the_same_jobs_here_as_at_the_orchestrator() {
        let job = ended_job();
        let all = || JobsQuery { ended: true, ..jobs::live() };
        assert!(fits(&all(), &job) && !fits(&jobs::live(), &job));
        let text = |text: &str| Text::new(text).expect("is short");
        let label = |value: &str| List::cut(vec![(Text::cut("sweep"), Text::cut(value))]);
        for (query, fitting) in [
            (JobsQuery { prefix: text("prim"), ..all() }, true),
            (JobsQuery { prefix: text(&job.id.to_string()[..6]), ..all() }, true),
            (JobsQuery { prefix: text("other"), ..all() }, false),
            (JobsQuery { account: Some(job.account.clone()), ..all() }, true),
            (JobsQuery { account: Some("bob".parse().expect("an account")), ..all() }, false),
            (JobsQuery { labels: label("a"), ..all() }, true),
            (JobsQuery { labels: label("b"), ..all() }, false),
            (JobsQuery { since: Some(job.created_at), ..all() }, true),
            (JobsQuery { since: Some(job.created_at.plus(modchain_types::Span::from_secs(1))), ..all() }, false),
        ] {
            assert_eq!(fits(&query, &job), fitting, "{query:?}");
        }
    }
}
