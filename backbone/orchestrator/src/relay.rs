//! One attempt's stream: output up to the store, input down from the spool.
//!
//! The agent may forget output only once it is synced here, so an acknowledgement follows a sync, and one sync covers
//! whatever arrived meanwhile. Output goes up on one task and acknowledgements and input go down on another: a job that does
//! not read its input must not hold its output up.
//!
//! A node is not believed: an attempt that is not live on this node under this fence gets no stream, offsets must continue,
//! and the cap on output holds here too.
//!
//! Standard input ends with [`INPUT_SILENCE_MAX`]: when nobody has been there to send it for so long and it is not at its
//! end, the job is told that it cannot be completed.

use std::time::{Duration, Instant};

use futures::FutureExt;
use modchain_core::{Command, Control};
use modchain_link::{FrameReader, FrameWriter, Priority, ReadError, StreamCode};
use modchain_types::{AttemptId, Fence, Input, JobId, NodeId, OutputLengths, Text};
use modchain_wire::agent::{
    AttemptOpen, AttemptResume, InputChunk, InputEnd, OutputAck, OutputChunk, OutputEnd, OutputStream, StreamRefused,
};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, Sentence, ToAgent};
use tokio::sync::watch;

use crate::session::{AgentSession, Context, wall_now};
use crate::store::input::{InputError, InputSpool};
use crate::store::output::{OutputError, OutputLog};

/// How long input may be without a client that sends it, before it counts as never to be completed.
pub const INPUT_SILENCE_MAX: Duration = Duration::from_secs(5 * 60);
/// How often a pump that waits for input looks whether its client is still there.
const INPUT_CHECK: Duration = Duration::from_secs(10);
/// Chunks taken before they are synced: 4 MiB, which bounds what an acknowledgement waits for.
const CHUNKS_PER_SYNC: usize = 64;

type Writer = FrameWriter<ToAgent>;
type Reader = FrameReader<FromAgent>;

/// What the engine knows of an attempt that may have a stream.
struct Granted {
    input: Input,
    output_bytes_max: u64,
}

/// Why the way up ended.
enum Up {
    /// The agent has closed its side.
    Closed,
    /// Tell the agent so, and end the stream.
    Refused(StreamRefused),
    /// The stream broke; what to reset the way down with, if the agent does not know.
    Broken(Option<StreamCode>),
}

/// Serves one attempt's stream until it ends, or until the attempt is no longer this node's.
pub(crate) async fn serve(session: &AgentSession, mut writer: Writer, mut reader: Reader, open: AttemptOpen) {
    writer.set_priority(Priority::JobOutput);
    let context = &*session.context;
    let (attempt, fence) = (open.attempt, open.fence);
    let refusal = match grant(context, session.node, attempt, fence).await {
        Some(granted) => match begin(context, session, attempt).await {
            Ok(log) => return relay(session, writer, reader, open, granted, log).await,
            Err(error) => refuse(error.to_string(), true),
        },
        None => refuse("this attempt does not run here under this fence", false),
    };
    reader.stop(StreamCode::Refused);
    // An error means that the agent is not there to hear it.
    let _ = writer.write(&refusal.into()).await;
    let _ = writer.finish().await;
}

fn refuse(why: impl Into<String>, retryable: bool) -> StreamRefused {
    StreamRefused { why: Sentence::cut(why), retryable }
}

async fn grant(context: &Context, node: NodeId, attempt: AttemptId, fence: Fence) -> Option<Granted> {
    let question = move |control: &Control, _| {
        let job = control.job(attempt.job)?;
        job.placement_of(attempt, fence).filter(|placement| placement.node == node)?;
        Some(Granted { input: job.spec.input, output_bytes_max: job.spec.limits.output_bytes_max })
    };
    context.services.engine.query(question).await.ok().flatten()
}

/// Opens the log. That of a second or later attempt begins with a remark, so that a reader knows why the output starts over.
async fn begin(context: &Context, session: &AgentSession, attempt: AttemptId) -> Result<OutputLog, OutputError> {
    let log = context.services.output.open(attempt).await?;
    if attempt.number > 1 && log.sync().await?.records == 0 {
        log.note(wall_now(), &format!("attempt {} on {}\n", attempt.number, session.identity.name))?;
    }
    log.sync().await?;
    Ok(log)
}

