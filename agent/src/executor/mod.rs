//! Running attempts: one executor per kind of task, all behind one seam.
//!
//! The shell hands over a [`StartRequest`] and gets a [`Running`]: a bounded stream of [`ExecutorEvent`]s, a
//! [`RunControl`] to end it, and a [`StdinWriter`] when the job reads input. Every executor keeps these promises:
//!
//! * The last event is [`ExecutorEvent::Ended`], exactly one, and when it comes nothing of the attempt runs any more: what
//!   ran has been waited for, not merely signalled.
//! * [`ExecutorEvent::Started`] comes at most once, before any output, when the job's own code is about to run. Whatever is
//!   done before it (compile, pull, load) is never billed.
//! * No output is lost. When nobody takes events the pipes fill and the job waits; that is all the backpressure there is.
//! * Dropping the events kills the attempt: work that nobody listens to is work that nobody pays.
//!
//! An executor decides nothing: limits on time, who pays and what a stop means belong to the supervisor in `modchain-core`.
//! Start reading here, then in [`wasm`].

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use modchain_types::{
    Assignment, AttemptId, Digest, Ending, Exceptions, Fault, Fence, ImagePin, Input, OutputLengths, Span, Task, Text,
    Timestamp, Usage,
};
use modchain_wire::agent::OutputStream;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::outbox::AttemptFolder;

pub mod docker;
pub mod llm;
pub mod wasm;

use docker::{DockerExecutor, ResumeRequest};
use llm::LlmExecutor;
use wasm::WasmExecutor;

/// Events that may wait for the shell, of one attempt. With [`OUTPUT_PIECE_BYTES_MAX`] this is 512 KiB of memory at most; when
/// it is full the job's pipes fill next, and then the job waits.
pub const EVENTS_WAITING_MAX: usize = 16;

/// Most bytes of one [`ExecutorEvent::Output`]: 32 KiB, so that a piece always fits one chunk on the wire.
pub const OUTPUT_PIECE_BYTES_MAX: usize = 32 * 1024;

/// What the shell gives an executor to start an attempt.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Of the job's specification.
    pub spec_digest: Digest,
    /// What to run.
    pub task: Task,
    /// Bytes of memory it has reserved: its limit.
    pub memory_bytes: u64,
    /// Thousandths of a core it has reserved.
    pub cpu_milli: u32,
    /// The task's main file on disk, its digest verified: a WebAssembly module, or what is asked of a language model.
    pub module: PathBuf,
    /// The module as it was compiled before; then it may have no file.
    pub compiled: Option<Bytes>,
    /// A file of this attempt alone that lives as long as its output does, for what an executor needs to take the attempt up
    /// again after the agent died. Not there at first.
    pub state: PathBuf,
    /// GPUs that it has reserved, by uuid.
    pub gpus: Vec<Text<64>>,
    /// What a container asks for beyond the sandbox; the node allows it, or would not have been chosen.
    pub exceptions: Exceptions,
    /// The image that an earlier attempt found under the job's image name.
    pub image: Option<ImagePin>,
    /// Most tokens that the hold pays for.
    pub output_tokens_max: Option<u64>,
    /// Whether it reads standard input. With [`Input::None`] it is at its end from the start.
    pub input: Input,
}

/// What becomes of an attempt, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// Before the start: how far the preparation is, for people. At most a few a second.
    Preparing {
        /// Such as `pulling: 3 of 7 layers, 120 of 310 MiB`.
        message: Text<256>,
    },
    /// Before the start, at most once: what the image's name means here.
    Pinned {
        /// The image that is about to run.
        image: ImagePin,
    },
    /// The job's own code is about to run; the billing clock runs from here.
    Started,
    /// It has written this, just now.
    Output {
        /// `Out` or `Err`.
        stream: OutputStream,
        /// At least one byte, at most [`OUTPUT_PIECE_BYTES_MAX`].
        bytes: Bytes,
    },
    /// It is over and nothing of it runs any more. The last event.
    Ended {
        /// How.
        ending: Ending,
        /// What it used. Its run is from the start to the end by this machine's clock that counts sleep; zero when it never
        /// started.
        usage: Usage,
    },
}

