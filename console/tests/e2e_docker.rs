//! Containers through the whole system: the three real programs and the machine's own engine.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use common::engine::{IMAGE, Registry, containers, docker, engine_is_there};
use common::money::{adds_up, micro, unbilled};
use common::{Done, Stack, eventually, signal};
use serde_json::Value;

/// A stack whose node runs containers; `None` where there is no engine.
fn stack() -> Option<Stack> {
    stack_with("")
}

/// With these lines in the node's settings.
fn stack_with(settings: &'static str) -> Option<Stack> {
    engine_is_there().then(|| {
        let stack = Stack::start_with(|home, _| {
            if !settings.is_empty() {
                let folder = home.path().join(".local/state/modchain/up");
                std::fs::create_dir_all(&folder).expect("a folder");
                std::fs::write(folder.join("agent-1.toml"), settings).expect("writes");
            }
        });
        stack.wait_for_adapter("docker");
        stack
    })
}

/// The line of a container that runs this script, with these flags.
fn line<'a>(flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let cost: &[&str] = if flags.contains(&"--max-cost") { &[] } else { &["--max-cost", "0.10"] };
    [&["run", "-i", IMAGE][..], cost, flags, &["--", "sh", "-c", script]].concat()
}

/// Starts to follow a container.
fn follow(stack: &Stack, line: &[&str]) -> Child {
    let mut command = stack.home.command(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Every job's containers are gone.
#[track_caller]
fn assert_clean(stack: &Stack) {
    let jobs = stack.run(&["jobs", "--all", "-o", "name"]).expect(0).stdout;
    assert!(!jobs.is_empty());
    for job in jobs.lines() {
        assert_eq!(containers(job), "", "containers of {job} are left");
    }
}

#[test]
fn a_container_speaks_line_by_line_hears_what_is_sent_and_ends_with_its_own_code() {
    let Some(stack) = stack() else { return };
    let script = "echo one; read line; echo \"heard $line\"; echo apart >&2; exit 5";
    let mut run = follow(&stack, &line(&["--stdin", "--name", "speaks"], script));
    let mut stdout = BufReader::new(run.stdout.take().expect("is piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("reads");
    assert_eq!(first, "one\n", "it came before anything was sent");
    let running = stack.job("speaks");
    assert_eq!((&running["state"], &running["type"]), (&"running".into(), &"docker".into()));
    run.stdin.take().expect("is piped").write_all(b"hello\nand more\n").expect("sends");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "heard hello\n");
    let done = run.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(5), "{said}");
    for word in ["\napart\n", "running on local-1 (", "exit 5", "fee", "came back"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(stack.run(&["logs", "speaks", "--stdout"]).expect(0).stdout, "one\nheard hello\n");
    let err = stack.run(&["logs", "speaks", "--stderr"]).expect(0);
    assert!(err.stderr.contains("apart\n") && err.stdout.is_empty(), "{err:#?}");
    let job = stack.job("speaks");
    assert_eq!(job["image"], docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]), "frozen for all attempts");
    assert!(job["what"].as_str().expect("text").starts_with(&format!("{IMAGE} sh -c")), "{job:#}");
    assert_eq!(job["output"]["stdout_bytes"], "one\nheard hello\n".len());
    adds_up(&job);
    let shown = stack.run(&["job", "speaks"]).expect(0).stdout;
    assert!(shown.contains("\nimage      sha256:") && shown.contains(&format!("docker {IMAGE}")), "{shown}");
    assert_clean(&stack);
}

#[test]
fn every_ending_of_a_container_has_its_own_reason_code_and_bill() {
    let Some(stack) = stack() else { return };
    let before = stack.available("local");
    let nothing = format!("{}/nothing:1", Registry::empty().address);
    let plain = |flags: &[&str], script: &str| {
        let line = line(&[&["-o", "json"], flags].concat(), script);
        stack.run(&line)
    };
    let command = |image: &str, words: &[&str]| {
        let flags = ["run", "--max-cost", "0.10", "-o", "json", "-i", image, "--"];
        stack.run(&[&flags[..], words].concat())
    };
    let ends: Vec<(Done, i32, &str, &str, &str)> = vec![
        (plain(&[], "true"), 0, "completed", "exit", "job"),
        (plain(&[], "exit 3"), 3, "failed", "exit", "job"),
        (plain(&[], "kill -SEGV $$"), 139, "failed", "signal", "job"),
        (plain(&["--memory", "16MiB"], "tail /dev/zero"), 137, "failed", "memory", "limit"),
        (plain(&["--time-limit", "1s"], "sleep 600"), 124, "timed_out", "time_limit", "limit"),
        (plain(&["--pids", "8"], "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"), 2, "failed", "pids", "limit"),
        (command(IMAGE, &["no-such-command"]), 127, "failed", "command_not_found", "job"),
        (command(&nothing, &["true"]), 126, "failed", "not_found", "modchain"),
    ];
    let mut spent = 0;
    for (done, code, state, reason, from) in ends {
        let job = done.expect(code).json();
        assert_eq!((job["state"].as_str(), job["reason"].as_str()), (Some(state), Some(reason)), "{job:#}");
        assert_eq!((job["exit"]["code"].as_i64(), job["exit"]["from"].as_str()), (Some(code.into()), Some(from)));
        adds_up(&job);
        match reason {
            "command_not_found" | "not_found" => {
                unbilled(&job);
                assert!(job["message"].as_str().is_some_and(|message| message.contains("no")), "{job:#}");
            }
            _ => assert!(micro(&job, "cost") >= 1_000, "the minimum is paid by every job that ran: {job:#}"),
        }
        spent += micro(&job, "cost");
    }
    assert_eq!(before - stack.available("local"), spent);
    assert_clean(&stack);
}

#[test]
fn what_a_container_may_cost_ends_it() {
    // A core for a hundredth a second: two hundredths buy two seconds.
    let Some(stack) = stack_with("[prices]\ncore_hour = \"36\"\ngib_hour = \"0\"\nminimum = \"0.001\"\n") else {
        return;
    };
    let done = stack.run(&line(&["--max-cost", "0.02", "-o", "json"], "echo begun; sleep 600"));
    let job = done.expect(124).json();
    assert_eq!((&job["reason"], &job["exit"]["from"]), (&"budget".into(), &"limit".into()), "{job:#}");
    assert!(micro(&job, "cost") > 0 && micro(&job, "cost") <= 20_000, "{job:#}");
    adds_up(&job);
    assert_eq!(stack.run(&["logs", "@last"]).expect(0).stdout, "begun\n");
    assert_clean(&stack);
}

#[test]
fn a_container_is_started_as_it_was_asked_for_and_behind_its_walls() {
    let Some(stack) = stack() else { return };
    let script = "echo $A-$B-$IMAGE_SAYS; pwd; id -u; touch /x 2>/dev/null || echo read-only; echo t > /tmp/t && cat /tmp/t; \
                  ip -o addr 2>/dev/null | grep -v ' lo ' | wc -l";
    let flags = ["-e", "A=1", "--env", "B=two words", "--workdir", "/data"];
    let done = stack.run(&line(&flags, script)).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!((lines[0], lines[1]), ("1-two words-hello", "/data"), "{done:#?}");
    assert_ne!(lines[2], "0", "not as root: {done:#?}");
    assert_eq!(lines[3..], ["read-only", "t", "0"], "{done:#?}");
    // An entry point of one's own, and none at all.
    let entry =
        ["run", "-i", IMAGE, "--max-cost", "0.10", "--entrypoint", "echo", "--entrypoint", "from", "--", "there"];
    assert_eq!(stack.run(&entry).expect(0).stdout, "from there\n");
    let none = ["run", "-i", IMAGE, "--max-cost", "0.10", "--entrypoint", "", "--", "echo", "bare"];
    assert_eq!(stack.run(&none).expect(0).stdout, "bare\n");
    // What its owner does not allow, and what the machine does not have.
    for (flags, why) in [
        (&["--writable-root"][..], "its owner does not allow containers a writable root"),
        (&["--network"], "its owner does not allow containers a network"),
        (&["--gpus", "64"], "GPUs: 64 asked"),
        (&["--region", "nowhere"], "it is not in region nowhere"),
        (&["--price-per-hour", "0.000001"], "is over the cap of 0.000001"),
    ] {
        let quote: Vec<&str> =
            line(flags, "true").into_iter().map(|word| if word == "run" { "quote" } else { word }).collect();
        let done = stack.run(&quote).expect(6);
        assert!(done.stdout.contains(why), "{why}: {done:#?}");
        stack.run(&line(&[flags, &["--no-queue"]].concat(), "true")).expect(126);
    }
    let mixed = stack.run(&["run", "-i", IMAGE, "-p", "hi", "--max-cost", "0.10"]).expect(2);
    let why = "`--prompt` belongs to a job for a language model, and `--image` makes this a container";
    assert!(mixed.stderr.contains(why) && mixed.stderr.contains("\n  hint: leave one of the two out"), "{mixed:#?}");
    let secret = stack.run(&line(&["-e", "API_KEY=x"], "true")).expect(2);
    assert!(secret.stderr.contains("--allow-secrets-on-node"), "{secret:#?}");
    let meant = stack.run(&line(&["-e", "API_KEY=x", "--allow-secrets-on-node"], "echo $API_KEY")).expect(0);
    assert!(meant.stderr.starts_with("warning: the owner of the node can read API_KEY") && meant.stdout == "x\n");
    assert_clean(&stack);
}

#[test]
fn a_cancelled_container_gets_its_grace_and_is_gone() {
    let Some(stack) = stack() else { return };
    let script = "trap 'echo going; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut run = follow(&stack, &line(&["--name", "polite"], script));
    let mut stdout = BufReader::new(run.stdout.take().expect("is piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("reads");
    assert_eq!(first, "ready\n");
    assert_ne!(containers(stack.job("polite")["id"].as_str().expect("an id")), "", "it is there while it runs");
    stack.run(&["cancel", "polite", "-y", "--wait"]).expect(0);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "going\n", "it was asked before it was killed");
    let done = run.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(143), "{}", String::from_utf8_lossy(&done.stderr));
    let job = stack.job("polite");
    assert_eq!((&job["state"], &job["exit"]["from"]), (&"cancelled".into(), &"client".into()), "{job:#}");
    adds_up(&job);
    assert_clean(&stack);
}

#[test]
fn a_pull_is_told_while_it_goes_on_and_the_digest_of_the_image_is_frozen() {
    let Some(stack) = stack() else { return };
    let registry = Registry::with_image();
    let image = format!("{}:1", registry.image());
    // It runs for a while: of a job that is over at once nobody hears that it runs.
    let script = "ls -l /ballast | wc -l; sleep 2";
    let line = ["run", "-i", &image, "--max-cost", "0.10", "--name", "pulls", "--", "sh", "-c", script];
    let done = stack.run(&line);
    let pinned = format!("{}@{}", registry.image(), registry.digest);
    let again = stack.run(&["run", "-i", &pinned, "--max-cost", "0.10", "-o", "json", "--", "true"]);
    // Whatever came of it, the image goes.
    let _ = std::process::Command::new("docker").args(["rmi", "--force", &image, &pinned]).output();
    let done = done.expect(0);
    assert_eq!(done.stdout, "1\n");
    // Standard error is no terminal here: now and then a line.
    let told: Vec<&str> = done.stderr.lines().filter(|line| line.contains("  pulling: ")).collect();
    assert!(told.iter().any(|line| line.contains(" of 2 layers, ") && line.ends_with(" MiB")), "{done:#?}");
    let (pulling, running) = (done.stderr.find("pulling: "), done.stderr.find("running on local-1"));
    assert!(pulling < running, "the pull is before the start: {done:#?}");
    let job = stack.job("pulls");
    assert_eq!((&job["image"], &job["preparing"]), (&pinned.as_str().into(), &Value::Null), "{job:#}");
    adds_up(&job);
    assert_eq!(again.expect(0).json()["image"], pinned);
    assert_clean(&stack);
}

#[test]
fn who_detaches_from_a_container_comes_back_to_all_of_its_output() {
    let Some(stack) = stack() else { return };
    let script = "for i in 1 2 3 4 5 6; do echo line $i; sleep 2; done";
    let mut run = follow(&stack, &line(&["--name", "long"], script));
    let mut first = String::new();
    BufReader::new(run.stdout.take().expect("is piped")).read_line(&mut first).expect("reads");
    assert_eq!(first, "line 1\n");
    signal(&run, "INT");
    let done = run.wait_with_output().expect("ends");
    assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    let all: String = (1..=6).map(|number| format!("line {number}\n")).collect();
    assert_eq!(stack.run(&["logs", "-f", "long"]).expect(0).stdout, all);
    stack.run(&["wait", "long"]).expect(0);
    assert_clean(&stack);
}

#[test]
fn the_local_stack_runs_the_example_of_a_container() {
    let Some(stack) = stack() else { return };
    // The image of the example is pulled where there is a registry; here it is another name of the test's image.
    let had = !docker(&["images", "--quiet", "busybox:1"]).is_empty();
    if !had {
        docker(&["tag", IMAGE, "busybox:1"]);
    }
    let done = stack.run(&["run", "-f", "hello-docker.toml", "-o", "jsonl"]);
    if !had {
        docker(&["rmi", "busybox:1"]);
    }
    let documents: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert_eq!(done.code, Some(0), "{documents:#?}");
    assert_eq!(documents[0]["text"], "hello from Linux\n");
    let job = documents.last().expect("the job");
    assert_eq!((&job["schema"], &job["name"]), (&"modchain.job/v1".into(), &"hello-docker".into()));
    adds_up(job);
    eventually("its container is gone", || containers(job["id"].as_str().expect("an id")).is_empty());
    let dry = stack.run(&["run", "--dry-run", "-f", "hello-docker.toml", "-o", "json"]).expect(0).json();
    assert_eq!((&dry["spec"]["type"], &dry["spec"]["container"]["image"]), (&"docker".into(), &"busybox:1".into()));
}
