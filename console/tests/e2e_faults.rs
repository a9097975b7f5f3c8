//! The real programs without `up`, killed and stopped at bad moments: what was accepted is done, paid once, and provable.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::engine::{IMAGE, containers, engine_is_there};
use common::{Home, eventually, program, require_siblings, signal};

const ALL_LINES: &str = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n";

/// Money that is given at the start, in micro-units.
const GIVEN: u64 = 1_000_000;

/// A program that is killed when the test ends, stopped or not.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        signal(&self.0, name);
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One orchestrator, some agents, a client `alice`, an owner `owen` and an operator `root`.
struct Pool {
    home: Home,
    address: String,
    orchestrator: Running,
    agents: Vec<Running>,
}

impl Pool {
    fn start(agents: usize) -> Self {
        require_siblings();
        let home = Home::new();
        let nodes = (0..agents).flat_map(|number| ["--node".to_owned(), format!("n{number}=owen")]);
        let people = ["--client", "alice", "--client", "owen", "--operator", "root"].map(String::from);
        let made = Self::command(&home, "modchain-orchestrator")
            .args(["init", "--data", "data", "--identities", "ids"])
            .args(people.into_iter().chain(nodes))
            .output()
            .expect("starts");
        assert!(made.status.success(), "{made:?}");
        let (orchestrator, address) = Self::serve(&home, "127.0.0.1:0");
        let mut pool = Self { home, address, orchestrator, agents: Vec::new() };
        for name in ["alice", "owen", "root"] {
            let identity = pool.home.path().join("ids").join(name);
            let identity = identity.to_str().expect("text");
            pool.run(&["context", "add", name, "--orchestrator", &pool.address, "--identity", identity]).expect(0);
        }
        pool.run(&["-c", "root", "credit", "alice", "1"]).expect(0);
        pool.agents = (0..agents).map(|number| pool.agent(number)).collect();
        eventually("all nodes are ready", || pool.ready() == agents);
        pool
    }

    fn command(home: &Home, name: &str) -> Command {
        let mut command = Command::new(program().with_file_name(name));
        command.current_dir(home.path()).env("HOME", home.path()).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn serve(home: &Home, listen: &str) -> (Running, String) {
        let mut child = Self::command(home, "modchain-orchestrator")
            .args(["serve", "--data", "data", "--listen", listen])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("reads");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("it serves");
        (Running(child), ready["listen"].as_str().expect("an address").to_owned())
    }

    fn agent(&self, number: usize) -> Running {
        let child = Self::command(&self.home, "modchain-agent")
            .args(["start", "--config", "/dev/null", "--orchestrator", &self.address, "--memory", "1GiB"])
            .args(["--identity", &format!("ids/n{number}"), "--data", &format!("agent{number}")])
            .spawn()
            .expect("starts");
        Running(child)
    }

    fn restart_orchestrator(&mut self) {
        (self.orchestrator, _) = Self::serve(&self.home, &self.address);
    }

    fn run(&self, args: &[&str]) -> common::Done {
        self.home.run(args)
    }

    fn ready(&self) -> usize {
        let nodes = self.run(&["-c", "root", "nodes", "-o", "json"]).expect(0).json();
        let nodes = nodes["items"].as_array().expect("a list");
        nodes.iter().filter(|node| node["state"] == "ready").count()
    }

    /// Submits `slow.wat`, which prints a line a second, ten in all; comes back when its first line is there.
    fn submit_slow(&self, more: &[&str]) -> String {
        let line = ["-c", "alice", "run", "-d", "-q", "--wasm", "slow.wat", "--max-cost", "0.10", "--memory", "64MiB"];
        let line: Vec<&str> = line.iter().chain(more).copied().collect();
        let id = self.run(&line).expect(0).stdout.trim().to_owned();
        eventually("it prints", || self.run(&["-c", "alice", "logs", &id]).stdout.contains("line 0\n"));
        id
    }

    fn job(&self, id: &str) -> serde_json::Value {
        self.run(&["-c", "alice", "job", id, "-o", "json"]).expect(0).json()
    }

    /// The number of the agent on which the job is.
    fn place(&self, id: &str) -> usize {
        let job = self.job(id);
        let name = job["node"].as_str().expect("a node").to_owned();
        name.trim_start_matches('n').parse().expect("a number")
    }

    fn folders_of_attempts(&self, agent: usize) -> Vec<PathBuf> {
        let folder = self.home.path().join(format!("agent{agent}/attempts"));
        std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("reads").path()).collect()
    }

