//! An old copy of the orchestrator's data is brought back: what happened since is not known there, so nothing is scheduled and no money
//! moves, until the right data is back.

use std::fs;
use std::process::Command;

use crate::common::engine::{IMAGE, containers, docker, engine_is_there};
use crate::common::eventually;
use crate::common::fleet::{Fleet, Process, Site};

fn submit(site: &Site, what: &[&str]) -> String {
    let line = ["-c", "alice", "run", "-d", "-q", "--max-cost", "0.10", "--cpus", "0.2", "--memory", "64MiB"];
    site.run(&[&line[..], what].concat()).expect(0).stdout.trim().to_owned()
}

fn run_to_its_end(site: &Site, what: &[&str]) -> String {
    let id = submit(site, what);
    site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    id
}

/// What the orchestrator says about data that was rolled back. The machine may have troubles of its own, such as a full disk.
fn problems(site: &Site) -> Option<Vec<String>> {
    let done = site.run(&["-c", "root", "status", "-o", "json"]);
    if done.code != Some(0) {
        return None;
    }
    let status = done.json();
    let problems = status["problems"].as_array().expect("a list").iter();
    let problems = problems.map(|problem| problem.as_str().expect("a sentence"));
    Some(problems.filter(|problem| problem.contains("rolled back")).map(str::to_owned).collect())
}

/// Waits until the job runs, and asserts that it has always run in one attempt.
#[track_caller]
fn goes_on(site: &Site, id: &str) {
    eventually("it goes on", || site.job(id)["state"] == "running");
    let job = site.job(id);
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
}

/// The two numbers of the sentence about a fence that was seen and the last one of the journal.
fn gap(problem: &str) -> (u64, u64) {
    let number = |after: &str| {
        let (_, rest) = problem.split_once(after).unwrap_or_else(|| panic!("no `{after}` in {problem}"));
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number")
    };
    (number("has seen fence "), number("the last one in this journal is "))
}

/// Until when the data knows what happened. Whoever asks changes nothing.
fn known_until(site: &Site) -> serde_json::Value {
    let accept = ["accept-restore", "--data", "data", "-o", "json"];
    let looked = site.command("modchain-orchestrator").args(accept).output().expect("starts");
    assert_eq!(looked.status.code(), Some(2), "it asks first: {looked:?}");
    serde_json::from_slice::<serde_json::Value>(&looked.stdout).expect("a document")["known_until"].clone()
}

#[test]
fn an_old_copy_that_is_accepted_goes_on_and_what_it_does_not_know_is_ended_unbilled() {
    let mut fleet = Fleet::start(2);
    let path = |name: &str| fleet.site.home.path().join(name);
    let (data, lost) = (path("data"), path("lost"));
    let before = run_to_its_end(&fleet.site, &["--wasm", "hello.wat"]);
    // This one runs in the copy and afterwards.
    let known = submit(&fleet.site, &["--wasm", "forever.wat", "--node", "n0"]);
    eventually("it runs", || fleet.site.job(&known)["state"] == "running");
    let copied = fleet.site.operate(&["backup", "copy", "--data", "data"]);
    // This one is not known to the copy, and is paid for in what is lost; that one still runs there.
    let forgotten = run_to_its_end(&fleet.site, &["--wasm", "hello.wat", "--node", "n1"]);
    let void = submit(&fleet.site, &["--wasm", "forever.wat", "--node", "n1"]);
    eventually("it runs", || fleet.site.job(&void)["state"] == "running");
    eventually("only what runs is kept", || fleet.site.folders_of_attempts(1).len() == 1);

    fleet.orchestrator.stop();
    fs::rename(&data, &lost).expect("renames");
    fleet.site.operate(&["restore", "copy", "--data", "data"]);
    let end_of_copy = known_until(&fleet.site);
    fleet.restart_orchestrator();
    eventually("it is found out", || problems(&fleet.site).is_some_and(|problems| !problems.is_empty()));
    fleet.orchestrator.stop();
    assert_eq!(known_until(&fleet.site), end_of_copy, "its own start is not what is lost");
    let accepted = fleet.site.operate(&["accept-restore", "--data", "data", "--yes"]);
    assert_eq!((&accepted["accepted"], &accepted["open_jobs"]), (&true.into(), &1.into()), "{accepted:#}");
    assert!(accepted["was"] != accepted["journal"] && accepted["was"] == copied["journal"], "{accepted:#}");
    fleet.restart_orchestrator();
    let site = &fleet.site;
    eventually("both nodes are back", || site.ready() == 2);
    assert_eq!(problems(site), Some(Vec::new()));
    eventually("what is not known is ended", || site.folders_of_attempts(1).is_empty());
    for id in [&forgotten, &void] {
        site.run(&["-c", "alice", "job", id]).expect(3);
    }
    goes_on(site, &known);
    assert_eq!(site.output(&before, 1, "out"), site.output(&run_to_its_end(site, &["--wasm", "hello.wat"]), 1, "out"));

    // Nobody who has seen both is puzzled by another restart.
    fleet.restart_orchestrator();
    let site = &fleet.site;
    eventually("both nodes are back", || site.ready() == 2);
    assert_eq!(problems(site), Some(Vec::new()));
    run_to_its_end(site, &["--wasm", "hello.wat", "--node", "n1"]);
    site.run(&["-c", "alice", "cancel", "-y", &known, "--grace", "0s", "--wait"]).expect(0);
    site.assert_money_is_whole();
    site.assert_nobody_panicked();
}

