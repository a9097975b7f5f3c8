//! A container's output, read from the engine's log: the one source, so that nothing is lost when a reader breaks off.
//!
//! The reader counts each byte of both streams ([`Cursor`]). When a connection breaks, or a new agent goes on, it asks for
//! the log again from the second of the last mark on, finds the mark's message, and counts on, passing over what it has
//! already handed out. When the message is not there any more the log has been rotated away under it: output is lost, and
//! that is said, never hidden.
//!
//! A log takes what a job prints as fast as the job prints it, and forgets the oldest. So that a job which prints faster than
//! its output is taken waits for it, as it would at a pipe, the container is made to stand still while its reader is far
//! behind.
//!
//! Following a log is quick and, in engine 20.10, wrong: when a file of the log is full and the next one is begun, a follower
//! may get some messages twice. Reading a log to its end is right. So a log is followed only while its first
//! file cannot be full; a longer one is read again and again from the last mark on, and followed only to learn that there is
//! something new. The place where the two meet is checked.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use modchain_types::{AttemptId, Limits};
use modchain_wire::agent::OutputStream;
use tokio::sync::{mpsc, watch};

use super::cursor::{Cursor, Position};
use super::engine::{Engine, Trouble};
use crate::clock;
use crate::executor::{ExecutorEvent, OUTPUT_PIECE_BYTES_MAX};

/// Pause before a log that broke off is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// Times that the log of an ended container is asked for, one failure after the other, before its rest counts as lost.
const FAILURES_MAX: u32 = 60;

/// Longest silence of a followed log after the container's end. Then the rest is read without following.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Output that is read without a pause before the reader counts as far behind. Well below what a log holds.
const BEHIND_MAX: u64 = 256 << 10;

/// Longest wait for the taker of the output before the reader counts as far behind.
const TAKER_MAX: Duration = Duration::from_millis(100);

/// Silence after which a followed log has most likely been read to its end.
const CAUGHT_UP: Duration = Duration::from_millis(30);

/// Output up to which a log is followed, headers not included. Its file has room for 16 MiB, and a job that is held up may
/// be some megabytes ahead of its reader.
const FOLLOWED_MAX: u64 = 4 << 20;

/// The same in messages: what a message takes in the file beside its bytes is below a hundred bytes.
const FOLLOWED_MESSAGES_MAX: u64 = 40_000;

/// Pause between two readings of a long log to which something was added.
const READ_AGAIN: Duration = Duration::from_millis(200);

/// The same when much was added: a job that prints some hundred MB a second must not fill the log meanwhile.
const READ_AGAIN_SOON: Duration = Duration::from_millis(100);

/// Longest wait for the engine to find the place in the log that it was asked for, before the container waits as well.
const FIND_MAX: Duration = Duration::from_millis(300);

/// Log, headers included, that is whole for sure: all of its files but one. More than is kept of a job's output.
const WHOLE_UP_TO: u64 = 80 << 20;

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
    /// Whether no more output is kept anyway: then none can be lost.
    pub(super) full: bool,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    /// Becomes true when the container has ended.
    pub(super) ended: watch::Receiver<bool>,
    /// Whether the container stands still until its output has been read.
    pub(super) held: bool,
    /// Bytes that were read since the log was last read to its end.
    pub(super) behind: u64,
    /// Messages that were read while following.
    pub(super) messages: u64,
    /// Whether the log is too long to be followed.
    pub(super) long: bool,
}

/// What a reading of the log is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Everything up to now.
    Read,
    /// Everything, and what is added until it is too much for that.
    Follow,
    /// To learn that something was added.
    Peek,
}

/// How one reading of the log came to its end.
enum Pass {
    /// With the log's end.
    Whole,
    /// There is something new, or too much of it to be followed.
    More,
    /// Something broke off.
    Broken,
    /// Nobody listens.
    Deaf,
}