    /// The job has completed with these endings of attempts; it was paid once, by alice to owen and the platform, and the
    /// journal proves it.
    fn assert_completed_and_paid_once(&self, id: &str, attempts: &[(&str, &str)]) {
        let job = self.job(id);
        assert_eq!(job["state"], "completed", "{job:#}");
        let ended = job["attempts"].as_array().expect("a list");
        let ended: Vec<_> = ended.iter().map(|one| (one["state"].as_str(), one["reason"].as_str())).collect();
        let expected: Vec<_> = attempts.iter().map(|(state, reason)| (Some(*state), Some(*reason))).collect();
        assert_eq!(ended, expected, "{job:#}");
        let money = |context: &str, field: &str| {
            let account = self.run(&["-c", context, "account", "-o", "json"]).expect(0).json();
            account[field]["micro"].as_u64().expect("a number")
        };
        let of_job = |field: &str| job[field]["micro"].as_u64().expect("a number");
        assert_eq!(money("alice", "available"), GIVEN - of_job("cost"), "{job:#}");
        assert_eq!((money("alice", "held"), money("owen", "earned")), (0, of_job("cost") - of_job("fee")), "{job:#}");
        let verified = Self::command(&self.home, "modchain-orchestrator")
            .args(["ledger", "verify", "--data", "data"])
            .output()
            .expect("starts");
        assert!(verified.status.success(), "{verified:?}");
    }
}

#[test]
fn a_job_whose_agent_is_killed_runs_again_and_is_paid_once() {
    let mut pool = Pool::start(1);
    let id = pool.submit_slow(&[]);
    pool.agents[0].kill();
    pool.agents[0] = pool.agent(0);
    pool.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    pool.assert_completed_and_paid_once(&id, &[("failed", "node_fault"), ("completed", "exit")]);
    let log = pool.run(&["-c", "alice", "logs", &id]).expect(0);
    assert!(log.stdout.starts_with("line 0\n") && log.stdout.ends_with(ALL_LINES), "{log:#?}");
    assert!(log.stderr.contains("attempt 2"), "a new attempt is marked: {log:#?}");
    eventually("nothing of it is kept", || pool.folders_of_attempts(0).is_empty());
}

/// Prints 6,000 numbered lines on each stream, a hundred a tenth of a second.
const COUNTS: &str = "i=0; while [ $i -lt 6000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
                      [ $((i % 100)) = 0 ] && sleep 0.1; done; exit 4";

