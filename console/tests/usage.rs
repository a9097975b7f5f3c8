//! What the program answers without any orchestrator: usage, errors, help.
#![allow(missing_docs, reason = "a test is documented by its name")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use common::{Done, Home};

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
    // In the way of the line that it is about.
    let json = home.run(&["up", "--", "rnu", "-o", "json"]).expect(2);
    let error: serde_json::Value = serde_json::from_str(&json.stderr).expect("one document");
    assert_eq!((&error["schema"], &error["exit"]), (&"modchain.error/v1".into(), &2.into()));
}

#[test]
fn a_configuration_that_is_wrong_keeps_nobody_from_finding_out() {
    let home = Home::new();
    let path =
        home.run(&["config", "path", "-o", "json"]).expect(0).json()["path"].as_str().expect("a path").to_owned();
    std::fs::create_dir_all(std::path::Path::new(&path).parent().expect("a folder")).expect("makes it");
    for wrong in ["utc = perhaps\n", "connect-timeout = \"soon\"\n"] {
        std::fs::write(&path, wrong).expect("writes");
        home.run(&["-c", "nowhere", "status"]).expect(if wrong.starts_with("utc") { 2 } else { 3 });
        for line in [&["help", "filters"][..], &["version"], &["completions", "bash"], &["man"]] {
            home.run(line).expect(0);
        }
        let doctor = home.run(&["doctor", "-o", "json"]).expect(1).json();
        let checks = doctor["checks"].as_array().expect("checks");
        let config = checks.iter().find(|check| check["name"] == "config").expect("it was looked at");
        assert_eq!(config["status"], "problem", "{doctor:#}");
    }
    let set = home.run(&["config", "set", "connect-timeout", "", "-o", "json"]).expect(0).json();
    assert_eq!(set["settings"], serde_json::json!([{ "key": "connect-timeout", "value": null }]));
}

