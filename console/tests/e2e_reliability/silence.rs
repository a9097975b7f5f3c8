//! A node that is silent for longer than its jobs wait for it, because its agent is stopped or because the network is cut: the jobs go
//! on elsewhere under a higher fence, the silent node is paid nothing, and what it lost is gone once it is back.
//!
//! `PARTITION=120` keeps the cut for so many seconds at least, with jobs that wait for their node as long as jobs usually do.

use std::time::{Duration, Instant};

use crate::asked;
use crate::common::chaos::{Chaos, Profile};
use crate::common::engine::{IMAGE, docker, engine_is_there};
use crate::common::eventually;
use crate::common::fleet::{Fleet, Site};
use crate::common::money::{adds_up, micro};
use serde_json::Value;

/// Between two lines of the job that ends by itself: its ten lines take 18 seconds, which is less than [`PATIENCE`].
const PAUSE_NANOS: u32 = 2_000_000_000;
/// How long jobs wait for their node.
const PATIENCE: &str = "25s";
const ALL_LINES: &str = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n";

/// The node that falls silent, and the one that takes over.
const SILENT: usize = 0;
const OTHER: usize = 1;

/// Jobs on the node that is to fall silent.
struct Jobs {
    /// Ends by itself, wherever it is, before it is taken from a node that is silent: its first result is late.
    ends: String,
    /// A module that never ends by itself.
    goes_on: String,
    /// Containers that do not either; the second one must run in one place only. None where there is no engine.
    containers: Vec<String>,
    /// Of the containers.
    fences: Vec<Option<u64>>,
}

impl Jobs {
    /// Submits them while the other node takes nothing, and waits until they run.
    fn submit(site: &Site, patience: &[&str]) -> Self {
        let other = format!("n{OTHER}");
        site.run(&["-c", "root", "node", "cordon", &other]).expect(0);
        let submit = |what: &[&str], command: &[&str]| {
            let line = ["-c", "alice", "run", "-d", "-q", "--max-cost", "0.50", "--cpus", "0.2", "--memory", "64MiB"];
            site.run(&[&line[..], patience, what, &["--"], command].concat()).expect(0).stdout.trim().to_owned()
        };
        let sleeps = |more: &[&str]| submit(&[&["-i", IMAGE][..], more].concat(), &["sleep", "6000"]);
        let containers =
            if engine_is_there() { vec![sleeps(&[]), sleeps(&["--on-disconnect", "stop"])] } else { Vec::new() };
        let goes_on = submit(&["--wasm", "forever.wat"], &[]);
        let runs = |id: &String| {
            eventually("it runs", || site.job(id)["state"] == "running");
            assert_eq!(site.place(id), SILENT);
        };
        containers.iter().chain([&goes_on]).for_each(runs);
        let fences = containers.iter().map(|id| fence(id, 1)).collect();
        // Last of all: the node must be silent before this one is done.
        let ends = submit(&["--wasm", &site.ticking(PAUSE_NANOS)], &[]);
        runs(&ends);
        Self { ends, goes_on, containers, fences }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.containers.iter().chain([&self.ends, &self.goes_on])
    }
}

/// Whether this is the job's attempt now, and has begun.
fn is_begun(job: &Value, attempt: usize) -> bool {
    let attempts = job["attempts"].as_array().expect("a list");
    attempts.len() == attempt && !attempts[attempt - 1]["started_at"].is_null()
}

/// The container of an attempt that runs: its fence, if there is one.
fn fence(job: &str, attempt: u32) -> Option<u64> {
    let (job, attempt) = (format!("label=modchain.job={job}"), format!("label=modchain.attempt={attempt}"));
    let shown = docker(&["ps", "--filter", &job, "--filter", &attempt, "--format", "{{.Label \"modchain.fence\"}}"]);
    (!shown.is_empty()).then(|| shown.parse().expect("one container, and a number"))
}

