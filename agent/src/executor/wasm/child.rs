//! The child: this same program, started again to run one guest and nothing else.
//!
//! In order: take limits, read orders and module, take hold of the guest's pipes, lock the process in
//! ([`super::lockdown`]), compile, link, say `Started`, run, say `Ended`, exit. What happens after the lock has no
//! files, no network and no other process to reach, and the compiler is after the lock on purpose: it reads a stranger's bytes.
//!
//! Two threads: this one runs the guest; the other one listens to the agent and ticks the epoch, so that a guest that never
//! pauses can be stopped, and ends the process at once when the agent is gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_types::{Fault, Input, Text};
use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use wasmtime::Engine;

use super::guest::{self, Stdio};
use super::protocol::{LockdownReport, Notice, ORDERS_BYTES_MAX, Orders, Outcome, frame};
use super::{MODULE_BYTES_MAX, boot_micros, lockdown};

/// First argument of a child's command line; the second is the number of its socket.
pub const CHILD_COMMAND: &str = "wasm-child";

/// Most processor time for compiling, in seconds. Cranelift needs some 4 s for each MiB of module; SIGXCPU ends what needs more.
pub(super) const COMPILE_CPU_SECS_MAX: u64 = 30;

/// Most address space while compiling: 1 GiB, several times what honest modules of the largest size need. It is memory that
/// nobody has reserved, and every attempt may take it at the same time.
const COMPILE_ADDRESS_BYTES_MAX: u64 = 1 << 30;

/// Address space beyond the guest's own memory while it runs: the 4 GiB that the engine reserves for it whatever its size, its
/// guard pages, and room for code, stacks and tables.
const RUN_ADDRESS_BYTES_EXTRA: u64 = 8 << 30;

/// Most open files: the socket, three pipes, and what the event loop needs.
const OPEN_FILES_MAX: u64 = 32;

/// Added to the niceness of the agent, so that its heartbeats go before the jobs.
const NICENESS: i32 = 5;

/// How often the guest is interrupted to look for a stop. Its share of the guest's time is below a thousandth.
const TICK: Duration = Duration::from_millis(10);

/// Exit status of a child that said how it went. The agent looks at what it said.
const STATUS_REPORTED: i32 = 0;

/// Exit status of a child whose agent is gone, or that was started by hand.
const STATUS_ALONE: i32 = 1;

/// Call this first thing in `main`. Returns at once, unless this process was started as a child: then it never returns.
pub fn child_main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|first| first != CHILD_COMMAND) {
        return;
    }
    let socket = args.next().and_then(|number| number.to_str()?.parse().ok()).and_then(take_socket);
    let Some(socket) = socket else {
        eprintln!("`{CHILD_COMMAND}` is how the agent starts a WebAssembly job; it is of no use by hand");
        std::process::exit(STATUS_ALONE);
    };
    let agent = match close_others(&socket).and_then(|()| Agent::new(&socket)) {
        Ok(agent) => Arc::new(agent),
        Err(error) => {
            eprintln!("could not begin: {error}");
            std::process::exit(STATUS_ALONE);
        }
    };
    report_panics(&agent);
    let (fuel, outcome) = run(socket, &agent);
    agent.end(fuel, outcome)
}

/// The socket with this number, if it is one.
fn take_socket(number: i32) -> Option<UnixStream> {
    if number <= 2 {
        return None;
    }
    // SAFETY: only asks whether there is such a descriptor, and marks it; the call fails where there is none.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, the agent left it so for this process alone, and nothing here has taken any descriptor yet.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    Some(UnixStream::from(socket))
}

fn run(mut socket: UnixStream, agent: &Arc<Agent>) -> (u64, Outcome) {
    match prepare_and_run(&mut socket, agent) {
        Ok(end) => end,
        Err(Failure::Job(message)) => (0, cannot_start(Fault::Job, message)),
        Err(Failure::Node(what, error)) => (0, Outcome::Broken { message: Text::cut(format!("{what}: {error}")) }),
    }
}

