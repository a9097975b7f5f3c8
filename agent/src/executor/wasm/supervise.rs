//! The agent's side of one WebAssembly child: start it, listen, stop it, wait for it, and say how it ended.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Once;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use modchain_types::{AttemptId, Ending, Fault, Input, Span, Text, Usage, WasmTask};
use modchain_wire::agent::OutputStream;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::boot_micros;
use super::child::{CHILD_COMMAND, COMPILE_CPU_SECS_MAX};
use super::protocol::{LockdownReport, NOTICE_BYTES_MAX, Notice, ORDERS_BYTES_MAX, Orders, Outcome, STOP, frame};
use crate::executor::{ExecutorEvent, OUTPUT_PIECE_BYTES_MAX, StdinWriter, StopAs, Wish};

/// Longest wait for a child to be ready to run its guest. The child's own limit is on processor time; this one is for a
/// machine that gives it none, so reaching it is the node's fault.
const PREPARE_MAX: Duration = Duration::from_secs(120);

/// Most of a dead child's last words that are put into a message, in bytes.
const LAST_WORDS_BYTES_MAX: u64 = 256;

/// A child that was started, and has not been told what to do.
pub(super) struct Spawned {
    attempt: AttemptId,
    child: Child,
    socket: UnixStream,
    orders: Vec<u8>,
    spawned_at: u64,
}

/// Starts a child for the attempt, with its standard input if it has one.
pub(super) fn spawn(
    program: &Path,
    request: &crate::executor::StartRequest,
    task: &WasmTask,
) -> io::Result<(Spawned, Option<StdinWriter>)> {
    let orders = frame(&Orders {
        module: std::path::absolute(&request.module)?,
        args: std::iter::once(task.module_name.as_str())
            .chain(task.args.iter().map(|arg| arg.as_str()))
            .map(str::to_owned)
            .collect(),
        env: task.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned())).collect(),
        memory_bytes: request.memory_bytes,
        cpu_milli: request.cpu_milli,
        input: request.input,
    });
    if orders.len() > ORDERS_BYTES_MAX {
        return Err(io::Error::other("its arguments and environment are too long"));
    }
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let socket = UnixStream::from_std(ours)?;

    let mut command = Command::new(program);
    command
        .arg(CHILD_COMMAND)
        .arg(theirs.as_raw_fd().to_string())
        .env_clear()
        .current_dir(&request.run_dir)
        .stdin(match request.input {
            Input::None => Stdio::null(),
            Input::Stream => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: a Ctrl-C meant for the agent must not reach the jobs, whose end the agent decides.
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: between fork and exec this only makes one system call, on a descriptor that `theirs` keeps open in the parent
    // until `spawn` has returned. It clears the flag in the child alone, so no other child inherits the socket.
    unsafe {
        let theirs = rustix::fd::BorrowedFd::borrow_raw(theirs.as_raw_fd());
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(theirs, FdFlags::empty())?));
    }
    let spawned_at = boot_micros();
    let mut child = command.spawn()?;
    drop(theirs);
    let stdin = child.stdin.take().map(StdinWriter::new);
    Ok((Spawned { attempt: request.attempt, child, socket, orders, spawned_at }, stdin))
}

