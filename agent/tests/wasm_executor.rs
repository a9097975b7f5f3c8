//! The wasm executor with real child processes: what comes out, how each program ends, and that nothing is left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::executor::{ExecutorEvent, Executors, RunControl, Running, StartRequest, StdinWriter, StopAs};
use modchain_types::{AttemptId, Digest, Ending, Fault, Input, JobId, List, Map, Span, Task, Text, WasmTask};
use modchain_wire::agent::OutputStream;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
const MIB: u64 = 1 << 20;

/// A program to run, ordinary unless said otherwise.
struct Program {
    dir: TempDir,
    module: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    memory_bytes: u64,
    input: Input,
}

impl Program {
    fn example(name: &str) -> Self {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        Self::file(examples.join(name))
    }

    fn text(source: impl AsRef<[u8]>) -> Self {
        let mut program = Self::file(PathBuf::new());
        program.module = program.dir.path().join("module.blob");
        std::fs::write(&program.module, source).unwrap();
        program
    }

    fn file(module: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, module, args: Vec::new(), env: Vec::new(), memory_bytes: 64 * MIB, input: Input::None }
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn input(mut self) -> Self {
        self.input = Input::Stream;
        self
    }

    fn start(self) -> Attempt {
        self.start_with(&executors())
    }

    fn start_with(self, executors: &Executors) -> Attempt {
        let args = self.args.iter().map(|arg| Text::new(arg).unwrap()).collect();
        let env: BTreeMap<_, _> =
            self.env.iter().map(|(name, value)| (Text::new(name).unwrap(), Text::new(value).unwrap())).collect();
        let task = WasmTask {
            module: Digest([0; 32]),
            module_bytes: 0,
            module_name: Text::new("program.wasm").unwrap(),
            args: List::new(args).unwrap(),
            env: Map::new(env).unwrap(),
        };
        let Running { events, control, stdin } = executors.start(StartRequest {
            attempt: AttemptId { job: JobId([7; 16]), number: 1 },
            task: Task::Wasm(task),
            memory_bytes: self.memory_bytes,
            cpu_milli: 1000,
            run_dir: self.dir.path().to_owned(),
            module: self.module.clone(),
            input: self.input,
        });
        Attempt { _dir: self.dir, events, control, stdin }
    }

    async fn run(self) -> Story {
        self.start().story().await
    }
}

fn executors() -> Executors {
    Executors { wasm: WasmExecutor::with_program(env!("CARGO_BIN_EXE_modchain-agent")) }
}

/// A started attempt.
struct Attempt {
    _dir: TempDir,
    events: tokio::sync::mpsc::Receiver<ExecutorEvent>,
    control: RunControl,
    stdin: Option<StdinWriter>,
}

impl Attempt {
    async fn next(&mut self) -> ExecutorEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    async fn started(&mut self) {
        assert_eq!(self.next().await, ExecutorEvent::Started);
    }

    /// Everything from here to the end.
    async fn story(mut self) -> Story {
        let mut story = Story::default();
        loop {
            match self.next().await {
                ExecutorEvent::Started => {
                    assert!(story.out.is_empty() && story.err.is_empty(), "output before the start");
                    assert!(!story.started, "started twice");
                    story.started = true;
                }
                ExecutorEvent::Output { stream, bytes } => {
                    assert!(!bytes.is_empty(), "an empty piece");
                    match stream {
                        OutputStream::Out => story.out.extend_from_slice(&bytes),
                        OutputStream::Err => story.err.extend_from_slice(&bytes),
                        OutputStream::Note => panic!("programs do not write notes"),
                    }
                }
                ExecutorEvent::Ended { ending, ran, fuel } => {
                    story.end = Some((ending, ran, fuel));
                    break;
                }
            }
        }
        assert_eq!(self.events.recv().await, None, "the end is the last event");
        story
    }
}

/// What became of an attempt.
#[derive(Debug, Default)]
struct Story {
    started: bool,
    out: Vec<u8>,
    err: Vec<u8>,
    end: Option<(Ending, Span, u64)>,
}

impl Story {
    fn ending(&self) -> &Ending {
        &self.end.as_ref().expect("it has ended").0
    }

    fn ran(&self) -> Span {
        self.end.as_ref().expect("it has ended").1
    }

    fn fuel(&self) -> u64 {
        self.end.as_ref().expect("it has ended").2
    }

    fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn err(&self) -> &str {
        std::str::from_utf8(&self.err).unwrap()
    }

    /// It never ran, through the job's own fault, and the message is this.
    fn assert_cannot_start(&self, expected: &str) {
        let Ending::CannotStart { fault: Fault::Job, message } = self.ending() else {
            panic!("it should not have started: {self:?}");
        };
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(!message.contains('\n'), "`{message}` is more than a line");
        assert!(!self.started && self.ran() == Span::ZERO && self.fuel() == 0, "{self:?}");
        assert!(self.out.is_empty() && self.err.is_empty(), "{self:?}");
    }
}

