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
    for topic in ["output", "environment", "filters", "security", "run"] {
        assert!(!home.run(&["help", topic]).expect(0).stdout.is_empty());
    }
    for command in [
        &["up"][..],
        &["run"],
        &["quote"],
        &["logs"],
        &["jobs"],
        &["job"],
        &["cancel"],
        &["wait"],
        &["join"],
        &["logout"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["cert"],
        &["cert", "list"],
        &["cert", "revoke"],
        &["doctor"],
    ] {
        let line: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = home.run(&line).expect(0).stdout;
        let (examples, usage) = (help.find("Examples:\n  modchain "), help.find("Usage: modchain "));
        assert!(examples.is_some() && examples < usage, "{command:?}: help begins with examples: {help}");
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

/// A token of nobody's, sound as a text.
fn token(role: &str) -> String {
    let role = match role {
        "node" => modchain_types::Role::Node,
        "operator" => modchain_types::Role::Operator,
        _ => modchain_types::Role::Client,
    };
    let token = modchain_certs::JoinToken::generate(role, modchain_certs::RootPin([7; 32])).expect("a role that joins");
    token.text().to_string()
}

#[test]
fn a_token_that_cannot_be_used_is_found_out_without_asking_anybody() {
    let home = Home::new();
    let line = ["join", "--orchestrator", "127.0.0.1:1", "--token-file", "-"];
    let good = token("client");
    let mut mistyped = good.clone().into_bytes();
    mistyped[80] = if mistyped[80] == b'a' { b'b' } else { b'a' };
    for (text, said, next) in [
        (mistyped.as_slice(), "typing error", "compare it with the original"),
        (&good.as_bytes()[..90], "90 characters", "copy the whole line"),
        (b"hello\n", "not a join token", "MCJ1-"),
        (b"", "the token is empty", "MCJ1-"),
        (token("node").as_bytes(), "this token is for a node", "modchain-agent join --orchestrator 127.0.0.1:1"),
    ] {
        let done = home.run_with_input(&line, text).expect(2);
        assert!(done.stderr.contains(said) && done.stderr.contains(next), "{done:#?}");
        assert!(done.stdout.is_empty() && !done.stderr.contains(&good[70..90]), "{done:#?}");
    }
    let error = home.run_with_input(&[&line[..], &["-o", "json"]].concat(), &mistyped).expect(2);
    let error: serde_json::Value = serde_json::from_str(&error.stderr).expect("one document");
    assert_eq!((&error["code"], &error["exit"]), (&"token_invalid".into(), &2.into()));
    home.run(&["join", "--token-file", "-"]).expect(2);
    home.run(&["join", "--orchestrator", "h", "--token-file", "-"]).expect(2);
    let missing = home.run(&["join", "--orchestrator", "127.0.0.1:1"]).expect(2);
    assert!(missing.stderr.contains("the token is missing"), "{missing:#?}");
    let nowhere = home.run(&["join", "--orchestrator", "127.0.0.1:1", "--token-file", "/nowhere"]).expect(2);
    assert!(nowhere.stderr.contains("cannot read the token in /nowhere"), "{nowhere:#?}");
    assert!(!home.path().join(".local/share/modchain").exists(), "nothing was made for a token that is none");
}

#[test]
fn where_nobody_listens_the_key_stays_for_the_next_try_and_a_token_on_the_line_is_warned_of() {
    let home = Home::new();
    // A port that was free a moment ago: if somebody took it since, it does not speak our protocol.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let (address, token) = (format!("127.0.0.1:{port}"), token("client"));
    let line = ["join", "--orchestrator", &address, "--token", &token, "--connect-timeout", "5s"];
    let folder = home.path().join(".local/share/modchain/identities").join(format!(".joining-{}", &token[60..68]));
    let key = || std::fs::read(folder.join("key.pem.new")).expect("the key waits");
    let done = home.run(&line).expect(5);
    assert!(done.stderr.starts_with("warning: others on this machine can read a token"), "{done:#?}");
    assert!(done.stderr.contains("7444") && done.stdout.is_empty(), "{done:#?}");
    let first = key();
    home.run(&line).expect(5);
    assert!(first == key(), "the second try asks with the key of the first");
    home.run(&["context", "show"]).expect(4);
    let doctor = home.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("began to join and did not end"), "{doctor:#?}");
}

#[test]
fn without_any_context_doctor_still_works_and_says_what_to_do() {
    let home = Home::new();
    let done = home.run(&["doctor"]).expect(1);
    for word in
        ["ok       config", "problem  context", "no context is chosen", "modchain join", "UDP buffers", "docker"]
    {
        assert!(done.stdout.contains(word), "{word}: {done:#?}");
    }
    let document = home.run(&["doctor", "-o", "json"]).expect(1).json();
    assert_eq!((&document["schema"], &document["ok"]), (&"modchain.doctor/v1".into(), &false.into()));
    let checks = document["checks"].as_array().expect("checks");
    assert!(checks.iter().any(|check| check["name"] == "context" && check["status"] == "problem"), "{document:#}");
    assert_eq!(home.run(&["doctor", "-o", "name"]).expect(1).stdout, "context\n");
    home.run(&["-c", "nowhere", "doctor"]).expect(1);
}

#[test]
fn what_cannot_be_meant_is_refused_before_a_context_is_needed() {
    let home = Home::new();
    home.run(&["token", "revoke", "nonsense!"]).expect(2);
    home.run(&["cert", "revoke", "robot/x", "-y"]).expect(2);
    let unasked = home.run(&["cert", "revoke", "node/rig-1"]).expect(2);
    assert!(unasked.stderr.contains("needs a yes: Revoke node/rig-1?"), "{unasked:#?}");
    home.run(&["token", "create", "--role", "node"]).expect(4);
    home.run(&["logout"]).expect(4);
    home.run(&["logout", "nowhere"]).expect(3);
}
