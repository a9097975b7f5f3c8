//! The template, this same program started again to do once what is the same for every job, and the child that is forked from
//! it to run one guest and nothing else.
//!
//! The template, in order: close what it inherited, take limits, start the engine, and fork children ([`super::forker`]). A
//! child: take hold of the guest's pipes, lock the process in ([`super::lockdown`]), say `Ready` and wait. Then, once: read
//! orders and module, compile, link, say `Started`, run, say `Ended`, exit. What happens after the lock has no files, no
//! network and no other process to reach, and everything of a job is after the lock: orders and module come over the socket.
//! Waiting costs nothing but memory, and ends with the agent.
//!
//! Two threads: this one runs the guest; the other one listens to the agent from the orders on and ticks the epoch, so that a
//! guest that never pauses can be stopped, and ends the process at once when the agent is gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use modchain_types::{Fault, Input, Text};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use wasmtime::{Engine, Linker};

use super::forker::Handed;
use super::guest::{self, Stdio};
use super::protocol::{COMPILED_BYTES_MAX, Form, LockdownReport, Notice, ORDERS_BYTES_MAX, Orders, Outcome, frame};
use super::{MODULE_BYTES_MAX, boot_micros, forker, lockdown};

/// First argument of a template's command line. Its socket is its standard input.
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
const TICK_MILLIS: libc::c_int = 10;

/// Exit status of a child that said how it went. The agent looks at what it said.
const STATUS_REPORTED: i32 = 0;

/// Exit status of a child whose agent is gone, or that was started by hand.
const STATUS_ALONE: i32 = 1;

/// Exit status of a child that failed itself and said so: its template has no more children.
const STATUS_BROKEN: i32 = 2;

/// Call this first thing in `main`. Returns at once, unless this process was started as a template: then it never returns, nor
/// does any of its children.
pub fn child_main() {
    if std::env::args_os().nth(1).is_none_or(|first| first != CHILD_COMMAND) {
        return;
    }
    let Some(socket) = take_socket() else {
        eprintln!("`{CHILD_COMMAND}` is how the agent starts WebAssembly jobs; it is of no use by hand");
        std::process::exit(STATUS_ALONE);
    };
    let (prepared, handed) = match be_template(socket) {
        Ok(Some(child)) => child,
        Ok(None) => exit_now(STATUS_REPORTED),
        Err((what, error)) => {
            eprintln!("{what}: {error}");
            exit_now(STATUS_ALONE);
        }
    };
    let Ok(agent) = Agent::new(&handed.socket).map(Arc::new) else { exit_now(STATUS_ALONE) };
    report_panics(&agent);
    let (fuel, outcome) = run(&prepared, handed, &agent);
    agent.end(fuel, outcome)
}

/// The socket that is the standard input, if it is one.
fn take_socket() -> Option<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    (sockopt::socket_domain(&stdin) == Ok(AddressFamily::UNIX)).then(|| UnixStream::from(stdin))
}

/// What is the same for every job: made once, before any of them.
struct Prepared {
    engine: Engine,
    linker: Linker<guest::State>,
    /// The engine's.
    compiler: u64,
}

/// Prepares and forks children. Returns in each of them, and with nothing when no more are wanted. What fails is told with what
/// it was for.
fn be_template(socket: UnixStream) -> Result<Option<(Prepared, Handed)>, (&'static str, io::Error)> {
    let failed = |what| move |error| (what, error);
    let no_engine = |error: wasmtime::Error| ("could not start the engine", io::Error::other(error));
    close_others(&socket).map_err(failed("could not close what it inherited"))?;
    take_limits().map_err(failed("could not limit itself"))?;
    let engine = guest::engine().map_err(no_engine)?;
    let linker = guest::linker(&engine).map_err(no_engine)?;
    let compiler = guest::compiler(&engine);
    close_stdio().map_err(failed("could not open /dev/null"))?;
    let handed = forker::serve(socket).map_err(failed("could not start processes"))?;
    Ok(handed.map(|handed| (Prepared { engine, linker, compiler }, handed)))
}

