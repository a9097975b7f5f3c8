//! What RELIABILITY.md promises of the real programs, each promise by what breaks it: kills, silence, bad networks, an old copy of the
//! data, copies that are made meanwhile, output that grows old. Short here; variables make each as long as one likes, see RELIABILITY.md.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../common/mod.rs"]
mod common;

mod backup;
mod checker;
mod history;
mod kills;
mod network;
mod retention;
mod rollback;
mod silence;

/// A number from the environment, or this one.
fn asked(variable: &str, otherwise: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(otherwise, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {number}")))
}

/// The seed of this run: the variable `SEED`, or one that is drawn. Whoever uses it prints it.
fn seed() -> u64 {
    let drawn = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    asked("SEED", drawn.into())
}
