//! What the agent's program says on its command line.

mod scripted;

use std::fs;
use std::process::{Command, Output};

use modchain_types::Verdict;
use scripted::World;

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_modchain-agent"))
        .env_clear()
        .env("HOME", "/nonexistent")
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
