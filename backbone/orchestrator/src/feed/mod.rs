//! The feed: one task that owns the read model which consoles see.
//!
//! It is built from committed events alone (at the start from what the view keeps of them and the replay of those behind, then
//! batch by batch as the engine lets them out) and from two things that are not events: states of nodes, which follow from
//! silence, and heartbeats, of which the latest wins.
//! Nobody shares its state: everything is asked by a message and answered with a view that the asker may see.
//!
//! It must never be asked by the engine, and must never decide anything: what it shows may be a moment old.

mod archive;
mod changes;
mod describe;
mod history;
mod job;
mod kept;
mod known;
mod model;
mod query;
mod statement;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_core::{Actor, Event};
use modchain_types::{
    AccountId, Asset, AttemptId, Identity, IdentityId, JobId, JournalId, Name, NodeId, NodeState, OutputLengths, Span,
    Text, Timestamp,
};
use modchain_wire::console::{NodesPage, NodesQuery};
use modchain_wire::view::{AccountView, EventView, NodeHistoryView, StatusView};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::engine::OutletReceiver;
use crate::store::space::{Level, Space};
use crate::store::view::{Rows, View, ViewError};

pub use archive::{Archivist, FeedError};
pub use changes::{Change, Cursor, SnapshotPlace};
pub use history::{Pulse, Tick};
pub use query::{EventFilter, LedgerFilter, Unresolved};

use model::Model;

/// Questions that may wait for the feed; more make their askers wait.
const QUESTIONS_MAX: usize = 256;
/// Events of the journal whose rows are written to the view at once.
const REPLAYED_AT_ONCE: usize = 4096;
/// Events that are kept in memory, with all that they led to, when the view cannot be written: some hundred megabytes. Then the
/// feed ends, and the process with it: the next start writes them, or says why it cannot.
const EVENTS_KEPT_WITHOUT_VIEW: usize = 200_000;
/// Events in one page of an event stream.
pub const EVENTS_PAGE: usize = 200;
/// Measurements and bare watermarks reach readers this often: often enough for a screen, seldom enough for a thousand nodes.
const TICK: Duration = Duration::from_secs(1);

/// The feed has stopped; the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the feed has stopped")]
pub struct FeedGone;

/// How a job stands, for a reader of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobStanding {
    /// Number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// Whether nothing can change any more.
    pub ended: bool,
    /// Changes with everything about the job.
    pub revision: u64,
}

type Question = Box<dyn FnOnce(&mut Feed) + Send>;

/// The one way to ask the feed. Cheap to clone.
#[derive(Clone)]
pub struct FeedHandle {
    questions: mpsc::Sender<Question>,
    /// What has ended.
    view: Arc<View>,
    /// Places for those who ask it: they read from the disk on threads that others need, too.
    places: Arc<Semaphore>,
}

/// The read model before and while it is served.
pub struct Feed {
    model: Model,
    view: Arc<View>,
    started: Instant,
    /// The moment of the last event and when it came: what "now" is on the timeline follows from both.
    last: (Timestamp, Instant),
    waiters: Vec<Waiter>,
    /// The room where the view is, if somebody looks after it.
    space: Option<Arc<Space>>,
}

/// A question that is answered when something happens. Bounded by the streams that consoles may have open: each waits for
/// one thing.
enum Waiter {
    Change {
        actor: Actor,
        only: Option<JobId>,
        cursor: Cursor,
        reply: oneshot::Sender<Change>,
    },
    Events {
        actor: Actor,
        filter: EventFilter,
        after: u64,
        reply: oneshot::Sender<(Vec<EventView>, u64)>,
    },
    /// A job that is not here is answered with the last event that was looked at: the view may have it, or the engine be ahead.
    Standing {
        job: JobId,
        revision: u64,
        reply: oneshot::Sender<Result<JobStanding, u64>>,
    },
    Reached {
        number: u64,
        reply: oneshot::Sender<()>,
    },
}

