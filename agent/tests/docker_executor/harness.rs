//! What the stories of the docker executor share: a container to run, what becomes of it, and a look at what is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use modchain_agent::executor::docker::{DockerExecutor, DockerPolicy, DockerSettings};
use modchain_agent::executor::{ExecutorEvent, RunControl, Running, StartRequest, StdinWriter};
use modchain_types::{
    AttemptId, Digest, DockerTask, Ending, Exceptions, Fault, Fence, ImagePin, Input, JobId, List, Map, NodeId, Span,
    Task, Text,
};
use modchain_wire::agent::OutputStream;
use tempfile::TempDir;

use crate::image::{IMAGE, docker};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const EXITED_0: Ending = Ending::Exited { code: 0 };

/// A node of this test alone, whose containers nobody else touches. Dropping it removes what is left, so that a failed test
/// leaves nothing behind.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) executor: DockerExecutor,
    /// An engine that is not the machine's own.
    beside: Option<String>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(DockerPolicy::default())
    }

    pub(crate) fn with(policy: DockerPolicy) -> Self {
        Self::at(None, policy)
    }

    pub(crate) fn at(host: Option<String>, policy: DockerPolicy) -> Self {
        static NODES: AtomicU64 = AtomicU64::new(0);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
        bytes[8..].copy_from_slice(&NODES.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let id = NodeId(bytes);
        Self { id, executor: DockerExecutor::new(DockerSettings { host, node: id, policy }), beside: None }
    }

    /// On another real engine.
    pub(crate) fn beside(host: String, policy: DockerPolicy) -> Self {
        let mut node = Self::at(Some(host.clone()), policy);
        node.beside = Some(host);
        node
    }

    fn docker(&self, args: &[&str]) -> String {
        match &self.beside {
            None => docker(args),
            Some(host) => docker(&[&["--host", host], args].concat()),
        }
    }

    /// Ids of the containers of this node, whatever their state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=modchain.node={}", self.id);
        self.docker(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]).lines().map(str::to_owned).collect()
    }

    /// What has ended and was seen to end is left for whoever writes the end down; here that is nobody.
    pub(crate) async fn reap(&self) {
        self.reap_all_but(None).await;
    }

    /// Removes every container of this node but that of one attempt; says how many there were.
    pub(crate) async fn reap_all_but(&self, kept: Option<AttemptId>) -> usize {
        let mut removed = 0;
        for one in self.executor.survivors().await.expect("lists") {
            if kept != Some(one.attempt) {
                self.executor.remove(one.attempt, one.fence).await.expect("removes");
                removed += 1;
            }
        }
        removed
    }

    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.containers(), [] as [String; 0], "containers are left");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.beside.is_some() {
            // What is left there ends with its engine.
            return;
        }
        for id in self.containers() {
            self.docker(&["rm", "--force", "--volumes", &id]);
        }
    }
}

/// A container to run, ordinary unless said otherwise.
pub(crate) struct Container {
    pub(crate) request: StartRequest,
    pub(crate) task: DockerTask,
    dir: TempDir,
}

impl Container {
    pub(crate) fn command(command: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let task = DockerTask {
            image: Text::new(IMAGE).unwrap(),
            command: list(command),
            entrypoint: None,
            env: Map::default(),
            workdir: None,
            tmp_bytes: 16 * MIB,
            pids_max: 64,
            pull_timeout: Span::from_secs(60),
        };
        let request = StartRequest {
            attempt: AttemptId { job: JobId([7; 16]), number: 1 },
            fence: Fence(1),
            spec_digest: Digest([3; 32]),
            task: Task::Docker(task.clone()),
            memory_bytes: 128 * MIB,
            cpu_milli: 1_000,
            module: dir.path().join("module"),
            compiled: None,
            state: dir.path().join("state"),
            gpus: Vec::new(),
            exceptions: Exceptions::default(),
            image: None,
            output_tokens_max: None,
            input: Input::None,
        };
        // The engine's names are one for all tests.
        static JOBS: AtomicU64 = AtomicU64::new(0);
        let mut container = Self { request, task, dir };
        container.request.attempt.job.0[..4].copy_from_slice(&std::process::id().to_be_bytes());
        container.request.attempt.job.0[8..].copy_from_slice(&JOBS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        container
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::command(&["/bin/sh", "-c", script])
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        let mut env = std::mem::take(&mut self.task.env).into_map();
        env.insert(Text::new(name).unwrap(), Text::new(value).unwrap());
        self.task.env = Map::new(env).unwrap();
        self
    }

    pub(crate) fn input(mut self) -> Self {
        self.request.input = Input::Stream;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut StartRequest, &mut DockerTask)) -> Self {
        change(&mut self.request, &mut self.task);
        self
    }

    /// What to start, without its folder.
    pub(crate) fn into_parts(self) -> (StartRequest, DockerTask) {
        let Self { mut request, task, .. } = self;
        request.task = Task::Docker(task.clone());
        (request, task)
    }

