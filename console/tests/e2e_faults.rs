//! The real programs without `up`, killed and stopped at bad moments: what was accepted is done, paid once, and provable.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::time::Duration;

use common::engine::{IMAGE, containers, engine_is_there};
use common::eventually;
use common::fleet::{Fleet, GIVEN, Site};
use common::money::micro;

const ALL_LINES: &str = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n";

/// Submits `slow.wat`, which prints a line a second, ten in all; comes back when its first line is there.
fn submit_slow(site: &Site, more: &[&str]) -> String {
    let line = ["-c", "alice", "run", "-d", "-q", "--wasm", "slow.wat", "--max-cost", "0.10", "--memory", "64MiB"];
    let line: Vec<&str> = line.iter().chain(more).copied().collect();
    let id = site.run(&line).expect(0).stdout.trim().to_owned();
    eventually("it prints", || site.run(&["-c", "alice", "logs", &id]).stdout.contains("line 0\n"));
    id
}

/// The job has completed with these endings of attempts; it was paid once, by alice to the node's owner and the
/// platform, and the journal proves it.
#[track_caller]
fn assert_completed_and_paid_once(site: &Site, id: &str, attempts: &[(&str, &str)]) {
    let job = site.job(id);
    assert_eq!(job["state"], "completed", "{job:#}");
    let ended = job["attempts"].as_array().expect("a list");
    let ended: Vec<_> = ended.iter().map(|one| (one["state"].as_str(), one["reason"].as_str())).collect();
    let expected: Vec<_> = attempts.iter().map(|(state, reason)| (Some(*state), Some(*reason))).collect();
    assert_eq!(ended, expected, "{job:#}");
    let (cost, fee) = (micro(&job, "cost"), micro(&job, "fee"));
    assert_eq!(site.account("alice"), [GIVEN - cost, 0, 0], "{job:#}");
    assert_eq!(site.account("n0"), [0, 0, cost - fee], "{job:#}");
    site.assert_money_is_whole();
}

#[test]
fn a_job_whose_agent_is_killed_runs_again_and_is_paid_once() {
    let mut fleet = Fleet::start(1);
    let id = submit_slow(&fleet.site, &[]);
    fleet.agents[0].kill();
    fleet.agents[0] = fleet.site.agent(0);
    fleet.site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    assert_completed_and_paid_once(&fleet.site, &id, &[("failed", "node_fault"), ("completed", "exit")]);
    let log = fleet.site.run(&["-c", "alice", "logs", &id]).expect(0);
    assert!(log.stdout.starts_with("line 0\n") && log.stdout.ends_with(ALL_LINES), "{log:#?}");
    assert!(log.stderr.contains("attempt 2"), "a new attempt is marked: {log:#?}");
    eventually("nothing of it is kept", || fleet.site.folders_of_attempts(0).is_empty());
}

/// Prints 6,000 numbered lines on each stream, a hundred a tenth of a second.
const COUNTS: &str = "i=0; while [ $i -lt 6000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
                      [ $((i % 100)) = 0 ] && sleep 0.1; done; exit 4";

