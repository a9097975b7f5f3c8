//! A small pool that never changes: what the tests of the whole console look at.

use std::collections::BTreeMap;
use std::time::Duration;

use modchain_types::*;
use modchain_wire::agent::{GpuSample, HostLoad, OutputStream};
use modchain_wire::console::{
    ConsoleWelcome, IdentitiesPage, IdentitiesQuery, LedgerPage, LedgerQuery, LogChunk, LogCursor, StateSnapshot,
    TokensPage, TokensQuery,
};
use modchain_wire::view::*;
use modchain_wire::{Data, FromConsole, Message, ToConsole};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::app::{App, Caps, Now, View};
use super::super::keys::Keymap;
use super::super::msg::{Effect, Msg};
use super::super::theme::ThemeName;
use super::super::update::update;
use super::super::view::draw;
use crate::cli::docs::tests::{ended_job, node_view};
use crate::client::live::{AskId, FromLive, LinkState, LogItem, ToLive, Welcome};

/// The moment that everything is looked at.
pub(in crate::tui) const NOW: WallTime = WallTime(1_795_356_201_000);

pub(in crate::tui) fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).expect("fits")
}

pub(in crate::tui) fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

pub(in crate::tui) fn ago(secs: u64) -> WallTime {
    WallTime(NOW.0 - i64::try_from(secs * 1_000).expect("a short time"))
}

/// The size of a screen.
pub(in crate::tui) type Size = (u16, u16);

/// A console of this size that has seen nothing yet.
pub(in crate::tui) fn console(size: Size) -> App {
    let caps = Caps {
        columns: size.0,
        rows: size.1,
        ascii: false,
        read_only: false,
        replay: false,
        context: "prod".into(),
        accent: None,
        contexts: vec!["prod".into(), "staging".into()],
        keymap: Keymap::default(),
        sample: None,
        folder: "/nowhere".into(),
        max_cost: None,
    };
    App::new(caps, ThemeName::Dark, true, Now { wall: NOW, ms: 60_000 })
}

/// Gives a message and forgets what follows.
pub(in crate::tui) fn give(app: &mut App, message: FromLive) -> Vec<Effect> {
    update(app, Msg::Live(Box::new(message)))
}

/// Presses keys, one after the other.
pub(in crate::tui) fn press(app: &mut App, keys: &[&str]) -> Vec<Effect> {
    keys.iter().flat_map(|key| update(app, Msg::Key((*key).to_owned()))).collect()
}

/// Lets time go by.
pub(in crate::tui) fn wait(app: &mut App, ms: u64) -> Vec<Effect> {
    app.now.ms += ms;
    app.now.wall = app.now.wall.plus(Span::from_millis(ms));
    update(app, Msg::Deadline)
}

/// The lines of the screen.
pub(in crate::tui) fn screen(app: &App) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(app.caps.columns, app.caps.rows)).expect("a screen");
    terminal.draw(|frame| draw(app, frame)).expect("draws");
    let buffer = terminal.backend().buffer();
    let line = |row| (0..buffer.area.width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..buffer.area.height).map(line).collect()
}

/// Asserts that each of these stands on a line of the screen.
#[track_caller]
pub(in crate::tui) fn shows(app: &App, parts: &[&str]) {
    let lines = screen(app);
    for part in parts {
        assert!(lines.iter().any(|line| line.contains(part)), "`{part}` is not in\n{}", lines.join("\n"));
    }
}

/// The requests among effects.
pub(in crate::tui) fn asked(effects: Vec<Effect>) -> Vec<FromConsole> {
    let request = |effect| if let Effect::Send(ToLive::Ask(_, request)) = effect { Some(*request) } else { None };
    effects.into_iter().filter_map(request).collect()
}

/// The states of the link that every view is looked at in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tui) enum Link {
    Live,
    Lost,
    /// Connected, and there is nothing at all.
    Empty,
    /// Not connected yet.
    Loading,
}

impl Link {
    pub(super) const ALL: [Self; 4] = [Self::Live, Self::Lost, Self::Empty, Self::Loading];
}

