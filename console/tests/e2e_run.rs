//! Jobs on the real programs: what a newcomer does, and what it costs.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Home, Stack, eventually, require_siblings, signal};

#[test]
fn one_command_starts_a_stack_runs_a_job_and_takes_everything_down() {
    require_siblings();
    let home = Home::new();
    let done = home.run(&["up", "--", "run", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0);
    assert_eq!(done.stdout, "hello\n");
    for word in ["submitted, 0.10 TEST held", "on local-1", "cost 0.00", "fee", "came back"] {
        assert!(done.stderr.contains(word), "{word}: {done:#?}");
    }
    let code = home.run(&["up", "--", "run", "--wasm", "exit3.wat", "--max-cost", "0.10"]).expect(3);
    assert!(code.stderr.contains("three things are wrong"), "{code:#?}");
    // Nothing of it is left: another one may start, and nobody listens any more.
    home.run(&["-c", "local", "status"]).expect(5);
}

#[test]
fn jobs_end_with_their_own_codes_and_reasons_and_money_adds_up() {
    let stack = Stack::start();
    let before = stack.available("local");
    let run = |args: &[&str]| {
        let line: Vec<&str> = ["run", "--max-cost", "0.10", "-o", "json"].iter().chain(args).copied().collect();
        stack.run(&line)
    };
    let mut spent = 0;
    for (args, code, state, reason, from) in [
        (&["--wasm", "hello.wat"][..], 0, "completed", "exit", "job"),
        (&["--wasm", "exit3.wat"], 3, "failed", "exit", "job"),
        (&["--wasm", "trap.wat"], 134, "failed", "trap", "job"),
        (&["--wasm", "hog.wat", "--memory", "16MiB"], 137, "failed", "memory", "limit"),
        (&["--wasm", "forever.wat", "--time-limit", "1s"], 124, "timed_out", "time_limit", "limit"),
    ] {
        let job = run(args).expect(code).json();
        assert_eq!((job["state"].as_str(), job["reason"].as_str()), (Some(state), Some(reason)), "{job:#}");
        assert_eq!((job["exit"]["code"].as_i64(), job["exit"]["from"].as_str()), (Some(code.into()), Some(from)));
        let micro = |field: &str| job[field]["micro"].as_u64().expect("a number");
        assert_eq!(micro("cost") + micro("refund"), micro("hold"), "{job:#}");
        assert!(micro("cost") >= 1_000, "the minimum is paid by every job that ran: {job:#}");
        spent += micro("cost");
    }
    assert_eq!(before - stack.available("local"), spent);
    let listed = stack.run(&["jobs", "--all", "-o", "json"]).expect(0).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(5));
    let ledger = stack.run(&["ledger", "-o", "jsonl"]).expect(0);
    assert!(ledger.stdout.lines().count() >= 6, "{ledger:#?}");
}

#[test]
fn standard_input_comes_back_from_echo_and_output_can_be_read_again() {
    let stack = Stack::start();
    let input = "hi\n".repeat(100_000);
    let line = ["run", "--stdin", "--wasm", "echo.wat", "--max-cost", "0.10"];
    let done = stack.home.run_with_input(&line, input.as_bytes()).expect(0);
    assert!(done.stdout == input, "{} bytes came back", done.stdout.len());
    assert!(stack.run(&["logs", "@last"]).expect(0).stdout == input);
    assert_eq!(stack.run(&["logs", "@last", "--tail", "2"]).expect(0).stdout, "hi\nhi\n");
    let documents = stack.run(&["logs", "@last", "--tail", "1", "-o", "jsonl"]).expect(0);
    let last: Vec<serde_json::Value> =
        documents.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&last[0]["schema"], &last[0]["text"]), (&"modchain.log/v1".into(), &"hi\n".into()));
    assert_eq!(last[0]["offset"], input.len() as u64 - 3);
    assert_eq!(last[1]["schema"], "modchain.log_end/v1");
    let whole = stack.run(&["logs", "@last", "--tail", "2", "-o", "json"]).expect(0).json();
    assert_eq!((&whole["schema"], whole["items"].as_array().map(Vec::len)), (&"modchain.logs/v1".into(), Some(2)));
    assert_eq!((&whole["items"][1], &whole["end"]), (&last[0], &last[1]));
}

