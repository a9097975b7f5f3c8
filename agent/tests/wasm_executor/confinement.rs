//! Strangers' code against the node: what a program cannot reach, use up or dodge.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modchain_agent::executor::StopAs;
use modchain_types::{Ending, Span};

use crate::harness::*;

#[tokio::test]
async fn a_program_has_no_files_and_no_sockets() {
    // The first descriptor after the three is the first preopened directory, if there is one; 8 is EBADF.
    let source = r#"(module
      (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (if (i32.eqz (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 8))) (then (unreachable)))
        (call $proc_exit (call $fd_prestat_get (i32.const 3) (i32.const 0)))))"#;
    assert_eq!(Program::text(source).run().await.ending(), &Ending::Exited { code: 8 });
}

#[tokio::test]
async fn the_child_carries_nothing_of_the_agent_and_is_locked_in() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").split_whitespace().any(|word| word == "0"), "{limits}");
    assert!(limit("Max open files").split_whitespace().any(|word| word == "32"), "{limits}");
    // Its own group: a signal to the agent's does not reach it.
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    assert_eq!(u32::try_from(group.as_raw_nonzero().get()).unwrap(), pid);
    // Files: the three of the guest, nulled or piped, the socket twice over, and the event loop's; nothing with a path.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap();
        let name = target.to_str().unwrap();
        let known =
            name == "/dev/null" || ["pipe:", "socket:", "anon_inode:"].iter().any(|kind| name.starts_with(kind));
        assert!(known, "the child has {name} open");
    }
    // Least of all the template's way to the agent.
    let open = |pid: u32| -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target != Path::new("/dev/null")).collect()
    };
    // The template lets go of a child's own files only after the child has begun.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (of_template, of_child) = (open(template_of(pid)), open(pid));
        assert!(of_template.iter().any(|target| target.to_str().unwrap().starts_with("socket:")), "{of_template:?}");
        if of_template.is_disjoint(&of_child) {
            break;
        }
        assert!(Instant::now() < deadline, "{of_template:?} and {of_child:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    attempt.control.kill();
    attempt.story().await;
}

/// A program of this many pages that has all of these calls.
fn attack(pages: u32, body: &str) -> Program {
    let mut program = Program::text(format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") {pages})
          {body})"#
    ));
    program.memory_bytes = u64::from(pages) << 16;
    program
}

#[tokio::test]
async fn no_path_opens_from_any_descriptor() {
    for path in ["/proc/self/environ", "/etc/passwd", ".", "../../../../etc/passwd"] {
        // Leaves with the descriptor from which it opened something.
        let body = format!(
            r#"(data (i32.const 0) "{path}")
               (func (export "_start") (local $fd i32)
                 (loop $next
                   (if (i32.eqz (call $path_open (local.get $fd) (i32.const 1) (i32.const 0) (i32.const {length})
                         (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 256)))
                     (then (call $proc_exit (i32.add (local.get $fd) (i32.const 1)))))
                   (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                   (br_if $next (i32.lt_u (local.get $fd) (i32.const 100)))))"#,
            length = path.len()
        );
        assert_eq!(attack(1, &body).run().await.ending(), &EXITED_0, "{path}");
    }
}

#[tokio::test]
async fn calls_with_absurd_sizes_end_as_the_programs_own_fault() {
    let own = |ending: &Ending| matches!(ending, Ending::Exited { .. } | Ending::Trapped { .. });
    for call in [
        "(call $random_get (i32.const 0) (i32.const -1))",
        "(call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0))",
        "(call $fd_read (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0))",
        "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0))",
        "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 1000000) (i32.const 0))",
        "(call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)
           (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $fd_renumber (i32.const 1) (i32.const -1))",
    ] {
        let story = attack(800, &format!(r#"(func (export "_start") (call $proc_exit {call}))"#)).run().await;
        assert!(story.started && own(story.ending()), "{call}: {story:?}");
    }
}

#[tokio::test]
async fn a_program_that_shuffles_its_descriptors_breaks_nothing_but_itself() {
    for (from, to) in [(0, 1), (1, 0), (1, 2), (1, 1), (77, 1), (1, 77)] {
        let body = format!(
            r#"(func (export "_start") (local $fd i32)
                 (i32.store (i32.const 4) (i32.const 3))
                 (drop (call $fd_renumber (i32.const {from}) (i32.const {to})))
                 (loop $next
                   (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 64)))
                   (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 64)))
                   (drop (call $fd_close (local.get $fd)))
                   (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                   (br_if $next (i32.lt_u (local.get $fd) (i32.const 100)))))"#
        );
        assert_eq!(attack(1, &body).run().await.ending(), &EXITED_0, "{from} to {to}");
    }
}

