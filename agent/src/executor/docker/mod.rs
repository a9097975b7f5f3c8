//! The `docker` executor: a container on the machine's engine.
//!
//! ```text
//!   image    allowed? here? else pull, with progress ──▶ Pinned
//!   sandbox  create with every wall set, read back, compare
//!   run      start ──▶ Started, wait, stop when told, look how it ended, remove, look that it is gone ──▶ Ended
//!   logs     the one source of output, each byte counted ──▶ Output
//!   reap     what of this node is on the engine: the next agent goes on with it or sweeps it away
//! ```
//!
//! Unlike other kinds of work a container outlives its agent. It carries its attempt and fence in labels, so that a restarted
//! agent finds it ([`DockerExecutor::survivors`]) and goes on with it ([`DockerExecutor::resume`]), at the right byte of its
//! output. What nobody goes on with is removed ([`crate::containers::sweep`]).
//!
//! A container must never run without these walls, so one whose settings read back differently is removed before it starts.
//! Start reading in [`run`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use modchain_types::{
    AttemptId, BootId, Digest, DockerTask, Exceptions, Fence, ImagePin, NodeId, Span, Text, Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use super::{EVENTS_WAITING_MAX, RunControl, Running, StartRequest, StdinWriter};
use crate::clock;
use crate::probe::DockerFound;
use engine::Engine;
use input::Input;

mod command;
mod cursor;
mod engine;
mod image;
mod input;
mod limits;
mod logs;
mod reap;
mod run;
mod sandbox;

pub use engine::Trouble;

/// Size of a file of a container's log, in the engine's words, at which the next one is begun.
const LOG_FILE_MAX: &str = "16m";

/// Files that are kept of a container's log, in the engine's words: room for all the output that is kept of a job, so that no place in
/// it is ever rotated away while it matters.
const LOG_FILES_MAX: &str = "6";

/// Bytes of standard input that wait between the shell and the engine.
const STDIN_BYTES_MAX: usize = 64 << 10;

/// Where the engine is, whose node this is, and what its owner allows.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// As in `DOCKER_HOST`; `None` means that variable, or `/var/run/docker.sock`.
    pub host: Option<String>,
    /// This node: containers carry it, so that several agents can share an engine.
    pub node: NodeId,
    /// What the owner allows.
    pub policy: DockerPolicy,
}

/// What a node's owner allows containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerPolicy {
    /// Images that may run: names with or without a tag, or beginnings that end with `*`. Empty means every image.
    pub images: Vec<String>,
    /// Whether images that are not here may be pulled.
    pub pull: bool,
    /// Largest image, unpacked.
    pub image_bytes_max: u64,
    /// What jobs may have beyond the sandbox when they ask for it.
    pub exceptions: Exceptions,
}

/// Every image, pulled where it is not here, up to 20 GiB unpacked; no exceptions.
impl Default for DockerPolicy {
    fn default() -> Self {
        Self { images: Vec::new(), pull: true, image_bytes_max: 20 << 30, exceptions: Exceptions::default() }
    }
}

/// Runs containers on the machine's engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerExecutor {
    engine: Engine,
    node: NodeId,
    policy: Arc<Mutex<DockerPolicy>>,
}

/// A container of this node that outlived its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Which attempt it is.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Of the job's specification.
    pub spec_digest: Digest,
    /// How long ago it started; `None` when it never did, or in another life of the machine.
    pub started_ago: Option<Span>,
    /// The machine's boot in which it was created.
    pub boot: BootId,
    /// What the job's image name meant when it was created.
    pub image: Option<ImagePin>,
}

/// What is needed to go on with a [`Survivor`].
#[derive(Debug, Clone)]
pub struct ResumeRequest {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// The file that [`StartRequest::state`] named.
    pub state: PathBuf,
    /// Bytes of standard output that are kept already.
    pub stdout: u64,
    /// Bytes of standard error that are kept already.
    pub stderr: u64,
    /// Whether no more output is kept anyway, so that none can be missing.
    pub full: bool,
    /// When it started, by [`clock::now`].
    pub started: Timestamp,
}

impl DockerExecutor {
    /// For the engine of these settings. Does not connect: the engine may come and go.
    pub fn new(settings: DockerSettings) -> Self {
        let DockerSettings { host, node, policy } = settings;
        Self { engine: Engine::new(host), node, policy: Arc::new(Mutex::new(policy)) }
    }

    /// Changes what the owner allows, for containers that start from now on.
    pub fn set_policy(&self, policy: DockerPolicy) {
        *self.policy.lock().expect("no holder of this lock panics") = policy;
    }