/// Lets the node fall silent and come back, and asserts what must follow. `stops_itself` says whether the agent can end what must run in
/// one place only; one that is stopped cannot.
fn silence(fleet: &Fleet, patience: &[&str], stops_itself: bool, fall_silent: impl Fn(), come_back: impl Fn()) {
    let site = &fleet.site;
    let jobs = Jobs::submit(site, patience);
    fall_silent();
    site.run(&["-c", "root", "node", "resume", &format!("n{OTHER}")]).expect(0);
    for id in jobs.all() {
        eventually("a second attempt has begun", || is_begun(&site.job(id), 2));
        assert_eq!(site.place(id), OTHER);
    }
    for (id, before) in jobs.containers.iter().zip(&jobs.fences) {
        assert!(before.is_some() && fence(id, 2) > *before, "its fence is higher");
    }
    if let Some(in_one_place) = jobs.containers.get(1).filter(|_| stops_itself) {
        assert_eq!(fence(in_one_place, 1), None, "the first container is gone before the second is there");
    }
    come_back();
    // What it still ran has ended, and its late results are acknowledged and forgotten.
    eventually("nothing is kept where it was", || site.folders_of_attempts(SILENT).is_empty());
    eventually("and nothing runs there", || fleet.agents[SILENT].children() == 0);
    for id in &jobs.containers {
        eventually("nor on the engine", || fence(id, 1).is_none());
    }
    eventually("it is back", || site.ready() == 2);
    site.run(&["-c", "alice", "wait", &jobs.ends, "--timeout", "100s"]).expect(0);
    for id in jobs.containers.iter().chain([&jobs.goes_on]) {
        assert_eq!(site.job(id)["state"], "running", "the second attempt was left alone");
        site.run(&["-c", "alice", "cancel", "-y", id, "--grace", "0s", "--wait"]).expect(0);
    }
    assert_paid_once(site, &jobs);
    assert_eq!(site.output(&jobs.ends, 2, "out"), ALL_LINES);
    eventually("no container is left", || site.containers().is_empty());
    site.assert_nobody_panicked();
}

/// Each job had two attempts, of which the second was paid.
fn assert_paid_once(site: &Site, jobs: &Jobs) {
    let mut net = 0;
    for id in jobs.all() {
        let job = site.job(id);
        let attempts = job["attempts"].as_array().expect("a list");
        assert_eq!((attempts.len(), &attempts[0]["reason"]), (2, &"node_lost".into()), "{job:#}");
        adds_up(&job);
        net += micro(&job, "cost") - micro(&job, "fee");
    }
    assert_eq!(site.job(&jobs.ends)["state"], "completed");
    assert_eq!(site.account("n0"), [0, 0, 0], "the silent node earned nothing");
    assert_eq!(site.account("n1"), [0, 0, net], "the other one earned it all");
    site.assert_money_is_whole();
}

#[test]
fn a_stopped_agent_loses_its_jobs_and_kills_them_when_it_wakes() {
    let fleet = Fleet::start(2);
    let agent = &fleet.agents[SILENT];
    silence(&fleet, &["--lost-after", PATIENCE], false, || agent.signal("STOP"), || agent.signal("CONT"));
}

#[test]
fn a_node_behind_a_cut_loses_its_jobs_which_are_paid_once() {
    let least = Duration::from_secs(asked("PARTITION", 0));
    let patience: &[&str] = if least.is_zero() { &["--lost-after", PATIENCE] } else { &[] };
    let network = std::sync::OnceLock::new();
    let fleet = Fleet::start_with(2, &["alice"], |site, number| match number {
        SILENT => site.agent_at(number, &network.get_or_init(|| Chaos::start(&site.address, 1)).address),
        _ => site.agent(number),
    });
    let network = network.get().expect("it has started");
    let begun = std::cell::Cell::new(None);
    let cut = || {
        begun.set(Some(Instant::now()));
        network.set(Profile::cut());
    };
    let heal = || {
        let begun = begun.get().expect("it was cut");
        std::thread::sleep(least.saturating_sub(begun.elapsed()));
        println!("partition: {:.0?} long", begun.elapsed());
        network.set(Profile::default());
    };
    silence(&fleet, patience, true, cut, heal);
}