impl Feed {
    /// Knows what the view in `dir` knows: give it the journal behind [`Feed::upto`]. Where there is no view that can be used,
    /// that is nothing yet. Blocks.
    pub fn open(journal: JournalId, asset: Asset, dir: &Path) -> io::Result<Self> {
        let mut view = View::open(dir, journal)?;
        let model = match kept::restore(journal, asset, &view) {
            Ok(model) => model,
            Err(why) => {
                tracing::warn!(%why, "the view of ended jobs is made anew from the journal");
                drop(view);
                view = View::anew(dir, journal)?;
                Model::new(journal, asset)
            }
        };
        let now = Instant::now();
        let last = (Timestamp::ZERO, now);
        Ok(Self { model, view: Arc::new(view), started: now, last, waiters: Vec::new(), space: None })
    }

    /// Leaves the last bytes of the disk to the journal: what has ended stays in memory meanwhile, up to a bound.
    pub fn within(self, space: Arc<Space>) -> Self {
        Self { space: Some(space), ..self }
    }

    /// The last event that it knows.
    pub fn upto(&self) -> u64 {
        self.model.upto()
    }

    /// Where it puts what has ended.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes an event of the journal, in order, before [`Feed::start`]; after an error, too: what the view lacks stays here. Blocks.
    pub fn replay(&mut self, event: &Event) -> Result<(), ViewError> {
        self.take(event);
        if self.model.rows_waiting() >= REPLAYED_AT_ONCE { self.write_replayed() } else { Ok(()) }
    }

    /// Writes what the replay led to, if there is room. Call it when the replay is over. Blocks.
    pub fn write_replayed(&mut self) -> Result<(), ViewError> {
        if self.holds_back() {
            return Ok(());
        }
        let mut written = Ok(());
        while written.is_ok()
            && let Some(rows) = self.model.take_rows().inspect_err(|error| self.view.fail(error))?
        {
            written = self.view.apply(&rows);
        }
        self.model.forget(self.view.applied());
        written
    }

    /// Serves. The task ends by itself after the engine has: its outlet tells. The thread that writes the view ends after it.
    pub fn start(
        mut self,
        events: OutletReceiver<Arc<Vec<Event>>>,
    ) -> io::Result<(FeedHandle, JoinHandle<()>, Archivist)> {
        self.model.replayed();
        let view = Arc::clone(&self.view);
        let (writer, archivist) = archive::write_behind(Arc::clone(&view))?;
        let (questions, inbox) = mpsc::channel(QUESTIONS_MAX);
        Ok((FeedHandle::new(questions, view), tokio::spawn(self.serve(events, inbox, writer)), archivist))
    }

    /// Whether very much waits for the view.
    fn is_crowded(&self) -> bool {
        self.model.rows_waiting() > archive::EVENTS_WAITING_MAX
    }

    /// Whether the view is to wait for room: after one failed write it would be of no use until the next start.
    fn holds_back(&self) -> bool {
        self.space.as_ref().is_some_and(|space| space.level() == Level::Full) && !self.is_crowded()
    }

