//! A recording of what came over a link, and playing it back. `modchain console --record FILE` writes one, `--replay FILE` shows
//! it; tests and reports of bugs are made with it.
//!
//! A recording is JSON lines in UTF-8. The first line is the header:
//!
//! ```text
//! {"schema":"modchain.recording/v1","version":"0.1.0","at":"2026-11-22T14:03:21.114Z"}
//! ```
//!
//! `version` is that of the program that wrote it, `at` the moment from which `ms` counts. Every further line is one message:
//! `{"ms":N,"kind":"KIND",...}`, in order of time. A frame is the whole frame of the console protocol, header included, in
//! standard base 64; moments are RFC 3339.
//!
//! | kind | further fields |
//! |---|---|
//! | `target` | `context`: everything from here on belongs to it |
//! | `link` | `state`: `connecting`, `live`, `silent` (with `since`), `lost` (with `since`, `why`, `retry_at` or null, `tries`) or `refused` (with `failure`) |
//! | `welcome` | `frame` of type 0x42, `address`, `clock_ahead_ms` |
//! | `snapshot` | `frame` of type 0x6e |
//! | `delta` | `frame` of type 0x6f |
//! | `events` | `frame` of type 0x63 |
//! | `log` | `job`, and one of `frame` (0x6b, or 0x6c at the end), `caught_up`: true, `resumed`: since when it was interrupted, `failure` |
//! | `answer` | `ask`, `request` or null, and one of `frame` and `failure` |
//! | `input` | `job`, and `stored` with `done`, or `failure` |
//! | `rtt` | `us` |
//! | `said` | `text` |
//!
//! A failure is an object with `code`, `message`, `hint` or null, `exit` and `lost`. Requests that may hold secrets, such as a submit with
//! its environment, are left out, and so are answers that hold a job's specification. The last line may be cut off in the middle: whoever wrote it was ended.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use modchain_types::{JobId, List, Span, WallTime};
use modchain_wire::console::{EventsPage, LogEnd, StatusQuery};
use modchain_wire::{FromConsole, Message, ToConsole};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::task::{Inbox, Outbox, queues};
use super::{AskId, FromLive, LinkState, LogItem, Welcome};
use crate::exit::Failure;
use crate::text;

/// What the header's `schema` is.
const SCHEMA: &str = "modchain.recording/v1";
/// Longest line: the largest frame in base 64 with room for the rest.
const LINE_BYTES_MAX: u64 = 2 << 20;
/// Messages that are read ahead of their time.
const AHEAD: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    schema: String,
    version: String,
    at: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Since the header's moment.
    ms: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    Target {
        context: String,
    },
    Link {
        #[serde(flatten)]
        state: State,
    },
    Welcome {
        frame: String,
        address: String,
        clock_ahead_ms: i64,
    },
    Snapshot {
        frame: String,
    },
    Delta {
        frame: String,
    },
    Events {
        frame: String,
    },
    Log {
        job: String,
        #[serde(flatten)]
        item: Item,
    },
    Answer {
        ask: u64,
        request: Option<String>,
        #[serde(flatten)]
        answer: Answered,
    },
    Input {
        job: String,
        #[serde(flatten)]
        answer: Stored,
    },
    Rtt {
        us: u64,
    },
    Said {
        text: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum State {
    Connecting,
    Live,
    Silent { since: String },
    Lost { since: String, why: String, retry_at: Option<String>, tries: u32 },
    Refused { failure: Failed },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    Frame(String),
    CaughtUp(bool),
    Resumed(String),
    Failure(Failed),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Frame(String),
    Failure(Failed),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Stored { stored: u64, done: bool },
    Failure { failure: Failed },
}

#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    code: String,
    message: String,
    hint: Option<String>,
    exit: u8,
    lost: bool,
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        let Failure { code, message, hint, exit, lost } = failure;
        Self { code: (*code).into(), message: message.clone(), hint: hint.clone(), exit: *exit, lost: *lost }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let Failed { code, message, hint, exit, lost } = failed;
        let code = CODES.into_iter().find(|known| **known == *code).unwrap_or("failed");
        Self { code, message, hint, exit, lost }
    }
}

