//! One attempt: load the model, ask, hand the answer on, and say how it ended.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use modchain_types::{Ending, Fault, LlmRequest, LlmTask, Span, Text, Timestamp, Usage};
use modchain_wire::agent::OutputStream;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::answer::{Last, Piece, Vectors, pull_status, vector_line};
use super::lines::Lines;
use super::policy::LlmPolicy;
use super::pull::{self, Progress};
use super::request::{Asked, Batch, TokenLimit, What, asked};
use super::server::{ServerError, Verb, whole};
use super::{LlmExecutor, printable};
use crate::clock;
use crate::executor::{ExecutorEvent, OUTPUT_PIECE_BYTES_MAX, StartRequest, StopAs, Wish};

/// Most bytes of an answer that says that a model is loaded.
const LOADED_BYTES_MAX: usize = 64 << 10;

/// Most bytes of an answer with vectors: a batch of the longest vectors there are takes 4 MiB.
const VECTORS_BYTES_MAX: usize = 16 << 20;

/// Longest pull. A server that makes some progress all the time would keep an attempt for ever.
const PULL_MAX: Duration = Duration::from_secs(6 * 3600);

/// How often the progress of a pull is told at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// An attempt that was begun.
#[derive(Debug)]
pub(super) struct Attempt {
    executor: LlmExecutor,
    policy: LlmPolicy,
    request: StartRequest,
    task: LlmTask,
    shell: Shell,
    meter: Meter,
}

/// What an attempt has used so far. A stop leaves it as it is: what counts then is what was seen until then.
#[derive(Debug, Default)]
struct Meter {
    started_at: Option<Timestamp>,
    usage: Usage,
    /// The server had to load the model again after the start, because another one had taken its place. Never billed either.
    loaded_again: Span,
}

impl Attempt {
    pub(super) fn new(
        executor: LlmExecutor,
        policy: LlmPolicy,
        request: StartRequest,
        task: LlmTask,
        events: mpsc::Sender<ExecutorEvent>,
    ) -> Self {
        let shell = Shell { events, waiting: VecDeque::new(), open_lines: Vec::new() };
        Self { executor, policy, request, task, shell, meter: Meter::default() }
    }

    /// From the task to the end, or to the wish that it ends. Any stop takes effect at once: a model has nothing to tidy up, so
    /// there is no use for a grace time. It drops what is under way, which closes the connection.
    pub(super) async fn supervise(mut self, mut wish: watch::Receiver<Wish>) {
        let attempt = self.request.attempt;
        let events = self.shell.events.clone();
        let ending = tokio::select! {
            ending = self.run() => ending.unwrap_or_else(|ending| ending),
            stop_as = stopped(&mut wish) => stop_as.ending(),
            () = events.closed() => {
                tracing::warn!(%attempt, "nobody listens to this attempt any more: it is stopped");
                Ending::Stopped
            }
        };
        let usage = self.meter.read(clock::now());
        tracing::debug!(%attempt, ?ending, ?usage, "the answer has ended");
        self.executor.changed.notify_one();
        self.shell.flush().await;
        let _ = events.send(ExecutorEvent::Ended { ending, usage }).await;
    }

    /// Until the answer is there (`Ok`) or something went wrong (`Err`).
    async fn run(&mut self) -> Result<Ending, Ending> {
        let asked = self.asked().await?;
        self.load(asked.verb, &asked.load).await?;
        self.executor.changed.notify_one();
        self.meter.started_at = Some(clock::now());
        self.shell.say(ExecutorEvent::Started).await;
        match asked.what {
            What::Text { body, limit } => self.text(asked.verb, body, limit).await,
            What::Vectors { batches } => self.vectors(asked.verb, batches).await,
        }
    }

    /// Reads what the client asks.
    async fn asked(&self) -> Result<Asked, Ending> {
        let job = |why: String| cannot_start(Fault::Job, why);
        let node = |error| cannot_start(Fault::Node, format!("the request cannot be read: {error}"));
        let file = tokio::fs::File::open(&self.request.module).await.map_err(node)?;
        let mut json = Vec::new();
        file.take(LlmTask::REQUEST_BYTES_MAX + 1).read_to_end(&mut json).await.map_err(node)?;
        if json.len() as u64 > LlmTask::REQUEST_BYTES_MAX {
            return Err(job(format!("its request has more than {} bytes", LlmTask::REQUEST_BYTES_MAX)));
        }
        let request: LlmRequest = serde_json::from_slice(&json)
            .map_err(|error| job(printable(&format!("its request cannot be understood: {error}"))))?;
        asked(&self.task, request, &self.policy, self.request.output_tokens_max).map_err(job)
    }

