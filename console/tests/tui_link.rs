//! The console while the orchestrator comes and goes, while nothing happens, and with recordings: the real program on a pseudo-terminal.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/effort.rs"]
mod effort;

use std::time::{Duration, Instant};

use common::term::{ENTER, Term, rows};
use common::{Stack, signal};
use effort::{Effort, Spent};

/// A console that has everything that its orchestrator knows.
fn live(stack: &Stack, args: &[&str]) -> Term {
    let mut term = Term::open(&stack.home, args);
    term.wait_for("● live");
    term
}

/// Three jobs: the one in the middle of the list is none that would be selected by itself.
fn three_jobs(stack: &Stack) {
    for name in ["keep-1", "keep-2", "other"] {
        stack.run(&["run", "-q", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", name]).expect(0);
    }
}

/// The numbers of the events that a console shows, the newest first, as it exports them; once it shows so many.
fn exported(stack: &Stack, term: &mut Term, file: &str, count: usize) -> Vec<u64> {
    term.press("4", "[4 Events]");
    term.wait_for(&format!(" {count} events"));
    term.keys(&format!(":export {file}\r"));
    term.wait_for(&format!("/{file}"));
    term.wait_for("written to");
    let text = std::fs::read_to_string(stack.home.path().join(file)).expect("reads");
    numbers(&text)
}

/// The numbers of events in these documents, one a line.
fn numbers(lines: &str) -> Vec<u64> {
    let documents = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    documents.map(|event| event["seq"].as_u64().unwrap_or_else(|| panic!("{event:#}"))).collect()
}

#[test]
fn an_orchestrator_that_is_killed_is_missed_and_the_console_goes_on_where_it_was_with_every_event_once() {
    let stack = Stack::start();
    three_jobs(&stack);
    // An operator sees everything that happens, so that one number follows the other.
    let listed = || numbers(&stack.run(&["-c", "local-operator", "events", "-o", "jsonl"]).expect(0).stdout);
    let args = ["-c", "local-operator", "console", "--view", "jobs", "--filter", "name:keep"];
    let mut term = live(&stack, &args);
    term.wait_for("2 of 3");
    let selected = |screen: &vt100::Screen| {
        let rows = common::term::selected(screen);
        rows.iter().find_map(|row| ["keep-1", "keep-2"].into_iter().find(|name| row.contains(*name)))
    };
    term.wait("one is selected", |screen| selected(screen).is_some());
    let first = selected(term.screen());
    term.keys("G");
    term.wait("the other one is selected", |screen| selected(screen).is_some_and(|name| Some(name) != first));
    let before = selected(term.screen());
    let events_before = listed();
    let mut shown = exported(&stack, &mut term, "before.json", events_before.len());
    shown.reverse();
    assert_eq!(shown, events_before);
    term.press("3", "2 of 3");
    // It is not started again before that was seen.
    signal(&stack.up, "STOP");
    stack.kill_orchestrator();
    // No key was pressed.
    term.wait_for("LINK LOST");
    assert_eq!(selected(term.screen()), before, "{}", term.picture());
    signal(&stack.up, "CONT");
    term.wait_for("● live");
    term.wait_gone("LINK LOST");
    assert_eq!(selected(term.screen()), before, "{}", term.picture());
    // What happens now arrives again, and the filter still holds.
    stack.run(&["run", "-q", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", "keep-3"]).expect(0);
    term.wait_for("3 of 4");
    assert!(term.row_with("other").is_none(), "{}", term.picture());
    assert_eq!(selected(term.screen()), before, "{}", term.picture());
    // Every event is there once, in order and without a gap: those from before, those of the restart and the new ones.
    let events = listed();
    assert!(events.starts_with(&events_before) && events.len() > events_before.len(), "{events:?}");
    assert!(events.windows(2).all(|two| two[1] == two[0] + 1), "{events:?}");
    let mut shown = exported(&stack, &mut term, "after.json", events.len());
    shown.reverse();
    assert_eq!(shown, events);
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn an_orchestrator_that_stands_still_is_marked_as_silent_until_it_goes_on() {
    let stack = Stack::start();
    three_jobs(&stack);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_for("3 jobs");
    stack.signal_orchestrator("STOP");
    // No key was pressed.
    term.wait_for("● silent ");
    term.wait_for("STALE");
    assert!(term.row_with("LINK LOST").is_none(), "{}", term.picture());
    stack.signal_orchestrator("CONT");
    term.wait_for("● live");
    term.wait_gone("STALE");
    term.wait_for("3 jobs");
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn an_orchestrator_that_stands_still_is_missed_and_its_data_stays() {
    let stack = Stack::start();
    three_jobs(&stack);
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    term.wait_for("3 jobs");
    let stopped = stack.orchestrator();
    stack.signal_orchestrator("STOP");
    term.wait_for("LINK LOST");
    for name in ["keep-1", "keep-2", "other"] {
        assert!(term.row_with(name).is_some(), "{name}:\n{}", term.picture());
    }
    // Keys are answered meanwhile.
    term.press("2", "[2 Nodes]");
    term.press("3", "[3 Jobs]");
    // It goes on, if `up` has not lost its patience and put another one into its place.
    let _ = std::process::Command::new("kill").args(["-CONT", &stopped]).output();
    // Nobody wants to wait for the next try.
    term.keys("R");
    term.wait_for("● live");
    term.wait_gone("LINK LOST");
}

/// What the program does within ten seconds.
fn ten_seconds(term: &mut Term) -> Spent {
    let (begun, before) = (Instant::now(), Effort::of(term.pid()));
    while begun.elapsed() < Duration::from_secs(10) {
        term.pump(Duration::from_secs(1));
    }
    Effort::of(term.pid()).since(&before)
}

#[test]
fn a_console_to_which_nothing_comes_does_nothing() {
    let stack = Stack::start();
    let file = stack.home.path().join("quiet.jsonl").display().to_string();
    record(&stack, &file, &["quiet"]);
    let mut term = Term::open(&stack.home, &["console", "--view", "nodes", "--replay", &file, "--speed", "0"]);
    term.wait_for("recording");
    term.wait_for("[2 Nodes]");
    // What the beginning brings, such as a toast, is over when nothing is drawn for a while.
    while term.pump(Duration::from_secs(8)) {
        assert!(term.age() < Duration::from_secs(60), "it is drawn again and again:\n{}", term.picture());
    }
    let Spent { ticks, switches, .. } = ten_seconds(&mut term);
    println!("nothing comes: {ticks} ticks and {switches} switches in 10 s");
    assert!(ticks <= 2, "{ticks} ticks");
    // With a link there would be keep-alives; a recording has none. Another thread may wake once for the end of its input.
    assert!(switches <= 5, "{switches} switches");
    // A pool in which nothing is done sends a heartbeat and a load now and then.
    let mut term = live(&stack, &["console", "--view", "jobs"]);
    while term.age() < Duration::from_secs(8) {
        term.pump(Duration::from_secs(1));
    }
    let Spent { ticks, switches, .. } = ten_seconds(&mut term);
    println!("a quiet pool: {ticks} ticks and {switches} switches in 10 s");
}

/// Records a console in which these jobs are run.
fn record(stack: &Stack, file: &str, names: &[&str]) {
    let mut term = live(stack, &["console", "--view", "jobs", "--record", file]);
    for name in names {
        stack.run(&["run", "-q", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", name]).expect(0);
        term.wait(name, |screen| rows(screen).any(|row| row.contains(name) && row.contains("✓ done")));
    }
    term.keys("q");
    term.ends_clean(0);
}

#[test]
fn a_recording_shows_what_was_there_and_nothing_can_be_done_in_it() {
    let mut stack = Stack::start();
    let file = stack.home.path().join("session.jsonl").display().to_string();
    record(&stack, &file, &["first", "second"]);
    // A recording is never written over one that is there.
    let mut term = Term::open(&stack.home, &["console", "--record", &file]);
    term.wait_for("error:");
    assert_ne!(term.ended(), 0);
    // Nobody is needed to see it.
    signal(&stack.up, "TERM");
    stack.up.wait().expect("ends");
    let mut term = Term::open(&stack.home, &["console", "--view", "jobs", "--replay", &file, "--speed", "0"]);
    term.wait_for("▷ recording");
    term.wait_for("2 jobs");
    for name in ["first", "second"] {
        term.wait(name, |screen| rows(screen).any(|row| row.contains(name) && row.contains("✓ done")));
    }
    term.press("x", "recording");
    term.press("n", "recording");
    term.keys("q");
    term.ends_clean(0);
    // One that is cut off in the middle of a line shows what there is; one that is none is said before anything is drawn.
    let whole = std::fs::read(&file).expect("reads");
    std::fs::write(&file, &whole[..whole.len() - 20]).expect("writes");
    let mut term = Term::open(&stack.home, &["console", "--view", "jobs", "--replay", &file, "--speed", "0"]);
    term.wait_selected("first");
    term.press(ENTER, "› j-");
    term.keys("q");
    term.ends_clean(0);
    std::fs::write(&file, "nothing like it\n").expect("writes");
    let mut term = Term::open(&stack.home, &["console", "--replay", &file]);
    term.wait_for("cannot replay");
    term.ends_clean(1);
}