/// The codes that a failure of the link may have.
const CODES: [&str; 24] = [
    "failed",
    "usage",
    "not_found",
    "not_logged_in",
    "certificate_expired",
    "unreachable",
    "untrusted",
    "connection_lost",
    "timeout",
    "conflict",
    "invalid",
    "ambiguous_id",
    "not_allowed",
    "insufficient_funds",
    "limit",
    "no_fit",
    "idempotency_conflict",
    "missing_blob",
    "busy",
    "storage_full",
    "frozen",
    "unsupported",
    "internal",
    "token_invalid",
];

/// Writes a recording as messages pass.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    path: PathBuf,
    begun: WallTime,
    /// Nothing more is written: the disk is full, or broken.
    over: bool,
}

impl Recorder {
    /// Begins a new file that only its owner reads.
    pub(crate) fn create(path: &Path, now: WallTime) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot record to {}: {error}", path.display()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let header =
            Header { schema: SCHEMA.into(), version: env!("CARGO_PKG_VERSION").into(), at: text::rfc3339(now) };
        file.write_all(&json(&header)).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), begun: now, over: false })
    }

    /// Writes a message. Says what its user should know: that the recording has ended, once.
    pub(crate) fn write(&mut self, message: &FromLive, now: WallTime) -> Option<String> {
        if self.over || is_secret(message) {
            return None;
        }
        let ms = now.since(self.begun).0 / 1_000;
        let line = Line { ms, what: What::from(message) };
        let why = self.file.write_all(&json(&line)).err()?;
        self.over = true;
        Some(format!("the recording has ended: cannot write to {}: {why}", self.path.display()))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("texts and numbers always become JSON");
    bytes.push(b'\n');
    bytes
}

/// A frame in base 64. What came over the wire fits into a frame again.
fn frame(message: &impl Message) -> String {
    message.to_frame().map(|frame| text::base64(&frame)).unwrap_or_default()
}

/// Whether a request holds nothing but what it asks for.
fn is_open(request: &FromConsole) -> bool {
    match request {
        FromConsole::Whoami(_)
        | FromConsole::Identities(_)
        | FromConsole::Tokens(_)
        | FromConsole::Cancel(_)
        | FromConsole::Jobs(_)
        | FromConsole::Job(_)
        | FromConsole::Explain(_)
        | FromConsole::Nodes(_)
        | FromConsole::Node(_)
        | FromConsole::NodeSet(_)
        | FromConsole::Account(_)
        | FromConsole::Ledger(_)
        | FromConsole::Status(_)
        | FromConsole::Link(_) => true,
        FromConsole::Hello(_)
        | FromConsole::Renew(_)
        | FromConsole::Revoke(_)
        | FromConsole::TokenCreate(_)
        | FromConsole::TokenRevoke(_)
        | FromConsole::Submit(_)
        | FromConsole::Quote(_)
        | FromConsole::Spec(_)
        | FromConsole::BlobFetch(_)
        | FromConsole::Events(_)
        | FromConsole::Credit(_)
        | FromConsole::Logs(_)
        | FromConsole::State(_)
        | FromConsole::BlobPut(_)
        | FromConsole::BlobPiece(_)
        | FromConsole::InputOpen(_)
        | FromConsole::InputPiece(_)
        | FromConsole::InputDone(_) => false,
    }
}

/// Whether a message is about what a job was given to keep to itself.
fn is_secret(message: &FromLive) -> bool {
    match message {
        FromLive::Answer(_, request, _) => matches!(**request, FromConsole::Spec(_) | FromConsole::BlobFetch(_)),
        FromLive::Target(_)
        | FromLive::Link(_)
        | FromLive::Welcome(_)
        | FromLive::Snapshot(_)
        | FromLive::Delta(_)
        | FromLive::Events(_)
        | FromLive::Log(..)
        | FromLive::Input(..)
        | FromLive::Rtt(_)
        | FromLive::Said(_) => false,
    }
}