impl Spawned {
    /// Brings the child to its end and tells the shell all about it. Returns when the child has been waited for and its last
    /// output has been taken.
    pub(super) async fn supervise(mut self, mut wish: watch::Receiver<Wish>, events: mpsc::Sender<ExecutorEvent>) {
        let attempt = self.attempt;
        let (socket_in, mut socket_out) = self.socket.into_split();
        let mut notices = Notices { socket: socket_in, buffer: BytesMut::new(), open: true };
        let orders = std::mem::take(&mut self.orders);
        let sending = async move {
            // A child that does not take its orders says nothing either; the wait for it finds that out.
            let _ = socket_out.write_all(&orders).await;
            socket_out
        };
        tokio::pin!(sending);

        let mut life = Life { spawned_at: self.spawned_at, ..Life::default() };
        let mut output = Output::of(&mut self.child);
        let mut to_child: Option<OwnedWriteHalf> = None;
        let mut stop_sent = false;
        let mut kill_at: Option<Instant> = None;
        let mut wish_open = true;
        let prepare_until = Instant::now() + PREPARE_MAX;

        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                socket_out = &mut sending, if to_child.is_none() => to_child = Some(socket_out),
                notice = notices.next(), if notices.open => {
                    let Some(notice) = notice else { continue };
                    life.note(notice);
                    if life.started_at.is_some() {
                        output.begin(&events).await;
                    }
                }
                changed = wish.changed(), if wish_open => match changed {
                    Ok(()) => match *wish.borrow_and_update() {
                        Wish::Run => {}
                        Wish::Stop { stop_as, grace } => {
                            life.stopping = Some(stop_as);
                            kill_at = Some(Instant::now() + grace);
                        }
                        Wish::Kill { stop_as } => {
                            life.stopping = Some(stop_as);
                            kill_at = Some(Instant::now());
                        }
                    },
                    Err(_) => wish_open = false,
                },
                () = events.closed(), if life.stopping.is_none() => {
                    tracing::warn!(%attempt, "nobody listens to this attempt any more: it is killed");
                    life.stopping = Some(StopAs::Stopped);
                    kill_at = Some(Instant::now());
                }
                () = sleep_until(kill_at.unwrap_or(prepare_until)), if kill_at.is_some() => {
                    kill_at = None;
                    life.killed = true;
                    kill(&self.child);
                }
                () = sleep_until(prepare_until), if life.started_at.is_none() && !life.killed => {
                    life.overdue = true;
                    life.killed = true;
                    kill(&self.child);
                }
            }
            if life.stopping.is_some()
                && !stop_sent
                && let Some(socket) = &to_child
            {
                // One byte into a socket whose orders have been taken; should it fail, the grace runs out.
                stop_sent = socket.try_write(&[STOP]).is_ok();
            }
        };
        let waited_at = boot_micros();
        // The child is gone: what it wrote last is in the socket, with its end behind it.
        while notices.open {
            if let Some(notice) = notices.next().await {
                life.note(notice);
            }
        }
        if life.started_at.is_some() {
            // A short program has come and gone before its start was read.
            output.begin(&events).await;
        }
        let last_words = output.finish().await;

        let ran = life.ran(waited_at);
        let fuel = life.fuel;
        let ending = life.ending(status, &last_words);
        tracing::debug!(%attempt, ?ending, %ran, fuel, "the child has ended");
        let usage = Usage { ran, fuel, ..Usage::default() };
        let _ = events.send(ExecutorEvent::Ended { ending, usage }).await;
    }
}

/// What is known about a child so far.
#[derive(Debug, Default)]
struct Life {
    /// When it was spawned, by the clock of [`boot_micros`].
    spawned_at: u64,
    /// When its guest began.
    started_at: Option<u64>,
    /// When its guest ended, if it said so.
    ended_at: Option<u64>,
    fuel: u64,
    outcome: Option<Outcome>,
    /// It was asked to end, or killed for that.
    stopping: Option<StopAs>,
    /// We have sent SIGKILL.
    killed: bool,
    /// And that because it was not ready in time.
    overdue: bool,
}

impl Life {
    fn note(&mut self, notice: Notice) {
        // Its clock is ours, but its word is not: whatever broke into it cannot move the bill out of its life.
        let now = boot_micros();
        match notice {
            Notice::Started { at, lockdown } => {
                warn_once_if_open(lockdown);
                self.started_at.get_or_insert(at.clamp(self.spawned_at, now));
            }
            Notice::Ended { at, fuel, outcome } if self.outcome.is_none() => {
                self.ended_at = Some(at.clamp(self.started_at.unwrap_or(self.spawned_at), now));
                self.fuel = fuel;
                self.outcome = Some(outcome);
            }
            Notice::Ended { .. } => {}
        }
    }

