//! A container outlives its agent: found again, and its output goes on at the right byte.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modchain_agent::clock;
use modchain_agent::executor::docker::{DockerExecutor, DockerPolicy, DockerSettings, ResumeRequest};
use modchain_agent::executor::{ExecutorEvent, Running, StopAs};
use modchain_types::{AttemptId, Digest, Ending, Fence, JobId, NodeId, Span};
use modchain_wire::agent::OutputStream;

use crate::harness::*;
use crate::image::{docker, engine_is_there};

/// Where the agent that is killed works: set only for that one.
const DIR: &str = "MODCHAIN_TEST_ADOPTION_DIR";

/// Some seconds of both streams: short lines and long ones, bursts and pauses, no newline at the end.
const CHATTER: &str = r#"awk 'BEGIN {
    srand(7); long = "x"; while (length(long) < 40000) long = long long;
    for (i = 0; i < 20000; i++) {
        line = i " " substr(long, 1, (i % 97 == 0) ? int(rand() * 40000) : int(rand() * 90));
        if (i % 3 == 0) { print line | "cat 1>&2" } else if (i % 11 == 0) { printf "%s", line } else { print line }
        if (i % 400 == 0) { fflush(); system("sleep 0.1") }
    }
    printf "the end" }'"#;

/// The agent of the story below, a process of its own. Does nothing when it was not started by that.
#[tokio::test]
async fn the_agent_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let work = Work::read(&dir);
    let running = match std::fs::read_to_string(dir.join("started")) {
        Ok(started) => work.executor().resume(work.resume(started.parse().unwrap())),
        Err(_) => work.start(),
    };
    work.spool(running).await;
}

/// What the agent knows after a restart, as files.
struct Work {
    dir: PathBuf,
    node: NodeId,
    attempt: AttemptId,
}

impl Work {
    const FENCE: Fence = Fence(1);

    fn read(dir: &Path) -> Self {
        let ids = std::fs::read_to_string(dir.join("ids")).unwrap();
        let (node, job) = ids.split_once(' ').unwrap();
        let attempt = AttemptId { job: job.parse().unwrap(), number: 1 };
        Self { dir: dir.into(), node: node.parse().unwrap(), attempt }
    }

    fn write(&self) {
        std::fs::write(self.dir.join("ids"), format!("{} {}", self.node, self.attempt.job)).unwrap();
    }

    fn executor(&self) -> DockerExecutor {
        DockerExecutor::new(DockerSettings { host: None, node: self.node, policy: DockerPolicy::default() })
    }

    fn start(&self) -> Running {
        let (mut request, task) = Container::shell(CHATTER).into_parts();
        request.attempt = self.attempt;
        request.fence = Self::FENCE;
        request.state = self.dir.join("state");
        self.executor().start(request, task)
    }

    fn bytes(&self, stream: &str) -> u64 {
        std::fs::metadata(self.dir.join(stream)).map_or(0, |file| file.len())
    }

    fn resume(&self, started: u64) -> ResumeRequest {
        ResumeRequest {
            attempt: self.attempt,
            fence: Self::FENCE,
            state: self.dir.join("state"),
            stdout: self.bytes("out"),
            stderr: self.bytes("err"),
            full: false,
            started: modchain_types::Timestamp(started),
        }
    }