#[test]
fn output_arrives_while_the_job_runs_and_ctrl_c_leaves_it_running() {
    let stack = Stack::start();
    // Long enough for all that is asked here while it runs.
    let module = stack.home.ticking(4_000_000_000);
    let mut run = stack
        .home
        .command(&["run", "--wasm", &module, "--max-cost", "0.10", "--name", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = BufReader::new(run.stdout.take().expect("is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("reads");
    assert_eq!(line, "line 0\n");
    let job = stack.run(&["job", "slow", "-o", "json"]).expect(0).json();
    assert_eq!(job["state"], "running", "a line came before the end: {job:#}");
    signal(&run, "INT");
    let done = run.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(130), "{said}");
    assert!(said.contains("Detached.") && said.contains("modchain cancel"), "{said}");
    // It runs on and can be cancelled; what was not used comes back.
    stack.run(&["cancel", "slow"]).expect(2);
    stack.run(&["cancel", "slow", "-y", "--wait"]).expect(0);
    let job = stack.run(&["job", "slow", "-o", "json"]).expect(0).json();
    assert_eq!((job["state"].as_str(), job["exit"]["code"].as_i64()), (Some("cancelled"), Some(143)));
    stack.run(&["cancel", "slow", "-y"]).expect(7);
    stack.run(&["cancel", "slow", "-y", "--if-running"]).expect(0);
    stack.run(&["wait", "slow"]).expect(143);
}

#[test]
fn a_reader_that_does_not_read_keeps_nobody_from_leaving() {
    let stack = Stack::start();
    let line = ["run", "-d", "-q", "--wasm", "flood.wat", "--max-cost", "0.10", "--name", "flood"];
    stack.run(&line).expect(0);
    stack.run(&["wait", "flood"]).expect(0);
    for line in [&["logs", "flood"][..], &["logs", "-f", "flood"]] {
        let mut logs = stack.home.command(line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut stdout = logs.stdout.take().expect("is piped");
        // It has begun, and cannot go on: there are some megabytes more than fit anywhere.
        stdout.read_exact(&mut [0]).expect("reads");
        signal(&logs, "INT");
        let mut code = None;
        eventually("it ends", || {
            code = logs.try_wait().expect("waits");
            code.is_some()
        });
        assert_eq!(code.and_then(|code| code.code()), Some(130), "{line:?}");
    }
}

#[test]
fn a_job_that_no_node_takes_says_why_while_it_waits() {
    let stack = Stack::start();
    let line = ["run", "--wasm", "hello.wat", "--max-cost", "0.10", "--memory", "9999GiB", "--start-by", "15s"];
    let done = stack.run(&line).expect(126);
    assert!(done.stderr.contains("queued: ") && done.stderr.contains("\n  local-1  memory: "), "{done:#?}");
    assert!(done.stdout.is_empty(), "{done:#?}");
}

#[test]
fn only_ctrl_c_cancels_on_interrupt_and_who_detaches_gets_the_document() {
    let stack = Stack::start();
    let start = |more: &[&str]| {
        let line: Vec<&str> = ["run", "--wasm", "forever.wat", "--max-cost", "0.10", "--cancel-on-interrupt"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let run = stack.home.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        eventually("it runs", || {
            let job = stack.run(&["job", more[1], "-o", "json"]);
            job.code == Some(0) && job.json()["state"] == "running"
        });
        run
    };
    let run = start(&["--name", "left", "-o", "json"]);
    signal(&run, "TERM");
    let done = run.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(143));
    let job: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one document");
    assert_eq!((&job["schema"], &job["name"]), (&"modchain.job/v1".into(), &"left".into()));
    let job = stack.run(&["job", "left", "-o", "json"]).expect(0).json();
    assert_eq!(job["state"], "running", "SIGTERM detaches: {job:#}");
    let run = start(&["--name", "stopped"]);
    signal(&run, "INT");
    assert_eq!(run.wait_with_output().expect("ends").status.code(), Some(143));
    let job = stack.run(&["job", "stopped", "-o", "json"]).expect(0).json();
    assert_eq!(job["state"], "cancelled", "{job:#}");
}

#[test]
fn the_same_key_is_the_same_job_and_another_specification_is_refused() {
    let stack = Stack::start();
    let submit =
        |cost: &str| stack.run(&["run", "-d", "-q", "--id", "once", "--wasm", "hello.wat", "--max-cost", cost]);
    let first = submit("0.10").expect(0).stdout;
    assert_eq!(submit("0.10").expect(0).stdout, first);
    let again = stack.run(&["run", "-d", "--id", "once", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0);
    assert!(again.stderr.contains("submitted before with this key"), "{again:#?}");
    assert!(submit("0.20").expect(6).stdout.is_empty());
    stack.run(&["wait", first.trim(), "--timeout", "60s"]).expect(0);
    let holds = stack.run(&["ledger", "--type", "hold", "-o", "jsonl"]).expect(0);
    assert_eq!(holds.stdout.lines().count(), 1, "{holds:#?}");
}

#[test]
fn an_earlier_job_is_told_of_saved_and_run_again() {
    let stack = Stack::start();
    let line = ["run", "-q", "--wasm", "primes.wat", "--max-cost", "0.10", "--name", "first", "--", "10"];
    let output = stack.run(&line).expect(0).stdout;
    assert!(!output.is_empty());
    let first = stack.job("first")["id"].as_str().expect("an id").to_owned();
    let first = first.as_str();

    let again = stack.run(&["job", "rerun", "first", "--name", "second"]).expect(0);
    assert!(again.stdout == output && again.stderr.contains("submitted, 0.10 TEST held"), "{again:#?}");
    let line = ["job", "rerun", first, "-d", "-q", "--name", "third", "--max-cost", "0.20", "--", "20"];
    let third = stack.run(&line).expect(0).stdout;
    stack.run(&["wait", third.trim()]).expect(0);
    let third = stack.job("@last");
    assert_eq!((&third["what"], &third["hold"]["micro"]), (&"primes.wat 20".into(), &200_000.into()), "{third:#}");
    stack.run(&["job", "rerun", first, "-i", "alpine"]).expect(2);
    stack.run(&["job", "rerun", "nothing"]).expect(3);
    let code = stack.run(&["job", "rerun", first, "--wasm", "exit3.wat", "-o", "json"]).expect(3).json();
    assert_eq!(code["what"], "exit3.wat 10", "{code:#}");

    // A file of its own, with the module beside it, is the same job.
    let folder = stack.home.path().join("saved");
    std::fs::create_dir(&folder).expect("a folder");
    let inside = |args: &[&str]| {
        let out = stack.home.command(args).current_dir(&folder).output().expect("starts");
        assert!(out.status.success(), "{out:#?}");
        String::from_utf8(out.stdout).expect("text")
    };
    let file = inside(&["job", "spec", first, "--module", "primes.wat"]);
    std::fs::write(folder.join("job.toml"), &file).expect("writes");
    let module = std::fs::read(folder.join("primes.wat")).expect("it is saved");
    assert_eq!(module, std::fs::read(common::examples().join("primes.wat")).expect("an example"));
    assert_eq!(inside(&["run", "-q", "-f", "job.toml"]), output);
    let spec = |job: &str| {
        let mut spec = stack.run(&["job", "spec", job, "-o", "json"]).expect(0).json();
        spec["job"].take();
        spec
    };
    assert_eq!((spec(first), &spec(first)["schema"]), (spec("@last"), &"modchain.spec/v1".into()));
    stack.run(&["job", "spec", first, "--history", "x.json"]).expect(2);
    stack.run(&["-c", "local-second", "job", "spec", third["id"].as_str().expect("an id")]).expect(3);

    let events = stack.run(&["job", "events", first, "-o", "jsonl"]).expect(0).stdout;
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.len() >= 4 && events.iter().all(|event| event["job"] == first), "{events:#?}");
}

#[test]
fn what_cannot_be_is_refused_and_costs_nothing() {
    let stack = Stack::start();
    let before = stack.available("local");
    let run = |args: &[&str]| {
        let line: Vec<&str> = ["run", "--wasm", "hello.wat", "-o", "json"].iter().chain(args).copied().collect();
        stack.run(&line)
    };
    let code = |done: &common::Done| -> String {
        let error: serde_json::Value = serde_json::from_str(done.stderr.trim()).expect("one document");
        error["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(code(&run(&["--max-cost", "5000"]).expect(126)), "insufficient_funds");
    assert_eq!(code(&run(&["--max-cost", "5000", "-d"]).expect(6)), "insufficient_funds");
    assert_eq!(code(&run(&["--max-cost", "0.10", "--cpus", "1024", "--no-queue"]).expect(126)), "no_fit");
    assert_eq!(code(&run(&["--max-cost", "0.10", "--env", "API_KEY=x"]).expect(2)), "usage");
    run(&[]).expect(2);
    run(&["--max-cost", "0.10", "-i", "x:1@sha256:abc"]).expect(2);
    let large = tempfile::tempfile().expect("a file");
    large.set_len((64 << 20) + 1).expect("it is sparse");
    let line = ["run", "--stdin", "--wasm", "echo.wat", "--max-cost", "0.10"];
    let refused = stack.home.command(&line).stdin(large).output().expect("starts");
    assert_eq!(refused.status.code(), Some(2), "{refused:#?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("may be given 64 MiB"), "{refused:#?}");
    let listed = stack.run(&["jobs", "--all", "-o", "json"]).expect(0).json();
    assert_eq!(listed["total"], 0, "nothing was submitted: {listed:#}");
    stack.run(&["job", "j-000"]).expect(3);
    stack.run(&["credit", "local", "1"]).expect(4);
    stack.run(&["-c", "local-operator", "credit", "local", "1", "--id", "k"]).expect(0);
    stack.run(&["-c", "local-operator", "credit", "local", "1", "--id", "k"]).expect(0);
    assert_eq!(stack.available("local") - before, 1_000_000, "nothing was charged, and the credit was given once");
}

#[test]
fn another_clients_job_is_as_if_it_did_not_exist() {
    let stack = Stack::start();
    let id = stack.run(&["run", "-d", "-q", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0).stdout;
    let id = id.trim();
    stack.run(&["wait", id]).expect(0);
    for command in [&["job", id][..], &["logs", id], &["cancel", "-y", id], &["job", "explain", id]] {
        let line: Vec<&str> = ["-c", "local-second"].iter().chain(command).copied().collect();
        let theirs = stack.run(&line).expect(3).stderr;
        let none = "j-00000000000000000000000000";
        let line: Vec<&str> = line.iter().map(|word| if *word == id { none } else { word }).collect();
        assert_eq!(theirs.replace(id, none), stack.run(&line).expect(3).stderr);
    }
}

#[test]
fn a_second_stack_in_the_same_folder_is_refused_and_the_first_goes_on() {
    let stack = Stack::start();
    let second = stack.run(&["up", "--headless"]).expect(7);
    assert!(second.stderr.contains("is running in"), "{second:#?}");
    let status = stack.run(&["status", "-o", "json"]).expect(0).json();
    assert_eq!(status["nodes"]["ready"], 1);
    let who = stack.run(&["whoami", "-o", "json"]).expect(0).json();
    assert_eq!((&who["name"], &who["role"]), (&"local".into(), &"client".into()));
    stack.run(&["-c", "local-operator", "whoami"]).expect(0);
    stack.run(&["version", "--server"]).expect(0);
    stack.run(&["nodes"]).expect(0);
    stack.run(&["events", "-o", "jsonl"]).expect(0);
    stack.run(&["quote", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0);
    stack.run(&["run", "--dry-run", "-f", "primes.toml"]).expect(0);
}

#[test]
fn the_first_ctrl_c_under_up_cancels_the_job_and_everything_goes_down() {
    require_siblings();
    let home = Home::new();
    let mut up = home
        .command(&["up", "--", "run", "--wasm", "slow.wat", "--max-cost", "0.10"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(up.stdout.take().expect("is piped")).read_line(&mut line).expect("reads");
    assert_eq!(line, "line 0\n");
    signal(&up, "INT");
    let done = up.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(143), "{said}");
    assert!(said.contains("cancelled") && said.contains("came back"), "{said}");
}

#[test]
fn the_stack_says_what_its_nodes_run_once_they_have_looked_where_its_surroundings_say() {
    require_siblings();
    let home = Home::new();
    let mut up = home
        .command(&["up"])
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .env("OLLAMA_HOST", "127.0.0.1:1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(up.stderr.take().expect("is piped")).lines().map(|line| line.expect("text"));
    let said: Vec<String> = lines.by_ref().take_while(|line| line != "local-1 runs wasm").collect();
    assert!(said.first().is_some_and(|line| line.starts_with("ready: orchestrator ")), "{said:#?}");
    assert!(said.iter().any(|line| line == "Ctrl-C stops it."), "{said:#?}");
    assert!(matches!(up.try_wait(), Ok(None)), "the line came while it runs");
    signal(&up, "INT");
    assert_eq!(lines.next().as_deref(), Some("stopping"));
    assert!(up.wait().expect("ends").success());
}

#[test]
fn when_up_is_killed_its_children_end_and_the_next_one_takes_over() {
    let mut stack = Stack::start();
    stack.run(&["run", "-q", "--wasm", "hello.wat", "--max-cost", "0.10"]).expect(0);
    let before = stack.available("local");
    stack.up.kill().expect("is killed");
    stack.up.wait().expect("is gone");
    eventually("nobody listens any more", || stack.run(&["status"]).code == Some(5));
    // The same folder, the same balance: the credit of the start is given once.
    let account = stack.run(&["up", "--", "account", "-o", "json"]).expect(0).json();
    assert_eq!(account["available"]["micro"], before);
}

#[test]
fn an_orchestrator_that_is_killed_is_back_and_the_follower_misses_nothing() {
    let stack = Stack::start();
    let mut run = stack
        .home
        .command(&["run", "--wasm", "slow.wat", "--max-cost", "0.10"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = BufReader::new(run.stdout.take().expect("is piped"));
    let mut output = String::new();
    stdout.read_line(&mut output).expect("reads");
    stack.kill_orchestrator();
    std::io::Read::read_to_string(&mut stdout, &mut output).expect("reads");
    let done = run.wait_with_output().expect("ends");
    let expected: String = (0..10).map(|number| format!("line {number}\n")).collect();
    assert_eq!(output, expected, "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0));
    eventually("the node is ready again", || {
        let status = stack.run(&["status", "-o", "json"]);
        status.code == Some(0) && status.json()["nodes"]["ready"] == 1
    });
}
