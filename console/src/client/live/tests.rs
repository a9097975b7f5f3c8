//! The link against an orchestrator that does as it is told, over real connections: what comes is whole, in order and nothing
//! twice, whatever breaks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use modchain_certs::{Authority, Subject};
use modchain_link::{Accepted, CloseCode, Connection, Endpoint, EndpointKeys, FrameReader, FrameWriter};
use modchain_types::{Asset, Digest, IdentityId, JournalId, List, Role, Span, Text};
use modchain_wire::agent::{BlobChunk, BlobHead, OutputStream};
use modchain_wire::console::{
    BlobFetch, CaughtUp, ConsoleWelcome, EventsPage, InputReady, InputStored, JobQuery, LogChunk, LogCursor, LogEnd,
    Refusal, RefusalCode, StateDelta, StateSnapshot, StatusQuery,
};
use modchain_wire::{Data, FromConsole, Message, ToConsole};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::client::mirror::Mirror;
use crate::client::samples;
use crate::text::wall_now;

/// Longest wait for anything: machines that build at the same time are slow.
const PATIENCE: Duration = Duration::from_secs(60);
const OURS: JournalId = JournalId([3; 16]);
/// What it keeps beside the journal.
static BLOBS: [&[u8]; 2] = [b"a blob", &[7; modchain_wire::CHUNK_BYTES_MAX + 1]];

/// What the orchestrator has and does.
#[derive(Debug, Clone)]
struct Script {
    journal: JournalId,
    /// Its last event.
    upto: u64,
    /// The first event after which a stream can go on.
    resumes_from: u64,
    /// Records of output of every job.
    records: u64,
    /// Every job has ended.
    ended: bool,
    /// Requests are not answered.
    hangs: bool,
}

/// What the orchestrator saw.
#[derive(Debug, Default)]
struct Seen {
    resumes: Vec<Option<(JournalId, u64)>>,
    events_after: Vec<u64>,
    logs_from: Vec<Option<LogCursor>>,
    asked: Vec<String>,
    input: Vec<u8>,
    closed: Vec<String>,
}

struct Scripted {
    script: watch::Sender<Script>,
    seen: Mutex<Seen>,
    connections: Mutex<Vec<Connection>>,
}