/// How an attempt that was stopped is to be reported, unless it ends by itself first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAs {
    /// It was told to stop: [`Ending::Stopped`].
    Stopped,
    /// It reached its run limit: [`Ending::RunLimit`].
    RunLimit,
    /// Its lease ended: [`Ending::LeaseEnded`].
    LeaseEnded,
}

impl StopAs {
    /// The ending that it is reported as.
    pub fn ending(self) -> Ending {
        match self {
            Self::Stopped => Ending::Stopped,
            Self::RunLimit => Ending::RunLimit,
            Self::LeaseEnded => Ending::LeaseEnded,
        }
    }
}

/// An attempt in the hands of an executor.
#[derive(Debug)]
pub struct Running {
    /// What becomes of it. Take events quickly: a slow taker holds the job up. Dropping it kills the attempt.
    pub events: mpsc::Receiver<ExecutorEvent>,
    /// Ends it before its time.
    pub control: RunControl,
    /// Its standard input; `None` when it reads none, or could not be started.
    pub stdin: Option<StdinWriter>,
}

/// Ends an attempt before its time. Cheap to clone; every method returns at once, and the end shows as an event.
#[derive(Debug, Clone)]
pub struct RunControl {
    wish: Arc<watch::Sender<Wish>>,
}

impl RunControl {
    /// The shell's half and the executor's half.
    pub(crate) fn new() -> (Self, watch::Receiver<Wish>) {
        let (sender, receiver) = watch::channel(Wish::Run);
        (Self { wish: Arc::new(sender) }, receiver)
    }

    /// Asks the job to end, and kills it after `grace`. The first stop counts; a later one changes nothing.
    pub fn stop(&self, stop_as: StopAs, grace: Span) {
        self.wish.send_if_modified(|wish| match wish {
            Wish::Run => {
                *wish = Wish::Stop { stop_as, grace: grace.into() };
                true
            }
            Wish::Stop { .. } | Wish::Kill { .. } => false,
        });
    }

    /// Kills the job now. It is reported as the stop that came before, or as [`Ending::Stopped`].
    pub fn kill(&self) {
        self.wish.send_if_modified(|wish| {
            let stop_as = match wish {
                Wish::Run => StopAs::Stopped,
                Wish::Stop { stop_as, .. } => *stop_as,
                Wish::Kill { .. } => return false,
            };
            *wish = Wish::Kill { stop_as };
            true
        });
    }
}

/// What the shell wants of an attempt. Only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// That it runs.
    Run,
    /// That it ends, politely.
    Stop {
        /// How to report it.
        stop_as: StopAs,
        /// How long to be polite.
        grace: Duration,
    },
    /// That it ends.
    Kill {
        /// How to report it.
        stop_as: StopAs,
    },
}

/// The standard input of a job. Dropping it is the end of the input.
pub struct StdinWriter {
    pipe: Pin<Box<dyn AsyncWrite + Send>>,
    /// Told once all of it, and its end, is out of this process; `None` where the pipe holds nothing back in it.
    handed_over: Option<oneshot::Receiver<()>>,
}

impl StdinWriter {
    pub(crate) fn new(pipe: impl AsyncWrite + Send + 'static) -> Self {
        Self { pipe: Box::pin(pipe), handed_over: None }
    }

    /// For a pipe that somebody in this process empties, who tells when that is done.
    pub(crate) fn through(pipe: impl AsyncWrite + Send + 'static, handed_over: oneshot::Receiver<()>) -> Self {
        Self { pipe: Box::pin(pipe), handed_over: Some(handed_over) }
    }