/// A console in this state of the link.
pub(in crate::tui) fn seen(size: Size, link: Link) -> App {
    let mut app = console(size);
    give(&mut app, FromLive::Link(LinkState::Connecting));
    if link == Link::Loading {
        return app;
    }
    give(&mut app, FromLive::Link(LinkState::Live));
    give(&mut app, FromLive::Welcome(Box::new(welcome())));
    give(&mut app, FromLive::Rtt(Duration::from_millis(14)));
    if link == Link::Empty {
        give(&mut app, FromLive::Snapshot(Box::new(snapshot(Vec::new(), Vec::new()))));
        return settled(app);
    }
    give(&mut app, FromLive::Snapshot(Box::new(snapshot(jobs(), nodes()))));
    give(&mut app, FromLive::Events(events()));
    let ledger = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 1000, before: None };
    answer(
        &mut app,
        ledger.into(),
        LedgerPage { account: account("alice"), items: list(entries()), more: false }.into(),
    );
    for chunk in output() {
        give(&mut app, FromLive::Log(job_id(1), LogItem::Chunk(Box::new(chunk))));
    }
    give(&mut app, FromLive::Log(job_id(1), LogItem::CaughtUp));
    let members = IdentitiesQuery { role: None, revoked: true, limit: 500, after: None };
    answer(&mut app, members.into(), IdentitiesPage { items: list(members_all()), total: 2, more: false }.into());
    answer(&mut app, TokensQuery { ended: true }.into(), TokensPage { items: list(tokens()), total: 1 }.into());
    if link == Link::Lost {
        give(
            &mut app,
            FromLive::Link(LinkState::Lost {
                since: ago(9),
                why: "no answer from orch.prod:7443".into(),
                retry_at: Some(NOW.plus(Span::from_secs(4))),
                tries: 3,
            }),
        );
    }
    settled(app)
}

/// Without toasts, and with every table in its order.
fn settled(mut app: App) -> App {
    app.ui.toasts.clear();
    for view in View::ALL {
        app.ui.view = view;
        update(&mut app, Msg::Deadline);
    }
    app.ui.view = View::Overview;
    update(&mut app, Msg::Deadline);
    app
}

fn answer(app: &mut App, asked: FromConsole, reply: ToConsole) {
    give(app, FromLive::Answer(AskId(u64::MAX), Box::new(asked), Ok(Box::new(reply))));
}

pub(in crate::tui) fn list<T: std::fmt::Debug, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::new(items).expect("fits")
}

pub(in crate::tui) fn account(name: &str) -> AccountId {
    name.parse().expect("an account")
}

fn identity(id: u8, role: Role, name_of: &str, account_of: &str) -> Identity {
    Identity { id: IdentityId([id; 16]), role, name: name(name_of), account: account(account_of) }
}

pub(in crate::tui) fn welcome() -> Welcome {
    Welcome {
        welcome: ConsoleWelcome {
            types: FromConsole::known_types(),
            version: text("0.1.0"),
            pool: "lab".parse().expect("a name"),
            identity: identity(9, Role::Client, "alice", "alice"),
            journal: JournalId([5; 16]),
            asset: Asset::Usdc,
            streams_max: 64,
            wall: NOW,
        },
        address: "orch.prod:7443".into(),
        clock_ahead_ms: 0,
    }
}

pub(in crate::tui) fn snapshot(jobs: Vec<JobView>, nodes: Vec<NodeView>) -> StateSnapshot {
    StateSnapshot {
        journal: JournalId([5; 16]),
        upto: 100,
        jobs: list(jobs),
        nodes: list(nodes),
        account: Some(AccountView {
            id: account("alice"),
            available: Micro(412_700_000),
            held: Micro(63_100_000),
            earned: Micro::ZERO,
            open_jobs: 3,
            burn_per_hour: Micro(6_020_000),
        }),
        last: true,
    }
}

pub(in crate::tui) fn job_id(number: u8) -> JobId {
    let mut bytes = [0x5a; 16];
    bytes[0] = number.wrapping_mul(37);
    JobId(bytes)
}

fn live_job(number: u8, called: &str, what: &str, node: Option<&str>, state: JobState) -> JobView {
    let started = node.is_some() && state != JobState::Starting;
    let attempts = node.map(|node| AttemptView {
        number: 1,
        node: name(node),
        fence: Fence(u64::from(number)),
        state,
        reason: None,
        message: text(""),
        assigned_at: ago(740),
        started_at: started.then(|| ago(728)),
        ended_at: None,
    });
    JobView {
        id: job_id(number),
        name: text(called),
        what: text(what),
        adapter: Adapter::Docker,
        state,
        reason: None,
        exit: None,
        node: node.map(name),
        attempts: list(attempts.into_iter().collect()),
        hold: Micro(2_000_000),
        cost: Micro(240_000),
        fee: Micro::ZERO,
        refund: Micro::ZERO,
        price_per_hour: Some(Micro(1_200_000)),
        labels: Map::new(BTreeMap::from([(text("sweep"), text("a"))])).expect("fits"),
        gpus: if started { list(vec![(text("GPU-zurich-03-0"), text("A100"))]) } else { List::default() },
        output: OutputLengths { stdout: 96_000, stderr: 120, dropped: 0 },
        usage: Usage::default(),
        created_at: ago(750),
        started_at: started.then(|| ago(728)),
        ended_at: None,
        ..ended_job()
    }
}

