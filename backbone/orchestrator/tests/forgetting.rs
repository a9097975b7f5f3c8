//! Ended jobs are forgotten oldest first and only once nothing else is left of them, wherever a crash comes in between.

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use modchain_core::{Actor, AgentArrival, Command, Control, Reply, SessionId};
use modchain_orchestrator::clock::TimeSource;
use modchain_orchestrator::engine::{
    Engine, EngineHandle, EngineOptions, EngineThread, Outlets, SnapshotEvery, journal_dir, snapshots_dir,
};
use modchain_orchestrator::founders::{Founder, Founders};
use modchain_orchestrator::retention::{Keep, KeepJobs, Retention};
use modchain_orchestrator::store::journal::Journal;
use modchain_orchestrator::store::output::OutputStore;
use modchain_orchestrator::store::removed;
use modchain_orchestrator::store::space::Space;
use modchain_orchestrator::verify::verify;
use modchain_types::*;
use modchain_wire::agent::OutputStream::Out;
use support::{TestDisk, text};

const MINUTE: u64 = 60;

/// A clock that the test moves.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn seconds_pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl TimeSource for Hand {
    fn boot(&self) -> BootId {
        BootId([1; 16])
    }

    fn boot_clock(&self) -> Span {
        Span(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> WallTime {
        WallTime((self.0.load(Ordering::SeqCst) / 1_000) as i64)
    }
}

/// A data directory, and its clock.
struct Place {
    dir: tempfile::TempDir,
    clock: Hand,
    /// Events between two snapshots.
    snapshot_every: u64,
}

/// An orchestrator's engine with what removes ended jobs.
struct Running {
    engine: EngineHandle,
    thread: EngineThread,
    _outlets: Outlets,
    output: OutputStore,
    retention: Retention,
    space: Space,
    disk: TestDisk,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(journal_dir(dir.path())).expect("makes");
        Journal::create(&journal_dir(dir.path()), support::JOURNAL, Asset::Test).expect("makes");
        Self { dir, clock: Hand::default(), snapshot_every: u64::MAX }
    }

    fn start(&self, keep: Keep) -> Running {
        let data = self.dir.path();
        let member = |role, name: &str, id| {
            let name: Name = name.parse().expect("a name");
            let identity = Identity { id: IdentityId([id; 16]), role, account: name.clone().into(), name };
            Founder { identity, certificate: None }
        };
        let members =
            vec![member(Role::Operator, "root", 0), member(Role::Client, "alice", 1), member(Role::Node, "rig", 2)];
        let space = || Space::open(data, Some(0), Some(0)).expect("a disk");
        let founders = Founders { members, token: None };
        let time = Box::new(self.clock.clone());
        let mut options = EngineOptions::new(data, text("0.1.0"), time, founders, Arc::new(space()));
        let disk = TestDisk::default();
        options.disk = Box::new(disk.clone());
        options.snapshot_every = SnapshotEvery { events: self.snapshot_every, bytes: u64::MAX };
        let engine = Engine::open(options, None, |_| {}).expect("opens");
        let output = OutputStore::at(&self.output()).expect("opens");
        let retention = Retention::open(&self.output(), output.clone(), keep, engine.control()).expect("opens");
        let (engine, outlets, thread) = engine.spawn().expect("starts");
        Running { engine, thread, _outlets: outlets, output, retention, space: space(), disk }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    /// The keys of the jobs that have a folder.
    fn folders(&self) -> Vec<u8> {
        (0..20).filter(|key| self.folder(*key).exists()).collect()
    }

    fn folder(&self, key: u8) -> PathBuf {
        self.output().join(job(key).to_string())
    }
}

fn account() -> AccountId {
    "alice".parse().expect("an account")
}

fn key(number: u8) -> SubmitKey {
    format!("k{number}").parse().expect("a key")
}

fn job(number: u8) -> JobId {
    JobId::derive(&account(), &key(number))
}

fn alice() -> Actor {
    Actor { id: IdentityId([1; 16]), role: Role::Client, account: account() }
}

impl Running {
    async fn credit(&self) {
        let by = Actor { id: IdentityId([0; 16]), role: Role::Operator, account: "root".parse().expect("an account") };
        let credit = Command::Credit { by, account: account(), amount: Micro(9_000), key: key(0), why: text("") };
        assert_eq!(self.engine.command(credit).await, Ok(Reply::Done));
    }

    /// Tells whether it is a new job.
    async fn submit(&self, number: u8) -> bool {
        let spec = Box::new(JobSpec { max_cost: Micro(1_000), ..support::bare_spec() });
        let (by, key, spec_digest) = (alice(), key(number), Digest([1; 32]));
        match self.engine.command(Command::Submit { by, key, spec, spec_digest, no_queue: false }).await {
            Ok(Reply::Submitted { existing, .. }) => !existing,
            reply => panic!("{reply:?}"),
        }
    }

    /// A job that has printed something and has ended.
    async fn ended(&self, number: u8) {
        assert!(self.submit(number).await);
        self.print(number).await;
        let (by, job, why) = (alice(), job(number), text(""));
        let cancelled = self.engine.command(Command::Cancel { by, job, grace: Span::ZERO, why }).await;
        assert!(matches!(cancelled, Ok(Reply::Cancelling { .. })), "{cancelled:?}");
        let ended = self.engine.query(move |control, _| control.ended(job).cloned()).await.expect("answers");
        let ended = ended.expect("it has ended");
        self.retention.job_ended(job, ended.finished, ended.at).await;
    }

    async fn print(&self, number: u8) {
        let log = self.output.open(AttemptId { job: job(number), number: 1 }).await.expect("opens");
        log.append(Out, 0, WallTime(0), Bytes::from_static(b"hello"), u64::MAX).expect("is taken");
        log.sync().await.expect("is synced");
    }

    async fn forget(&self) -> usize {
        self.retention.forget(&self.engine, &self.space).await.expect("works").jobs
    }

    /// The keys of the ended jobs that the engine knows.
    async fn known(&self) -> Vec<u8> {
        let known = move |control: &Control, _| (0..20).filter(|key| control.ended(job(*key)).is_some()).collect();
        self.engine.query(known).await.expect("answers")
    }

    async fn finished(&self, number: u8) -> u64 {
        let finished = move |control: &Control, _| control.ended(job(number)).map(|ended| ended.finished);
        self.engine.query(finished).await.expect("answers").expect("it has ended")
    }

    /// The process is gone: what it had in memory is lost.
    async fn gone(self) {
        self.engine.stop().await.expect("stops");
        tokio::task::spawn_blocking(move || self.thread.join()).await.expect("ends");
    }
}

/// Output for ever; records by these.
fn keep(age_minutes: u64, count: usize) -> Keep {
    let jobs = KeepJobs { age: Span::from_secs(age_minutes * MINUTE), count, fresh: Span::from_secs(MINUTE) };
    Keep { age: Span::MAX, bytes: Some(u64::MAX), fresh: Span::ZERO, jobs }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_journal_nobody_waits_for_what_is_to_be_forgotten() {
    let place = Place::new();
    let running = place.start(keep(10, 100));
    running.credit().await;
    for key in 1..=2 {
        running.ended(key).await;
    }
    place.clock.seconds_pass(11 * MINUTE);
    running.disk.full.store(true, Ordering::Relaxed);
    assert_eq!(running.forget().await, 0, "the engine does not say so yet");
    assert!(running.retention.hold(job(1)).is_none(), "it forgets them as soon as there is room");
    running.engine.no_room().await;
    assert_eq!(running.forget().await, 0, "it cannot even be asked");
    running.disk.full.store(false, Ordering::Relaxed);
    assert!(running.known().await.is_empty());
    assert_eq!(running.forget().await, 0, "nothing is left");
    assert!(running.retention.hold(job(1)).is_some(), "another job may have this name now");
    running.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_are_forgotten_by_age_and_count_with_their_output_and_none_that_is_fresh_or_read() {
    let place = Place::new();
    let running = place.start(keep(10, 3));
    running.credit().await;
    for key in 1..=5 {
        running.ended(key).await;
        place.clock.seconds_pass(1);
    }
    assert_eq!(running.forget().await, 0, "all of them are fresh");
    place.clock.seconds_pass(MINUTE);
    let reading = running.retention.reading(job(1));
    assert_eq!(running.forget().await, 1, "of the two that are too many one is being read");
    assert_eq!((running.known().await, place.folders()), (vec![1, 3, 4, 5], vec![1, 3, 4, 5]));
    assert!(running.retention.is_removed(running.finished(1).await), "nobody else begins to read it");
    drop(reading);
    assert_eq!(running.forget().await, 1);
    assert_eq!((running.known().await, place.folders()), (vec![3, 4, 5], vec![3, 4, 5]));
    assert_eq!(running.forget().await, 0);
    place.clock.seconds_pass(10 * MINUTE);
    let held = running.retention.hold(job(4)).expect("it is not being forgotten");
    assert_eq!(running.forget().await, 2, "all are too old");
    assert_eq!((running.known().await, place.folders()), (vec![4], vec![4]));
    drop(held);
    assert_eq!((running.forget().await, running.known().await, place.folders()), (1, vec![], vec![]));

    assert!(running.submit(5).await, "its key makes a new job");
    running.print(5).await;
    place.clock.seconds_pass(100 * MINUTE);
    assert_eq!((running.forget().await, place.folders()), (0, vec![5]), "one that has not ended stays");
    running.gone().await;
    let verified = verify(place.dir.path()).expect("the journal is sound");
    assert_eq!((verified.open_jobs, verified.ended_jobs, verified.money), (1, 0, 9_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_which_something_is_left_is_not_forgotten_yet() {
    let place = Place::new();
    let running = place.start(keep(1, 100));
    running.credit().await;
    running.ended(1).await;
    // Nobody has said yet that what was kept for running this one is gone.
    assert!(running.submit(2).await);
    let cancel = Command::Cancel { by: alice(), job: job(2), grace: Span::ZERO, why: text("") };
    assert!(matches!(running.engine.command(cancel).await, Ok(Reply::Cancelling { .. })));
    place.clock.seconds_pass(2 * MINUTE);
    assert_eq!((running.forget().await, running.known().await), (1, vec![2]));
    running.gone().await;
    // A start has looked.
    let running = place.start(keep(1, 100));
    assert_eq!((running.forget().await, running.known().await), (1, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_journal_is_known_to_be_an_old_copy_nothing_is_forgotten_and_no_output_goes_for_it() {
    let place = Place::new();
    let running = place.start(keep(1, 100));
    running.credit().await;
    running.ended(1).await;
    place.clock.seconds_pass(2 * MINUTE);
    let arrival = AgentArrival {
        instance: InstanceId([1; 16]),
        highest_fence: Some(Fence(1 << 30)),
        inventory: Vec::new(),
        offer: support::offer(),
    };
    let hello = Command::AgentConnected { node: NodeId([2; 16]), session: SessionId(1), arrival: Box::new(arrival) };
    assert_eq!(running.engine.command(hello).await, Ok(Reply::Welcome));
    assert_eq!((running.forget().await, running.known().await, place.folders()), (0, vec![1], vec![1]));
    running.gone().await;
    // Its next start has heard of nothing newer.
    let running = place.start(keep(1, 100));
    assert_eq!((running.forget().await, running.known().await, place.folders()), (1, vec![], vec![]));
}

/// What a crash leaves: the mark of removed output, the first folder without its file, no folder, or what came late.
fn crash_left(place: &Place, how_far: u32, upto: u64) {
    if how_far > 0 {
        removed::write(&place.output(), upto).expect("writes");
    }
    if how_far > 1 {
        fs::remove_file(place.folder(1).join("1.log")).expect("removes");
    }
    if how_far > 2 {
        fs::remove_dir(place.folder(1)).expect("removes");
    }
    if how_far > 3 {
        fs::remove_dir_all(place.folder(2)).expect("removes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_between_the_removal_of_output_and_the_forgetting_loses_nothing_and_leaves_no_folder() {
    for how_far in 0..=4 {
        let place = Place::new();
        let running = place.start(keep(10, 100));
        running.credit().await;
        for key in 1..=2 {
            running.ended(key).await;
        }
        place.clock.seconds_pass(9 * MINUTE);
        running.ended(3).await;
        let upto = running.finished(2).await;
        running.gone().await;
        crash_left(&place, how_far, upto);
        place.clock.seconds_pass(2 * MINUTE);

        let running = place.start(keep(10, 100));
        assert_eq!(running.known().await, [1, 2, 3], "{how_far}: the journal remembers them");
        assert_eq!(running.retention.is_removed(upto), how_far > 0, "{how_far}: nobody sees half of it");
        assert!(!running.submit(1).await, "{how_far}: its key is not free");
        assert_eq!(running.forget().await, 2, "{how_far}");
        assert_eq!((running.known().await, place.folders()), (vec![3], vec![3]), "{how_far}");
        running.gone().await;

        // And one just behind it.
        let running = place.start(keep(10, 100));
        assert_eq!(
            (running.known().await, running.forget().await, place.folders()),
            (vec![3], 0, vec![3]),
            "{how_far}"
        );
        assert!(running.submit(1).await, "{how_far}: another job");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_came_late_goes_with_its_job_and_one_that_cannot_be_removed_keeps_it() {
    let place = Place::new();
    let running = place.start(keep(1, 100));
    running.credit().await;
    for key in 1..=3 {
        assert!(running.submit(key).await);
        let (by, why) = (alice(), text(""));
        let cancel = Command::Cancel { by, job: job(key), grace: Span::ZERO, why };
        assert!(matches!(running.engine.command(cancel).await, Ok(Reply::Cancelling { .. })));
        let finished = running.finished(key).await;
        running.retention.job_ended(job(key), finished, Timestamp(0)).await;
    }
    running.print(1).await;
    // A file in the place of a folder cannot be removed like one.
    fs::write(place.folder(2), b"not a folder").expect("writes");
    place.clock.seconds_pass(2 * MINUTE);
    assert_eq!((running.forget().await, running.known().await), (2, vec![2]));
    assert_eq!(place.folders(), [2]);
    fs::remove_file(place.folder(2)).expect("removes");
    assert_eq!((running.forget().await, running.known().await), (1, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_from_a_snapshot_and_the_journal_behind_it_remembers_what_the_whole_journal_says() {
    let place = Place { snapshot_every: 3, ..Place::new() };
    let mut known = Vec::new();
    for round in 0..3u8 {
        let running = place.start(keep(10, 100));
        if round == 0 {
            running.credit().await;
        }
        assert_eq!(running.known().await, known, "{round}");
        for key in 1..=3 {
            running.ended(4 * round + key).await;
        }
        place.clock.seconds_pass(11 * MINUTE);
        running.ended(4 * round + 4).await;
        assert_eq!(running.forget().await, 3 + known.len(), "{round}");
        known = vec![4 * round + 4];
        assert_eq!(running.known().await, known, "{round}");
        running.gone().await;
        let snapshots = fs::read_dir(snapshots_dir(place.dir.path())).expect("a folder").count();
        assert!(snapshots > 0, "{round}");
        assert_eq!(verify(place.dir.path()).expect("sound").ended_jobs, known.len(), "{round}");
    }
}