/// The orchestrator with a folder of its own.
struct Orchestrator {
    scripted: Arc<Scripted>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Orchestrator {
    fn start(upto: u64) -> Self {
        modchain_certs::install_crypto_provider();
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::create(&folder.path().join("ca"), SystemTime::now()).expect("authority");
        let keys = EndpointKeys::load_or_create(&folder.path().join("quic")).expect("keys");
        let life = Duration::from_secs(3600);
        let own = authority.issue(Subject::ORCHESTRATOR, life, SystemTime::now()).expect("issues");
        let subject = Subject::member(Role::Client, IdentityId([9; 16])).expect("a member");
        let member = authority.issue(subject, life, SystemTime::now()).expect("issues");
        member.save(&folder.path().join("identity")).expect("saves");
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = Endpoint::bind(loopback, &own, &keys, None).expect("listens");
        let address = endpoint.local_address().expect("bound");
        let (script, _) =
            watch::channel(Script { journal: OURS, upto, resumes_from: 0, records: 0, ended: false, hangs: false });
        let scripted = Arc::new(Scripted { script, seen: Mutex::default(), connections: Mutex::default() });
        let serving = scripted.clone();
        tokio::spawn(async move {
            while let Some(accepted) = endpoint.accept().await {
                tokio::spawn(serving.clone().member(accepted));
            }
        });
        Self { scripted, address, folder }
    }

    fn target(&self, context: &str) -> Target {
        Target {
            context: context.into(),
            orchestrator: self.address.to_string(),
            join: self.address.to_string(),
            identity: self.folder.path().join("identity"),
            max_cost: None,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        self.scripted.script.send_modify(change);
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.scripted.seen.lock().expect("lock"))
    }

    /// Cuts every connection.
    fn cut(&self) {
        for connection in self.scripted.connections.lock().expect("lock").drain(..) {
            connection.close(CloseCode::GoingAway, "cut");
        }
    }

    async fn until(&self, what: &str, fits: impl Fn(&Seen) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.seen(&fits) {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

type Down = FrameWriter<ToConsole>;
type Up = FrameReader<FromConsole>;

impl Scripted {
    async fn member(self: Arc<Self>, accepted: Accepted) {
        let connection = accepted.connection;
        let Ok((mut down, mut up)) = connection.accept_bi::<ToConsole, FromConsole>().await else { return };
        let Ok(Some(FromConsole::Hello(_))) = up.read().await else { return };
        let welcome = ConsoleWelcome {
            types: FromConsole::known_types(),
            version: Text::cut("scripted"),
            pool: "lab".parse().expect("a name"),
            identity: samples::identity(),
            journal: self.script.borrow().journal,
            asset: Asset::Test,
            streams_max: connection.authorise(32),
            wall: wall_now(),
        };
        if down.write(&welcome.into()).await.is_err() {
            return;
        }
        self.connections.lock().expect("lock").push(connection.clone());
        while let Ok((down, up)) = connection.accept_bi::<ToConsole, FromConsole>().await {
            let (serving, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                tokio::select! {
                    _ = serving.request(down, up) => {}
                    _ = connection.closed() => {}
                }
            });
        }
        let closed = connection.closed().await.to_string();
        self.seen.lock().expect("lock").closed.push(closed);
    }

    async fn request(&self, mut down: Down, mut up: Up) -> Option<()> {
        let request = up.read().await.ok()??;
        let mut script = self.script.subscribe();
        let now = script.borrow_and_update().clone();
        match request {
            FromConsole::State(open) => {
                self.seen.lock().expect("lock").resumes.push(open.resume);
                let from = open.resume.filter(|(journal, upto)| *journal == now.journal && *upto >= now.resumes_from);
                let mut upto = match from {
                    Some((_, upto)) => upto,
                    None => {
                        for last in [false, true] {
                            let jobs = vec![samples::job_view(u64::from(last))];
                            let nodes = if last { vec![samples::node_view("oslo-02", 2)] } else { Vec::new() };
                            let page = StateSnapshot {
                                journal: now.journal,
                                upto: now.upto,
                                jobs: List::cut(jobs),
                                nodes: List::cut(nodes),
                                account: last.then(|| samples::account_view(modchain_types::Micro(5))),
                                last,
                            };
                            down.write(&page.into()).await.ok()?;
                        }
                        now.upto
                    }
                };
                loop {
                    let now = script.borrow_and_update().clone();
                    if now.upto > upto {
                        let events = (upto + 1..=now.upto).map(samples::event_view).collect();
                        let delta = StateDelta {
                            prev: upto,
                            upto: now.upto,
                            jobs: List::cut(vec![samples::job_view(now.upto)]),
                            nodes: List::cut(vec![samples::node_view("oslo-02", 2)]),
                            gone: List::default(),
                            account: None,
                            events: List::cut(events),
                        };
                        down.write(&delta.into()).await.ok()?;
                        upto = now.upto;
                    }
                    script.changed().await.ok()?;
                }
            }
            FromConsole::Events(open) => {
                let after = open.after.expect("says where it begins");
                self.seen.lock().expect("lock").events_after.push(after);
                let numbers: Vec<u64> = (after + 1..=now.upto).collect();
                for page in numbers.chunks(100) {
                    let items = page.iter().copied().map(samples::event_view).collect();
                    down.write(&EventsPage { items: List::cut(items) }.into()).await.ok()?;
                }
                down.write(&CaughtUp { upto: now.upto }.into()).await.ok()?;
                down.finish().await.ok()
            }
            FromConsole::Logs(open) => {
                self.seen.lock().expect("lock").logs_from.push(open.from);
                let mut sent = open.from.map_or(0, |cursor| cursor.records);
                let mut caught_up = false;
                loop {
                    let now = script.borrow_and_update().clone();
                    for index in sent..now.records {
                        down.write(&record(index).into()).await.ok()?;
                    }
                    sent = now.records.max(sent);
                    if !std::mem::replace(&mut caught_up, true) {
                        down.write(&CaughtUp { upto: now.upto }.into()).await.ok()?;
                    }
                    if now.ended {
                        let end = LogEnd { job: samples::ended_job(1, 0) };
                        down.write(&end.into()).await.ok()?;
                        return down.finish().await.ok();
                    }
                    script.changed().await.ok()?;
                }
            }
            FromConsole::InputOpen(_) => {
                let offset = self.seen.lock().expect("lock").input.len() as u64;
                down.write(&InputReady { offset, done: false }.into()).await.ok()?;
                loop {
                    let (offset, done) = match up.read().await.ok()?? {
                        FromConsole::InputPiece(piece) => {
                            let mut seen = self.seen.lock().expect("lock");
                            assert_eq!(piece.offset, seen.input.len() as u64, "goes on where it was");
                            seen.input.extend_from_slice(&piece.data);
                            (seen.input.len() as u64, false)
                        }
                        FromConsole::InputDone(done) => (done.offset, true),
                        other => panic!("{other:?}"),
                    };
                    down.write(&InputStored { offset, done }.into()).await.ok()?;
                }
            }
            FromConsole::Job(query) => {
                self.seen.lock().expect("lock").asked.push(query.job.as_str().to_owned());
                while script.borrow_and_update().hangs {
                    script.changed().await.ok()?;
                }
                down.write(&samples::job_view(7).into()).await.ok()?;
                down.finish().await.ok()
            }
            // It has two blobs, in two pieces each; what is longer than a piece is refused by who asked.
            FromConsole::BlobFetch(fetch) if BLOBS.iter().any(|blob| Digest::of(blob) == fetch.digest) => {
                let blob = BLOBS.iter().find(|blob| Digest::of(blob) == fetch.digest).expect("just looked at");
                down.write(&BlobHead { bytes: blob.len() as u64 }.into()).await.ok()?;
                for piece in blob.chunks(2) {
                    let data = Data::new(bytes::Bytes::copy_from_slice(piece)).expect("fits");
                    down.write(&BlobChunk { data }.into()).await.ok()?;
                }
                down.finish().await.ok()
            }
            FromConsole::BlobFetch(_) => {
                let code = RefusalCode::MissingBlob;
                down.write(&Refusal { code, message: Text::default(), hint: Text::default() }.into()).await.ok()?;
                down.finish().await.ok()
            }
            other => {
                let refusal = Refusal {
                    code: RefusalCode::Unsupported,
                    message: Text::cut(format!("not here: {:#04x}", other.kind())),
                    hint: Text::default(),
                };
                down.write(&refusal.into()).await.ok()?;
                down.finish().await.ok()
            }
        }
    }
}

fn record(index: u64) -> LogChunk {
    LogChunk {
        cursor: LogCursor { attempt: 1, records: index + 1 },
        stream: OutputStream::Out,
        offset: index * 10,
        at: samples::AT.plus(Span::from_secs(index)),
        data: Data::new(format!("line {index:04}\n")).expect("fits"),
    }
}

/// The console: a mirror, and everything that came.
struct Watcher {
    live: LiveHandle,
    inbox: Inbox,
    mirror: Mirror,
    links: Vec<&'static str>,
    answers: Vec<(u64, Result<(), &'static str>)>,
    inputs: Vec<Result<(u64, bool), &'static str>>,
}

impl Watcher {
    fn start(orchestrator: &Orchestrator) -> Self {
        let (live, inbox) = start(orchestrator.target("first"), PATIENCE);
        Self { live, inbox, mirror: Mirror::default(), links: Vec::new(), answers: Vec::new(), inputs: Vec::new() }
    }

    /// Takes messages in until this holds.
    async fn until(&mut self, what: &str, fits: impl Fn(&Self) -> bool) {
        while !fits(self) {
            let message = tokio::time::timeout(PATIENCE, self.inbox.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("never: {what}")).expect("the link is there");
            match &message {
                FromLive::Target(_) => self.links.push("target"),
                FromLive::Welcome(_) => self.links.push("welcome"),
                FromLive::Link(LinkState::Connecting) => self.links.push("connecting"),
                FromLive::Link(LinkState::Live) => self.links.push("live"),
                FromLive::Link(LinkState::Silent { .. }) => self.links.push("silent"),
                FromLive::Link(LinkState::Lost { retry_at: Some(_), .. }) => self.links.push("lost"),
                FromLive::Link(LinkState::Lost { retry_at: None, .. }) => self.links.push("trying"),
                FromLive::Link(LinkState::Refused(_)) => self.links.push("refused"),
                FromLive::Answer(id, _, result) => {
                    self.answers.push((id.0, result.as_ref().map(drop).map_err(|failure| failure.code)));
                }
                FromLive::Input(_, result) => {
                    self.inputs.push(result.as_ref().copied().map_err(|failure| failure.code));
                }
                FromLive::Snapshot(_) | FromLive::Delta(_) | FromLive::Events(_) => {}
                FromLive::Log(..) | FromLive::Rtt(_) | FromLive::Said(_) => {}
            }
            self.mirror.apply(message, wall_now());
        }
    }

    async fn until_event(&mut self, number: u64) {
        let newest = |mirror: &Mirror| mirror.events.back().map(|event| event.number);
        self.until(&format!("event {number}"), |it| {
            newest(&it.mirror) == Some(number) && it.mirror.mark.is_some_and(|mark| mark.upto == number)
        })
        .await;
    }

    fn numbers(&self) -> Vec<u64> {
        self.mirror.events.iter().map(|event| event.number).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_no_snapshot_and_loses_no_event() {
    let orchestrator = Orchestrator::start(30);
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until_event(30).await;
    assert_eq!(watcher.links, ["target", "connecting", "welcome", "live"]);
    assert_eq!((watcher.mirror.jobs.len(), watcher.mirror.nodes.len()), (2, 1));
    for upto in [33, 40] {
        orchestrator.cut();
        orchestrator.change(|script| script.upto = upto);
        watcher.until_event(upto).await;
        assert_eq!(watcher.links[watcher.links.len() - 4..], ["lost", "trying", "welcome", "live"]);
    }
    assert_eq!(watcher.numbers(), (1..=40).collect::<Vec<_>>());
    let resumes = orchestrator.seen(|seen| seen.resumes.clone());
    assert_eq!(resumes, [None, Some((OURS, 30)), Some((OURS, 33))]);
    // A connection that was cut before the fetch was done asks once more, and only for the rest.
    let after = orchestrator.seen(|seen| seen.events_after.clone());
    assert!(after[0] == 0 && after[1..].iter().all(|after| *after >= 30), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_absence_the_missed_events_are_fetched() {
    let orchestrator = Orchestrator::start(5_000);
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until_event(5_000).await;
    orchestrator.cut();
    orchestrator.change(|script| (script.upto, script.resumes_from) = (7_000, 6_999));
    watcher.until("all events", |it| it.mirror.events.len() == 3_000).await;
    assert_eq!(watcher.numbers(), (4_001..=7_000).collect::<Vec<_>>());
    assert_eq!(orchestrator.seen(|seen| seen.events_after.clone()), [4_000, 5_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_output_comes_whole_over_many_connections() {
    let orchestrator = Orchestrator::start(1);
    orchestrator.change(|script| script.records = 50);
    let mut watcher = Watcher::start(&orchestrator);
    let job = samples::job_id(1);
    let records =
        |it: &Watcher| it.mirror.logs.get(&job).and_then(|log| log.cursor()).map_or(0, |cursor| cursor.records);
    watcher.live.send(ToLive::Follow(job, None));
    watcher.until("the first lines", |it| records(it) == 50).await;
    for round in 1..=3 {
        orchestrator.cut();
        orchestrator.change(|script| script.records = 50 + 10 * round);
        watcher.until("more lines", |it| records(it) == 50 + 10 * round).await;
    }
    orchestrator.change(|script| script.ended = true);
    watcher.until("the end", |it| it.mirror.logs[&job].end.is_some()).await;
    let log = &watcher.mirror.logs[&job];
    let lines: Vec<&str> =
        (log.first()..log.end_number()).filter_map(|number| log.line(number)).map(|line| &*line.text).collect();
    let output: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(output, (0..80).map(|index| format!("line {index:04}")).collect::<Vec<_>>(), "none twice, none missing");
    let places = orchestrator.seen(|seen| seen.logs_from.clone());
    let at = |records| Some(LogCursor { attempt: 1, records });
    assert_eq!(places, [None, at(50), at(60), at(70)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_outlive_the_connection_and_are_answered_once() {
    let orchestrator = Orchestrator::start(1);
    orchestrator.change(|script| script.hangs = true);
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until("the first snapshot", |it| it.mirror.mark.is_some()).await;
    let ask = |number: u64| {
        let query = JobQuery { job: Text::cut(format!("job-{number}")) };
        ToLive::Ask(AskId(number), Box::new(query.into()))
    };
    watcher.live.send(ask(1));
    watcher.live.send(ToLive::Ask(AskId(2), Box::new(StatusQuery { detail: false }.into())));
    orchestrator.until("the first request", |seen| seen.asked == ["job-1"]).await;
    watcher.until("a refusal is an answer", |it| it.answers == [(2, Err("unsupported"))]).await;
    orchestrator.cut();
    watcher.live.send(ask(3));
    orchestrator.until("it comes again", |seen| seen.asked.len() == 3).await;
    let mut again = orchestrator.seen(|seen| seen.asked[1..].to_vec());
    // Both are under way at once.
    again.sort();
    assert_eq!(again, ["job-1", "job-3"]);
    orchestrator.change(|script| script.hangs = false);
    watcher.until("the answers", |it| it.answers.len() == 3).await;
    watcher.answers.sort_by_key(|(id, _)| *id);
    assert_eq!(watcher.answers, [(1, Ok(())), (2, Err("unsupported")), (3, Ok(()))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_one_answer_or_the_reason_why_there_is_none() {
    let orchestrator = Orchestrator::start(1);
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until("the first snapshot", |it| it.mirror.mark.is_some()).await;
    let ask = |id, blob: &[u8]| ToLive::Ask(AskId(id), Box::new(BlobFetch { digest: Digest::of(blob) }.into()));
    watcher.live.send(ask(1, BLOBS[0]));
    let whole = loop {
        let message = tokio::time::timeout(PATIENCE, watcher.inbox.recv()).await.expect("in time");
        if let Some(FromLive::Answer(AskId(1), _, Ok(reply))) = message {
            break reply;
        }
    };
    let ToConsole::BlobChunk(chunk) = *whole else { panic!("{whole:?}") };
    assert_eq!(&chunk.data[..], BLOBS[0]);
    watcher.live.send(ask(2, b"nobody has it"));
    watcher.until("it is not there", |it| it.answers == [(2, Err("not_found"))]).await;
    watcher.live.send(ask(3, BLOBS[1]));
    watcher.until("it is too long", |it| it.answers.len() == 2).await;
    assert!(watcher.answers[1].1.is_err(), "{:?}", watcher.answers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_nobody_reads_does_not_hold_back_the_rest() {
    let orchestrator = Orchestrator::start(1);
    orchestrator.change(|script| script.records = 20_000);
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until("the first snapshot", |it| it.mirror.mark.is_some()).await;
    let job = samples::job_id(1);
    watcher.live.send(ToLive::Follow(job, None));
    watcher.until("the output begins", |it| it.mirror.logs.contains_key(&job)).await;
    // Nothing of the output is read from here on: its queue fills up, and the stream behind it.
    let (_sender, nothing) = mpsc::channel(1);
    let unread = std::mem::replace(&mut watcher.inbox.logs, nothing);
    let is_full = async {
        while unread.capacity() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_full).await.expect("the queue fills up");
    watcher.live.send(ToLive::Ask(AskId(1), Box::new(StatusQuery { detail: false }.into())));
    orchestrator.change(|script| script.upto = 2);
    watcher.until("the answer and the event", |it| !it.answers.is_empty() && it.numbers().contains(&2)).await;
    assert_eq!(unread.capacity(), 0, "the output still waits");
    watcher.inbox.logs = unread;
    watcher.until("all of it", |it| it.mirror.logs[&job].cursor().is_some_and(|at| at.records == 20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_target_begins_anew_and_the_old_one_hears_a_good_bye() {
    let (first, second) = (Orchestrator::start(10), Orchestrator::start(20));
    second.change(|script| script.journal = JournalId([4; 16]));
    first.change(|script| (script.hangs, script.records) = (true, 10_000));
    let mut watcher = Watcher::start(&first);
    watcher.until_event(10).await;
    let job = samples::job_id(1);
    watcher.live.send(ToLive::Follow(job, None));
    watcher.live.send(ToLive::Ask(AskId(1), Box::new(JobQuery { job: Text::cut("old") }.into())));
    first.until("the request", |seen| !seen.asked.is_empty() && !seen.logs_from.is_empty()).await;
    watcher.live.send(ToLive::UseTarget(Box::new(second.target("second"))));
    watcher.until("the other target", |it| it.links.iter().filter(|link| **link == "target").count() == 2).await;
    assert_eq!(watcher.answers, [(1, Err("failed"))]);
    assert!(watcher.mirror.logs.is_empty() && watcher.mirror.jobs.is_empty() && watcher.mirror.mark.is_none());
    watcher.until_event(20).await;
    assert_eq!(watcher.numbers(), (1..=20).collect::<Vec<_>>());
    assert!(watcher.mirror.logs.is_empty(), "no output of the old one comes late");
    first.until("the good-bye", |seen| !seen.closed.is_empty()).await;
    watcher.live.close().await;
    second.until("the good-bye", |seen| !seen.closed.is_empty()).await;
    assert_eq!(second.seen(|seen| seen.closed.clone()), first.seen(|seen| seen.closed.clone()));
    assert!(second.seen(|seen| seen.closed[0].contains("done")), "{:?}", second.seen(|seen| seen.closed.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_goes_on_where_it_was_stored() {
    let orchestrator = Orchestrator::start(1);
    let mut watcher = Watcher::start(&orchestrator);
    let job = samples::job_id(1);
    watcher.live.send(ToLive::Input(job, Bytes::from_static(b"first ")));
    watcher.until("the first piece", |it| it.inputs.contains(&Ok((6, false)))).await;
    orchestrator.cut();
    watcher.live.send(ToLive::Input(job, Bytes::from_static(b"second")));
    watcher.live.send(ToLive::Input(job, Bytes::new()));
    watcher.live.send(ToLive::Input(job, Bytes::from_static(b"too late")));
    watcher.until("the end", |it| it.inputs.contains(&Ok((12, true)))).await;
    assert_eq!(orchestrator.seen(|seen| seen.input.clone()), b"first second");
    assert!(watcher.inputs.contains(&Err("failed")), "what comes after the end is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_that_is_not_there_is_tried_again_and_a_missing_identity_is_not() {
    let orchestrator = Orchestrator::start(1);
    let mut target = orchestrator.target("first");
    target.identity = orchestrator.folder.path().join("nobody");
    let (live, inbox) = start(target, PATIENCE);
    let mut watcher = Watcher { live, inbox, ..Watcher::start(&orchestrator) };
    watcher.until("the refusal", |it| it.links == ["target", "connecting", "refused"]).await;
    let LinkState::Refused(failure) = &watcher.mirror.link else { panic!("{:?}", watcher.mirror.link) };
    assert_eq!(failure.code, "not_logged_in");
    watcher.live.send(ToLive::Reconnect);
    watcher.until("the next one", |it| it.links[3..] == ["trying", "refused"]).await;
    let nowhere = Target { orchestrator: "127.0.0.1:1".into(), ..orchestrator.target("nowhere") };
    watcher.live.send(ToLive::UseTarget(Box::new(nowhere)));
    watcher.until("several tries", |it| it.links[5..] == ["target", "connecting", "lost", "trying", "lost"]).await;
    let LinkState::Lost { tries: 1, why, retry_at: Some(_), .. } = &watcher.mirror.link else {
        panic!("{:?}", watcher.mirror.link)
    };
    assert!(why.contains("127.0.0.1:1"), "{why}");
    watcher.live.send(ToLive::UseTarget(Box::new(orchestrator.target("first"))));
    watcher.until("the right one", |it| it.links.ends_with(&["welcome", "live"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_that_died_without_a_word_is_missed_long_before_its_silence_is_proof() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let orchestrator = {
        let _inside = runtime.enter();
        Orchestrator::start(3)
    };
    let mut watcher = Watcher::start(&orchestrator);
    watcher.until_event(3).await;
    // As a kill does it: nothing is sent any more, and the port is closed.
    tokio::task::block_in_place(|| runtime.shutdown_timeout(PATIENCE));
    drop(orchestrator);
    watcher.until("the loss", |it| it.links.contains(&"lost")).await;
    let LinkState::Lost { why, .. } = &watcher.mirror.link else { panic!("{:?}", watcher.mirror.link) };
    assert!(why.starts_with("no program listens on 127.0.0.1:"), "{why}");
}