    /// Writes down what comes, as the agent's spool does.
    async fn spool(&self, mut running: Running) -> (Ending, Span) {
        let open =
            |name: &str| std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(name)).unwrap();
        let (mut out, mut err) = (open("out"), open("err"));
        loop {
            let event =
                tokio::time::timeout(PATIENCE, running.events.recv()).await.expect("in time").expect("an event");
            match event {
                ExecutorEvent::Preparing { .. } | ExecutorEvent::Pinned { .. } => {}
                ExecutorEvent::Started => {
                    std::fs::write(self.dir.join("started.new"), clock::now().0.to_string()).unwrap();
                    std::fs::rename(self.dir.join("started.new"), self.dir.join("started")).unwrap();
                }
                ExecutorEvent::Output { stream: OutputStream::Out, bytes } => out.write_all(&bytes).unwrap(),
                ExecutorEvent::Output { bytes, .. } => err.write_all(&bytes).unwrap(),
                ExecutorEvent::Ended { ending, usage } => return (ending, usage.ran),
            }
        }
    }

    fn agent(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "adoption::the_agent_that_is_killed", "--nocapture"])
            .env(DIR, &self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

#[tokio::test]
async fn an_agent_killed_again_and_again_loses_no_byte_and_repeats_none() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let quiet = Container::shell(CHATTER).run(&node).await;
    assert_eq!(*quiet.ending(), EXITED_0, "{quiet:?}");
    assert!(quiet.out.len() > 500_000 && quiet.err.len() > 200_000, "{} {}", quiet.out.len(), quiet.err.len());

    let seed = u64::from(std::process::id()) ^ clock::now().0;
    eprintln!("seed {seed}");
    let mut dice = seed | 1;
    let mut roll = |below: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % below
    };
    for round in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let job = JobId(std::array::from_fn(|_| u8::try_from(roll(256)).unwrap()));
        let work = Work { dir: dir.path().into(), node: node.id, attempt: AttemptId { job, number: 1 } };
        work.write();
        let mut kills = 0;
        loop {
            let mut agent = work.agent();
            let deadline = Instant::now() + PATIENCE;
            while !work.dir.join("started").exists() {
                assert!(Instant::now() < deadline, "it does not start");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(roll(1500))).await;
            agent.kill().unwrap();
            agent.wait().unwrap();
            kills += 1;
            let survivors = node.executor.survivors().await.unwrap();
            let Some(survivor) = survivors.first() else {
                // It ended and was removed before the kill: nothing is left to adopt.
                break;
            };
            assert_eq!((survivor.attempt, survivor.fence), (work.attempt, Work::FENCE));
            assert_eq!(survivor.spec_digest, Digest([3; 32]));
            assert_eq!(survivor.boot, clock::boot_id().unwrap());
            assert!(survivor.image.as_ref().is_some_and(|pin| pin.contains("sha256:")), "{survivor:?}");
            let ago = survivor.started_ago.expect("it has started");
            assert!(ago < PATIENCE.into(), "{ago}");
            if kills == 4 {
                let started = clock::now() - ago;
                let (ending, ran) = work.spool(node.executor.resume(work.resume(started.0))).await;
                assert_eq!(ending, EXITED_0, "round {round}");
                assert!(ran >= Span::from_secs(2) && ran <= clock::now().since(started), "{ran}");
                break;
            }
        }
        for (stream, expected) in [("out", &quiet.out), ("err", &quiet.err)] {
            let got = std::fs::read(work.dir.join(stream)).unwrap();
            let same = got.iter().zip(expected).take_while(|(left, right)| left == right).count();
            assert!(
                got == *expected,
                "round {round}, {kills} kills, {stream}: {} bytes instead of {}, the first {same} are right",
                got.len(),
                expected.len()
            );
        }
        node.executor.remove(work.attempt, Work::FENCE).await.expect("removes");
        node.assert_clean();
    }
}

#[tokio::test]
async fn what_is_not_kept_is_reaped_and_nothing_else() {
    if !engine_is_there() {
        return;
    }
    let (node, neighbour) = (Node::new(), Node::new());
    let mut kept = Container::shell("echo on; sleep 1000").start(&node);
    kept.started().await;
    let mut orphan = Container::shell("echo on; sleep 1000").start(&node);
    orphan.started().await;
    let mut foreign = Container::shell("echo on; sleep 1000").start(&neighbour);
    foreign.started().await;
    // Not one of ours, whatever its labels say: the name is not the one that follows from them.
    let label = format!("modchain.node={}", node.id);
    let stranger = docker(&[
        "create",
        "--label",
        &label,
        "--label",
        &format!("modchain.job={}", JobId([9; 16])),
        "--label",
        "modchain.attempt=1",
        "--label",
        "modchain.fence=1",
        "--label",
        &format!("modchain.spec_digest={}", Digest([0; 32])),
        "--label",
        &format!("modchain.boot={}", clock::boot_id().unwrap()),
        crate::image::IMAGE,
    ]);
    assert_eq!(node.reap_all_but(Some(kept.attempt)).await, 1);
    let Ending::NodeFault { .. } = orphan.story().await.ending().clone() else {
        panic!("it was removed under its agent")
    };
    assert_eq!(node.containers().len(), 2);
    assert_eq!(neighbour.containers().len(), 1);
    docker(&["rm", &stranger]);
    for mut attempt in [kept, foreign] {
        attempt.output_until("on\n").await;
        attempt.control.stop(StopAs::LeaseEnded, Span::ZERO);
        assert_eq!(*attempt.story().await.ending(), Ending::LeaseEnded);
    }
    node.assert_clean();
    neighbour.assert_clean();
}