impl Log {
    /// Hands out all output until the container has ended and its log is read to the end. Never returns while the container
    /// runs, unless output is lost or nobody listens.
    pub(super) async fn read(mut self) -> Result<(), Lost> {
        // What an earlier agent took it has looked at.
        self.long = self.is_long();
        let mut failures = 0;
        let mut news = true;
        let mut behind = false;
        loop {
            let ended = *self.ended.borrow();
            let aim = match (ended, self.long) {
                (true, _) => Aim::Read,
                (false, false) if behind => Aim::Read,
                (false, false) => Aim::Follow,
                (false, true) if news => Aim::Read,
                (false, true) => Aim::Peek,
            };
            let before = self.cursor.position;
            if aim == Aim::Read {
                if self.behind > BEHIND_MAX {
                    // It printed much last time: who reads while it goes on may never come to the end.
                    self.hold().await;
                }
                self.behind = 0;
            } else {
                // Who waits for news must not be the one that it waits for.
                self.release().await;
            }
            let waits_for_itself = aim != Aim::Read && self.held;
            let mut pass = if waits_for_itself { Pass::Broken } else { self.pass(aim).await? };
            if matches!(pass, Pass::Whole | Pass::More) && self.is_long() && !self.join().await? {
                pass = Pass::Broken;
            }
            if !matches!(pass, Pass::More) {
                // However it came to its end, nothing holds the container up any more.
                self.release().await;
            }
            let pause = match pass {
                Pass::Deaf => return Ok(()),
                Pass::Whole if ended => return Ok(()),
                Pass::More => {
                    news = true;
                    behind = aim == Aim::Follow;
                    continue;
                }
                Pass::Whole if aim == Aim::Read => {
                    failures = 0;
                    behind = false;
                    news = self.cursor.position != before;
                    if !news || !self.long {
                        continue;
                    }
                    if self.behind > BEHIND_MAX { READ_AGAIN_SOON } else { READ_AGAIN }
                }
                // The engine says first that the output is over, and then that the container is.
                Pass::Whole => {
                    news = true;
                    AGAIN
                }
                Pass::Broken => {
                    failures += u32::from(ended);
                    if failures > FAILURES_MAX {
                        return Err(self.lost("the container engine does not give out its log any more"));
                    }
                    AGAIN
                }
            };
            if ended {
                tokio::time::sleep(pause).await;
            } else {
                // The sender lives as long as this reader's owner.
                let _ = tokio::time::timeout(pause, self.ended.wait_for(|ended| *ended)).await;
            }
        }
    }

