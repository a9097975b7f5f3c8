//! What the stories share: a question, what becomes of it, and how it ended.

use std::time::Duration;

use modchain_agent::executor::llm::{LlmExecutor, LlmPolicy, LlmSettings};
use modchain_agent::executor::{ExecutorEvent, RunControl, Running, StartRequest};
use modchain_types::{
    AttemptId, Digest, Ending, Exceptions, Fault, Fence, Input, JobId, LlmKind, LlmMessage, LlmRequest, LlmRole,
    LlmTask, Span, Task, Text, Usage,
};
use modchain_wire::agent::OutputStream;
use tempfile::TempDir;

use crate::ollama::MODEL;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) const EXITED_0: Ending = Ending::Exited { code: 0 };

pub(crate) fn executor(url: &str, policy: LlmPolicy) -> LlmExecutor {
    LlmExecutor::new(LlmSettings { url: url.into(), policy }).expect("a good URL")
}

pub(crate) fn policy(pullable: &[&str]) -> LlmPolicy {
    LlmPolicy { pullable: pullable.iter().map(|name| Text::new(*name).unwrap()).collect(), ..LlmPolicy::default() }
}

/// A question, ordinary unless said otherwise.
pub(crate) struct Question {
    pub(crate) task: LlmTask,
    pub(crate) request: Vec<u8>,
    pub(crate) output_tokens_max: Option<u64>,
}

impl Question {
    fn new(kind: LlmKind, request: &LlmRequest) -> Self {
        let request = serde_json::to_vec(request).unwrap();
        let task = LlmTask {
            model: Text::new(MODEL).unwrap(),
            request: Digest([0; 32]),
            request_bytes: request.len() as u64,
            kind,
            temperature_milli: None,
            max_tokens: None,
            seed: None,
            json: false,
        };
        Self { task, request, output_tokens_max: None }
    }

    pub(crate) fn prompt(prompt: &str) -> Self {
        Self::new(LlmKind::Generate, &LlmRequest::Generate { prompt: prompt.into(), system: None })
    }

    /// One whose answer goes on for longer than any of these tests listens.
    pub(crate) fn story() -> Self {
        Self::prompt("Tell a long story about the sea.").seed(3)
    }

    pub(crate) fn chat(messages: &[(LlmRole, &str)]) -> Self {
        let messages =
            messages.iter().map(|(role, content)| LlmMessage { role: *role, content: (*content).into() }).collect();
        Self::new(LlmKind::Chat, &LlmRequest::Chat { messages })
    }

    pub(crate) fn embed(inputs: &[&str]) -> Self {
        let inputs = inputs.iter().map(|input| (*input).into()).collect();
        Self::new(LlmKind::Embed, &LlmRequest::Embed { inputs })
    }

    pub(crate) fn model(mut self, name: &str) -> Self {
        self.task.model = Text::new(name).unwrap();
        self
    }

    pub(crate) fn max_tokens(mut self, tokens: u32) -> Self {
        self.task.max_tokens = Some(tokens);
        self
    }

    pub(crate) fn seed(mut self, seed: u32) -> Self {
        self.task.seed = Some(seed);
        self
    }

    pub(crate) fn temperature(mut self, milli: u32) -> Self {
        self.task.temperature_milli = Some(milli);
        self
    }

    pub(crate) fn json(mut self) -> Self {
        self.task.json = true;
        self
    }

    pub(crate) fn start(self, executor: &LlmExecutor) -> Attempt {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("request.blob");
        std::fs::write(&module, &self.request).unwrap();
        let request = StartRequest {
            attempt: AttemptId { job: JobId([7; 16]), number: 1 },
            fence: Fence(1),
            spec_digest: Digest([0; 32]),
            task: Task::Llm(self.task.clone()),
            memory_bytes: 1 << 30,
            cpu_milli: 1_000,
            module,
            compiled: None,
            state: dir.path().join("state"),
            gpus: Vec::new(),
            exceptions: Exceptions::default(),
            image: None,
            output_tokens_max: self.output_tokens_max,
            input: Input::None,
        };
        let Running { events, control, stdin } = executor.start(request, self.task);
        assert!(stdin.is_none(), "a question reads no input");
        Attempt { _dir: dir, events, control }
    }

