//! The stream of one attempt: its output up, from where the orchestrator's disk ends; its input down, from where the job has
//! read. Both directions go on their own, so a job that does not read holds up nothing that it prints.

use std::sync::Arc;
use std::time::Duration;

use modchain_link::{Backoff, Connection, FrameReader, FrameWriter, Priority};
use modchain_types::{Chunk, OutputLengths};
use modchain_wire::agent::{AttemptOpen, AttemptResume, FromAgent, OutputChunk, OutputEnd, ToAgent};
use tokio::sync::{Semaphore, watch};

use super::chain;
use crate::engine::{Serving, StdinFeed};
use crate::spool::{OutputRecord, Spool, SpoolReader};

/// Bytes of output that are read from the disk at once: a few chunks, so that memory stays flat and the disk is not asked for
/// every line.
const READ_BYTES: usize = 256 * 1024;

/// Longest wait for the orchestrator to say where its disk ends.
const RESUME_MAX: Duration = Duration::from_secs(30);

/// Longest wait for the orchestrator to end the stream after the end of the output.
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// One attempt over one connection.
pub(super) struct AttemptStream {
    pub(super) connection: Connection,
    /// How many may be open.
    pub(super) places: Arc<Semaphore>,
    pub(super) serving: Serving,
}

/// How a stream ended.
enum End {
    /// All that there ever will be is on the orchestrator's disk.
    Done,
    /// The orchestrator does not want it.
    Refused(String),
    /// It broke, or there is something to try again.
    Again(String),
}

