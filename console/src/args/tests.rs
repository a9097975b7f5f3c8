use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("modchain").chain(line.iter().copied()))
}

#[test]
fn the_definition_itself_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn lines_of_the_documentation_parse() {
    for line in [
        &["up"][..],
        &["up", "--data", "d", "--agents", "3", "--headless"],
        &["up", "--", "run", "--wasm", "x.wat", "--max-cost", "0.10"],
        &["run", "--wasm", "x.wat", "--max-cost", "0.10", "--", "1000", "-v", "--max-cost"],
        &["run", "-d", "-q", "-f", "job.toml"],
        &["run", "-f", "-", "--dry-run", "-o", "json"],
        &["run", "-t", "wasm", "--wasm", "x", "--env", "A=b=c", "--env", "HOME", "--priority", "-5"],
        &["quote", "-f", "job.toml"],
        &["logs", "j-7f3", "-f", "--tail", "2", "--timestamps", "--prefix", "--exit-code"],
        &["jobs", "state:running", "label:a=b", "--all", "--since", "1h"],
        &["job", "j-7f3"],
        &["job", "show", "@last"],
        &["job", "explain", "j-7f3"],
        &["job", "events", "@last", "-f"],
        &["jobs", "state:running", "--watch", "-o", "jsonl"],
        &["status", "--watch"],
        &["account", "-w"],
        &["job", "spec", "j-7f3", "--module", "primes.wat"],
        &["job", "rerun", "@last", "--max-cost", "0.20", "-d", "-q", "--", "2000"],
        &["cancel", "-y", "-"],
        &["cancel", "--all", "--mine", "-y"],
        &["wait", "a", "b", "--for", "any", "--timeout", "2h"],
        &["-o", "json", "status", "--check"],
        &["status", "-o", "json", "-c", "local"],
        &["ledger", "--type", "hold", "--job", "@last"],
        &["events", "-f", "--kind", "job", "-o", "jsonl"],
        &["credit", "alice", "5.00", "--reason", "gift"],
        &["context", "add", "prod", "--orchestrator", "h:7443", "--identity", "d"],
        &["context", "add", "prod", "--orchestrator", "h:7443", "--join", "h:7444", "--identity", "d"],
        &["version", "--server"],
        &["help", "exit-codes"],
        &["join", "--orchestrator", "h:7444", "--token-file", "-"],
        &["join", "--orchestrator", "h:7444", "--token", "MCJ1-x", "--name", "alice", "-c", "lab"],
        &["token", "create", "--role", "node", "--name", "rig-1"],
        &["token", "create", "--role", "client", "--account", "a", "--name", "b", "--rejoin", "--ttl", "24h"],
        &["token", "list", "--all"],
        &["token", "revoke", "mzxw6ytb", "-"],
        &["cert", "list", "--role", "operator", "--all", "-o", "json"],
        &["cert", "revoke", "node/rig-1", "client/bob", "--reason", "sold", "-y"],
        &["doctor", "-o", "json"],
        &["logout"],
        &["logout", "lab", "-y"],
        &["nodes", "gpu>=80 pool:a100", "--sort", "-gpu", "--columns", "node,gpu", "--no-header"],
        &["jobs", "!state:running", "-o", "wide", "--sort", "age"],
        &["token", "list", "--columns", "token", "--columns", "role"],
        &["context", "list", "-o", "yaml", "--ascii"],
        &["config", "get", "utc"],
        &["config", "set", "utc", "true"],
        &["config", "edit"],
        &["man", "--dir", "d"],
        &["help", "keys"],
    ] {
        if let Err(error) = parse(line) {
            panic!("{line:?}: {error}");
        }
    }
}

#[test]
fn nonsense_is_refused_with_usage_and_a_near_miss() {
    for (line, said) in [
        (&["stauts"][..], "status"),
        (&["run", "--max-csot", "1"], "--max-cost"),
        (&["run", "--max-cost", "-1"], "negative"),
        (&["run", "--max-cost=-1"], "negative"),
        (&["run", "--max-cost", "0"], "more than zero"),
        (&["run", "--max-cost", "1e9"], "not an amount"),
        (&["run", "--cpus", "0"], "cores"),
        (&["run", "--memory", "1"], "out of bounds"),
        (&["run", "--retries", "20"], "0..=19"),
        (&["run", "--time-limit", "soon"], "not a duration"),
        (&["run", "--time-limit", "-5s"], "not a duration"),
        (&["run", "--label", "x"], "KEY=VALUE"),
        (&["run", "-t", "dokcer"], "wasm"),
        (&["up", "--agents", "0"], "1..=32"),
        (&["cancel"], "required"),
        (&["logs"], "required"),
        (&["status", "-o", "xml"], "possible values"),
        (&["join", "--token", "x", "--token-file", "y"], "cannot be used with"),
        (&["join", "--name", "Alice"], "not a name"),
        (&["token", "create"], "--role"),
        (&["token", "create", "--role", "orchestrator"], "possible values"),
        (&["token", "create", "--role", "node", "--rejoin"], "--name"),
        (&["token", "create", "--role", "node", "--ttl", "25h"], "1s to 24h"),
        (&["token", "create", "--role", "node", "--ttl", "0"], "1s to 24h"),
        (&["token", "revoke"], "required"),
        (&["cert", "revoke"], "required"),
        (&["cert", "list", "--role", "robot"], "possible values"),
    ] {
        let error = parse(line).expect_err("nonsense");
        assert_eq!(error.exit_code(), 2, "{line:?}");
        assert!(error.to_string().contains(said), "{line:?} says: {error}");
    }
}

#[test]
fn nothing_at_all_means_the_console() {
    assert!(parse(&[]).expect("parses").command.is_none());
}

#[test]
fn global_flags_are_taken_after_the_command_and_not_from_a_jobs_arguments() {
    let cli = parse(&["run", "--wasm", "x", "-o", "json", "--", "-o", "table"]).expect("parses");
    assert_eq!(cli.global.output, Some(FormatFlag::Json));
    match cli.command {
        Some(Command::Run(run)) => assert_eq!(run.job.args, ["-o", "table"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_that_no_engine_takes_is_refused_before_anything_is_sent() {
    let digest = "0123456789abcdef".repeat(4);
    for image in [
        "alpine",
        "alpine:3",
        "library/alpine:3.20-rc_1",
        "Registry.Example.com:5000/team/app_x:V1",
        "localhost/app",
        "a1b2c3d4e5f6",
        &format!("alpine@sha256:{digest}"),
        &format!("ghcr.io/a/b:1@sha256:{digest}"),
        &format!("sha256:{digest}"),
        &digest,
    ] {
        assert_eq!(parse_image(image).as_deref(), Ok(image));
    }
    for image in [
        "",
        "a b",
        "x:1@sha256:abc",
        "x@",
        "x@md5:1",
        "x:",
        "x:.1",
        "Alpine",
        "team/App",
        "/app",
        "team//app",
        "app/",
        "-x",
        "x..:1/",
        "host:port/app",
        "x:1:2",
        &format!("x@sha256:{digest}0"),
        &format!("x@sha256:{}", digest.to_uppercase()),
    ] {
        let why = parse_image(image).expect_err(image);
        assert!(why.contains("is not an image"), "{why}");
    }
}
