//! `kill -9` of the orchestrator, of agents and of both at once, at any moment, while clients submit modules and containers: what was
//! acknowledged is done with the bytes of an undisturbed run and paid once, and nothing is left behind.
//!
//! `KILLS=100` kills that many orchestrators and that many agents at least; `SEED` repeats the moments of another run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use modchain_fuzz::Random;
use serde_json::Value;

use crate::common::engine::{IMAGE, engine_is_there};
use crate::common::eventually;
use crate::common::fleet::{Fleet, Process, Site};
use crate::common::money::adds_up;
use crate::{asked, seed};

/// Kills of each kind in the test command.
const KILLS: u64 = 6;
const AGENTS: usize = 3;
/// Clients that submit at once.
const CLIENTS: usize = 3;
/// Jobs that are submitted for each burst of kills.
const JOBS_PER_BURST: usize = 4;
/// Most kills in a row without a job that ends between them.
const BURST_MAX: usize = 4;
/// Longest time between two kills of a burst, in milliseconds; the shortest is one.
const APART_MAX: usize = 500;
/// How often a client asks for one job before it gives up; each time it waits some seconds for the orchestrator.
const TRIES_MAX: u64 = 100;
/// Attempts that a job may have: every kill of its agent costs a module one.
const ATTEMPTS_MAX: usize = 20;

/// What is run. The same work prints the same bytes, however often it is begun again.
#[derive(Debug, Clone)]
struct Work {
    flags: Vec<String>,
    command: Vec<String>,
}

/// Bytes on standard output and on standard error.
type Printed = (String, String);

fn works(site: &Site) -> Vec<Work> {
    let work = |flags: &[&str], command: &[&str]| Work {
        flags: flags.iter().copied().map(str::to_owned).collect(),
        command: command.iter().copied().map(str::to_owned).collect(),
    };
    let ticking = site.ticking(100_000_000);
    let mut works = vec![work(&["--wasm", "primes.wat"], &["150"]), work(&["--wasm", &ticking], &[])];
    if engine_is_there() {
        let script = "i=0; while [ $i -lt 40 ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.04; done";
        works.push(work(&["-i", IMAGE], &["sh", "-c", script]));
    }
    works
}

impl Work {
    /// The line that submits it under this key.
    fn line<'a>(&'a self, key: &'a str) -> Vec<&'a str> {
        let run = ["-c", "alice", "run", "-d", "-q", "--id", key, "--max-cost", "0.05", "--retries", "19"];
        let needs = ["--cpus", "0.2", "--memory", "64MiB"];
        let flags = self.flags.iter().map(String::as_str);
        let command = self.command.iter().map(String::as_str);
        run.into_iter().chain(needs).chain(flags).chain(["--"]).chain(command).collect()
    }
}

/// Everything that the last attempt of a job printed.
fn printed(site: &Site, job: &Value) -> Printed {
    let id = job["id"].as_str().expect("an id");
    let last = attempts(job) as u64;
    (site.output(id, last, "out"), site.output(id, last, "err"))
}

fn attempts(job: &Value) -> usize {
    job["attempts"].as_array().expect("a list").len()
}

/// Acknowledged jobs by their keys, and how often each was asked for.
#[derive(Default)]
struct Acknowledged {
    jobs: BTreeMap<String, String>,
    submits: u64,
    again: u64,
}

/// Submits what the line says until there is none any more: each until it is acknowledged, with the same key.
fn submit_all(site: &Site, works: &[Work], line: &Mutex<Receiver<usize>>, acknowledged: &Mutex<Acknowledged>) {
    loop {
        // Held while it waits, so that the others wait for the lock instead.
        let next = line.lock().expect("nobody broke").recv();
        let Ok(number) = next else { return };
        let key = format!("job-{number}");
        let mut tries = 0;
        let id = loop {
            tries += 1;
            let done = site.run(&works[number % works.len()].line(&key));
            match done.code {
                Some(0) => break done.stdout.trim().to_owned(),
                // Nobody was there, or whoever was is gone: the answer is not known.
                Some(5) if tries < TRIES_MAX => {}
                _ => panic!("{done:#?}"),
            }
        };
        let mut acknowledged = acknowledged.lock().expect("nobody broke");
        acknowledged.submits += 1;
        acknowledged.again += tries - 1;
        let first = acknowledged.jobs.entry(key).or_insert_with(|| id.clone());
        assert_eq!(*first, id, "one key is one job");
    }
}