    /// Has the model in memory, pulled if it is not there and may be.
    async fn load(&mut self, verb: Verb, body: &Bytes) -> Result<(), Ending> {
        let model = self.task.model.clone();
        self.shell.prepare(format!("loading {model}")).await;
        match self.load_what_is_there(verb, body.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(self.failed(error)),
        }
        if !self.policy.may_pull(&model) {
            let why = format!("this node does not hold the model {model}, and its owner does not let it be pulled");
            return Err(cannot_start(Fault::Node, why));
        }
        match tokio::time::timeout(PULL_MAX, self.pull()).await {
            Ok(pulled) => pulled?,
            Err(_) => {
                let why = format!("the model {model} was not pulled within {} h", PULL_MAX.as_secs() / 3600);
                return Err(cannot_start(Fault::Node, why));
            }
        }
        self.shell.prepare(format!("loading {model}")).await;
        match self.load_what_is_there(verb, body.clone()).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn load_what_is_there(&mut self, verb: Verb, body: Bytes) -> Result<(), ServerError> {
        let (begun, patience) = (clock::now(), self.executor.patience.load);
        let response = self.executor.server.ask(verb, body, patience).await?;
        whole(response, patience, LOADED_BYTES_MAX).await?;
        self.meter.usage.load = clock::now().since(begun);
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), Ending> {
        let (model, patience) = (self.task.model.clone(), self.executor.patience.pull);
        let node = |error: ServerError| {
            let fault = if error.blames_request() { Fault::Job } else { Fault::Node };
            cannot_start(fault, format!("the model {model} cannot be pulled: {error}"))
        };
        let body = serde_json::json!({ "model": &*model, "stream": true });
        let response = self.executor.server.ask(Verb::Pull, body.to_string().into(), patience).await;
        let mut lines = Lines::of(response.map_err(node)?);
        let mut progress = Progress::default();
        let mut told: Option<(Instant, String)> = None;
        while let Some(line) = lines.next(patience).await.map_err(node)? {
            match pull_status(&line) {
                Ok(status) => progress.note(status),
                Err(ServerError::Failed(message)) if pull::means_unknown(&message) => {
                    let why = format!("there is no model {model}: {message}");
                    return Err(cannot_start(Fault::NotFound, why));
                }
                Err(error) => return Err(node(error)),
            }
            if progress.is_done() {
                return Ok(());
            }
            let line = progress.line(&model);
            if told.as_ref().is_none_or(|(at, last)| at.elapsed() >= PROGRESS_EVERY && *last != line) {
                self.shell.prepare(line.clone()).await;
                told = Some((Instant::now(), line));
            }
        }
        Err(node(ServerError::Nonsense("it stopped pulling and did not say why".into())))
    }

    /// Asks for a text and hands it on, token by token.
    async fn text(&mut self, verb: Verb, body: Bytes, limit: TokenLimit) -> Result<Ending, Ending> {
        let patience = self.executor.patience;
        let response = match self.executor.server.ask(verb, body, patience.first).await {
            Ok(response) => response,
            Err(error) => return Err(self.failed(error)),
        };
        let mut lines = Lines::of(response);
        let mut wait = patience.first;
        loop {
            let line = lines.next(wait).await;
            let Piece { said, thought, last } = match line.and_then(|line| line.as_deref().map(Piece::read).transpose())
            {
                Ok(Some(piece)) => piece,
                Ok(None) => return Err(self.node_fault("the answer of the model server broke off".into())),
                Err(error) => return Err(self.failed(error)),
            };
            wait = patience.next;
            if !(said.is_empty() && thought.is_empty()) {
                self.meter.token();
            }
            if let Some(last) = &last {
                self.meter.settle(last);
            }
            // What is counted is all here before anything is waited for, so a stop hands on what it counts.
            self.shell.thought(thought);
            self.shell.said(said);
            if last.is_some() {
                self.shell.end_lines();
            }
            self.shell.flush().await;
            if let Some(last) = last {
                let spent = self.meter.usage.output_tokens >= u64::from(limit.tokens);
                let hold_is_spent = last.cut && spent && !limit.wanted;
                return Ok(if hold_is_spent { Ending::RunLimit } else { Ending::Exited { code: 0 } });
            }
        }
    }

    /// Asks for vectors and hands them on, a line each.
    async fn vectors(&mut self, verb: Verb, batches: Vec<Batch>) -> Result<Ending, Ending> {
        let mut index = 0usize;
        for Batch { body, inputs } in batches {
            let vectors = match self.batch(verb, body, inputs).await {
                Ok(vectors) => vectors,
                Err(error) if error.blames_request() && index > 0 => {
                    // What was made before is paid, so this is the end of a job that ran, and failed.
                    let message = format!("texts {index} to {}: {error}", index + inputs - 1);
                    self.shell.complain(&message);
                    self.shell.flush().await;
                    return Err(Ending::Exited { code: 1 });
                }
                Err(error) => return Err(self.failed(error)),
            };
            for embedding in vectors {
                self.shell.said(vector_line(index, &embedding));
                index += 1;
            }
            self.shell.flush().await;
        }
        Ok(Ending::Exited { code: 0 })
    }

    async fn batch(&mut self, verb: Verb, body: Bytes, inputs: usize) -> Result<Vec<Vec<f32>>, ServerError> {
        let patience = self.executor.patience.first;
        let response = self.executor.server.ask(verb, body, patience).await?;
        let body = whole(response, patience, VECTORS_BYTES_MAX).await?;
        let Vectors { vectors, prompt_tokens, load } = Vectors::read(&body, inputs)?;
        self.meter.read_tokens(prompt_tokens, load);
        Ok(vectors)
    }

    /// The ending after a failure of the server.
    fn failed(&self, error: ServerError) -> Ending {
        if error.blames_request() {
            // Also after the start: nothing was made, and no other server would make it.
            cannot_start(Fault::Job, error.to_string())
        } else {
            self.node_fault(error.to_string())
        }
    }

    fn node_fault(&self, message: String) -> Ending {
        match self.meter.started_at {
            Some(_) => Ending::NodeFault { message: Text::cut(message) },
            None => cannot_start(Fault::Node, message),
        }
    }
}

impl Meter {
    /// A token has come. A server sends each as it is made, or some together where one alone is no text, so this count is
    /// never too high. It stands if the answer is cut off before its last record.
    fn token(&mut self) {
        if self.usage.output_tokens == 0 {
            let started_at = self.started_at.expect("tokens come after the start");
            self.usage.first_token = clock::now().since(started_at);
        }
        self.usage.output_tokens += 1;
    }

