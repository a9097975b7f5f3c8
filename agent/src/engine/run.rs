//! Running one attempt, from its assignment to its end: fetch, start, spool what it prints, feed what it reads, stop it when
//! told. Says what happens to the engine; decides nothing.

use std::time::Duration;

use bytes::Bytes;
use modchain_types::{Assignment, Ending, Fault, Input, LlmTask, OutputLengths, Span, Task, TaskBody, Text, Usage};
use modchain_wire::agent::OutputStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{EngineInput, StdinPiece};
use crate::blobs::{BlobFetcher, BlobRequest, FetchError};
use crate::clock;
use crate::executor::wasm::MODULE_BYTES_MAX;
use crate::executor::{EVENTS_WAITING_MAX, ExecutorEvent, Executors, Resumed, StartRequest, StdinWriter, StopAs};
use crate::outbox::AttemptFolder;
use crate::spool::{Finished, SpoolWriter};

/// Longest grace time, so that no wish overflows a timer.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// One attempt with all that it needs.
#[derive(Debug)]
pub(super) struct Runner {
    pub assignment: Box<Assignment>,
    pub folder: AttemptFolder,
    pub writer: SpoolWriter,
    /// Becomes a grace time when it is to stop.
    pub stop: watch::Receiver<Option<Span>>,
    /// `None` when it reads no input.
    pub stdin: Option<mpsc::Receiver<StdinPiece>>,
    /// How far it was, when it is taken up again.
    pub resumes: Option<Resumed>,
    pub executors: Executors,
    pub blobs: BlobFetcher,
    pub engine: mpsc::Sender<EngineInput>,
}

/// How it ended, before its output is counted.
struct End {
    ending: Ending,
    usage: Usage,
}

impl End {
    fn before_start(ending: Ending) -> Self {
        Self { ending, usage: Usage::default() }
    }

    fn cannot_start(fault: Fault, why: impl Into<String>) -> Self {
        Self::before_start(Ending::CannotStart { fault, message: Text::cut(why) })
    }
}

impl Runner {
    /// From the assignment to the end. Dropping the future kills the attempt.
    pub(super) async fn run(self) {
        let attempt = self.assignment.attempt;
        let engine = self.engine.clone();
        let (mut end, writer) = self.run_to_end().await;
        let (mut output, mut short_output) = (OutputLengths::default(), Vec::new());
        if let Some(writer) = writer {
            let Finished { lengths, short } = match writer.is_short() {
                true => writer.finish(),
                false => blocking(move || writer.finish()).await,
            };
            output = lengths;
            match short {
                Ok(short) => short_output = short,
                Err(error) => {
                    // The result would promise output that a power loss could take back.
                    tracing::error!(%attempt, %error, "output cannot be made durable");
                    end.ending = output_lost(&error);
                }
            }
        }
        let End { ending, usage } = end;
        // The engine outlives its runners, or is gone together with the program.
        let _ = engine.send(EngineInput::Ended { attempt, ending, usage, output, short_output }).await;
    }