impl From<&FromLive> for What {
    fn from(message: &FromLive) -> Self {
        match message {
            FromLive::Target(context) => Self::Target { context: context.clone() },
            FromLive::Link(state) => Self::Link { state: state.into() },
            FromLive::Welcome(welcome) => Self::Welcome {
                frame: frame(&ToConsole::from(welcome.welcome.clone())),
                address: welcome.address.clone(),
                clock_ahead_ms: welcome.clock_ahead_ms,
            },
            FromLive::Snapshot(page) => Self::Snapshot { frame: frame(&ToConsole::from((**page).clone())) },
            FromLive::Delta(delta) => Self::Delta { frame: frame(&ToConsole::from((**delta).clone())) },
            FromLive::Events(events) => {
                Self::Events { frame: frame(&ToConsole::from(EventsPage { items: List::cut(events.clone()) })) }
            }
            FromLive::Log(job, item) => Self::Log { job: job.to_string(), item: item.into() },
            FromLive::Answer(id, request, result) => Self::Answer {
                ask: id.0,
                request: is_open(request).then(|| frame(&**request)),
                answer: match result {
                    Ok(reply) => Answered::Frame(frame(&**reply)),
                    Err(failure) => Answered::Failure(failure.into()),
                },
            },
            FromLive::Input(job, result) => Self::Input {
                job: job.to_string(),
                answer: match result {
                    Ok((stored, done)) => Stored::Stored { stored: *stored, done: *done },
                    Err(failure) => Stored::Failure { failure: failure.into() },
                },
            },
            FromLive::Rtt(rtt) => Self::Rtt { us: Span::from(*rtt).0 },
            FromLive::Said(text) => Self::Said { text: text.clone() },
        }
    }
}

impl From<&LinkState> for State {
    fn from(state: &LinkState) -> Self {
        match state {
            LinkState::Connecting => Self::Connecting,
            LinkState::Live => Self::Live,
            LinkState::Silent { since } => Self::Silent { since: text::rfc3339(*since) },
            LinkState::Lost { since, why, retry_at, tries } => Self::Lost {
                since: text::rfc3339(*since),
                why: why.clone(),
                retry_at: retry_at.map(text::rfc3339),
                tries: *tries,
            },
            LinkState::Refused(failure) => Self::Refused { failure: failure.into() },
        }
    }
}

impl From<&LogItem> for Item {
    fn from(item: &LogItem) -> Self {
        match item {
            LogItem::Chunk(chunk) => Self::Frame(frame(&ToConsole::from((**chunk).clone()))),
            LogItem::CaughtUp => Self::CaughtUp(true),
            LogItem::Resumed(since) => Self::Resumed(text::rfc3339(*since)),
            LogItem::End(job) => Self::Frame(frame(&ToConsole::from(LogEnd { job: (**job).clone() }))),
            LogItem::Refused(failure) => Self::Failure(failure.into()),
        }
    }
}

/// Why a line is no message.
type Bad = String;

fn moment(text: &str) -> Result<WallTime, Bad> {
    let moment: jiff::Timestamp = text.parse().map_err(|_| format!("`{text}` is no moment"))?;
    Ok(WallTime(moment.as_millisecond()))
}

fn read_frame<M: Message>(text: &str) -> Result<M, Bad> {
    let bytes = from_base64(text).ok_or("the frame is no base 64")?;
    M::from_frame(&bytes).map_err(|error| error.to_string())
}

fn wrong(reply: &ToConsole) -> Bad {
    format!("a frame of type {:#04x} does not belong there", reply.kind())
}

impl What {
    fn read(self) -> Result<FromLive, Bad> {
        let job = |id: &str| id.parse::<JobId>().map_err(|error| error.to_string());
        Ok(match self {
            Self::Target { context } => FromLive::Target(context),
            Self::Link { state } => FromLive::Link(state.read()?),
            Self::Welcome { frame, address, clock_ahead_ms } => match read_frame(&frame)? {
                ToConsole::Welcome(welcome) => {
                    FromLive::Welcome(Box::new(Welcome { welcome, address, clock_ahead_ms }))
                }
                other => return Err(wrong(&other)),
            },
            Self::Snapshot { frame } => match read_frame(&frame)? {
                ToConsole::StateSnapshot(page) => FromLive::Snapshot(Box::new(page)),
                other => return Err(wrong(&other)),
            },
            Self::Delta { frame } => match read_frame(&frame)? {
                ToConsole::StateDelta(delta) => FromLive::Delta(Box::new(delta)),
                other => return Err(wrong(&other)),
            },
            Self::Events { frame } => match read_frame(&frame)? {
                ToConsole::Events(page) => FromLive::Events(page.items.into_vec()),
                other => return Err(wrong(&other)),
            },
            Self::Log { job: id, item } => FromLive::Log(job(&id)?, item.read()?),
            Self::Answer { ask, request, answer } => {
                let request = match request {
                    Some(frame) => read_frame(&frame)?,
                    None => StatusQuery { detail: false }.into(),
                };
                let result = match answer {
                    Answered::Frame(frame) => Ok(Box::new(read_frame(&frame)?)),
                    Answered::Failure(failed) => Err(failed.into()),
                };
                FromLive::Answer(AskId(ask), Box::new(request), result)
            }
            Self::Input { job: id, answer } => {
                let result = match answer {
                    Stored::Stored { stored, done } => Ok((stored, done)),
                    Stored::Failure { failure } => Err(failure.into()),
                };
                FromLive::Input(job(&id)?, result)
            }
            Self::Rtt { us } => FromLive::Rtt(Duration::from_micros(us)),
            Self::Said { text } => FromLive::Said(text),
        })
    }
}