    pub(crate) fn start(self, node: &Node) -> Attempt {
        let Self { mut request, task, dir } = self;
        request.task = Task::Docker(task.clone());
        let (attempt, fence) = (request.attempt, request.fence);
        let Running { events, control, stdin } = node.executor.start(request, task);
        Attempt { executor: node.executor.clone(), dir, attempt, fence, events, control, stdin }
    }

    /// To the end, while others of the node go on.
    pub(crate) async fn run_beside(self, node: &Node) -> Story {
        self.start(node).story().await
    }

    pub(crate) async fn run(self, node: &Node) -> Story {
        let story = self.start(node).story().await;
        node.assert_clean();
        story
    }
}

pub(crate) fn list<const MAX: usize>(items: &[&str]) -> List<Text<4096>, MAX> {
    List::new(items.iter().map(|item| Text::new(*item).unwrap()).collect()).unwrap()
}

/// A started attempt.
pub(crate) struct Attempt {
    pub(crate) executor: DockerExecutor,
    pub(crate) dir: TempDir,
    pub(crate) attempt: AttemptId,
    pub(crate) fence: Fence,
    pub(crate) events: tokio::sync::mpsc::Receiver<ExecutorEvent>,
    pub(crate) control: RunControl,
    pub(crate) stdin: Option<StdinWriter>,
}

impl Attempt {
    pub(crate) async fn next(&mut self) -> ExecutorEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    /// The name that the engine knows it by.
    pub(crate) fn container_id(&self) -> String {
        format!("modchain-{}-{}-{}", self.attempt.job, self.attempt.number, self.fence.0)
    }

    /// Up to the start; the events before it.
    pub(crate) async fn started(&mut self) -> Vec<ExecutorEvent> {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                ExecutorEvent::Started => return before,
                event @ (ExecutorEvent::Preparing { .. } | ExecutorEvent::Pinned { .. }) => before.push(event),
                other => panic!("{other:?} before the start"),
            }
        }
    }

    /// Output of one stream until it ends with this.
    pub(crate) async fn output_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match self.next().await {
                ExecutorEvent::Output { bytes, .. } => text.extend_from_slice(&bytes),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Everything from here to the end.
    pub(crate) async fn story(mut self) -> Story {
        let mut story = Story::default();
        loop {
            match self.next().await {
                ExecutorEvent::Preparing { message } => {
                    assert!(!story.started, "prepared after the start");
                    story.preparing.push(message.into_string());
                }
                ExecutorEvent::Pinned { image } => {
                    assert!(!story.started && story.pinned.is_none(), "pinned twice or late");
                    story.pinned = Some(image);
                }
                ExecutorEvent::Started => {
                    assert!(!story.started, "started twice");
                    assert!(story.out.is_empty() && story.err.is_empty(), "output before the start");
                    story.started = true;
                }
                ExecutorEvent::Output { stream, bytes } => {
                    assert!(!bytes.is_empty(), "an empty piece");
                    assert!(bytes.len() <= modchain_agent::executor::OUTPUT_PIECE_BYTES_MAX, "a large piece");
                    match stream {
                        OutputStream::Out => story.out.extend_from_slice(&bytes),
                        OutputStream::Err => story.err.extend_from_slice(&bytes),
                        OutputStream::Note => panic!("containers do not write notes"),
                    }
                }
                ExecutorEvent::Ended { ending, usage } => {
                    story.end = Some((ending, usage.ran));
                    break;
                }
            }
        }
        assert_eq!(self.events.recv().await, None, "the end is the last event");
        let filter = format!("name={}", self.container_id());
        assert_eq!(docker(&["ps", "--quiet", "--filter", &filter]), "", "nothing of it runs any more");
        // As the agent does once the end is on its disk.
        match self.executor.remove(self.attempt, self.fence).await {
            Ok(()) | Err(modchain_agent::executor::docker::Trouble::Away(_)) => {}
            Err(trouble) => panic!("it cannot be removed: {trouble}"),
        }
        story
    }
}

/// What became of an attempt.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) preparing: Vec<String>,
    pub(crate) pinned: Option<ImagePin>,
    pub(crate) started: bool,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) end: Option<(Ending, Span)>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
        f.debug_struct("Story")
            .field("started", &self.started)
            .field("out", &text(&self.out))
            .field("err", &text(&self.err))
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Story {
    pub(crate) fn ending(&self) -> &Ending {
        &self.end.as_ref().expect("it has ended").0
    }

    pub(crate) fn ran(&self) -> Span {
        self.end.as_ref().expect("it has ended").1
    }

    pub(crate) fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn err(&self) -> &str {
        std::str::from_utf8(&self.err).unwrap()
    }

    /// It never ran, through this fault, and the message says this.
    pub(crate) fn assert_cannot_start(&self, expected_fault: Fault, expected: &str) {
        let Ending::CannotStart { fault, message } = self.ending() else {
            panic!("it should not have started: {self:?}");
        };
        assert_eq!(*fault, expected_fault, "{message}");
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(!message.contains('\n'), "`{message}` is more than a line");
        assert!(!self.started && self.ran() == Span::ZERO, "{self:?}");
        assert!(self.out.is_empty() && self.err.is_empty(), "{self:?}");
    }
}
