//! Ending programs before their time, and that nothing is left behind.

use modchain_agent::executor::StopAs;
use modchain_types::{Ending, Span};
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

#[test]
fn the_child_ends_when_its_agent_dies() {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    // A child of our own making, told to run for ever; then its socket closes, as it does when the agent is killed.
    let program = Program::example("forever.wat");
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let number = theirs.as_raw_fd();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
    command.args(["wasm-child", &number.to_string()]).env_clear();
    let pipe = std::process::Stdio::piped;
    command.stdin(pipe()).stdout(pipe()).stderr(pipe());
    // SAFETY: one system call on a descriptor that is open in the parent until the spawn is over.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(number, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let mut child = command.spawn().unwrap();
    drop(theirs);
    let module = std::fs::read(&program.module).unwrap();
    let orders = serde_json::json!({
        "form": { "Source": { "keep": false } }, "module_bytes": module.len(), "args": ["forever"], "env": {},
        "memory_bytes": 1 << 20, "cpu_milli": 1_000, "input": "None",
    });
    let orders = serde_json::to_vec(&orders).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |ours: &mut std::os::unix::net::UnixStream| {
        let mut length = [0; 4];
        ours.read_exact(&mut length).unwrap();
        let mut notice = vec![0; u32::from_be_bytes(length) as usize];
        ours.read_exact(&mut notice).unwrap();
        String::from_utf8(notice).unwrap()
    };
    use std::io::{Read, Write};
    assert!(hear(&mut ours).contains("Ready"));
    ours.write_all(&u32::try_from(orders.len()).unwrap().to_be_bytes()).unwrap();
    ours.write_all(&orders).unwrap();
    ours.write_all(&module).unwrap();
    assert!(hear(&mut ours).contains("Started"));
    drop(ours);
    wait_until_gone(child.id());
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_child_started_by_hand_explains_itself_and_fails() {
    for args in [vec!["wasm-child"], vec!["wasm-child", "x"], vec!["wasm-child", "1"], vec!["wasm-child", "77"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_modchain-agent")).args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("by hand"), "{args:?}");
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
    for pid in children_of(std::process::id()) {
        // Children of other tests, which run beside this one, have other directories; a zombie has none.
        let Ok(cwd) = std::fs::read_link(format!("/proc/{pid}/cwd")) else { continue };
        assert!(!dirs.contains(&cwd), "process {pid} is left");
    }
}
