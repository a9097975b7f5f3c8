//! Output that grows old is removed while clients read and the orchestrator is killed: whoever asks gets all of it or the sentence that
//! it was removed, and the money stays.
//!
//! `REMOVALS=50` removes the output of that many jobs.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use modchain_fuzz::Random;

use crate::common::eventually;
use crate::common::fleet::{Fleet, Site};
use crate::{asked, seed};

/// Jobs in the test command.
const REMOVALS: u64 = 6;
/// The exit codes of `logs`.
const DONE: i32 = 0;
const NOT_FOUND: i32 = 3;
const NOT_REACHED: i32 = 5;

/// Whether the output is removed. What is left of it is never shown as if it were all.
fn is_removed(site: &Site, id: &str, output: &str) -> bool {
    let read = site.run(&["-c", "alice", "logs", id]);
    match read.code {
        Some(DONE) => assert_eq!(read.stdout, output, "{id}"),
        Some(NOT_FOUND) => {
            assert!(
                read.stdout.is_empty() && read.stderr.contains("was removed: output of ended jobs is kept"),
                "{read:?}"
            );
            assert!(read.stderr.contains("still shows how it ended and what it cost"), "{read:?}");
            return true;
        }
        Some(NOT_REACHED) => {}
        _ => panic!("{read:?}"),
    }
    false
}

#[test]
fn output_that_is_removed_under_kills_is_whole_or_said_to_be_gone_and_no_money_moves() {
    let (jobs, seed) = (asked("REMOVALS", REMOVALS), seed());
    let mut random = Random::new(seed);
    let mut fleet = Fleet::start(1);
    let settings = fleet.site.home.path().join("orchestrator.toml");
    fs::write(&settings, "keep_output_for = '10s'\n").expect("writes");
    fleet.restart_orchestrator();
    let (mut outputs, mut costs, mut kills) = (BTreeMap::new(), BTreeMap::new(), 0);
    for number in 0..jobs {
        let upto = (50 + number).to_string();
        let line = ["-c", "alice", "run", "--max-cost", "0.05", "--retries", "9", "--wasm", "primes.wat", "--", &upto];
        let printed = fleet.site.run(&line).expect(0).stdout;
        let newest =
            fleet.site.jobs().into_iter().find(|job| !outputs.contains_key(job["id"].as_str().expect("an id")));
        let newest = newest.expect("the new one");
        let id = newest["id"].as_str().expect("an id").to_owned();
        costs.insert(id.clone(), fleet.site.job(&id)["cost"].clone());
        outputs.insert(id, printed);
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(random.below(800) as u64));
            fleet.restart_orchestrator();
            kills += 1;
            for (id, output) in &outputs {
                is_removed(&fleet.site, id, output);
            }
        }
    }
    let site = &fleet.site;
    eventually("all of it is removed", || outputs.iter().all(|(id, output)| is_removed(site, id, output)));
    let folders = || {
        let entries = fs::read_dir(site.home.path().join("data/output")).expect("a folder");
        entries.filter(|entry| entry.as_ref().expect("an entry").path().is_dir()).count()
    };
    eventually("nothing of it is on the disk", || folders() == 0);
    for (id, cost) in &costs {
        assert_eq!(&site.job(id)["cost"], cost, "{id}");
    }
    println!(
        "retention: seed {seed}: output of {jobs} jobs removed under {kills} kills: whole or refused each time, all costs there"
    );
    site.assert_money_is_whole();
    site.assert_nobody_panicked();
}
