//! The `wasm` executor: a WASI preview 1 program in a child process of its own.
//!
//! ```text
//!   agent                                     child: this same program, `wasm-child`
//!   WasmExecutor::start ── spawn, Orders ───▶ lock itself in, compile, link
//!        │               ◀── Started ──────── about to run the guest
//!        │               ◀── stdout, stderr ─ pipes of the guest's own
//!        │               ─── stdin, STOP ───▶
//!        │               ◀── Ended ────────── and it exits
//!        └── wait() ── Ended to the shell
//! ```
//!
//! Strangers' code does not share an address space with the agent: whatever it does to its process, the agent sees a dead
//! child. The agent's side is [`supervise`], the child's is [`child`]; they speak [`protocol`]. The child ends when its socket
//! closes, so it cannot outlive a killed agent.
//!
//! Each attempt compiles its module again (milliseconds for most), before the billing clock starts.

use std::io;
use std::path::PathBuf;

use modchain_types::{Ending, Fault, Text, Usage, WasmTask};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::{EVENTS_WAITING_MAX, ExecutorEvent, RunControl, Running, StartRequest};

pub mod child;
mod guest;
mod lockdown;
mod protocol;
mod supervise;
mod throttle;

pub use child::{CHILD_COMMAND, child_main};

/// Largest module: 32 MiB.
pub const MODULE_BYTES_MAX: u64 = 32 << 20;

/// Runs WebAssembly attempts, each in a child process.
#[derive(Debug, Clone)]
pub struct WasmExecutor {
    program: PathBuf,
}

impl WasmExecutor {
    /// With this very program as the child. Fails when the system does not tell where it is.
    pub fn new() -> io::Result<Self> {
        // The link keeps naming the running file when another version is installed over it, so that both ends of the socket
        // are always the same program.
        let link = PathBuf::from("/proc/self/exe");
        let program = if link.exists() { link } else { std::env::current_exe()? };
        Ok(Self { program })
    }

    /// With another program that calls [`child_main`] when [`CHILD_COMMAND`] is its first argument. For tests.
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Starts an attempt. Never fails: what cannot be started says so in its only event. To be called within a tokio runtime.
    pub fn start(&self, request: &StartRequest, task: &WasmTask) -> Running {
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (control, wish) = RunControl::new();
        let stdin = match supervise::spawn(&self.program, request, task) {
            Ok((spawned, stdin)) => {
                tokio::spawn(spawned.supervise(wish, events_in));
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