#[test]
fn a_container_outlives_its_killed_agent_and_is_taken_up_at_the_right_byte() {
    if !engine_is_there() {
        return;
    }
    let mut pool = Pool::start(1);
    eventually("the node runs containers", || {
        let nodes = pool.run(&["-c", "root", "nodes", "-o", "json"]).expect(0).json();
        nodes["items"][0]["types"].as_array().is_some_and(|types| types.iter().any(|one| one == "docker"))
    });
    let line = ["-c", "alice", "run", "-d", "-q", "-i", IMAGE, "--max-cost", "0.10", "--memory", "64MiB", "--", "sh"];
    let id = pool.run(&[&line[..], &["-c", COUNTS]].concat()).expect(0).stdout.trim().to_owned();
    // Again and again, wherever it is just then, the start of the next agent included.
    for kill in 1..=4 {
        let last = format!("out {}\n", kill * 900);
        eventually("it prints", || pool.run(&["-c", "alice", "logs", &id]).stdout.contains(&last));
        pool.agents[0].kill();
        pool.agents[0] = pool.agent(0);
        if kill % 2 == 0 {
            std::thread::sleep(Duration::from_millis(150));
            pool.agents[0].kill();
            pool.agents[0] = pool.agent(0);
        }
    }
    pool.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(4);
    let job = pool.job(&id);
    assert_eq!((&job["state"], &job["exit"]["code"]), (&"failed".into(), &4.into()), "{job:#}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "the same attempt all the time: {job:#}");
    let log = pool.run(&["-c", "alice", "logs", &id]).expect(0);
    let lines = |stream: &str| (0..6000).map(|i| format!("{stream} {i}\n")).collect::<String>();
    assert!(log.stdout == lines("out") && log.stderr == lines("err"), "every byte once, and nothing else");
    let cost = job["cost"]["micro"].as_u64().expect("a number");
    let account = pool.run(&["-c", "alice", "account", "-o", "json"]).expect(0).json();
    assert_eq!(account["available"]["micro"], GIVEN - cost, "billed once");
    assert_eq!(containers(&id), "", "nothing is left on the engine");
    eventually("nothing of it is kept", || pool.folders_of_attempts(0).is_empty());
}

#[test]
fn a_container_whose_agent_never_comes_back_is_swept_away_by_the_next_one_that_does_not_know_it() {
    if !engine_is_there() {
        return;
    }
    let mut pool = Pool::start(1);
    let line = ["-c", "alice", "run", "-d", "-q", "-i", IMAGE, "--max-cost", "0.10", "--", "sleep", "600"];
    let id = pool.run(&line).expect(0).stdout.trim().to_owned();
    eventually("it runs", || pool.job(&id)["state"] == "running");
    pool.agents[0].kill();
    // Its memory is lost, as after a disk that was replaced.
    std::fs::remove_dir_all(pool.home.path().join("agent0/attempts")).expect("removes");
    pool.agents[0] = pool.agent(0);
    eventually("a second attempt runs", || {
        let job = pool.job(&id);
        job["state"] == "running" && job["attempts"].as_array().map(Vec::len) == Some(2)
    });
    eventually("only the container of the second is there", || containers(&id).lines().count() == 1);
    pool.run(&["-c", "alice", "cancel", "-y", &id, "--grace", "0s", "--wait"]).expect(0);
    eventually("and then none", || containers(&id).is_empty());
}

#[test]
fn a_result_that_came_while_the_orchestrator_was_away_is_delivered_and_paid() {
    let mut pool = Pool::start(1);
    let id = pool.submit_slow(&[]);
    pool.orchestrator.kill();
    eventually("the agent has the result on disk", || {
        pool.folders_of_attempts(0).iter().any(|folder| folder.join("result.json").is_file())
    });
    pool.restart_orchestrator();
    pool.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    pool.assert_completed_and_paid_once(&id, &[("completed", "exit")]);
    assert_eq!(pool.run(&["-c", "alice", "logs", &id]).expect(0).stdout, ALL_LINES);
    eventually("nothing of it is kept", || pool.folders_of_attempts(0).is_empty());
}

#[test]
fn a_node_that_was_silent_for_too_long_loses_its_job_and_its_late_result_changes_nothing() {
    let pool = Pool::start(2);
    let started = Instant::now();
    let id = pool.submit_slow(&["--lost-after", "15s"]);
    let silent = pool.place(&id);
    pool.agents[silent].signal("STOP");
    // Not before the orchestrator has served for a minute: until then it declares nobody lost.
    eventually("it moves to the other node", || {
        pool.job(&id)["attempts"].as_array().is_some_and(|attempts| attempts.len() == 2)
    });
    assert!(started.elapsed() >= Duration::from_secs(15));
    assert_ne!(pool.place(&id), silent);
    // Its child went on and has ended long ago: the result is late.
    pool.agents[silent].signal("CONT");
    eventually("nothing is kept where it was", || pool.folders_of_attempts(silent).is_empty());
    pool.run(&["-c", "alice", "wait", &id, "--timeout", "100s"]).expect(0);
    pool.assert_completed_and_paid_once(&id, &[("failed", "node_lost"), ("completed", "exit")]);
    eventually("it is back", || pool.ready() == 2);
}

#[test]
fn who_detaches_has_sent_the_input_first() {
    let pool = Pool::start(1);
    let input = "hi\n".repeat(100_000);
    let line = ["-c", "alice", "run", "-d", "-q", "--stdin", "--wasm", "echo.wat", "--max-cost", "0.10"];
    let id = pool.home.run_with_input(&line, input.as_bytes()).expect(0).stdout;
    let id = id.trim();
    pool.run(&["-c", "alice", "wait", id, "--timeout", "100s"]).expect(0);
    assert!(pool.run(&["-c", "alice", "logs", id]).expect(0).stdout == input);
}
