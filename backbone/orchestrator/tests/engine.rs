//! The engine with a real machine and a real journal: remember before you speak.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use modchain_core::{Actor, AgentArrival, Command, Control, Event, EventBody, Refused, Reply, SessionId};
use modchain_orchestrator::clock::{SystemSource, TimeSource};
use modchain_orchestrator::engine::{Engine, EngineGone, EngineHandle, EngineOptions, journal_dir};
use modchain_orchestrator::founders::{Founder, Founders};
use modchain_orchestrator::store::journal::{AppendError, Disk, Journal};
use modchain_orchestrator::store::space::Space;
use modchain_orchestrator::verify::{VerifyError, verify};
use modchain_types::*;
use support::{TestDisk, text};

const SOON: Duration = Duration::from_secs(60);

fn identity(role: Role, name: &str) -> Identity {
    let name: Name = name.parse().expect("name");
    let mut id = [0; 16];
    id[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    Identity { id: IdentityId(id), role, account: name.clone().into(), name }
}

fn make(data: &Path) {
    std::fs::create_dir(journal_dir(data)).expect("makes");
    Journal::create(&journal_dir(data), support::JOURNAL, Asset::Test).expect("makes");
}

fn founder(role: Role, name: &str) -> Founder {
    Founder { identity: identity(role, name), certificate: None }
}

fn options(data: &Path, disk: impl Disk + 'static) -> EngineOptions {
    let time = SystemSource::new().expect("a clock");
    let members = vec![founder(Role::Operator, "root"), founder(Role::Client, "alice")];
    let founders = Founders { members, token: None };
    let space = Space::open(data, Some(0), Some(0)).expect("a disk");
    let mut options = EngineOptions::new(data, text("0.1.0"), Box::new(time), founders, Arc::new(space));
    options.disk = Box::new(disk);
    options.on_fatal = Box::new(|_| {});
    options
}

fn credit(key: &str, amount: u64) -> Command {
    Command::Credit {
        by: Actor { id: IdentityId([0; 16]), role: Role::Operator, account: "root".parse().expect("account") },
        account: "alice".parse().expect("account"),
        amount: Micro(amount),
        key: key.parse().expect("key"),
        why: text("test"),
    }
}

fn submit(key: &str) -> Command {
    let mut spec = support::bare_spec();
    spec.max_cost = Micro(1_000);
    Command::Submit {
        by: Actor { id: IdentityId([0; 16]), role: Role::Client, account: "alice".parse().expect("account") },
        key: key.parse().expect("key"),
        spec: Box::new(spec),
        spec_digest: Digest([1; 32]),
        no_queue: false,
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("soon")
}

/// What of the state must be the same after a restart.
fn standing(control: &Control) -> (BTreeMap<String, i128>, Vec<(JobId, String)>, u64) {
    let balances = control.ledger().balances().map(|(account, balance)| (format!("{account:?}"), balance)).collect();
    let jobs = control.jobs().map(|job| (job.id, format!("{job:?}"))).collect();
    (balances, jobs, control.last_number())
}

async fn ask(engine: &EngineHandle) -> (BTreeMap<String, i128>, Vec<(JobId, String)>, u64) {
    engine.query(|control, _| standing(control)).await.expect("answers")
}

/// A disk whose syncs wait until the test lets them.
struct GatedDisk {
    entered: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
    open: Arc<Mutex<bool>>,
    syncs: Arc<Mutex<usize>>,
}

impl Disk for GatedDisk {
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&mut self, _file: &File) -> io::Result<()> {
        *self.syncs.lock().expect("lock") += 1;
        if !*self.open.lock().expect("lock") {
            let _ = self.entered.send(());
            let _ = self.gate.recv_timeout(SOON);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_let_out_before_its_batch_is_synced_and_those_who_wait_share_the_next_sync() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let (entered, at_the_gate) = mpsc::channel();
    let (opener, gate) = mpsc::channel();
    let (open, syncs) = (Arc::new(Mutex::new(true)), Arc::new(Mutex::new(0)));
    let disk = GatedDisk { entered, gate, open: open.clone(), syncs: syncs.clone() };
    let engine = Engine::open(options(dir.path(), disk), Some(0), |_| {}).expect("opens");
    let (engine, mut outlets, thread) = engine.spawn().expect("spawns");
    let before = *syncs.lock().expect("lock");
    *open.lock().expect("lock") = false;

    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.command(credit("first", 1)).await }
    });
    tokio::task::spawn_blocking(move || at_the_gate.recv_timeout(SOON).expect("a sync begins")).await.expect("joins");
    // The batch is decided and written, and its sync has not ended: nobody may know of it.
    let question = tokio::spawn({
        let engine = engine.clone();
        async move { ask(&engine).await.2 }
    });
    const MORE: usize = 200;
    let more = (0..MORE).map(|number| engine.command_numbered(credit(&format!("more-{number}"), 1)));
    let mut waiting: FuturesUnordered<_> = more.collect();
    // All of them are in the queue before the gate opens: each is polled here, whatever else the runtime has to do.
    let answered = tokio::task::unconstrained(waiting.next()).now_or_never();
    assert!(answered.is_none(), "a reply was let out before the sync");
    let early = tokio::time::timeout(Duration::from_millis(200), outlets.events.recv()).await;
    assert!(early.is_err(), "events were let out before the sync");
    assert!(!first.is_finished() && !question.is_finished(), "a reply was let out before the sync");

    *open.lock().expect("lock") = true;
    opener.send(()).expect("opens the gate");
    assert_eq!(soon(first).await.expect("joins"), Ok(Reply::Done));
    let mut numbers = Vec::new();
    while let Some(done) = soon(waiting.next()).await {
        let (reply, number) = done.expect("answers");
        assert_eq!(reply, Reply::Done);
        numbers.push(number);
    }
    soon(question).await.expect("joins");
    let shared = *syncs.lock().expect("lock") - before;
    assert!(shared < MORE / 4, "{MORE} commands took {shared} syncs");
    let last = numbers.into_iter().max().expect("numbers");
    let mut seen = 0;
    while seen < last {
        seen = soon(outlets.events.recv()).await.expect("events").last().expect("no empty batch").number;
    }
    engine.stop().await.expect("stops");
    soon(engine.ended()).await;
    assert!(thread.join());
    assert_eq!(engine.command(credit("late", 1)).await, Err(EngineGone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_replays_to_the_same_state_and_tells_the_feed_every_event_once() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let mut known: Vec<Event> = Vec::new();
    let mut before = None;
    for run in 0..4 {
        let mut replayed = Vec::new();
        let engine =
            Engine::open(options(dir.path(), TestDisk::default()), Some(0), |event| replayed.push(event.clone()))
                .expect("opens");
        assert_eq!(replayed[..known.len()], known[..], "the past is the past");
        if let Some((balances, jobs, number)) = before.take() {
            let (now_balances, now_jobs, now_number) = standing(engine.control());
            assert_eq!((now_balances, now_jobs, now_number), (balances, jobs, number + 1), "one EngineStarted more");
        }
        let (engine, mut outlets, thread) = engine.spawn().expect("spawns");
        assert_eq!(soon(engine.command(credit(&format!("run-{run}"), 10_000))).await, Ok(Reply::Done));
        for job in 0..3 {
            let reply = soon(engine.command(submit(&format!("job-{run}-{job}")))).await.expect("answers");
            assert!(matches!(reply, Reply::Submitted { existing: false, .. }), "{reply:?}");
        }
        let again = soon(engine.command(submit("job-0-0"))).await.expect("answers");
        assert!(matches!(again, Reply::Submitted { existing: true, .. }), "{again:?}");
        before = Some(ask(&engine).await);
        engine.stop().await.expect("stops");
        assert!(tokio::task::spawn_blocking(|| thread.join()).await.expect("joins"));
        while let Some(batch) = soon(outlets.events.recv()).await {
            replayed.extend(batch.iter().cloned());
        }
        let numbers: Vec<u64> = replayed.iter().map(|event| event.number).collect();
        assert_eq!(numbers, (1..=replayed.len() as u64).collect::<Vec<_>>(), "no gap, no repetition");
        known = replayed;
    }
    let identities = known.iter().filter(|event| matches!(event.body, EventBody::IdentityAdded { .. })).count();
    assert_eq!(identities, 2, "each identity once");
    let verified = verify(dir.path()).expect("whole");
    assert_eq!((verified.open_jobs, verified.money), (12, 40_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_answers_nobody_and_ends_the_engine() {
    for disk in [
        TestDisk { fail_sync: Some(2), ..TestDisk::default() },
        // The first one repeats the end of what is there.
        TestDisk { fail_write: Some(3), ..TestDisk::default() },
    ] {
        let dir = tempfile::tempdir().expect("directory");
        make(dir.path());
        let fatal = Arc::new(Mutex::new(None));
        let mut options = options(dir.path(), disk);
        options.on_fatal = Box::new({
            let fatal = fatal.clone();
            move |error: &AppendError| *fatal.lock().expect("lock") = Some(error.to_string())
        });
        let (engine, mut outlets, thread) =
            Engine::open(options, Some(0), |_| {}).expect("opens").spawn().expect("spawns");
        assert_eq!(soon(engine.command(credit("kept", 1))).await, Ok(Reply::Done));
        assert_eq!(soon(engine.command(credit("lost", 1))).await, Err(EngineGone));
        soon(engine.ended()).await;
        assert!(thread.join());
        let said = fatal.lock().expect("lock").take().expect("said so");
        assert!(said.contains("the disk is broken") || said.contains("no space left"), "{said}");
        assert_eq!(soon(outlets.events.recv()).await.expect("the batch before").len(), 1);
        assert!(soon(outlets.events.recv()).await.is_none(), "the failed batch was let out");

        // At the next start the disk decides: the batch is whole or gone, and what was acknowledged is there.
        let engine =
            Engine::open(self::options(dir.path(), TestDisk::default()), Some(0), |_| {}).expect("opens again");
        assert!(engine.control().ledger().available(&"alice".parse().expect("account")) >= Micro(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_journal_everything_waits_and_goes_on_by_itself() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let disk = TestDisk::default();
    let engine = Engine::open(options(dir.path(), disk.clone()), Some(0), |_| {}).expect("opens");
    let (engine, _outlets, thread) = engine.spawn().expect("spawns");
    assert_eq!(soon(engine.command(credit("before", 1))).await, Ok(Reply::Done));
    disk.full.store(true, Ordering::Relaxed);
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.command(credit("meanwhile", 10)).await }
    });
    let refused = disk.count("write");
    while disk.count("write") < refused + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!waiting.is_finished(), "what is not on disk is not answered");
    soon(engine.no_room()).await;
    let moment = soon(engine.now()).await.expect("it is alive");
    assert!(soon(engine.now()).await.expect("it is alive") >= moment, "time goes on");
    let known = engine.clone();
    let next = tokio::spawn(async move { known.command(credit("after", 100)).await });
    disk.full.store(false, Ordering::Relaxed);
    assert_eq!(soon(waiting).await.expect("no panic"), Ok(Reply::Done));
    assert_eq!(soon(next).await.expect("no panic"), Ok(Reply::Done));
    assert!(soon(engine.now()).await.expect("it is alive") >= moment, "time goes on");
    engine.stop().await.expect("stops");
    assert!(tokio::task::spawn_blocking(|| thread.join()).await.expect("joins"));
    assert_eq!(verify(dir.path()).expect("whole").money, 111);
}

/// A clock that fills the disk when it is first looked at, which is after the journal is replayed.
struct FillingSource(SystemSource, Arc<AtomicBool>);

impl TimeSource for FillingSource {
    fn boot(&self) -> BootId {
        self.1.store(true, Ordering::Relaxed);
        self.0.boot()
    }

    fn boot_clock(&self) -> Span {
        self.0.boot_clock()
    }

    fn wall(&self) -> WallTime {
        self.0.wall()
    }
}

#[test]
fn a_start_without_room_makes_some_as_it_is_told_to_and_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let disk = TestDisk::default();
    let mut options = options(dir.path(), disk.clone());
    options.time = Box::new(FillingSource(SystemSource::new().expect("a clock"), disk.full.clone()));
    let (full, asked) = (disk.full.clone(), Arc::new(AtomicBool::new(false)));
    options.make_room = Box::new({
        let asked = asked.clone();
        move |control, _| {
            assert!(control.member(identity(Role::Client, "alice").id).is_some(), "it knows the state");
            // Not yet the first time.
            if asked.swap(true, Ordering::Relaxed) {
                full.store(false, Ordering::Relaxed);
            }
        }
    });
    Engine::open(options, Some(0), |_| {}).expect("opens");
    assert!(asked.load(Ordering::Relaxed) && disk.count("refused") >= 2);
    verify(dir.path()).expect("whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_fire_without_a_command() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let engine = Engine::open(options(dir.path(), TestDisk::default()), Some(0), |_| {}).expect("opens");
    let (engine, mut outlets, thread) = engine.spawn().expect("spawns");
    soon(engine.command(credit("c", 10_000))).await.expect("answers");
    let Command::Submit { by, key, mut spec, spec_digest, no_queue } = submit("short") else { panic!("a submit") };
    spec.limits.start_by = Some(Span::from_millis(300));
    let began = Instant::now();
    let reply = soon(engine.command(Command::Submit { by, key, spec, spec_digest, no_queue })).await;
    let Ok(Reply::Submitted { job, .. }) = reply else { panic!("{reply:?}") };
    let finished = |event: &Event| matches!(&event.body, EventBody::JobFinished { job: ended, .. } if *ended == job);
    while !soon(outlets.events.recv()).await.expect("events").iter().any(finished) {}
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(ask(&engine).await.1, [], "no open job");
    engine.stop().await.expect("stops");
    assert!(thread.join());
}

#[test]
fn an_identity_that_contradicts_the_journal_stays_out_and_stops_no_start() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    Engine::open(options(dir.path(), TestDisk::default()), Some(0), |_| {}).expect("opens");
    let mut wrong = options(dir.path(), TestDisk::default());
    let identity = Identity { id: IdentityId([9; 16]), ..identity(Role::Client, "alice") };
    let other = founder(Role::Client, "zoe");
    wrong.founders.members = vec![Founder { identity, certificate: None }, other.clone()];
    let engine = Engine::open(wrong, Some(0), |_| {}).expect("opens");
    assert!(engine.control().member(IdentityId([9; 16])).is_none());
    assert!(engine.control().member(other.identity.id).is_some(), "those after it are taken in");
}

#[test]
fn verify_names_torn_ends_and_changed_bytes_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    Engine::open(options(dir.path(), TestDisk::default()), Some(0), |_| {}).expect("opens");
    Engine::open(options(dir.path(), TestDisk::default()), Some(0), |_| {}).expect("opens");
    verify(dir.path()).expect("whole");
    let path = journal_dir(dir.path()).join("00000000000000000001.seg");
    let prepared = std::fs::read(&path).expect("reads");
    let end = prepared.iter().rposition(|byte| *byte != 0).expect("it is not empty") + 1;
    let whole = prepared[..end + 100].to_vec();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        let said = verify(dir.path()).expect_err("found").to_string();
        assert!(said.contains("00000000000000000001.seg") && said.contains("offset"), "byte {at}: {said}");
        assert_eq!(std::fs::read(&path).expect("reads"), bytes, "verify only reads");
    }
    std::fs::write(&path, &whole[..end - 1]).expect("writes");
    assert!(matches!(verify(dir.path()), Err(VerifyError::Torn(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_change_nothing_on_disk() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let disk = TestDisk::default();
    let engine = Engine::open(options(dir.path(), disk.clone()), Some(0), |_| {}).expect("opens");
    let (engine, _outlets, thread) = engine.spawn().expect("spawns");
    let syncs = disk.count("sync");
    let reply = soon(engine.command(submit("too-poor"))).await;
    assert!(matches!(reply, Ok(Reply::Refused(Refused::InsufficientFunds { .. }))), "{reply:?}");
    assert_eq!(disk.count("sync"), syncs);
    engine.stop().await.expect("stops");
    assert!(thread.join());
}

/// A clock that a test moves on.
struct JumpingSource(Arc<Mutex<Span>>);

impl TimeSource for JumpingSource {
    fn boot(&self) -> BootId {
        BootId([1; 16])
    }

    fn boot_clock(&self) -> Span {
        *self.0.lock().expect("lock")
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_there_before_the_engine_stood_still_is_there_afterwards() {
    let dir = tempfile::tempdir().expect("directory");
    make(dir.path());
    let clock = Arc::new(Mutex::new(Span::from_secs(1)));
    let mut options = options(dir.path(), TestDisk::default());
    options.time = Box::new(JumpingSource(clock.clone()));
    options.founders.members.push(founder(Role::Node, "n1"));
    let (engine, _outlets, thread) = Engine::open(options, Some(0), |_| {}).expect("opens").spawn().expect("spawns");
    let (node, session) = (NodeId(identity(Role::Node, "n1").id.0), SessionId(1));
    let arrival = AgentArrival {
        instance: InstanceId([1; 16]),
        highest_fence: None,
        inventory: Vec::new(),
        offer: support::offer(),
    };
    let hello = Command::AgentConnected { node, session, arrival: Box::new(arrival) };
    assert_eq!(soon(engine.command(hello)).await.expect("answers"), Reply::Welcome);
    let state = || soon(engine.query(move |control, now| control.node(node).expect("known").state(now)));
    let before = state().await.expect("answers");
    assert!(!matches!(before, NodeState::Suspect | NodeState::Lost), "{before:?}");
    *clock.lock().expect("lock") = Span::from_secs(3_600);
    assert_eq!(state().await.expect("answers"), before);
    engine.stop().await.expect("stops");
    assert!(thread.join());
}