pub(in crate::tui) fn jobs() -> Vec<JobView> {
    let mut waiting = live_job(2, "pretrain-tiny", "acme/train:2", None, JobState::Queued);
    waiting.message = text("no node has 2 GPUs with 80 GiB free");
    let mut done = live_job(3, "whisper-de", "acme/whisper:1", Some("oslo-07"), JobState::Completed);
    (done.exit, done.reason) = (Some(Exit::job(0)), Some(Reason::Exit));
    (done.cost, done.fee, done.refund) = (Micro(1_370_000), Micro(68_500), Micro(630_000));
    done.ended_at = Some(ago(537));
    let mut failed = live_job(4, "", "ocr.wasm pages/*.png", Some("lyon-11"), JobState::Failed);
    (failed.exit, failed.reason) = (Some(Exit::job(3)), Some(Reason::Exit));
    (failed.adapter, failed.gpus) = (Adapter::Wasm, List::default());
    failed.ended_at = Some(ago(724));
    let mut again = live_job(5, "diffusers", "acme/diffusers:7", Some("oslo-02"), JobState::Queued);
    again.attempts = list(vec![AttemptView {
        state: JobState::Failed,
        reason: Some(Reason::NodeLost),
        ended_at: Some(ago(60)),
        ..again.attempts[0].clone()
    }]);
    (again.started_at, again.gpus) = (None, List::default());
    let wide = live_job(6, "漢字-名前-テスト", "acme/名:1", Some("zurich-03"), JobState::Starting);
    vec![
        live_job(1, "llama-eval", "ghcr.io/acme/eval:4 python eval.py", Some("zurich-03"), JobState::Running),
        waiting,
        done,
        failed,
        again,
        wide,
    ]
}

fn gpu(busy: u8) -> GpuSample {
    GpuSample {
        busy_pct: Some(busy),
        memory_used_bytes: Some(70 << 30),
        temperature_c: Some(74),
        power_mw: Some(398_000),
    }
}

pub(in crate::tui) fn nodes() -> Vec<NodeView> {
    let node = |number: u8, called: &str, gpus: &[u8], state| {
        let mut node = node_view();
        node.id = NodeId([number; 16]);
        node.name = name(called);
        node.state = state;
        node.drains_at = None;
        node.connected_at = Some(ago(14 * 86_400));
        node.seen_at = Some(ago(1));
        node.attempts = u32::from(number);
        let offer = node.offer.as_mut().expect("has one");
        let one = offer.capabilities.gpus[0].clone();
        let all = (0..gpus.len()).map(|index| {
            let uuid = Text::cut(format!("GPU-{called}-{index}"));
            modchain_types::GpuInfo { uuid, model: text("A100-80GB"), ..one.clone() }
        });
        offer.capabilities.gpus = list(all.collect());
        let pool = if gpus.is_empty() { "cpu" } else { "a100-80g" };
        offer.capabilities.labels = Map::new(BTreeMap::from([(text("pool"), text(pool))])).expect("fits");
        node.gpus = list(gpus.iter().map(|busy| gpu(*busy)).collect());
        node.load = Some(HostLoad {
            cpu_permille: Some(340),
            memory_used_bytes: 6 << 30,
            memory_total_bytes: 16 << 30,
            disk_free_bytes: 1 << 40,
        });
        node
    };
    let mut lost = node(4, "oslo-02", &[0, 0], NodeState::Lost);
    (lost.seen_at, lost.gpus, lost.load, lost.rtt) = (Some(ago(240)), List::default(), None, None);
    let mut drained = node(5, "lyon-11", &[], NodeState::Draining);
    drained.drains_at = Some(NOW.plus(Span::from_secs(600)));
    vec![
        node(1, "zurich-01", &[99, 98, 97, 94], NodeState::Ready),
        node(2, "zurich-03", &[92, 91], NodeState::Ready),
        node(3, "zurich-04", &[88], NodeState::Cordoned),
        lost,
        drained,
        node(6, "oslo-07", &[], NodeState::Ready),
    ]
}