async fn relay(
    session: &AgentSession,
    mut writer: Writer,
    mut reader: Reader,
    open: AttemptOpen,
    granted: Granted,
    log: OutputLog,
) {
    let context = &*session.context;
    let stored = log.stored().lengths;
    let resume = AttemptResume { stdout: stored.stdout, stderr: stored.stderr };
    if writer.write(&resume.into()).await.is_err() {
        return;
    }
    let input = match (granted.input, open.input_from) {
        (Input::Stream, Some(from)) => match context.services.input.open(open.attempt.job).await {
            Ok(spool) if from > spool.stored().length => {
                // It cannot have had what is not here.
                reader.stop(StreamCode::BadFrame);
                writer.reset(StreamCode::BadFrame);
                return;
            }
            Ok(spool) => Some((spool, from)),
            Err(error) => return fail_input(context, open.attempt.job, &error.into()).await,
        },
        (Input::Stream, None) | (Input::None, Some(_) | None) => None,
    };
    let (acked, acks) = watch::channel(stored);
    let up = Upward { context, open: &open, log: &log, cap: granted.output_bytes_max, acked };
    let ended = {
        let down = downward(context, open.attempt.job, &mut writer, acks, input);
        let up = up.run(&mut reader);
        let gone = superseded(context, session.node, open.attempt, open.fence);
        tokio::pin!(up, down, gone);
        let mut down_done = false;
        loop {
            tokio::select! {
                ended = &mut up => break ended,
                broken = &mut down, if !down_done => match broken {
                    Some(ended) => break ended,
                    None => down_done = true,
                },
                () = &mut gone => break Up::Refused(refuse("this attempt is over here", false)),
            }
        }
    };
    match ended {
        Up::Closed => {
            // The last acknowledgement may not have gone out before its stream's other half ended.
            let stored = log.stored().lengths;
            let _ = writer.write(&OutputAck { stdout: stored.stdout, stderr: stored.stderr }.into()).await;
            let _ = writer.finish().await;
        }
        Up::Refused(refusal) => {
            reader.stop(StreamCode::Refused);
            let _ = writer.write(&refusal.into()).await;
            let _ = writer.finish().await;
        }
        Up::Broken(Some(code)) => {
            reader.stop(code);
            writer.reset(code);
        }
        Up::Broken(None) => {}
    }
}

/// Returns when the attempt is no longer live on this node under this fence.
async fn superseded(context: &Context, node: NodeId, attempt: AttemptId, fence: Fence) {
    let mut revision = 0;
    loop {
        let Ok(standing) = context.feed.standing_after(attempt.job, revision).await else { return };
        revision = standing.revision;
        let current = standing.attempt == attempt.number && !standing.ended;
        // The feed may be a moment behind an assignment; the engine is not.
        if !current && grant(context, node, attempt, fence).await.is_none() {
            return;
        }
    }
}

/// The way up.
struct Upward<'a> {
    context: &'a Context,
    open: &'a AttemptOpen,
    log: &'a OutputLog,
    cap: u64,
    acked: watch::Sender<OutputLengths>,
}

impl Upward<'_> {
    async fn run(self, reader: &mut Reader) -> Up {
        loop {
            let mut end = None;
            let mut next = reader.read().await;
            let mut taken = 0;
            // What has arrived already shares one sync.
            loop {
                match next {
                    Ok(Some(FromAgent::OutputChunk(chunk))) => {
                        if let Err(ended) = self.append(chunk) {
                            return ended;
                        }
                    }
                    Ok(Some(FromAgent::OutputEnd(all))) => end = Some(all),
                    Ok(Some(_)) => return Up::Broken(Some(StreamCode::Refused)),
                    Ok(None) => {
                        return match self.sync().await {
                            Ok(_) => Up::Closed,
                            Err(ended) => ended,
                        };
                    }
                    Err(error) => return self.broken(&error).await,
                }
                taken += 1;
                if taken == CHUNKS_PER_SYNC || end.is_some() {
                    break;
                }
                match reader.read().now_or_never() {
                    Some(more) => next = more,
                    None => break,
                }
            }
            let stored = match self.sync().await {
                Ok(stored) => stored,
                Err(ended) => return ended,
            };
            if let Some(all) = end
                && let Err(ended) = self.complete(&all, stored).await
            {
                return ended;
            }
        }
    }

    fn append(&self, chunk: OutputChunk) -> Result<(), Up> {
        // Remarks are ours to make, and an empty chunk says nothing.
        if chunk.stream == OutputStream::Note || chunk.data.is_empty() {
            return Err(Up::Broken(Some(StreamCode::BadFrame)));
        }
        let OutputChunk { stream, offset, at, data } = chunk;
        self.log.append(stream, offset, at, data.into_bytes(), self.cap).map_err(|error| self.failed(&error))
    }

    async fn sync(&self) -> Result<OutputLengths, Up> {
        let progress = self.log.sync().await.map_err(|error| self.failed(&error))?;
        self.acked.send_replace(progress.lengths);
        self.context.feed.output(self.open.attempt, progress.lengths);
        Ok(progress.lengths)
    }

    fn failed(&self, error: &OutputError) -> Up {
        let attempt = self.open.attempt;
        match error {
            OutputError::Gap { .. } => {
                tracing::warn!(%attempt, %error, "output does not continue");
                Up::Broken(Some(StreamCode::BadFrame))
            }
            OutputError::OverCap { .. } => {
                tracing::warn!(%attempt, %error, "an agent does not keep to the limit on output");
                Up::Refused(refuse(error.to_string(), false))
            }
            OutputError::Disk(_) => {
                tracing::error!(%attempt, %error, "output cannot be stored");
                Up::Refused(refuse(error.to_string(), true))
            }
        }
    }

    /// What arrived before a stream broke is kept: the next one goes on from there.
    async fn broken(&self, error: &ReadError) -> Up {
        tracing::debug!(attempt = %self.open.attempt, %error, "attempt stream");
        match self.sync().await {
            Ok(_) => Up::Broken(error.stream_code()),
            Err(ended) => ended,
        }
    }

    /// The agent has sent all there is.
    async fn complete(&self, all: &OutputEnd, stored: OutputLengths) -> Result<(), Up> {
        if stored.stdout != all.stdout || stored.stderr != all.stderr {
            tracing::warn!(attempt = %self.open.attempt, ?all, ?stored, "the end of output does not fit what came");
            return Err(Up::Broken(Some(StreamCode::BadFrame)));
        }
        if all.dropped > 0 {
            self.note_dropped(all.dropped).await.map_err(|error| self.failed(&error))?;
        }
        let stored = OutputLengths { dropped: all.dropped, ..stored };
        let (attempt, fence) = (self.open.attempt, self.open.fence);
        // An error means that the engine has stopped; the agent will come again.
        let _ = self.context.services.engine.tell(Command::OutputStored { attempt, fence, stored }).await;
        Ok(())
    }

    /// Once, even if the agent says its end again on a later stream.
    async fn note_dropped(&self, dropped: u64) -> Result<(), OutputError> {
        let records = self.log.sync().await?.records;
        let last = match records.checked_sub(1) {
            Some(last) => self.log.read(last, 1).await?.pop(),
            None => None,
        };
        if last.is_some_and(|record| record.stream == OutputStream::Note && record.index > 0) {
            return Ok(());
        }
        self.log.note(wall_now(), &format!("{dropped} bytes of output over the limit were dropped\n"))?;
        self.log.sync().await?;
        Ok(())
    }
}

