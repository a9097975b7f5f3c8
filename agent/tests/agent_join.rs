//! `join` and `doctor` of the agent's program, against a scripted orchestrator.

mod scripted;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use modchain_certs::Credentials;
use modchain_link::JoinEndpoint;
use modchain_types::{Role, Verdict};
use modchain_wire::Sentence;
use modchain_wire::join::{JoinRefusal, JoinRefused};
use scripted::{Agent, NODE, Newcomer, World, soon};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOUR: Duration = Duration::from_secs(3600);

fn agent(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
    command
        .env_clear()
        .env("HOME", world.dir.path())
        .env("MODCHAIN_AGENT_NVML_LIBRARY", "/nowhere")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn output(mut command: Command) -> Output {
    soon("the command", tokio::task::spawn_blocking(move || command.output().expect("runs"))).await.expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

struct Scene {
    world: World,
    join: JoinEndpoint,
    data: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (join, data) = (world.listen_join(), world.data());
        Self { world, join, data }
    }

    fn address(&self) -> String {
        self.join.local_address().expect("bound").to_string()
    }

    /// A file with this text.
    fn file(&self, text: &str) -> PathBuf {
        let path = self.world.dir.path().join("token");
        fs::write(&path, text).expect("writes");
        path
    }

    fn join(&self, token: &str) -> Command {
        let mut command = agent(&self.world);
        command.args(["join", "-o", "json", "--orchestrator", &self.address(), "--token-file"]);
        command.arg(self.file(token)).arg("--data").arg(&self.data);
        command
    }

    fn doctor(&self) -> Command {
        self.doctor_as("json")
    }

    fn doctor_as(&self, output: &str) -> Command {
        let mut command = agent(&self.world);
        command.args(["doctor", "-o", output, "--data"]).arg(&self.data);
        // Whatever else runs on this machine is not asked.
        command.env("DOCKER_HOST", format!("unix://{}", self.world.dir.path().join("docker.sock").display()));
        command.env("OLLAMA_HOST", "127.0.0.1:9");
        command
    }

    /// Joins, and gives what the command said.
    async fn joined(&self) -> Value {
        let (token, plan) = (self.world.token(Role::Node), self.world.plan(HOUR));
        let command = self.join(&token.text());
        let (output, _) = tokio::join!(output(command), self.world.take_in(&self.join, &token, &plan));
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&output.stdout)
    }

    /// The error of a command that joins in vain.
    async fn error(&self, command: Command) -> (Option<i32>, Value) {
        let output = output(command).await;
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        let error = json(&output.stderr);
        assert_eq!(error["schema"], "modchain.error/v1");
        assert_eq!(error["exit"].as_i64(), output.status.code().map(i64::from));
        (output.status.code(), error)
    }
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_join_start_needs_nothing_else() {
    let scene = Scene::new();
    let token = scene.world.token(Role::Node);
    let plan = scene.world.plan(HOUR);
    let mut command = scene.join(&format!("\n  {}\nmore lines\n", token.text().to_uppercase()));
    command.args(["--name", "wished"]);
    let (output, request) = tokio::join!(output(command), scene.world.take_in(&scene.join, &token, &plan));
    assert_eq!((request.role, request.name.map(|name| name.to_string())), (Role::Node, Some("wished".into())));
    let joined = json(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let main = joined["orchestrator"].as_str().expect("an address");
    assert!(main.starts_with("127.0.0.1:") && main != scene.address());
    let expected = serde_json::json!({
        "schema": "modchain.joined/v1",
        "name": "oslo-03",
        "id": NODE.to_string(),
        "role": "node",
        "account": "alice",
        "pool": "lab",
        "orchestrator": main,
        "identity": scene.data.join("identity"),
        "expires_at": jiff::Timestamp::from_millisecond(plan.not_after.0).expect("a time").to_string(),
        "renews_at": joined["renews_at"],
        "trust_domain": scene.world.authority.trust_domain().as_str(),
        "existing": false,
    });
    assert_eq!(joined, expected);
    assert!(joined["renews_at"].as_str() < joined["expires_at"].as_str());
    let secret = &token.text()[69..95];
    for file in ["joined.json", "identity/key.pem", "identity/cert.pem", "identity/ca.pem"] {
        let path = scene.data.join(file);
        assert!(!fs::read_to_string(&path).expect("reads").contains(secret), "{file}");
        let mode = fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, if file.ends_with("cert.pem") || file.ends_with("ca.pem") { 0o644 } else { 0o600 }, "{file}");
    }

    let mut start = agent(&scene.world);
    start.arg("start").arg("--data").arg(&scene.data).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut started = Agent(start.spawn().expect("starts"));
    let mut peer = scene.world.welcome(Verdict::Forget).await;
    assert_eq!(peer.shown.serial, plan.serial);
    peer.is_served().await;
    started.signal("-TERM");
    assert_eq!(started.exit_code().await, Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut started.0.stderr.take().expect("piped"), &mut said).expect("reads");
    let line = said.lines().find(|line| line.contains("this node's certificate")).unwrap_or_else(|| panic!("{said}"));
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["expires_at"], &line["renews_at"]), (&joined["expires_at"], &joined["renews_at"]));
    assert_eq!(line["serial"], plan.serial.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_comes_over_standard_input_and_flags_go_before_what_was_joined() {
    let scene = Scene::new();
    let (token, plan) = (scene.world.token(Role::Node), scene.world.plan(HOUR));
    let mut command = agent(&scene.world);
    command.args(["join", "--orchestrator", &scene.address(), "--token-file", "-"]);
    command.env("MODCHAIN_AGENT_DATA", &scene.data).stdin(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Not closed: the end of the line is enough.
    writeln!(stdin, "{}", &**token.text()).expect("writes");
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().expect("runs"));
    let (output, _) = tokio::join!(soon("the command", waited), scene.world.take_in(&scene.join, &token, &plan));
    drop(stdin);
    let output = output.expect("runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("joined pool lab as node oslo-03\n"), "{said}");
    let next = format!("next          modchain-agent start --data {}\n", scene.data.display());
    assert!(said.ends_with(&next), "{said}");
    // With a flag the agent goes elsewhere.
    let mut start = agent(&scene.world);
    start.args(["start", "--orchestrator", "127.0.0.1:9", "--identity", "/nonexistent"]);
    start.env("MODCHAIN_AGENT_DATA", &scene.data);
    let output = self::output(start).await;
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/nonexistent"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_token_is_told_before_anybody_is_asked() {
    let scene = Scene::new();
    let (node, client, operator) =
        (scene.world.token(Role::Node), scene.world.token(Role::Client), scene.world.token(Role::Operator));
    let mut mistyped = node.text().to_string();
    let last = mistyped.pop().expect("a character");
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    for (token, code, words) in [
        (mistyped.as_str(), "token_invalid", "typing error"),
        ("", "token_invalid", "not a join token"),
        (&node.text()[..80], "token_invalid", "80 characters"),
        (&**client.text(), "role_mismatch", "for the role client"),
        (&**operator.text(), "role_mismatch", "for the role operator"),
    ] {
        let (exit, error) = scene.error(scene.join(token)).await;
        assert_eq!((exit, error["code"].as_str()), (Some(2), Some(code)), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
        assert!(code != "role_mismatch" || error["hint"].as_str().is_some_and(|hint| hint.contains("`modchain join`")));
        assert!(!error.to_string().contains(&node.text()[69..90]), "the secret is not repeated");
    }
    assert!(!scene.data.exists(), "nothing was made");
    let mut none = agent(&scene.world);
    none.args(["join", "-o", "json", "--orchestrator", "127.0.0.1:9", "--data"]).arg(&scene.data);
    let (exit, error) = scene.error(none).await;
    assert!(exit == Some(2) && error["message"].as_str().is_some_and(|said| said.contains("--token-file")), "{error}");
    let mut nonsense = agent(&scene.world);
    nonsense.args(["join", "-o", "json", "--nonsense"]);
    let (exit, error) = scene.error(nonsense).await;
    assert_eq!((exit, error["code"].as_str()), (Some(2), Some("usage")), "{error}");
    assert!(error["message"].as_str().is_some_and(|said| said.contains("--nonsense")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_unreached_orchestrators_have_codes_of_their_own() {
    let scene = Scene::new();
    let token = scene.world.token(Role::Node);
    let refused = JoinRefused {
        code: JoinRefusal::TokenUsed,
        message: Sentence::cut("this token was used already\u{1b}[31m"),
        hint: Sentence::cut("ask for a new one"),
    };
    let refusing = async {
        let mut newcomer = Newcomer::next(&scene.join).await;
        newcomer.challenge().await.expect("asks");
        newcomer.last(refused.clone()).await;
    };
    let ((exit, error), ()) = tokio::join!(scene.error(scene.join(&token.text())), refusing);
    assert_eq!((exit, error["code"].as_str()), (Some(4), Some("token_used")));
    assert_eq!(error["hint"], "ask for a new one");

    // For people, and with the token where others can see it.
    let mut command = agent(&scene.world);
    command.args(["join", "--orchestrator", &scene.address(), "--token", &token.text(), "--data"]).arg(&scene.data);
    let refusing = async { Newcomer::next(&scene.join).await.last(refused.clone()).await };
    let (said, ()) = tokio::join!(output(command), refusing);
    assert_eq!(said.status.code(), Some(4));
    let said = text(&said.stderr);
    assert!(said.contains("warning: others on this machine can see the token with `ps`"), "{said}");
    assert!(said.ends_with("error: this token was used already[31m\n  hint: ask for a new one\n"), "{said}");

    let other = World::new();
    let foreign = scene.error(scene.join(&other.token(Role::Node).text())).await;
    assert_eq!((foreign.0, foreign.1["code"].as_str()), (Some(5), Some("untrusted")), "{}", foreign.1);
    drop(scene.join);
    let mut gone = agent(&scene.world);
    gone.args(["join", "-o", "json", "--orchestrator", "127.0.0.1:9", "--token", &token.text(), "--data"])
        .arg(&scene.data);
    let gone = output(gone).await;
    let error = json(text(&gone.stderr).lines().last().expect("an error").as_bytes());
    assert_eq!((gone.status.code(), error["code"].as_str()), (Some(5), Some("unreachable")), "{error}");
    assert!(!Credentials::exist(&scene.data.join("identity")) && !scene.data.join("joined.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_has_joined_keeps_its_identity_unless_it_is_to_be_replaced() {
    let scene = Scene::new();
    scene.joined().await;
    let before = fs::read(scene.data.join("identity/key.pem")).expect("reads");
    let token = scene.world.token(Role::Node);
    let (exit, error) = scene.error(scene.join(&token.text())).await;
    assert_eq!((exit, error["code"].as_str()), (Some(7), Some("already_joined")), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("--replace")), "{error}");
    assert_eq!(fs::read(scene.data.join("identity/key.pem")).expect("reads"), before);
    let plan = scene.world.plan(HOUR);
    let mut command = scene.join(&token.text());
    command.arg("--replace");
    let (output, _) = tokio::join!(output(command), scene.world.take_in(&scene.join, &token, &plan));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let now = Credentials::load(&scene.data.join("identity")).expect("loads");
    assert_eq!(now.identity().serial, plan.serial);
    assert_ne!(fs::read(scene.data.join("identity/key.pem")).expect("reads"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_begins_with_examples() {
    let world = World::new();
    for arguments in [&["--help"][..], &["join", "--help"], &["start", "--help"], &["doctor", "--help"]] {
        let mut command = agent(&world);
        command.args(arguments);
        let said = text(&output(command).await.stdout);
        let (examples, usage) = (said.find("Examples:\n  modchain-agent "), said.find("Usage: "));
        assert!(examples.is_some() && examples < usage, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_missing_and_what_to_do() {
    let scene = Scene::new();
    let before = output(scene.doctor()).await;
    let report = json(&before.stdout);
    assert_eq!(
        (before.status.code(), &report["schema"], &report["ok"]),
        (Some(1), &"modchain.doctor/v1".into(), &false.into())
    );
    let identity = check(&report, "identity");
    assert_eq!(identity["status"], "problem");
    assert!(identity["hint"].as_str().is_some_and(|hint| hint.contains("modchain-agent join")), "{identity}");
    assert!(!scene.data.exists(), "looking makes nothing");

    scene.joined().await;
    let key = scene.data.join("identity/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("opens");
    let loose = json(&output(scene.doctor()).await.stdout);
    let said = check(&loose, "identity")["detail"].as_str().expect("text").to_owned();
    assert!(said.contains("chmod 0600") && loose["ok"] == false, "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("closes");

    let telling = async { assert_eq!(Newcomer::next(&scene.join).await.challenge().await, None, "it only looks") };
    let (well, ()) = tokio::join!(output(scene.doctor()), telling);
    let report = json(&well.stdout);
    assert_eq!((well.status.code(), &report["ok"]), (Some(0), &true.into()), "{report}");
    for name in
        ["data", "identity", "certificate", "orchestrator", "join port", "clock", "UDP buffers", "docker", "ollama"]
    {
        let check = check(&report, name);
        assert_eq!((&check["status"], &check["hint"]), (&"ok".into(), &Value::Null), "{check}");
    }
    let detail = |name: &str| check(&report, name)["detail"].as_str().expect("text").to_owned();
    assert!(detail("identity").starts_with("oslo-03 of pool lab, account alice; node "), "{report}");
    assert!(detail("orchestrator").ends_with("takes this certificate"), "{report}");
    assert_eq!(check(&report, "agent")["status"], "warn");
    assert!(detail("docker").starts_with("there is none at ") && detail("ollama").starts_with("there is none at "));

    let telling = async { assert_eq!(Newcomer::next(&scene.join).await.challenge().await, None) };
    let (people, ()) = tokio::join!(output(scene.doctor_as("text")), telling);
    assert!(text(&people.stdout).contains("ok       identity      oslo-03 of pool lab"), "{}", text(&people.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_disturbs_no_running_agent() {
    let scene = Scene::new();
    scene.joined().await;
    let mut start = agent(&scene.world);
    start.arg("start").arg("--data").arg(&scene.data).stdout(Stdio::null()).stderr(Stdio::inherit());
    let started = Agent(start.spawn().expect("starts"));
    let mut peer = scene.world.welcome(Verdict::Forget).await;
    peer.is_served().await;
    let telling = async { assert_eq!(Newcomer::next(&scene.join).await.challenge().await, None) };
    let (well, ()) = tokio::join!(output(scene.doctor()), telling);
    let report = json(&well.stdout);
    assert_eq!(report["ok"], true, "{report}");
    let running = check(&report, "agent")["detail"].as_str().expect("text");
    assert_eq!(running, format!("it runs, as process {}", started.0.id()));
    let reached = check(&report, "orchestrator")["detail"].as_str().expect("text");
    assert!(reached.contains("left alone"), "{reached}");
    peer.is_served().await;
    assert!(scene.world.hears_nobody().await, "the orchestrator was handed no second connection of the node");

    peer.revoke();
    let report = soon("doctor to know", async {
        loop {
            let telling = async { assert_eq!(Newcomer::next(&scene.join).await.challenge().await, None) };
            let (ill, ()) = tokio::join!(output(scene.doctor()), telling);
            let report = json(&ill.stdout);
            if report["ok"] == false {
                assert_eq!(ill.status.code(), Some(1));
                return report;
            }
        }
    })
    .await;
    let refused = check(&report, "agent")["detail"].as_str().expect("text");
    assert!(refused.contains("does not take it") && refused.contains("revoked"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_docker_and_ollama() {
    let scene = Scene::new();
    let socket = scene.world.dir.path().join("docker.sock");
    let docker = tokio::net::UnixListener::bind(&socket).expect("listens");
    let ollama = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let at = ollama.local_addr().expect("bound").to_string();
    let docker = tokio::spawn(async move {
        while let Ok((mut stream, _)) = docker.accept().await {
            let body = match &asked(&mut stream).await {
                asked if asked.starts_with("GET /_ping ") => "OK",
                asked if asked.starts_with("GET /version ") => r#"{"Version":"27.3.1","ApiVersion":"1.47"}"#,
                asked => panic!("{asked}"),
            };
            stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await.expect("writes");
        }
    });
    let ollama = tokio::spawn(async move {
        for version in ["0.17.4", "0.16.0"] {
            let (mut stream, _) = ollama.accept().await.expect("accepts");
            assert!(asked(&mut stream).await.starts_with("GET /api/version "));
            let body = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{{\"version\":\"{version}\"}}");
            stream.write_all(body.as_bytes()).await.expect("writes");
        }
        // The third one gets no answer at all.
        std::future::pending::<()>().await;
    });
    let doctor = || {
        let mut command = scene.doctor();
        command.env("OLLAMA_HOST", &at);
        command
    };
    let report = json(&output(doctor()).await.stdout);
    let detail = |report: &Value, name: &str| check(report, name)["detail"].as_str().expect("text").to_owned();
    assert_eq!(detail(&report, "docker"), format!("version 27.3.1 (API 1.47) at {}", socket.display()));
    assert_eq!(detail(&report, "ollama"), format!("version 0.17.4 at {at}"));
    let report = json(&output(doctor()).await.stdout);
    assert_eq!(check(&report, "ollama")["status"], "warn");
    assert!(detail(&report, "ollama").contains("0.16.0") && detail(&report, "ollama").contains("known holes"));
    let report = json(&output(doctor()).await.stdout);
    assert!(detail(&report, "ollama").contains("does not answer"), "{report}");
    docker.abort();
    ollama.abort();
}

async fn asked(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("reads"));
    }
    text(&head)
}

/// Starts a program that may leave cores as large as it likes, in a folder.
fn with_cores(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""])
        .arg(program)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_agent_leaves_no_image_of_its_memory() {
    use std::os::unix::process::ExitStatusExt;
    let scene = Scene::new();
    scene.joined().await;
    let folder = scene.world.dir.path().join("crash");
    fs::create_dir(&folder).expect("makes");
    let sleep = with_cores(&folder, Path::new("sleep")).arg("600").spawn().expect("starts");
    let mut sleep = Agent(sleep);
    let running = || {
        fs::read_link(format!("/proc/{}/exe", sleep.0.id()))
            .is_ok_and(|exe| exe.ends_with("sleep") || exe.ends_with("coreutils") || exe.ends_with("busybox"))
    };
    let begun = async {
        while !running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("another program", begun).await;
    sleep.signal("-SEGV");
    let leaves = sleep.0.wait().expect("waits").core_dumped();
    println!("another program that crashes leaves an image: {leaves}");
    for file in fs::read_dir(&folder).expect("lists") {
        fs::remove_file(file.expect("lists").path()).expect("removes");
    }
    for signal in ["-SEGV", "-ABRT"] {
        let mut start = with_cores(&folder, Path::new(env!("CARGO_BIN_EXE_modchain-agent")));
        start.env_clear().env("HOME", scene.world.dir.path()).env("MODCHAIN_AGENT_NVML_LIBRARY", "/nowhere");
        start.arg("start").arg("--data").arg(&scene.data);
        let mut started = Agent(start.spawn().expect("starts"));
        let mut peer = scene.world.welcome(Verdict::Forget).await;
        peer.is_served().await;
        let limits = fs::read_to_string(format!("/proc/{}/limits", started.0.id())).expect("reads");
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("is there").to_owned();
        assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{cores}");
        // The first SIGSEGV that comes from outside is taken by the language's own handler, which then steps aside.
        let crash = async {
            loop {
                if let Some(status) = started.0.try_wait().expect("waits") {
                    return status;
                }
                started.signal(signal);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let status = soon("the crash", crash).await;
        assert!(status.signal().is_some() && !status.core_dumped(), "{signal}: {status:?}");
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), 0, "{signal}");
    }
}
