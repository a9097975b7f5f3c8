//! Writes recordings as `modchain console --record` does, for tests that show big or odd ones. The format is that of the
//! program's own `client/live/recording.rs`, whose tests hold the two together.

use std::time::Duration;

use modchain_types::{Asset, Identity, JobId, JournalId, List, Text, WallTime};
use modchain_wire::console::{ConsoleWelcome, EventsPage, LogChunk, LogEnd, StateDelta, StateSnapshot};
use modchain_wire::view::{AccountView, EventView, JobView, NodeView};
use modchain_wire::{FromConsole, Message, ToConsole};
use serde_json::{Value, json};

/// The journal of all recordings that are written by hand.
pub(crate) const JOURNAL: JournalId = JournalId([3; 16]);
/// Jobs or nodes in one frame of a snapshot.
const PAGE: usize = 200;

/// A recording under construction.
pub(crate) struct Recording {
    text: String,
    ms: u64,
}

/// What an orchestrator says at the start to this identity.
pub(crate) fn welcome(identity: Identity, asset: Asset) -> ConsoleWelcome {
    ConsoleWelcome {
        types: FromConsole::known_types(),
        version: Text::cut("0.1.0"),
        identity,
        pool: "lab".parse().expect("a name"),
        journal: JOURNAL,
        asset,
        streams_max: 32,
        wall: WallTime(0),
    }
}

impl Recording {
    /// Begins at this moment.
    pub(crate) fn new(at: WallTime) -> Self {
        let header = json!({"schema": "modchain.recording/v1", "version": "0.1.0", "at": moment(at)});
        Self { text: format!("{header}\n"), ms: 0 }
    }

    /// What comes next comes so many milliseconds after the beginning.
    pub(crate) fn at(&mut self, ms: u64) {
        self.ms = ms;
    }

    /// The recording so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, kind: &str, mut fields: Value) {
        fields["ms"] = self.ms.into();
        fields["kind"] = kind.into();
        self.text += &format!("{fields}\n");
    }

    pub(crate) fn target(&mut self, context: &str) {
        self.line("target", json!({"context": context}));
    }

    pub(crate) fn connecting(&mut self) {
        self.line("link", json!({"state": "connecting"}));
    }

    pub(crate) fn live(&mut self) {
        self.line("link", json!({"state": "live"}));
    }

    pub(crate) fn silent(&mut self, since: WallTime) {
        self.line("link", json!({"state": "silent", "since": moment(since)}));
    }

    pub(crate) fn lost(&mut self, since: WallTime, why: &str, retry_at: Option<WallTime>, tries: u32) {
        let retry_at = retry_at.map(moment);
        self.line(
            "link",
            json!({"state": "lost", "since": moment(since), "why": why, "retry_at": retry_at, "tries": tries}),
        );
    }

    pub(crate) fn welcome(&mut self, welcome: ConsoleWelcome, address: &str, clock_ahead_ms: i64) {
        let frame = frame(&ToConsole::from(welcome));
        self.line("welcome", json!({"frame": frame, "address": address, "clock_ahead_ms": clock_ahead_ms}));
    }

    pub(crate) fn snapshot(&mut self, page: StateSnapshot) {
        self.line("snapshot", json!({"frame": frame(&ToConsole::from(page))}));
    }

    /// A whole snapshot in as many frames as it takes.
    pub(crate) fn everything(&mut self, upto: u64, jobs: Vec<JobView>, nodes: Vec<NodeView>, account: AccountView) {
        let page = |jobs: &[JobView], nodes: &[NodeView], account: Option<AccountView>| StateSnapshot {
            journal: JOURNAL,
            upto,
            jobs: List::cut(jobs.to_vec()),
            nodes: List::cut(nodes.to_vec()),
            last: account.is_some(),
            account,
        };
        for some in jobs.chunks(PAGE) {
            self.snapshot(page(some, &[], None));
        }
        for some in nodes.chunks(PAGE) {
            self.snapshot(page(&[], some, None));
        }
        self.snapshot(page(&[], &[], Some(account)));
    }

    pub(crate) fn delta(&mut self, delta: StateDelta) {
        self.line("delta", json!({"frame": frame(&ToConsole::from(delta))}));
    }

    pub(crate) fn events(&mut self, events: Vec<EventView>) {
        self.line("events", json!({"frame": frame(&ToConsole::from(EventsPage { items: List::cut(events) }))}));
    }

    pub(crate) fn chunk(&mut self, job: JobId, chunk: LogChunk) {
        self.line("log", json!({"job": job.to_string(), "frame": frame(&ToConsole::from(chunk))}));
    }

    pub(crate) fn caught_up(&mut self, job: JobId) {
        self.line("log", json!({"job": job.to_string(), "caught_up": true}));
    }

    pub(crate) fn resumed(&mut self, job: JobId, since: WallTime) {
        self.line("log", json!({"job": job.to_string(), "resumed": moment(since)}));
    }

    pub(crate) fn end(&mut self, job: JobId, view: JobView) {
        self.line("log", json!({"job": job.to_string(), "frame": frame(&ToConsole::from(LogEnd { job: view }))}));
    }

    pub(crate) fn answer(&mut self, ask: u64, request: &FromConsole, reply: &ToConsole) {
        self.line("answer", json!({"ask": ask, "request": frame(request), "frame": frame(reply)}));
    }

    pub(crate) fn rtt(&mut self, rtt: Duration) {
        self.line("rtt", json!({"us": u64::try_from(rtt.as_micros()).expect("fits")}));
    }

    pub(crate) fn said(&mut self, text: &str) {
        self.line("said", json!({"text": text}));
    }
}

fn moment(at: WallTime) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(at.0).expect("a moment"))
}

fn frame(message: &impl Message) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = message.to_frame().expect("fits into a frame");
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        let digits = (0..4).map(|place| char::from(DIGITS[(number >> (18 - 6 * place) & 63) as usize]));
        text.extend(digits.take(group.len() + 1));
        text.extend(std::iter::repeat_n('=', 3 - group.len()));
    }
    text
}
