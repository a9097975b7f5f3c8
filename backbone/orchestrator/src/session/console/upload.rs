//! What clients send at length: blobs and standard input.

use std::time::Duration;

use futures::FutureExt;
use modchain_core::{Command, Control};
use modchain_link::{Priority, ReadError};
use modchain_types::{Input, JobId, Text};
use modchain_wire::FromConsole;
use modchain_wire::console::{BlobPut, BlobStored, InputOpen, InputReady, InputStored, RefusalCode};

use super::{ConsoleSession, Failure, Reader, Writer, refuse};
use crate::store::blobs::Put;
use crate::store::input::{InputError, InputSpool};
use crate::store::space::Level;

/// Longest silence in the middle of a blob: a file does not think.
const BLOB_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Pieces of input taken before they are synced: 4 MiB.
const PIECES_PER_SYNC: usize = 64;

impl ConsoleSession {
    pub(super) async fn blob_put(&self, writer: &mut Writer, reader: &mut Reader, put: BlobPut) -> Result<(), Failure> {
        let services = &self.context.services;
        let begun = services.blobs.begin(&self.actor.account, put.digest, put.bytes).await.map_err(refuse::by_blobs)?;
        let mut blob = match begun {
            Put::Existing => {
                return Ok(writer.write(&BlobStored { digest: put.digest, existing: true }.into()).await?);
            }
            Put::Write(_) if services.engine.storage_low() => return Err(self.storage_full().into()),
            Put::Write(blob) => blob,
        };
        loop {
            let next = tokio::time::timeout(BLOB_SILENCE_MAX, reader.read()).await.map_err(|_| ReadError::Stalled)?;
            match next? {
                Some(FromConsole::BlobPiece(_)) if services.engine.space().level() == Level::Full => {
                    return Err(self.storage_full().into());
                }
                Some(FromConsole::BlobPiece(piece)) => {
                    blob.write(piece.data.into_bytes()).await.map_err(refuse::by_blobs)?;
                }
                Some(_) => return Err(refuse::invalid("only pieces of the blob may follow", "").into()),
                None => break,
            }
        }
        blob.finish().await.map_err(refuse::by_blobs)?;
        Ok(writer.write(&BlobStored { digest: put.digest, existing: false }.into()).await?)
    }

    /// Takes input from where the spool ends; the client may go away and come back.
    pub(super) async fn input(&self, writer: &mut Writer, reader: &mut Reader, open: InputOpen) -> Result<(), Failure> {
        writer.set_priority(Priority::JobOutput);
        let services = &self.context.services;
        let job = self.resolve(&open.job).await?;
        let ended =
            || refuse::refusal(RefusalCode::Conflict, format!("job {} has already ended", open.job.as_str()), "");
        let asked = services.engine.query(move |control: &Control, _| control.spec(job).map(|spec| spec.input));
        match asked.await? {
            Some(Input::Stream) => {}
            Some(Input::None) => {
                let message = format!("job {} reads no standard input", open.job.as_str());
                return Err(refuse::refusal(RefusalCode::Conflict, message, "submit it with --stdin").into());
            }
            None => return Err(ended().into()),
        }
        let _present = self.context.input_writers.enter(job);
        let spool = services.input.open(job).await.map_err(refuse::by_input)?;
        let stored = spool.stored();
        writer.write(&InputReady { offset: stored.length, done: stored.done }.into()).await?;
        if stored.done {
            return Ok(());
        }
        let over = async {
            let mut revision = 0;
            loop {
                match self.context.feed.standing_after(job, revision).await? {
                    Some(standing) if !standing.ended => revision = standing.revision,
                    Some(_) | None => return Err::<(), Failure>(ended().into()),
                }
            }
        };
        let taken = tokio::select! {
            taken = self.take_input(writer, reader, job, &spool) => taken,
            failed = over => failed,
        };
        if services.engine.query(move |control: &Control, _| control.job(job).is_none()).await? {
            // What came while the job ended may have made its file anew; nobody else removes it.
            let _ = spool.sync().await;
            services.input.remove(job).await.map_err(refuse::by_input)?;
        }
        taken
    }

    async fn take_input(
        &self,
        writer: &mut Writer,
        reader: &mut Reader,
        job: JobId,
        spool: &InputSpool,
    ) -> Result<(), Failure> {
        loop {
            if self.context.services.engine.storage_low() {
                return Err(self.storage_full().into());
            }
            let mut next = reader.read().await;
            let mut taken = 0;
            // What has arrived already shares one sync.
            let done = loop {
                match next? {
                    Some(FromConsole::InputPiece(piece)) => {
                        if let Err(error) = spool.append(piece.offset, piece.data.into_bytes()) {
                            return Err(self.input_refused(job, error).await);
                        }
                    }
                    Some(FromConsole::InputDone(all)) => {
                        spool.finish(all.offset).map_err(refuse::by_input)?;
                        break true;
                    }
                    Some(_) => return Err(refuse::invalid("only pieces of the input may follow", "").into()),
                    // Gone without its end: what came is kept, and the client may come back for the rest.
                    None => {
                        spool.sync().await.map_err(refuse::by_input)?;
                        return Ok(());
                    }
                }
                taken += 1;
                if taken == PIECES_PER_SYNC {
                    break false;
                }
                match reader.read().now_or_never() {
                    Some(more) => next = more,
                    None => break false,
                }
            };
            let stored = spool.sync().await.map_err(refuse::by_input)?;
            writer.write(&InputStored { offset: stored.length, done: stored.done }.into()).await?;
            if done {
                return Ok(());
            }
        }
    }

    /// Input over its cap can never be completed: the job is told.
    async fn input_refused(&self, job: JobId, error: InputError) -> Failure {
        match &error {
            InputError::OverCap => {
                let message = Text::cut(error.to_string());
                if let Err(gone) = self.context.services.engine.tell(Command::InputFailed { job, message }).await {
                    return gone.into();
                }
            }
            InputError::Gap { .. } | InputError::Ended { .. } | InputError::Full | InputError::Disk(_) => {}
        }
        refuse::by_input(error).into()
    }
}
