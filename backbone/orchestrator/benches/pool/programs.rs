//! The other two programs, which lie beside the orchestrator.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use modchain_types::{Digest, JobSpec, JobState, Micro, Task, TaskBody};
use modchain_wire::ToConsole;
use modchain_wire::view::JobView;
use rustix::process::{Pid, Signal, kill_process};

use crate::peers::{Console, soon, spec, text};
use crate::pool::Pool;
use crate::process::program;

/// A job that does nothing.
pub(crate) const NOTHING: &[u8] = br#"(module (func (export "_start")))"#;

/// How much every client is given: a thousand jobs' holds many times over.
const CREDIT: Micro = Micro(1_000_000_000_000);

/// Slots of the agent, the most that one may have.
pub(crate) const SLOTS: u32 = 48;

/// One of the other two programs.
pub(crate) fn sibling(name: &str) -> PathBuf {
    let path = program().with_file_name(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build --release -p modchain -p modchain-agent -p modchain-orchestrator",
        path.display()
    );
    path
}

/// A running agent. Ends with the part that it is for.
pub(crate) struct RealAgent(Child);

impl RealAgent {
    /// Starts the agent of this identity, for WebAssembly alone.
    pub(crate) fn start(pool: &Pool, name: &str) -> Self {
        let data = pool.folder().join(name);
        let config = pool.folder().join(format!("{name}.toml"));
        fs::write(&config, format!("adapters = [\"wasm\"]\n[limits]\nslots = {SLOTS}\n")).expect("a file");
        let log = fs::File::create(pool.folder().join(format!("{name}.log"))).expect("a log");
        let mut command = Command::new(sibling("modchain-agent"));
        command.args(["start", "--orchestrator", &pool.main, "--identity"]).arg(pool.identity(name));
        command.arg("--data").arg(data).arg("--config").arg(config);
        command.env("MODCHAIN_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().expect("starts"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        // It ends its children then; one that is gone cannot be told.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Time that a process has spent computing, and its children that it has waited for.
pub(crate) fn computed(pid: u32) -> Duration {
    /// How the system counts computing time in `/proc`: the same on every Linux.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// A client with money and the module.
pub(crate) async fn client(pool: &Pool, name: &str) -> Console {
    let operator = pool.console("boss").await;
    operator.credit(name, CREDIT, name).await.expect("it is credited");
    let console = pool.console(name).await;
    console.put(NOTHING, Digest::of(NOTHING)).await.expect("it is stored");
    console
}

/// A job that does nothing, with so much of a core.
pub(crate) fn nothing(cpu_milli: u32) -> JobSpec {
    module(NOTHING, cpu_milli)
}

/// A job of this module.
pub(crate) fn module(bytes: &[u8], cpu_milli: u32) -> JobSpec {
    let mut spec = spec("bench");
    if let TaskBody::Inline(Task::Wasm(task)) = &mut spec.body {
        task.module = Digest::of(bytes);
        task.module_bytes = bytes.len() as u64;
        task.module_name = text("bench.wat");
    }
    spec.requirements.cpu_milli = cpu_milli;
    spec.requirements.memory_bytes = 16 << 20;
    spec
}

/// Follows a job to its end, as `modchain run` does.
pub(crate) async fn follow(console: &Console, job: &str) -> JobView {
    let (_out, mut input) = console.logs(job, true).await;
    loop {
        match soon("the end", input.read()).await.expect("it can be read") {
            Some(ToConsole::LogEnd(end)) => return end.job,
            Some(_) => {}
            None => panic!("the log has no end"),
        }
    }
}

/// Runs one job to its end.
pub(crate) async fn run(console: &Console, key: &str, spec: JobSpec) -> JobView {
    let submitted = console.submit_spec(key, spec).await.expect("it is accepted");
    let job = follow(console, &submitted.job.to_string()).await;
    assert_eq!(job.state, JobState::Completed, "{}", job.message);
    job
}
