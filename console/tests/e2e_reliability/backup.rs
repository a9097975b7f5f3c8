//! Copies of the data that are made while clients work and the orchestrator is killed: each restores to a pool that has every job that
//! was acknowledged before, and the bytes of each that had ended.
//!
//! `COPIES=20` makes that many.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use modchain_fuzz::Random;

use crate::common::eventually;
use crate::common::fleet::{Fleet, Process, Site};
use crate::{asked, seed};

/// Copies in the test command.
const COPIES: u64 = 4;
/// Jobs that end between two copies.
const JOBS_BETWEEN: usize = 4;

/// What was known when a copy was begun.
struct Before {
    acknowledged: Vec<String>,
    ended: Vec<String>,
}

/// Submits until it is told to stop.
fn submit(site: &Site, client: usize, acknowledged: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{client}-{number}");
        let upto = (20 + number).to_string();
        let line = ["-c", "alice", "run", "-d", "-q", "--id", &key, "--max-cost", "0.05", "--retries", "9"];
        let work = ["--cpus", "0.2", "--memory", "64MiB", "--wasm", "primes.wat", "--", &upto];
        let done = site.run(&[&line[..], &work].concat());
        if done.code == Some(0) {
            acknowledged.lock().expect("lock").push(done.stdout.trim().to_owned());
        }
    }
}

fn ended(site: &Site) -> Vec<String> {
    let jobs = site.jobs();
    let ended = jobs.iter().filter(|job| job["state"] == "completed");
    ended.map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

fn printed(site: &Site, id: &str) -> String {
    site.run(&["-c", "alice", "logs", id]).expect(0).stdout
}

#[test]
fn copies_that_are_made_under_load_and_kills_have_all_that_was_acknowledged_before() {
    let (copies, seed) = (asked("COPIES", COPIES), seed());
    let mut random = Random::new(seed);
    let mut fleet = Fleet::start(2);
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let mut befores = Vec::new();
    thread::scope(|scope| {
        let (site, orchestrator) = (&fleet.site, &mut fleet.orchestrator);
        for client in 0..2 {
            let (acknowledged, stop) = (&acknowledged, &stop);
            scope.spawn(move || submit(site, client, acknowledged, stop));
        }
        for copy in 0..copies {
            let wanted = befores.last().map_or(0, |before: &Before| before.ended.len()) + JOBS_BETWEEN;
            eventually("some more jobs have ended", || ended(site).len() >= wanted);
            befores.push(Before { ended: ended(site), acknowledged: acknowledged.lock().expect("lock").clone() });
            let mut child = site
                .command("modchain-orchestrator")
                .args(["backup", &format!("copy{copy}"), "--data", "data"])
                .spawn()
                .expect("starts");
            if copy % 2 == 1 {
                // In the middle of it, or before, or behind: the copy must not care.
                thread::sleep(Duration::from_millis(random.below(60) as u64));
                orchestrator.kill();
                *orchestrator = site.serve();
            }
            assert!(child.wait().expect("ends").success(), "copy {copy}");
            eventually("it serves", || site.run(&["-c", "root", "status"]).code == Some(0));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let all = acknowledged.into_inner().expect("lock");
    for id in &all {
        fleet.site.run(&["-c", "alice", "wait", id, "--timeout", "100s"]).expect(0);
    }
    let outputs: BTreeMap<&str, String> = all.iter().map(|id| (&id[..], printed(&fleet.site, id))).collect();
    fleet.agents.iter_mut().for_each(Process::stop);
    fleet.orchestrator.stop();

    let home = fleet.site.home.path().to_owned();
    fs::rename(home.join("data"), home.join("newest")).expect("renames");
    let mut compared = 0;
    for (copy, before) in befores.iter().enumerate() {
        let restored = fleet.site.operate(&["restore", &format!("copy{copy}"), "--data", "data"]);
        assert_eq!(restored["lacking"], serde_json::json!([]), "{restored:#}");
        let verified = fleet.site.verify();
        assert_eq!(verified["head"], restored["head"]);
        fleet.restart_orchestrator();
        let site = &fleet.site;
        for id in &before.acknowledged {
            assert_eq!(site.job(id)["id"], **id, "copy {copy}");
        }
        for id in &before.ended {
            assert_eq!(site.job(id)["state"], "completed", "copy {copy}: {id}");
            if let Some(output) = outputs.get(&id[..]) {
                assert_eq!(&printed(site, id), output, "copy {copy}: {id}");
                compared += 1;
            }
        }
        fleet.orchestrator.stop();
        fs::remove_dir_all(home.join("data")).expect("removes");
    }
    println!(
        "backup: seed {seed}: {copies} copies while {} jobs were acknowledged, half of them with a kill of the orchestrator: each has all \
         that were before, {compared} outputs equal",
        all.len()
    );
    fs::rename(home.join("newest"), home.join("data")).expect("renames");
    fleet.restart_orchestrator();
    fleet.site.assert_money_is_whole();
    fleet.site.assert_nobody_panicked();
}
