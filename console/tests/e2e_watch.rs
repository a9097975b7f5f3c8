//! `--watch` against a real stack: what changes is pushed, and goes on when the orchestrator comes back.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::{Stack, Watching};
use serde_json::Value;

fn op(line: &str) -> Value {
    serde_json::from_str(line).expect("one object a line")
}

/// A job that runs until it is cancelled, by this name.
fn forever(stack: &Stack, name: &str) -> String {
    let line = ["run", "-d", "-q", "--wasm", "forever.wat", "--max-cost", "0.10", "--name", name];
    stack.run(&line).expect(0).stdout.trim().to_owned()
}

#[test]
fn jobs_money_and_the_state_of_the_pool_are_pushed_as_they_change() {
    let stack = Stack::start();
    let watch = |args: &[&str]| Watching::start(&stack.home, args);
    let mut jobs = watch(&["jobs", "--watch", "-o", "jsonl"]);
    let mut rows = watch(&["jobs", "--watch"]);
    let mut ids = watch(&["jobs", "--watch", "--all", "-o", "name"]);
    let mut account = watch(&["account", "--watch", "-o", "jsonl"]);
    let mut status = watch(&["status", "--watch", "-o", "jsonl"]);
    let mut line = watch(&["status", "--watch"]);
    assert!(rows.until(|_| true).starts_with("JOB"));
    let first = op(&account.until(|_| true));
    assert_eq!((&first["schema"], &first["op"]), (&"modchain.account_change/v1".into(), &"add".into()));
    assert_eq!(
        (&first["account"]["held"]["micro"], &first["account"]["schema"]),
        (&0.into(), &"modchain.account/v1".into())
    );
    let calm = op(&status.until(|_| true));
    assert_eq!((&calm["schema"], &calm["op"]), (&"modchain.status_change/v1".into(), &"add".into()));
    assert_eq!(calm["status"]["jobs"]["running"], 0);
    assert!(line.until(|_| true).starts_with("READY"));

    let id = forever(&stack, "pushed");
    let is = |what: &'static str, state: &'static str| {
        let id = id.clone();
        move |line: &str| {
            let told = op(line);
            told["op"] == what && told["job"]["id"] == id.as_str() && told["job"]["state"] == state
        }
    };
    let added = op(&jobs.until(|line| op(line)["op"] == "add"));
    assert_eq!((&added["schema"], &added["job"]["name"]), (&"modchain.job_change/v1".into(), &"pushed".into()));
    if added["job"]["state"] != "running" {
        jobs.until(is("change", "running"));
    }
    rows.until(|line| line.starts_with(&id) && line.contains("running"));
    assert_eq!(ids.until(|_| true), id);
    account.until(|line| op(line)["op"] == "change" && op(line)["account"]["held"]["micro"] == 100_000);
    status.until(|line| op(line)["status"]["jobs"]["running"] == 1);
    line.until(|line| line.split_whitespace().nth(4) == Some("1"));

    stack.run(&["cancel", "-y", "--grace", "0s", "--wait", &id]).expect(0);
    let gone = op(&jobs.until(is("remove", "cancelled")));
    assert_eq!(gone["job"]["exit"]["code"], 143, "how it ended is told once: {gone:#}");
    rows.until(|line| line.starts_with(&id) && line.contains("cancelled"));
    account.until(|line| op(line)["account"]["held"]["micro"] == 0);
    status.until(|line| op(line)["status"]["jobs"]["running"] == 0);
    for watching in [jobs, rows, ids, account, status, line] {
        assert_eq!(watching.interrupt(), Some(130));
    }
    stack.run(&["account", "local", "--watch"]).expect(2);
    stack.run(&["status", "--check", "--watch"]).expect(2);
}

#[test]
fn a_watch_goes_on_where_it_was_when_the_orchestrator_is_back() {
    let stack = Stack::start();
    let id = forever(&stack, "before");
    let mut jobs = Watching::start(&stack.home, &["jobs", "--watch", "-o", "jsonl"]);
    jobs.until(|line| op(line)["job"]["state"] == "running");
    stack.kill_orchestrator();
    common::eventually("it is back", || stack.run(&["status"]).code == Some(0));
    let after = forever(&stack, "after");
    let mut again = 0;
    jobs.until(|line| {
        let told = op(line);
        again += usize::from(told["op"] == "add" && told["job"]["id"] == id.as_str());
        told["op"] == "add" && told["job"]["id"] == after.as_str()
    });
    assert_eq!(again, 0, "what is known is not told as new");
    assert_eq!(jobs.interrupt(), Some(130));
}
