//! The agent's side of one WebAssembly child: give it its job, listen, stop it, wait for it, and say how it ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use modchain_types::{AttemptId, Ending, Fault, Input, Span, Text, Usage, WasmTask};
use modchain_wire::agent::OutputStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::child::COMPILE_CPU_SECS_MAX;
use super::compiled::CompiledCache;
use super::protocol::{
    COMPILED_BYTES_MAX, Form, LockdownReport, NOTICE_BYTES_MAX, Notice, Orders, Outcome, STOP, frame,
};
use super::template::{Forked, Waiting};
use super::{MODULE_BYTES_MAX, boot_micros};
use crate::executor::{ExecutorEvent, OUTPUT_PIECE_BYTES_MAX, StartRequest, StdinWriter, StopAs, Wish};

/// Longest wait for a child to be ready to run its guest. The child's own limit is on processor time; this one is for a
/// machine that gives it none, so reaching it is the node's fault.
const PREPARE_MAX: Duration = Duration::from_secs(120);

/// The module of a job.
pub(super) enum Code {
    /// As its author made it.
    Source(PathBuf),
    /// As a child compiled it before.
    Compiled(Bytes),
}

/// Longest wait for the end of a child that was killed. A template that has not told it by then does not work.
const KILLED_MAX: Duration = Duration::from_secs(30);

/// A child with its job.
pub(super) struct Job {
    attempt: AttemptId,
    task: WasmTask,
    orders: Orders,
    code: Code,
    child: Forked,
    socket: UnixStream,
    output: Output,
    taken_at: u64,
    cache: Option<Arc<CompiledCache>>,
}

impl Job {
    /// Gives the attempt to the child, with its standard input if it has one. Fails where the system refuses to watch that.
    pub(super) fn new(
        waiting: Waiting,
        request: &StartRequest,
        task: &WasmTask,
        cache: Option<Arc<CompiledCache>>,
    ) -> io::Result<(Self, Option<StdinWriter>)> {
        let Waiting { child, socket, stdin, stdout, stderr } = waiting;
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let output = Output::of(stdout, stderr)?;
        let (form, code) = match &request.compiled {
            Some(compiled) => (Form::Compiled, Code::Compiled(compiled.clone())),
            None => (Form::Source { keep: cache.is_some() }, Code::Source(request.module.clone())),
        };
        let orders = Orders {
            form,
            module_bytes: 0,
            args: std::iter::once(task.module_name.as_str())
                .chain(task.args.iter().map(|arg| arg.as_str()))
                .map(str::to_owned)
                .collect(),
            env: task.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned())).collect(),
            memory_bytes: request.memory_bytes,
            cpu_milli: request.cpu_milli,
            input: request.input,
        };
        // Dropping its end of the pipe is the end of the input.
        let stdin = Some(stdin).filter(|_| request.input == Input::Stream);
        let stdin = stdin.map(|stdin| pipe::Sender::from_owned_fd(stdin).map(StdinWriter::new)).transpose()?;
        let (attempt, task) = (request.attempt, task.clone());
        Ok((Self { attempt, task, orders, code, child, socket, output, taken_at: boot_micros(), cache }, stdin))
    }

    /// Brings the child to its end and tells the shell all about it. Returns when the child has been waited for and its last
    /// output has been taken.
    pub(super) async fn supervise(mut self, mut wish: watch::Receiver<Wish>, events: mpsc::Sender<ExecutorEvent>) {
        let attempt = self.attempt;
        let was_compiled = self.orders.form == Form::Compiled;
        let (socket_in, socket_out) = self.socket.into_split();
        let mut notices = Notices {
            socket: socket_in,
            buffer: BytesMut::new(),
            open: true,
            senseless: false,
            hands_over: self.orders.form == (Form::Source { keep: true }),
            coming: None,
        };
        let sending = send(socket_out, self.orders, self.code);
        tokio::pin!(sending);

        let mut life = Life { taken_at: self.taken_at, was_compiled, ..Life::default() };
        let mut output = self.output;
        let mut to_child: Option<OwnedWriteHalf> = None;
        let mut stop_sent = false;
        let mut kill_at: Option<Instant> = None;
        let mut wish_open = true;
        let (mut give_up_at, mut given_up) = (None, false);
        let prepare_until = Instant::now() + PREPARE_MAX;

        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                sent = &mut sending, if to_child.is_none() && life.unreadable.is_none() => match sent {
                    Ok(socket_out) => to_child = Some(socket_out),
                    Err(error) => {
                        life.unreadable = Some(error);
                        life.killed = true;
                        self.child.kill();
                    }
                },
                heard = notices.next(), if notices.open => {
                    let Some(heard) = heard else {
                        if notices.senseless {
                            self.child.spoil_template();
                        }
                        continue;
                    };
                    life.hear(heard, self.cache.as_ref(), &self.task);
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
                    self.child.kill();
                }
                () = sleep_until(give_up_at.unwrap_or(prepare_until)), if give_up_at.is_some() && !given_up => {
                    given_up = true;
                    self.child.give_template_up();
                }
                () = sleep_until(prepare_until), if life.started_at.is_none() && !life.killed => {
                    life.overdue = true;
                    life.killed = true;
                    self.child.kill();
                }
            }
            if life.killed && give_up_at.is_none() {
                give_up_at = Some(Instant::now() + KILLED_MAX);
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
        life.hear_out(&mut notices, self.cache.as_ref(), &self.task).await;
        if notices.senseless {
            self.child.spoil_template();
        }
        if life.started_at.is_some() {
            // A short program has come and gone before its start was read.
            output.begin(&events).await;
        }
        output.finish().await;

        let ran = life.ran(waited_at);
        let fuel = life.fuel;
        if was_compiled
            && life.started_at.is_none()
            && matches!(life.outcome, None | Some(Outcome::Broken { .. }))
            && let Some(cache) = &self.cache
        {
            // Perhaps by the fault of what was compiled: the next child does it again.
            cache.forget(&self.task);
        }
        let ending = life.ending(status);
        tracing::debug!(%attempt, ?ending, %ran, fuel, "the child has ended");
        let usage = Usage { ran, fuel, ..Usage::default() };
        let _ = events.send(ExecutorEvent::Ended { ending, usage }).await;
    }
}

