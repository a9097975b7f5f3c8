//! What the stories of the wasm executor share: a program to run, what becomes of it, and a look at the processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::executor::{ExecutorEvent, Executors, RunControl, Running, StartRequest, StdinWriter};
use modchain_types::{
    AttemptId, Digest, Ending, Exceptions, Fault, Fence, Input, JobId, List, Map, Span, Task, Text, WasmTask,
};
use modchain_wire::agent::OutputStream;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);
pub(crate) const MIB: u64 = 1 << 20;

/// A program to run, ordinary unless said otherwise.
pub(crate) struct Program {
    pub(crate) dir: TempDir,
    pub(crate) module: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_milli: u32,
    pub(crate) input: Input,
}

impl Program {
    pub(crate) fn example(name: &str) -> Self {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        Self::file(examples.join(name))
    }

    pub(crate) fn text(source: impl AsRef<[u8]>) -> Self {
        let mut program = Self::file(PathBuf::new());
        program.module = program.dir.path().join("module.blob");
        std::fs::write(&program.module, source).unwrap();
        program
    }

    pub(crate) fn file(module: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (args, env, memory_bytes, cpu_milli) = (Vec::new(), Vec::new(), 64 * MIB, 1_000);
        Self { dir, module, args, env, memory_bytes, cpu_milli, input: Input::None }
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn input(mut self) -> Self {
        self.input = Input::Stream;
        self
    }

    pub(crate) fn start(self) -> Attempt {
        let executor = executor().in_dir(self.dir.path());
        self.start_with(&executor)
    }

    pub(crate) fn start_with(self, executor: &WasmExecutor) -> Attempt {
        self.start_compiled(executor, None)
    }

    /// As the shell does it: with what is kept of its module, if anything is.
    pub(crate) async fn start_as_kept(self, executor: &WasmExecutor) -> (bool, Attempt) {
        let compiled = executor.compiled(&self.task()).await;
        (compiled.is_some(), self.start_compiled(executor, compiled))
    }

    fn task(&self) -> WasmTask {
        let args = self.args.iter().map(|arg| Text::new(arg).unwrap()).collect();
        let env: BTreeMap<_, _> =
            self.env.iter().map(|(name, value)| (Text::new(name).unwrap(), Text::new(value).unwrap())).collect();
        let module = std::fs::read(&self.module).unwrap_or_default();
        WasmTask {
            module: Digest::of(&module),
            module_bytes: module.len() as u64,
            module_name: Text::new("program.wasm").unwrap(),
            args: List::new(args).unwrap(),
            env: Map::new(env).unwrap(),
        }
    }

    fn start_compiled(self, executor: &WasmExecutor, compiled: Option<Bytes>) -> Attempt {
        let task = self.task();
        let executors = Executors::wasm_alone(executor.clone());
        let Running { events, control, stdin } = executors.start(StartRequest {
            attempt: AttemptId { job: JobId([7; 16]), number: 1 },
            fence: Fence(1),
            spec_digest: Digest([0; 32]),
            task: Task::Wasm(task),
            memory_bytes: self.memory_bytes,
            cpu_milli: self.cpu_milli,
            module: self.module.clone(),
            compiled,
            state: self.dir.path().join("state"),
            gpus: Vec::new(),
            exceptions: Exceptions::default(),
            image: None,
            output_tokens_max: None,
            input: self.input,
        });
        Attempt { _dir: self.dir, events, control, stdin }
    }

    pub(crate) async fn run(self) -> Story {
        self.start().story().await
    }
}

pub(crate) fn executor() -> WasmExecutor {
    WasmExecutor::with_program(env!("CARGO_BIN_EXE_modchain-agent"))
}

/// A started attempt.
pub(crate) struct Attempt {
    _dir: TempDir,
    pub(crate) events: tokio::sync::mpsc::Receiver<ExecutorEvent>,
    pub(crate) control: RunControl,
    pub(crate) stdin: Option<StdinWriter>,
}

impl Attempt {
    pub(crate) async fn next(&mut self) -> ExecutorEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    pub(crate) async fn started(&mut self) {
        assert_eq!(self.next().await, ExecutorEvent::Started);
    }

