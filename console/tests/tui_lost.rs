//! That the console ends when its terminal goes away, whoever reads that terminal at the moment, with a signal or without one: the
//! real program on a pseudo-terminal, with a recording in which something comes all the time.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/recording.rs"]
mod recording;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/samples.rs"]
mod samples;

use common::Home;
use common::term::{Start, Term};
use modchain_types::{Asset, List, Micro};
use modchain_wire::console::StateDelta;
use modchain_wire::view::JobView;
use recording::Recording;

/// Terminals that go away, for each way to start the program: few of them go just between a look and a read.
const ROUNDS: usize = 24;
/// Changes in the recording, and milliseconds between two: more than a slow machine needs to get to the end of a round.
const CHANGES: u64 = 6_000;
const CHANGE_MS: u64 = 5;

/// Started as a shell starts it: it leads its session and is sent SIGHUP.
const PLAIN: &[&str] = &[];
/// It leads its session and SIGHUP waits for ever.
const BLOCKED: &[&str] = &["env", "--block-signal=HUP"];
/// Somebody else leads the session and ignores SIGHUP, so that nobody is sent one. What is left of a failure ends by itself.
const IGNORED: &[&str] = &["sh", "-c", "trap '' HUP; timeout --foreground -s KILL 300 \"$@\"; exit $?", "sh"];

/// A recording with a change of one job every few milliseconds.
fn busy(home: &Home) -> String {
    let mut tape = Recording::new(samples::AT);
    tape.target("busy");
    tape.connecting();
    tape.welcome(recording::welcome(samples::identity(), Asset::Test), "127.0.0.1:1", 0);
    tape.live();
    let jobs: Vec<JobView> = (0..20).map(samples::job_view).collect();
    tape.everything(
        1,
        jobs.clone(),
        vec![samples::node_view("zurich-01", 2)],
        samples::account_view(Micro(98_000_000)),
    );
    for number in 1..=CHANGES {
        tape.at(number * CHANGE_MS);
        let cost = Micro(jobs[0].cost.0 + number * 10_000);
        tape.delta(StateDelta {
            prev: number,
            upto: number + 1,
            jobs: List::cut(vec![JobView { cost, ..jobs[0].clone() }]),
            nodes: List::default(),
            gone: List::default(),
            account: None,
            events: List::default(),
        });
    }
    let path = home.path().join("busy.jsonl");
    std::fs::write(&path, tape.text()).expect("writes");
    path.display().to_string()
}

/// Takes the terminal away at another moment in each round, every second time just after keys.
fn goes_away(by: &[&str]) {
    let home = Home::new();
    let file = busy(&home);
    for round in 0..ROUNDS {
        let start = Start { by, ..Start::default() };
        let mut term = Term::open_with(&home, &["console", "--view", "jobs", "--replay", &file], start);
        term.wait_for("20 jobs");
        for _ in 0..round / 2 {
            // As many frames more: no two rounds end at the same place.
            term.pump(std::time::Duration::from_millis(100));
        }
        if round % 2 == 1 {
            term.keys(&"jk".repeat(round));
        }
        term.hang_up();
        assert_eq!(term.ended(), 129, "round {round}");
    }
}

#[test]
fn a_terminal_that_goes_away_while_messages_come_ends_the_console() {
    goes_away(PLAIN);
}

#[test]
fn without_a_signal_it_ends_too() {
    goes_away(BLOCKED);
}

#[test]
fn in_the_session_of_another_who_ignores_the_signal_it_ends_too() {
    goes_away(IGNORED);
}