#[test]
fn an_old_copy_of_the_data_schedules_nothing_moves_no_money_and_names_the_gap() {
    let mut fleet = Fleet::start(2);
    let path = |name: &str| fleet.site.home.path().join(name);
    let (data, copy, newest) = (path("data"), path("copy"), path("newest"));
    for node in ["n0", "n1"] {
        run_to_its_end(&fleet.site, &["--wasm", "hello.wat", "--node", node]);
    }
    // In the copy this one runs, as it does afterwards.
    let contained = engine_is_there().then(|| {
        fleet.site.wait_for_containers();
        let script = "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 7";
        let id = submit(&fleet.site, &["-i", IMAGE, "--", "sh", "-c", script]);
        eventually("it runs", || fleet.site.job(&id)["state"] == "running");
        id
    });
    // In the copy this one waits, because nobody is there; afterwards it runs and is paid.
    fleet.agents.iter_mut().for_each(Process::kill);
    fleet.restart_orchestrator();
    let paid_since = submit(&fleet.site, &["--wasm", "hello.wat"]);
    fleet.orchestrator.stop();
    let copied = Command::new("cp").arg("-a").args([&data, &copy]).status().expect("cp is there");
    assert!(copied.success());

    fleet.restart_orchestrator();
    for number in 0..2 {
        fleet.agents[number] = fleet.site.agent(number);
    }
    fleet.site.run(&["-c", "alice", "wait", &paid_since, "--timeout", "100s"]).expect(0);
    for node in ["n0", "n1"] {
        run_to_its_end(&fleet.site, &["--wasm", "hello.wat", "--node", node]);
    }
    let runs = submit(&fleet.site, &["--wasm", "forever.wat"]);
    eventually("it runs", || fleet.site.job(&runs)["state"] == "running");
    let place = fleet.site.place(&runs);

    fleet.orchestrator.stop();
    fs::rename(&data, &newest).and_then(|()| fs::rename(&copy, &data)).expect("renames");
    fleet.restart_orchestrator();
    let site = &fleet.site;
    eventually("it is found out", || problems(site).is_some_and(|problems| !problems.is_empty()));
    eventually("both nodes are back", || site.ready() == 2);
    let problems_now = problems(site).expect("it serves");
    let said = &problems_now[0];
    let (seen, last) = gap(said);
    assert!(seen > last && said.contains("rolled back") && said.contains("nothing is scheduled"), "{said}");
    let next = ["brings the newest data back", "`modchain-orchestrator accept-restore --yes`"];
    assert!(next.iter().all(|step| said.contains(step)), "{said}");
    println!("rollback: {said}");

    let job = site.job(&paid_since);
    assert_eq!((&job["state"], job["attempts"].as_array().map(Vec::len)), (&"queued".into(), Some(0)), "{job:#}");
    let explained = site.run(&["-c", "alice", "job", "explain", &paid_since, "-o", "json"]).expect(0).json();
    assert!(explained["summary"].as_str().is_some_and(|why| why.contains("rolled back")), "{explained:#}");
    assert!(explained["starts_within_ms"].is_null(), "{explained:#}");
    let before = site.account("alice");
    let results = || (0..2).map(|agent| site.results_kept(agent)).sum::<usize>();
    if let Some(id) = &contained {
        docker(&["exec", &containers(id), "touch", "/tmp/end"]);
        eventually("its agent has the result on disk", || results() == 1);
    }
    let line = ["-c", "alice", "run", "-d", "-q", "--max-cost", "0.10", "--wasm", "hello.wat", "-o", "json"];
    let refused = site.run(&line);
    assert!(refused.code != Some(0) && refused.stderr.contains("rolled back"), "{refused:#?}");
    let refused = site.run(&["-c", "root", "credit", "alice", "1", "-o", "json"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("rolled back"), "{refused:#?}");
    if let Some(id) = &contained {
        eventually("both nodes are there", || site.ready() == 2);
        assert_eq!(site.job(id)["state"], "running", "its result is not settled");
        assert_eq!(results(), 1, "and its agent keeps it");
    }
    assert_eq!(site.account("alice"), before, "no money moved");
    assert!(!site.folders_of_attempts(place).is_empty(), "what runs is left alone");

    // A person has found the right data.
    fleet.orchestrator.stop();
    fs::rename(&data, &copy).and_then(|()| fs::rename(&newest, &data)).expect("renames");
    fleet.restart_orchestrator();
    let site = &fleet.site;
    eventually("both nodes are back", || site.ready() == 2);
    assert_eq!(problems(site), Some(Vec::new()));
    goes_on(site, &runs);
    run_to_its_end(site, &["--wasm", "hello.wat"]);
    if let Some(id) = &contained {
        site.run(&["-c", "alice", "wait", id, "--timeout", "100s"]).expect(7);
        assert_eq!(site.job(id)["attempts"].as_array().map(Vec::len), Some(1), "its result was taken");
    }
    site.run(&["-c", "alice", "cancel", "-y", &runs, "--grace", "0s", "--wait"]).expect(0);
    site.assert_money_is_whole();
    for agent in 0..2 {
        eventually("nothing of an attempt is kept", || site.folders_of_attempts(agent).is_empty());
    }
    site.assert_nobody_panicked();
}