    /// The writer comes back unless it was lost with a panic of the disk's thread.
    async fn run_to_end(mut self) -> (End, Option<SpoolWriter>) {
        let running = match self.resumes {
            Some(resumed) => match self.executors.resume(&self.assignment, &self.folder, resumed) {
                Some(running) => running,
                None => {
                    let message = Text::cut("nothing that could run it is there any more");
                    return (End::before_start(Ending::NodeFault { message }), Some(self.writer));
                }
            },
            None => {
                let request = tokio::select! {
                    prepared = prepare(&self.assignment, &self.folder, &self.blobs, &self.executors) => prepared,
                    _ = stop_wish(&mut self.stop) => Err(End::before_start(Ending::Stopped)),
                };
                match request {
                    Ok(request) => self.executors.start(request),
                    Err(end) => return (end, Some(self.writer)),
                }
            }
        };
        let control = running.control;
        let mut events = running.events;
        let _feeding = match (running.stdin, self.stdin.take()) {
            (Some(stdin), Some(pieces)) => {
                let folder = self.folder.clone();
                Some(AbortOnDropHandle::new(tokio::spawn(feed(stdin, pieces, folder))))
            }
            _ => None,
        };
        let mut writer = Some(self.writer);
        let mut broken = None;
        let mut batch = Vec::with_capacity(EVENTS_WAITING_MAX);
        let mut kill_at = None;
        loop {
            tokio::select! {
                count = events.recv_many(&mut batch, EVENTS_WAITING_MAX) => if count == 0 {
                    let message = Text::cut("the executor vanished without a result");
                    return (End::before_start(Ending::NodeFault { message }), writer);
                },
                grace = stop_wish(&mut self.stop) => {
                    // The executor keeps to the first grace time; a later, shorter one is kept here.
                    control.stop(StopAs::Stopped, grace);
                    kill_at = Some(Instant::now() + Duration::from(grace).min(GRACE_MAX));
                    continue;
                }
                () = tokio::time::sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    control.kill();
                    kill_at = None;
                    continue;
                }
            }
            let mut pieces: Vec<(OutputStream, Bytes)> = Vec::new();
            let mut ended = None;
            for event in batch.drain(..) {
                match event {
                    ExecutorEvent::Started => {
                        let _ = self.engine.send(EngineInput::Started { attempt: self.assignment.attempt }).await;
                    }
                    ExecutorEvent::Output { stream, bytes } => pieces.push((stream, bytes)),
                    ExecutorEvent::Preparing { message } => {
                        let _ = self
                            .engine
                            .send(EngineInput::Preparing { attempt: self.assignment.attempt, message })
                            .await;
                    }
                    ExecutorEvent::Pinned { image } => {
                        let _ = self.engine.send(EngineInput::Pinned { attempt: self.assignment.attempt, image }).await;
                    }
                    ExecutorEvent::Ended { ending, usage } => ended = Some(End { ending, usage }),
                }
            }
            if let Some(mut open) = writer.take_if(|_| !pieces.is_empty() && broken.is_none()) {
                let at = clock::wall();
                let (open, appended) = blocking(move || {
                    let appended = open.append(at, &pieces);
                    (open, appended)
                })
                .await;
                writer = Some(open);
                if let Err(error) = appended {
                    tracing::error!(attempt = %self.assignment.attempt, %error, "output cannot be kept");
                    broken = Some(error);
                    control.kill();
                }
            }
            if let Some(mut end) = ended {
                if let Some(error) = broken {
                    end.ending = output_lost(&error);
                }
                return (end, writer);
            }
        }
    }
}