#[test]
fn a_container_outlives_its_killed_agent_and_is_taken_up_at_the_right_byte() {
    if !engine_is_there() {
        return;
    }
    let mut fleet = Fleet::start(1);
    fleet.site.wait_for_containers();
    let line = ["-c", "alice", "run", "-d", "-q", "-i", IMAGE, "--max-cost", "0.10", "--memory", "64MiB", "--", "sh"];
    let id = fleet.site.run(&[&line[..], &["-c", COUNTS]].concat()).expect(0).stdout.trim().to_owned();
    // Again and again, wherever it is just then, the start of the next agent included.
    for kill in 1..=4 {
        let last = format!("out {}\n", kill * 900);
        eventually("it prints", || fleet.site.run(&["-c", "alice", "logs", &id]).stdout.contains(&last));
        fleet.agents[0].kill();
        fleet.agents[0] = fleet.site.agent(0);
        if kill % 2 == 0 {
            std::thread::sleep(Duration::from_millis(150));
            fleet.agents[0].kill();
            fleet.agents[0] = fleet.site.agent(0);
        }
    }
    fleet.site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(4);
    let job = fleet.site.job(&id);
    assert_eq!((&job["state"], &job["exit"]["code"]), (&"failed".into(), &4.into()), "{job:#}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "the same attempt all the time: {job:#}");
    let log = fleet.site.run(&["-c", "alice", "logs", &id]).expect(0);
    let lines = |stream: &str| (0..6000).map(|i| format!("{stream} {i}\n")).collect::<String>();
    assert!(log.stdout == lines("out") && log.stderr == lines("err"), "every byte once, and nothing else");
    let cost = job["cost"]["micro"].as_u64().expect("a number");
    let account = fleet.site.run(&["-c", "alice", "account", "-o", "json"]).expect(0).json();
    assert_eq!(account["available"]["micro"], GIVEN - cost, "billed once");
    assert_eq!(containers(&id), "", "nothing is left on the engine");
    eventually("nothing of it is kept", || fleet.site.folders_of_attempts(0).is_empty());
}

#[test]
fn a_container_whose_agent_never_comes_back_is_swept_away_by_the_next_one_that_does_not_know_it() {
    if !engine_is_there() {
        return;
    }
    let mut fleet = Fleet::start(1);
    let line = ["-c", "alice", "run", "-d", "-q", "-i", IMAGE, "--max-cost", "0.10", "--", "sleep", "600"];
    let id = fleet.site.run(&line).expect(0).stdout.trim().to_owned();
    eventually("it runs", || fleet.site.job(&id)["state"] == "running");
    fleet.agents[0].kill();
    // Its memory is lost, as after a disk that was replaced.
    let data = fleet.site.home.path().join("agent0");
    std::fs::remove_dir_all(data.join("attempts")).expect("removes");
    std::fs::remove_file(data.join("attempts.log")).expect("removes");
    fleet.agents[0] = fleet.site.agent(0);
    eventually("a second attempt runs", || {
        let job = fleet.site.job(&id);
        job["state"] == "running" && job["attempts"].as_array().map(Vec::len) == Some(2)
    });
    eventually("only the container of the second is there", || containers(&id).lines().count() == 1);
    fleet.site.run(&["-c", "alice", "cancel", "-y", &id, "--grace", "0s", "--wait"]).expect(0);
    eventually("and then none", || containers(&id).is_empty());
}

#[test]
fn a_result_that_came_while_the_orchestrator_was_away_is_delivered_and_paid() {
    let mut fleet = Fleet::start(1);
    let id = submit_slow(&fleet.site, &[]);
    fleet.orchestrator.kill();
    eventually("the agent has the result on disk", || fleet.site.results_kept(0) == 1);
    fleet.restart_orchestrator();
    fleet.site.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    assert_completed_and_paid_once(&fleet.site, &id, &[("completed", "exit")]);
    assert_eq!(fleet.site.run(&["-c", "alice", "logs", &id]).expect(0).stdout, ALL_LINES);
    eventually("nothing of it is kept", || fleet.site.folders_of_attempts(0).is_empty());
}

#[test]
fn who_detaches_has_sent_the_input_first() {
    let fleet = Fleet::start(1);
    let input = "hi\n".repeat(100_000);
    let line = ["-c", "alice", "run", "-d", "-q", "--stdin", "--wasm", "echo.wat", "--max-cost", "0.10"];
    let id = fleet.site.home.run_with_input(&line, input.as_bytes()).expect(0).stdout;
    let id = id.trim();
    fleet.site.run(&["-c", "alice", "wait", id, "--timeout", "100s"]).expect(0);
    assert!(fleet.site.run(&["-c", "alice", "logs", id]).expect(0).stdout == input);
}