    /// Everything from here to the end.
    pub(crate) async fn story(mut self) -> Story {
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
                ExecutorEvent::Preparing { .. } | ExecutorEvent::Pinned { .. } => {
                    panic!("modules are not prepared in the open")
                }
                ExecutorEvent::Ended { ending, usage } => {
                    story.end = Some((ending, usage.ran, usage.fuel));
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
pub(crate) struct Story {
    pub(crate) started: bool,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) end: Option<(Ending, Span, u64)>,
}

impl Story {
    pub(crate) fn ending(&self) -> &Ending {
        &self.end.as_ref().expect("it has ended").0
    }

    pub(crate) fn ran(&self) -> Span {
        self.end.as_ref().expect("it has ended").1
    }

    pub(crate) fn fuel(&self) -> u64 {
        self.end.as_ref().expect("it has ended").2
    }

    pub(crate) fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn err(&self) -> &str {
        std::str::from_utf8(&self.err).unwrap()
    }

    /// It never ran, through the job's own fault, and the message is this.
    pub(crate) fn assert_cannot_start(&self, expected: &str) {
        let Ending::CannotStart { fault: Fault::Job, message } = self.ending() else {
            panic!("it should not have started: {self:?}");
        };
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(!message.contains('\n'), "`{message}` is more than a line");
        assert!(!self.started && self.ran() == Span::ZERO && self.fuel() == 0, "{self:?}");
        assert!(self.out.is_empty() && self.err.is_empty(), "{self:?}");
    }
}

pub(crate) const EXITED_0: Ending = Ending::Exited { code: 0 };

/// A program with this body, and the imports most programs have.
pub(crate) fn wat(body: &str) -> String {
    format!(
        r#"(module
             (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
             (memory (export "memory") 1)
             {body})"#
    )
}

/// The processes that this one has started and not yet waited for.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
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

/// Whether the process works in this directory, which may have been removed. A zombie has none.
fn is_in(pid: u32, dir: &Path) -> bool {
    let dir = dir.canonicalize().unwrap_or_else(|_| format!("{} (deleted)", dir.display()).into());
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

/// The templates that work in this directory.
pub(crate) fn templates_in(dir: &Path) -> Vec<u32> {
    let mut templates = children_of(std::process::id());
    templates.retain(|pid| is_in(*pid, dir));
    templates
}

/// The child that works in this directory.
pub(crate) fn child_in(dir: &Path) -> u32 {
    children_in(dir).pop().expect("the child is there")
}

/// The children that work in this directory.
pub(crate) fn children_in(dir: &Path) -> Vec<u32> {
    let mut children: Vec<u32> = templates_in(dir).into_iter().flat_map(children_of).collect();
    children.retain(|pid| is_in(*pid, dir));
    children
}

/// The template that the process was forked from.
pub(crate) fn template_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A zombie has ended; only its parent has not looked yet.
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

/// Hundredths of a second of processor time that the process has used.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(11).unwrap().parse().unwrap()
}

/// Waits until every thread of a child is locked in as far as the kernel can, and waits for its orders.
pub(crate) async fn until_locked(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    let locked = || {
        let threads: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
        let status = |thread: &std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).unwrap();
        let can = std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:");
        let is_locked = |status: String| {
            status.contains("NoNewPrivs:\t1")
                && status.contains("S (sleeping)")
                && (!can || status.contains("Seccomp:\t2"))
        };
        threads.len() == 2 && threads.iter().map(status).all(is_locked)
    };
    while !locked() {
        assert!(Instant::now() < deadline, "process {pid} is not locked in");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the process has used 50 ms of processor time since now.
pub(crate) async fn burn_a_little(pid: u32) {
    let (before, deadline) = (ticks(pid), Instant::now() + PATIENCE);
    while ticks(pid) < before + 5 {
        assert!(Instant::now() < deadline, "process {pid} does nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: the call takes no memory; the process is a child of ours, or of a template of ours, that has not ended.
    assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
}