    /// Hands what has ended to the view's writer, and forgets what the view has. Waits for the writer only when very much
    /// has gathered; without a writer everything stays.
    async fn hand_over(&mut self, writer: &mpsc::Sender<Rows>) {
        while self.model.rows_waiting() > 0 && !self.holds_back() {
            let crowded = self.is_crowded();
            let place = if crowded { writer.reserve().await.ok() } else { writer.try_reserve().ok() };
            if place.is_none() && !writer.is_closed() {
                break;
            }
            match (self.model.take_rows(), place) {
                (Ok(Some(rows)), Some(place)) => place.send(rows),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    self.view.fail(&error);
                    break;
                }
            }
        }
        self.model.forget(self.view.applied());
    }

    async fn serve(
        mut self,
        mut events: OutletReceiver<Arc<Vec<Event>>>,
        mut questions: mpsc::Receiver<Question>,
        writer: mpsc::Sender<Rows>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.view.failure().is_some() && self.model.events.len() > EVENTS_KEPT_WITHOUT_VIEW {
                tracing::error!("no more can be kept in memory of what the view of ended jobs lacks; stopping");
                return;
            }
            tokio::select! {
                batch = events.recv() => {
                    let Some(batch) = batch else {
                        if self.holds_back() {
                            return; // the next start writes it
                        }
                        while let (Ok(place), Ok(Some(rows))) = (writer.reserve().await, self.model.take_rows()) {
                            place.send(rows);
                        }
                        return;
                    };
                    batch.iter().for_each(|event| self.take(event));
                    self.wake(false);
                    self.hand_over(&writer).await;
                }
                Some(question) = questions.recv() => question(&mut self),
                _ = tick.tick() => {
                    self.wake(true);
                    self.hand_over(&writer).await;
                }
            }
        }
    }

    fn take(&mut self, event: &Event) {
        self.last = (event.at, Instant::now());
        self.model.apply(event);
    }

    fn now(&self) -> Timestamp {
        self.last.0 + Span::from(self.last.1.elapsed())
    }

    /// Answers every waiter that has something to hear of; `due` tells that small changes have waited long enough.
    fn wake(&mut self, due: bool) {
        let waiters = std::mem::take(&mut self.waiters);
        self.waiters = waiters.into_iter().filter_map(|waiter| self.answer(waiter, due)).collect();
    }

    /// Answers now or gives the waiter back. One whose asker is gone is dropped.
    fn answer(&self, waiter: Waiter, due: bool) -> Option<Waiter> {
        match waiter {
            Waiter::Change { actor, only, cursor, reply } => {
                if reply.is_closed() {
                    return None;
                }
                match self.model.changed_since(&actor, only, cursor, self.now(), due) {
                    Some(change) => {
                        let _ = reply.send(change);
                        None
                    }
                    None => Some(Waiter::Change { actor, only, cursor, reply }),
                }
            }
            Waiter::Events { actor, filter, after, reply } => {
                if reply.is_closed() {
                    return None;
                }
                let (found, upto) = self.model.events_after(&actor, &filter, after, EVENTS_PAGE);
                if found.is_empty() {
                    return Some(Waiter::Events { actor, filter, after: upto, reply });
                }
                let _ = reply.send((found, upto));
                None
            }
            Waiter::Standing { job, revision, reply } => {
                if reply.is_closed() {
                    return None;
                }
                let standing = self.standing(job).ok_or(self.model.upto());
                if standing.is_ok_and(|standing| standing.revision <= revision) {
                    return Some(Waiter::Standing { job, revision, reply });
                }
                let _ = reply.send(standing);
                None
            }
            Waiter::Reached { number, reply } => {
                if self.model.upto() < number {
                    return (!reply.is_closed()).then_some(Waiter::Reached { number, reply });
                }
                let _ = reply.send(());
                None
            }
        }
    }

    fn standing(&self, job: JobId) -> Option<JobStanding> {
        self.model.jobs.get(&job).map(|job| JobStanding {
            attempt: job.newest_attempt(),
            ended: job.ended().is_some(),
            revision: job.changed(),
        })
    }

    fn park(&mut self, waiter: Waiter) {
        if let Some(waiter) = self.answer(waiter, false) {
            self.waiters.push(waiter);
        }
    }
}