    /// Hands all the bytes over; waits while the job does not read. A job that has ended or has closed its input is
    /// [`StdinClosed`]: drop the rest.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StdinClosed> {
        self.pipe.write_all(bytes).await.map_err(|_| StdinClosed)?;
        self.pipe.flush().await.map_err(|_| StdinClosed)
    }

    /// Ends the input; waits until nothing of it is left in this process. [`StdinClosed`] as in [`StdinWriter::write`]: then
    /// some of it may have got lost.
    pub async fn close(mut self) -> Result<(), StdinClosed> {
        self.pipe.shutdown().await.map_err(|_| StdinClosed)?;
        match self.handed_over {
            Some(handed_over) => handed_over.await.map_err(|_| StdinClosed),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StdinWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinWriter").finish_non_exhaustive()
    }
}

/// Nobody reads the standard input any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the standard input any more")]
pub struct StdinClosed;

/// How far an attempt was that is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// When its own code began to run.
    pub started: Timestamp,
    /// How much output is kept.
    pub output: OutputLengths,
    /// Whether no more output is kept anyway.
    pub full: bool,
}

/// The executors of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executors {
    /// For WebAssembly.
    pub wasm: WasmExecutor,
    /// For containers; `None` where the owner allows none.
    pub docker: Option<DockerExecutor>,
    /// For language models; `None` where the owner allows none.
    pub llm: Option<LlmExecutor>,
    /// Removals under way.
    clearing: TaskTracker,
}

impl Executors {
    /// For WebAssembly and nothing else.
    pub fn wasm_alone(wasm: WasmExecutor) -> Self {
        Self::new(wasm, None, None)
    }

    /// For all that there is.
    pub fn new(wasm: WasmExecutor, docker: Option<DockerExecutor>, llm: Option<LlmExecutor>) -> Self {
        Self { wasm, docker, llm, clearing: TaskTracker::new() }
    }

    /// Starts an attempt on the executor that its task is for. Never fails: what cannot be started says so in its only event.
    /// To be called within a tokio runtime.
    pub fn start(&self, request: StartRequest) -> Running {
        match &request.task {
            Task::Wasm(task) => {
                let task = task.clone();
                self.wasm.start(&request, &task)
            }
            Task::Docker(task) => match &self.docker {
                Some(docker) => {
                    let task = task.clone();
                    docker.start(request, task)
                }
                None => Running::refused("this node runs no containers"),
            },
            Task::Llm(task) => match &self.llm {
                Some(llm) => {
                    let task = task.clone();
                    llm.start(request, task)
                }
                None => Running::refused("this node runs no language models"),
            },
        }
    }
}

impl Executors {
    /// Takes up an attempt that outlived an earlier run of the agent. `None` where nothing can.
    pub fn resume(&self, assignment: &Assignment, folder: &AttemptFolder, resumed: Resumed) -> Option<Running> {
        let docker = self.docker.as_ref()?;
        let Resumed { started, output, full } = resumed;
        Some(docker.resume(ResumeRequest {
            attempt: assignment.attempt,
            fence: assignment.claim.fence,
            state: folder.state(),
            stdout: output.stdout,
            stderr: output.stderr,
            full,
            started,
        }))
    }

    /// Removes what is left of an attempt on the machine, sooner or later: its result is on disk, or nobody wants one. The
    /// handle ends when it is done; letting it go changes nothing.
    pub fn clear_away(&self, attempt: AttemptId, fence: Fence) -> Option<JoinHandle<()>> {
        self.docker.clone().map(|docker| {
            self.clearing.spawn(async move {
                if let Err(error) = docker.remove(attempt, fence).await {
                    tracing::warn!(%attempt, %error, "a container could not be removed; the next sweep goes on with that");
                }
            })
        })
    }

    /// Waits until everything is removed that was to be.
    pub async fn cleared(&self) {
        self.clearing.close();
        self.clearing.wait().await;
    }
}

impl Running {
    /// An attempt that cannot start by the node's fault.
    fn refused(why: &str) -> Self {
        let (events_in, events) = mpsc::channel(1);
        let (control, _) = RunControl::new();
        let ending = Ending::CannotStart { fault: Fault::Node, message: Text::cut(why) };
        events_in
            .try_send(ExecutorEvent::Ended { ending, usage: Usage::default() })
            .expect("a new channel has room for one event");
        Self { events, control, stdin: None }
    }
}
