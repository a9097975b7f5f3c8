//! A container's output, read from the engine's log: the one source, so that nothing is lost when a reader breaks off.
//!
//! The reader counts each byte of both streams ([`Cursor`]). When a connection breaks, or a new agent goes on, it asks for
//! the log again from the second of the last mark on, finds the mark's message, and counts on, passing over what it has
//! already handed out. When the message is not there any more the log has been rotated away under it: output is lost, and
//! that is said, never hidden.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use modchain_types::AttemptId;
use modchain_wire::agent::OutputStream;
use tokio::sync::{mpsc, watch};

use super::cursor::{Cursor, Position};
use super::engine::{Engine, Trouble};
use crate::executor::{ExecutorEvent, OUTPUT_PIECE_BYTES_MAX};

/// Pause before a log that broke off is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// Times that the log of an ended container is asked for, one failure after the other, before its rest counts as lost.
const FAILURES_MAX: u32 = 60;

/// Longest silence of a followed log after the container's end. Then the rest is read without following.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Output from which on a log may have been rotated while it was followed. A log file is 16 MiB, with its own headers in it.
const ROTATES_FROM: u64 = 8 << 20;

/// Log, headers included, that is whole for sure: three of its four files.
const WHOLE_UP_TO: u64 = 48 << 20;

/// What the engine adds to a message in its file, at most.
const MESSAGE_OVERHEAD: u64 = 256;

/// Bytes of a message's time: `2006-01-02T15:04:05.000000000Z` and a space.
const TIME_BYTES: usize = 31;

/// Output is gone that nobody has taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

/// Reads the output of one container.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) attempt: AttemptId,
    pub(super) cursor: Cursor,
    /// Whether no more output is kept anyway.
    pub(super) full: bool,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    /// Becomes true when the container has ended.
    pub(super) ended: watch::Receiver<bool>,
}

/// How one reading of the log came to its end.
enum Pass {
    /// With the log's end.
    Whole,
    /// Something broke off.
    Broken,
    /// Nobody listens.
    Deaf,
}