/// Why a guest could not be brought to its start.
enum Failure {
    /// Its own fault, in words for its author.
    Job(String),
    /// This machine's: what could not be done, and why.
    Node(&'static str, io::Error),
}

fn cannot_start(fault: Fault, message: String) -> Outcome {
    Outcome::CannotStart { fault, message: Text::cut(message) }
}

fn prepare_and_run(socket: &mut UnixStream, agent: &Arc<Agent>) -> Result<(u64, Outcome), Failure> {
    let node = |what| move |error: io::Error| Failure::Node(what, error);
    let orders = read_orders(socket).map_err(node("could not read its orders"))?;
    take_limits(orders.memory_bytes).map_err(node("could not limit itself"))?;
    let module = read_module(&orders.module)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(node("could not start its event loop"))?;
    // The pipes belong to this event loop. Without it they would start one of their own, threads and all.
    let context = runtime.enter();
    let stdio = take_stdio(orders.input).map_err(node("could not take its pipes"))?;
    let engine =
        guest::engine().map_err(|error| Failure::Node("could not start the engine", io::Error::other(error)))?;
    let stop = Arc::new(Notify::new());
    let lockdown = lock_in(socket, &engine, agent, &stop)?;

    let guest = guest::prepare(&engine, &module, &orders, stdio).map_err(Failure::Job)?;
    drop((module, context));
    unlimit_run_time().map_err(node("could not lift the limit on compiling"))?;
    agent.started(lockdown);
    Ok(runtime.block_on(guest.run(&stop)))
}

/// Closes whatever else was inherited. There should be nothing: this is for the day when a library forgets the flag.
fn close_others(socket: &UnixStream) -> io::Result<()> {
    let socket = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
    for (first, last) in [(3, socket - 1), (socket + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: this process has one thread so far and owns no descriptor but 0, 1, 2 and the socket.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOSYS) {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn read_orders(socket: &mut UnixStream) -> io::Result<Orders> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > ORDERS_BYTES_MAX {
        return Err(io::Error::other("they are too long"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

fn take_limits(memory_bytes: u64) -> io::Result<()> {
    let set = |resource, soft, hard| setrlimit(resource, Rlimit { current: Some(soft), maximum: hard });
    set(Resource::Core, 0, Some(0))?;
    set(Resource::Nofile, OPEN_FILES_MAX, Some(OPEN_FILES_MAX))?;
    set(Resource::Fsize, 0, Some(0))?;
    set(Resource::Cpu, COMPILE_CPU_SECS_MAX, getrlimit(Resource::Cpu).maximum)?;
    let run_bytes = memory_bytes.saturating_add(RUN_ADDRESS_BYTES_EXTRA);
    set(Resource::As, COMPILE_ADDRESS_BYTES_MAX.min(run_bytes), Some(run_bytes))?;
    // Both are kindness to the machine and fail only where it forbids them.
    let _ = rustix::process::nice(NICENESS);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// After compiling: the guest's own time is the supervisor's business, and its memory is counted by the engine.
fn unlimit_run_time() -> io::Result<()> {
    for resource in [Resource::Cpu, Resource::As] {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error| Failure::Node("could not read the module", error);
    let file = File::open(path).map_err(unreadable)?;
    let mut module = Vec::new();
    file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut module).map_err(unreadable)?;
    if module.len() as u64 > MODULE_BYTES_MAX {
        return Err(Failure::Job(format!("the module is larger than {} MiB", MODULE_BYTES_MAX >> 20)));
    }
    Ok(module)
}

/// Takes the guest's pipes off the standard descriptors, so that nothing but the guest writes into them.
fn take_stdio(input: Input) -> io::Result<Stdio> {
    let stdin = match input {
        Input::None => None,
        Input::Stream => Some(pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?),
    };
    let stdout = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let stderr = pipe::Sender::from_owned_fd(io::stderr().as_fd().try_clone_to_owned()?)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(Stdio { stdin, stdout, stderr })
}

/// Starts the listening thread and locks both threads in: the locks belong to threads, and after them no thread can start.
fn lock_in(
    socket: &UnixStream,
    engine: &Engine,
    agent: &Arc<Agent>,
    stop: &Arc<Notify>,
) -> Result<LockdownReport, Failure> {
    let failed = |error| Failure::Node("could not lock itself in", error);
    let (locked, is_locked) = std::sync::mpsc::sync_channel(1);
    let listener = Listener {
        socket: socket.try_clone().map_err(failed)?,
        engine: engine.clone(),
        agent: Arc::clone(agent),
        stop: Arc::clone(stop),
    };
    // The thread is never joined: it lives as long as the process.
    std::thread::Builder::new().name("listen".into()).spawn(move || listener.run(&locked)).map_err(failed)?;
    let theirs = is_locked.recv().map_err(io::Error::other).map_err(failed)?.map_err(failed)?;
    let ours = lockdown::apply().map_err(failed)?;
    Ok(LockdownReport { landlock: ours.landlock && theirs.landlock, seccomp: ours.seccomp && theirs.seccomp })
}

/// Listens to the agent and ticks.
struct Listener {
    socket: UnixStream,
    engine: Engine,
    agent: Arc<Agent>,
    stop: Arc<Notify>,
}

impl Listener {
    fn run(mut self, locked: &SyncSender<io::Result<LockdownReport>>) {
        let lock = self.socket.set_read_timeout(Some(TICK)).and_then(|()| lockdown::apply());
        if locked.send(lock).is_err() {
            return;
        }
        let mut byte = [0];
        loop {
            match self.socket.read(&mut byte) {
                // The agent is gone: nobody wants this guest any more.
                Ok(0) => exit_now(STATUS_ALONE),
                Ok(_) => {
                    self.agent.end_if_not_started();
                    self.stop.notify_one();
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => exit_now(STATUS_ALONE),
                },
            }
            self.engine.increment_epoch();
        }
    }
}

/// The way to the agent. Its lock decides between the two threads who speaks last.
struct Agent {
    says: Mutex<Says>,
}

struct Says {
    socket: UnixStream,
    started: bool,
}

impl Says {
    fn send(&mut self, notice: &Notice) {
        if self.socket.write_all(&frame(notice)).is_err() {
            exit_now(STATUS_ALONE);
        }
    }

    fn send_end(&mut self, fuel: u64, outcome: Outcome) -> ! {
        self.send(&Notice::Ended { at: boot_micros(), fuel, outcome });
        exit_now(STATUS_REPORTED)
    }
}

impl Agent {
    fn new(socket: &UnixStream) -> io::Result<Self> {
        Ok(Self { says: Mutex::new(Says { socket: socket.try_clone()?, started: false }) })
    }

    fn started(&self, lockdown: LockdownReport) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.started = true;
        says.send(&Notice::Started { at: boot_micros(), lockdown });
    }

    /// Ends the process with this outcome. Exits with the lock held, so that nobody speaks after it.
    fn end(&self, fuel: u64, outcome: Outcome) -> ! {
        self.says.lock().unwrap_or_else(PoisonError::into_inner).send_end(fuel, outcome)
    }

    /// A stop in the middle of compiling cannot wait for the compiler.
    fn end_if_not_started(&self) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        if !says.started {
            says.send_end(0, Outcome::Stopped);
        }
    }
}

/// A panic here is a fault of ours: it is told instead of printed, because standard error leads nowhere.
fn report_panics(agent: &Arc<Agent>) {
    let agent = Arc::clone(agent);
    std::panic::set_hook(Box::new(move |panic| {
        let message = Text::cut(format!("the process of the module failed: {panic}"));
        // The lock may be held by the very thread that panics.
        if let Ok(mut says) = agent.says.try_lock() {
            says.send_end(0, Outcome::Broken { message });
        }
        exit_now(STATUS_ALONE);
    }));
}

/// Ends the process at once, whatever the other thread is doing.
fn exit_now(status: i32) -> ! {
    // SAFETY: the call has no preconditions. Nothing is left to flush: notices are written without a buffer.
    unsafe { libc::_exit(status) }
}
