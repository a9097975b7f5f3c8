//! How containers end.

use modchain_agent::executor::StopAs;
use modchain_types::{Ending, Fault, Span, Text};

use crate::harness::*;
use crate::image::{docker, engine_is_there};

#[tokio::test]
async fn each_way_to_end_has_its_own_word() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let story = Container::shell("kill -SEGV $$").run(&node).await;
    assert_eq!(*story.ending(), Ending::Signalled { signal: 11 }, "{story:?}");
    let story = Container::shell("exit 200").run(&node).await;
    assert_eq!(*story.ending(), Ending::Exited { code: 200 });
    // tail keeps all of a line in memory.
    let hog = Container::shell("tail /dev/zero").with(|request, _| request.memory_bytes = 32 * MIB);
    let story = hog.run(&node).await;
    assert_eq!(*story.ending(), Ending::MemoryLimit, "{story:?}");
    // The inner shell cannot fork and ends; the outer one, which forks no more, stays long enough to be looked at.
    let script = "(i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done); \
                  i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done; exit 5";
    let many = Container::shell(script).with(|_, task| task.pids_max = 16);
    let story = many.run(&node).await;
    assert_eq!(*story.ending(), Ending::PidsLimit { code: 5 }, "{story:?}");
}

#[tokio::test]
async fn a_command_that_is_not_there_never_starts_and_neither_does_what_is_no_program() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    Container::command(&["no-such-command"]).run(&node).await.assert_cannot_start(Fault::Command, "no-such-command");
    Container::command(&["/no/such"]).run(&node).await.assert_cannot_start(Fault::Command, "/no/such");
    Container::command(&["/data/plain"]).run(&node).await.assert_cannot_start(Fault::Job, "/data/plain");
    Container::command(&["/data"]).run(&node).await.assert_cannot_start(Fault::Job, "/data");
    let relative = |workdir: &str| {
        let workdir = Text::new(workdir).unwrap();
        Container::command(&["./busybox", "true"]).with(|_, task| task.workdir = Some(workdir))
    };
    assert_eq!(*relative("/bin").run(&node).await.ending(), EXITED_0);
    relative("/data").run(&node).await.assert_cannot_start(Fault::Command, "./busybox");
    relative("not/absolute").run(&node).await.assert_cannot_start(Fault::Job, "not/absolute");
}

#[tokio::test]
async fn a_stop_is_polite_first_and_then_it_is_not() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut polite =
        Container::shell("trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.1; done").start(&node);
    polite.started().await;
    polite.output_until("on\n").await;
    polite.control.stop(StopAs::RunLimit, Span::from_secs(100));
    let story = polite.story().await;
    assert_eq!((story.ending(), story.out()), (&Ending::RunLimit, "bye\n"));
    let mut deaf = Container::shell("trap '' TERM; echo on; while :; do sleep 0.1; done").start(&node);
    deaf.started().await;
    deaf.output_until("on\n").await;
    deaf.control.stop(StopAs::Stopped, Span::from_millis(100));
    assert_eq!(*deaf.story().await.ending(), Ending::Stopped);
    node.assert_clean();
}

#[tokio::test]
async fn a_signal_that_somebody_sends_through_the_engine_is_not_the_jobs_fault() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let mut attempt = Container::shell("echo on; sleep 1000").start(&node);
    attempt.started().await;
    attempt.output_until("on\n").await;
    docker(&["kill", &attempt.container_id()]);
    let story = attempt.story().await;
    let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
    assert!(message.contains("somebody else"), "{message}");
    // Its own hand is another matter.
    let story = Container::shell("kill -9 $$").run(&node).await;
    assert_eq!(*story.ending(), Ending::Signalled { signal: 9 });
}
