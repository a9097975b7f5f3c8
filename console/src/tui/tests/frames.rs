//! How long a frame takes in a pool of 10,000 nodes and 50,000 jobs on a screen of 200 columns and 60 rows, in every view: what a
//! message changes, what is drawn, and the bytes of what is new, as they go to a terminal. Nothing in it waits, so what counts is time
//! on a processor, which is the same whatever else the machine does. It prints what it measures and decides by none of it. For numbers
//! that count:
//!
//! ```text
//! cargo test --release -p modchain --bin modchain frames -- --nocapture
//! ```

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use modchain_types::{List, Micro, WallTime};
use modchain_wire::Data;
use modchain_wire::agent::OutputStream;
use modchain_wire::console::{LedgerPage, LedgerQuery, LogChunk, LogCursor, StateDelta};
use modchain_wire::view::{JobView, LedgerKind};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::super::app::{App, Place, View};
use super::super::msg::Msg;
use super::super::update::{open, update};
use super::super::view::draw;
use super::world::{console, give, list, press, snapshot, welcome};
use crate::client::live::{AskId, FromLive, LinkState, LogItem};
use crate::client::mirror::{EVENTS_MAX, LEDGER_MAX};
use crate::client::samples;

const SIZE: (u16, u16) = (200, 60);
/// Frames of each kind: a program that is not optimised only shows that it works.
const FRAMES: u64 = if cfg!(debug_assertions) { 3 } else { 300 };

/// A terminal that counts the bytes that are written to it.
#[derive(Default, Clone)]
struct Counted(Rc<Cell<u64>>);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.set(self.0.get() + bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What frames are drawn on.
struct Screen {
    terminal: Terminal<CrosstermBackend<Counted>>,
    counted: Counted,
}

impl Screen {
    fn new() -> Self {
        let counted = Counted::default();
        let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, SIZE.0, SIZE.1)) };
        let terminal = Terminal::with_options(CrosstermBackend::new(counted.clone()), options).expect("a screen");
        Self { terminal, counted }
    }

    /// Draws a frame; how many bytes that were.
    fn draw(&mut self, app: &mut App) -> u64 {
        let before = self.counted.0.get();
        self.terminal.draw(|frame| draw(app, frame)).expect("draws");
        app.drawn();
        self.counted.0.get() - before
    }
}

fn large() -> (App, Vec<JobView>) {
    let mut app = console(SIZE);
    app.now.wall = samples::AT.plus(modchain_types::Span::from_secs(900));
    give(&mut app, FromLive::Link(LinkState::Live));
    give(&mut app, FromLive::Welcome(Box::new(welcome())));
    let (jobs, nodes) = samples::large(10_000, 50_000);
    let page = |jobs: &[JobView]| {
        let mut page = snapshot(jobs.to_vec(), Vec::new());
        page.last = false;
        page
    };
    for jobs in jobs.chunks(200) {
        give(&mut app, FromLive::Snapshot(Box::new(page(jobs))));
    }
    for nodes in nodes.chunks(200) {
        let mut page = snapshot(Vec::new(), nodes.to_vec());
        page.last = false;
        give(&mut app, FromLive::Snapshot(Box::new(page)));
    }
    give(&mut app, FromLive::Snapshot(Box::new(snapshot(Vec::new(), Vec::new()))));
    let number = |number: usize| u64::try_from(number).expect("fits");
    let events = (0..EVENTS_MAX).map(|event| samples::event_view(number(event) % 800));
    give(&mut app, FromLive::Events(events.enumerate().map(|(at, event)| numbered(number(at), event)).collect()));
    let ledger = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 1000, before: None };
    for page in 0..LEDGER_MAX / 1_000 {
        let entries = (page * 1_000..(page + 1) * 1_000)
            .map(|entry| samples::ledger_entry(number(entry), WallTime(samples::AT.0), LedgerKind::Hold, -5));
        let account = samples::identity().account;
        let page = LedgerPage { account, items: list(entries.collect()), more: false };
        give(&mut app, FromLive::Answer(AskId(u64::MAX), Box::new(ledger.clone().into()), Ok(Box::new(page.into()))));
    }
    (app, jobs)
}