impl State {
    fn read(self) -> Result<LinkState, Bad> {
        Ok(match self {
            Self::Connecting => LinkState::Connecting,
            Self::Live => LinkState::Live,
            Self::Silent { since } => LinkState::Silent { since: moment(&since)? },
            Self::Lost { since, why, retry_at, tries } => LinkState::Lost {
                since: moment(&since)?,
                why,
                retry_at: retry_at.as_deref().map(moment).transpose()?,
                tries,
            },
            Self::Refused { failure } => LinkState::Refused(failure.into()),
        })
    }
}

impl Item {
    fn read(self) -> Result<LogItem, Bad> {
        Ok(match self {
            Self::Frame(frame) => match read_frame(&frame)? {
                ToConsole::LogChunk(chunk) => LogItem::Chunk(Box::new(chunk)),
                ToConsole::LogEnd(end) => LogItem::End(Box::new(end.job)),
                other => return Err(wrong(&other)),
            },
            Self::CaughtUp(_) => LogItem::CaughtUp,
            Self::Resumed(since) => LogItem::Resumed(moment(&since)?),
            Self::Failure(failed) => LogItem::Refused(failed.into()),
        })
    }
}

/// Bytes from [`text::base64`].
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut number = 0u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            number = number << 6 | u32::from(value);
        }
        let [_, first, second, third] = (number << (6 * (4 - group.len()))).to_be_bytes();
        bytes.extend_from_slice(&[first, second, third][..(group.len() * 3 / 4)]);
    }
    Some(bytes)
}

/// Reads a recording message by message.
pub(crate) struct Reader<R> {
    source: R,
    path: PathBuf,
    /// The moment from which `ms` counts.
    begun: WallTime,
    /// Lines that were read.
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub(crate) fn open(source: R, path: &Path) -> Result<Self, Failure> {
        let mut reader = Self { source, path: path.to_owned(), begun: WallTime(0), line: 0, buffer: Vec::new() };
        let header: Header = match reader.next_line()? {
            Some(_) => serde_json::from_slice(&reader.buffer).map_err(|_| reader.bad("this is no recording"))?,
            None => return Err(reader.bad("this is no recording")),
        };
        if header.schema != SCHEMA {
            return Err(reader.bad(&format!("this is `{}`, not `{SCHEMA}`", header.schema)));
        }
        reader.begun = moment(&header.at).map_err(|why| reader.bad(&why))?;
        Ok(reader)
    }

    /// The moment from which the recording counts.
    pub(crate) fn begun(&self) -> WallTime {
        self.begun
    }

    /// The next message with its milliseconds; `None` at the end, which may be a line that was cut off.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, FromLive)>, Failure> {
        let Some(whole) = self.next_line()? else { return Ok(None) };
        let read = serde_json::from_slice::<Line>(&self.buffer)
            .map_err(|error| error.to_string())
            .and_then(|line| Ok((line.ms, line.what.read()?)));
        match read {
            Ok(message) => Ok(Some(message)),
            Err(_) if !whole => Ok(None),
            Err(why) => Err(self.bad(&why)),
        }
    }

    /// Fills the buffer with the next line; whether it has its end.
    fn next_line(&mut self) -> Result<Option<bool>, Failure> {
        self.buffer.clear();
        self.line += 1;
        let read = (&mut self.source).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => Ok(None),
            Ok(_) if self.buffer.ends_with(b"\n") => Ok(Some(true)),
            Ok(count) if count as u64 == LINE_BYTES_MAX => Err(self.bad("the line is too long")),
            Ok(_) => Ok(Some(false)),
            Err(error) => Err(self.bad(&error.to_string())),
        }
    }

    fn bad(&self, why: &str) -> Failure {
        Failure::failed(format!("cannot replay {}: line {}: {why}", self.path.display(), self.line))
    }
}

