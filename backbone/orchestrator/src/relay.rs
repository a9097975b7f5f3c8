//! One attempt's stream: output up to the store, input down from the spool.
//!
//! The agent may forget output only once it is synced here, so an acknowledgement follows a sync. While it goes on, more is
//! received, and the next sync covers all of that. Output goes up on one task and acknowledgements and input go down on another: a job that does
//! not read its input must not hold its output up.
//!
//! A node is not believed: an attempt that is not live on this node under this fence gets no stream, offsets must continue,
//! and the cap on output holds here too.
//!
//! Standard input that is not at its end, and that nobody has been there to send for [`Patience::INPUT`], is given up: the
//! job is told that it cannot be completed.

use std::time::Duration;

use futures::FutureExt;
use modchain_core::{Command, Control};
use modchain_link::{FrameReader, FrameWriter, Priority, ReadError, StreamCode};
use modchain_types::{AttemptId, Fence, Input, JobId, NodeId, OutputLengths, Text};
use modchain_wire::agent::{
    AttemptOpen, AttemptResume, InputChunk, InputEnd, OutputAck, OutputChunk, OutputEnd, OutputStream, StreamRefused,
};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, Sentence, ToAgent};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::EngineGone;
use crate::session::{AgentSession, Context, Counts, wall_now};
use crate::store::input::{InputError, InputSpool};
use crate::store::output::{OutputError, OutputLog};

/// Longest wait for an agent to take the last word on a stream.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes taken and not synced, at most: while one half is synced the other one comes. It bounds the memory for one attempt and
/// what an acknowledgement waits for.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// How often the engine hears that more output comes: a result that waits for it must not be taken for one whose output does not.
const COMES_TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a chunk costs beside its bytes, about.
const CHUNK_BYTES_EXTRA: u64 = 64;

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
        Ok(Some(granted)) => match begin(context, session, attempt).await {
            Ok(log) => return relay(session, writer, reader, open, granted, log).await,
            Err(error) => refuse(error.to_string(), true),
        },
        Ok(None) => refuse("this attempt does not run here under this fence", false),
        Err(gone) => refuse(gone.to_string(), true),
    };
    reader.stop(StreamCode::Refused);
    say_last(&mut writer, refusal.into()).await;
}

/// The last message of a stream. An agent that does not take it is not there to hear it.
async fn say_last(writer: &mut Writer, message: ToAgent) {
    let said = async {
        writer.write(&message).await?;
        writer.finish().await
    };
    let _ = timeout(LAST_WORD_TIMEOUT, said).await;
}

fn refuse(why: impl Into<String>, retryable: bool) -> StreamRefused {
    StreamRefused { why: Sentence::cut(why), retryable }
}