/// Everything that the executor needs, on disk.
async fn prepare(
    assignment: &Assignment,
    folder: &AttemptFolder,
    blobs: &BlobFetcher,
    executors: &Executors,
) -> Result<StartRequest, End> {
    let task = match &assignment.spec.body {
        TaskBody::Inline(task) => task,
        TaskBody::Blob { .. } => {
            return Err(End::cannot_start(Fault::Node, "the assignment came without its task"));
        }
    };
    let main_file = match task {
        Task::Wasm(wasm) => Some(("the module", wasm.module, wasm.module_bytes, MODULE_BYTES_MAX)),
        Task::Llm(llm) => Some(("the request", llm.request, llm.request_bytes, LlmTask::REQUEST_BYTES_MAX)),
        Task::Docker(_) => None,
    };
    let compiled = match task {
        Task::Wasm(wasm) => executors.wasm.compiled(wasm).await,
        Task::Llm(_) | Task::Docker(_) => None,
    };
    if compiled.is_none() || assignment.spec.input == Input::Stream {
        // For its module, its state, or the note that its input is complete.
        let failed = |error| End::cannot_start(Fault::Node, format!("its folder cannot be made: {error}"));
        folder.make().map_err(failed)?;
    }
    if let Some((what, digest, bytes, bytes_max)) = main_file.filter(|_| compiled.is_none()) {
        if bytes > bytes_max {
            let why = format!("{what} has {bytes} bytes, at most {bytes_max} are allowed");
            return Err(End::cannot_start(Fault::Job, why));
        }
        let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
        let request = BlobRequest { attempt, fence, digest, bytes, place: folder.module() };
        if let Err(error) = blobs.fetch(request).await {
            let fault = match &error {
                FetchError::Size { .. } => Fault::Job,
                FetchError::Refused { .. }
                | FetchError::Digest
                | FetchError::Disk(_)
                | FetchError::TimedOut
                | FetchError::Stopped => Fault::Node,
            };
            return Err(End::cannot_start(fault, format!("{what} cannot be fetched: {error}")));
        }
    }
    Ok(StartRequest {
        attempt: assignment.attempt,
        fence: assignment.claim.fence,
        spec_digest: modchain_wire::spec_digest(&assignment.spec),
        task: task.clone(),
        memory_bytes: assignment.reservation.memory_bytes,
        cpu_milli: assignment.reservation.cpu_milli,
        module: folder.module(),
        compiled,
        state: folder.state(),
        gpus: assignment.reservation.gpus.iter().map(|(uuid, _)| uuid.clone()).collect(),
        exceptions: assignment.spec.requirements.exceptions,
        image: assignment.image.clone(),
        output_tokens_max: assignment.output_tokens_max,
        input: assignment.spec.input,
    })
}

/// Waits for the next wish to stop.
async fn stop_wish(stop: &mut watch::Receiver<Option<Span>>) -> Span {
    loop {
        if stop.changed().await.is_err() {
            // Nobody can wish any more: the engine is gone, and this task with it.
            std::future::pending::<()>().await;
        }
        if let Some(grace) = *stop.borrow_and_update() {
            return grace;
        }
    }
}

/// Writes the input to the job, as fast as it reads.
async fn feed(mut stdin: StdinWriter, mut pieces: mpsc::Receiver<StdinPiece>, folder: AttemptFolder) {
    while let Some(piece) = pieces.recv().await {
        match piece {
            StdinPiece::Bytes(bytes) => {
                if stdin.write(&bytes).await.is_err() {
                    return;
                }
            }
            StdinPiece::End => {
                // Before nothing of it is left in this process the note would be a lie to the next one. Who has ended meanwhile
                // needs none.
                if stdin.close().await.is_ok()
                    && let Err(error) = folder.input_is_done()
                {
                    tracing::warn!(%error, "that an attempt has its input cannot be written down");
                }
                return;
            }
        }
    }
}

fn output_lost(error: &std::io::Error) -> Ending {
    Ending::NodeFault { message: Text::cut(format!("the node cannot keep the output: {error}")) }
}

/// Runs what waits for the disk where waiting is allowed. A panic there is this task's panic.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn that_the_input_is_done_is_noted_only_once_nothing_of_it_is_left_here() {
        for arrives in [true, false] {
            let dir = tempfile::tempdir().expect("dir");
            let folder = AttemptFolder::at(dir.path());
            let (ours, mut theirs) = tokio::io::duplex(64);
            let (confirm, confirmed) = oneshot::channel();
            let (pieces_in, pieces) = mpsc::channel(2);
            pieces_in.send(StdinPiece::Bytes(Bytes::from_static(b"input"))).await.expect("there is room");
            pieces_in.send(StdinPiece::End).await.expect("there is room");
            let feeding = tokio::spawn(feed(StdinWriter::through(ours, confirmed), pieces, folder));
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.expect("reads");
            assert_eq!(read, b"input");
            if arrives {
                confirm.send(()).expect("it is waited for");
            } else {
                drop(confirm);
            }
            feeding.await.expect("no panic");
            assert_eq!(dir.path().join("input-done").exists(), arrives);
        }
    }
}