    fn ran(&self, waited_at: u64) -> Span {
        self.started_at.map_or(Span::ZERO, |started_at| {
            Span::from_micros(self.ended_at.unwrap_or(waited_at).saturating_sub(started_at))
        })
    }

    fn ending(self, status: io::Result<ExitStatus>, last_words: &str) -> Ending {
        let started = self.started_at.is_some();
        match self.outcome {
            Some(Outcome::Exited { code }) => Ending::Exited { code },
            Some(Outcome::Trapped { message }) => Ending::Trapped { message: printable(&message) },
            Some(Outcome::MemoryLimit) => Ending::MemoryLimit,
            Some(Outcome::Stopped) => self.stopping.unwrap_or(StopAs::Stopped).ending(),
            Some(Outcome::CannotStart { fault, message }) => {
                Ending::CannotStart { fault, message: printable(&message) }
            }
            // What the guest did broke its process, as with a crash: were it the node's fault, breaking it would be a way to
            // compute for nothing, on one node after the other.
            Some(Outcome::Broken { message }) if started => Ending::Trapped { message: printable(&message) },
            Some(Outcome::Broken { message }) => node_failed(started, printable(&message).into_string()),
            None if self.overdue => node_failed(
                started,
                format!("the module was not ready to run within {} s on this machine", PREPARE_MAX.as_secs()),
            ),
            None if self.killed => self.stopping.unwrap_or(StopAs::Stopped).ending(),
            None => unexplained(started, status, last_words),
        }
    }
}

/// A child's words for people: modules name their functions and imports, and choose names that steer terminals or hide text.
fn printable(message: &str) -> Text<512> {
    let hidden = |c: char| c.is_control() || modchain_types::is_hidden(c);
    Text::cut(message.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect::<String>())
}

/// Tells the owner, the first time, that jobs are held by the engine's sandbox alone.
fn warn_once_if_open(lockdown: LockdownReport) {
    static WARNED: Once = Once::new();
    let LockdownReport { landlock, seccomp } = lockdown;
    if !(landlock && seccomp) {
        WARNED.call_once(|| tracing::warn!(landlock, seccomp, "this kernel lacks a lock that jobs should run behind"));
    }
}

/// The ending of a child that has died without a word and was not killed by us.
fn unexplained(started: bool, status: io::Result<ExitStatus>, last_words: &str) -> Ending {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return node_failed(started, format!("the process of the module could not be waited for: {error}"));
        }
    };
    let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) else {
        return node_failed(
            started,
            format!("the process of the module ended without a result ({status}){last_words}"),
        );
    };
    match signal {
        libc::SIGXCPU if !started => Ending::CannotStart {
            fault: Fault::Job,
            message: Text::cut(format!("the module takes more than {COMPILE_CPU_SECS_MAX} s to compile")),
        },
        // A crash comes from what the process was given to do, and would come again on every other node: the job's.
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT | libc::SIGSYS | libc::SIGTRAP => {
            if started {
                Ending::Signalled { signal: u8::try_from(signal).expect("these signals have small numbers") }
            } else {
                let message =
                    format!("the compiler crashed on the module (signal {signal}), or needed too much memory");
                Ending::CannotStart { fault: Fault::Job, message: Text::cut(message + last_words) }
            }
        }
        // SIGKILL and the rest come from outside: the kernel short of memory, or the node's owner.
        _ => node_failed(
            started,
            format!(
                "the process of the module was killed by signal {signal}, which the agent did not send{last_words}"
            ),
        ),
    }
}

fn node_failed(started: bool, message: String) -> Ending {
    let message = Text::cut(message);
    if started { Ending::NodeFault { message } } else { Ending::CannotStart { fault: Fault::Node, message } }
}

