//! Ending programs before their time, and that nothing is left behind.

use modchain_agent::executor::StopAs;
use modchain_types::{Ending, Span};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::harness::*;

#[tokio::test]
async fn a_stop_ends_an_endless_loop_within_the_grace_and_tells_its_fuel() {
    for (stop_as, ending) in [
        (StopAs::Stopped, Ending::Stopped),
        (StopAs::RunLimit, Ending::RunLimit),
        (StopAs::LeaseEnded, Ending::LeaseEnded),
    ] {
        let program = Program::example("forever.wat");
        let dir = program.dir.path().to_owned();
        let mut attempt = program.start();
        attempt.started().await;
        burn_a_little(child_in(&dir)).await;
        attempt.control.stop(stop_as, Span::from_secs(60));
        // The first stop counts.
        attempt.control.stop(StopAs::Stopped, Span::ZERO);
        let stopped_at = Instant::now();
        let story = attempt.story().await;
        assert_eq!(story.ending(), &ending);
        assert!(stopped_at.elapsed() < Duration::from_secs(30), "it took {:?}", stopped_at.elapsed());
        assert!(story.fuel() > 0, "{story:?}");
    }
}

#[tokio::test]
async fn a_kill_and_a_grace_of_nothing_end_it_too() {
    let mut attempt = Program::example("forever.wat").start();
    attempt.started().await;
    attempt.control.kill();
    assert_eq!(attempt.story().await.ending(), &Ending::Stopped);

    let mut attempt = Program::example("forever.wat").start();
    attempt.started().await;
    attempt.control.stop(StopAs::RunLimit, Span::ZERO);
    attempt.control.kill();
    assert_eq!(attempt.story().await.ending(), &Ending::RunLimit);
}

#[tokio::test]
async fn a_child_that_does_not_listen_is_killed_after_the_grace() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    signal(pid, libc::SIGSTOP);
    attempt.control.stop(StopAs::Stopped, Span::from_millis(200));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_tenth_of_a_core_is_a_tenth_of_a_core() {
    let mut program = Program::example("forever.wat");
    program.cpu_milli = 100;
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    burn_a_little(child_in(&dir)).await;
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    // It burnt 50 ms, which take half a second at this share; a busy machine only makes it longer.
    assert!(story.ran() >= Span::from_millis(200), "{story:?}");
}

#[tokio::test]
async fn a_stop_before_the_start_ends_it_without_a_start() {
    let attempt = Program::example("forever.wat").start();
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    assert_eq!(story.started, story.ran() > Span::ZERO, "{story:?}");
}

#[tokio::test]
async fn a_stop_reaches_a_program_whose_output_nobody_takes() {
    let mut attempt = Program::example("flood.wat").start();
    attempt.started().await;
    // Nobody takes events, so the pipe fills and the program waits; only then is it stopped.
    let deadline = Instant::now() + PATIENCE;
    while attempt.events.len() < attempt.events.max_capacity() {
        assert!(Instant::now() < deadline, "the channel does not fill");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    // What was written before the stop is delivered: whole lines in order, far less than the program had to say.
    let out = story.out();
    assert!(out.len() < 4_000_000, "{} bytes were held somewhere", out.len());
    assert!(out.starts_with("0000000\n0000001\n"));
    for (number, line) in out.lines().enumerate().take(out.len() / 8) {
        assert_eq!(line, format!("{number:07}"));
    }
}

#[tokio::test]
async fn dropping_the_events_kills_the_child() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    drop(attempt);
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks a template for a child as the agent does.
fn fork(socket: &UnixStream, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let request = [b'F', 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(sendmsg(socket, &[std::io::IoSlice::new(&request)], &mut control, SendFlags::empty()), Ok(9));
}

/// A template of our own making, with a child that was told to run for ever: the agent's end of either, and the two.
fn by_hand() -> (UnixStream, UnixStream, std::process::Child, u32) {
    let (to_template, theirs) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
    command.arg("wasm-child").env_clear().stdin(std::os::fd::OwnedFd::from(theirs)).stdout(std::process::Stdio::null());
    let template = command.spawn().unwrap();
    // With it goes the copy of their end that it holds.
    drop(command);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (input, output) = std::io::pipe().unwrap();
    fork(&to_template, &[theirs.as_fd(), input.as_fd(), output.as_fd(), output.as_fd()]);
    drop((theirs, input, output));
    let program = Program::example("forever.wat");
    let module = std::fs::read(&program.module).unwrap();
    let orders = serde_json::json!({
        "form": { "Source": { "keep": false } }, "module_bytes": module.len(), "args": ["forever"], "env": {},
        "memory_bytes": 1 << 20, "cpu_milli": 1_000, "input": "None",
    });
    let orders = serde_json::to_vec(&orders).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |ours: &mut UnixStream| {
        let mut length = [0; 4];
        ours.read_exact(&mut length).unwrap();
        let mut notice = vec![0; u32::from_be_bytes(length) as usize];
        ours.read_exact(&mut notice).unwrap();
        String::from_utf8(notice).unwrap()
    };
    assert!(hear(&mut ours).contains("Ready"));
    ours.write_all(&u32::try_from(orders.len()).unwrap().to_be_bytes()).unwrap();
    ours.write_all(&orders).unwrap();
    ours.write_all(&module).unwrap();
    assert!(hear(&mut ours).contains("Started"));
    let child = children_of(template.id()).pop().unwrap();
    (to_template, ours, template, child)
}

#[test]
fn the_child_ends_when_its_agent_dies() {
    // Its socket closes, as it does when the agent is killed.
    let (mut to_template, to_child, mut template, child) = by_hand();
    drop(to_child);
    wait_until_gone(child);
    let mut told = [0; 13];
    to_template.set_read_timeout(Some(PATIENCE)).unwrap();
    to_template.read_exact(&mut told).unwrap();
    let failed = 1i32 << 8;
    assert_eq!((told[..9].to_vec(), &told[9..]), (vec![b'E', 0, 0, 0, 0, 0, 0, 0, 1], &failed.to_be_bytes()[..]));
    // The template's own closes as well.
    drop(to_template);
    assert!(template.wait().unwrap().success());
}

#[test]
fn a_child_does_not_outlive_its_template() {
    for kill in [false, true] {
        let (to_template, to_child, mut template, child) = by_hand();
        match kill {
            true => template.kill().unwrap(),
            false => drop(to_template),
        }
        assert_eq!(template.wait().unwrap().success(), !kill);
        wait_until_gone(child);
        drop(to_child);
    }
}

#[test]
fn a_child_started_by_hand_explains_itself_and_fails() {
    let (pipe, _to_pipe) = std::io::pipe().unwrap();
    for stdin in [std::process::Stdio::null(), pipe.into()] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
        let output = command.arg("wasm-child").stdin(stdin).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("by hand"));
    }
}

#[tokio::test]
async fn no_child_is_left_behind() {
    let mut dirs = Vec::new();
    let mut stories = Vec::new();
    for name in ["hello.wat", "trap.wat", "exit3.wat", "hog.wat", "primes.wat", "echo.wat"] {
        let program = Program::example(name);
        dirs.push(program.dir.path().canonicalize().unwrap());
        let attempt = program.start();
        stories.push(attempt.story());
    }
    for story in stories {
        let story = story.await;
        assert!(story.end.is_some());
    }
    for dir in &dirs {
        assert!(children_in(dir).is_empty(), "of {dir:?} a child is left");
        // Their templates hear that nobody needs them any more.
        templates_in(dir).into_iter().for_each(wait_until_gone);
    }
}