impl Log {
    /// Hands out all output until the container has ended and its log is read to the end. Never returns while the container
    /// runs, unless output is lost or nobody listens.
    pub(super) async fn read(mut self) -> Result<(), Lost> {
        let mut failures = 0;
        loop {
            let ended = *self.ended.borrow();
            match self.pass(!ended).await? {
                Pass::Deaf => return Ok(()),
                Pass::Whole if ended => break,
                Pass::Whole => {
                    // The engine says first that the output is over, and then that the container is.
                    tokio::select! {
                        // The sender lives as long as this reader's owner.
                        _ = self.ended.wait_for(|ended| *ended) => {}
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                    failures = 0;
                }
                Pass::Broken => {
                    failures += u32::from(ended);
                    if failures > FAILURES_MAX {
                        return self.lost("the container engine does not give out its log any more");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        self.check_whole().await
    }

    /// One reading of the log, from the last mark on.
    async fn pass(&mut self, follow: bool) -> Result<Pass, Lost> {
        let Ok((docker, _)) = self.engine.reach().await else { return Ok(Pass::Broken) };
        let mark = self.cursor.mark;
        if mark.is_none() && self.cursor.position != Position::default() {
            // No place to go on from: only a log that is whole can be counted from its beginning.
            match self.measure().await {
                Ok(bytes) if bytes <= WHOLE_UP_TO || self.full => {}
                Ok(_) => return self.lost("the place in the log was lost, and its beginning is gone").map(|()| Pass::Deaf),
                Err(_) => return Ok(Pass::Broken),
            }
        }
        let since = mark.map_or(0, |mark| i32::try_from(mark.at.div_euclid(1_000_000_000)).unwrap_or(i32::MAX));
        let mut messages = Box::pin(docker.logs(&self.name, Some(options(follow, since))).map(message));
        let mut seeking = mark;
        let mut at = mark.map(|mark| mark.before).unwrap_or_default();
        let mut ahead = None;
        loop {
            let next = match ahead.take() {
                Some(next) => Some(next),
                None => self.next(&mut messages, follow).await,
            };
            let message = match next {
                None if seeking.is_some() && !self.full => {
                    return self.lost("the container's log has been rotated").map(|()| Pass::Deaf);
                }
                None => return Ok(Pass::Whole),
                Some(Ok(message)) => message,
                Some(Err(trouble)) => {
                    let trouble = self.engine.trouble(trouble).await;
                    if trouble.is_missing() {
                        return self.lost("somebody else removed the container").map(|()| Pass::Deaf);
                    }
                    tracing::debug!(attempt = %self.attempt, %trouble, "a container's log broke off");
                    return Ok(Pass::Broken);
                }
            };
            if let Some(mark) = seeking {
                if message.stream != mark.stream || message.at < mark.at {
                    self.cursor.passed(message.stream, message.at);
                    continue;
                }
                if message.at > mark.at {
                    if !self.full {
                        return self.lost("the container's log has been rotated").map(|()| Pass::Deaf);
                    }
                    at = self.cursor.position;
                }
                seeking = None;
            }
            let (stream, time) = (message.stream, message.at);
            let length = message.bytes.len() as u64;
            let offset = *at.of(stream);
            *at.of(stream) += length;
            let known = self.cursor.position.of(stream).saturating_sub(offset).min(length);
            if known == length {
                self.cursor.passed(stream, time);
                continue;
            }
            let mut bytes = message.bytes.slice(usize::try_from(known).expect("less than a message")..);
            if known == 0 {
                self.cursor.take(stream, time, length).await;
            } else {
                self.cursor.passed(stream, time);
                *self.cursor.position.of(stream) += length - known;
            }
            // What is there already goes together: a job that prints short lines must not cost an event for each.
            if bytes.len() < OUTPUT_PIECE_BYTES_MAX / 2 {
                let mut joined = BytesMut::from(&*bytes);
                while let Some(next) = messages.next().now_or_never().flatten() {
                    match next {
                        Ok(next)
                            if next.stream == stream
                                && joined.len() + next.bytes.len() <= OUTPUT_PIECE_BYTES_MAX
                                && *at.of(stream) == *self.cursor.position.of(stream) =>
                        {
                            let length = next.bytes.len() as u64;
                            *at.of(stream) += length;
                            self.cursor.take(stream, next.at, length).await;
                            joined.extend_from_slice(&next.bytes);
                        }
                        other => {
                            ahead = Some(other);
                            break;
                        }
                    }
                }
                bytes = joined.freeze();
            }
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(OUTPUT_PIECE_BYTES_MAX));
                if self.events.send(ExecutorEvent::Output { stream, bytes: piece }).await.is_err() {
                    return Ok(Pass::Deaf);
                }
            }
        }
    }

    /// The next message. After the container's end a followed log may be silent only so long: some engines forget to end it.
    async fn next<S>(&mut self, messages: &mut S, follow: bool) -> Option<S::Item>
    where
        S: Stream + Unpin,
    {
        if !follow {
            return messages.next().await;
        }
        if !*self.ended.borrow() {
            tokio::select! {
                biased;
                next = messages.next() => return next,
                _ = self.ended.wait_for(|ended| *ended) => {}
            }
        }
        tokio::time::timeout(LAST_WORDS_MAX, messages.next()).await.unwrap_or(None)
    }

    /// Looks, when the log may have been rotated under its reader, whether all that is in it was handed out.
    async fn check_whole(&mut self) -> Result<(), Lost> {
        let Position { stdout, stderr } = self.cursor.position;
        let Some(first) = self.cursor.first.filter(|_| stdout + stderr >= ROTATES_FROM && !self.full) else {
            return Ok(());
        };
        let Ok((docker, _)) = self.engine.reach().await else {
            return self.lost("the container engine went away before its log was checked");
        };
        let mut messages = Box::pin(docker.logs(&self.name, Some(options(false, 0))).map(message));
        let mut found = false;
        let mut at = first.before;
        while let Some(next) = messages.next().await {
            let Ok(message) = next else { return self.lost("the container's log cannot be checked") };
            found |= message.stream == first.stream && message.at == first.at;
            if !found && message.stream == first.stream && message.at > first.at {
                // Its beginning is gone: more was printed than a log holds, and more than is ever kept of a job.
                return Ok(());
            }
            if found {
                *at.of(message.stream) += message.bytes.len() as u64;
            }
        }
        if found && at == self.cursor.position {
            return Ok(());
        }
        self.lost("the container's log was rotated faster than it was read")
    }

    /// Bytes of the whole log as it is now, headers included.
    async fn measure(&self) -> Result<u64, Trouble> {
        let (docker, _) = self.engine.reach().await?;
        let mut messages = Box::pin(docker.logs(&self.name, Some(options(false, 0))).map(message));
        let mut bytes = 0;
        while let Some(message) = messages.next().await {
            bytes += message?.bytes.len() as u64 + MESSAGE_OVERHEAD;
        }
        Ok(bytes)
    }

    fn lost(&self, why: &str) -> Result<(), Lost> {
        tracing::warn!(attempt = %self.attempt, why, "output is lost");
        Err(Lost(format!("output lost: {why}")))
    }
}

/// One message of a log.
#[derive(Debug)]
struct Message {
    stream: OutputStream,
    /// Nanoseconds since 1970.
    at: i64,
    bytes: Bytes,
}

fn options(follow: bool, since: i32) -> LogsOptions {
    LogsOptions {
        follow,
        stdout: true,
        stderr: true,
        since,
        until: 0,
        timestamps: true,
        tail: "all".into(),
    }
}

fn message(item: Result<LogOutput, bollard::errors::Error>) -> Result<Message, Trouble> {
    let (stream, mut bytes) = match item? {
        LogOutput::StdOut { message } => (OutputStream::Out, message),
        LogOutput::StdErr { message } => (OutputStream::Err, message),
        LogOutput::StdIn { .. } | LogOutput::Console { .. } => {
            return Err(Trouble::Unfit("the container's log is not one of two streams".into()));
        }
    };
    let at = bytes
        .get(..TIME_BYTES)
        .and_then(|time| std::str::from_utf8(time).ok()?.strip_suffix(' ')?.parse::<jiff::Timestamp>().ok())
        .ok_or_else(|| Trouble::Unfit("the container's log has a message without a time".into()))?;
    let at = i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
    Ok(Message { stream, at, bytes: bytes.split_off(TIME_BYTES) })
}
