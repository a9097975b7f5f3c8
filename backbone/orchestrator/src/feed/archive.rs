//! What the feed and the view know together. The feed has what is live and new, the view what has ended; each question is asked
//! of both, and a job or an entry that moves from one to the other meanwhile is neither lost nor told twice.
//!
//! The view is written by a thread of its own. As long as it has not passed an event, what came of it stays in the feed.

use std::sync::Arc;
use std::thread;

use modchain_core::Actor;
use modchain_types::{AccountId, JobId, List};
use modchain_wire::console::{JobsPage, JobsQuery, LedgerPage, StateSnapshot};
use modchain_wire::view::{EventView, JobView};
use tokio::sync::{Semaphore, mpsc};

use super::changes::{Change, Cursor, SnapshotPlace};
use super::describe::Audience;
use super::known::Known;
use super::query::{EventFilter, JobsPart, LedgerFilter, Sight, Unresolved, one_of, page_limit, prefix_range};
use super::{EVENTS_PAGE, FeedGone, FeedHandle, JobStanding, Question, Waiter};
use crate::store::view::{EntriesWanted, JobRow, Rows, View, ViewError, Wanted};

/// Batches on their way to the view.
const BATCHES_MAX: usize = 16;
/// Events that are written at once.
const EVENTS_AT_ONCE: usize = 4096;
/// Events that may wait in the feed before it waits for the view.
pub(super) const EVENTS_WAITING_MAX: usize = 50_000;
/// Questions to the view that are answered at the same time, at least.
const QUESTIONS_AT_ONCE_MIN: usize = 4;
/// Jobs that one name may stand for.
const NAMESAKES_MAX: usize = 1_000;

