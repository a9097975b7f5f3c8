//! Lives through many worlds. `SEED=n` lives through that one alone, `SEEDS=n` through so many, from `FIRST=n` on.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use modchain_sim::swarm::Trouble;
use modchain_sim::{EndingMet, Failure, Tally, check, coverage};

/// Worlds of the ordinary test command: well under two minutes on two cores that have nothing else to do.
const SEEDS: u64 = 5_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[test]
fn every_world_keeps_every_rule_and_together_they_meet_everything_that_can_be_met() {
    if let Some(seed) = number("SEED") {
        let tally = check(seed).unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {} events in {}", tally.events, tally.elapsed);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let first = number("FIRST").unwrap_or(1);
    let tally = live_through(first, seeds).unwrap_or_else(|failure| panic!("{failure}"));
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{seeds} worlds, {} events, {:.0} hours of virtual time in {secs:.1} s: {:.1} seeds/s, 0 breaches",
        tally.events,
        tally.elapsed.0 as f64 / 3.6e9,
        seeds as f64 / secs
    );
    print("moves of the state table", &tally.edges);
    print("endings, and what was wished of the job", &tally.endings);
    print("faults", &tally.faults);
    println!("{} jobs forgotten; of {} the key made another one", tally.forgotten, tally.made_again);
    if seeds < SEEDS {
        return; // too few to meet everything
    }
    let edges = coverage::reachable().filter(|edge| !tally.edges.contains_key(edge));
    let endings = EndingMet::all().filter(|ending| !tally.endings.contains_key(ending));
    let faults = Trouble::all().filter(|trouble| !tally.faults.contains_key(trouble.word()));
    let never: Vec<String> = edges
        .map(|edge| edge.to_string())
        .chain(endings.map(|ending| ending.to_string()))
        .chain(faults.map(|trouble| trouble.word().to_owned()))
        .chain((tally.made_again == 0).then(|| "the key of a forgotten job".to_owned()))
        .collect();
    assert!(never.is_empty(), "never met in {seeds} worlds: {never:#?}");
}

fn print(title: &str, table: &BTreeMap<impl Display, u64>) {
    println!("{title}:");
    for (what, count) in table {
        println!("{count:>9}  {what}");
    }
}

/// Divides the seeds among the cores; the failure with the lowest seed wins.
fn live_through(first: u64, seeds: u64) -> Result<Tally, Box<Failure>> {
    let (next, end) = (AtomicU64::new(first), first.saturating_add(seeds));
    let worker = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(tally);
            }
            match check(seed) {
                Ok(one) => tally.absorb(one),
                Err(failure) => {
                    next.store(end, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let results: Vec<Result<Tally, Box<Failure>>> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a world panicked")).collect()
    });
    let mut whole = Tally::default();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(tally) => whole.absorb(tally),
            Err(failure) => failures.push(failure),
        }
    }
    failures.into_iter().min_by_key(|failure| failure.seed).map_or(Ok(whole), Err)
}