#[test]
fn whoever_likes_his_lists_with_commas_is_not_locked_out_of_everything_else() {
    let home = Home::new();
    home.run(&["config", "set", "output", "csv"]).expect(0);
    assert!(home.run(&["context", "list"]).expect(0).stdout.starts_with("current,name,"));
    for line in [&["help"][..], &["config", "get"], &["version"], &["config", "set", "output", "table"]] {
        home.run(line).expect(0);
    }
    home.run(&["version", "-o", "csv"]).expect(2);
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
    for topic in ["output", "environment", "filters", "security", "console", "keys", "run"] {
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
        &["nodes"],
        &["config"],
        &["man"],
        &["completions"],
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

/// Runs a command whose standard output nobody reads any more; gives the signal that ended it and what it complained.
fn unread(home: &Home, line: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let done = home.command(line).stdout(writer).stderr(Stdio::piped()).output().expect("starts");
    (done.status.signal(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    const SIGPIPE: i32 = 13;
    let home = Home::new();
    for line in [
        &["completions", "bash"][..],
        &["--help"],
        &["run", "--help"],
        &["help"],
        &["help", "filters"],
        &["help", "keys"],
        &["man"],
        &["version"],
        &["version", "-o", "yaml"],
        &["doctor"],
        &["doctor", "-o", "json"],
        &["context", "list"],
        &["context", "list", "-o", "wide"],
        &["context", "list", "-o", "json"],
        &["context", "list", "-o", "yaml"],
        &["config", "path"],
        &["config", "get"],
        &["config", "get", "-o", "jsonl"],
    ] {
        assert_eq!(unread(&home, line), (Some(SIGPIPE), String::new()), "{line:?}");
    }
}

#[test]
fn how_a_command_ends_is_told_by_its_exit_code() {
    let home = Home::new();
    for (line, code) in [
        (&["version"][..], 0),
        (&["help", "exit-codes"], 0),
        (&["context", "list"], 0),
        (&["config", "get"], 0),
        (&["config", "get", "theme"], 3),
        (&["config", "get", "thmee"], 2),
        (&["config", "set", "utc", "perhaps"], 2),
        (&["doctor"], 1),
        (&["nodes", "state:redy"], 2),
        (&["nodes", "--sort", "speed"], 2),
        (&["nodes", "--columns", "node,speed"], 2),
        (&["jobs", "cost>much"], 2),
        (&["jobs", "~("], 2),
        (&["events", "-f", "--sort", "time"], 2),
        (&["ledger", "--type", "gift"], 2),
        (&["run", "--wasm"], 2),
        (&["console"], 2),
        (&["context", "use", "nowhere"], 3),
        (&["-c", "nowhere", "jobs"], 3),
        (&["jobs"], 4),
        (&["nodes", "gpu>=80 pool:a100", "--sort", "-gpu"], 4),
        (&["whoami"], 4),
    ] {
        home.run(line).expect(code);
    }
}

#[test]
fn a_mistake_in_a_filter_or_a_column_is_told_with_what_was_probably_meant() {
    let home = Home::new();
    for (line, message, hint) in [
        (&["nodes", "rig pol:a"][..], "filter, column 5: unknown filter `pol:`", "did you mean `pool:`?"),
        (&["nodes", "gpu>fast"], "filter, column 5: `fast` is not a percentage", "write gpu>80%"),
        (&["jobs", "--columns", "nmae"], "there is no column `nmae`", "did you mean `name`? there are: job, name"),
        (&["context", "list", "--sort", "-expirse"], "there is no column `expirse`", "did you mean `expires`?"),
    ] {
        let done = home.run(line).expect(2);
        assert!(done.stderr.starts_with(&format!("error: {message}\n  hint: {hint}")), "{done:#?}");
        let error = home.run(&[line, &["-o", "yaml"]].concat()).expect(2).stderr;
        let error: serde_json::Value = serde_json::from_str(&error).expect("one document, for a reader of YAML too");
        assert_eq!(error["schema"], "modchain.error/v1");
    }
}

#[test]
fn settings_are_changed_in_place_and_only_to_what_they_can_be() {
    let home = Home::new();
    let path = home.path().join(".config/modchain/config.toml");
    assert_eq!(home.run(&["config", "path"]).expect(0).stdout, format!("{}\n", path.display()));
    home.run(&["config", "set", "utc", "true"]).expect(0);
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::write(&path, format!("# mine\n{text}")).expect("writes");
    home.run(&["config", "set", "output", "wide"]).expect(0);
    let wrong = home.run(&["config", "set", "theme", "pink"]).expect(2);
    assert!(wrong.stderr.contains("theme cannot be `pink`") && wrong.stderr.contains("colorblind"), "{wrong:#?}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "# mine\nutc = true\noutput = \"wide\"\n");
    assert_eq!(home.run(&["config", "get", "utc"]).expect(0).stdout, "true\n");
    let settings = home.run(&["config", "get", "-o", "json"]).expect(0).json();
    assert_eq!(settings["settings"][0], serde_json::json!({"key": "output", "value": "wide"}));
    // A file that cannot be read any more is still for `config` to put right.
    std::fs::write(&path, "utc = perhaps\n").expect("writes");
    home.run(&["context", "list"]).expect(2);
    home.run(&["config", "path"]).expect(0);
    home.run(&["config", "set", "utc", "true"]).expect(2);
}

#[test]
fn an_edit_that_is_not_right_waits_for_another_try() {
    let home = Home::new();
    let folder = home.path().join(".config/modchain");
    let edit = |editor: &str| {
        Done::with_input(
            {
                let mut command = home.command(&["config", "edit"]);
                command.env_remove("VISUAL").env("EDITOR", editor);
                command
            },
            &["config", "edit"],
            b"",
        )
    };
    // What is there to begin with names every setting, and sets none.
    edit("sed -i s/#utc/utc/").expect(2);
    assert!(!folder.join("config.toml").exists(), "nothing wrong was written");
    let kept = std::fs::read_to_string(folder.join("config.edit.toml")).expect("the edit is kept");
    assert!(kept.contains("\nutc = \n"), "{kept}");
    edit("false").expect(1);
    assert!(folder.join("config.edit.toml").exists(), "an editor that failed takes nothing away");
    let right = edit("sed -i s/utc.=/&true/").expect(0);
    assert!(right.stderr.contains("goes on") && right.stderr.contains("is changed"), "{right:#?}");
    assert_eq!(home.run(&["config", "get", "utc"]).expect(0).stdout, "true\n");
    assert!(edit("true").expect(0).stderr.contains("nothing was changed"));
    let left: Vec<_> = std::fs::read_dir(&folder).expect("lists").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["config.toml"]);
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let home = Home::new();
    assert!(home.run(&["man"]).expect(0).stdout.contains(".TH modchain 1"));
    let folder = home.path().join("man");
    let done = home.run(&["man", "--dir", &folder.display().to_string()]).expect(0);
    assert!(done.stdout.is_empty() && done.stderr.contains("pages in"), "{done:#?}");
    for page in ["modchain.1", "modchain-run.1", "modchain-node-drain.1", "modchain-config-set.1"] {
        let text = std::fs::read_to_string(folder.join(page)).expect(page);
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}");
    }
    home.run(&["man", "--dir", "/proc/nowhere"]).expect(1);
}

/// What a shell is told that asks what may come next.
fn completed(home: &Home, line: &[&str]) -> Vec<String> {
    let words: Vec<&str> = ["--", "modchain"].into_iter().chain(line.iter().copied()).collect();
    let done = home.command(&words).env("COMPLETE", "fish").stderr(Stdio::piped()).output().expect("starts");
    assert!(done.status.success() && done.stderr.is_empty(), "{line:?}: {done:?}");
    let text = String::from_utf8(done.stdout).expect("text");
    text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn completions_are_silent_where_nobody_answers() {
    let home = Home::new();
    assert!(completed(&home, &["no"]).contains(&"nodes".to_owned()));
    assert!(completed(&home, &["help", "exit"]).contains(&"exit-codes".to_owned()));
    assert!(completed(&home, &["config", "set", "max"]).contains(&"max-cost".to_owned()));
    assert!(completed(&home, &["jobs", "-o", "y"]).contains(&"yaml".to_owned()));
    assert!(completed(&home, &["nodes", "--sort", "gp"]).contains(&"gpus".to_owned()));
    assert!(completed(&home, &["nodes", "--sort", "-gp"]).contains(&"-gpus".to_owned()));
    assert!(completed(&home, &["context", "list", "--columns", "or"]).contains(&"orchestrator".to_owned()));
    // Without a context, and with one for an orchestrator that is not there.
    assert!(completed(&home, &["logs", "j-"]).is_empty());
    let contexts = "current = \"lab\"\n[contexts.lab]\norchestrator = \"127.0.0.1:9\"\nidentity = \"/nowhere\"\n";
    let folder = home.path().join(".config/modchain");
    std::fs::create_dir_all(&folder).expect("makes");
    std::fs::write(folder.join("contexts.toml"), contexts).expect("writes");
    assert_eq!(completed(&home, &["context", "use", "l"]), ["lab"]);
    assert!(completed(&home, &["node", "show", "r"]).is_empty());
    std::fs::write(folder.join("contexts.toml"), "nonsense").expect("writes");
    assert!(completed(&home, &["context", "use", "l"]).is_empty());
    let script = home.command(&[]).env("COMPLETE", "bash").output().expect("starts");
    assert!(script.status.success() && String::from_utf8_lossy(&script.stdout).contains("complete -o"));
}

#[test]
fn contexts_are_listed_in_every_format() {
    let home = Home::new();
    let folder = home.path().join(".config/modchain");
    std::fs::create_dir_all(&folder).expect("makes");
    let context = |name: &str, port: u16| {
        format!("[contexts.{name}]\norchestrator = \"orch:{port}\"\nidentity = \"/nowhere/{name}\"\n")
    };
    let text = format!("current = \"lab\"\n{}{}", context("lab", 7443), context("prod", 7000));
    std::fs::write(folder.join("contexts.toml"), text).expect("writes");
    let shown = |more: &[&str]| home.run(&[&["context", "list"], more].concat()).expect(0).stdout;
    assert_eq!(
        shown(&[]),
        "CURRENT  NAME  POOL  ROLE  ORCHESTRATOR  EXPIRES  IDENTITY\n\
         *        lab   ?     ?     orch:7443     ?        /nowhere/lab\n\
         \x20        prod  ?     ?     orch:7000     ?        /nowhere/prod\n"
    );
    let wide = shown(&["-o", "wide"]);
    assert!(wide.lines().next().is_some_and(|line| line.ends_with("  JOIN  TRUST DOMAIN")), "{wide}");
    assert_eq!(shown(&["-o", "name"]), "lab\nprod\n");
    assert_eq!(
        shown(&["--columns", "name,orchestrator", "--sort", "-name", "--no-header"]),
        "prod  orch:7000\nlab   orch:7443\n"
    );
    assert_eq!(shown(&["--sort", "-name", "-o", "name"]), "prod\nlab\n");
    let document = home.run(&["context", "list", "-o", "json"]).expect(0).json();
    assert_eq!((&document["schema"], &document["total"]), (&"modchain.contexts/v1".into(), &2.into()));
    let lines = shown(&["-o", "jsonl"]);
    let items: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect();
    assert_eq!(document["items"], serde_json::Value::from(items));
    let yaml = shown(&["-o", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).expect("YAML"), document);
    assert!(yaml.starts_with("---\nschema: modchain.contexts/v1\nitems:\n  - schema: modchain.context/v1\n"), "{yaml}");
}

#[test]
fn help_is_coloured_only_where_that_was_asked_for() {
    let home = Home::new();
    let colours = |line: &[&str], variable: Option<(&str, &str)>| {
        let mut command = home.command(line);
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "TERM"] {
            command.env_remove(name);
        }
        command.envs(variable);
        command.output().expect("starts").stdout.contains(&0x1b)
    };
    assert!(!colours(&["--help"], None), "a pipe");
    assert!(colours(&["--help", "--color", "always"], None));
    assert!(colours(&["--help", "--color=always"], Some(("NO_COLOR", "1"))));
    assert!(colours(&["--help"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colours(&["--help", "--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
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