async fn grant(
    context: &Context,
    node: NodeId,
    attempt: AttemptId,
    fence: Fence,
) -> Result<Option<Granted>, EngineGone> {
    let question = move |control: &Control, _| {
        let job = control.job(attempt.job)?;
        job.placement_of(attempt, fence).filter(|placement| placement.node == node)?;
        Some(Granted { input: job.spec.input, output_bytes_max: job.spec.limits.output_bytes_max })
    };
    context.services.engine.query(question).await
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
            Ok(spool) => {
                let writers = context.input_writers.clone();
                Some(Pump::new(spool, writers, open.attempt.job, from, Patience::INPUT))
            }
            Err(error) => {
                reader.stop(StreamCode::Refused);
                return say_last(&mut writer, no_input(open.attempt, &error).into()).await;
            }
        },
        (Input::Stream, None) | (Input::None, Some(_) | None) => None,
    };
    let (acked, acks) = watch::channel(stored);
    let up = Upward { context, open: &open, log: &log, cap: granted.output_bytes_max, acked };
    let ended = {
        let down = downward(context, open.attempt, &mut writer, acks, input);
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
            say_last(&mut writer, OutputAck { stdout: stored.stdout, stderr: stored.stderr }.into()).await;
        }
        Up::Refused(refusal) => {
            reader.stop(StreamCode::Refused);
            say_last(&mut writer, refusal.into()).await;
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
        let standing = match context.feed.standing_after(attempt.job, revision).await {
            Ok(Some(standing)) => standing,
            Ok(None) => return,
            // The program is about to end; that says nothing about the attempt.
            Err(_) => return std::future::pending().await,
        };
        revision = standing.revision;
        let current = standing.attempt == attempt.number && !standing.ended;
        // The feed may be a moment behind an assignment; the engine is not.
        if !current && matches!(grant(context, node, attempt, fence).await, Ok(None)) {
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
        // Bytes that came, and those of them that are synced or being synced.
        let (mut taken, mut covered) = (0, 0);
        let mut told = Instant::now();
        let mut syncing = None;
        let mut end = None;
        let mut closed = false;
        loop {
            if syncing.is_none() && taken > covered {
                covered = taken;
                syncing = Some(Box::pin(self.sync()));
            }
            if syncing.is_none() && (end.is_some() || closed) {
                // Once more, so that the agent hears of what an earlier stream has brought, too.
                let stored = match self.sync().await {
                    Ok(stored) => stored,
                    Err(ended) => return ended,
                };
                if let Some(all) = end.take()
                    && let Err(ended) = self.complete(&all, stored).await
                {
                    return ended;
                }
                if closed {
                    return Up::Closed;
                }
            }
            let wait = async {
                match &mut syncing {
                    Some(syncing) => syncing.await,
                    None => std::future::pending().await,
                }
            };
            let has_room = taken - covered < UNSYNCED_BYTES_MAX / 2;
            let mut next = tokio::select! {
                done = wait => {
                    syncing = None;
                    if let Err(ended) = done {
                        return ended;
                    }
                    if told.elapsed() >= COMES_TOLD_EVERY {
                        told = Instant::now();
                        let (attempt, fence) = (self.open.attempt, self.open.fence);
                        // An error means that the engine has stopped; the agent will come again.
                        let _ = self.context.services.engine.tell(Command::OutputComes { attempt, fence }).await;
                    }
                    continue;
                }
                next = reader.read(), if has_room && end.is_none() && !closed => next,
            };
            // What has arrived already shares one sync.
            loop {
                match next {
                    Ok(Some(FromAgent::OutputChunk(chunk))) => {
                        taken += chunk.data.len() as u64 + CHUNK_BYTES_EXTRA;
                        if let Err(ended) = self.append(chunk) {
                            // A sync that failed has taken back what this would follow: then its reason counts.
                            return match syncing {
                                Some(syncing) => syncing.await.err().unwrap_or(ended),
                                None => ended,
                            };
                        }
                    }
                    Ok(Some(FromAgent::OutputEnd(all))) => end = Some(all),
                    Ok(Some(_)) => return Up::Broken(Some(StreamCode::Refused)),
                    Ok(None) => closed = true,
                    Err(error) => {
                        // Not beside another sync: one that waits for its turn and is left alone is given it, and keeps it.
                        let failed = match syncing {
                            Some(syncing) => syncing.await.err(),
                            None => None,
                        };
                        return match failed {
                            Some(ended) => ended,
                            None => self.broken(&error).await,
                        };
                    }
                }
                if end.is_some() || closed || taken - covered >= UNSYNCED_BYTES_MAX / 2 {
                    break;
                }
                match reader.read().now_or_never() {
                    Some(more) => next = more,
                    None => break,
                }
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
            OutputError::Full => {
                tracing::warn!(%attempt, %error, "the agent keeps its output and comes again");
                Up::Refused(refuse(error.to_string(), true))
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
    attempt: AttemptId,
    writer: &mut Writer,
    mut acks: watch::Receiver<OutputLengths>,
    mut pump: Option<Pump>,
) -> Option<Up> {
    loop {
        let next = async {
            match &mut pump {
                Some(pump) => pump.next().await,
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
                Err(PumpError::Abandoned) => {
                    abandon_input(context, attempt.job).await;
                    pump = None;
                    continue;
                }
                Err(PumpError::Beyond) => {
                    tracing::warn!(%attempt, "an agent says that it has more of its input than there is");
                    return Some(Up::Broken(Some(StreamCode::BadFrame)));
                }
                Err(PumpError::Spool(error)) => return Some(Up::Refused(no_input(attempt, &error))),
            },
        };
        if writer.write(&message).await.is_err() {
            return Some(Up::Broken(None));
        }
    }
}

/// The spool cannot be read: our fault, so the agent is to come again and the job is none the worse.
fn no_input(attempt: AttemptId, error: &InputError) -> StreamRefused {
    tracing::error!(%attempt, %error, "standard input cannot be read");
    refuse(error.to_string(), true)
}

/// The job is told that its input will never be complete.
async fn abandon_input(context: &Context, job: JobId) {
    const WHY: &str = "standard input was not ended, and its client has been away for too long";
    tracing::warn!(%job, WHY);
    let _ = context.services.engine.tell(Command::InputFailed { job, message: Text::cut(WHY) }).await;
}

/// Why there is no next piece of input.
#[derive(Debug)]
enum PumpError {
    /// Nobody has been there to send it for too long.
    Abandoned,
    /// All of it is here, and is less than the agent says it has.
    Beyond,
    /// The spool.
    Spool(InputError),
}

#[derive(Debug)]
enum Piece {
    Data(u64, Data),
    End(u64),
}

/// How long a pump waits for a client that is away.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// So long input may be without a client that sends it, before it counts as never to be completed.
    alone_max: Duration,
    /// So often a waiting pump looks whether a client is there.
    look_every: Duration,
}

impl Patience {
    /// Long enough for a client's program to come back after its machine was restarted.
    const INPUT: Self = Self { alone_max: Duration::from_secs(5 * 60), look_every: Duration::from_secs(10) };
}

/// Reads the spool and waits for more. The agent may have more than there is, where the data was brought back from a copy: its
/// client sends that again, and nothing goes to the agent before.
struct Pump {
    spool: InputSpool,
    writers: Counts<JobId>,
    job: JobId,
    from: u64,
    patience: Patience,
    /// Since when nobody is there to send more.
    alone_since: Instant,
    /// When to look again whether somebody is. Kept here because waiting is cancelled by every acknowledgement.
    look_at: Instant,
}

impl Pump {
    fn new(spool: InputSpool, writers: Counts<JobId>, job: JobId, from: u64, patience: Patience) -> Self {
        let now = Instant::now();
        Self { spool, writers, job, from, patience, alone_since: now, look_at: now + patience.look_every }
    }

    /// The next piece. Safe to cancel: the offset moves only with a piece that is handed out.
    async fn next(&mut self) -> Result<Piece, PumpError> {
        loop {
            let progress = self.spool.stored();
            if self.from < progress.length {
                let bytes = self.spool.read(self.from, CHUNK_BYTES_MAX).await.map_err(PumpError::Spool)?;
                let offset = self.from;
                let next = offset + bytes.len() as u64;
                let data = Data::new(bytes).map_err(|error| PumpError::Spool(InputError::Disk(error.to_string())))?;
                (self.from, self.alone_since) = (next, Instant::now());
                return Ok(Piece::Data(offset, data));
            }
            if progress.done && progress.length < self.from {
                return Err(PumpError::Beyond);
            }
            if progress.done {
                return Ok(Piece::End(progress.length));
            }
            if timeout_at(self.look_at, self.spool.wait_beyond(self.from)).await.is_ok() {
                continue;
            }
            let now = Instant::now();
            self.look_at = now + self.patience.look_every;
            if self.writers.of(self.job) > 0 {
                self.alone_since = now;
            } else if now.duration_since(self.alone_since) >= self.patience.alone_max {
                return Err(PumpError::Abandoned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::input::InputStore;
    use bytes::Bytes;

    const JOB: JobId = JobId([3; 16]);
    const SHORT: Patience = Patience { alone_max: Duration::from_millis(400), look_every: Duration::from_millis(200) };

    #[tokio::test]
    async fn input_that_is_behind_its_agent_goes_on_where_the_agent_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = InputStore::at(dir.path()).expect("it opens").open(JOB).await.expect("it opens");
        spool.append(0, Bytes::from_static(b"a restored")).expect("it is taken");
        spool.sync().await.expect("it is synced");
        let pump = |from| Pump::new(spool.clone(), Counts::default(), JOB, from, SHORT);
        // Nobody sends it again.
        let alone = next_between_acks(&mut pump(14), Duration::from_secs(10)).await;
        assert!(matches!(alone, Some(Err(PumpError::Abandoned))), "{alone:?}");
        // Its client does, from where the spool is.
        let mut behind = Pump::new(spool.clone(), Counts::default(), JOB, 14, Patience::INPUT);
        spool.append(10, Bytes::from_static(b" c")).expect("it is taken");
        spool.sync().await.expect("it is synced");
        assert!(behind.next().now_or_never().is_none(), "the agent has this");
        spool.append(12, Bytes::from_static(b"opy")).expect("it is taken");
        spool.finish(15).expect("it is taken");
        spool.sync().await.expect("it is synced");
        assert!(matches!(behind.next().await, Ok(Piece::Data(14, data)) if *data == *b"y"));
        assert!(matches!(behind.next().await, Ok(Piece::End(15))));
        assert!(matches!(pump(16).next().await, Err(PumpError::Beyond)), "there is no more");
    }

    /// Asks for the next piece as a job does that prints all the while: each acknowledgement cancels the wait.
    async fn next_between_acks(pump: &mut Pump, within: Duration) -> Option<Result<Piece, PumpError>> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Ok(next) = timeout(Duration::from_millis(5), pump.next()).await {
                return Some(next);
            }
        }
        None
    }

    #[tokio::test]
    async fn input_without_a_client_is_given_up_after_a_while_even_if_the_job_prints_all_the_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = InputStore::at(dir.path()).expect("it opens").open(JOB).await.expect("it opens");
        let writers = Counts::default();
        let mut pump = Pump::new(spool.clone(), writers.clone(), JOB, 0, SHORT);
        let client = writers.enter(JOB);
        assert!(next_between_acks(&mut pump, 2 * SHORT.alone_max).await.is_none(), "a person may think");
        spool.append(0, Bytes::from_static(b"line")).expect("it is taken");
        spool.sync().await.expect("it is synced");
        // Before the pump begins to count, which it does with what it hands out.
        let left = Instant::now();
        assert!(matches!(pump.next().await, Ok(Piece::Data(0, data)) if *data == *b"line"));
        drop(client);
        let last = next_between_acks(&mut pump, Duration::from_secs(10)).await;
        assert!(matches!(last, Some(Err(PumpError::Abandoned))), "{last:?}");
        assert!(left.elapsed() >= SHORT.alone_max, "it might have come back");
    }
}