const EXITED_0: Ending = Ending::Exited { code: 0 };

/// A program with this body, and the imports most programs have.
fn wat(body: &str) -> String {
    format!(
        r#"(module
             (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
             (memory (export "memory") 1)
             {body})"#
    )
}

/// The processes that this one has started and not yet waited for.
fn children_of(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        if rest.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    children
}

/// The child that works in this directory.
fn child_in(dir: &Path) -> u32 {
    let dir = dir.canonicalize().unwrap();
    children_of(std::process::id())
        .into_iter()
        .find(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        .expect("the child is there")
}

fn is_alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A zombie has ended; only its parent has not looked yet.
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

/// Waits until the process has used 50 ms of processor time since now.
async fn burn_a_little(pid: u32) {
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(11).unwrap().parse().unwrap()
    };
    let (before, deadline) = (ticks(), Instant::now() + PATIENCE);
    while ticks() < before + 5 {
        assert!(Instant::now() < deadline, "process {pid} does nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn hello_prints_and_completes() {
    let story = Program::example("hello.wat").run().await;
    assert_eq!((story.ending(), story.out(), story.err()), (&EXITED_0, "hello\n", ""));
    assert!(story.started && story.fuel() > 0 && story.ran() > Span::ZERO, "{story:?}");
}

#[tokio::test]
async fn a_program_that_is_gone_at_once_has_still_started_and_said_everything() {
    // Many times, because which of the two is seen first is chance.
    for _ in 0..30 {
        let mut attempt = Program::example("hello.wat").start();
        // The orders go out; then the thread that all tasks here share is held until the child has come and gone.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(20));
        attempt.started().await;
        let story = attempt.story().await;
        assert_eq!((story.ending(), story.out()), (&EXITED_0, "hello\n"));
    }
}

#[tokio::test]
async fn primes_prints_25_or_as_many_as_asked() {
    let story = Program::example("primes.wat").run().await;
    assert_eq!(story.ending(), &EXITED_0);
    let primes: Vec<u32> = story.out().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((primes.len(), primes[0], primes[9], primes[24]), (25, 2, 29, 97));

    let story = Program::example("primes.wat").args(&["1000"]).run().await;
    assert_eq!(story.out().lines().last(), Some("7919"));
    assert_eq!(story.out().lines().count(), 1000);
}

#[tokio::test]
async fn a_program_sees_its_arguments_and_its_environment_and_nothing_of_the_agents() {
    // Writes the sizes and the text of arguments and environment: 2 counts, 2 sizes, then the bytes.
    let source = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func $write (param $at i32) (param $bytes i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $bytes))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
      (func (export "_start")
        (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $args_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 4096) (i32.load (i32.const 20)))
        (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call $environ_get (i32.const 1024) (i32.const 4096)))
        (call $write (i32.const 4096) (i32.load (i32.const 20)))))"#;
    let story = Program::text(source).args(&["one", "zwei ü"]).env("COLOUR", "blue").env("A", "").run().await;
    assert_eq!(story.ending(), &EXITED_0);
    assert_eq!(story.out(), "program.wasm\0one\0zwei ü\0A=\0COLOUR=blue\0");
}

#[tokio::test]
async fn output_arrives_while_the_program_still_runs() {
    let mut attempt = Program::example("slow.wat").start();
    attempt.started().await;
    let first = attempt.next().await;
    assert_eq!(first, ExecutorEvent::Output { stream: OutputStream::Out, bytes: "line 0\n".into() });
    let second = attempt.next().await;
    assert_eq!(second, ExecutorEvent::Output { stream: OutputStream::Out, bytes: "line 1\n".into() });
    // It sleeps now: a stop must reach it there too, and not only at its next instruction.
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    let story = attempt.story().await;
    assert_eq!(story.ending(), &Ending::Stopped);
    assert!(story.ran() >= Span::from_millis(900) && story.fuel() > 0, "{story:?}");
}

#[tokio::test]
async fn echo_gives_back_a_mebibyte_of_input_intact() {
    let mut attempt = Program::example("echo.wat").input().start();
    let sent: Vec<u8> = (0..MIB).map(|i| (i % 251) as u8).collect();
    let mut stdin = attempt.stdin.take().unwrap();
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            for piece in sent.chunks(10_000) {
                stdin.write(piece).await.unwrap();
            }
            stdin.close();
        }
    });
    let story = attempt.story().await;
    writing.await.unwrap();
    assert_eq!(story.ending(), &EXITED_0);
    assert!(story.out == sent, "{} of {} bytes, or other ones", story.out.len(), sent.len());
}