/// A recording that is being played.
pub(crate) struct Replay {
    /// Its messages, each at its time.
    pub(crate) inbox: Inbox,
    /// The time that it shows.
    pub(crate) clock: ReplayClock,
}

/// The time in a recording, which stands still at its end.
#[derive(Debug, Clone)]
pub(crate) struct ReplayClock {
    begun: WallTime,
    speed: f64,
    started: Instant,
    shared: Arc<Position>,
}

/// How far a replay is.
#[derive(Debug, Default)]
struct Position {
    /// Milliseconds of the last message that was handed over.
    reached: AtomicU64,
    ended: AtomicBool,
}

impl ReplayClock {
    /// The time now.
    pub(crate) fn now(&self) -> WallTime {
        let reached = self.shared.reached.load(Ordering::Relaxed);
        let ms = if self.speed <= 0.0 || self.shared.ended.load(Ordering::Relaxed) {
            reached
        } else {
            Duration::as_millis(&self.started.elapsed().mul_f64(self.speed)).try_into().unwrap_or(u64::MAX)
        };
        self.begun.plus(Span::from_millis(ms))
    }
}

/// Plays the recording in this file, so many times faster than it was; 0 means as fast as it is read. Needs a running
/// runtime. Damage in it ends it with a word on it.
pub(crate) fn replay(path: &Path, speed: f64) -> Result<Replay, Failure> {
    let file =
        File::open(path).map_err(|error| Failure::failed(format!("cannot replay {}: {error}", path.display())))?;
    let mut reader = Reader::open(BufReader::new(file), path)?;
    let (out, inbox) = queues();
    let shared = Arc::new(Position::default());
    let clock = ReplayClock { begun: reader.begun(), speed, started: Instant::now(), shared };
    let (ahead, messages) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let next = match reader.next() {
                Ok(Some(message)) => Ok(message),
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            let failed = next.is_err();
            // Nobody watches any more.
            if ahead.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    tokio::spawn(play(messages, out, clock.clone()));
    Ok(Replay { inbox, clock })
}

async fn play(mut messages: mpsc::Receiver<Result<(u64, FromLive), Failure>>, out: Outbox, clock: ReplayClock) {
    while let Some(next) = messages.recv().await {
        match next {
            Ok((ms, message)) => {
                if clock.speed > 0.0 {
                    let due = Duration::from_millis(ms).div_f64(clock.speed);
                    tokio::select! {
                        () = tokio::time::sleep_until(clock.started + due) => {}
                        () = out.closed() => return,
                    }
                }
                clock.shared.reached.store(ms, Ordering::Relaxed);
                out.say(message).await;
            }
            Err(failure) => out.say(FromLive::Said(failure.message)).await,
        }
    }
    clock.shared.ended.store(true, Ordering::Relaxed);
}

#[cfg(test)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../../tests/common/recording.rs"]
pub(crate) mod by_hand;

#[cfg(test)]
mod tests {
    use modchain_types::{
        Adapter, Asset, Digest, Exceptions, GpuRequest, Input, JobSpec, Limits, Map, Micro, Policy, Requirements,
        TaskBody, Text,
    };
    use modchain_wire::agent::OutputStream;
    use modchain_wire::console::{
        JobQuery, LedgerPage, LedgerQuery, LogChunk, LogCursor, RefusalCode, StateDelta, StateSnapshot, Submit,
    };
    use modchain_wire::{Data, view::LedgerKind};

    use super::*;
    use crate::client::mirror::Mirror;
    use crate::client::samples;

    fn every_kind() -> Vec<FromLive> {
        let job = samples::job_id(1);
        let failure = Failure::lost("the wire was cut").hint("mend it");
        let chunk = LogChunk {
            cursor: LogCursor { attempt: 1, records: 3 },
            stream: OutputStream::Err,
            offset: 10,
            at: samples::AT,
            data: Data::new(vec![0, 255, 10]).expect("fits"),
        };
        let ledger = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 5, before: None };
        let entries = vec![samples::ledger_entry(7, samples::AT, LedgerKind::Hold, -5)];
        let page = LedgerPage { account: samples::identity().account, items: List::cut(entries), more: false };
        vec![
            FromLive::Target("lab".into()),
            FromLive::Link(LinkState::Connecting),
            FromLive::Welcome(Box::new(Welcome {
                welcome: by_hand::welcome(samples::identity(), Asset::Usdc),
                address: "127.0.0.1:7443".into(),
                clock_ahead_ms: -3,
            })),
            FromLive::Link(LinkState::Live),
            FromLive::Snapshot(Box::new(StateSnapshot {
                journal: by_hand::JOURNAL,
                upto: 5,
                jobs: List::cut(vec![samples::job_view(1), samples::ended_job(2, 1)]),
                nodes: List::cut(vec![samples::node_view("oslo-02", 3)]),
                account: Some(samples::account_view(Micro(7))),
                last: true,
            })),
            FromLive::Delta(Box::new(StateDelta {
                prev: 5,
                upto: 6,
                jobs: List::cut(vec![samples::queued_job(3)]),
                nodes: List::default(),
                gone: List::cut(vec!["oslo-02".parse().expect("a name")]),
                account: None,
                events: List::cut(vec![samples::event_view(6)]),
            })),
            FromLive::Events(vec![samples::event_view(4), samples::event_view(5)]),
            FromLive::Log(job, LogItem::Chunk(Box::new(chunk))),
            FromLive::Log(job, LogItem::CaughtUp),
            FromLive::Log(job, LogItem::Resumed(samples::AT)),
            FromLive::Log(job, LogItem::End(Box::new(samples::ended_job(1, 0)))),
            FromLive::Log(samples::job_id(2), LogItem::Refused(failure.clone())),
            FromLive::Answer(AskId(1), Box::new(ledger.into()), Ok(Box::new(page.into()))),
            FromLive::Answer(
                AskId(2),
                Box::new(JobQuery { job: Text::cut("x") }.into()),
                Err(Failure::not_found("no job `x`")),
            ),
            FromLive::Input(job, Ok((10, true))),
            FromLive::Input(job, Err(failure.clone())),
            FromLive::Rtt(Duration::from_micros(1_234)),
            FromLive::Said("the certificate ends".into()),
            FromLive::Link(LinkState::Silent { since: samples::AT }),
            FromLive::Link(LinkState::Lost {
                since: samples::AT,
                why: "cut".into(),
                retry_at: Some(samples::AT.plus(Span::from_secs(3))),
                tries: 2,
            }),
            FromLive::Link(LinkState::Lost { since: samples::AT, why: "cut".into(), retry_at: None, tries: 3 }),
            FromLive::Link(LinkState::Refused(failure)),
        ]
    }

    fn recorded(messages: &[FromLive]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("session.jsonl");
        let mut recorder = Recorder::create(&path, samples::AT).expect("begins");
        for (place, message) in messages.iter().enumerate() {
            let now = samples::AT.plus(Span::from_millis(10 * place as u64));
            assert_eq!(recorder.write(message, now), None);
        }
        std::fs::read(&path).expect("reads")
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u64, FromLive)>, Failure> {
        let mut reader = Reader::open(bytes, Path::new("session.jsonl"))?;
        assert_eq!(reader.begun(), samples::AT);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    fn shown(messages: impl IntoIterator<Item = FromLive>) -> Vec<String> {
        messages.into_iter().map(|message| format!("{message:?}")).collect()
    }

    #[test]
    fn every_message_reads_back_as_it_was() {
        let messages = every_kind();
        let bytes = recorded(&messages);
        let read = read(&bytes).expect("reads");
        assert_eq!(
            read.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(),
            (0..messages.len() as u64).map(|n| n * 10).collect::<Vec<_>>()
        );
        assert_eq!(shown(read.into_iter().map(|(_, message)| message)), shown(messages));
    }

    #[test]
    fn a_file_is_its_owners_alone_and_no_other_is_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("session.jsonl");
        Recorder::create(&path, samples::AT).expect("begins");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let refused = Recorder::create(&path, samples::AT).expect_err("is there already");
        assert!(refused.message.contains("session.jsonl"), "{refused}");
    }

    #[test]
    fn a_disk_that_is_full_is_told_of_once() {
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let mut recorder = Recorder { file: full, path: "/dev/full".into(), begun: samples::AT, over: false };
        let said = recorder.write(&FromLive::Link(LinkState::Live), samples::AT).expect("says so");
        assert!(said.contains("/dev/full"), "{said}");
        assert_eq!(recorder.write(&FromLive::Link(LinkState::Live), samples::AT), None);
    }

    #[test]
    fn requests_with_secrets_are_left_out() {
        let spec = JobSpec {
            name: Text::cut("hunter2"),
            body: TaskBody::Blob { digest: Digest::of(b"task"), adapter: Adapter::Wasm },
            requirements: Requirements {
                adapter: Adapter::Wasm,
                cpu_milli: 1_000,
                memory_bytes: 256 << 20,
                disk_bytes: 0,
                gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
                labels: Default::default(),
                region: None,
                node: None,
                price_per_hour_max: None,
                model: None,
                exceptions: Exceptions::default(),
            },
            limits: Limits::default(),
            max_cost: Micro(1),
            priority: 0,
            labels: Map::default(),
            input: Input::None,
            policy: Policy::Cheapest,
        };
        let submit = Submit { key: "k".parse().expect("a key"), spec, no_queue: false };
        let answer = Err(Failure::lost("x"));
        let bytes = recorded(&[FromLive::Answer(AskId(1), Box::new(submit.into()), answer)]);
        let text = String::from_utf8(bytes.clone()).expect("text");
        assert!(text.contains("\"request\":null"), "{text}");
        let (_, message) = read(&bytes).expect("reads").remove(0);
        assert!(!format!("{message:?}").contains("hunter2"));
    }

    #[test]
    fn the_last_line_may_be_cut_off_and_other_damage_has_its_line() {
        let bytes = recorded(&every_kind());
        let lines = every_kind().len();
        for cut in [1, 2, 10] {
            let read = read(&bytes[..bytes.len() - cut]).expect("reads");
            assert!(read.len() >= lines - 1, "{cut}");
        }
        let text = String::from_utf8(bytes).expect("text");
        for (from, to, why) in [
            ("\"kind\":\"target\"", "\"kind\":\"tarpit\"", "line 2: unknown variant `tarpit`"),
            ("\"state\":\"live\"", "\"state\":\"dead\"", "line 5: unknown variant `dead`"),
            ("\"kind\":\"snapshot\"", "\"kind\":\"delta\"", "line 6: a frame of type 0x6e does not belong there"),
            ("{\"ms\":20", "{\"ms\":-20", "line 4: "),
            ("modchain.recording/v1", "modchain.recording/v2", "line 1: this is `modchain.recording/v2`"),
        ] {
            assert!(text.contains(from), "{from}");
            let failure = read(text.replacen(from, to, 1).as_bytes()).expect_err("is damaged");
            assert!(failure.message.contains(why), "{failure}");
        }
        for text in ["", "{}", "modchain", "{\"schema\":1}\n"] {
            assert!(read(text.as_bytes()).expect_err("is none").message.contains("line 1: this is no recording"));
        }
    }

    #[test]
    fn any_file_is_a_recording_or_damage_in_a_line() {
        let words = [
            "{\"ms\":1,\"kind\":",
            "\"link\"",
            "\"state\":",
            "\"log\"",
            "\"frame\":\"",
            "==\"}",
            "\n",
            "null",
            "{",
            "}",
        ];
        crate::fuzz::target("recording").words(&words).longest(1024).executions(3_000).run(|input| {
            let header =
                format!("{{\"schema\":\"{SCHEMA}\",\"version\":\"0\",\"at\":\"{}\"}}\n", text::rfc3339(samples::AT));
            let bytes = [header.as_bytes(), input].concat();
            let (outcome, spent) = modchain_fuzz::spend(|| read(&bytes));
            assert!(spent.peak_bytes < 1 << 20, "{spent:?}");
            match outcome {
                Ok(messages) => modchain_fuzz::signature(&messages.len()),
                Err(failure) => {
                    assert!(failure.message.contains("session.jsonl: line "), "{failure}");
                    crate::fuzz::complaint(&failure.message)
                }
            }
        });
    }

    #[test]
    fn every_code_of_a_refusal_is_known() {
        for code in [
            RefusalCode::Invalid,
            RefusalCode::NotFound,
            RefusalCode::Ambiguous,
            RefusalCode::NotAllowed,
            RefusalCode::InsufficientFunds,
            RefusalCode::Limit,
            RefusalCode::NoFit,
            RefusalCode::Conflict,
            RefusalCode::IdempotencyConflict,
            RefusalCode::MissingBlob,
            RefusalCode::Busy,
            RefusalCode::StorageFull,
            RefusalCode::Frozen,
            RefusalCode::Unsupported,
            RefusalCode::Internal,
        ] {
            assert!(CODES.contains(&code.word()), "{code:?}");
        }
    }

    #[test]
    fn base_64_reads_back() {
        for length in 0..70u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            assert_eq!(from_base64(&text::base64(&bytes)), Some(bytes));
        }
        for bad in ["a", "a===", "ab=c", "a b=", "\u{e4}bc"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_tests_write_by_hand_is_what_the_program_writes() {
        let mut by_hand = by_hand::Recording::new(samples::AT);
        for (place, message) in every_kind().iter().enumerate() {
            by_hand.at(10 * place as u64);
            match message {
                FromLive::Target(context) => by_hand.target(context),
                FromLive::Link(LinkState::Connecting) => by_hand.connecting(),
                FromLive::Link(LinkState::Live) => by_hand.live(),
                FromLive::Link(LinkState::Silent { since }) => by_hand.silent(*since),
                FromLive::Link(LinkState::Lost { since, why, retry_at, tries }) => {
                    by_hand.lost(*since, why, *retry_at, *tries);
                }
                FromLive::Welcome(it) => by_hand.welcome(it.welcome.clone(), &it.address, it.clock_ahead_ms),
                FromLive::Snapshot(page) => by_hand.snapshot((**page).clone()),
                FromLive::Delta(delta) => by_hand.delta((**delta).clone()),
                FromLive::Events(events) => by_hand.events(events.clone()),
                FromLive::Log(_, LogItem::Chunk(chunk)) => by_hand.chunk(samples::job_id(1), (**chunk).clone()),
                FromLive::Log(job, LogItem::CaughtUp) => by_hand.caught_up(*job),
                FromLive::Log(job, LogItem::Resumed(since)) => by_hand.resumed(*job, *since),
                FromLive::Log(job, LogItem::End(view)) => by_hand.end(*job, (**view).clone()),
                FromLive::Answer(id, request, Ok(reply)) => by_hand.answer(id.0, request, reply),
                FromLive::Rtt(rtt) => by_hand.rtt(*rtt),
                FromLive::Said(text) => by_hand.said(text),
                FromLive::Link(LinkState::Refused(_))
                | FromLive::Log(_, LogItem::Refused(_))
                | FromLive::Answer(_, _, Err(_))
                | FromLive::Input(..) => {}
            }
        }
        let kept = |line: &&str| !line.contains("\"failure\"") && !line.contains("\"kind\":\"input\"");
        let parse = |text: &str| -> Vec<serde_json::Value> {
            text.lines().filter(kept).skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let program = String::from_utf8(recorded(&every_kind())).expect("text");
        assert_eq!(parse(by_hand.text()), parse(&program));
        read(by_hand.text().as_bytes()).expect("reads");
    }

    #[tokio::test]
    async fn a_replay_shows_what_was_seen_at_its_time() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("session.jsonl");
        std::fs::write(&path, recorded(&every_kind())).expect("writes");
        for speed in [0.0, 100.0] {
            let Replay { mut inbox, clock } = replay(&path, speed).expect("opens");
            let (mut live, mut played) = (Mirror::default(), Mirror::default());
            let mut messages = Vec::new();
            while let Some(message) = inbox.recv().await {
                played.apply(message.clone(), clock.now());
                messages.push(message);
            }
            assert_eq!(shown(messages), shown(every_kind()));
            every_kind().into_iter().for_each(|message| live.apply(message, samples::AT));
            assert_eq!(format!("{:?}", played.jobs), format!("{:?}", live.jobs));
            let last = 10 * (every_kind().len() as u64 - 1);
            assert_eq!(clock.now(), samples::AT.plus(Span::from_millis(last)), "it stands still at the end");
        }
    }

    #[tokio::test]
    async fn a_replay_takes_the_time_that_its_speed_gives_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("session.jsonl");
        let mut by_hand = by_hand::Recording::new(samples::AT);
        for ms in [0, 200, 400] {
            by_hand.at(ms);
            by_hand.said("tick");
        }
        std::fs::write(&path, by_hand.text()).expect("writes");
        let Replay { mut inbox, clock } = replay(&path, 4.0).expect("opens");
        for earliest in [0, 50, 100] {
            assert!(matches!(inbox.recv().await, Some(FromLive::Said(_))));
            assert!(clock.started.elapsed().as_millis() >= earliest);
            assert!(clock.now() >= samples::AT.plus(Span::from_millis(4 * earliest as u64)));
        }
        assert!(inbox.recv().await.is_none());
        assert_eq!(clock.now(), samples::AT.plus(Span::from_millis(400)));
    }
}
