//! What the console costs, measured on the real program on a pseudo-terminal with recordings that these tests make: at rest, at a
//! change a second, and with 10,000 nodes, 50,000 jobs (of which 5,000 have ended) and 20,000 lines of output a second. They print
//! what they measure and decide by none of it: machines differ. For numbers that count, on the program as it is shipped and for
//! longer than a test should take:
//!
//! ```text
//! cargo build --release -p modchain
//! MODCHAIN_TEST_PROGRAM=target/release/modchain MODCHAIN_MEASURE_SECONDS=60 \
//!     cargo test -p modchain --test tui_load -- --nocapture --test-threads 1
//! ```
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/effort.rs"]
mod effort;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/recording.rs"]
mod recording;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/samples.rs"]
mod samples;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::term::{ESC, Start, Term};
use common::{Home, Stack, signal};
use effort::{Effort, memory, spread};
use modchain_types::{Asset, List, Micro, WallTime};
use modchain_wire::Data;
use modchain_wire::agent::OutputStream;
use modchain_wire::console::{LogChunk, LogCursor, StateDelta};
use modchain_wire::view::{JobView, NodeView};
use recording::Recording;

const NODES: usize = 10_000;
const JOBS: u64 = 50_000;
/// The screen on which everything is measured.
const SIZE: (u16, u16) = (200, 60);
/// Keys whose time to the screen is measured.
const KEYS: usize = 200;
/// Lines of output in one piece, and pieces a second.
const LINES: u64 = 200;
const PIECES: u64 = 100;
/// What is on the screen while the help lies over it, in its last row.
const HELP: &str = "type to search keys";

/// How long something is watched.
fn watched() -> Duration {
    let seconds = std::env::var("MODCHAIN_MEASURE_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(10))
}

/// A recording that begins with this pool.
fn pool(jobs: &[JobView], nodes: &[NodeView]) -> Recording {
    let mut tape = Recording::new(samples::AT);
    tape.target("large");
    tape.connecting();
    tape.welcome(recording::welcome(samples::identity(), Asset::Test), "127.0.0.1:1", 0);
    tape.live();
    tape.everything(1, jobs.to_vec(), nodes.to_vec(), samples::account_view(Micro(98_000_000)));
    tape
}

/// The change of this number, counted from 1: a job costs more, a node is busier, the account pays, something has happened.
fn change(number: u64, job: &JobView, node: &NodeView) -> StateDelta {
    let cost = Micro(job.cost.0 + number * 10_000);
    let mut node = node.clone();
    node.load.iter_mut().for_each(|load| load.cpu_permille = Some(u16::try_from(number % 1_000).expect("fits")));
    StateDelta {
        prev: number,
        upto: number + 1,
        jobs: List::cut(vec![JobView { cost, ..job.clone() }]),
        nodes: List::cut(vec![node]),
        gone: List::default(),
        account: Some(samples::account_view(Micro(98_000_000 - number * 10_000))),
        events: List::cut(vec![samples::event_view(number)]),
    }
}

fn write(home: &Home, name: &str, tape: &Recording) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, tape.text()).expect("writes");
    path
}

/// Shows a recording.
fn show(home: &Home, file: &std::path::Path, more: &[&str]) -> Term {
    let file = file.display().to_string();
    let line = [&["console", "--replay", &file][..], more].concat();
    Term::open_with(home, &line, Start { size: SIZE, ..Start::default() })
}

/// Presses `?` and Esc in turn and measures each until its whole frame is on the screen.
fn keys(term: &mut Term) -> Vec<Duration> {
    let last = SIZE.1 - 1;
    let mut times = Vec::with_capacity(KEYS);
    for round in 0..KEYS {
        let (key, there) = if round % 2 == 0 { ("?", true) } else { (ESC, false) };
        let begun = Instant::now();
        term.keys(key);
        term.wait("the help comes and goes", |screen| {
            screen.contents_between(last, 0, last, SIZE.0).contains(HELP) == there
        });
        times.push(begun.elapsed());
    }
    times
}

fn print_keys(what: &str, times: &mut [Duration]) {
    let (half, most, longest) = spread(times);
    println!("key to screen, {what}: half within {half:?}, 99 of 100 within {most:?}, all {KEYS} within {longest:?}");
}

