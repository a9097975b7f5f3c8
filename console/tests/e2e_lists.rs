//! Lists against a real stack: every format of every list in a pipe, filters and columns, completions, and readers that leave.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use common::{Stack, Watching, eventually};
use serde_json::Value;

/// A job by this name that has ended.
fn ended(stack: &Stack, name: &str) -> String {
    let line = ["run", "-d", "-q", "--wasm", "hello.wat", "--max-cost", "0.10", "--name", name, "--label", "sweep=a"];
    let id = stack.run(&line).expect(0).stdout.trim().to_owned();
    stack.run(&["wait", &id]).expect(0);
    id
}

/// A job by this name that runs until it is cancelled.
fn running(stack: &Stack, name: &str) -> String {
    let line = ["run", "-d", "-q", "--wasm", "forever.wat", "--max-cost", "0.10", "--name", name];
    let id = stack.run(&line).expect(0).stdout.trim().to_owned();
    stack.run(&["wait", "--for", "running", &id]).expect(0);
    id
}

#[test]
fn every_list_has_every_format_and_they_agree() {
    let stack = Stack::start();
    let (hello, loops) = (ended(&stack, "hello"), running(&stack, "loops"));
    for (line, schema, item, head) in [
        (&["nodes"][..], "modchain.nodes/v1", "modchain.node/v1", "NODE "),
        (&["jobs", "--all"], "modchain.jobs/v1", "modchain.job/v1", "JOB "),
        (&["ledger"], "modchain.ledger/v1", "modchain.ledger_entry/v1", "NUMBER "),
        (&["events"], "modchain.events/v1", "modchain.event/v1", "TIME "),
        (&["-c", "local-operator", "cert", "list"], "modchain.certs/v1", "modchain.cert/v1", "NAME "),
        (&["-c", "local-operator", "token", "list", "--all"], "modchain.tokens/v1", "modchain.token/v1", "TOKEN "),
        (&["context", "list"], "modchain.contexts/v1", "modchain.context/v1", "CURRENT "),
    ] {
        let shown = |more: &[&str]| stack.run(&[line, more].concat()).expect(0);
        let table = shown(&[]).stdout;
        assert!(table.starts_with(head) && !table.contains('\x1b'), "{line:?}: {table}");
        let count = |text: &str| text.lines().count();
        let wide = shown(&["-o", "wide"]).stdout;
        let columns =
            |text: &str| text.lines().next().unwrap_or_default().split("  ").filter(|c| !c.is_empty()).count();
        assert!(columns(&wide) >= columns(&table) && wide.starts_with(head), "{line:?}: {wide}");
        assert!(count(&shown(&["--no-header"]).stdout) < count(&shown(&[]).stdout), "{line:?}");
        let document = shown(&["-o", "json"]).json();
        assert_eq!(document["schema"], schema, "{line:?}");
        let items = document["items"].as_array().expect("items");
        let yaml: Value = serde_saphyr::from_str(&shown(&["-o", "yaml"]).stdout).expect("YAML");
        assert_eq!((&yaml["schema"], yaml["items"].as_array().map(Vec::len)), (&schema.into(), Some(items.len())));
        let lines = shown(&["-o", "jsonl"]).stdout;
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        assert!(lines.len() == items.len() && lines.iter().all(|line| line["schema"] == item), "{line:?}");
        assert_eq!(count(&shown(&["-o", "name"]).stdout), items.len(), "{line:?}");
        let csv = shown(&["-o", "csv"]).stdout;
        let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
        assert_eq!(rows.len(), items.len() + 1, "{line:?}: {csv}");
        assert!(
            rows[0].bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b',' | b'-')),
            "{line:?}: {csv}"
        );
        assert_eq!(count(&shown(&["-o", "csv", "--no-header"]).stdout), items.len(), "{line:?}");
    }
    for line in [&["status"][..], &["job", &hello], &["nodes", "--watch"], &["logs", &hello]] {
        let refused = stack.run(&[line, &["-o", "csv"]].concat()).expect(2);
        assert!(refused.stderr.contains("only lists") && refused.stdout.is_empty(), "{refused:#?}");
    }
    // All words must fit, whatever the orchestrator can look for: ids begin with `j-`, and `cancel -` takes what is printed here.
    let names = |line: &[&str]| stack.run(&[&["jobs", "--all", "-o", "name"], line].concat()).expect(0).stdout;
    assert_eq!(names(&["name:hel"]).trim(), hello);
    let everything = names(&[]);
    for line in [&["name:j"][..], &["account:nobody"], &["-c", "local-operator", "account:nobody", "--mine"]] {
        assert_eq!(names(line), "", "{line:?}");
    }
    assert_eq!(names(&["state:Completed"]).trim(), hello);
    let shown = stack.home.run_with_input(&["-c", "local", "job", "-", "-o", "name"], everything.as_bytes()).expect(0);
    assert_eq!(shown.stdout, everything);
    let context = stack.run(&["context", "use", "local", "-o", "json"]).expect(0).json();
    assert_eq!((&context["schema"], &context["current"]), (&"modchain.context/v1".into(), &true.into()));
    let error = stack.run(&["logs", "j-nope", "-o", "json"]).expect(3);
    assert!(error.stdout.is_empty() && error.stderr.contains("modchain.error/v1"), "{error:#?}");
    let numbers = |filter: &[&str]| {
        let line = [&["ledger", "--columns", "type,amount", "--no-header", "-o", "csv"], filter].concat();
        stack.run(&line).expect(0).stdout
    };
    let all = numbers(&[]);
    assert!(all.contains("hold,-0.10\r\n") && all.contains("deposit,"), "{all}");
    let holds = numbers(&["type:hold", "amount<0"]);
    assert_eq!(holds, all.split_inclusive("\r\n").filter(|row| row.starts_with("hold,")).collect::<String>());
    assert_eq!(numbers(&["type:hold", "amount>0"]), "");
    let refused = stack.run(&["ledger", "type:gift"]).expect(2);
    assert!(refused.stderr.contains("gift"), "{refused:#?}");
    let jobs = |more: &[&str]| stack.run(&[&["jobs", "--all", "-o", "name"], more].concat()).expect(0).stdout;
    assert_eq!(jobs(&["--sort", "name"]), format!("{hello}\n{loops}\n"));
    assert_eq!(jobs(&["--sort", "-name", "--limit", "1"]), format!("{loops}\n"));
    for (filter, expected) in [
        ("state:running", &loops),
        ("exit=0 type:wasm", &hello),
        ("label:sweep=a", &hello),
        ("!label:sweep=a", &loops),
        ("name:hel", &hello),
        ("~^.*loops", &loops),
        ("cost>0 !loops", &hello),
        ("node:local-1 state:running,queued|starting", &loops),
    ] {
        assert_eq!(jobs(&[filter]), format!("{expected}\n"), "{filter}");
    }
    assert_eq!(jobs(&["cost>100"]), "");
    let cells =
        stack.run(&["jobs", "--all", "name:hello", "--columns", "job,name,exit", "--no-header"]).expect(0).stdout;
    assert_eq!(cells, format!("{hello}  hello  0\n"));
    assert_eq!(stack.run(&["nodes", "state:ready cores>0 !nowhere", "-o", "name"]).expect(0).stdout, "local-1\n");
    assert_eq!(stack.run(&["nodes", "jobs>1", "-o", "name"]).expect(0).stdout, "");
    let mut rows =
        Watching::start(&stack.home, &["jobs", "!hello", "--watch", "--columns", "name,state", "--no-header"]);
    assert_eq!(rows.until(|_| true), "loops  running");
    let mut documents = Watching::start(&stack.home, &["nodes", "cores>0", "--watch", "-o", "yaml"]);
    assert_eq!(documents.until(|_| true), "---");
    assert_eq!(documents.until(|line| line.starts_with("op:")), "op: add");
    let mut wide = Watching::start(&stack.home, &["nodes", "--watch", "-o", "wide"]);
    assert!(wide.until(|_| true).contains("GPU MODELS"));
    stack.run(&["cancel", "-y", "--grace", "0s", "--wait", &loops]).expect(0);
    assert_eq!(rows.until(|line| line.contains("cancelled")), "loops  cancelled");
    for watching in [rows, documents, wide] {
        assert_eq!(watching.interrupt(), Some(130));
    }
}