fn run(prepared: &Prepared, handed: Handed, agent: &Arc<Agent>) -> (u64, Outcome) {
    match prepare_and_run(prepared, handed, agent) {
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

fn prepare_and_run(prepared: &Prepared, handed: Handed, agent: &Arc<Agent>) -> Result<(u64, Outcome), Failure> {
    let node = |what| move |error: io::Error| Failure::Node(what, error);
    let Prepared { engine, linker, compiler } = prepared;
    let Handed { mut socket, stdin, stdout, stderr } = handed;
    let socket = &mut socket;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(node("could not start its event loop"))?;
    // The pipes belong to this event loop. Without it they would start one of their own, threads and all.
    let context = runtime.enter();
    let mut stdio = take_stdio(stdin, stdout, stderr).map_err(node("could not take its pipes"))?;
    let stop = Arc::new(Notify::new());
    let (lockdown, listen) = lock_in(socket, engine, agent, &stop)?;
    agent.say(&Notice::Ready { compiler: *compiler, lockdown });

    let orders = read_orders(socket).map_err(node("could not read its orders"))?;
    take_limits_of_job(orders.memory_bytes).map_err(node("could not limit itself"))?;
    let module = read_module(socket, &orders)?;
    listen.send(()).map_err(io::Error::other).map_err(node("could not listen"))?;
    if orders.input == Input::None {
        stdio.stdin = None;
    }
    let compiled = match orders.form {
        Form::Compiled => guest::load(engine, &module)
            .map_err(|error| Failure::Node("could not load what was compiled before", io::Error::other(error)))?,
        Form::Source { .. } => guest::compile(engine, &module).map_err(Failure::Job)?,
    };
    drop(module);
    let guest = guest::prepare(engine, linker, &compiled, &orders, stdio).map_err(Failure::Job)?;
    if orders.form == (Form::Source { keep: true }) {
        // The agent can do without it: the next child compiles again.
        let bytes = compiled.serialize().unwrap_or_default();
        if !bytes.is_empty() && bytes.len() as u64 <= COMPILED_BYTES_MAX {
            agent.compiled(&bytes);
        }
    }
    drop(context);
    unlimit_run_time().map_err(node("could not lift the limit on compiling"))?;
    agent.started();
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

fn set_limit(resource: Resource, soft: u64, hard: Option<u64>) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(soft), maximum: hard })?)
}