/// Acknowledgements and input. `None` when there is nothing more to send; otherwise how the stream ended.
async fn downward(
    context: &Context,
    job: JobId,
    writer: &mut Writer,
    mut acks: watch::Receiver<OutputLengths>,
    input: Option<(InputSpool, u64)>,
) -> Option<Up> {
    let mut pump = input.map(|(spool, from)| Pump { spool, from, alone_since: Instant::now() });
    loop {
        let next = async {
            match &mut pump {
                Some(pump) => pump.next(context, job).await,
                None => std::future::pending().await,
            }
        };
        let message: ToAgent = tokio::select! {
            biased;
            changed = acks.changed() => {
                if changed.is_err() {
                    return None;
                }
                let stored = *acks.borrow_and_update();
                OutputAck { stdout: stored.stdout, stderr: stored.stderr }.into()
            }
            next = next => match next {
                Ok(Piece::Data(offset, data)) => InputChunk { offset, data }.into(),
                Ok(Piece::End(offset)) => {
                    pump = None;
                    InputEnd { offset }.into()
                }
                Err(error) => {
                    fail_input(context, job, &error).await;
                    pump = None;
                    continue;
                }
            },
        };
        if writer.write(&message).await.is_err() {
            return Some(Up::Broken(None));
        }
    }
}

/// Why there will be no more input.
#[derive(Debug, thiserror::Error)]
enum PumpError {
    /// Nobody has been there to send it for [`INPUT_SILENCE_MAX`].
    #[error("standard input was not ended, and its client has been away for too long")]
    Abandoned,
    /// The spool.
    #[error(transparent)]
    Spool(#[from] InputError),
}

enum Piece {
    Data(u64, Data),
    End(u64),
}

/// Reads the spool and waits for more.
struct Pump {
    spool: InputSpool,
    from: u64,
    /// Since when nobody is there to send more.
    alone_since: Instant,
}

impl Pump {
    /// The next piece. Safe to cancel: the offset moves only with a piece that is handed out.
    async fn next(&mut self, context: &Context, job: JobId) -> Result<Piece, PumpError> {
        loop {
            let progress = self.spool.stored();
            if self.from < progress.length {
                let bytes = self.spool.read(self.from, CHUNK_BYTES_MAX).await?;
                let offset = self.from;
                self.from += bytes.len() as u64;
                self.alone_since = Instant::now();
                let data = Data::new(bytes).map_err(|error| InputError::Disk(error.to_string()))?;
                return Ok(Piece::Data(offset, data));
            }
            if progress.done {
                return Ok(Piece::End(progress.length));
            }
            match tokio::time::timeout(INPUT_CHECK, self.spool.wait_beyond(self.from)).await {
                Ok(_) => self.alone_since = Instant::now(),
                Err(_) if context.input_writers.any(job) => self.alone_since = Instant::now(),
                Err(_) if self.alone_since.elapsed() >= INPUT_SILENCE_MAX => return Err(PumpError::Abandoned),
                Err(_) => {}
            }
        }
    }
}

async fn fail_input(context: &Context, job: JobId, error: &PumpError) {
    tracing::warn!(%job, %error, "standard input cannot be completed");
    let message = Text::cut(error.to_string());
    let _ = context.services.engine.tell(Command::InputFailed { job, message }).await;
}
