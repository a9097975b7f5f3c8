//! The agent's program against a scripted orchestrator: one attempt's life, and what cuts, kills and stops do to it.

mod scripted;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use modchain_types::{Chunk, Ending, Fault, Input, ItemState, OutputLengths, ReportBody, Span, StopCause, Verdict};
use modchain_wire::FromAgent;
use modchain_wire::Sentence;
use modchain_wire::agent::{GoAway, InputChunk, InputEnd, OutputAck, Probe, Stop};
use scripted::modules::{ECHO, FLOOD, FOREVER, HELLO, flood};
use scripted::{Got, PATIENCE, World, soon};

/// The folders of attempts that the agent keeps.
fn folders(world: &World) -> usize {
    fs::read_dir(world.data().join("attempts")).map_or(0, Iterator::count)
}

async fn until_forgotten(world: &World) {
    let until = Instant::now() + PATIENCE;
    while folders(world) > 0 {
        assert!(Instant::now() < until, "the attempt's folder stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_lives_from_its_assignment_to_its_acknowledgement() {
    let mut world = World::new();
    let assignment = world.assignment(1, HELLO, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    assert!(peer.hello.inventory.is_empty() && peer.hello.highest_fence.is_none());
    assert!(peer.hello.offer.capabilities.cpu_milli >= 1000);
    peer.say(Probe { number: 77 }).await;
    assert!(matches!(peer.hear().await, FromAgent::ProbeAnswer(answer) if answer.number == 77));

    peer.say(assignment.clone()).await;
    peer.started().await;
    let (report, ending) = peer.ending().await;
    assert_eq!(ending, Ending::Exited { code: 0 });
    let ReportBody::Ended { usage, output, .. } = report.body.clone() else { panic!("ended") };
    assert_eq!(output, OutputLengths { stdout: 6, stderr: 5, dropped: 0 });
    assert!(usage.fuel > 0 && usage.ran < Span::from_secs(60));

    let mut stream = peer.attempt().await;
    assert_eq!((stream.open.attempt, stream.open.fence), (assignment.attempt, assignment.claim.fence));
    let mut got = Got::default();
    stream.resume(&got).await;
    let end = stream.take_all(&mut got).await;
    assert_eq!((got.stdout.as_slice(), got.stderr.as_slice()), (&b"hello\n"[..], &b"oops\n"[..]));
    assert_eq!((end.stdout, end.stderr, end.dropped), (6, 5, 0));
    assert_eq!(folders(&world), 1, "kept until it is acknowledged");
    peer.ack(&report).await;
    until_forgotten(&world).await;

    agent.signal("-TERM");
    assert_eq!(agent.exit_code().await, Some(0));
    // The fence is remembered, with its mark and its journal.
    let _agent = world.start_agent();
    let peer = world.welcome(Verdict::Forget).await;
    assert_eq!(peer.hello.highest_fence, Some(assignment.claim));
    assert!(peer.hello.journal.is_some() && peer.hello.inventory.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_on_where_a_cut_connection_left_it() {
    let mut world = World::new();
    let assignment = world.assignment(1, FLOOD, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    let mut got = Got::default();
    let expected = flood();
    for round in 0..3 {
        let mut stream = peer.attempt().await;
        stream.resume(&got).await;
        for _ in 0..5 * (round + 1) {
            assert!(stream.take(&mut got).await.is_none(), "there is much more to come");
        }
        // Half of the last piece did not reach the disk.
        got.stdout.truncate(got.stdout.len() - 1000);
        peer.cut();
        peer = world.welcome(Verdict::Keep).await;
        assert_eq!(peer.hello.inventory.len(), 1);
    }
    let mut stream = peer.attempt().await;
    stream.resume(&got).await;
    let end = stream.take_all(&mut got).await;
    assert_eq!(end.stdout, expected.len() as u64);
    assert!(got.stdout == expected, "every byte once, in order");
    let (report, ending) = peer.ending().await;
    assert_eq!(ending, Ending::Exited { code: 0 });
    peer.ack(&report).await;
    until_forgotten(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_the_job_and_goes_on_after_a_cut() {
    let mut world = World::new();
    let assignment = world.assignment(1, ECHO, Input::Stream);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    let mut got = Got::default();
    let mut stream = peer.attempt().await;
    assert_eq!(stream.open.input_from, Some(0));
    stream.resume(&got).await;
    stream.say(InputChunk { offset: 0, data: Chunk::new("first ".as_bytes().to_vec()).expect("fits") }).await;
    while got.stdout.len() < 6 {
        assert!(stream.take(&mut got).await.is_none());
    }
    peer.cut();
    let mut peer = world.welcome(Verdict::Keep).await;
    let mut stream = peer.attempt().await;
    assert_eq!(stream.open.input_from, Some(6), "what was taken is not asked for again");
    stream.resume(&got).await;
    stream.say(InputChunk { offset: 6, data: Chunk::new("second".as_bytes().to_vec()).expect("fits") }).await;
    stream.say(InputEnd { offset: 12 }).await;
    stream.take_all(&mut got).await;
    assert_eq!(got.stdout, b"first second");
    assert_eq!(peer.ending().await.1, Ending::Exited { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_died_with_its_agent_is_reported_as_the_nodes_fault() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment.clone()).await;
    peer.started().await;
    agent.kill();
    drop(peer);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::SendResult).await;
    let inventory: Vec<_> = peer.hello.inventory.iter().map(|item| (item.attempt, item.fence, item.state)).collect();
    assert_eq!(inventory, [(assignment.attempt, assignment.claim.fence, ItemState::Ended)]);
    let (report, ending) = peer.ending().await;
    assert!(matches!(ending, Ending::NodeFault { .. }), "{ending:?}");
    peer.ack(&report).await;
    until_forgotten(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_sent_until_it_is_acknowledged() {
    let mut world = World::new();
    let assignment = world.assignment(1, HELLO, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    let (first, _) = peer.ending().await;
    peer.cut();
    let mut peer = world.welcome(Verdict::SendResult).await;
    let (second, _) = peer.ending().await;
    assert_eq!(first, second);
    // And over a restart, with its output.
    agent.kill();
    peer.cut();
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::SendResult).await;
    let (third, _) = peer.ending().await;
    assert_eq!(first, third);
    let mut stream = peer.attempt().await;
    let mut got = Got::default();
    stream.resume(&got).await;
    stream.take_all(&mut got).await;
    assert_eq!(got.stdout, b"hello\n");
    peer.ack(&third).await;
    until_forgotten(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_endless_loop_within_its_grace() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment.clone()).await;
    peer.started().await;
    let grace = Span::from_secs(50);
    let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
    let told = Instant::now();
    peer.say(Stop { attempt, fence, grace, cause: StopCause::Cancelled }).await;
    let (_, ending) = peer.ending().await;
    assert_eq!(ending, Ending::Stopped);
    assert!(told.elapsed() < Duration::from(grace), "took {:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_ends_what_it_runs_and_one_that_is_merely_cut_off_does_not() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    peer.started().await;
    let job = agent.jobs()[0];
    peer.cut();
    let peer = world.welcome(Verdict::Keep).await;
    assert!(peer.hello.inventory.len() == 1 && agent.jobs().contains(&job));
    peer.revoke();
    let until = Instant::now() + PATIENCE;
    while agent.jobs().contains(&job) {
        assert!(Instant::now() < until, "it works on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_the_orchestrator_does_not_give_is_the_nodes_trouble() {
    let mut world = World::new();
    let mut assignment = world.assignment(1, HELLO, Input::None);
    let agent = world.start_agent();
    let mut other = World::new();
    let foreign = other.assignment(1, FOREVER, Input::None);
    assignment.spec.body = foreign.spec.body;
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    let (_, ending) = peer.ending().await;
    let Ending::CannotStart { fault: Fault::Node, message } = ending else { panic!("{ending:?}") };
    assert!(message.contains("there is no such blob"), "{message}");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_ends_its_attempts_and_says_so() {
    let mut world = World::new();
    let assignment = world.assignment(1, FOREVER, Input::None);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    peer.started().await;
    agent.signal("-INT");
    let (report, ending) = peer.ending().await;
    assert!(matches!(ending, Ending::NodeFault { .. }), "{ending:?}");
    peer.ack(&report).await;
    assert_eq!(agent.exit_code().await, Some(0));
    assert_eq!(folders(&world), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goaway_is_obeyed_and_orders_before_the_verdicts_are_not() {
    let mut world = World::new();
    let assignment = world.assignment(1, HELLO, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    let away = Duration::from_millis(1500);
    let told = Instant::now();
    peer.say(GoAway { after: away.into(), why: Sentence::cut("test") }).await;
    let mut peer = world.knock().await;
    assert!(told.elapsed() >= away, "came back after {:?}", told.elapsed());
    peer.say_welcome().await;
    peer.say(assignment).await;
    soon("the end of the connection", peer.connection.closed()).await;
    let peer = world.welcome(Verdict::Forget).await;
    assert!(peer.hello.inventory.is_empty(), "nothing began");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_output_is_not_sent_again() {
    let mut world = World::new();
    let assignment = world.assignment(1, HELLO, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment).await;
    let mut stream = peer.attempt().await;
    let mut got = Got::default();
    stream.resume(&got).await;
    while stream.take(&mut got).await.is_none() {}
    stream.say(OutputAck { stdout: 6, stderr: 5 }).await;
    peer.cut();
    let mut peer = world.welcome(Verdict::Keep).await;
    let mut stream = peer.attempt().await;
    stream.resume(&got).await;
    let end = stream.take(&mut got).await.expect("nothing but the end");
    assert_eq!((end.stdout, end.stderr), (6, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_on_which_heartbeats_are_not_answered_is_dead_and_attempts_live_on() {
    let mut world = World::new();
    world.heartbeat = Span::from_secs(1);
    let assignment = world.assignment(1, FOREVER, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    peer.say(assignment.clone()).await;
    peer.started().await;
    world.answers.store(false, Ordering::Relaxed);
    let mute = Instant::now();
    // Three seconds without an answer, the first of which may be over by now: the last answer is as old as a heartbeat.
    let peer_again = world.welcome(Verdict::Keep).await;
    assert!(mute.elapsed() >= Duration::from_secs(1), "gave up after {:?}", mute.elapsed());
    let inventory: Vec<_> = peer_again.hello.inventory.iter().map(|item| (item.attempt, item.state)).collect();
    assert_eq!(inventory, [(assignment.attempt, ItemState::Running)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_one_module_share_its_download() {
    let mut world = World::new();
    let assignments: Vec<_> = (1..=4).map(|number| world.assignment(number, HELLO, Input::None)).collect();
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    for assignment in assignments.iter().take(2).cloned() {
        peer.say(assignment).await;
    }
    for _ in 0..2 {
        assert_eq!(peer.ending().await.1, Ending::Exited { code: 0 });
    }
    // And what is there already is not asked for at all.
    for assignment in assignments.iter().skip(2).cloned() {
        peer.say(assignment).await;
    }
    for _ in 0..2 {
        assert_eq!(peer.ending().await.1, Ending::Exited { code: 0 });
    }
    assert_eq!(world.blobs_asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_back_within_seconds_however_often_its_connection_was_cut_just_before() {
    let world = World::new();
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Keep).await;
    // With a wait that doubles each time this many cuts would make it half a minute.
    for _ in 0..12 {
        // An answer means that it has the verdicts too.
        peer.say(Probe { number: 1 }).await;
        peer.hear().await;
        let cut = Instant::now();
        peer.cut();
        peer = world.welcome(Verdict::Keep).await;
        assert!(cut.elapsed() < Duration::from_secs(15), "it was away for {:?}", cut.elapsed());
    }
}