/// Gives the child its orders and its module. Fails when the module cannot be read.
async fn send(mut socket: OwnedWriteHalf, orders: Orders, code: Code) -> io::Result<OwnedWriteHalf> {
    let module = match code {
        Code::Compiled(module) => module,
        Code::Source(path) => {
            let mut module = Vec::new();
            // One that is too long is cut: the child does not take it.
            let file = tokio::fs::File::open(path).await?;
            file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut module).await?;
            module.into()
        }
    };
    let orders = frame(&Orders { module_bytes: module.len() as u64, ..orders });
    // A child that does not take them says nothing either; the wait for it finds that out.
    if socket.write_all(&orders).await.is_ok() {
        let _ = socket.write_all(&module).await;
    }
    Ok(socket)
}

/// Puts what a child has compiled where the next one finds it. Its guest has not begun: only the compiler has run there.
fn keep(cache: Option<Arc<CompiledCache>>, task: &WasmTask, compiler: Option<u64>, module: Bytes) {
    let (Some(cache), Some(compiler)) = (cache, compiler) else { return };
    let task = task.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = cache.put(&task, compiler, module) {
            tracing::warn!(%error, "a compiled module cannot be kept");
        }
    });
}

/// What is known about a child so far.
#[derive(Debug, Default)]
struct Life {
    /// When it was given its job, by the clock of [`boot_micros`].
    taken_at: u64,
    /// Its module came as it was compiled before.
    was_compiled: bool,
    /// What it compiles with, once it has said that it is locked in.
    compiler: Option<u64>,
    /// Why it was not given its module.
    unreadable: Option<io::Error>,
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
    fn hear(&mut self, heard: Heard, cache: Option<&Arc<CompiledCache>>, task: &WasmTask) {
        match heard {
            Heard::Notice(notice) => self.note(notice, cache.map(Arc::as_ref)),
            Heard::Compiled(module) => keep(cache.cloned(), task, self.compiler, module),
        }
    }

    /// The child is gone: what it wrote last is in the socket, with its end behind it.
    async fn hear_out(&mut self, notices: &mut Notices, cache: Option<&Arc<CompiledCache>>, task: &WasmTask) {
        while notices.open {
            if let Some(heard) = notices.next().await {
                self.hear(heard, cache, task);
            }
        }
    }

    fn note(&mut self, notice: Notice, cache: Option<&CompiledCache>) {
        // Its clock is ours, but its word is not: whatever broke into it cannot move the bill out of its life.
        let now = boot_micros();
        match notice {
            // The first word of a child, before it has seen anything of a job; later it means nothing.
            Notice::Ready { compiler, lockdown } if self.compiler.is_none() => {
                warn_once_if_open(lockdown);
                self.compiler = Some(compiler);
                if let Some(cache) = cache {
                    cache.learn(compiler, lockdown);
                }
            }
            Notice::Started { at } => {
                self.started_at.get_or_insert(at.clamp(self.taken_at, now));
            }
            Notice::Ended { at, fuel, outcome } if self.outcome.is_none() => {
                self.ended_at = Some(at.clamp(self.started_at.unwrap_or(self.taken_at), now));
                self.fuel = fuel;
                self.outcome = Some(outcome);
            }
            Notice::Ready { .. } | Notice::Compiled { .. } | Notice::Ended { .. } => {}
        }
    }