    /// One reading of the log, from the last mark on.
    async fn pass(&mut self, aim: Aim) -> Result<Pass, Lost> {
        let Ok((docker, _)) = self.engine.reach().await else { return Ok(Pass::Broken) };
        let mark = self.cursor.mark;
        if mark.is_none() && self.cursor.position != Position::default() {
            // No place to go on from: only a log that is whole can be counted from its beginning.
            match self.measure().await {
                Ok(bytes) if bytes <= WHOLE_UP_TO || self.full => {}
                Ok(_) => return Err(self.lost("the place in the log was lost, and its beginning is gone")),
                Err(_) => return Ok(Pass::Broken),
            }
        }
        let since = self.cursor.since(now());
        let mut messages = Box::pin(docker.logs(&self.name, Some(options(aim != Aim::Read, since))).map(message));
        let mut seeking = mark;
        let mut at = mark.map(|mark| mark.before).unwrap_or_default();
        let mut ahead = None;
        loop {
            let next = match ahead.take() {
                Some(next) => Some(next),
                None => self.next(&mut messages, aim).await,
            };
            let message = match next {
                None if seeking.is_some() && !self.full => {
                    return Err(self.lost("the container's log has been rotated"));
                }
                None => return Ok(Pass::Whole),
                Some(Ok(message)) => message,
                Some(Err(trouble)) => {
                    let trouble = self.engine.trouble(trouble).await;
                    if trouble.is_missing() {
                        return Err(self.lost("somebody else removed the container"));
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
                        return Err(self.lost("the container's log has been rotated"));
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
            if aim == Aim::Peek {
                return Ok(Pass::More);
            }
            self.messages += 1;
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
                            self.messages += 1;
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
            self.behind += bytes.len() as u64;
            self.full |= self.cursor.position.total() >= Limits::OUTPUT_BYTES_MAX;
            if self.behind > BEHIND_MAX {
                self.hold().await;
            }
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(OUTPUT_PIECE_BYTES_MAX));
                if self.hand_out(ExecutorEvent::Output { stream, bytes: piece }).await.is_err() {
                    return Ok(Pass::Deaf);
                }
            }
            if aim == Aim::Follow && (self.held || self.is_long()) {
                self.hold().await;
                return Ok(Pass::More);
            }
        }
    }

    fn is_long(&self) -> bool {
        self.cursor.position.total() >= FOLLOWED_MAX || self.messages >= FOLLOWED_MESSAGES_MAX
    }

    async fn hand_out(&mut self, event: ExecutorEvent) -> Result<(), mpsc::error::SendError<()>> {
        let events = self.events.clone();
        let taken = match tokio::time::timeout(TAKER_MAX, events.reserve()).await {
            Ok(taken) => taken,
            Err(_) => {
                self.hold().await;
                events.reserve().await
            }
        };
        taken.map(|permit| permit.send(event))
    }

    /// Makes the container wait for its reader. Where the engine cannot, the log may overflow, and that is noticed.
    async fn hold(&mut self) {
        if !self.held && !*self.ended.borrow() {
            let paused = self.engine.pause(&self.name, true).await;
            self.held = matches!(paused, Ok(()) | Err(Trouble::Away(_)));
        }
    }

    /// Lets it go on. Where the engine is away it may still stand still, and is let go the next time.
    async fn release(&mut self) {
        if self.held {
            self.held = matches!(self.engine.pause(&self.name, false).await, Err(Trouble::Away(_)));
        }
    }

    /// The next message. After the container's end a followed log may be silent only so long: some engines forget to end it.
    async fn next<S>(&mut self, messages: &mut S, aim: Aim) -> Option<S::Item>
    where
        S: Stream + Unpin,
    {
        if aim == Aim::Read {
            if let Ok(next) = tokio::time::timeout(FIND_MAX, messages.next()).await {
                return next;
            }
            self.hold().await;
            return messages.next().await;
        }
        if let Ok(next) = tokio::time::timeout(CAUGHT_UP, messages.next()).await {
            return next;
        }
        self.behind = 0;
        if !*self.ended.borrow() {
            tokio::select! {
                biased;
                next = messages.next() => return next,
                _ = self.ended.wait_for(|ended| *ended) => {}
            }
        }
        tokio::time::timeout(LAST_WORDS_MAX, messages.next()).await.unwrap_or(None)
    }

    /// Looks, once, when a log has become too long to be followed, whether following it has given the right output so far.
    /// False when the engine does not let it.
    async fn join(&mut self) -> Result<bool, Lost> {
        if self.long {
            return Ok(true);
        }
        if let (Some(first), Some(last)) = (self.cursor.first, self.cursor.mark) {
            let Ok((docker, _)) = self.engine.reach().await else { return Ok(false) };
            let mut messages =
                Box::pin(docker.logs(&self.name, Some(options(false, self.cursor.since_first(now())))).map(message));
            let (mut found, mut at, mut right) = (false, first.before, false);
            while let Some(next) = messages.next().await {
                let Ok(message) = next else { return Ok(false) };
                found |= first.is(message.stream, message.at);
                if found && last.is(message.stream, message.at) {
                    right = at == last.before;
                    break;
                }
                if found {
                    *at.of(message.stream) += message.bytes.len() as u64;
                }
            }
            if !right {
                return Err(self.lost("the container's log was rotated while it was followed"));
            }
        }
        self.long = true;
        Ok(true)
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

    fn lost(&self, why: &str) -> Lost {
        tracing::warn!(attempt = %self.attempt, why, "output is lost");
        Lost(format!("output lost: {why}"))
    }
}

/// Nanoseconds since 1970, by the clock of this machine, which is the engine's as a rule.
fn now() -> i64 {
    clock::wall().0.saturating_mul(1_000_000)
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
    LogsOptions { follow, stdout: true, stderr: true, since, until: 0, timestamps: true, tail: "all".into() }
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