/// Kills the child's whole group. Only while it has not been waited for: later its number may be somebody else's.
fn kill(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It can fail only when the group is gone already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The guest's output. Looked at only after its start, so that [`ExecutorEvent::Started`] comes before it.
struct Output {
    waiting: Option<(ChildStdout, ChildStderr)>,
    pumps: JoinSet<()>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        Self { waiting: Some((stdout, stderr)), pumps: JoinSet::new() }
    }

    /// Tells the start and lets the output flow, the first time.
    async fn begin(&mut self, events: &mpsc::Sender<ExecutorEvent>) {
        let Some((stdout, stderr)) = self.waiting.take() else { return };
        // The first event of all: there is room for it.
        let _ = events.send(ExecutorEvent::Started).await;
        self.pumps.spawn(pump(stdout, OutputStream::Out, events.clone()));
        self.pumps.spawn(pump(stderr, OutputStream::Err, events.clone()));
    }

    /// Waits until all of it has been taken. Of a child whose guest never began, returns its last words, if it has any.
    async fn finish(mut self) -> String {
        if let Some((_, stderr)) = self.waiting {
            return last_words(stderr).await;
        }
        while self.pumps.join_next().await.is_some() {}
        String::new()
    }
}

/// Moves one stream of output to the shell until its end. Holds one piece at most, so a full channel stops the guest.
async fn pump(mut pipe: impl AsyncRead + Unpin, stream: OutputStream, events: mpsc::Sender<ExecutorEvent>) {
    loop {
        let mut piece = BytesMut::with_capacity(OUTPUT_PIECE_BYTES_MAX);
        match pipe.read_buf(&mut piece).await {
            Ok(0) => return,
            Ok(_) => {
                let bytes = piece.freeze();
                if events.send(ExecutorEvent::Output { stream, bytes }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, stream = stream.word(), "could not read a job's output");
                return;
            }
        }
    }
}

/// What a child that died before its guest ran has left on its standard error, such as the loader's complaint.
async fn last_words(stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    if stderr.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut bytes).await.is_err() || bytes.is_empty() {
        return String::new();
    }
    let text = printable(&String::from_utf8_lossy(&bytes));
    format!(": {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Reads notices from the socket. Safe to cancel: what has come so far stays in the buffer.
struct Notices {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// Until its end, or nonsense.
    open: bool,
}

impl Notices {
    /// The next notice; `None` when there is none any more.
    async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.take() {
                Ok(Some(notice)) => return Some(notice),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error, "a child does not make sense");
                    self.open = false;
                    return None;
                }
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => {
                    self.open = false;
                    return None;
                }
                Ok(_) => {}
            }
        }
    }

    fn take(&mut self) -> Result<Option<Notice>, &'static str> {
        let Some(length) = self.buffer.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
            return Ok(None);
        };
        if length > NOTICE_BYTES_MAX {
            return Err("its notice is too long");
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let body = self.buffer.split_to(length);
        serde_json::from_slice(&body).map(Some).map_err(|_| "its notice cannot be read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(started: bool, outcome: Outcome) -> Ending {
        let started_at = started.then_some(1);
        let life = Life { started_at, outcome: Some(outcome), ..Life::default() };
        life.ending(Ok(ExitStatus::default()), "")
    }

    #[test]
    fn a_guest_that_breaks_its_process_pays_and_a_child_that_fails_before_it_does_not() {
        let broken = || Outcome::Broken { message: Text::cut("panicked") };
        assert_eq!(ending(true, broken()), Ending::Trapped { message: Text::cut("panicked") });
        let node = Ending::CannotStart { fault: Fault::Node, message: Text::cut("panicked") };
        assert_eq!(ending(false, broken()), node);
    }

    #[test]
    fn a_childs_words_cannot_steer_a_terminal_or_outgrow_a_message() {
        let message = Text::cut("in \u{1b}]0;evil\u{7}\u{202e}\n\u{85}ü");
        let clean = "in \u{fffd}]0;evil\u{fffd}\u{fffd}\u{fffd}\u{fffd}ü";
        assert_eq!(ending(true, Outcome::Trapped { message }), Ending::Trapped { message: Text::cut(clean) });
        assert!(printable(&"\u{1}".repeat(512)).len() <= 512);
    }
}
