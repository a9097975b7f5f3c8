//! Readers of a job that the feed has let go of, because the view has it or because it is forgotten.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::model::ENDED_KEPT;
use super::super::{Feed, FeedHandle, Waiter};
use super::*;
use crate::store::space::{Marks, Room, Space};
use crate::store::view::{View, ViewError};

const SOON: Duration = Duration::from_secs(60);

/// A feed whose events the test makes.
struct Served {
    feed: FeedHandle,
    job: JobId,
    _dir: tempfile::TempDir,
}

impl Served {
    /// Alice has one job.
    fn start() -> Self {
        Self::within(None)
    }

    fn within(space: Option<Arc<Space>>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let view = Arc::new(View::open(&dir.path().join("view"), JournalId([7; 16])).expect("opens"));
        let mut world = World::new();
        let job = world.submit("alice", "mine");
        let now = Instant::now();
        let World { model, at } = world;
        let mut feed =
            Feed { model, view: Arc::clone(&view), started: now, last: (at, now), waiters: Vec::new(), space };
        let (questions, mut inbox) = mpsc::channel::<super::super::Question>(1);
        tokio::spawn(async move {
            while let Some(question) = inbox.recv().await {
                question(&mut feed);
            }
        });
        Self { feed: FeedHandle::new(questions, view), job, _dir: dir }
    }

    /// Events happen, and the view has passed them.
    async fn happen(&self, what: impl FnOnce(&mut World) + Send + 'static) {
        let happen = |feed: &mut Feed| {
            let model = mem::replace(&mut feed.model, Model::new(JournalId([7; 16]), Asset::Test));
            let mut world = World { model, at: feed.last.0 };
            what(&mut world);
            (feed.model, feed.last) = (world.model, (world.at, Instant::now()));
            feed.write_replayed().expect("the view is written");
        };
        self.feed.ask(happen).await.expect("it is there");
    }

    /// So many jobs of Alice end that the feed lets go of those that ended before.
    async fn end_others(&self) {
        self.happen(|world| {
            for index in 0..=ENDED_KEPT {
                let other = world.submit("alice", &format!("k{index}"));
                world.finish(other, 0, 0);
            }
        })
        .await;
    }

    /// The job ends, and so many after it that the feed lets go of it.
    async fn end(&self) {
        let job = self.job;
        self.happen(move |world| world.finish(job, 0, 0)).await;
        self.end_others().await;
        let here = self.feed.ask(move |feed| feed.standing(job)).await;
        assert!(here.expect("it is there").is_none(), "the feed has let go of it");
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("soon")
}

#[tokio::test]
async fn whoever_asks_how_a_job_stands_hears_of_its_end_or_that_it_is_gone() {
    let served = Served::start();
    let (feed, job) = (&served.feed, served.job);
    let seen = feed.standing(job).await.expect("answers").expect("it is there");
    served.end().await;
    // As after the view was asked in vain.
    let revision = seen.revision;
    let upto = soon(feed.wait(move |reply| Waiter::Standing { job, revision, reply })).await.expect("answers");
    assert_eq!(upto, Err(feed.upto().await.expect("answers")));
    for revision in [0, seen.revision] {
        let ended = soon(feed.standing_after(job, revision)).await.expect("answers").expect("the view has it");
        assert!(ended.ended, "{ended:?}");
    }
    served.happen(move |world| world.event(EventBody::JobsForgotten { jobs: vec![job] })).await;
    assert_eq!(soon(feed.standing_after(job, seen.revision)).await, Ok(None));
}

#[tokio::test]
async fn a_reader_that_is_ahead_of_the_feed_waits_for_the_job() {
    let served = Served::start();
    let later = JobId::derive(&account("alice"), &"later".parse().expect("a key"));
    let feed = served.feed.clone();
    let waiting = tokio::spawn(async move { feed.standing_after(later, 0).await });
    // Something else happens first.
    for (owner, key) in [("bob", "other"), ("alice", "later")] {
        let submit = move |world: &mut World| {
            world.submit(owner, key);
        };
        served.happen(submit).await;
    }
    served.feed.tell(|feed| feed.wake(true)).await.expect("it is there");
    let standing = soon(waiting).await.expect("no panic").expect("answers").expect("it has come");
    assert!(!standing.ended);
}

#[tokio::test]
async fn a_job_that_ended_and_was_let_go_of_is_in_its_own_snapshot_and_delta() {
    let served = Served::start();
    let (feed, only, alice) = (&served.feed, Some(served.job), client("alice"));
    let start = feed.snapshot_start().await.expect("answers");
    served.end().await;
    let cursor = start.cursor;
    let (page, _) = feed.snapshot_page(&alice, only, start).await.expect("answers");
    assert!(page.last && page.jobs[0].id == served.job && page.jobs[0].state.is_ended(), "{page:?}");
    let (page, _) =
        feed.snapshot_page(&client("bob"), only, feed.snapshot_start().await.expect("answers")).await.expect("answers");
    assert!(page.jobs.is_empty(), "it is not his");
    match soon(feed.change(&alice, only, cursor)).await.expect("answers") {
        Change::Delta(delta, _) => {
            assert_eq!((delta.jobs.len(), delta.events.len()), (1, 1));
            assert!(delta.jobs[0].id == served.job && delta.jobs[0].state.is_ended());
        }
        Change::Reset => panic!("one event is not too much"),
    }
}

#[tokio::test]
async fn the_view_waits_while_the_last_bytes_are_the_journals() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = Arc::new(AtomicU64::new(0));
    let gauge = {
        let free = Arc::clone(&free);
        move |_: &std::path::Path| Ok(Room { free: free.load(Ordering::Relaxed), total: 1_000, files: None })
    };
    let space = Arc::new(Space::with(dir.path(), Marks { low: 100, full: 10, ballast: 0 }, Box::new(gauge)));
    let served = Served::within(Some(Arc::clone(&space)));
    let (feed, job) = (&served.feed, served.job);
    served.happen(move |world| world.finish(job, 0, 0)).await;
    assert_eq!(feed.archived(), 0);
    assert!(feed.standing(job).await.expect("answers").expect("it stays in memory").ended);
    free.store(50, Ordering::Relaxed);
    space.look();
    served.end_others().await;
    assert_eq!(feed.archived(), feed.upto().await.expect("answers"), "it has caught up");
    assert!(feed.standing(job).await.expect("answers").expect("the view has it").ended);
}

#[test]
fn what_ended_stays_here_where_the_view_of_it_cannot_be_written_while_events_are_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let view = Arc::new(View::open(&dir.path().join("view"), JournalId([7; 16])).expect("opens"));
    let mut world = World::new();
    let first = world.submit("alice", "first");
    world.finish(first, 0, 0);
    let now = Instant::now();
    let World { model, at } = world;
    let mut feed =
        Feed { model, view: Arc::clone(&view), started: now, last: (at, now), waiters: Vec::new(), space: None };
    view.fail(&ViewError::garbled("no room"));
    feed.write_replayed().expect_err("it has failed");
    let mut world = World { model: mem::replace(&mut feed.model, Model::new(JournalId([7; 16]), Asset::Test)), at };
    let second = world.submit("alice", "second");
    world.finish(second, 0, 0);
    feed.model = world.model;
    feed.write_replayed().expect_err("it still has");
    for job in [first, second] {
        assert!(feed.standing(job).is_some_and(|standing| standing.ended), "{job}");
    }
}
