//! What the program answers without any orchestrator: usage, errors, help.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::Home;

#[test]
fn alone_it_is_short_help_on_stderr_and_2() {
    let done = Home::new().run(&[]).expect(2);
    assert!(done.stdout.is_empty() && done.stderr.contains("Usage: modchain"), "{done:#?}");
}

#[test]
fn bad_lines_end_with_2_and_say_what_was_probably_meant() {
    let home = Home::new();
    let typo = home.run(&["run", "--max-csot", "1"]).expect(2);
    assert!(typo.stderr.contains("--max-cost") && typo.stdout.is_empty(), "{typo:#?}");
    assert!(typo.stderr.starts_with("error: unexpected argument '--max-csot' found\n  hint: "), "{typo:#?}");
    let json = home.run(&["stauts", "-o", "json"]).expect(2);
    let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("one document");
    assert_eq!((&error["schema"], &error["exit"]), (&"modchain.error/v1".into(), &2.into()));
    assert!(json.stdout.is_empty());
    home.run(&["help", "exit-cods"]).expect(2);
    home.run(&["up", "--", "rnu"]).expect(2);
    home.run(&["up", "--", "up"]).expect(2);
}

#[test]
fn without_a_context_it_says_how_to_get_one_and_ends_with_4() {
    let home = Home::new();
    let done = home.run(&["status"]).expect(4);
    assert!(done.stderr.starts_with("error: no context is chosen\n  hint: modchain join --orchestrator"), "{done:#?}");
    home.run(&["-c", "nowhere", "status"]).expect(3);
    home.run(&["context", "use", "nowhere"]).expect(3);
    home.run(&["context", "list"]).expect(0);
    home.run(&["context", "add", "x", "--orchestrator", "h:1", "--identity", "/nowhere"]).expect(2);
}

#[test]
fn help_version_and_completions_need_nobody() {
    let home = Home::new();
    let codes = home.run(&["help", "exit-codes"]).expect(0).stdout;
    assert!(codes.contains("134    a WebAssembly trap"), "{codes}");
    for topic in ["output", "environment", "filters", "run"] {
        assert!(!home.run(&["help", topic]).expect(0).stdout.is_empty());
    }
    for command in ["up", "run", "quote", "logs", "jobs", "job", "cancel", "wait"] {
        let help = home.run(&[command, "--help"]).expect(0).stdout;
        let (examples, usage) = (help.find("Examples:\n  modchain "), help.find("Usage: modchain "));
        assert!(examples.is_some() && examples < usage, "{command}: help begins with examples: {help}");
    }
    let version = home.run(&["version", "-o", "json"]).expect(0).json();
    assert_eq!((&version["schema"], &version["program"]), (&"modchain.version/v1".into(), &"modchain".into()));
    assert!(home.run(&["completions", "bash"]).expect(0).stdout.contains("modchain"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let home = Home::new();
    let line = format!("{} completions bash | head -c 10", common::program().display());
    let done = std::process::Command::new("sh").args(["-c", &line]).env("HOME", home.path()).output().expect("starts");
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}