fn numbered(number: u64, event: modchain_wire::view::EventView) -> modchain_wire::view::EventView {
    modchain_wire::view::EventView { number, ..event }
}

/// The change of this number: output, a job that costs more, a node that is busier, an event.
fn change(app: &mut App, number: u64, job: &JobView) {
    let text: String = (0..200).map(|line| format!("step {number}.{line} of a long way\n")).collect();
    let chunk = LogChunk {
        cursor: LogCursor { attempt: 1, records: number + 1 },
        stream: OutputStream::Out,
        offset: number * 1_000_000,
        at: samples::AT,
        data: Data::new(text.into_bytes()).expect("fits"),
    };
    give(app, FromLive::Log(job.id, LogItem::Chunk(Box::new(chunk))));
    let mut node = app.mirror.nodes.values().next().map(|node| (**node).clone()).expect("a node");
    node.load.iter_mut().for_each(|load| load.cpu_permille = Some(u16::try_from(number % 1_000).expect("fits")));
    let upto = app.mirror.mark.expect("a snapshot came").upto;
    let delta = StateDelta {
        prev: upto,
        upto: upto + 1,
        jobs: list(vec![JobView { cost: Micro(job.cost.0 + number * 10_000), ..job.clone() }]),
        nodes: list(vec![node]),
        gone: List::default(),
        account: Some(samples::account_view(Micro(98_000_000 - number * 10_000))),
        events: list(vec![numbered(1_000_000 + number, samples::event_view(number))]),
    };
    give(app, FromLive::Delta(Box::new(delta)));
}

/// What this thread has had of a processor.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("  {what}: half within {:?}, 99 of 100 within {:?}", at(50), at(99));
}

#[test]
fn frames_of_a_large_pool_show_what_is_new_and_nothing_else() {
    let (mut app, jobs) = large();
    let job = jobs.iter().find(|job| job.node.is_some() && job.ended_at.is_none()).expect("one runs").clone();
    let node = app.mirror.nodes.keys().next().cloned().expect("a node");
    let inside = [Place::Node(node), Place::Job(job.id), Place::Output(job.id)];
    let places = View::ALL.into_iter().map(|view| (view, None)).chain(inside.map(|place| (View::Jobs, Some(place))));
    let mut number = 0;
    for (view, place) in places {
        app.ui.opened.clear();
        app.ui.view = view;
        if let Some(place) = &place {
            open(&mut app, place.clone());
        }
        println!("{}:", place.map_or_else(|| format!("{view:?}"), |place| format!("{place:?}")));
        update(&mut app, Msg::Deadline);
        let mut screen = Screen::new();
        screen.draw(&mut app);
        let nothing = screen.draw(&mut app);
        let mut times = [const { Vec::new() }; 3];
        for round in 0..FRAMES {
            // Rows may change their places again, and times have gone on.
            app.now.ms += 1_500;
            app.now.wall = app.now.wall.plus(modchain_types::Span::from_millis(1_500));
            number += 1;
            let begun = spent();
            change(&mut app, number, &job);
            times[0].push(spent() - begun);
            let bytes = screen.draw(&mut app);
            times[1].push(spent() - begun);
            assert!(bytes > nothing, "a change is not shown");
            let bytes = screen.draw(&mut app);
            assert_eq!(bytes, nothing, "bytes although nothing is new");
            let begun = spent();
            press(&mut app, if round % 2 == 0 { &["j"] } else { &["k"] });
            screen.draw(&mut app);
            times[2].push(spent() - begun);
        }
        let [changes, frames, keys] = times;
        print("a change is taken in", changes);
        print("a change and its frame", frames);
        print("a key and its frame", keys);
    }
}