    fn ran(&self, waited_at: u64) -> Span {
        self.started_at.map_or(Span::ZERO, |started_at| {
            Span::from_micros(self.ended_at.unwrap_or(waited_at).saturating_sub(started_at))
        })
    }

    fn ending(self, status: io::Result<ExitStatus>) -> Ending {
        let started = self.started_at.is_some();
        if let Some(error) = self.unreadable {
            return node_failed(started, format!("could not read the module: {error}"));
        }
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
            None => {
                // Before it is locked in it knows of no job, and machine code that a child has made is not read like a
                // stranger's bytes: then it is this machine that does not run it.
                let compiles = self.compiler.is_some() && !self.was_compiled;
                unexplained(started, compiles, status)
            }
        }
    }
}

/// A child's words for people: modules name their functions and imports, and choose names that steer terminals or hide text.
pub(super) fn printable(message: &str) -> Text<512> {
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

/// The ending of a child that has died without a word and was not killed by us; `compiles` if it was at work on what the
/// job's author made.
fn unexplained(started: bool, compiles: bool, status: io::Result<ExitStatus>) -> Ending {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return node_failed(started, format!("the process of the module could not be run: {error}"));
        }
    };
    let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) else {
        return node_failed(started, format!("the process of the module ended without a result ({status})"));
    };
    match signal {
        libc::SIGXCPU if !started && compiles => Ending::CannotStart {
            fault: Fault::Job,
            message: Text::cut(format!("the module takes more than {COMPILE_CPU_SECS_MAX} s to compile")),
        },
        // A crash comes from what the process was given to do, and would come again on every other node: the job's.
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT | libc::SIGSYS | libc::SIGTRAP
            if started || compiles =>
        {
            if started {
                Ending::Signalled { signal: u8::try_from(signal).expect("these signals have small numbers") }
            } else {
                let message =
                    format!("the compiler crashed on the module (signal {signal}), or needed too much memory");
                Ending::CannotStart { fault: Fault::Job, message: Text::cut(message) }
            }
        }
        // The rest comes from outside: the kernel short of memory, or the node's owner.
        _ => node_failed(
            started,
            format!("the process of the module was killed by signal {signal}, which the agent did not send"),
        ),
    }
}

fn node_failed(started: bool, message: String) -> Ending {
    let message = Text::cut(message);
    if started { Ending::NodeFault { message } } else { Ending::CannotStart { fault: Fault::Node, message } }
}

/// The guest's output. Looked at only after its start, so that [`ExecutorEvent::Started`] comes before it.
struct Output {
    waiting: Option<(pipe::Receiver, pipe::Receiver)>,
    pumps: JoinSet<()>,
}

impl Output {
    fn of(stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let waiting = Some((pipe::Receiver::from_owned_fd(stdout)?, pipe::Receiver::from_owned_fd(stderr)?));
        Ok(Self { waiting, pumps: JoinSet::new() })
    }

    /// Tells the start and lets the output flow, the first time.
    async fn begin(&mut self, events: &mpsc::Sender<ExecutorEvent>) {
        let Some((stdout, stderr)) = self.waiting.take() else { return };
        // The first event of all: there is room for it.
        let _ = events.send(ExecutorEvent::Started).await;
        self.pumps.spawn(pump(stdout, OutputStream::Out, events.clone()));
        self.pumps.spawn(pump(stderr, OutputStream::Err, events.clone()));
    }