#[tokio::test]
async fn input_reaches_the_program_line_by_line() {
    let mut attempt = Program::example("echo.wat").input().start();
    let mut stdin = attempt.stdin.take().unwrap();
    attempt.started().await;
    for line in ["one\n", "two\n"] {
        stdin.write(line.as_bytes()).await.unwrap();
        assert_eq!(attempt.next().await, ExecutorEvent::Output { stream: OutputStream::Out, bytes: line.into() });
    }
    stdin.close();
    assert_eq!(attempt.story().await.ending(), &EXITED_0);
}

#[tokio::test]
async fn without_input_a_program_reads_the_end_at_once() {
    let attempt = Program::example("echo.wat").start();
    assert!(attempt.stdin.is_none());
    let story = attempt.story().await;
    assert_eq!((story.ending(), story.out()), (&EXITED_0, ""));
}

#[tokio::test]
async fn input_that_nobody_reads_waits_and_is_refused_when_the_program_is_gone() {
    let mut attempt = Program::example("forever.wat").input().start();
    let mut stdin = attempt.stdin.take().unwrap();
    attempt.started().await;
    let writing = tokio::spawn(async move {
        let piece = vec![0; 64 * 1024];
        let mut pieces = 0;
        while stdin.write(&piece).await.is_ok() {
            pieces += 1;
        }
        pieces
    });
    attempt.control.stop(StopAs::Stopped, Span::from_secs(60));
    assert_eq!(attempt.story().await.ending(), &Ending::Stopped);
    let pieces = tokio::time::timeout(PATIENCE, writing).await.unwrap().unwrap();
    assert!(pieces <= 2, "{pieces} pieces went into a pipe that nobody reads");
}

#[tokio::test]
async fn exit_codes_come_back_as_they_are() {
    for code in [0u8, 1, 3, 125, 126, 127, 134, 137, 255] {
        let source = wat(&format!(r#"(func (export "_start") (call $proc_exit (i32.const {code})) (unreachable))"#));
        let story = Program::text(source).run().await;
        assert_eq!(story.ending(), &Ending::Exited { code });
    }
    let story = Program::example("exit3.wat").run().await;
    assert_eq!(
        (story.ending(), story.out(), story.err()),
        (&Ending::Exited { code: 3 }, "", "three things are wrong\n")
    );
}

#[tokio::test]
async fn a_trap_is_a_trap_and_says_what_and_where() {
    let story = Program::example("trap.wat").run().await;
    let Ending::Trapped { message } = story.ending() else { panic!("{story:?}") };
    assert_eq!(message.as_str(), "wasm trap: wasm `unreachable` instruction executed in function broken");
    assert!(story.started);
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_in_one_line_and_never_ran() {
    let start = r#"(func (export "_start"))"#;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            format!(r#"(module (import "env" "foo" (func)) {start})"#).into(),
            "the module imports env.foo, which does not exist here: only WASI preview 1",
        ),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "fd_wriet" (func)) {start})"#).into(),
            "imports wasi_snapshot_preview1.fd_wriet, which does not exist",
        ),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) {start})"#).into(),
            "does not fit its imports: incompatible import type for `wasi_snapshot_preview1::fd_write`",
        ),
        (b"\x80\x81\xff\xfe garbage".to_vec(), "this is not a WebAssembly module"),
        (b"int main() { return 0; }".to_vec(), "not a valid WebAssembly module: expected `(`"),
        (b"\0asm\x01\0\0\0\x07garbage".to_vec(), "not a valid WebAssembly module:"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "component"),
        (Vec::new(), "empty file"),
        (b"(module)".to_vec(), "exports no function _start"),
        (br#"(module (func (export "_start") (param i32)))"#.to_vec(), "takes parameters"),
        (format!("(module (memory 2000) {start})").into(), "needs 125 MiB of memory to begin with; the job has 64 MiB"),
        (format!("(module (table 100001 funcref) {start})").into(), "table of 100001 elements"),
    ];
    for (module, expected) in cases {
        Program::text(module).run().await.assert_cannot_start(expected);
    }
    let mut too_large = Program::text(b"");
    let file = std::fs::File::create(too_large.dir.path().join("large")).unwrap();
    file.set_len((32 << 20) + 1).unwrap();
    too_large.module = too_large.dir.path().join("large");
    too_large.run().await.assert_cannot_start("larger than 32 MiB");
}