#[tokio::test]
async fn an_attempt_can_be_removed_whether_it_is_there_or_not() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt = Container::shell("sleep 1000").start(&node);
    attempt.started().await;
    node.executor.remove(attempt.attempt, attempt.fence).await.unwrap();
    node.assert_clean();
    node.executor.remove(attempt.attempt, attempt.fence).await.unwrap();
    let gone = ResumeRequest {
        attempt: attempt.attempt,
        fence: attempt.fence,
        state: attempt.dir.path().join("state"),
        stdout: 0,
        stderr: 0,
        full: false,
        started: clock::now(),
    };
    let mut running = node.executor.resume(gone);
    let Some(ExecutorEvent::Ended { ending: Ending::NodeFault { message }, usage }) = running.events.recv().await
    else {
        panic!("there is nothing to go on with")
    };
    assert!(message.contains("gone") && usage.ran == Span::ZERO, "{message}");
}

/// An agent of its own, which is gone after the container has printed this. Its attempt, and when it started.
async fn left_behind(node: &Node, container: Container, printed: &str) -> (Attempt, modchain_types::Timestamp) {
    let agent = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut attempt = {
        let _inside = agent.enter();
        container.start(node)
    };
    attempt.started().await;
    let started = clock::now();
    attempt.output_until(printed).await;
    agent.shutdown_background();
    (attempt, started)
}

/// Goes on with what was left behind, to its end: the ending, the run, what it printed on standard output.
async fn go_on(
    node: &Node,
    attempt: &Attempt,
    started: modchain_types::Timestamp,
    full: bool,
) -> (Ending, Span, String) {
    let request = ResumeRequest {
        attempt: attempt.attempt,
        fence: attempt.fence,
        state: attempt.dir.path().join("state"),
        stdout: 4,
        stderr: 0,
        full,
        started,
    };
    let Running { mut events, .. } = node.executor.resume(request);
    let (mut out, mut end) = (Vec::new(), None);
    while let Some(event) = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time") {
        match event {
            ExecutorEvent::Output { bytes, .. } => out.extend_from_slice(&bytes),
            ExecutorEvent::Ended { ending, usage } => end = Some((ending, usage.ran)),
            other => panic!("{other:?}"),
        }
    }
    let (ending, ran) = end.expect("it has ended");
    (ending, ran, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_container_that_stood_still_for_an_agent_that_died_goes_on() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let (attempt, started) = left_behind(&node, Container::shell("echo one; sleep 15; echo two"), "one\n").await;
    docker(&["pause", &attempt.container_id()]);
    let (ending, _, out) = go_on(&node, &attempt, started, false).await;
    assert_eq!((ending, out.as_str()), (EXITED_0, "two\n"));
    node.reap().await;
    node.assert_clean();
}

#[tokio::test]
async fn output_that_cannot_be_found_again_is_said_to_be_lost_unless_none_would_be_kept() {
    if !engine_is_there() {
        return;
    }
    for full in [false, true] {
        let node = Node::new();
        let (attempt, started) = left_behind(&node, Container::shell("echo one; sleep 1; echo two"), "one\n").await;
        // A mark whose message is not in the log, as after its files have been turned over.
        let state = attempt.dir.path().join("state");
        let mut mark = std::fs::read(&state).unwrap();
        mark[5..13].copy_from_slice(&1_000_000_000u64.to_le_bytes());
        let crc = crc32c::crc32c(&mark[4..29]);
        mark[..4].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&state, &mark[..29]).unwrap();
        let (ending, _, _) = go_on(&node, &attempt, started, full).await;
        match ending {
            Ending::NodeFault { message } => assert!(!full && message.contains("output lost"), "{message}"),
            other => assert!(full && other == EXITED_0, "{other:?}"),
        }
        node.reap().await;
        node.assert_clean();
    }
}

#[tokio::test]
async fn a_container_that_ended_while_nobody_watched_is_told_and_billed_as_it_ended() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let container = Container::shell("echo one; sleep 1; echo two; exit 7");
    let (attempt, started) = left_behind(&node, container, "one\n").await;
    let id = attempt.container_id();
    let deadline = Instant::now() + PATIENCE;
    while docker(&["inspect", "--format", "{{.State.Status}}", &id]) != "exited" {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = clock::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let survivors = node.executor.survivors().await.unwrap();
    assert!(survivors[0].started_ago.is_some_and(|ago| ago >= Span::from_secs(3)), "{survivors:?}");
    let (ending, ran, out) = go_on(&node, &attempt, started, false).await;
    assert_eq!((ending, out.as_str()), (Ending::Exited { code: 7 }, "two\n"));
    // The engine's times are the calendar's, to the millisecond.
    let seen = ended.since(started).saturating_add(Span::from_secs(1));
    assert!(ran >= Span::from_millis(900) && ran <= seen, "{ran} of {seen}");
    node.reap().await;
    node.assert_clean();
}
