//! The `wasm` executor: a WASI preview 1 program in a child process of its own.
//!
//! ```text
//!   agent                                     template: this same program, `wasm-child`
//!                        ──  spawn  ────────▶ start the engine
//!                        ─── Fork, pipes ───▶ fork
//!                                              └─ child: lock itself in
//!                        ◀── Ready ────────────── and wait
//!   WasmExecutor::start ─── Orders, module ─────▶ compile, link
//!        │               ◀── Compiled ─────────── for the next job of the module
//!        │               ◀── Started ──────────── about to run the guest
//!        │               ◀── stdout, stderr ───── pipes of the guest's own
//!        │               ─── stdin, STOP ───────▶
//!        │               ◀── Ended ────────────── and it exits
//!        │               ◀── Ended ────────── it was waited for
//!        └── wait() ── Ended to the shell
//! ```
//!
//! Strangers' code does not share an address space with the agent: whatever it does to its process, the agent sees a dead
//! child. The agent's side is [`supervise`], the child's is [`child`]; they speak [`protocol`]. The child ends when its socket
//! closes, so it cannot outlive a killed agent.
//!
//! One child runs one job. It is forked from a [`template`] that never sees anything of a job, it may have been started before
//! ([`spares`]), and its module may have been compiled before ([`compiled`]); in any case nothing of a job gets into it before
//! it is locked in. What is done before the start is not billed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use modchain_types::{Ending, Fault, Text, Usage, WasmTask};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::{EVENTS_WAITING_MAX, ExecutorEvent, RunControl, Running, StartRequest};

pub mod child;
mod compiled;
mod forker;
mod guest;
mod handing;
mod lockdown;
mod protocol;
mod spares;
mod supervise;
mod template;
mod throttle;

use compiled::CompiledCache;
use spares::Spares;
use supervise::Job;

pub use child::{CHILD_COMMAND, child_main};

/// Largest module: 32 MiB.
pub const MODULE_BYTES_MAX: u64 = 32 << 20;

/// Runs WebAssembly attempts, each in a child process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WasmExecutor {
    spares: Arc<Spares>,
    cache: Option<Arc<CompiledCache>>,
}

impl WasmExecutor {
    /// With this very program as the child; compiled modules are kept below `data`. Fails when the system does not tell where
    /// the program is, or the folder cannot be made.
    pub fn new(data: &Path) -> io::Result<Self> {
        // The link keeps naming the running file when another version is installed over it, so that both ends of the socket
        // are always the same program.
        let link = PathBuf::from("/proc/self/exe");
        let program = if link.exists() { link } else { std::env::current_exe()? };
        Self::with_program(program).keeping(data)
    }

    /// With another program that calls [`child_main`] when [`CHILD_COMMAND`] is its first argument, and nothing kept. For
    /// tests.
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self { spares: Arc::new(Spares::new(program.into(), "/".into())), cache: None }
    }

    /// The same, with compiled modules kept below `data`.
    pub fn keeping(self, data: &Path) -> io::Result<Self> {
        Ok(Self { cache: Some(Arc::new(CompiledCache::open(data)?)), ..self })
    }

    /// The same with children that work in this folder, by which a test knows its own.
    pub fn in_dir(self, dir: &Path) -> Self {
        let spares = Arc::into_inner(self.spares).expect("nobody has a copy of what is being made");
        Self { spares: Arc::new(spares.in_dir(dir.to_owned())), cache: self.cache }
    }

    /// The same with children that wait no longer than this after the last job. For tests.
    pub fn waiting_for(self, idle_max: Duration) -> Self {
        let spares = Arc::into_inner(self.spares).expect("nobody has a copy of what is being made");
        Self { spares: Arc::new(spares.waiting_for(idle_max)), cache: self.cache }
    }

    /// As many jobs may run at once: so many children may wait for one, once there has been a job.
    pub fn set_slots(&self, slots: u32) {
        self.spares.set_slots(slots);
    }

    /// The task's module as it was compiled before, if it was: then its file is not needed.
    pub async fn compiled(&self, task: &WasmTask) -> Option<Bytes> {
        let cache = self.cache.clone()?;
        if let Some(recent) = cache.get_recent(task) {
            return Some(recent);
        }
        let task = task.clone();
        tokio::task::spawn_blocking(move || cache.get(&task)).await.ok()?
    }

    /// Starts an attempt. Never fails: what cannot be started says so in its only event. To be called within a tokio runtime.
    pub fn start(&self, request: &StartRequest, task: &WasmTask) -> Running {
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (control, wish) = RunControl::new();
        let taken = self.spares.take().and_then(|waiting| Job::new(waiting, request, task, self.cache.clone()));
        let stdin = match taken {
            Ok((job, stdin)) => {
                tokio::spawn(job.supervise(wish, events_in));
                stdin
            }
            Err(error) => {
                let message = Text::cut(format!("the process for the module could not be started: {error}"));
                let ending = Ending::CannotStart { fault: Fault::Node, message };
                events_in
                    .try_send(ExecutorEvent::Ended { ending, usage: Usage::default() })
                    .expect("a new channel has room for one event");
                None
            }
        };
        Running { events, control, stdin }
    }
}

/// Microseconds on the clock that counts from the machine's start, sleep included; one clock for all its processes.
fn boot_micros() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
}