#[tokio::test]
async fn what_the_node_lacks_is_the_nodes_fault() {
    let mut missing = Program::text(b"");
    missing.module = missing.dir.path().join("not-there");
    let no_module = missing.run().await;
    let nowhere = Executors { wasm: WasmExecutor::with_program("/nonexistent/agent") };
    let no_child = Program::example("hello.wat").start_with(&nowhere).story().await;
    // Something that starts, but is no agent.
    let stranger = Executors { wasm: WasmExecutor::with_program("/bin/false") };
    let no_agent = Program::example("hello.wat").start_with(&stranger).story().await;
    for story in [no_module, no_child, no_agent] {
        assert!(matches!(story.ending(), Ending::CannotStart { fault: Fault::Node, .. }), "{story:?}");
        assert!(!story.started && story.ran() == Span::ZERO);
    }
}

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
async fn a_flood_is_delivered_whole_and_in_order() {
    let story = Program::example("flood.wat").run().await;
    assert_eq!((story.ending(), story.out.len()), (&EXITED_0, 80_000_000));
    for (number, line) in story.out.chunks(8).enumerate().step_by(9_973) {
        assert_eq!(line, format!("{number:07}\n").as_bytes());
    }
}

#[tokio::test]
async fn a_child_killed_from_outside_is_the_nodes_fault() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    let pid = child_in(&dir);
    signal(pid, libc::SIGKILL);
    let story = attempt.story().await;
    let Ending::NodeFault { message } = story.ending() else { panic!("{story:?}") };
    assert!(message.contains("signal 9"), "{message}");
    assert!(story.ran() > Span::ZERO);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_child_that_crashes_is_told_by_its_signal() {
    let program = Program::example("forever.wat");
    let dir = program.dir.path().to_owned();
    let mut attempt = program.start();
    attempt.started().await;
    signal(child_in(&dir), libc::SIGABRT);
    let abort = u8::try_from(libc::SIGABRT).unwrap();
    assert_eq!(attempt.story().await.ending(), &Ending::Signalled { signal: abort });
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
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    // SAFETY: one system call on a descriptor that is open in the parent until the spawn is over.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(number, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let mut child = command.spawn().unwrap();
    drop(theirs);
    let orders = serde_json::json!({
        "module": program.module, "args": ["forever"], "env": {}, "memory_bytes": 1 << 20, "input": "None",
    });
    let orders = serde_json::to_vec(&orders).unwrap();
    use std::io::{Read, Write};
    ours.write_all(&u32::try_from(orders.len()).unwrap().to_be_bytes()).unwrap();
    ours.write_all(&orders).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    ours.read_exact(&mut length).unwrap();
    let mut notice = vec![0; u32::from_be_bytes(length) as usize];
    ours.read_exact(&mut notice).unwrap();
    assert!(String::from_utf8(notice).unwrap().contains("Started"));
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
async fn wasm_hogs_end_where_they_should_and_the_agent_goes_on() {
    let hog = Program::example("hog.wat").run().await;
    assert_eq!(hog.ending(), &Ending::MemoryLimit);
    // 64 MiB less the page it begins with.
    assert_eq!(hog.out().lines().count(), 63);

    let tables = r#"(table $t 1 funcref)
        (func (export "_start") (loop $more (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $more)))"#;
    let tables = Program::text(wat(tables)).run().await;
    let Ending::Trapped { message } = tables.ending() else { panic!("{tables:?}") };
    assert!(message.contains("100000 are allowed"), "{message}");

    let recursion = r#"(func $deeper (param i64) (result i64)
          (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))
        (func (export "_start") (drop (call $deeper (i64.const 0))))"#;
    let recursion = Program::text(wat(recursion)).run().await;
    let Ending::Trapped { message } = recursion.ending() else { panic!("{recursion:?}") };
    assert!(message.contains("call stack exhausted"), "{message}");

    // The module's own start function is the guest's code like any other: it can be stopped.
    let early = r#"(func $loop (loop $again (br $again))) (start $loop) (func (export "_start"))"#;
    let mut early = Program::text(wat(early)).start();
    early.started().await;
    early.control.stop(StopAs::RunLimit, Span::from_secs(60));
    assert_eq!(early.story().await.ending(), &Ending::RunLimit);

    // 10 MiB of module: data, which costs little to compile.
    let large = wat(&format!(r#"(func (export "_start")) (data "{}")"#, "x".repeat(10 << 20)));
    let large = Program::text(large).run().await;
    assert_eq!(large.ending(), &EXITED_0);
}

#[tokio::test]
async fn a_module_that_declares_its_own_maximum_is_told_no_beyond_it() {
    let source = r#"(module (memory 1 2)
      (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then (unreachable)))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then (unreachable)))))"#;
    assert_eq!(Program::text(source).run().await.ending(), &EXITED_0);
}

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
    attempt.control.kill();
    attempt.story().await;
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

fn signal(pid: u32, signal: i32) {
    // SAFETY: the call takes no memory; the process is a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
}