/// Jobs that have not ended; `None` while nobody answers.
fn open_jobs(site: &Site) -> Option<usize> {
    let done = site.run(&["-c", "root", "jobs", "-o", "name", "--limit", "100000"]);
    (done.code == Some(0)).then(|| done.stdout.lines().count())
}

/// Waits until no job is open: for as long as it takes, if one after the other ends.
pub(crate) fn end_all(site: &Site) {
    let mut before = usize::MAX;
    while before > 0 {
        let mut now = before;
        eventually("one more ends", || {
            now = open_jobs(site).unwrap_or(before);
            now < before
        });
        before = now;
    }
}

/// What was killed.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    pub(crate) orchestrators: u64,
    pub(crate) agents: u64,
    /// Of these, how often both at once.
    pub(crate) together: u64,
}

impl Killed {
    /// Kills one or both, some time apart, and starts what was killed.
    pub(crate) fn one_more(
        &mut self,
        site: &Site,
        orchestrator: &mut Process,
        agents: &mut [Process],
        random: &mut Random,
    ) {
        let agent = random.below(agents.len());
        let (kills_orchestrator, kills_agent) = *random.pick(&[(true, false), (false, true), (true, true)]);
        if kills_orchestrator {
            orchestrator.kill();
            self.orchestrators += 1;
        }
        if kills_orchestrator && kills_agent {
            self.together += 1;
            pause(random);
        }
        if kills_agent {
            agents[agent].kill();
            self.agents += 1;
            agents[agent] = site.agent(agent);
        }
        if kills_orchestrator {
            *orchestrator = site.serve();
        }
        pause(random);
    }
}

/// From one to [`APART_MAX`] milliseconds.
pub(crate) fn pause(random: &mut Random) {
    thread::sleep(Duration::from_millis(1 + random.below(APART_MAX) as u64));
}

#[test]
fn whatever_is_killed_acknowledged_jobs_are_done_and_paid_once() {
    let (kills, seed, begun) = (asked("KILLS", KILLS), seed(), Instant::now());
    let mut fleet = Fleet::start(AGENTS);
    if engine_is_there() {
        fleet.site.wait_for_containers();
    }
    let Fleet { site, orchestrator, agents } = &mut fleet;
    let works = works(site);
    let undisturbed: Vec<Printed> = (0..works.len()).map(|number| run_undisturbed(site, &works, number)).collect();
    let acknowledged = Mutex::new(Acknowledged::default());
    let mut killed = Killed::default();
    let mut random = Random::new(seed);
    println!("kills: seed {seed}");
    let (submit, line) = mpsc::channel();
    let line = Mutex::new(line);
    thread::scope(|scope| {
        // Dropped however this ends: the clients end with it.
        let submit = submit;
        let site = &*site;
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| submit_all(site, &works, &line, &acknowledged))).collect();
        let mut number = works.len();
        while killed.orchestrators < kills || killed.agents < kills {
            for _ in 0..JOBS_PER_BURST {
                submit.send(number).expect("they wait");
                number += 1;
            }
            // By another client, at the same time maybe.
            submit.send(number - 1).expect("they wait");
            for _ in 0..=random.below(BURST_MAX) {
                killed.one_more(site, orchestrator, agents, &mut random);
            }
            let ended = || Some(acknowledged.lock().expect("nobody broke").jobs.len().saturating_sub(open_jobs(site)?));
            let mut before = None;
            eventually("a job ends between kills", || {
                let Some(now) = ended() else { return false };
                now > *before.get_or_insert(now)
            });
        }
        drop(submit);
        clients.into_iter().for_each(|client| client.join().expect("it submitted all"));
    });
    end_all(site);
    let acknowledged = acknowledged.into_inner().expect("nobody broke");
    let (attempts, exhausted) = assert_all_done(site, &works, &acknowledged, &undisturbed);
    assert_closed_once(site);
    site.assert_money_is_whole();
    for agent in 0..AGENTS {
        eventually("nothing of an attempt is kept", || site.folders_of_attempts(agent).is_empty());
    }
    eventually("no container is left", || site.containers().is_empty());
    site.assert_nobody_panicked();
    println!(
        "kills: seed {seed}: {} of the orchestrator, {} of agents, {} of these at once, in {:.0?}; {} jobs acknowledged and found, in \
         {attempts} attempts, {} submits with a key that was known, {} submits again after no answer; 0 lost, {exhausted} out of \
         attempts, 0 containers left; money whole",
        killed.orchestrators,
        killed.agents,
        killed.together,
        begun.elapsed(),
        acknowledged.jobs.len(),
        acknowledged.submits - acknowledged.jobs.len() as u64,
        acknowledged.again,
    );
}