    /// Waits until all of it has been taken.
    async fn finish(mut self) {
        while self.pumps.join_next().await.is_some() {}
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

/// Reads notices from the socket. Safe to cancel: what has come so far stays in the buffer.
struct Notices {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// Until its end, or nonsense.
    open: bool,
    /// Nonsense has come.
    senseless: bool,
    /// Whether a compiled module may come: it was asked for, has not come, and the guest has not begun.
    hands_over: bool,
    /// Bytes of a compiled module that come now.
    coming: Option<usize>,
}

/// What a child says.
enum Heard {
    Notice(Notice),
    Compiled(Bytes),
}

impl Notices {
    /// What comes next; `None` when nothing does any more.
    async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.take() {
                Ok(Some(heard)) => return Some(heard),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error, "a child does not make sense");
                    (self.open, self.senseless) = (false, true);
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

    fn take(&mut self) -> Result<Option<Heard>, &'static str> {
        loop {
            if let Some(length) = self.coming {
                if self.buffer.len() < length {
                    return Ok(None);
                }
                self.coming = None;
                return Ok(Some(Heard::Compiled(self.buffer.split_to(length).freeze())));
            }
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
            match serde_json::from_slice(&body).map_err(|_| "its notice cannot be read")? {
                Notice::Compiled { bytes } => {
                    if !std::mem::take(&mut self.hands_over) || bytes > COMPILED_BYTES_MAX {
                        return Err("it hands over what nobody asked for");
                    }
                    self.coming = Some(usize::try_from(bytes).expect("below the limit"));
                }
                notice => {
                    self.hands_over &= !matches!(notice, Notice::Started { .. });
                    return Ok(Some(Heard::Notice(notice)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(started: bool, outcome: Outcome) -> Ending {
        let started_at = started.then_some(1);
        let life = Life { started_at, outcome: Some(outcome), ..Life::default() };
        life.ending(Ok(ExitStatus::default()))
    }

    #[test]
    fn a_guest_that_breaks_its_process_pays_and_a_child_that_fails_before_it_does_not() {
        let broken = || Outcome::Broken { message: Text::cut("panicked") };
        assert_eq!(ending(true, broken()), Ending::Trapped { message: Text::cut("panicked") });
        let node = Ending::CannotStart { fault: Fault::Node, message: Text::cut("panicked") };
        assert_eq!(ending(false, broken()), node);
    }

    #[test]
    fn a_crash_is_the_jobs_fault_only_where_a_child_had_its_module_to_compile() {
        let died = |signal: i32, life: Life| life.ending(Ok(std::os::unix::process::ExitStatusExt::from_raw(signal)));
        let fault = |ending: Ending| match ending {
            Ending::CannotStart { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        let ready = || Life { compiler: Some(1), ..Life::default() };
        for signal in [libc::SIGSEGV, libc::SIGABRT, libc::SIGSYS, libc::SIGILL, libc::SIGXCPU] {
            assert_eq!(fault(died(signal, ready())), Fault::Job, "{signal}");
            assert_eq!(fault(died(signal, Life::default())), Fault::Node, "{signal}");
            assert_eq!(fault(died(signal, Life { was_compiled: true, ..ready() })), Fault::Node, "{signal}");
        }
        let running = Life { was_compiled: true, started_at: Some(1), ..ready() };
        assert_eq!(died(libc::SIGSEGV, running), Ending::Signalled { signal: 11 });
    }

    #[tokio::test]
    async fn what_a_child_compiled_is_kept_though_it_is_heard_after_its_end() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = Arc::new(CompiledCache::open(dir.path()).expect("opens"));
        let task = WasmTask {
            module: modchain_types::Digest::of(b"module"),
            module_bytes: 6,
            module_name: Text::cut("m.wasm"),
            args: Default::default(),
            env: Default::default(),
        };
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let lockdown = LockdownReport { landlock: true, seccomp: true };
        for notice in [Notice::Ready { compiler: 1, lockdown }, Notice::Compiled { bytes: 4 }] {
            theirs.write_all(&frame(&notice)).await.expect("there is room");
        }
        theirs.write_all(b"code").await.expect("there is room");
        drop(theirs);
        let (socket, _ours) = ours.into_split();
        let mut notices =
            Notices { socket, buffer: BytesMut::new(), open: true, senseless: false, hands_over: true, coming: None };
        Life::default().hear_out(&mut notices, Some(&cache), &task).await;
        // It is written in the background.
        let until = Instant::now() + Duration::from_secs(60);
        while cache.get(&task).is_none() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(cache.get(&task).as_deref(), Some(&b"code"[..]));
        assert!(!notices.senseless);
    }

    #[tokio::test]
    async fn nonsense_is_told_from_an_end() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(&frame(&"what?")).await.expect("there is room");
        let (socket, _ours) = ours.into_split();
        let mut notices =
            Notices { socket, buffer: BytesMut::new(), open: true, senseless: false, hands_over: false, coming: None };
        assert!(notices.next().await.is_none());
        assert!(!notices.open && notices.senseless);
    }

    #[test]
    fn a_childs_words_cannot_steer_a_terminal_or_outgrow_a_message() {
        let message = Text::cut("in \u{1b}]0;evil\u{7}\u{202e}\n\u{85}ü");
        let clean = "in \u{fffd}]0;evil\u{fffd}\u{fffd}\u{fffd}\u{fffd}ü";
        assert_eq!(ending(true, Outcome::Trapped { message }), Ending::Trapped { message: Text::cut(clean) });
        assert!(printable(&"\u{1}".repeat(512)).len() <= 512);
    }
}
