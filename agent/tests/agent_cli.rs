//! What the agent's program says on its command line.

mod scripted;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use modchain_types::Verdict;
use scripted::World;

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_modchain-agent"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("MODCHAIN_AGENT_ADAPTERS", "wasm")
        .args(arguments)
        .output()
        .expect("runs")
}

fn stdout(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_version_is_a_document() {
    let version = stdout(&agent(&["version", "-o", "json"]));
    let expected = serde_json::json!({
        "schema": "modchain.version/v1",
        "program": "modchain-agent",
        "version": env!("CARGO_PKG_VERSION"),
        "wire": 1,
    });
    assert_eq!(version, expected);
}

#[test]
fn info_shows_what_would_be_offered_under_flags_and_file() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("agent.toml");
    fs::write(&file, "region = \"eu\"\n[prices]\ncore_hour = \"0.05\"\n[limits]\nslots = 3\n").expect("writes");
    let file = file.to_str().expect("text");
    let info = stdout(&agent(&["info", "-o", "json", "--data", "/tmp", "--config", file, "--slots", "7"]));
    assert_eq!(info["schema"], "modchain.agent_info/v1");
    assert_eq!(info["region"], "eu");
    assert_eq!(info["slots"], 7, "the flag goes before the file");
    assert_eq!(info["prices"]["core_hour"]["micro"], 50_000);
    assert_eq!(info["prices"]["minimum"]["micro"], 1_000);
    assert_eq!(info["adapters"], serde_json::json!(["wasm"]));
    assert!(info["cpu_milli"].as_u64() >= Some(1000) && info["memory_bytes"].as_u64() > Some(0));
    let text = agent(&["info", "--data", "/tmp", "--config", file]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("slots         3\n"));
}

#[test]
fn init_writes_what_holds_anyway_and_spares_what_is_there() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("new folder").join("agent.toml");
    let path = file.to_str().expect("text");
    let written = agent(&["init", "--config", path]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    assert!(String::from_utf8_lossy(&written.stdout).starts_with(&format!("wrote {path}\n")));
    let info = |more: &[&str]| {
        let mut info = stdout(&agent(&[&["info", "-o", "json", "--data", "/tmp", "--disk", "1GiB"], more].concat()));
        // The machine is in use meanwhile.
        info["machine"] = serde_json::Value::Null;
        info
    };
    assert_eq!(info(&["--config", path]), info(&[]));

    fs::write(&file, "region = \"mine\"\n").expect("writes");
    let again = agent(&["init", "--config", path]);
    assert_eq!(again.status.code(), Some(7));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("is there already") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("reads"), "region = \"mine\"\n");
    assert!(agent(&["init", "--config", path, "--force"]).status.success());
    assert_eq!(fs::read_to_string(&file).expect("reads"), modchain_agent::config::example());
}

#[test]
fn info_says_what_is_not_offered_and_why() {
    let info = stdout(&agent(&[
        "info",
        "-o",
        "json",
        "--data",
        "/tmp",
        "--adapters",
        "wasm,llm",
        "--llm-url",
        "http://127.0.0.1:9",
    ]));
    let missing = info["missing"].as_object().expect("an object");
    assert_eq!(missing.keys().collect::<Vec<_>>(), ["docker", "llm"]);
    assert_eq!(missing["docker"], "the owner does not take such jobs");
    let llm = missing["llm"].as_str().expect("text");
    assert!(llm.starts_with("no model server answers at http://127.0.0.1:9: "), "and why: {llm}");
    let bad = agent(&["info", "--data", "/tmp", "--adapters", "java"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("--adapters: `java` is not a kind of job"));
}

#[test]
fn commands_to_an_agent_that_does_not_run_say_so() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().to_str().expect("text");
    for command in ["status", "pause", "resume", "drain", "reload"] {
        let output = agent(&[command, "--data", data]);
        assert_eq!(output.status.code(), Some(5), "{command}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("error: no agent runs on {data}")) && said.contains("  hint: "), "{said}");
    }
    let output = agent(&["status", "--data", data, "-o", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((&error["code"], &error["exit"]), (&"not_running".into(), &5.into()));
}

#[test]
fn an_unknown_key_is_named_with_file_and_line() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("agent.toml");
    fs::write(&file, "region = \"eu\"\n\nslotz = 3\n").expect("writes");
    let output = agent(&["info", "--data", "/tmp", "--config", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{}:3: unknown field `slotz`", file.display())), "{said}");
}

#[test]
fn start_says_what_is_missing() {
    let output = agent(&["start", "--data", "/tmp/never-made"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--orchestrator HOST:PORT"));
    assert!(!std::path::Path::new("/tmp/never-made").exists());
    assert_eq!(agent(&["start", "--nonsense"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_one_folder_is_refused() {
    let world = World::new();
    let first = world.start_agent();
    let _peer = world.welcome(Verdict::Forget).await;
    let second = world.command().output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("another agent (process {}) uses", first.0.id())), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_another_role_is_refused_at_once() {
    let world = World::new();
    let output = Command::new(env!("CARGO_BIN_EXE_modchain-agent"))
        .args(["start", "--orchestrator", "127.0.0.1:9", "--data"])
        .arg(world.data())
        .arg("--identity")
        .arg(world.dir.path().join("client"))
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is of the role client; an agent needs one of the role node"), "{said}");
}

#[test]
fn a_missing_identity_is_told_and_not_made() {
    let dir = tempfile::tempdir().expect("dir");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (identity, data) = (path("identity"), path("data"));
    let output = agent(&["start", "--orchestrator", "127.0.0.1:1", "--identity", &identity, "--data", &data]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("identity does not exist"), "{message}");
    assert!(!std::path::Path::new(&identity).exists());
}

#[test]
fn a_folder_that_others_may_enter_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("somebody's"), "file").expect("a folder in use");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let data = dir.path().to_str().expect("UTF-8");
    let output = agent(&["start", "--orchestrator", "127.0.0.1:1", "--identity", "/nowhere", "--data", data]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("chmod 0700"), "{message}");
    assert_eq!(fs::metadata(dir.path()).expect("metadata").permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    const SIGPIPE: i32 = 13;
    for line in [
        &["version"][..],
        &["version", "-o", "json"],
        &["info", "--data", "/tmp"],
        &["info", "-o", "json", "--data", "/tmp"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
        let command = command.env_clear().env("HOME", "/nonexistent").env("MODCHAIN_AGENT_ADAPTERS", "wasm").args(line);
        let done = command.stdout(writer).stderr(Stdio::piped()).output().expect("runs");
        assert_eq!(done.status.signal(), Some(SIGPIPE), "{line:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
