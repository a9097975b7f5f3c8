//! The console with 10,000 nodes and 50,000 jobs, of which 5,000 have ended, as a recording that this test makes. It prints
//! what it measures and decides by none of it: machines differ. For numbers that count, on the program as it is shipped:
//!
//! ```text
//! cargo build --release -p modchain
//! MODCHAIN_TEST_PROGRAM=target/release/modchain cargo test -p modchain --test tui_load -- --nocapture
//! ```
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/recording.rs"]
mod recording;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/samples.rs"]
mod samples;

use std::time::{Duration, Instant};

use common::Home;
use common::term::{ESC, Start, Term};
use modchain_types::{Asset, Micro};
use recording::Recording;

const NODES: usize = 10_000;
const JOBS: u64 = 50_000;

/// Kilobytes of a process, by the name of the line.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

#[test]
fn keys_are_answered_in_a_pool_of_any_size() {
    let home = Home::new();
    let mut tape = Recording::new(samples::AT);
    tape.target("large");
    tape.connecting();
    tape.welcome(recording::welcome(samples::identity(), Asset::Test), "127.0.0.1:1", 0);
    tape.live();
    // Of the ended ones only the youngest are kept: these are as many as all are.
    let jobs = (0..JOBS).map(|number| match number % 10 {
        0 => samples::ended_job(number, u8::try_from(number % 3).expect("small")),
        1..=5 => samples::job_view(number),
        _ => samples::queued_job(number),
    });
    let nodes = (0..NODES).map(|number| samples::node_view(&format!("node-{number:05}"), number % 3));
    tape.everything(1, jobs.collect(), nodes.collect(), samples::account_view(Micro(98_000_000)));
    let file = home.path().join("large.jsonl");
    std::fs::write(&file, tape.text()).expect("writes");
    let file = file.display().to_string();
    let start = Start { size: (200, 60), ..Start::default() };
    let mut term = Term::open_with(&home, &["console", "--view", "jobs", "--replay", &file, "--speed", "0"], start);
    term.wait_for("MODCHAIN");
    let first = term.age();
    term.wait_for("50000 jobs");
    println!("first frame after {first:?}, everything after {:?}", term.age());
    let mut times: Vec<Duration> = Vec::new();
    for round in 0..50 {
        let (key, there) = if round % 2 == 0 { ("?", true) } else { (ESC, false) };
        let begun = Instant::now();
        term.keys(key);
        term.wait("the help comes and goes", |screen| screen.contents().contains("type to search keys") == there);
        times.push(begun.elapsed());
    }
    times.sort();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("key to screen: half within {half:?}, 99 of 100 within {most:?}");
    let (now, peak) = (memory(term.pid(), "VmRSS:"), memory(term.pid(), "VmHWM:"));
    println!("memory: {} MB now, {} MB at most", now / 1024, peak / 1024);
    // Every row can be reached, by the last one and by its name.
    term.press("G", "50000 jobs");
    term.keys("/");
    term.press("name=sweep-49999", "1 of 50000");
    term.keys("\r");
    term.press("2", "10000 nodes");
    term.keys("q");
    term.ends_clean(0);
}