    fn policy(&self) -> DockerPolicy {
        self.policy.lock().expect("no holder of this lock panics").clone()
    }

    /// Starts an attempt. Never fails: what cannot be started says so in its only event. To be called within a tokio runtime.
    pub fn start(&self, request: StartRequest, task: DockerTask) -> Running {
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (control, wish) = RunControl::new();
        let (stdin, input) = match request.input {
            modchain_types::Input::None => (None, None),
            modchain_types::Input::Stream => {
                let (ours, bytes) = tokio::io::duplex(STDIN_BYTES_MAX);
                let (handed_over, is_handed_over) = oneshot::channel();
                (Some(StdinWriter::through(ours, is_handed_over)), Some(Input { bytes, handed_over }))
            }
        };
        let labels = self.labels(&request);
        let job = run::Job {
            engine: self.engine.clone(),
            name: container_name(request.attempt, request.fence),
            attempt: request.attempt,
            events: events_in,
            wish,
        };
        tokio::spawn(job.start(request, task, self.policy(), labels, input));
        Running { events, control, stdin }
    }

    /// Goes on with a container that is there: like [`DockerExecutor::start`], without a `Started`, and with the output from
    /// the given bytes on. To be called within a tokio runtime.
    pub fn resume(&self, request: ResumeRequest) -> Running {
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (control, wish) = RunControl::new();
        let job = run::Job {
            engine: self.engine.clone(),
            name: container_name(request.attempt, request.fence),
            attempt: request.attempt,
            events: events_in,
            wish,
        };
        tokio::spawn(job.resume(request));
        Running { events, control, stdin: None }
    }

    /// What the engine can do, if it may be used. For the probe. An engine that is there also gets to remove what it could not
    /// remove before.
    pub(crate) async fn look(&self) -> Result<DockerFound, Trouble> {
        let facts = self.engine.look().await?;
        self.engine.sweep().await;
        let policy = self.policy();
        let images = image::kept(&self.engine, &policy).await;
        Ok(Engine::found(&facts, &policy, images))
    }

    /// Waits until a request finds the engine away. For the probe.
    pub(crate) async fn engine_lost(&self) {
        self.engine.lost().await;
    }

    /// The containers of this node that are on the engine, running or ended. To be asked before this process starts any.
    pub async fn survivors(&self) -> Result<Vec<Survivor>, Trouble> {
        reap::survivors(&self.engine, self.node).await
    }

    /// Ends and removes the container of an attempt and looks whether it is gone. None is as good. One that cannot be removed is
    /// before this engine is offered again: it may hold what others are to have.
    pub async fn remove(&self, attempt: AttemptId, fence: Fence) -> Result<(), Trouble> {
        let name = container_name(attempt, fence);
        let removed = self.engine.remove(&name).await;
        if removed.is_err() {
            self.engine.leave(name);
        }
        removed
    }

    fn labels(&self, request: &StartRequest) -> HashMap<String, String> {
        let boot = clock::boot_id().map(|boot| boot.to_string()).unwrap_or_default();
        HashMap::from([
            (label::NODE.into(), self.node.to_string()),
            (label::JOB.into(), request.attempt.job.to_string()),
            (label::ATTEMPT.into(), request.attempt.number.to_string()),
            (label::FENCE.into(), request.fence.0.to_string()),
            (label::SPEC_DIGEST.into(), request.spec_digest.to_string()),
            (label::BOOT.into(), boot),
        ])
    }
}

/// What a container is labelled with.
mod label {
    pub(super) const NODE: &str = "modchain.node";
    pub(super) const JOB: &str = "modchain.job";
    pub(super) const ATTEMPT: &str = "modchain.attempt";
    pub(super) const FENCE: &str = "modchain.fence";
    pub(super) const SPEC_DIGEST: &str = "modchain.spec_digest";
    pub(super) const BOOT: &str = "modchain.boot";
    pub(super) const IMAGE: &str = "modchain.image";
}

/// The name of an attempt's container. The engine gives each name once, so an attempt cannot have two.
fn container_name(attempt: AttemptId, fence: Fence) -> String {
    format!("modchain-{}-{}-{}", attempt.job, attempt.number, fence.0)
}

/// Words of an engine, a registry or an image for people: they must not steer terminals or hide text.
fn printable(message: &str) -> String {
    let hidden = |c: char| c.is_control() || modchain_types::is_hidden(c);
    let one_line = message.trim().replace(['\r', '\n'], " ");
    one_line.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// A message of bounded length.
fn told(message: impl AsRef<str>) -> Text<512> {
    Text::cut(printable(message.as_ref()))
}