#[test]
fn keys_are_answered_in_a_pool_of_any_size() {
    let home = Home::new();
    let (jobs, nodes) = samples::large(NODES, JOBS);
    let file = write(&home, "large.jsonl", &pool(&jobs, &nodes));
    let mut term = show(&home, &file, &["--view", "jobs", "--speed", "0"]);
    term.wait_for("MODCHAIN");
    let first = term.age();
    term.wait_for("50000 jobs");
    println!("first frame after {first:?}, everything after {:?} (load {})", term.age(), effort::load());
    print_keys("nothing comes", &mut keys(&mut term));
    // Every row can be reached, by the last one and by its name.
    term.press("G", "50000 jobs");
    term.keys("/");
    term.press("name=sweep-49999", "1 of 50000");
    term.keys("\r");
    for (key, tab) in [("2", "10000 nodes"), ("4", "[4 Events]"), ("5", "[5 Account]"), ("1", "[1 Overview]")] {
        term.press(key, tab);
    }
    println!("memory, every view seen: {} MB at most", memory(term.pid(), "VmHWM") / 1024);
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn an_output_of_20000_lines_a_second_is_followed_to_its_last_line_and_keys_are_answered_meanwhile() {
    let home = Home::new();
    let (jobs, nodes) = samples::large(NODES, JOBS);
    let job = jobs.iter().find(|job| job.node.is_some() && job.ended_at.is_none()).expect("one runs");
    let mut tape = pool(&jobs, &nodes);
    let pieces = 2 * watched().as_secs() * PIECES;
    let mut offset = 0;
    for piece in 0..pieces {
        tape.at(piece * 1_000 / PIECES);
        if piece % PIECES == 0 {
            let number = piece / PIECES + 1;
            tape.delta(change(number, job, &nodes[usize::try_from(number).expect("few") % NODES]));
        }
        let lines = (piece * LINES..(piece + 1) * LINES).map(|line| {
            format!("\x1b[32mstep {line:09}\x1b[0m loss 0.{:05} grad 1.{:03}\n", line % 99_991, line % 997)
        });
        let text: String = lines.collect();
        let length = text.len() as u64;
        tape.chunk(
            job.id,
            LogChunk {
                cursor: LogCursor { attempt: 1, records: piece + 1 },
                stream: OutputStream::Out,
                offset,
                at: WallTime(samples::AT.0 + i64::try_from(piece * 1_000 / PIECES).expect("fits")),
                data: Data::new(text.into_bytes()).expect("fits"),
            },
        );
        offset += length;
    }
    let over = JobView { id: job.id, name: job.name.clone(), ..samples::ended_job(0, 0) };
    tape.end(job.id, over);
    let file = write(&home, "flood.jsonl", &tape);
    drop(tape);
    let mut term = show(&home, &file, &["--view", "jobs", "--filter", &format!("name={}", job.name.as_str())]);
    term.wait_for("1 of 50000");
    term.press("l", "› output");
    term.wait_for("step 0");
    let (begun, first) = (Instant::now(), shown_line(&term));
    let before = Effort::of(term.pid());
    let mut times = keys(&mut term);
    let (time, spent) = (begun.elapsed(), Effort::of(term.pid()).since(&before));
    term.wait_for("step 0");
    let rate = (shown_line(&term) - first) as f64 / time.as_secs_f64();
    print_keys(&format!("{rate:.0} lines a second"), &mut times);
    println!("{:.1} % of a core meanwhile (load {})", spent.percent_of(time), effort::load());
    // However long that takes on this machine.
    let last = format!("step {:09}", pieces * LINES - 1);
    while !term.text().contains("completed, exit code 0") {
        term.pump(Duration::from_secs(1));
        assert!(term.age() < 4 * watched() + Duration::from_secs(300), "the end never comes:\n{}", term.picture());
    }
    assert!(term.text().contains(&last), "{}", term.picture());
    println!("memory, with the output: {} MB at most", memory(term.pid(), "VmHWM") / 1024);
    term.keys("q");
    term.ends_clean(0);
}

/// Number of the last line of the output on the screen.
fn shown_line(term: &Term) -> u64 {
    let text = term.text();
    let number = text.rsplit("step ").next().and_then(|rest| rest.get(..9)).expect("a line");
    number.parse().expect("a number")
}

/// What a console does while it is watched.
fn watch(terms: &mut [(String, Term)]) {
    let before: Vec<Effort> = terms.iter().map(|(_, term)| Effort::of(term.pid())).collect();
    let begun = Instant::now();
    while begun.elapsed() < watched() {
        for (_, term) in &mut *terms {
            term.pump(Duration::from_millis(20));
        }
    }
    let time = begun.elapsed();
    for ((what, term), before) in terms.iter().zip(&before) {
        let spent = Effort::of(term.pid()).since(before);
        println!(
            "{what}: {:.3} % of a core, {} ticks, {} switches in {:.1} s (load {})",
            spent.percent_of(time),
            spent.ticks,
            spent.switches,
            time.as_secs_f64(),
            effort::load()
        );
    }
}

#[test]
fn a_change_a_second_is_shown_and_costs_little() {
    let home = Home::new();
    let mut terms = Vec::new();
    for (name, nodes, jobs) in [("8 nodes, 100 jobs", 8, 100), ("10000 nodes, 50000 jobs", NODES, JOBS)] {
        let (jobs, nodes) = samples::large(nodes, jobs);
        let job = jobs.iter().find(|job| job.node.is_some() && job.ended_at.is_none()).expect("one runs");
        let mut tape = pool(&jobs, &nodes);
        // Long enough for whoever begins late.
        for number in 1..=watched().as_secs() + 600 {
            tape.at(number * 1_000);
            tape.delta(change(number, job, &nodes[usize::try_from(number).expect("few") % nodes.len()]));
        }
        let file = write(&home, &format!("{}.jsonl", jobs.len()), &tape);
        for view in ["jobs", "overview", "nodes"] {
            let mut term = show(&home, &file, &["--view", view]);
            term.wait_for(if jobs.len() > 1_000 { "10000" } else { "8/8" });
            terms.push((format!("a change a second, {name}, {view}"), term));
        }
    }
    let balance = |term: &Term| {
        let row = term.screen().contents_between(0, 0, 0, SIZE.0);
        row.split_whitespace().rev().nth(1).map(str::to_owned).expect("the balance is in the first row")
    };
    let before: Vec<String> = terms.iter().map(|(_, term)| balance(term)).collect();
    watch(&mut terms);
    for ((_, mut term), before) in terms.into_iter().zip(before) {
        term.wait("what comes is shown", |screen| !screen.contents_between(0, 0, 0, SIZE.0).contains(&before));
        term.keys("q");
        term.ends_clean(0);
    }
}

#[test]
fn where_nothing_comes_nothing_is_drawn() {
    let home = Home::new();
    let mut terms = Vec::new();
    for (name, nodes, jobs) in [("8 nodes, 100 jobs", 8, 100), ("10000 nodes, 50000 jobs", NODES, JOBS)] {
        let (jobs, nodes) = samples::large(nodes, jobs);
        let file = write(&home, &format!("{}.jsonl", jobs.len()), &pool(&jobs, &nodes));
        let mut term = show(&home, &file, &["--view", "jobs"]);
        term.wait_for(&format!("{} jobs", jobs.len()));
        terms.push((format!("an ended recording, {name}"), term));
    }
    // The last frame of the beginning is there when no other comes.
    for (_, term) in &mut terms {
        while term.pump(Duration::from_secs(8)) {
            assert!(term.age() < common::PATIENCE, "it is drawn again and again:\n{}", term.picture());
        }
    }
    let before: Vec<usize> = terms.iter().map(|(_, term)| term.raw.len()).collect();
    watch(&mut terms);
    for ((what, mut term), before) in terms.into_iter().zip(before) {
        assert_eq!(term.raw.len(), before, "{what} writes to its terminal:\n{}", term.picture());
        term.keys("q");
        term.ends_clean(0);
    }
}

#[test]
fn a_live_console_of_a_quiet_pool_rests() {
    let stack = Stack::start();
    let mut terms = Vec::new();
    for view in ["jobs", "nodes"] {
        let start = Start { size: SIZE, ..Start::default() };
        let mut term = Term::open_with(&stack.home, &["console", "--view", view], start);
        term.wait_for("● live");
        terms.push((format!("live, one node, {view}"), term));
    }
    // What the beginning brings is over then, and the ages of what has happened change once a minute.
    for (_, term) in &mut terms {
        while term.age() < Duration::from_secs(5) {
            term.pump(Duration::from_secs(1));
        }
    }
    watch(&mut terms);
    for (_, mut term) in terms {
        term.wait_for("● live");
        term.keys("q");
        term.ends_clean(0);
    }
}

#[test]
fn the_first_frame_is_drawn_before_the_link_is_there() {
    let mut stack = Stack::start();
    signal(&stack.up, "TERM");
    stack.up.wait().expect("ends");
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Start { size: SIZE, ..Start::default() };
        let mut term = Term::open_with(&stack.home, &[], start);
        term.wait("the tabs, before anybody answers", |screen| {
            screen.contents_between(1, 0, 1, SIZE.0).contains("[1 Overview]")
        });
        times.push(term.age());
        term.wait_for("LINK LOST");
        term.keys("q");
        term.ends_clean(0);
    }
    let (half, _, longest) = spread(&mut times);
    println!("first frame: half within {half:?}, all within {longest:?} (load {})", effort::load());
}