/// Why a question about what has ended has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The feed has stopped.
    #[error(transparent)]
    Gone(#[from] FeedGone),
    /// The view failed.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// The thread that writes the view.
#[derive(Debug)]
pub struct Archivist(thread::JoinHandle<()>);

impl Archivist {
    /// Waits until everything is written, which the feed's end must come before. Blocks.
    pub fn join(self) {
        let _ = self.0.join(); // it says itself what went wrong
    }
}

/// Starts the thread that writes the view. It ends when the sender is dropped.
pub(super) fn write_behind(view: Arc<View>) -> std::io::Result<(mpsc::Sender<Rows>, Archivist)> {
    let (sender, mut batches) = mpsc::channel::<Rows>(BATCHES_MAX);
    let thread = thread::Builder::new().name("view".into()).spawn(move || {
        while let Some(mut rows) = batches.blocking_recv() {
            // What forgets jobs comes last in what is written at once: the same keys may make others behind it.
            while rows.events.len() < EVENTS_AT_ONCE
                && rows.forgotten.is_empty()
                && let Ok(more) = batches.try_recv()
            {
                rows.upto = more.upto;
                rows.jobs.extend(more.jobs);
                rows.forgotten.extend(more.forgotten);
                rows.entries.extend(more.entries);
                rows.events.extend(more.events);
                rows.kept.extend(more.kept);
            }
            if let Err(error) = view.apply(&rows) {
                // What it lacks stays in the feed's memory, and the next start writes it again.
                tracing::error!(%error, "what has ended is kept in memory from here on; restart the orchestrator");
                return;
            }
        }
        if let Err(error) = view.flush() {
            tracing::warn!(%error, "the next start writes it again");
        }
    })?;
    Ok((sender, Archivist(thread)))
}

impl FeedHandle {
    pub(super) fn new(questions: mpsc::Sender<Question>, view: Arc<View>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { questions, view, places: Arc::new(Semaphore::new((2 * cores).max(QUESTIONS_AT_ONCE_MIN))) }
    }

    /// Asks the view on a thread that may block.
    async fn ask_view<R: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> Result<R, ViewError> + Send + 'static,
    ) -> Result<R, FeedError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| FeedGone)?;
        let view = Arc::clone(&self.view);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = question(&view);
            drop(place);
            answer
        });
        Ok(asked.await.map_err(|_| FeedGone)??)
    }

    /// A job that has ended and is not forgotten, if the view has it.
    async fn row_kept(&self, job: JobId) -> Result<Option<JobRow>, FeedError> {
        // Before the view: it may have taken the job out by the time that it is asked.
        let gone = self.ask(move |feed| feed.model.forgotten_by(job)).await?;
        let row = self.ask_view(move |view| view.job(job)).await?;
        Ok(row.filter(|row| gone.is_none_or(|number| row.finished > number)))
    }

    /// A job that has ended, if the asker may see it.
    async fn ended_job(&self, actor: &Actor, job: JobId) -> Result<Option<JobRow>, FeedError> {
        Ok(self.row_kept(job).await?.filter(|row| actor.may_touch(&row.view.account)))
    }

    /// The job that the asker means by a name.
    pub async fn resolve(&self, actor: &Actor, text: &str) -> Result<Result<JobId, Unresolved>, FeedError> {
        let (asker, name) = (actor.clone(), text.to_owned());
        let here = self.ask(move |feed| (feed.model.candidates(&asker, &name), feed.model.being_forgotten()));
        let (mut found, gone) = here.await?;
        if let Ok(id) = text.parse::<JobId>() {
            if found.is_empty() {
                found.extend(self.ended_job(actor, id).await?.map(|row| row.view.id));
            }
            return Ok(one_of(found));
        }
        let of = (!actor.may_touch_all()).then(|| actor.account.clone());
        let name = text.to_owned();
        let ended = self.ask_view(move |view| {
            let range = prefix_range(name.strip_prefix("j-").unwrap_or(&name));
            let mut ended = match range {
                Some(range) => view.between(of.as_ref(), range, NAMESAKES_MAX)?,
                None => Vec::new(),
            };
            if !name.is_empty() {
                ended.extend(view.named(of.as_ref(), &name, NAMESAKES_MAX)?);
            }
            Ok(ended)
        });
        found.extend(ended.await?.into_iter().filter(|job| !gone.contains_key(job)));
        Ok(one_of(found))
    }

    /// A job, if the asker may see it.
    pub async fn job(&self, actor: &Actor, job: JobId) -> Result<Option<JobView>, FeedError> {
        let asker = actor.clone();
        let here =
            self.ask(move |feed| feed.model.visible_job(&asker, job).map(|job| job.view(&feed.model, feed.now())));
        match here.await? {
            Some(view) => Ok(Some(view)),
            None => Ok(self.ended_job(actor, job).await?.map(|row| row.view)),
        }
    }

    /// Who pays for a job, and the number of the event that made it, if the asker may see it.
    pub async fn origin(&self, actor: &Actor, job: JobId) -> Result<Option<(AccountId, u64)>, FeedError> {
        let asker = actor.clone();
        let here =
            self.ask(move |feed| feed.model.visible_job(&asker, job).map(|job| (job.account().clone(), job.number())));
        match here.await? {
            Some(origin) => Ok(Some(origin)),
            None => Ok(self.ended_job(actor, job).await?.map(|row| (row.view.account, row.number))),
        }
    }

    /// How a job stands; `None` if there is none.
    pub async fn standing(&self, job: JobId) -> Result<Option<JobStanding>, FeedError> {
        match self.ask(move |feed| feed.standing(job)).await? {
            Some(standing) => Ok(Some(standing)),
            None => self.ended_standing(job).await,
        }
    }

    /// An ended job never changes: whatever a reader has seen of it, this is newer.
    async fn ended_standing(&self, job: JobId) -> Result<Option<JobStanding>, FeedError> {
        let row = self.row_kept(job).await?;
        Ok(row.map(|row| JobStanding {
            attempt: row.view.attempts.last().map_or(0, |attempt| attempt.number),
            ended: true,
            revision: u64::MAX,
        }))
    }

    /// Waits until a job stands otherwise than at `revision`, which is 0 for who has not seen it yet: he waits for ever for one that
    /// never comes into being. `None` if the job was there and is forgotten.
    pub async fn standing_after(&self, job: JobId, revision: u64) -> Result<Option<JobStanding>, FeedError> {
        loop {
            let upto = match self.wait(move |reply| Waiter::Standing { job, revision, reply }).await? {
                Ok(standing) => return Ok(Some(standing)),
                Err(upto) => upto,
            };
            let ended = self.ended_standing(job).await?;
            if ended.is_some() || revision > 0 {
                return Ok(ended);
            }
            // The engine may be ahead of us.
            self.reached(upto + 1).await?;
        }
    }

    /// One frame of a snapshot, and where the next one begins.
    pub async fn snapshot_page(
        &self,
        actor: &Actor,
        only: Option<JobId>,
        place: SnapshotPlace,
    ) -> Result<(StateSnapshot, Option<SnapshotPlace>), FeedError> {
        let asker = actor.clone();
        let here = self.ask(move |feed| feed.model.snapshot_page(&asker, only, place, feed.now()));
        let (mut page, next) = here.await?;
        if let Some(job) = only.filter(|_| page.jobs.is_empty()) {
            page.jobs = self.ended_only(actor, job).await?;
        }
        Ok((page, next))
    }

    /// Waits for what changes after the cursor.
    pub async fn change(&self, actor: &Actor, only: Option<JobId>, cursor: Cursor) -> Result<Change, FeedError> {
        let asker = actor.clone();
        let mut change = self.wait(move |reply| Waiter::Change { actor: asker, only, cursor, reply }).await?;
        // Its end is told of, and it has left the memory since.
        if let (Change::Delta(delta, _), Some(job)) = (&mut change, only)
            && delta.jobs.is_empty()
            && !delta.events.is_empty()
        {
            delta.jobs = self.ended_only(actor, job).await?;
        }
        Ok(change)
    }

    async fn ended_only<const MAX: usize>(&self, actor: &Actor, job: JobId) -> Result<List<JobView, MAX>, FeedError> {
        Ok(List::cut(self.ended_job(actor, job).await?.map(|row| row.view).into_iter().collect()))
    }

    /// A page of jobs, newest first.
    pub async fn jobs(&self, actor: &Actor, query: JobsQuery) -> Result<JobsPage, FeedError> {
        let below = match query.after {
            // A job that the asker cannot see is no place to go on from: the answer is as for one that does not exist.
            Some(id) => self.origin(actor, id).await?.map_or(0, |(_, number)| number),
            None => u64::MAX,
        };
        let states: Vec<_> = query.states.iter().copied().filter(|state| state.is_ended()).collect();
        let wants_ended = (query.ended || !states.is_empty()) && (query.states.is_empty() || !states.is_empty());
        let account = match (&query.account, actor.may_touch_all()) {
            (account, true) => account.clone(),
            (_, false) => Some(actor.account.clone()),
        };
        // First, so that whatever the view does not have yet is found in the feed.
        let applied = if wants_ended { self.view.applied() } else { 0 };
        let (asker, limit, asked) = (actor.clone(), page_limit(&query), query.clone());
        let here = self.ask(move |feed| {
            let here = feed.model.jobs_part(&asker, &asked, below, applied, feed.now());
            (here, feed.model.being_forgotten())
        });
        let (here, gone) = here.await?;
        let ended = if wants_ended {
            let wanted = Wanted {
                account,
                states,
                labels: query.labels.iter().cloned().collect(),
                prefix: query.prefix.as_str().to_owned(),
                since: query.since,
                below,
                limit,
            };
            let found = self.ask_view(move |view| view.jobs(&wanted)).await?;
            let kept = |row: &JobRow| gone.get(&row.view.id).is_none_or(|number| row.finished > *number);
            let shown = found.items.len();
            let items: Vec<_> = found.items.into_iter().filter(kept).map(|row| (row.number, row.view)).collect();
            let total = found.total - (shown - items.len()) as u64;
            JobsPart { items, total, more: found.more }
        } else {
            JobsPart::default()
        };
        Ok(here.merge(ended, limit))
    }

    /// A page of a statement, newest first; `None` if there is no such account. The caller has checked that the asker may
    /// see it.
    pub async fn ledger(&self, account: AccountId, filter: LedgerFilter) -> Result<Option<LedgerPage>, FeedError> {
        let (of, asked) = (account.clone(), filter.clone());
        let here = self.ask(move |feed| {
            // Not before it is asked: it lets go of what the view has meanwhile.
            let applied = feed.view.applied();
            let made = asked.job.and_then(|job| feed.model.jobs.get(&job)).map(Known::number);
            Some((feed.model.ledger_part(&of, &asked, applied)?, made, applied))
        });
        let Some((here, made, applied)) = here.await? else { return Ok(None) };
        let limit = filter.page_limit();
        let older = |limit| {
            let below = filter.before.unwrap_or(u64::MAX).min(applied.saturating_add(1));
            let LedgerFilter { since, kind, job, .. } = filter;
            let (account, wanted) =
                (account.clone(), EntriesWanted { since, kind, job, made, below: Some(below), limit });
            self.ask_view(move |view| view.entries(&account, &wanted))
        };
        if here.more || here.items.len() >= limit {
            let more = here.more || !older(1).await?.0.is_empty();
            return Ok(Some(LedgerPage { more, ..here }));
        }
        let (older, more) = older(limit - here.items.len()).await?;
        let items = here.items.iter().cloned().chain(older).collect();
        Ok(Some(LedgerPage { account, items: List::cut(items), more }))
    }

    /// Events after `after` that there are already, one page, and how far the answer goes.
    pub async fn events(
        &self,
        actor: &Actor,
        filter: EventFilter,
        mut after: u64,
    ) -> Result<(Vec<EventView>, u64), FeedError> {
        loop {
            let (asker, asked) = (actor.clone(), filter.clone());
            let here = self.ask(move |feed| {
                let model = &feed.model;
                if after >= model.forgotten {
                    return Ok(model.events_after(&asker, &asked, after, EVENTS_PAGE));
                }
                let job = asked.job.and_then(|job| model.visible_job(&asker, job));
                Err((model.forgotten, job.map(|job| job.events().to_vec())))
            });
            let (forgotten, numbers) = match here.await? {
                Ok(page) => return Ok(page),
                Err(older) => older,
            };
            let numbers = match (numbers, filter.job) {
                (None, Some(job)) => Some(self.ended_job(actor, job).await?.map(|row| row.events).unwrap_or_default()),
                (numbers, _) => numbers,
            };
            let (asker, asked) = (actor.clone(), filter.clone());
            let (found, upto) = self
                .ask_view(move |view| {
                    let takes = |row: &crate::store::view::EventRow| {
                        Audience::from_row(row.audience.as_ref()).has(&asker) && asked.takes(&row.view)
                    };
                    let Some(numbers) = numbers else {
                        return view.events(after, forgotten, asked.since, EVENTS_PAGE, takes);
                    };
                    let mut found = Vec::new();
                    for number in numbers.into_iter().filter(|number| *number > after && *number <= forgotten) {
                        found.extend(view.events(number - 1, number, None, 1, takes)?.0);
                        if found.len() == EVENTS_PAGE {
                            return Ok((found, number));
                        }
                    }
                    Ok((found, forgotten))
                })
                .await?;
            // Nothing moves on where the view lacks what it should have: better to go on than to ask for ever.
            after = if upto > after { upto } else { forgotten };
            if !found.is_empty() {
                return Ok((found, after));
            }
        }
    }

    /// Waits for events after `after`: at least one.
    pub async fn events_wait(
        &self,
        actor: &Actor,
        filter: EventFilter,
        after: u64,
    ) -> Result<(Vec<EventView>, u64), FeedError> {
        let (found, after) = self.events(actor, filter.clone(), after).await?;
        if !found.is_empty() {
            return Ok((found, after));
        }
        let actor = actor.clone();
        Ok(self.wait(move |reply| Waiter::Events { actor, filter, after, reply }).await?)
    }
}
