//! What makes a job quick: modules that were compiled before, and children that wait.

use std::path::Path;
use std::time::Instant;

use modchain_types::{Ending, Fault};

use crate::harness::*;

fn files(data: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(data.join("compiled")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs it with what is kept of its module; whether anything was, and its story.
async fn run(program: Program, executor: &modchain_agent::executor::wasm::WasmExecutor) -> (bool, Story) {
    let (kept, attempt) = program.start_as_kept(executor).await;
    (kept, attempt.story().await)
}

/// Until what a child handed over is on disk.
async fn until_kept(data: &Path, count: usize) {
    let until = Instant::now() + PATIENCE;
    while files(data).iter().filter(|path| path.extension().is_none()).count() != count {
        assert!(Instant::now() < until, "{:?}", files(data));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_second_job_of_a_module_runs_what_the_first_compiled_and_is_the_same() {
    let data = tempfile::tempdir().unwrap();
    let keeping = || executor().keeping(data.path()).unwrap();
    let first = keeping();
    for (name, count) in [("hello.wat", 1), ("exit3.wat", 2), ("trap.wat", 3), ("primes.wat", 4)] {
        let (kept, fresh) = run(Program::example(name), &first).await;
        assert!(!kept && fresh.started);
        until_kept(data.path(), count).await;
        let (kept, again) = run(Program::example(name), &first).await;
        assert!(kept, "{name}");
        assert_eq!((again.ending(), again.out(), again.err()), (fresh.ending(), fresh.out(), fresh.err()));
        assert_eq!(again.fuel(), fresh.fuel());
    }
    // Another run of the agent learns from its first child whether they are of any use.
    let second = keeping();
    assert!(!run(Program::example("hello.wat"), &second).await.0);
    assert!(run(Program::example("exit3.wat"), &second).await.0);
    // A job may have less memory than the one before.
    let mut small = Program::text(
        wat("(memory (export \"m\") 100) (func (export \"_start\"))").replace("(memory (export \"memory\") 1)", ""),
    );
    small.memory_bytes = 200 << 16;
    assert_eq!(run(small, &second).await.1.ending(), &EXITED_0);
}

#[tokio::test]
async fn nothing_is_kept_of_a_module_that_cannot_start() {
    let data = tempfile::tempdir().unwrap();
    let executor = executor().keeping(data.path()).unwrap();
    for source in ["(module)", "not a module", "(module (import \"x\" \"y\" (func)) (func (export \"_start\")))"] {
        let (kept, story) = run(Program::text(source), &executor).await;
        assert!(!kept && matches!(story.ending(), Ending::CannotStart { fault: Fault::Job, .. }), "{story:?}");
    }
    assert_eq!(files(data.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn what_was_tampered_with_is_compiled_again() {
    let data = tempfile::tempdir().unwrap();
    let one = executor().keeping(data.path()).unwrap();
    run(Program::example("hello.wat"), &one).await;
    until_kept(data.path(), 1).await;
    let file = files(data.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let other = executor().keeping(data.path()).unwrap();
    run(Program::example("exit3.wat"), &other).await;
    let (kept, story) = run(Program::example("hello.wat"), &other).await;
    assert!(!kept);
    assert_eq!(story.ending(), &EXITED_0);
}

// On one thread: whoever can see a child that waits can be given it too, because nothing comes between its start and its place.
#[tokio::test]
async fn children_wait_after_the_first_job_each_for_one_job_and_locked_in() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    executor.set_slots(2);
    let waiting = async |count: usize| {
        let until = Instant::now() + PATIENCE;
        loop {
            let children = children_in(dir.path());
            if children.len() == count {
                return children;
            }
            assert!(Instant::now() < until, "{children:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    assert!(children_in(dir.path()).is_empty(), "none before the first job");
    assert_eq!(Program::example("hello.wat").start_with(&executor).story().await.ending(), &EXITED_0);
    let first = waiting(1).await;
    // Locked in, before it has heard of any job, and asleep.
    until_locked(first[0]).await;
    let spent = ticks(first[0]);
    let mut attempt = Program::example("forever.wat").start_with(&executor);
    attempt.started().await;
    assert!(is_alive(first[0]), "it was given the job");
    burn_a_little(first[0]).await;
    assert!(ticks(first[0]) > spent);
    let both = waiting(2).await;
    assert!(both.contains(&first[0]));
    attempt.control.kill();
    attempt.story().await;
    assert!(!is_alive(first[0]), "no second job");

    // One that somebody ended is not given a job.
    let next = waiting(1).await;
    signal(next[0], libc::SIGKILL);
    wait_until_gone(next[0]);
    // With all of its threads, or there would be nothing to wait for yet.
    while std::fs::read_dir(format!("/proc/{}/task", next[0])).is_ok_and(|threads| threads.count() > 1) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(Program::example("hello.wat").start_with(&executor).story().await.ending(), &EXITED_0);

    // More jobs at once than there are slots: never more than that wait.
    let mut attempts = Vec::new();
    for _ in 0..5 {
        let mut attempt = Program::example("forever.wat").start_with(&executor);
        attempt.started().await;
        attempts.push(attempt);
    }
    waiting(5 + 2).await;
    for attempt in attempts {
        attempt.control.kill();
        attempt.story().await;
    }
    waiting(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_slots_keeps_no_children() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    for _ in 0..3 {
        assert_eq!(Program::example("hello.wat").start_with(&executor).story().await.ending(), &EXITED_0);
    }
    assert!(children_in(dir.path()).is_empty());
}

/// A job that runs until it is killed, and its child.
async fn forever(executor: &modchain_agent::executor::wasm::WasmExecutor, dir: &Path) -> (Attempt, u32) {
    let before = children_in(dir);
    let mut attempt = Program::example("forever.wat").start_with(executor);
    attempt.started().await;
    let child = children_in(dir).into_iter().find(|child| !before.contains(child)).expect("it has a child");
    (attempt, child)
}

#[tokio::test]
async fn a_template_has_one_thread_and_no_more_children_once_one_has_crashed() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    let (one, first) = forever(&executor, dir.path()).await;
    let (other, second) = forever(&executor, dir.path()).await;
    let template = template_of(first);
    assert_eq!(template_of(second), template);
    assert_eq!(std::fs::read_dir(format!("/proc/{template}/task")).unwrap().count(), 1);
    signal(first, libc::SIGABRT);
    let abort = u8::try_from(libc::SIGABRT).unwrap();
    assert_eq!(one.story().await.ending(), &Ending::Signalled { signal: abort });
    let (next, third) = forever(&executor, dir.path()).await;
    assert_ne!(template_of(third), template);
    // Who runs goes on.
    assert!(is_alive(second) && template_of(second) == template);
    for attempt in [other, next] {
        attempt.control.kill();
        assert_eq!(attempt.story().await.ending(), &Ending::Stopped);
    }
    drop(executor);
    templates_in(dir.path()).into_iter().for_each(wait_until_gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_wait_do_not_run_once_one_of_their_template_has_crashed() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    executor.set_slots(1);
    let (attempt, first) = forever(&executor, dir.path()).await;
    let until = Instant::now() + PATIENCE;
    while children_in(dir.path()).len() < 2 {
        assert!(Instant::now() < until, "none waits");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let template = template_of(first);
    signal(first, libc::SIGABRT);
    attempt.story().await;
    let (attempt, next) = forever(&executor, dir.path()).await;
    assert_ne!(template_of(next), template);
    attempt.control.kill();
    attempt.story().await;
}

#[test]
fn a_template_that_ends_leaves_no_dead_child_to_the_agent() {
    // In a process of its own: the orphans of all other tests would come to this one too.
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", "kept::within_a_process_that_orphans_come_to", "--ignored", "--nocapture"]);
    let output = alone.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs within the process that the other test starts"]
async fn within_a_process_that_orphans_come_to() {
    // As they come to an agent that is the first process of a container.
    // SAFETY: the call takes no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path()).waiting_for(std::time::Duration::from_secs(1));
    executor.set_slots(8);
    let mut attempts = Vec::new();
    for _ in 0..8 {
        let mut attempt = Program::example("forever.wat").start_with(&executor);
        attempt.started().await;
        attempts.push(attempt);
    }
    let templates = templates_in(dir.path());
    let mut children = std::collections::BTreeSet::from_iter(children_in(dir.path()));
    for attempt in attempts {
        attempt.control.kill();
        attempt.story().await;
    }
    // No job comes any more: those that wait end, and then what they were forked from.
    let until = Instant::now() + PATIENCE;
    while templates.iter().any(|template| is_alive(*template)) {
        children.extend(children_in(dir.path()));
        assert!(Instant::now() < until, "{templates:?} do not end");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let left: Vec<_> =
        children.into_iter().filter(|child| std::fs::exists(format!("/proc/{child}")).unwrap()).collect();
    assert_eq!(left, [] as [u32; 0], "they are dead, and nobody has waited for them");
}

#[tokio::test]
async fn a_template_is_replaced_before_many_have_seen_its_layout() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    let (attempt, child) = forever(&executor, dir.path()).await;
    let template = template_of(child);
    for _ in 1..64 {
        assert_eq!(
            Program::example("exit3.wat").start_with(&executor).story().await.ending(),
            &Ending::Exited { code: 3 }
        );
        assert_eq!(templates_in(dir.path()), [template]);
    }
    let (last, other) = forever(&executor, dir.path()).await;
    assert_ne!(template_of(other), template);
    for attempt in [attempt, last] {
        attempt.control.kill();
        attempt.story().await;
    }
    // The first one goes with its last child.
    wait_until_gone(template);
}

#[tokio::test]
async fn a_job_whose_template_is_killed_is_the_nodes_fault_and_the_next_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    let (attempt, child) = forever(&executor, dir.path()).await;
    signal(template_of(child), libc::SIGKILL);
    let story = attempt.story().await;
    let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
    assert!(message.contains("is gone"), "{message}");
    wait_until_gone(child);
    assert_eq!(Program::example("hello.wat").start_with(&executor).story().await.ending(), &EXITED_0);
}

#[tokio::test]
async fn children_of_one_template_draw_different_random_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor().in_dir(dir.path());
    let source = wat(r#"
        (func (export "_start")
          (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 32))
          (drop (call $random_get (i32.const 16) (i32.const 32)))
          (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#)
    .replace(
        "(memory",
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32))) (memory"#,
    );
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let story = Program::text(&source).start_with(&executor).story().await;
        assert_eq!((story.ending(), story.out.len()), (&EXITED_0, 32));
        drawn.insert(story.out);
    }
    assert_eq!((drawn.len(), templates_in(dir.path()).len()), (3, 1));
}