impl FeedHandle {
    async fn tell(&self, question: impl FnOnce(&mut Feed) + Send + 'static) -> Result<(), FeedGone> {
        self.questions.send(Box::new(question)).await.map_err(|_| FeedGone)
    }

    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Feed) -> R + Send + 'static,
    ) -> Result<R, FeedGone> {
        let (reply, answer) = oneshot::channel();
        self.tell(move |feed| {
            let _ = reply.send(question(feed));
        })
        .await?;
        answer.await.map_err(|_| FeedGone)
    }

    async fn wait<R: Send + 'static>(
        &self,
        waiter: impl FnOnce(oneshot::Sender<R>) -> Waiter + Send + 'static,
    ) -> Result<R, FeedGone> {
        let (reply, answer) = oneshot::channel();
        self.tell(move |feed| feed.park(waiter(reply))).await?;
        answer.await.map_err(|_| FeedGone)
    }

    /// The state of a node as the engine derives it from silence.
    pub async fn node_changed(&self, node: NodeId, state: NodeState) -> Result<(), FeedGone> {
        self.tell(move |feed| {
            feed.model.node_changed(node, state);
            feed.wake(false);
        })
        .await
    }

    /// How far the preparation of an attempt is.
    pub async fn preparing(&self, attempt: AttemptId, message: Text<256>) -> Result<(), FeedGone> {
        self.tell(move |feed| {
            feed.model.preparing(attempt, message);
            feed.wake(false);
        })
        .await
    }

    /// A heartbeat. Not taken when the feed is busy: the next one is as good, but for the ticks, which are to be kept until
    /// then. Tells whether it was taken.
    pub fn heartbeat(&self, node: NodeId, pulse: Pulse) -> bool {
        self.questions.try_send(Box::new(move |feed| feed.model.heartbeat(node, pulse))).is_ok()
    }

    /// How much output of an attempt is on disk. Dropped when the feed is busy: the next one is as good, and the job's end
    /// brings the final lengths.
    pub fn output(&self, attempt: AttemptId, stored: OutputLengths) {
        let _ = self.questions.try_send(Box::new(move |feed| feed.model.output(attempt.job, attempt.number, stored)));
    }

    /// A node had no connection any more after the event `upto`. Nothing changes if one was let in since.
    pub async fn disconnected(&self, node: NodeId, upto: u64) -> Result<(), FeedGone> {
        self.tell(move |feed| {
            feed.model.disconnected(node, upto);
            feed.wake(false);
        })
        .await
    }

    /// Waits until the feed has come as far as this event.
    pub async fn reached(&self, number: u64) -> Result<(), FeedGone> {
        self.wait(move |reply| Waiter::Reached { number, reply }).await
    }

    /// The identity of a certificate, if it is known.
    pub async fn identity(&self, id: IdentityId) -> Result<Option<Identity>, FeedGone> {
        self.ask(move |feed| feed.model.identities.get(&id).cloned()).await
    }

    /// A page of nodes by name.
    pub async fn nodes(&self, query: NodesQuery) -> Result<NodesPage, FeedGone> {
        self.ask(move |feed| feed.model.nodes_page(&query)).await
    }

    /// The node of this name, with what is kept of its GPUs; `None` if there is none.
    pub async fn node_history(&self, name: Name) -> Result<Option<NodeHistoryView>, FeedGone> {
        self.ask(move |feed| feed.model.node_history(&name)).await
    }

    /// The id of the node of this name; `None` if there is none.
    pub async fn node_named(&self, name: Name) -> Result<Option<NodeId>, FeedGone> {
        self.ask(move |feed| feed.model.node_names.get(&name).copied()).await
    }

    /// An account; `None` if there is none. The caller has checked that the asker may see it.
    pub async fn account(&self, account: AccountId) -> Result<Option<AccountView>, FeedGone> {
        self.ask(move |feed| feed.model.account_view(&account)).await
    }

    /// How things are. Problems of the engine are the caller's to add.
    pub async fn status(&self, actor: &Actor) -> Result<StatusView, FeedGone> {
        let actor = actor.clone();
        self.ask(move |feed| feed.model.status(&actor, Span::from(feed.started.elapsed()), feed.now())).await
    }

    /// What is wrong with the view of ended jobs, if anything, and what is to be done.
    pub fn complaint(&self) -> Option<String> {
        self.view.failure().map(|why| {
            format!(
                "what has ended stays in memory, because the view of it cannot be written ({why}); when there is room on the \
                 disk, restart the orchestrator: it catches up by itself, or makes the view anew"
            )
        })
    }

    /// The last event that the view of what has ended has come to.
    pub fn archived(&self) -> u64 {
        self.view.applied()
    }

    /// The number of the last event.
    pub async fn upto(&self) -> Result<u64, FeedGone> {
        self.ask(|feed| feed.model.upto()).await
    }

    /// Where a snapshot begins.
    pub async fn snapshot_start(&self) -> Result<SnapshotPlace, FeedGone> {
        self.ask(|feed| feed.model.snapshot_start()).await
    }

    /// A cursor for a reader that saw everything up to an event; `None` if it must start over.
    pub async fn resume(&self, journal: JournalId, upto: u64) -> Result<Option<Cursor>, FeedGone> {
        self.ask(move |feed| (journal == feed.model.journal).then(|| feed.model.resume(upto)).flatten()).await
    }
}