impl AttemptStream {
    /// Serves the attempt until everything is on the orchestrator's disk, opening streams as they are needed.
    pub(super) async fn run(mut self) {
        let attempt = self.serving.attempt;
        let mut backoff = Backoff::new();
        loop {
            if !self.is_needed().await {
                return;
            }
            match self.serve_once().await {
                End::Done => return,
                End::Refused(why) => {
                    tracing::info!(%attempt, why, "the orchestrator does not take the attempt's stream");
                    return;
                }
                End::Again(_) if self.connection.close_reason().is_some() => return,
                End::Again(why) => {
                    tracing::debug!(%attempt, why, "the attempt's stream is opened again");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Waits until there is something to send or to receive; `false` when there never will be.
    async fn is_needed(&mut self) -> bool {
        let spool = &mut self.serving.spool;
        loop {
            let state = spool.state();
            let printed = state.lengths.stdout + state.lengths.stderr > 0;
            let reads = !state.ended && self.serving.stdin.as_ref().is_some_and(|feed| feed.wants_from().is_some());
            if printed || reads {
                return true;
            }
            if !spool.changed(state).await {
                return false;
            }
        }
    }

    async fn serve_once(&self) -> End {
        let Ok(_place) = self.places.acquire().await else { return End::Again("the session ends".into()) };
        match self.exchange().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn exchange(&self) -> Result<End, End> {
        let broken = |error: &dyn std::error::Error| End::Again(chain(error));
        let Serving { attempt, fence, spool, stdin } = &self.serving;
        let (mut up, mut down) =
            self.connection.open_bi::<FromAgent, ToAgent>().await.map_err(|error| broken(&error))?;
        up.set_priority(Priority::JobOutput);
        let input_from = match spool.state().ended {
            true => None,
            false => stdin.as_ref().and_then(StdinFeed::wants_from),
        };
        let open = AttemptOpen { attempt: *attempt, fence: *fence, input_from };
        up.write(&open.into()).await.map_err(|error| broken(&error))?;
        let resume = tokio::time::timeout(RESUME_MAX, down.read())
            .await
            .map_err(|_| End::Again("the orchestrator did not answer".into()))?;
        let AttemptResume { stdout, stderr } = match resume.map_err(|error| broken(&error))? {
            Some(ToAgent::AttemptResume(resume)) => resume,
            Some(other) => return Err(unexpected(other)),
            None => return Err(End::Again("the stream ended".into())),
        };
        let (acked_in, acked) = watch::channel(OutputLengths { stdout, stderr, dropped: 0 });
        let sending = send_output(spool.clone(), spool.reader(stdout, stderr), up);
        let receiving = receive(down, stdin.clone(), acked_in);
        tokio::pin!(sending, receiving);
        let sent = tokio::select! {
            sent = &mut sending => sent?,
            ended = &mut receiving => {
                ended?;
                return Err(End::Again("the stream ended early".into()));
            }
        };
        // The orchestrator ends the stream when it has dealt with the end of the output. Letting go of it sooner could cost
        // just that message, because a stream is reset in both directions.
        tokio::time::timeout(CLOSING_MAX, &mut receiving)
            .await
            .map_err(|_| End::Again("the orchestrator did not end the stream".into()))??;
        match acked.borrow().covers(&sent) {
            true => Ok(End::Done),
            false => Err(End::Again("the stream ended before everything was acknowledged".into())),
        }
    }
}

/// Sends what there is and what comes, until the end of the output; gives how much there was in all.
async fn send_output(
    mut spool: Spool,
    mut reader: SpoolReader,
    mut up: FrameWriter<FromAgent>,
) -> Result<OutputLengths, End> {
    let broken = |error: &dyn std::error::Error| End::Again(chain(error));
    loop {
        // Looked at before reading: what comes in between wakes the wait below.
        let state = spool.state();
        loop {
            let records;
            (reader, records) = read_on_disk(reader).await.map_err(|error| broken(&error))?;
            if records.is_empty() {
                break;
            }
            for OutputRecord { stream, offset, at, data } in records {
                let data = Chunk::new(data).expect("a record fits a chunk");
                up.queue(&OutputChunk { stream, offset, at, data }.into()).map_err(|error| broken(&error))?;
            }
            up.flush().await.map_err(|error| broken(&error))?;
        }
        if state.ended {
            let OutputLengths { stdout, stderr, dropped } = state.lengths;
            up.write(&OutputEnd { stdout, stderr, dropped }.into()).await.map_err(|error| broken(&error))?;
            up.finish().await.map_err(|error| broken(&error))?;
            return Ok(state.lengths);
        }
        if !spool.changed(state).await {
            // The runner is gone without an end: the agent is stopping.
            return std::future::pending().await;
        }
    }
}

/// Takes input and acknowledgements until the orchestrator ends the stream.
async fn receive(
    mut down: FrameReader<ToAgent>,
    stdin: Option<StdinFeed>,
    acked: watch::Sender<OutputLengths>,
) -> Result<(), End> {
    loop {
        match down.read().await.map_err(|error| End::Again(chain(&error)))? {
            Some(ToAgent::OutputAck(ack)) => {
                acked.send_replace(OutputLengths { stdout: ack.stdout, stderr: ack.stderr, dropped: 0 });
            }
            Some(ToAgent::InputChunk(chunk)) => {
                if let Some(feed) = &stdin
                    && !feed.give(chunk.offset, chunk.data.into_bytes()).await
                {
                    return Err(End::Again("a piece of the input is missing".into()));
                }
            }
            Some(ToAgent::InputEnd(end)) => {
                if let Some(feed) = &stdin
                    && !feed.end(end.offset).await
                {
                    return Err(End::Again("the end of the input came too early".into()));
                }
            }
            Some(other) => return Err(unexpected(other)),
            None => return Ok(()),
        }
    }
}

fn unexpected(frame: ToAgent) -> End {
    match frame {
        ToAgent::Refused(refused) if refused.retryable => End::Again(refused.why.into_string()),
        ToAgent::Refused(refused) => End::Refused(refused.why.into_string()),
        _ => End::Again("a frame came on the attempt's stream that does not belong there".into()),
    }
}

async fn read_on_disk(mut reader: SpoolReader) -> std::io::Result<(SpoolReader, Vec<OutputRecord>)> {
    tokio::task::spawn_blocking(move || {
        let records = reader.read(READ_BYTES)?;
        Ok((reader, records))
    })
    .await
    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