/// What this work prints where nothing is killed.
fn run_undisturbed(site: &Site, works: &[Work], number: usize) -> Printed {
    let id = site.run(&works[number].line(&format!("job-{number}"))).expect(0).stdout.trim().to_owned();
    site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    let printed = printed(site, &site.job(&id));
    assert!(!printed.0.is_empty());
    printed
}

/// Every acknowledged job is there, and no other besides the undisturbed ones; each has ended as it does undisturbed. Gives the number of
/// attempts, and of jobs that had as many as they may.
fn assert_all_done(
    site: &Site,
    works: &[Work],
    acknowledged: &Acknowledged,
    undisturbed: &[Printed],
) -> (usize, usize) {
    let jobs: BTreeMap<String, Value> =
        site.jobs().into_iter().map(|job| (job["id"].as_str().expect("an id").to_owned(), job)).collect();
    let lost: Vec<_> = acknowledged.jobs.iter().filter(|(_, id)| !jobs.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let distinct: BTreeSet<&String> = acknowledged.jobs.values().collect();
    assert_eq!((distinct.len(), jobs.len()), (acknowledged.jobs.len(), acknowledged.jobs.len() + works.len()));
    let (mut made, mut exhausted) = (0, 0);
    for (key, id) in &acknowledged.jobs {
        let job = &jobs[id];
        adds_up(job);
        made += attempts(job);
        if job["state"] == "failed" && attempts(job) == ATTEMPTS_MAX {
            exhausted += 1;
            continue;
        }
        assert_eq!(job["state"], "completed", "{job:#}");
        let number: usize = key.trim_start_matches("job-").parse().expect("a number");
        assert!(printed(site, job) == undisturbed[number % works.len()], "the bytes of an undisturbed run: {job:#}");
    }
    (made, exhausted)
}

/// Each job has one hold and one closing: all lines of a closing are of one event.
fn assert_closed_once(site: &Site) {
    let mut holds: BTreeMap<String, usize> = BTreeMap::new();
    let mut closings: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in site.statement("alice") {
        let Some(job) = line["job"].as_str() else { continue };
        if line["type"] == "hold" {
            *holds.entry(job.to_owned()).or_default() += 1;
        } else {
            closings.entry(job.to_owned()).or_default().insert(line["number"].as_u64().expect("a number"));
        }
    }
    assert_eq!(holds.len(), site.jobs().len());
    assert!(holds.values().all(|holds| *holds == 1), "{holds:?}");
    assert_eq!(closings.keys().collect::<Vec<_>>(), holds.keys().collect::<Vec<_>>());
    assert!(closings.values().all(|closings| closings.len() == 1), "{closings:?}");
}