    pub(crate) async fn run(self, executor: &LlmExecutor) -> Story {
        self.start(executor).story().await
    }
}

/// A started attempt.
pub(crate) struct Attempt {
    _dir: TempDir,
    pub(crate) events: tokio::sync::mpsc::Receiver<ExecutorEvent>,
    pub(crate) control: RunControl,
}

impl Attempt {
    pub(crate) async fn next(&mut self) -> ExecutorEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    /// Waits for the start; returns what was prepared before it.
    pub(crate) async fn started(&mut self) -> Vec<String> {
        let mut prepared = Vec::new();
        loop {
            match self.next().await {
                ExecutorEvent::Preparing { message } => prepared.push(message.into_string()),
                ExecutorEvent::Started => return prepared,
                other => panic!("{other:?} before the start"),
            }
        }
    }

    /// Waits for the next piece of output.
    pub(crate) async fn piece(&mut self) -> String {
        match self.next().await {
            ExecutorEvent::Output { stream: OutputStream::Out, bytes } => {
                String::from_utf8(bytes.to_vec()).expect("text")
            }
            other => panic!("{other:?} and no piece"),
        }
    }

    /// Everything from here to the end.
    pub(crate) async fn story(mut self) -> Story {
        let mut story = Story::default();
        let (ending, usage) = loop {
            match self.next().await {
                ExecutorEvent::Preparing { message } => {
                    assert!(!story.started, "prepared after the start");
                    story.prepared.push(message.into_string());
                }
                ExecutorEvent::Started => {
                    assert!(story.pieces.is_empty() && story.err.is_empty(), "output before the start");
                    assert!(!story.started, "started twice");
                    story.started = true;
                }
                ExecutorEvent::Output { stream, bytes } => {
                    assert!(!bytes.is_empty(), "an empty piece");
                    let text = String::from_utf8(bytes.to_vec()).expect("text");
                    match stream {
                        OutputStream::Out => story.pieces.push(text),
                        OutputStream::Err => story.err.push_str(&text),
                        OutputStream::Note => panic!("models do not write notes"),
                    }
                }
                ExecutorEvent::Pinned { .. } => panic!("models are not pinned"),
                ExecutorEvent::Ended { ending, usage } => break (ending, usage),
            }
        };
        assert_eq!(self.events.recv().await, None, "the end is the last event");
        story.usage = usage;
        story.end = Some(ending);
        story
    }
}

/// What became of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) prepared: Vec<String>,
    pub(crate) started: bool,
    pub(crate) pieces: Vec<String>,
    pub(crate) err: String,
    pub(crate) usage: Usage,
    end: Option<Ending>,
}

impl Story {
    pub(crate) fn ending(&self) -> &Ending {
        self.end.as_ref().expect("it has ended")
    }

    pub(crate) fn out(&self) -> String {
        self.pieces.concat()
    }

    /// The answer is whole.
    pub(crate) fn assert_answered(&self) {
        assert_eq!(*self.ending(), EXITED_0, "{self:?}");
        assert!(self.started && self.err.is_empty() && self.out().ends_with('\n'), "{self:?}");
    }

    /// It never ran, through this fault, and the message says this.
    pub(crate) fn assert_cannot_start(&self, whose: Fault, expected: &str) {
        let Ending::CannotStart { fault, message } = self.ending() else {
            panic!("it should not have started: {self:?}");
        };
        assert_eq!((*fault, message.contains(expected)), (whose, true), "`{message}` does not say `{expected}`");
        assert!(!message.chars().any(char::is_control), "`{message}` steers terminals");
        assert!(self.pieces.is_empty() && self.err.is_empty(), "{self:?}");
    }

    /// It had started, the node failed, and the message says this.
    pub(crate) fn assert_node_fault(&self, expected: &str) {
        let Ending::NodeFault { message } = self.ending() else { panic!("the node should have failed: {self:?}") };
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(self.started, "{self:?}");
    }

    pub(crate) fn ran_for_nothing(&self) -> bool {
        self.usage == Usage::default() && !self.started
    }
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const NO_TIME: Span = Span::ZERO;
