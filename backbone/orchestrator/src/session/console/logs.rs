//! A job's output, read from disk at the reader's own pace.
//!
//! Nothing waits for a reader: each has its own task, its pages come from the output store, and QUIC's windows hold them
//! back when it does not read.

use modchain_core::Control;
use modchain_link::Priority;
use modchain_types::{AttemptId, JobId};
use modchain_wire::Data;
use modchain_wire::agent::OutputStream;
use modchain_wire::console::{CaughtUp, LogChunk, LogCursor, LogEnd, LogsOpen};
use modchain_wire::view::JobView;

use super::{ConsoleSession, Failure, Reader, Writer, refuse};
use crate::serve::Services;
use crate::store::output::{OutputLog, OutputProgress, OutputRecord};

/// Bytes read from disk at once: what one reader holds in memory.
const PAGE_BYTES: usize = 256 * 1024;

impl ConsoleSession {
    pub(super) async fn logs(&self, writer: &mut Writer, reader: &mut Reader, open: LogsOpen) -> Result<(), Failure> {
        let job = self.resolve(&open.job).await?;
        let _reading = self.context.services.retention.reading(job);
        self.check_kept(job, &open.job).await?;
        writer.set_priority(Priority::JobOutput);
        let unwanted = writer.unwanted();
        // Kept until the end: what is asked of it below would read it through once more.
        let _newest = tokio::select! {
            sent = self.send_logs(writer, job, &open) => sent?,
            failure = self.hung_up(reader, unwanted) => return Err(failure),
        };
        let view = self.context.feed.job(&self.actor, job).await?.ok_or_else(|| self.no_job(&open.job))?;
        self.tell_what_is_missing(writer, &view).await?;
        Ok(writer.write(&LogEnd { job: view }.into()).await?)
    }

    /// Output that was removed because it was old or too much is refused: nothing would look like all of it. What printed nothing
    /// has nothing to be removed. A job can be forgotten since it was found by its name.
    async fn check_kept(&self, job: JobId, name: &str) -> Result<(), Failure> {
        let Services { engine, retention, .. } = &self.context.services;
        let standing = move |control: &Control, _| {
            let finished = control.ended(job).map(|ended| ended.finished);
            (finished.is_some() || control.job(job).is_some(), finished)
        };
        let (known, finished) = engine.query(standing).await?;
        if !known {
            return Err(self.no_job(name).into());
        }
        if !finished.is_some_and(|finished| retention.is_removed(finished)) {
            return Ok(());
        }
        match self.context.feed.job(&self.actor, job).await? {
            Some(view) if view.attempts.len() <= 1 && view.output.stdout + view.output.stderr == 0 => Ok(()),
            Some(_) | None => Err(refuse::output_removed(job, &retention.rule()).into()),
        }
    }

    /// Output that its node reported and that never came here, or is here no more, is not passed over in silence.
    async fn tell_what_is_missing(&self, writer: &mut Writer, view: &JobView) -> Result<(), Failure> {
        let Some(last) = view.attempts.last().filter(|_| view.state.is_ended()) else { return Ok(()) };
        let attempt = AttemptId { job: view.id, number: last.number };
        let log = self.context.services.output.open(attempt).await.map_err(refuse::by_output)?;
        let OutputProgress { records, lengths: stored } = log.stored();
        let missing =
            view.output.stdout.saturating_sub(stored.stdout) + view.output.stderr.saturating_sub(stored.stderr);
        if missing == 0 {
            return Ok(());
        }
        let note = format!("{missing} bytes of output are missing here: they were never stored, or were removed\n");
        let cursor = LogCursor { attempt: last.number, records };
        let (at, data) = (view.ended_at.unwrap_or(view.created_at), Data::new(note).map_err(refuse::internal)?);
        Ok(writer.write(&LogChunk { cursor, stream: OutputStream::Note, offset: 0, at, data }.into()).await?)
    }

    /// All attempts in order, and with `follow` on until the job has ended. Tells the log of the last one, open.
    async fn send_logs(&self, writer: &mut Writer, job: JobId, open: &LogsOpen) -> Result<Option<OutputLog>, Failure> {
        let (feed, output) = (&self.context.feed, &self.context.services.output);
        let mut cursor = open.from.unwrap_or(LogCursor { attempt: 1, records: 0 });
        let mut caught_up = false;
        // Kept over the turns: a log that nobody has open is read from its start when it is opened.
        let mut newest = None;
        loop {
            // Asked before reading: what is stored when a job has ended, or has moved on, is all there will be.
            let standing = feed.standing(job).await?.ok_or_else(|| self.no_job(&open.job))?;
            let upto = feed.upto().await?;
            while cursor.attempt <= standing.attempt {
                let attempt = AttemptId { job, number: cursor.attempt };
                let log = output.open(attempt).await.map_err(refuse::by_output)?;
                send_records(writer, &log, &mut cursor, open).await?;
                if cursor.attempt == standing.attempt {
                    newest = Some(log);
                    break;
                }
                cursor = LogCursor { attempt: cursor.attempt + 1, records: 0 };
            }
            if !caught_up {
                caught_up = true;
                writer.write(&CaughtUp { upto }.into()).await?;
            }
            if standing.ended || !open.follow {
                return Ok(newest);
            }
            let more = async {
                match &newest {
                    Some(log) => drop(log.wait_beyond(cursor.records).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = more => {}
                changed = feed.standing_after(job, standing.revision) => {
                    changed?;
                }
            }
        }
    }
}

/// Everything that is stored from the cursor on.
async fn send_records(
    writer: &mut Writer,
    log: &OutputLog,
    cursor: &mut LogCursor,
    open: &LogsOpen,
) -> Result<(), Failure> {
    loop {
        let page = log.read(cursor.records, PAGE_BYTES).await.map_err(refuse::by_output)?;
        if page.is_empty() {
            return Ok(());
        }
        for record in page {
            let OutputRecord { index, stream, offset, at, data } = record;
            cursor.records = index + 1;
            if open.since.is_some_and(|since| at < since) {
                continue;
            }
            let data = Data::new(data).map_err(refuse::internal)?;
            writer.queue(&LogChunk { cursor: *cursor, stream, offset, at, data }.into())?;
        }
        writer.flush().await?;
    }
}