#[tokio::test]
async fn a_stop_reaches_a_program_wherever_it_waits() {
    // A clock for ever, in both ways of saying so, an endless run of large calls, and calls that never return to a loop.
    let wait = |flags: u32| {
        format!(
            r#"(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))
               (i32.store (i32.const 40) (i32.const {flags}))
               (drop (call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 1024)))"#
        )
    };
    for body in [
        wait(0),
        wait(1),
        "(loop $again (drop (call $random_get (i32.const 0) (i32.const 5000000))) (br $again))".into(),
        "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 5000000)) (br $again))".into(),
        "(return_call $tail)".into(),
    ] {
        let body = format!(r#"(func $tail (return_call $tail)) (func (export "_start") {body})"#);
        let mut attempt = attack(80, &body).start();
        attempt.started().await;
        let stopped_at = Instant::now();
        attempt.control.stop(StopAs::RunLimit, Span::from_secs(60));
        let story = attempt.story().await;
        assert_eq!(story.ending(), &Ending::RunLimit, "{body}");
        assert!(stopped_at.elapsed() < Duration::from_secs(30), "{body} took {:?}", stopped_at.elapsed());
    }
}

#[tokio::test]
async fn what_the_engine_need_not_offer_is_not_offered() {
    let start = r#"(func (export "_start"))"#;
    for (module, expected) in [
        (format!("(module (memory 1 1 shared) {start})"), "threads"),
        (format!("(module (memory i64 1) {start})"), "memory64"),
        (format!("(module (memory 1) (memory 1) {start})"), "multiple memories"),
        (format!("(module (type (array i8)) {start})"), "gc"),
        (format!("(module (tag) {start})"), "exceptions"),
    ] {
        Program::text(module).run().await.assert_cannot_start(expected);
    }
}

#[tokio::test]
async fn names_in_a_module_cannot_steer_the_terminal_of_who_reads_them() {
    let hostile = r"\1b]0;evil\07\e2\80\ae\0a";
    let trap = Program::text(format!(r#"(module (func (@name "{hostile}") unreachable) (export "_start" (func 0)))"#));
    let Ending::Trapped { message } = trap.run().await.ending().clone() else { panic!("it should trap") };
    assert!(message.contains("evil") && !message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
    let import = Program::text(format!(r#"(module (import "{hostile}" "x" (func)) (func (export "_start")))"#));
    import.run().await.assert_cannot_start("evil");
}

#[tokio::test]
async fn every_thread_of_a_child_is_locked_in_kind_to_the_machine_and_there_are_two() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    let threads: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert_eq!(threads.len(), 2, "the guest's and the listener's");
    let seccomp = |path: &str| {
        let status = std::fs::read_to_string(path).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Seccomp:\t")).map(str::to_owned)
    };
    // A kernel without it says nothing of it; one with it has it on every thread.
    if seccomp("/proc/self/status").is_some() {
        for thread in threads {
            let status = thread.path().join("status");
            assert_eq!(seccomp(status.to_str().unwrap()).as_deref(), Some("2"));
        }
    }
    let stat = |of: &str| std::fs::read_to_string(format!("/proc/{of}/stat")).unwrap();
    let nice =
        |stat: &str| -> i32 { stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap() };
    assert!(nice(&stat(&pid.to_string())) > nice(&stat("self")), "it does not give way");
    attempt.control.kill();
    attempt.story().await;
}