    /// The last record has come.
    fn settle(&mut self, last: &Last) {
        self.read_tokens(last.prompt_tokens, last.load);
        let usage = &mut self.usage;
        usage.output_tokens = last.output_tokens.unwrap_or(usage.output_tokens);
        usage.generating = last.generating;
        usage.first_token = usage.first_token.saturating_sub(last.load);
    }

    fn read_tokens(&mut self, prompt_tokens: u64, load: Span) {
        self.usage.prompt_tokens = self.usage.prompt_tokens.saturating_add(prompt_tokens);
        self.loaded_again = self.loaded_again.saturating_add(load);
    }

    fn read(&self, now: Timestamp) -> Usage {
        let passed = self.started_at.map_or(Span::ZERO, |started_at| now.since(started_at));
        Usage {
            ran: passed.saturating_sub(self.loaded_again),
            load: self.usage.load.saturating_add(self.loaded_again),
            ..self.usage
        }
    }
}

/// The way of events to the shell. Safe to cancel: what could not be handed over yet waits here, in order. That is never more
/// than what one answer or one line of the server has become.
#[derive(Debug)]
struct Shell {
    events: mpsc::Sender<ExecutorEvent>,
    waiting: VecDeque<ExecutorEvent>,
    /// Streams whose last byte does not end a line.
    open_lines: Vec<OutputStream>,
}

impl Shell {
    async fn say(&mut self, event: ExecutorEvent) {
        self.waiting.push_back(event);
        self.flush().await;
    }

    async fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match self.events.reserve().await {
                Ok(room) => room.send(self.waiting.pop_front().expect("something waits")),
                // Nobody listens, which ends the attempt.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    async fn prepare(&mut self, message: String) {
        self.say(ExecutorEvent::Preparing { message: Text::cut(message) }).await;
    }

    /// Of the answer itself: standard output is exactly this.
    fn said(&mut self, text: String) {
        if !text.is_empty() && self.open_lines.contains(&OutputStream::Err) {
            self.write(OutputStream::Err, "\n".into());
        }
        self.write(OutputStream::Out, text);
    }

    /// What a model thinks before it answers: the job's tokens as well, and no part of the answer.
    fn thought(&mut self, text: String) {
        self.write(OutputStream::Err, text);
    }

    fn complain(&mut self, message: &str) {
        self.write(OutputStream::Err, format!("{message}\n"));
    }

    /// A last line gets its end if the model gave it none.
    fn end_lines(&mut self) {
        for stream in std::mem::take(&mut self.open_lines) {
            self.write(stream, "\n".into());
        }
    }

    fn write(&mut self, stream: OutputStream, text: String) {
        if text.is_empty() {
            return;
        }
        self.open_lines.retain(|open| *open != stream);
        if !text.ends_with('\n') {
            self.open_lines.push(stream);
        }
        let mut bytes = Bytes::from(text);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(OUTPUT_PIECE_BYTES_MAX));
            self.waiting.push_back(ExecutorEvent::Output { stream, bytes: piece });
        }
    }
}

fn cannot_start(fault: Fault, message: String) -> Ending {
    Ending::CannotStart { fault, message: Text::cut(message) }
}

/// Waits until the shell wants an end.
async fn stopped(wish: &mut watch::Receiver<Wish>) -> StopAs {
    loop {
        match *wish.borrow_and_update() {
            Wish::Run => {}
            Wish::Stop { stop_as, grace: _ } | Wish::Kill { stop_as } => return stop_as,
        }
        if wish.changed().await.is_err() {
            // Nobody can wish any more.
            std::future::pending::<()>().await;
        }
    }
}