#[test]
fn a_job_is_watched_until_it_has_ended_and_a_log_is_one_document_in_both_notations() {
    let stack = Stack::start();
    let loops = running(&stack, "loops");
    let mut rows = Watching::start(&stack.home, &["job", &loops, "--watch", "-o", "jsonl"]);
    let change = |line: String| -> Value { serde_json::from_str(&line).expect("an object") };
    let first = change(rows.until(|_| true));
    assert_eq!((&first["op"], &first["job"]["state"]), (&"add".into(), &"running".into()));
    stack.run(&["cancel", "-y", "--grace", "0s", "--wait", &loops]).expect(0);
    let last = change(rows.until(|line| line.contains("\"cancelled\"")));
    assert_eq!((&last["op"], &last["job"]["id"]), (&"change".into(), &loops.as_str().into()));
    // What has ended does not change any more: nobody has to stop it.
    assert_eq!(rows.end(), Some(0));
    let done = stack.run(&["job", &loops, "--watch", "--columns", "job"]);
    assert_eq!(done.code, Some(2), "it is no list: {done:#?}");
    assert!(stack.run(&["job", &loops, "-w"]).expect(0).stdout.contains("cancelled"));
    let hello = ended(&stack, "hello");
    for (job, items) in [(&hello, 1), (&loops, 0)] {
        let json = stack.run(&["logs", job, "-o", "json"]).expect(0).json();
        let text = stack.run(&["logs", job, "-o", "yaml"]).expect(0).stdout;
        assert!(text.starts_with("---\nschema: modchain.logs/v1\njob: "), "{text}");
        assert!(!text.contains('{'), "it is no JSON: {text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&text).expect(&text), json);
        assert_eq!(json["items"].as_array().map(Vec::len), Some(items), "{json:#}");
    }
    // Whoever leaves a log that goes on has a whole document as well.
    let line = ["run", "-d", "-q", "--wasm", &stack.home.ticking(4_000_000_000), "--max-cost", "0.10"];
    let slow = stack.run(&line).expect(0).stdout.trim().to_owned();
    for format in ["json", "yaml"] {
        let line = ["logs", "-f", &slow, "-o", format];
        let mut logs = stack.home.command(&line).stdout(Stdio::piped()).spawn().expect("starts");
        let (mut stdout, mut text) = (logs.stdout.take().expect("is piped"), Vec::new());
        while !String::from_utf8_lossy(&text).contains("line 0") {
            let mut piece = [0; 1024];
            let count = stdout.read(&mut piece).expect("reads");
            assert!(count > 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&piece[..count]);
        }
        common::signal(&logs, "INT");
        stdout.read_to_end(&mut text).expect("reads");
        assert_eq!(logs.wait().expect("ends").code(), Some(130));
        let text = String::from_utf8_lossy(&text);
        let document: Value = match format {
            "json" => serde_json::from_str(&text).expect(&text),
            _ => serde_saphyr::from_str(&text).expect(&text),
        };
        assert_eq!(document["end"]["state"], "running", "{document:#}");
    }
}

#[test]
fn a_reader_that_leaves_ends_what_never_ends_without_a_complaint() {
    const SIGPIPE: i32 = 13;
    let stack = Stack::start();
    let loops = running(&stack, "loops");
    let hello = ended(&stack, "hello");
    for line in [
        &["status"][..],
        &["nodes"],
        &["nodes", "-o", "yaml"],
        &["node", "show", "local-1"],
        &["jobs"],
        &["job", &hello],
        &["job", "explain", &hello],
        &["job", "events", &hello],
        &["job", "spec", &hello],
        &["logs", &hello],
        &["logs", "-f", &hello],
        &["logs", "-f", &hello, "-o", "jsonl"],
        &["run", "--wasm", "hello.wat", "--max-cost", "0.10", "-q"],
        &["account"],
        &["ledger"],
        &["events"],
        &["events", "-f"],
        &["whoami"],
        &["nodes", "--watch"],
        &["nodes", "--watch", "-o", "jsonl"],
        &["jobs", "--watch"],
        &["jobs", "--watch", "-o", "name"],
        &["account", "--watch"],
        &["status", "--watch"],
        &["cancel", "-y", "--grace", "0s", "--wait", &loops],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let done = stack.home.command(line).stdout(writer).stderr(Stdio::piped()).output().expect("starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.signal(), &*said), (Some(SIGPIPE), ""), "{line:?}");
    }
}

#[test]
fn what_is_live_completes_the_line() {
    let stack = Stack::start();
    let id = ended(&stack, "hello");
    let completed = |line: &[&str]| -> Vec<String> {
        let words: Vec<&str> = ["--", "modchain"].into_iter().chain(line.iter().copied()).collect();
        let done = stack.home.command(&words).env("COMPLETE", "fish").output().expect("starts");
        assert!(done.status.success() && done.stderr.is_empty(), "{line:?}: {done:?}");
        String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
    };
    // The answer may come too late for the short patience of a person, and then there is none.
    let offers = |line: &'static [&'static str], start: &str| {
        let start = start.to_owned();
        eventually(&format!("{line:?} offers {start}"), || {
            completed(line).iter().any(|offer| offer.starts_with(&start))
        });
    };
    offers(&["logs", ""], &format!("{}\thello, completed", &id[..8]));
    offers(&["job", "hel"], &format!("hello\t{}, completed", &id[..8]));
    offers(&["node", "show", ""], "local-1\tready");
    offers(&["-c", "local-operator", "cert", "revoke", "node/"], "node/local-1\t");
    offers(&["-c", "local-s"], "local-second\t");
    assert!(completed(&["logs", "nothing"]).is_empty());
}