pub(in crate::tui) fn events() -> Vec<EventView> {
    let event = |number, secs, kind, job: Option<u8>, node: Option<&str>, said: &str| EventView {
        number,
        at: ago(secs),
        kind,
        job: job.map(job_id),
        attempt: None,
        node: node.map(name),
        account: job.map(|_| account("alice")),
        from: None,
        to: None,
        reason: None,
        text: text(said),
    };
    vec![
        event(90, 800, EventKind::Node, None, Some("lyon-11"), "lyon-11 joined"),
        event(91, 750, EventKind::Job, Some(1), None, "submitted, 2.00 USDC held"),
        event(92, 728, EventKind::Job, Some(1), Some("zurich-03"), "running on zurich-03"),
        event(93, 724, EventKind::Job, Some(4), Some("lyon-11"), "failed with exit code 3, cost 0.24 USDC"),
        event(94, 240, EventKind::Node, None, Some("oslo-02"), "oslo-02 is lost"),
        event(95, 30, EventKind::System, None, None, "started again"),
    ]
}

fn entries() -> Vec<LedgerEntryView> {
    let entry = |number, secs, kind, amount, balance, job: Option<u8>| LedgerEntryView {
        number,
        at: ago(secs),
        kind,
        amount,
        balance: Micro(balance),
        job: job.map(job_id),
        text: text(""),
    };
    vec![
        entry(10, 20_000, LedgerKind::Deposit, 200_000_000, 413_070_000, None),
        entry(91, 750, LedgerKind::Hold, -2_000_000, 411_070_000, Some(1)),
        entry(96, 537, LedgerKind::Settle, -1_370_000, 411_070_000, Some(3)),
        entry(97, 537, LedgerKind::Release, 630_000, 412_700_000, Some(3)),
    ]
}

fn output() -> Vec<LogChunk> {
    let lines: [(OutputStream, &[u8]); 5] = [
        (OutputStream::Out, b"loading checkpoint shards: 100%\n"),
        (OutputStream::Out, b"\x1b[32mmodel ready\x1b[0m, 8.03 B parameters, bf16\n"),
        (OutputStream::Err, b"warning: flash-attn not found, falling back to sdpa\n"),
        (OutputStream::Out, b"eval 1/57 mmlu_abstract_algebra  acc 0.34\n\x1b]52;c;aGk=\x07eval 2/57 acc 0.64\n"),
        (OutputStream::Out, "漢字 and a line without an end".as_bytes()),
    ];
    let mut offsets = [0u64; 2];
    let chunks = lines.iter().enumerate().map(|(index, (stream, bytes))| {
        let offset = &mut offsets[usize::from(*stream == OutputStream::Err)];
        let before = *offset;
        *offset += bytes.len() as u64;
        LogChunk {
            cursor: LogCursor { attempt: 1, records: index as u64 + 1 },
            stream: *stream,
            offset: before,
            at: ago(700 - index as u64),
            data: Data::new(bytes::Bytes::copy_from_slice(bytes)).expect("fits"),
        }
    });
    chunks.collect()
}

fn members_all() -> Vec<IdentityView> {
    let member = |id, role, called: &str, account: &str, state| IdentityView {
        identity: identity(id, role, called, account),
        state,
        joined_at: ago(86_400),
        certificates: list(vec![CertificateView {
            serial: CertificateSerial([id; 16]),
            issued_at: ago(3_600),
            expires_at: NOW.plus(Span::from_secs(82_800)),
            renews_at: NOW.plus(Span::from_secs(54_000)),
            used: true,
        }]),
        renewals: 3,
        connections: 1,
        revoked_at: None,
        why: text(""),
    };
    vec![
        member(9, Role::Client, "alice", "alice", IdentityState::Active),
        member(1, Role::Node, "zurich-01", "owner", IdentityState::Active),
        IdentityView {
            revoked_at: Some(ago(7_200)),
            why: text("sold"),
            certificates: List::default(),
            connections: 0,
            ..member(7, Role::Node, "rig-1", "owner", IdentityState::Revoked)
        },
    ]
}

fn tokens() -> Vec<TokenView> {
    vec![TokenView {
        id: "mzxw6ytb".parse().expect("a token"),
        role: Role::Node,
        name: Some(name("rig-2")),
        account: Some(account("owner")),
        issued_by: Some(name("op")),
        issued_at: ago(300),
        expires_at: NOW.plus(Span::from_secs(600)),
        state: TokenState::Issued,
        identity: None,
        from: None,
        alarms: List::default(),
    }]
}