/// What is the same for every job.
fn take_limits() -> io::Result<()> {
    set_limit(Resource::Core, 0, Some(0))?;
    set_limit(Resource::Nofile, OPEN_FILES_MAX, Some(OPEN_FILES_MAX))?;
    set_limit(Resource::Fsize, 0, Some(0))?;
    // Both are kindness to the machine and fail only where it forbids them.
    let _ = rustix::process::nice(NICENESS);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Before anything of a job is read but its orders.
fn take_limits_of_job(memory_bytes: u64) -> io::Result<()> {
    set_limit(Resource::Cpu, COMPILE_CPU_SECS_MAX, getrlimit(Resource::Cpu).maximum)?;
    let run_bytes = memory_bytes.saturating_add(RUN_ADDRESS_BYTES_EXTRA);
    set_limit(Resource::As, COMPILE_ADDRESS_BYTES_MAX.min(run_bytes), Some(run_bytes))
}

/// After compiling: the guest's own time is the supervisor's business, and its memory is counted by the engine.
fn unlimit_run_time() -> io::Result<()> {
    for resource in [Resource::Cpu, Resource::As] {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
}

fn read_module(socket: &mut UnixStream, orders: &Orders) -> Result<Vec<u8>, Failure> {
    let bytes_max = match orders.form {
        Form::Source { .. } => MODULE_BYTES_MAX,
        Form::Compiled => COMPILED_BYTES_MAX,
    };
    if orders.module_bytes > bytes_max {
        return Err(Failure::Job(format!("the module is larger than {} MiB", bytes_max >> 20)));
    }
    let mut module = vec![0; usize::try_from(orders.module_bytes).expect("below the limit")];
    socket.read_exact(&mut module).map_err(|error| Failure::Node("could not read the module", error))?;
    Ok(module)
}

/// Makes the standard descriptors lead nowhere.
fn close_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// The guest's pipes. They are none of the standard descriptors, so that nothing but the guest writes into them.
fn take_stdio(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Stdio> {
    Ok(Stdio {
        stdin: Some(pipe::Receiver::from_owned_fd(stdin)?),
        stdout: pipe::Sender::from_owned_fd(stdout)?,
        stderr: pipe::Sender::from_owned_fd(stderr)?,
    })
}

/// Starts the listening thread and locks both threads in: the locks belong to threads, and after them no thread can start. The
/// thread begins to listen when it is told to, once the socket carries nothing but stops any more.
fn lock_in(
    socket: &UnixStream,
    engine: &Engine,
    agent: &Arc<Agent>,
    stop: &Arc<Notify>,
) -> Result<(LockdownReport, SyncSender<()>), Failure> {
    let failed = |error| Failure::Node("could not lock itself in", error);
    let (locked, is_locked) = sync_channel(1);
    let (listen, to_listen) = sync_channel(1);
    let listener = Listener {
        socket: socket.try_clone().map_err(failed)?,
        engine: engine.clone(),
        agent: Arc::clone(agent),
        stop: Arc::clone(stop),
    };
    // The thread is never joined: it lives as long as the process.
    std::thread::Builder::new()
        .name("listen".into())
        .spawn(move || listener.run(&locked, &to_listen))
        .map_err(failed)?;
    let theirs = is_locked.recv().map_err(io::Error::other).map_err(failed)?.map_err(failed)?;
    let ours = lockdown::apply().map_err(failed)?;
    let both = LockdownReport { landlock: ours.landlock && theirs.landlock, seccomp: ours.seccomp && theirs.seccomp };
    Ok((both, listen))
}

/// Listens to the agent and ticks.
struct Listener {
    socket: UnixStream,
    engine: Engine,
    agent: Arc<Agent>,
    stop: Arc<Notify>,
}

impl Listener {
    fn run(mut self, locked: &SyncSender<io::Result<LockdownReport>>, listen: &Receiver<()>) {
        if locked.send(lockdown::apply()).is_err() || listen.recv().is_err() {
            return;
        }
        let mut byte = [0];
        loop {
            if self.is_readable() {
                match self.socket.read(&mut byte) {
                    // The agent is gone: nobody wants this guest any more.
                    Ok(0) => exit_now(STATUS_ALONE),
                    Ok(_) => {
                        self.agent.end_if_not_started();
                        self.stop.notify_one();
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => exit_now(STATUS_ALONE),
                }
            }
            self.engine.increment_epoch();
        }
    }

    /// Waits until there is something to read, for a tick at most.
    fn is_readable(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `polled` is one entry and lives through the call.
        match unsafe { libc::poll(&raw mut polled, 1, TICK_MILLIS) } {
            -1 if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted => exit_now(STATUS_ALONE),
            ready => ready > 0,
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
        let status = status_of(&outcome);
        self.send(&Notice::Ended { at: boot_micros(), fuel, outcome });
        exit_now(status)
    }
}

impl Agent {
    fn new(socket: &UnixStream) -> io::Result<Self> {
        Ok(Self { says: Mutex::new(Says { socket: socket.try_clone()?, started: false }) })
    }

    fn say(&self, notice: &Notice) {
        self.says.lock().unwrap_or_else(PoisonError::into_inner).send(notice);
    }

    /// Hands over a compiled module. Nobody speaks in between.
    fn compiled(&self, module: &[u8]) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.send(&Notice::Compiled { bytes: module.len() as u64 });
        if says.socket.write_all(module).is_err() {
            exit_now(STATUS_ALONE);
        }
    }

    fn started(&self) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.started = true;
        says.send(&Notice::Started { at: boot_micros() });
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

/// What a child exits with that says this last.
fn status_of(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Broken { .. } => STATUS_BROKEN,
        Outcome::Exited { .. }
        | Outcome::Trapped { .. }
        | Outcome::MemoryLimit
        | Outcome::Stopped
        | Outcome::CannotStart { .. } => STATUS_REPORTED,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_broke_says_so_to_its_template_too() {
        let message = Text::cut("why");
        assert_ne!(status_of(&Outcome::Broken { message: message.clone() }), 0);
        for outcome in [Outcome::Exited { code: 7 }, Outcome::Trapped { message }, Outcome::MemoryLimit] {
            assert_eq!(status_of(&outcome), 0, "{outcome:?}");
        }
    }
}
